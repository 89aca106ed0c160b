//! EventBridge Scheduler on one machine: the template's schedules and those that functions create, which really fire.
//!
//! A schedule starts its target as AWS does, without waiting for it: the Scheduler's own retries and dead letters are for a
//! delivery that fails (a target that does not exist); what the function itself fails is repeated by Lambda, after one and
//! two minutes, and then goes to the function's failure destination.
//!
//! After a sleep of the machine, a schedule that missed several times fires once, for the latest.

mod endpoint;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use winterbaume_scheduler::SchedulerService;

use crate::activity::Activity;
use crate::cron::Timing;
use crate::identity::Identities;
use crate::lambda_host::{InvokeError, LambdaHost};
use crate::queues::Queues;
use crate::template::{Place, Wiring};

/// Lambda repeats a failed asynchronous event after one minute, then after two.
const ASYNC_RETRIES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FireError {
    #[error("there is no schedule {name}; there are {known}")]
    Unknown { name: String, known: String },
    #[error("the schedule {0} is disabled")]
    Disabled(String),
    #[error("the schedule {name} starts {target}, which is not here")]
    NoTarget { name: String, target: String },
    #[error(transparent)]
    Failed(#[from] InvokeError),
}

/// The schedules of a stack. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    service: SchedulerService,
    schedules: Mutex<BTreeMap<(String, String), Kept>>,
    changed: Notify,
    place: Place,
    wiring: Arc<Wiring>,
    identities: Arc<Identities>,
    host: LambdaHost,
    queues: Queues,
    activity: Activity,
    retry_after: Option<Duration>,
}

/// A schedule as it was last created or updated.
#[derive(Debug, Clone)]
struct Kept {
    body: Json,
    timing: Timing,
    since: DateTime<Utc>,
    /// The last scheduled time that was fired for, or from when on to look.
    done: DateTime<Utc>,
}

fn timing_of(body: &Json) -> Result<Timing, String> {
    let text = |key: &str| body.get(key).and_then(Json::as_str);
    Timing::parse(text("ScheduleExpression").unwrap_or_default(), text("ScheduleExpressionTimezone").unwrap_or("UTC"))
}

impl Kept {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.body.pointer(pointer).and_then(Json::as_str)
    }

    fn is_enabled(&self) -> bool {
        self.text("/State") != Some("DISABLED")
    }

    fn instant(&self, pointer: &str) -> Option<DateTime<Utc>> {
        #[expect(clippy::cast_possible_truncation, reason = "the API gives instants as seconds that may have a fraction")]
        let seconds = self.body.pointer(pointer).and_then(Json::as_f64)? as i64;
        DateTime::from_timestamp(seconds, 0)
    }

    /// When it is due next, within its start and end.
    fn due(&self) -> Option<DateTime<Utc>> {
        let from = self.instant("/StartDate").map_or(self.done, |start| self.done.max(start - chrono::TimeDelta::seconds(1)));
        let due = self.timing.next(from, self.since)?;
        self.instant("/EndDate").is_none_or(|end| due <= end).then_some(due)
    }
}

pub struct SchedulerParts {
    pub place: Place,
    pub wiring: Arc<Wiring>,
    pub identities: Arc<Identities>,
    pub host: LambdaHost,
    pub queues: Queues,
    pub activity: Activity,
    /// Stands in for the minutes between Lambda's retries.
    pub retry_after: Option<Duration>,
}

impl Scheduler {
    /// Sets up the template's schedules.
    pub async fn new(parts: SchedulerParts) -> Result<Self, String> {
        let SchedulerParts { place, wiring, identities, host, queues, activity, retry_after } = parts;
        let inner = Inner {
            service: SchedulerService::new(),
            schedules: Mutex::default(),
            changed: Notify::new(),
            place,
            wiring,
            identities,
            host,
            queues,
            activity,
            retry_after,
        };
        for group in &inner.wiring.schedule_groups {
            let body = json!({ "ClientToken": group });
            inner.own_request("POST", &format!("/schedule-groups/{group}"), Some(&body)).await?;
        }
        for schedule in &inner.wiring.schedules {
            let body = schedule.as_request();
            inner.own_request("POST", &format!("/schedules/{}", schedule.name), Some(&body)).await?;
            inner.keep(&schedule.group, &schedule.name, body);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Serves the API until the task is aborted.
    pub fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let router = endpoint::router(Arc::clone(&self.0));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the scheduler endpoint stopped");
            }
        })
    }

    /// Fires what is due, from now on, until the task is aborted.
    pub fn start(&self) -> JoinHandle<()> {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            loop {
                let changed = inner.changed.notified();
                for (group, name, at) in inner.take_due(Utc::now()) {
                    let inner = Arc::clone(&inner);
                    tokio::spawn(async move {
                        if let Err(error) = inner.fire(&group, &name, at).await {
                            tracing::warn!(name, %error, "the schedule's first attempt failed");
                        }
                        inner.complete_once(&group, &name).await;
                    });
                }
                let next = inner.lock().values().filter_map(Kept::due).min();
                let wait = next.and_then(|next| (next - Utc::now()).to_std().ok()).unwrap_or(Duration::from_secs(30));
                // Looked at anew at least twice a minute: the machine may sleep, and its clock may be set.
                let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(30));
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        })
    }

    /// Fires a schedule of that name as of `at`, and waits for what its target says to the first attempt. A schedule that is
    /// disabled does not fire.
    pub async fn fire(&self, name: &str, at: DateTime<Utc>) -> Result<Json, FireError> {
        let group = {
            let schedules = self.0.lock();
            match schedules.keys().find(|(_, known)| known == name) {
                Some((group, _)) => group.clone(),
                None => {
                    let known: Vec<&str> = schedules.keys().map(|(_, name)| name.as_str()).collect();
                    return Err(FireError::Unknown { name: name.to_owned(), known: known.join(", ") });
                }
            }
        };
        self.0.fire(&group, name, at).await
    }

    /// Names of all schedules, with when each is due next; none for a disabled one.
    pub fn schedules(&self) -> Vec<(String, Option<DateTime<Utc>>)> {
        let due = |kept: &Kept| kept.is_enabled().then(|| kept.due()).flatten();
        self.0.lock().iter().map(|((_, name), kept)| (name.clone(), due(kept))).collect()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Kept>> {
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, group: &str, name: &str, body: Json) {
        let Ok(timing) = timing_of(&body) else { return };
        let now = Utc::now();
        self.lock().insert((group.to_owned(), name.to_owned()), Kept { body, timing, since: now, done: now });
        self.changed.notify_one();
    }

    fn forget(&self, group: &str, name: &str) {
        self.lock().remove(&(group.to_owned(), name.to_owned()));
        self.changed.notify_one();
    }

    fn kept(&self, group: &str, name: &str) -> Option<Json> {
        self.lock().get(&(group.to_owned(), name.to_owned())).map(|kept| kept.body.clone())
    }

    /// What is due by now, each once for its latest time; a disabled schedule's time passes unused.
    fn take_due(&self, now: DateTime<Utc>) -> Vec<(String, String, DateTime<Utc>)> {
        let mut due = Vec::new();
        for ((group, name), kept) in self.lock().iter_mut() {
            let mut latest = None;
            while let Some(at) = kept.due().filter(|at| *at <= now) {
                kept.done = at;
                latest = Some(at);
            }
            if let Some(at) = latest.filter(|_| kept.is_enabled()) {
                due.push((group.clone(), name.clone(), at));
            }
        }
        due
    }

    /// A one-off schedule that has fired goes, if it asked for that.
    async fn complete_once(&self, group: &str, name: &str) {
        let completed = {
            let schedules = self.lock();
            let kept = schedules.get(&(group.to_owned(), name.to_owned()));
            kept.is_some_and(|kept| kept.text("/ActionAfterCompletion") == Some("DELETE") && kept.due().is_none())
        };
        if completed {
            if let Err(error) = self.own_request("DELETE", &format!("/schedules/{name}?groupName={group}"), None).await {
                tracing::warn!(name, error, "the completed schedule could not be deleted");
            }
            self.forget(group, name);
        }
    }

    async fn fire(self: &Arc<Self>, group: &str, name: &str, at: DateTime<Utc>) -> Result<Json, FireError> {
        let kept = self.lock().get(&(group.to_owned(), name.to_owned())).cloned();
        let Some(kept) = kept else {
            return Err(FireError::Unknown { name: name.to_owned(), known: String::new() });
        };
        if !kept.is_enabled() {
            return Err(FireError::Disabled(name.to_owned()));
        }
        let running = self.activity.begin();
        let input = self.input(&kept, group, name, at);
        let target = kept.text("/Target/Arn").unwrap_or_default().to_owned();
        if let Some(queue) = self.wiring.queues.values().find(|queue| queue.arn == target) {
            let sent = self.queues.send(&queue.name, &input);
            return sent.map(|id| json!({ "messageId": id })).map_err(|_| FireError::NoTarget { name: name.to_owned(), target });
        }
        let Some(function) = self.wiring.functions.values().find(|function| function.arn == target) else {
            // AWS would try for the policy's time first; a target that is not in the template will not appear.
            if let Some(dead_letter) = kept.text("/Target/DeadLetterConfig/Arn") {
                let _ = self.queues.send(dead_letter, &input);
            }
            return Err(FireError::NoTarget { name: name.to_owned(), target });
        };
        let payload = serde_json::from_str(&input).unwrap_or(Json::String(input));
        let first = self.host.invoke(&function.name, &payload).await;
        if let Err(error) = &first {
            let (inner, function, error) = (Arc::clone(self), function.clone(), error.clone());
            tokio::spawn(async move {
                inner.again(&function, &payload, error).await;
                drop(running);
            });
        }
        Ok(first?)
    }

    /// Lambda's retries of an asynchronous event, and what it does after the last.
    async fn again(&self, function: &crate::template::Function, payload: &Json, mut error: InvokeError) {
        let retries = usize::try_from(function.asynchronous.retries).unwrap_or(0).min(ASYNC_RETRIES.len());
        for pause in &ASYNC_RETRIES[..retries] {
            tokio::time::sleep(self.retry_after.unwrap_or(*pause)).await;
            match self.host.invoke(&function.name, payload).await {
                Ok(_) => return,
                Err(again) => error = again,
            }
        }
        tracing::error!(function = function.name, %error, "the event was given up");
        if let Some(queue) = &function.asynchronous.on_failure_queue {
            let record = json!({
                "version": "1.0",
                "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
                "requestContext": {
                    "requestId": uuid::Uuid::new_v4().to_string(),
                    "functionArn": format!("{}:$LATEST", function.arn),
                    "condition": "RetriesExhausted",
                    "approximateInvokeCount": retries + 1,
                },
                "requestPayload": payload,
                "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
                "responsePayload": { "errorMessage": error.kind.to_string() },
            });
            let _ = self.queues.send(queue, &record.to_string());
        }
    }

    /// The target's input with the Scheduler's own attributes filled in.
    fn input(&self, kept: &Kept, group: &str, name: &str, at: DateTime<Utc>) -> String {
        let attributes = [
            ("<aws.scheduler.schedule-arn>", self.place.arn("scheduler", &format!("schedule/{group}/{name}"))),
            ("<aws.scheduler.scheduled-time>", at.to_rfc3339_opts(SecondsFormat::Secs, true)),
            ("<aws.scheduler.execution-id>", uuid::Uuid::new_v4().to_string()),
            ("<aws.scheduler.attempt-number>", "1".to_owned()),
        ];
        let input = kept.text("/Target/Input").unwrap_or("{}").to_owned();
        attributes.iter().fold(input, |input, (name, value)| input.replace(name, value))
    }
}
