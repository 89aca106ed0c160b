//! Event source mappings: take messages from a queue, hand them to the function in batches, delete what is done.
//!
//! AWS's rules for what counts as done: with `ReportBatchItemFailures` everything but the ids in `batchItemFailures`; an empty
//! list or none is success; an id that is empty, unknown or no text, or an answer of another shape, fails the whole batch, as
//! does an error, a crash or a timeout. What failed stays hidden until its visibility timeout is over. That is 90 minutes for
//! a function of 15, so that on one machine `retry_after` can bring it back sooner; without it the timeout holds.
//!
//! A message is taken only when the function has room for it. AWS takes it first and throttles; the difference is that here
//! waiting does not count as a delivery.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::store::{Received, Store};
use crate::activity::Activity;
use crate::lambda_host::{LambdaHost, MAX_PAYLOAD_BYTES};
use crate::template::EventSource;

pub(super) struct Poller {
    pub(super) source: EventSource,
    pub(super) queue_arn: String,
    pub(super) region: String,
    pub(super) concurrency: usize,
    pub(super) retry_after: Option<Duration>,
    pub(super) store: Arc<Store>,
    pub(super) host: LambdaHost,
    pub(super) activity: Activity,
}

impl Poller {
    pub(super) fn start(self) -> JoinHandle<()> {
        let poller = Arc::new(self);
        let slots = Arc::new(Semaphore::new(poller.concurrency));
        tokio::spawn(async move {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let Some(batch) = poller.gather().await else { return };
                // Counted before the next await, so that nobody sees the batch neither queued nor running.
                let running = poller.activity.begin();
                let poller = Arc::clone(&poller);
                tokio::spawn(async move {
                    poller.deliver(batch).await;
                    drop(running);
                    drop(slot);
                });
            }
        })
    }

    /// The next batch: whatever is there at once, or what comes within the window until it is full.
    async fn gather(&self) -> Option<Vec<Received>> {
        let source = &self.source;
        // Half of Lambda's limit: JSON's escapes and the envelope want room too.
        let room = MAX_PAYLOAD_BYTES / 2;
        let mut batch = self.store.receive_waiting(&source.queue, source.batch_size, room).await.ok()?;
        if !source.window.is_zero() {
            let end = tokio::time::Instant::now() + source.window;
            let size = |batch: &[Received]| batch.iter().map(|message| message.body.len()).sum::<usize>();
            while batch.len() < source.batch_size && size(&batch) < room {
                let more = self.store.receive_waiting(&source.queue, source.batch_size - batch.len(), room - size(&batch));
                match tokio::time::timeout_at(end, more).await {
                    Ok(more) => batch.extend(more.ok()?),
                    Err(_) => break,
                }
            }
        }
        Some(batch)
    }

    async fn deliver(&self, batch: Vec<Received>) {
        let records: Vec<Json> = batch.iter().map(|message| self.record(message)).collect();
        let function = &self.source.function;
        let failed = match self.host.invoke(function, &json!({ "Records": records })).await {
            Ok(_) if !self.source.report_batch_item_failures => HashSet::new(),
            Ok(answer) => match failures(&answer, &batch) {
                Ok(failed) => failed,
                Err(why) => {
                    tracing::warn!(function, why, "the batch response fails the whole batch");
                    everything(&batch)
                }
            },
            Err(error) => {
                tracing::warn!(function, %error, "the batch failed");
                everything(&batch)
            }
        };
        for message in &batch {
            let settled = if !failed.contains(&message.message_id) {
                self.store.delete(&self.source.queue, &message.receipt_handle)
            } else if let Some(retry_after) = self.retry_after {
                self.store.hide(&self.source.queue, &message.receipt_handle, retry_after)
            } else {
                continue;
            };
            if let Err(error) = settled {
                tracing::error!(queue = self.source.queue, %error, "the message could not be settled");
            }
        }
    }

    fn record(&self, message: &Received) -> Json {
        let attributes: Map<String, Json> = message
            .attributes
            .iter()
            .map(|(name, value)| {
                let value = json!({
                    "stringValue": value.string_value,
                    "dataType": value.data_type,
                    "stringListValues": [],
                    "binaryListValues": [],
                });
                (name.clone(), value)
            })
            .collect();
        json!({
            "messageId": message.message_id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": message.receive_count.to_string(),
                "SentTimestamp": message.sent_at_ms.to_string(),
                "SenderId": super::SENDER_ID,
                "ApproximateFirstReceiveTimestamp": message.first_received_at_ms.to_string(),
            },
            "messageAttributes": attributes,
            "md5OfBody": message.md5,
            "eventSource": "aws:sqs",
            "eventSourceARN": self.queue_arn,
            "awsRegion": self.region,
        })
    }
}

fn everything(batch: &[Received]) -> HashSet<String> {
    batch.iter().map(|message| message.message_id.clone()).collect()
}

/// The ids that failed, or why the answer fails all of them.
fn failures(answer: &Json, batch: &[Received]) -> Result<HashSet<String>, &'static str> {
    let list = match answer {
        Json::Null => return Ok(HashSet::new()),
        Json::Object(fields) => match fields.get("batchItemFailures") {
            None | Some(Json::Null) => return Ok(HashSet::new()),
            Some(Json::Array(list)) => list,
            Some(_) => return Err("batchItemFailures is no list"),
        },
        _ => return Err("the answer is no object"),
    };
    let known = everything(batch);
    let mut failed = HashSet::new();
    for item in list {
        match item.get("itemIdentifier") {
            Some(Json::String(id)) if id.is_empty() => return Err("an itemIdentifier is empty"),
            Some(Json::String(id)) if known.contains(id) => {
                failed.insert(id.clone());
            }
            Some(Json::String(_)) => return Err("an itemIdentifier is of no message in the batch"),
            _ => return Err("an itemIdentifier is missing or no text"),
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Received {
        Received {
            message_id: id.to_owned(),
            receipt_handle: String::new(),
            body: String::new(),
            md5: String::new(),
            sent_at_ms: 0,
            first_received_at_ms: 0,
            receive_count: 1,
            attributes: Default::default(),
        }
    }

    #[test]
    fn a_batch_response_is_read_as_aws_reads_it() {
        let batch = [message("a"), message("b")];
        for (answer, failed) in [
            (json!(null), Some(vec![])),
            (json!({}), Some(vec![])),
            (json!({ "batchItemFailures": null }), Some(vec![])),
            (json!({ "batchItemFailures": [] }), Some(vec![])),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "a" }] }), Some(vec!["a"])),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "a" }, { "itemIdentifier": "a" }] }), Some(vec!["a"])),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "" }] }), None),
            (json!({ "batchItemFailures": [{ "itemIdentifier": null }] }), None),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "c" }] }), None),
            (json!({ "batchItemFailures": [{ "id": "a" }] }), None),
            (json!({ "batchItemFailures": "a" }), None),
            (json!("done"), None),
            (json!([]), None),
        ] {
            let read = failures(&answer, &batch).ok();
            let failed: Option<HashSet<String>> = failed.map(|failed| failed.into_iter().map(str::to_owned).collect());
            assert_eq!(read, failed, "{answer}");
        }
    }
}
