//! Delivery of events: signed, retried, and as untidy as asked for. "Stripe doesn't guarantee the
//! delivery of events in the order that they're generated"; "webhook endpoints might occasionally receive
//! the same event more than once." <https://docs.stripe.com/webhooks>

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::machine_ms;
use super::faults::{When, matches_pattern};
use super::ids::mix;
use super::objects::event_body;
use super::world::Event;

/// Where events go. Stripe has two kinds of endpoints, each with its own secret: the platform's own
/// events, and those of connected accounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WebhookTarget {
    pub url: String,
    pub platform_secret: String,
    pub connect_secret: String,
    /// Event types wanted, `*` for any text; empty: all.
    #[serde(default)]
    pub enabled_events: Vec<String>,
}

/// How events are delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryOptions {
    /// Deliveries under way at once; 1 keeps the order in which events happened.
    pub parallel: usize,
    pub timeout_ms: u64,
    /// Waits before the second, third … attempt; the last one repeats.
    pub retry_ms: Vec<u64>,
    pub max_attempts: u32,
    /// Before each first attempt.
    pub delay_ms: u64,
    /// How often each event is delivered.
    pub copies: u32,
    /// Picks among the waiting events by this seed instead of in order.
    pub shuffle_seed: Option<u64>,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            parallel: 8,
            timeout_ms: 20_000,
            retry_ms: vec![50, 100, 250, 500, 1_000, 2_000, 5_000],
            max_attempts: 40,
            delay_ms: 0,
            copies: 1,
            shuffle_seed: None,
        }
    }
}

/// Mistreats some events. The first rule that matches and is due decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRule {
    /// Event type, `*` for any text.
    pub event: String,
    #[serde(default)]
    pub account: Option<String>,
    #[serde(default)]
    pub when: When,
    pub action: DeliveryAction,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryAction {
    /// Never delivered.
    Drop,
    DelayMs(u64),
    Copies(u32),
    /// Not before an event of this type about the same object was delivered.
    After(String),
    /// Delivered twice under two event ids: one fact, two events.
    SecondId,
    /// Kept until `release_held`.
    Hold,
}

/// One attempt to deliver.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    pub event_id: String,
    pub event: String,
    pub account: Option<String>,
    pub object_id: String,
    pub attempt: u32,
    /// 0: no answer.
    pub status: u16,
}

/// How the delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeliveryState {
    pub waiting: usize,
    pub under_way: usize,
    pub held: usize,
    pub dropped: usize,
    pub given_up: usize,
}

#[derive(Debug)]
pub(super) struct Hooks {
    inner: Mutex<HooksState>,
    work: Notify,
    idle: Notify,
}

#[derive(Debug)]
struct HooksState {
    target: Option<Arc<WebhookTarget>>,
    options: DeliveryOptions,
    rules: Vec<(DeliveryRule, u64)>,
    queue: VecDeque<Job>,
    held: Vec<Job>,
    paused: bool,
    under_way: usize,
    dropped: usize,
    given_up: usize,
    picks: u64,
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Clone)]
struct Job {
    event: Arc<Event>,
    attempt: u32,
    not_before: Instant,
    after: Option<String>,
}

impl Hooks {
    pub(super) fn new(target: Option<WebhookTarget>, options: DeliveryOptions) -> Self {
        Self {
            inner: Mutex::new(HooksState {
                target: target.map(Arc::new),
                options,
                rules: Vec::new(),
                queue: VecDeque::new(),
                held: Vec::new(),
                paused: false,
                under_way: 0,
                dropped: 0,
                given_up: 0,
                picks: 0,
                deliveries: Vec::new(),
            }),
            work: Notify::new(),
            idle: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HooksState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, events: Vec<Arc<Event>>) {
        let mut state = self.lock();
        for event in events {
            state.plan(event);
        }
        drop(state);
        self.work.notify_one();
        self.idle.notify_waiters();
    }

    pub(super) fn set_target(&self, target: Option<WebhookTarget>) {
        self.lock().target = target.map(Arc::new);
        self.work.notify_one();
        self.idle.notify_waiters();
    }

    pub(super) fn set_options(&self, options: DeliveryOptions) {
        self.lock().options = options;
        self.work.notify_one();
    }

    pub(super) fn add_rule(&self, rule: DeliveryRule) {
        self.lock().rules.push((rule, 0));
    }

    pub(super) fn clear_rules(&self) {
        self.lock().rules.clear();
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        self.work.notify_one();
        self.idle.notify_waiters();
    }

    pub(super) fn release_held(&self) {
        let mut state = self.lock();
        let held = std::mem::take(&mut state.held);
        state.queue.extend(held);
        drop(state);
        self.work.notify_one();
    }

    /// Delivers one event once more, as an operator does by "resend".
    pub(super) fn resend(&self, event: Arc<Event>) {
        self.lock().queue.push_back(Job { event, attempt: 1, not_before: Instant::now(), after: None });
        self.work.notify_one();
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        self.lock().deliveries.clone()
    }

    pub(super) fn state(&self) -> DeliveryState {
        let state = self.lock();
        DeliveryState {
            waiting: state.queue.len(),
            under_way: state.under_way,
            held: state.held.len(),
            dropped: state.dropped,
            given_up: state.given_up,
        }
    }

    /// Returns when nothing waits and nothing is under way. Held events do not count, and a delivery
    /// that is paused or has no endpoint counts as done.
    pub(super) async fn all_delivered(&self) {
        loop {
            let changed = self.idle.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.lock();
                if state.under_way == 0 && (state.queue.is_empty() || state.paused || state.target.is_none()) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// The background task.
    pub(super) async fn run(self: Arc<Self>) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        loop {
            let (job, wake_at) = self.lock().next_job();
            match (job, wake_at) {
                (Some((job, target, timeout)), _) => {
                    let hooks = Arc::clone(&self);
                    let client = client.clone();
                    tokio::spawn(async move {
                        let status = tokio::time::timeout(timeout, send(&client, &target, &job.event)).await.unwrap_or(0);
                        hooks.finished(job, status);
                    });
                }
                (None, Some(at)) => {
                    tokio::select! { () = tokio::time::sleep_until(at) => {}, () = self.work.notified() => {} }
                }
                (None, None) => self.work.notified().await,
            }
        }
    }

    fn finished(&self, mut job: Job, status: u16) {
        let mut state = self.lock();
        state.under_way -= 1;
        state.deliveries.push(Delivery {
            event_id: job.event.id.clone(),
            event: job.event.kind.clone(),
            account: job.event.account.clone(),
            object_id: job.event.object_id.clone(),
            attempt: job.attempt,
            status,
        });
        if (200..300).contains(&status) {
            state.release_after(&job.event);
        } else if job.attempt >= state.options.max_attempts {
            state.given_up += 1;
        } else {
            let waits = &state.options.retry_ms;
            let step = usize::try_from(job.attempt - 1).unwrap_or(0).min(waits.len().saturating_sub(1));
            let wait = waits.get(step).copied().unwrap_or(100);
            job.attempt += 1;
            job.not_before = Instant::now() + Duration::from_millis(wait);
            state.queue.push_back(job);
        }
        drop(state);
        self.work.notify_one();
        self.idle.notify_waiters();
    }
}

impl HooksState {
    fn plan(&mut self, event: Arc<Event>) {
        let Some(target) = &self.target else { return };
        let wanted = &target.enabled_events;
        if !wanted.is_empty() && !wanted.iter().any(|pattern| matches_pattern(pattern, &event.kind)) {
            return;
        }
        let mut action = None;
        for (rule, seen) in &mut self.rules {
            let concerns = matches_pattern(&rule.event, &event.kind)
                && rule.account.as_ref().is_none_or(|id| event.account.as_ref() == Some(id));
            if concerns {
                *seen += 1;
                if action.is_none() && rule.when.is_due(*seen) {
                    action = Some(rule.action.clone());
                }
            }
        }
        let delay = match action {
            Some(DeliveryAction::DelayMs(ms)) => ms,
            _ => self.options.delay_ms,
        };
        let mut job = Job { event, attempt: 1, not_before: Instant::now() + Duration::from_millis(delay), after: None };
        let copies = match &action {
            Some(DeliveryAction::Copies(n)) => *n,
            _ => self.options.copies,
        };
        match action {
            Some(DeliveryAction::Drop) => {
                self.dropped += 1;
                return;
            }
            Some(DeliveryAction::Hold) => {
                self.held.push(job);
                return;
            }
            Some(DeliveryAction::After(kind)) => {
                job.after = Some(kind);
                self.held.push(job);
                return;
            }
            Some(DeliveryAction::SecondId) => {
                let mut twin = job.clone();
                let event = &job.event;
                twin.event = Arc::new(Event {
                    id: format!("{}b", event.id),
                    kind: event.kind.clone(),
                    account: event.account.clone(),
                    created: event.created,
                    object_id: event.object_id.clone(),
                    object: event.object.clone(),
                    previous: event.previous.clone(),
                    request: event.request.clone(),
                    owner: event.owner,
                    livemode: event.livemode,
                });
                self.queue.push_back(twin);
            }
            _ => {}
        }
        for _ in 1..copies {
            self.queue.push_back(job.clone());
        }
        if copies > 0 {
            self.queue.push_back(job);
        }
    }

    fn release_after(&mut self, done: &Event) {
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|job: &Job| job.after.as_deref() == Some(done.kind.as_str()) && job.event.object_id == done.object_id);
        self.held = held;
        self.queue.extend(Vec::from_iter::<Vec<Job>>(ready));
    }

    /// The next event to send, or when to look again.
    #[expect(clippy::type_complexity, reason = "used once, by the loop above")]
    fn next_job(&mut self) -> (Option<(Job, Arc<WebhookTarget>, Duration)>, Option<Instant>) {
        let Some(target) = self.target.clone() else {
            return (None, None);
        };
        if self.paused || self.under_way >= self.options.parallel.max(1) {
            return (None, None);
        }
        let now = Instant::now();
        let chosen = match self.options.shuffle_seed {
            None => self.queue.iter().position(|job| job.not_before <= now),
            Some(seed) => {
                let ready: Vec<usize> = (0..self.queue.len()).filter(|i| self.queue[*i].not_before <= now).collect();
                self.picks += 1;
                let count = u64::try_from(ready.len()).unwrap_or(1).max(1);
                usize::try_from(mix(seed ^ mix(self.picks)) % count).ok().and_then(|i| ready.get(i).copied())
            }
        };
        match chosen.and_then(|i| self.queue.remove(i)) {
            Some(job) => {
                self.under_way += 1;
                (Some((job, target, Duration::from_millis(self.options.timeout_ms))), None)
            }
            None => (None, self.queue.iter().map(|job| job.not_before).min()),
        }
    }
}

async fn send(client: &Client<HttpConnector, Full<Bytes>>, target: &WebhookTarget, event: &Event) -> u16 {
    let body = event_body(event);
    let secret = if event.account.is_some() { &target.connect_secret } else { &target.platform_secret };
    let signature = signature(secret, machine_ms().div_euclid(1000), &body);
    let request = http::Request::post(&target.url)
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(Full::new(Bytes::from(body)));
    let Ok(request) = request else { return 0 };
    match client.request(request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            // Read to the end, so that the connection can be used again.
            let _ = response.into_body().collect().await;
            status
        }
        Err(_) => 0,
    }
}

/// `t=…,v1=…`, and the `v0` of test mode that must be ignored.
/// <https://docs.stripe.com/webhooks#verify-manually>
pub fn signature(secret: &str, at_seconds: i64, body: &[u8]) -> String {
    let digest = |secret: &str| {
        Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .map(|mut mac| {
                mac.update(at_seconds.to_string().as_bytes());
                mac.update(b".");
                mac.update(body);
                hex::encode(mac.finalize().into_bytes())
            })
            .unwrap_or_default()
    };
    format!("t={at_seconds},v1={},v0={}", digest(secret), digest("whsec_v0"))
}
