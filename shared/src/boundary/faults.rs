//! Faults at boundaries, for tests. A plan says which crossings are struck and how; a function that runs under it meets them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Boundary, Interruption};

tokio::task_local! {
    static FOLLOWED: Arc<Plan>;
}

/// What goes wrong at a crossing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    KilledBefore,
    KilledAfter,
    /// No effect, and an error that may pass.
    Error,
    /// The effect, and an error that may pass.
    TimeoutAfter,
    /// The effect twice. In between, another function is given the same message, to its end.
    Doubled,
}

impl Fault {
    pub const ALL: [Self; 5] = [Self::KilledBefore, Self::KilledAfter, Self::Error, Self::TimeoutAfter, Self::Doubled];

    pub fn name(self) -> &'static str {
        match self {
            Self::KilledBefore => "killed before",
            Self::KilledAfter => "killed after",
            Self::Error => "error",
            Self::TimeoutAfter => "timeout after the effect",
            Self::Doubled => "doubled",
        }
    }
}

/// One fault: at the n-th crossing of a boundary, counted from the plan's start or from the strike before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strike {
    pub boundary: Boundary,
    pub nth: u32,
    pub fault: Fault,
}

/// `claim chunk#2: killed after`
impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}: {}", self.boundary, self.nth, self.fault.name())
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a strike; write it like \"claim chunk#1: killed after\"");
        let (place, fault) = text.split_once(": ").ok_or_else(wrong)?;
        let (boundary, nth) = place.split_once('#').ok_or_else(wrong)?;
        Ok(Self {
            boundary: Boundary::ALL.iter().copied().find(|it| it.name() == boundary).ok_or_else(wrong)?,
            nth: nth.parse().map_err(|_| wrong())?,
            fault: Fault::ALL.into_iter().find(|it| it.name() == fault).ok_or_else(wrong)?,
        })
    }
}

/// Strikes in their order, and what was crossed so far.
#[derive(Debug, Default)]
pub struct Plan {
    state: Mutex<State>,
    killed: Notify,
    asks_for_another: Notify,
    another_is_done: Notify,
}

#[derive(Debug, Default)]
struct State {
    strikes: VecDeque<Strike>,
    since_last: BTreeMap<Boundary, u32>,
    crossed: Vec<Boundary>,
}

impl Plan {
    pub fn new(strikes: impl IntoIterator<Item = Strike>) -> Arc<Self> {
        let state = State { strikes: strikes.into_iter().collect(), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// Runs a function under this plan.
    pub async fn follow<F: Future>(self: &Arc<Self>, function: F) -> F::Output {
        FOLLOWED.scope(Arc::clone(self), function).await
    }

    /// Ends when the function was struck dead. Whoever runs it drops it then, with all it holds.
    pub async fn killed(&self) {
        self.killed.notified().await;
    }

    /// Ends when another function shall be given the same message; the struck one waits for [`Self::another_is_done`].
    pub async fn asks_for_another(&self) {
        self.asks_for_another.notified().await;
    }

    pub fn another_is_done(&self) {
        self.another_is_done.notify_one();
    }

    /// The strikes that have not come yet.
    pub fn left(&self) -> usize {
        self.state().strikes.len()
    }

    /// What was crossed, in order.
    pub fn crossed(&self) -> Vec<Boundary> {
        self.state().crossed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, boundary: Boundary) -> Option<Fault> {
        let mut state = self.state();
        state.crossed.push(boundary);
        let crossings = state.since_last.entry(boundary).or_default();
        *crossings += 1;
        let here = Strike { boundary, nth: *crossings, fault: Fault::Error };
        let fault = state.strikes.front().filter(|next| Strike { fault: here.fault, ..**next } == here)?.fault;
        state.strikes.pop_front();
        state.since_last.clear();
        Some(fault)
    }

    async fn die<T>(&self) -> T {
        self.killed.notify_one();
        std::future::pending().await
    }
}

/// Has the effect, at this boundary, or what the plan makes of it.
pub async fn cross<T, E, F>(boundary: Boundary, mut effect: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: From<Interruption>,
{
    let Ok(plan) = FOLLOWED.try_with(Arc::clone) else { return effect().await };
    match plan.meet(boundary) {
        None => effect().await,
        // Apart, so that no function's stack has to have room for all the ways in which it could go wrong.
        Some(fault) => Box::pin(strike(&plan, fault, effect)).await,
    }
}

async fn strike<T, E, F>(plan: &Plan, fault: Fault, mut effect: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: From<Interruption>,
{
    match fault {
        Fault::KilledBefore => plan.die().await,
        Fault::KilledAfter => {
            // Its answer is nobody's any more.
            let _ = effect().await;
            plan.die().await
        }
        Fault::Error => Err(Interruption::Before.into()),
        Fault::TimeoutAfter => {
            effect().await?;
            Err(Interruption::After.into())
        }
        Fault::Doubled => {
            effect().await?;
            plan.asks_for_another.notify_one();
            plan.another_is_done.notified().await;
            effect().await
        }
    }
}
