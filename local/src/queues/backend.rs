//! Puts our store behind the wire protocol of `winterbaume-sqs`. Queues come from the template, so what creates, changes or
//! shares them goes to winterbaume's own store, where it has no effect; the endpoint refuses such requests before.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use winterbaume_sqs::state::SqsError;
use winterbaume_sqs::types::{Message, MessageAttribute, MessageMoveTask, Queue};
use winterbaume_sqs::{InMemorySqsBackend, SendMessageOutput, SqsBackend, SqsStateView, StateViewError};

use super::store::{NoSuchQueue, Store};

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct Backend {
    pub(super) store: Arc<Store>,
    pub(super) rest: InMemorySqsBackend,
}

impl From<NoSuchQueue> for SqsErrorOf {
    fn from(_: NoSuchQueue) -> Self {
        Self(SqsError::NonExistentQueue)
    }
}

/// Lets `?` turn our error into theirs.
struct SqsErrorOf(SqsError);

fn now<T: Send + 'static>(result: Result<T, SqsErrorOf>) -> Answer<Result<T, SqsError>> {
    Box::pin(ready(result.map_err(|SqsErrorOf(error)| error)))
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

fn found(found: bool, receipt_handle: String) -> Result<(), SqsErrorOf> {
    if found { Ok(()) } else { Err(SqsErrorOf(SqsError::InvalidReceiptHandle { receipt_handle })) }
}

impl Backend {
    fn attributes(&self, queue: &str) -> Result<HashMap<String, String>, SqsErrorOf> {
        let settings = self.store.settings(queue)?;
        let depth = self.store.depth(queue)?;
        let mut attributes: HashMap<String, String> = [
            ("QueueArn", settings.arn),
            ("ApproximateNumberOfMessages", depth.visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", depth.in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", depth.delayed.to_string()),
            ("VisibilityTimeout", settings.visibility_timeout.as_secs().to_string()),
            ("DelaySeconds", settings.delay.as_secs().to_string()),
            ("MaximumMessageSize", settings.max_message_bytes.to_string()),
            ("MessageRetentionPeriod", settings.retention.as_secs().to_string()),
            ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if let Some(redrive) = settings.redrive {
            let policy = serde_json::json!({
                "deadLetterTargetArn": redrive.dead_letter_arn,
                "maxReceiveCount": redrive.max_receive_count,
            });
            attributes.insert("RedrivePolicy".to_owned(), policy.to_string());
        }
        Ok(attributes)
    }

    fn receive(&self, queue: &str, max: usize, hide: Option<u32>) -> Result<Vec<Message>, SqsErrorOf> {
        let received = self.store.receive(queue, max, usize::MAX, hide.map(seconds))?;
        let message = |received: super::Received| Message {
            message_id: received.message_id,
            body: received.body,
            body_md5: received.md5,
            receipt_handle: Some(received.receipt_handle),
            all_receipt_handles: Vec::new(),
            sender_id: super::SENDER_ID.to_owned(),
            sent_timestamp: received.sent_at_ms,
            approximate_first_receive_timestamp: Some(received.first_received_at_ms),
            approximate_receive_count: received.receive_count,
            visible_at: 0,
            message_attributes: received.attributes,
        };
        Ok(received.into_iter().map(message).collect())
    }
}

impl SqsBackend for Backend {
    fn send_message(
        &self,
        _: String,
        _: String,
        queue: String,
        body: String,
        delay_seconds: Option<u32>,
        attributes: HashMap<String, MessageAttribute>,
        _: Option<String>,
        _: Option<String>,
    ) -> Answer<Result<SendMessageOutput, SqsError>> {
        let sent = self.store.send(&queue, &body, delay_seconds.map(seconds), attributes);
        now(sent.map(|(message_id, body_md5)| SendMessageOutput { message_id, body_md5 }).map_err(Into::into))
    }

    fn receive_messages(
        &self,
        _: String,
        _: String,
        queue: String,
        max: usize,
        hide: Option<u32>,
    ) -> Answer<Result<Vec<Message>, SqsError>> {
        now(self.receive(&queue, max, hide))
    }

    fn delete_message(&self, _: String, _: String, queue: String, receipt_handle: String) -> Answer<Result<(), SqsError>> {
        now(self.store.delete(&queue, &receipt_handle).map_err(Into::into).and_then(|deleted| found(deleted, receipt_handle)))
    }

    fn purge_queue(&self, _: String, _: String, queue: String) -> Answer<Result<(), SqsError>> {
        now(self.store.purge(&queue).map_err(Into::into))
    }

    fn change_message_visibility(
        &self,
        _: String,
        _: String,
        queue: String,
        receipt_handle: String,
        hide: u32,
    ) -> Answer<Result<(), SqsError>> {
        let hidden = self.store.hide(&queue, &receipt_handle, seconds(hide));
        now(hidden.map_err(Into::into).and_then(|hidden| found(hidden, receipt_handle)))
    }

    fn change_message_visibility_batch(
        &self,
        _: String,
        _: String,
        queue: String,
        entries: Vec<(String, String, u32)>,
    ) -> Answer<Result<Vec<String>, SqsError>> {
        let hide =
            |(id, receipt_handle, hide): (String, String, u32)| match self.store.hide(&queue, &receipt_handle, seconds(hide)) {
                Ok(hidden) => found(hidden, receipt_handle).map(|()| id),
                Err(error) => Err(error.into()),
            };
        now(entries.into_iter().map(hide).collect())
    }

    fn get_queue_attributes(&self, _: String, _: String, queue: String) -> Answer<Result<HashMap<String, String>, SqsError>> {
        now(self.attributes(&queue))
    }

    fn get_queue_url(&self, _: String, _: String, queue: String) -> Answer<Result<String, SqsError>> {
        now(self.store.settings(&queue).map(|settings| settings.url).map_err(Into::into))
    }

    // From here on: what the endpoint refuses.

    fn create_queue(
        &self,
        account: String,
        region: String,
        name: String,
        attributes: HashMap<String, String>,
        tags: Option<HashMap<String, String>>,
    ) -> Answer<Result<Queue, SqsError>> {
        self.rest.create_queue(account, region, name, attributes, tags)
    }

    fn delete_queue(&self, account: String, region: String, queue: String) -> Answer<Result<(), SqsError>> {
        self.rest.delete_queue(account, region, queue)
    }

    fn set_queue_attributes(
        &self,
        account: String,
        region: String,
        queue: String,
        attributes: HashMap<String, String>,
    ) -> Answer<Result<(), SqsError>> {
        self.rest.set_queue_attributes(account, region, queue, attributes)
    }

    fn list_queues(&self, account: String, region: String, prefix: Option<String>) -> Answer<Result<Vec<Queue>, SqsError>> {
        self.rest.list_queues(account, region, prefix)
    }

    fn list_queue_tags(
        &self,
        account: String,
        region: String,
        queue: String,
    ) -> Answer<Result<HashMap<String, String>, SqsError>> {
        self.rest.list_queue_tags(account, region, queue)
    }

    fn tag_queue(
        &self,
        account: String,
        region: String,
        queue: String,
        tags: HashMap<String, String>,
    ) -> Answer<Result<(), SqsError>> {
        self.rest.tag_queue(account, region, queue, tags)
    }

    fn untag_queue(&self, account: String, region: String, queue: String, tag_keys: Vec<String>) -> Answer<Result<(), SqsError>> {
        self.rest.untag_queue(account, region, queue, tag_keys)
    }

    fn add_permission(
        &self,
        account: String,
        region: String,
        queue: String,
        label: String,
        accounts: Vec<String>,
        actions: Vec<String>,
    ) -> Answer<Result<(), SqsError>> {
        self.rest.add_permission(account, region, queue, label, accounts, actions)
    }

    fn remove_permission(&self, account: String, region: String, queue: String, label: String) -> Answer<Result<(), SqsError>> {
        self.rest.remove_permission(account, region, queue, label)
    }

    fn list_dead_letter_source_queues(
        &self,
        account: String,
        region: String,
        queue: String,
    ) -> Answer<Result<Vec<String>, SqsError>> {
        self.rest.list_dead_letter_source_queues(account, region, queue)
    }

    fn start_message_move_task(
        &self,
        account: String,
        region: String,
        source: String,
        destination: Option<String>,
        rate: Option<i32>,
    ) -> Answer<Result<String, SqsError>> {
        self.rest.start_message_move_task(account, region, source, destination, rate)
    }

    fn cancel_message_move_task(&self, account: String, region: String, task: String) -> Answer<Result<i64, SqsError>> {
        self.rest.cancel_message_move_task(account, region, task)
    }

    fn list_message_move_tasks(
        &self,
        account: String,
        region: String,
        source: String,
    ) -> Answer<Result<Vec<MessageMoveTask>, SqsError>> {
        self.rest.list_message_move_tasks(account, region, source)
    }

    fn scopes_with_state(&self) -> Vec<(String, String)> {
        self.rest.scopes_with_state()
    }

    fn snapshot(&self, account: String, region: String) -> Answer<SqsStateView> {
        self.rest.snapshot(account, region)
    }

    fn restore(&self, account: String, region: String, view: SqsStateView) -> Answer<Result<(), StateViewError>> {
        self.rest.restore(account, region, view)
    }

    fn merge(&self, account: String, region: String, view: SqsStateView) -> Answer<Result<(), StateViewError>> {
        self.rest.merge(account, region, view)
    }
}
