//! The messages of all queues: sending, hiding, receiving, deleting, moving to the dead-letter queue.
//!
//! `winterbaume-sqs` brings a store of its own, which is not used, because it cannot wake anybody, looks through all messages
//! for each receive and delete, and counts a message that came back as neither visible nor in flight.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use md5::{Digest, Md5};
use tokio::sync::Notify;
use winterbaume_sqs::types::MessageAttribute;

use crate::activity::Activity;
use crate::template::Queue;

/// A message as it is handed to a receiver.
#[derive(Debug, Clone)]
pub struct Received {
    pub message_id: String,
    pub receipt_handle: String,
    pub body: String,
    pub md5: String,
    pub sent_at_ms: i64,
    pub first_received_at_ms: i64,
    pub receive_count: u32,
    pub attributes: HashMap<String, MessageAttribute>,
}

/// How many messages a queue holds, by what they wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub visible: usize,
    pub in_flight: usize,
    pub delayed: usize,
}

impl Depth {
    pub fn total(self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

/// What shall happen to the next message sent to a queue. SQS may do the first on any day; the others are for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Delivered twice, at once if there are two receivers.
    Duplicate,
    /// Accepted, and never seen again.
    Drop,
    Delay(Duration),
}

#[derive(Debug, thiserror::Error)]
#[error("The specified queue does not exist.")]
pub struct NoSuchQueue;

#[derive(Debug, Clone)]
struct Message {
    message_id: String,
    body: Arc<str>,
    md5: String,
    sent_at: DateTime<Utc>,
    first_received_at: Option<DateTime<Utc>>,
    receive_count: u32,
    visible_at: DateTime<Utc>,
    attributes: HashMap<String, MessageAttribute>,
}

struct State {
    settings: Queue,
    messages: HashMap<u64, Message>,
    /// The order of receiving: by when visible, then by when sent.
    order: BTreeSet<(DateTime<Utc>, u64)>,
    faults: VecDeque<Fault>,
}

pub struct Store {
    queues: HashMap<String, (Mutex<State>, Arc<Notify>)>,
    numbers: std::sync::atomic::AtomicU64,
    activity: Activity,
}

/// A receipt handle names its message, so that deleting needs no search and an old handle still works, as on AWS.
fn handle(number: u64) -> String {
    format!("{number}-{}", uuid::Uuid::new_v4())
}

fn number_of(handle: &str) -> Option<u64> {
    let (number, id) = handle.split_once('-')?;
    uuid::Uuid::parse_str(id).ok()?;
    number.parse().ok()
}

fn later(instant: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| instant.checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl State {
    fn insert(&mut self, number: u64, message: Message) {
        self.order.insert((message.visible_at, number));
        self.messages.insert(number, message);
    }

    fn remove(&mut self, number: u64) -> Option<Message> {
        let message = self.messages.remove(&number)?;
        self.order.remove(&(message.visible_at, number));
        Some(message)
    }
}

impl Store {
    pub fn new(queues: impl IntoIterator<Item = Queue>, activity: Activity) -> Self {
        let state =
            |settings: Queue| State { settings, messages: HashMap::new(), order: BTreeSet::new(), faults: VecDeque::new() };
        Self {
            queues: queues.into_iter().map(|queue| (queue.name.clone(), (Mutex::new(state(queue)), Arc::default()))).collect(),
            numbers: std::sync::atomic::AtomicU64::new(1),
            activity,
        }
    }

    fn queue(&self, queue: &str) -> Result<(MutexGuard<'_, State>, &Arc<Notify>), NoSuchQueue> {
        let (state, notify) = self.queues.get(queue).ok_or(NoSuchQueue)?;
        Ok((state.lock().unwrap_or_else(PoisonError::into_inner), notify))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    pub fn settings(&self, queue: &str) -> Result<Queue, NoSuchQueue> {
        Ok(self.queue(queue)?.0.settings.clone())
    }

    pub fn names(&self) -> Vec<String> {
        self.queues.keys().cloned().collect()
    }

    /// Returns the message's id and the MD5 of its body.
    pub fn send(
        &self,
        queue: &str,
        body: &str,
        delay: Option<Duration>,
        attributes: HashMap<String, MessageAttribute>,
    ) -> Result<(String, String), NoSuchQueue> {
        let (mut state, notify) = self.queue(queue)?;
        let fault = state.faults.pop_front();
        let delay = match fault {
            Some(Fault::Delay(delay)) => delay,
            _ => delay.unwrap_or(state.settings.delay),
        };
        let now = Utc::now();
        let message = Message {
            message_id: uuid::Uuid::new_v4().to_string(),
            body: body.into(),
            md5: hex::encode(Md5::digest(body)),
            sent_at: now,
            first_received_at: None,
            receive_count: 0,
            visible_at: later(now, delay),
            attributes,
        };
        let sent = (message.message_id.clone(), message.md5.clone());
        let copies = match fault {
            Some(Fault::Drop) => 0,
            Some(Fault::Duplicate) => 2,
            Some(Fault::Delay(_)) | None => 1,
        };
        for _ in 0..copies {
            state.insert(self.number(), message.clone());
        }
        drop(state);
        notify.notify_waiters();
        self.activity.changed();
        Ok(sent)
    }

    /// Up to `max` visible messages whose bodies together stay under `max_bytes` (the first always comes), hidden from others
    /// for `hide` or the queue's own time. What was received too often goes to the dead-letter queue instead.
    pub fn receive(
        &self,
        queue: &str,
        max: usize,
        max_bytes: usize,
        hide: Option<Duration>,
    ) -> Result<Vec<Received>, NoSuchQueue> {
        let (mut state, _) = self.queue(queue)?;
        let now = Utc::now();
        let hide = hide.unwrap_or(state.settings.visibility_timeout);
        let retention = state.settings.retention;
        let redrive = state.settings.redrive.clone();
        let mut received: Vec<Received> = Vec::new();
        let mut dead = Vec::new();
        let mut bytes = 0;
        while received.len() < max {
            let Some((visible_at, number)) = state.order.first().copied() else { break };
            if visible_at > now {
                break;
            }
            let Some(mut message) = state.remove(number) else { break };
            if later(message.sent_at, retention) <= now {
                continue;
            }
            if redrive.as_ref().is_some_and(|redrive| message.receive_count >= redrive.max_receive_count) {
                dead.push(message);
                continue;
            }
            bytes += message.body.len();
            if bytes > max_bytes && !received.is_empty() {
                state.insert(number, message);
                break;
            }
            message.receive_count += 1;
            let first = *message.first_received_at.get_or_insert(now);
            message.visible_at = later(now, hide);
            received.push(Received {
                message_id: message.message_id.clone(),
                receipt_handle: handle(number),
                body: message.body.to_string(),
                md5: message.md5.clone(),
                sent_at_ms: message.sent_at.timestamp_millis(),
                first_received_at_ms: first.timestamp_millis(),
                receive_count: message.receive_count,
                attributes: message.attributes.clone(),
            });
            state.insert(number, message);
        }
        drop(state);
        if let Some(redrive) = redrive.filter(|_| !dead.is_empty())
            && let Ok((mut target, notify)) = self.queue(&redrive.dead_letter_queue)
        {
            for message in dead {
                // Its age still counts from the first sending, as on AWS.
                target.insert(self.number(), Message { receive_count: 0, first_received_at: None, visible_at: now, ..message });
            }
            drop(target);
            notify.notify_waiters();
        }
        self.activity.changed();
        Ok(received)
    }

    /// Like `receive`, but waits until there is something. Woken by a sending and by the end of a hiding, never by a timer
    /// that polls.
    pub async fn receive_waiting(&self, queue: &str, max: usize, max_bytes: usize) -> Result<Vec<Received>, NoSuchQueue> {
        let (_, notify) = self.queues.get(queue).ok_or(NoSuchQueue)?;
        loop {
            let sent = notify.notified();
            tokio::pin!(sent);
            sent.as_mut().enable();
            let received = self.receive(queue, max, max_bytes, None)?;
            if !received.is_empty() {
                return Ok(received);
            }
            let next = self.queue(queue)?.0.order.first().map(|(visible_at, _)| *visible_at);
            let wait =
                next.and_then(|at| (at - Utc::now()).to_std().ok()).unwrap_or(Duration::from_millis(u64::from(next.is_some())));
            tokio::select! {
                () = sent => {}
                () = tokio::time::sleep(wait), if next.is_some() => {}
            }
        }
    }

    /// Deleting what is gone already is fine; a handle that never was one is not.
    pub fn delete(&self, queue: &str, receipt_handle: &str) -> Result<bool, NoSuchQueue> {
        let (mut state, _) = self.queue(queue)?;
        let Some(number) = number_of(receipt_handle) else { return Ok(false) };
        state.remove(number);
        drop(state);
        self.activity.changed();
        Ok(true)
    }

    /// Hides the message for that long from now. False if the handle names no message that is there.
    pub fn hide(&self, queue: &str, receipt_handle: &str, hide: Duration) -> Result<bool, NoSuchQueue> {
        let (mut state, notify) = self.queue(queue)?;
        let Some(number) = number_of(receipt_handle) else { return Ok(false) };
        let Some(mut message) = state.remove(number) else { return Ok(false) };
        message.visible_at = later(Utc::now(), hide);
        state.insert(number, message);
        drop(state);
        notify.notify_waiters();
        self.activity.changed();
        Ok(true)
    }

    pub fn purge(&self, queue: &str) -> Result<(), NoSuchQueue> {
        let (mut state, _) = self.queue(queue)?;
        state.messages.clear();
        state.order.clear();
        drop(state);
        self.activity.changed();
        Ok(())
    }

    pub fn depth(&self, queue: &str) -> Result<Depth, NoSuchQueue> {
        let (state, _) = self.queue(queue)?;
        let now = Utc::now();
        let mut depth = Depth::default();
        for message in state.messages.values() {
            match (message.visible_at <= now, message.receive_count) {
                (true, _) => depth.visible += 1,
                (false, 0) => depth.delayed += 1,
                (false, _) => depth.in_flight += 1,
            }
        }
        Ok(depth)
    }

    /// All messages of a queue, whatever they wait for.
    pub fn len(&self, queue: &str) -> Result<usize, NoSuchQueue> {
        Ok(self.queue(queue)?.0.messages.len())
    }

    /// The bodies a queue holds, oldest first, without receiving them.
    pub fn bodies(&self, queue: &str) -> Result<Vec<String>, NoSuchQueue> {
        let (state, _) = self.queue(queue)?;
        let mut messages: Vec<_> = state.messages.iter().collect();
        messages.sort_by_key(|(number, _)| **number);
        Ok(messages.into_iter().map(|(_, message)| message.body.to_string()).collect())
    }

    /// Applies the fault to one of the next sendings; several given are taken in order.
    pub fn fault(&self, queue: &str, fault: Fault) -> Result<(), NoSuchQueue> {
        self.queue(queue)?.0.faults.push_back(fault);
        Ok(())
    }

    /// Makes everything hidden or delayed in the queue visible now, as if its time had passed.
    pub fn reveal(&self, queue: &str) -> Result<usize, NoSuchQueue> {
        let (mut state, notify) = self.queue(queue)?;
        let now = Utc::now();
        let hidden: Vec<u64> = state.order.iter().filter(|(at, _)| *at > now).map(|(_, number)| *number).collect();
        for number in &hidden {
            if let Some(mut message) = state.remove(*number) {
                message.visible_at = now;
                state.insert(*number, message);
            }
        }
        drop(state);
        notify.notify_waiters();
        self.activity.changed();
        Ok(hidden.len())
    }
}
