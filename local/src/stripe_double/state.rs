//! What all requests share: the state under one lock, the clock, the listener's switch, and the delivery
//! of webhooks. The lock is held for one step of one request and never over a wait.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::calls::CallLog;
use super::clock::DoubleClock;
use super::faults::Faults;
use super::pipeline::ApiKeys;
use super::rates::Limiter;
use super::webhooks::Hooks;
use super::world::World;

#[derive(Debug)]
pub(super) struct State {
    pub world: World,
    pub keys: ApiKeys,
    pub limiter: Limiter,
    pub faults: Faults,
    pub log: CallLog,
}

#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    pub address: SocketAddr,
    pub clock: DoubleClock,
    pub latency: Mutex<Latency>,
    pub hooks: Arc<Hooks>,
    /// Whether the listener is open.
    pub open: watch::Sender<bool>,
    /// While held, requests wait between the idempotency layer and their execution.
    pub held: watch::Sender<bool>,
    /// How many wait there.
    pub waiting: watch::Sender<usize>,
    /// Unix milliseconds of the earliest thing due; `i64::MAX`: none.
    next_due_ms: AtomicI64,
    pub due_changed: Notify,
}

/// How long an answer takes: half before the execution, half after.
#[derive(Debug, Clone, Default)]
pub(super) struct Latency {
    pub every_ms: u64,
    pub by_endpoint: Vec<(String, u64)>,
}

impl Inner {
    pub(super) fn new(state: State, address: SocketAddr, clock: DoubleClock, latency: Latency, hooks: Arc<Hooks>) -> Self {
        Self {
            state: Mutex::new(state),
            address,
            clock,
            latency: Mutex::new(latency),
            hooks,
            open: watch::Sender::new(true),
            held: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
            next_due_ms: AtomicI64::new(i64::MAX),
            due_changed: Notify::new(),
        }
    }

    /// One step: brings the world up to the time, does it, hands new events to the delivery.
    pub(super) fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.now_ms();
        state.world.run_due(now_ms);
        let result = step(&mut state);
        // What became due at this very instant, such as a settlement without delay.
        state.world.run_due(now_ms);
        if !state.world.outbox.is_empty() {
            self.hooks.push(std::mem::take(&mut state.world.outbox));
        }
        let next = state.world.next_due_ms().unwrap_or(i64::MAX);
        drop(state);
        if self.next_due_ms.swap(next, Ordering::AcqRel) > next {
            self.due_changed.notify_one();
        }
        result
    }

    /// The door between entering and executing.
    pub(super) async fn pass_door(&self) {
        if *self.held.borrow() {
            let mut held = self.held.subscribe();
            self.waiting.send_modify(|n| *n += 1);
            let _ = held.wait_for(|held| !held).await;
            self.waiting.send_modify(|n| *n -= 1);
        }
    }

    pub(super) fn next_due_ms(&self) -> Option<i64> {
        Some(self.next_due_ms.load(Ordering::Acquire)).filter(|at| *at != i64::MAX)
    }

    pub(super) fn latency_ms(&self, endpoint: &str) -> u64 {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.by_endpoint.iter().find(|(name, _)| name == endpoint).map_or(latency.every_ms, |(_, ms)| *ms)
    }

    /// Closes the listener and cuts every connection; opens again after a while, or when told.
    pub(super) fn go_down(self: &Arc<Self>, for_a_while: Option<Duration>) {
        self.open.send_replace(false);
        if let Some(duration) = for_a_while {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(duration).await;
                inner.open.send_replace(true);
            });
        }
    }

    /// With a clock that runs: sees to it that what falls due happens without anybody asking.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let wait_ms = self.next_due_ms().map(|at| at - self.clock.now_ms());
            match wait_ms {
                Some(ms) if ms <= 0 => self.with(|_| ()),
                Some(ms) => {
                    let sleep = tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(1)));
                    tokio::select! { () = sleep => self.with(|_| ()), () = self.due_changed.notified() => {} }
                }
                None => self.due_changed.notified().await,
            }
        }
    }
}
