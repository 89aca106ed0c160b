//! The queues between the functions, and how a function works through what a queue hands it.
//!
//! A message carries ids, never money: Postgres is the truth and a message is a hint, so one that is sent twice, or never
//! because its sender died, does no harm (sweeps send it again). Every send goes through [`Queue`] and names its boundary.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use uuid::Uuid;

use crate::boundary::{Boundary, cross};
use crate::error::{Error, Result};
use crate::id::{ChunkId, RunId};

/// Everything that is ever said over a queue. Fields that a newer sender adds are ignored, a type that is not here is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Message {
    /// To the batch creator: make the batches of this run.
    #[serde(rename = "payout.create-batch")]
    CreateBatch { run_id: RunId },
    /// To the batch creator: make the batch of this withdrawal request.
    #[serde(rename = "payout.withdraw")]
    Withdraw { request_id: Uuid },
    /// To the chunk processor: pay the items of this chunk.
    #[serde(rename = "payout.process-chunk")]
    ProcessChunk { chunk_id: ChunkId },
    /// To the notifier: tell the people whom this outbox row is for.
    #[serde(rename = "notification")]
    Notification { outbox_id: i64 },
}

impl Message {
    pub fn parse(body: &str) -> Result<Self> {
        serde_json::from_str(body).map_err(|error| Error::internal("A queue message cannot be read.").with_source(error))
    }

    fn to_json(self) -> Result<String> {
        serde_json::to_string(&self).map_err(|error| Error::internal("A queue message cannot be written.").with_source(error))
    }
}

/// A message that arrived at a function which does not serve it: wiring gone wrong, so it ends in the dead letter queue.
pub fn not_for(function: &'static str) -> Error {
    Error::internal(format!("This message is not for {function}."))
}

/// SQS takes ten messages at a time, together no more than this.
const MAX_BATCH_BYTES: usize = 1 << 20;
const MAX_BATCH_MESSAGES: usize = 10;
/// Requests under way at once when many messages are sent.
const SENDS_AT_ONCE: usize = 8;
/// How often entries that SQS failed to take are offered again.
const BATCH_ATTEMPTS: u32 = 5;

/// How full a queue is; SQS's counts are approximate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub visible: i64,
    pub in_flight: i64,
    pub delayed: i64,
}

/// A client for one queue; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    pub fn new(aws: &SdkConfig, url: String) -> Self {
        Self { client: Client::new(aws), url }
    }

    /// Sends one message. `boundary` names this point of no return for logs and fault tests.
    pub async fn send(&self, boundary: Boundary, message: Message) -> Result<()> {
        self.send_later(boundary, message, Duration::ZERO).await
    }

    /// Sends one message that nobody sees for `delay`, of which SQS takes at most 15 minutes.
    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    pub async fn send_later(&self, boundary: Boundary, message: Message, delay: Duration) -> Result<()> {
        let seconds = i32::try_from(delay.as_secs().min(900)).unwrap_or(900);
        let request = self.client.send_message().queue_url(&self.url).message_body(message.to_json()?);
        // A delay of zero would override the queue's own; left out, it does not.
        let request = if seconds > 0 { request.delay_seconds(seconds) } else { request };
        let send = || {
            let sending = request.clone().send();
            async { sending.await.map_err(|error| unavailable(error.into_service_error())) }
        };
        cross(boundary, send).await?;
        tracing::debug!(%boundary, ?message, "message sent");
        Ok(())
    }

    /// Sends many messages, ten at a time. On an error some of them are sent: send all again.
    pub async fn send_all(&self, boundary: Boundary, messages: &[Message]) -> Result<()> {
        let bodies = messages.iter().map(|message| message.to_json()).collect::<Result<Vec<_>>>()?;
        let batches = batches(bodies)?;
        futures::stream::iter(batches.into_iter().map(|batch| self.send_batch(boundary, batch)))
            .buffer_unordered(SENDS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        tracing::debug!(%boundary, messages = messages.len(), "messages sent");
        Ok(())
    }

    /// Sends at most ten messages; those that SQS did not take, and only those, are offered again.
    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    async fn send_batch(&self, boundary: Boundary, bodies: Vec<String>) -> Result<()> {
        let mut left: Vec<(String, String)> =
            bodies.into_iter().enumerate().map(|(index, body)| (index.to_string(), body)).collect();
        let mut pause = Duration::from_millis(50);
        for _ in 0..BATCH_ATTEMPTS {
            let entries = left.iter().map(|(id, body)| SendMessageBatchRequestEntry::builder().id(id).message_body(body).build());
            let entries = entries
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| Error::internal("A queue message cannot be sent.").with_source(error))?;
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
            let send = || {
                let sending = request.clone().send();
                async { sending.await.map_err(|error| unavailable(error.into_service_error())) }
            };
            let answer = cross(boundary, send).await?;
            if let Some(refused) = answer.failed().iter().find(|failed| failed.sender_fault()) {
                return Err(Error::internal("A queue refused a message.").with_source(format!(
                    "{}: {}",
                    refused.code(),
                    refused.message().unwrap_or_default()
                )));
            }
            left.retain(|(id, _)| answer.failed().iter().any(|failed| failed.id() == id));
            if left.is_empty() {
                return Ok(());
            }
            tracing::warn!(%boundary, left = left.len(), "the queue did not take every message");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(Error::unavailable("QUEUE_UNAVAILABLE", "The queue does not take messages; try again in a moment."))
    }

    /// How many messages wait, are being worked on, and are not to be seen yet.
    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    pub async fn depth(&self) -> Result<Depth> {
        const ASKED: [QueueAttributeName; 3] = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url).set_attribute_names(Some(ASKED.to_vec()));
        let ask = || {
            let asking = request.clone().send();
            async { asking.await.map_err(|error| unavailable(error.into_service_error())) }
        };
        let answer = cross(Boundary::ReadQueueDepth, ask).await?;
        let count = |name: &QueueAttributeName| answer.attributes().and_then(|all| all.get(name)?.parse().ok()).unwrap_or(0);
        let [visible, in_flight, delayed] = &ASKED;
        Ok(Depth { visible: count(visible), in_flight: count(in_flight), delayed: count(delayed) })
    }
}

fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("QUEUE_UNAVAILABLE", "The queue does not answer; try again in a moment.").with_source(source)
}

/// Cuts messages into batches that SQS takes.
fn batches(bodies: Vec<String>) -> Result<Vec<Vec<String>>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for body in bodies {
        if body.len() > MAX_BATCH_BYTES {
            return Err(Error::internal(format!("A queue message of {} bytes is above what SQS takes.", body.len())));
        }
        if batch.len() == MAX_BATCH_MESSAGES || bytes + body.len() > MAX_BATCH_BYTES {
            all.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += body.len();
        batch.push(body);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    Ok(all)
}

/// Works on all that SQS handed over at once, and reports the messages that failed, and only those, to be handed over again.
/// A message that cannot be read fails each time until it is in the dead letter queue: visible, not lost. A panic is the
/// failure of its message and of no other. `boundary` names such messages.
pub async fn each<F, W>(boundary: Boundary, event: SqsEvent, work: F) -> SqsBatchResponse
where
    F: Fn(Message) -> W,
    W: Future<Output = Result<()>>,
{
    let work = &work;
    let done = event.records.into_iter().map(|record| async move {
        // An empty id makes SQS count the whole batch as failed, which is right when we cannot name the message.
        let id = record.message_id.unwrap_or_default();
        let span = tracing::info_span!("message", message_id = %id);
        let done = async {
            let message = Message::parse(record.body.as_deref().unwrap_or_default())?;
            let work = std::panic::AssertUnwindSafe(async { cross(boundary, || work(message)).await });
            work.catch_unwind().await.unwrap_or_else(|_| Err(Error::internal("The worker panicked.")))
        };
        let error = done.instrument(span.clone()).await.err()?;
        span.in_scope(|| tracing::error!(code = error.code, causes = error.causes(), error = %error, "a message failed"));
        Some(id)
    });
    let mut response = SqsBatchResponse::default();
    for id in futures::future::join_all(done).await.into_iter().flatten() {
        response.add_failure(id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_same_form_for_ever() {
        for (message, body) in [
            (Message::CreateBatch { run_id: RunId(1) }, r#"{"type":"payout.create-batch","runId":1}"#),
            (Message::ProcessChunk { chunk_id: ChunkId(2) }, r#"{"type":"payout.process-chunk","chunkId":2}"#),
            (Message::Notification { outbox_id: 3 }, r#"{"type":"notification","outboxId":3}"#),
        ] {
            assert_eq!(message.to_json().expect("JSON"), body);
            assert_eq!(Message::parse(body).expect("a message"), message);
        }
    }

    #[test]
    fn what_a_newer_sender_adds_is_ignored_and_what_is_no_message_is_an_error() {
        let newer = r#"{"runId":1,"type":"payout.create-batch","traceId":"x"}"#;
        assert_eq!(Message::parse(newer).expect("a message"), Message::CreateBatch { run_id: RunId(1) });
        for wrong in [
            "",
            "{",
            "null",
            "{}",
            r#"{"type":"payout.create-batch"}"#,
            r#"{"type":"payout.create-batch","runId":"1"}"#,
            r#"{"type":"other","runId":1}"#,
        ] {
            assert!(Message::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn batches_keep_to_ten_messages_and_a_mebibyte() {
        let sizes = |lengths: &[usize]| {
            let bodies = lengths.iter().map(|length| "x".repeat(*length)).collect();
            batches(bodies).map(|all| all.iter().map(Vec::len).collect::<Vec<_>>())
        };
        assert_eq!(sizes(&[50; 25]).expect("batches"), [10, 10, 5]);
        assert_eq!(sizes(&[MAX_BATCH_BYTES / 2, MAX_BATCH_BYTES / 2, 1]).expect("batches"), [2, 1]);
        assert!(sizes(&[]).expect("batches").is_empty());
        assert!(sizes(&[MAX_BATCH_BYTES + 1]).is_err());
    }

    #[tokio::test]
    async fn only_the_failed_messages_of_a_batch_are_handed_over_again() {
        let bodies = [
            "{\"type\":\"notification\",\"outboxId\":1}",
            "poison",
            "{\"type\":\"notification\",\"outboxId\":2}",
            "{\"type\":\"notification\",\"outboxId\":3}",
        ];
        let records: Vec<_> = bodies
            .iter()
            .enumerate()
            .map(|(index, body)| serde_json::json!({ "messageId": format!("m{index}"), "body": body }))
            .collect();
        let event: SqsEvent = serde_json::from_value(serde_json::json!({ "Records": records })).expect("an event");
        let response = each(Boundary::NotificationMessage, event, async |message| match message {
            Message::Notification { outbox_id: 2 } => Err(Error::internal("refused")),
            Message::Notification { outbox_id: 3 } => std::panic::resume_unwind(Box::new("broken")),
            _ => Ok(()),
        })
        .await;
        let failed: Vec<_> = response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
        assert_eq!(failed, ["m1", "m2", "m3"]);
    }
}
