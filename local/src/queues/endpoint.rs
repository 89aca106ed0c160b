//! The SQS endpoint over HTTP: AWS's limits and the callers' rights in front of `winterbaume-sqs`, which accepts everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use winterbaume_core::{MockRequest, MockService};
use winterbaume_sqs::SqsService;

use super::store::Store;
use crate::identity::Identities;

/// 1 MiB for a message, and for all of a batch together (AWS, since August 2025).
const MAX_BYTES: usize = 1_048_576;

#[derive(Clone)]
struct Endpoint {
    service: Arc<SqsService>,
    store: Arc<Store>,
    identities: Arc<Identities>,
}

/// An error as SQS words it: its code and its sentence.
struct Refusal(&'static str, String);

pub(super) fn router(service: SqsService, store: Arc<Store>, identities: Arc<Identities>) -> Router {
    Router::new().fallback(handle).layer(DefaultBodyLimit::max(16 * MAX_BYTES)).with_state(Endpoint {
        service: Arc::new(service),
        store,
        identities,
    })
}

async fn handle(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    let action =
        headers.get("x-amz-target").and_then(|target| target.to_str().ok()).and_then(|target| target.strip_prefix("AmazonSQS."));
    let Some(action) = action.map(str::to_owned) else {
        return refuse(&Refusal("MissingAction", "the header X-Amz-Target must name an operation of SQS".to_owned()));
    };
    if let Err(refusal) = endpoint.check(&action, &headers, &body) {
        return refuse(&refusal);
    }
    let request =
        MockRequest { method: "POST".to_owned(), uri: "https://sqs.us-east-1.amazonaws.com/".to_owned(), headers, body };
    let answer = endpoint.service.handle(request).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, answer.headers, answer.body).into_response()
}

fn refuse(Refusal(code, message): &Refusal) -> Response {
    let status = if *code == "AccessDenied" { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
    let headers = [("content-type", "application/x-amz-json-1.0".to_owned()), ("x-amzn-query-error", format!("{code};Sender"))];
    (status, headers, json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": message }).to_string()).into_response()
}

impl Endpoint {
    fn check(&self, action: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let request: Json = serde_json::from_slice(body)
            .map_err(|error| Refusal("InvalidParameterValue", format!("the body is not JSON: {error}")))?;
        let right = match action {
            "SendMessage" | "SendMessageBatch" => "sqs:SendMessage",
            "ReceiveMessage" => "sqs:ReceiveMessage",
            "DeleteMessage" | "DeleteMessageBatch" => "sqs:DeleteMessage",
            "ChangeMessageVisibility" | "ChangeMessageVisibilityBatch" => "sqs:ChangeMessageVisibility",
            "GetQueueAttributes" => "sqs:GetQueueAttributes",
            "GetQueueUrl" => "sqs:GetQueueUrl",
            "PurgeQueue" => "sqs:PurgeQueue",
            other => {
                return Err(Refusal(
                    "UnsupportedOperation",
                    format!("{other} is not here: the queues are those of the template"),
                ));
            }
        };
        let name = match request.get("QueueUrl").or_else(|| request.get("QueueName")).and_then(Json::as_str) {
            Some(url) => url.rsplit('/').next().unwrap_or_default().to_owned(),
            None => return Err(Refusal("MissingParameter", "The request must contain the parameter QueueUrl.".to_owned())),
        };
        let Ok(settings) = self.store.settings(&name) else {
            return Err(Refusal("QueueDoesNotExist", "The specified queue does not exist.".to_owned()));
        };
        self.identities.check(headers, right, &settings.arn).map_err(|why| Refusal("AccessDenied", why))?;
        limits(action, &request, settings.max_message_bytes)
    }
}

fn within(request: &Json, name: &str, least: i64, most: i64) -> Result<(), Refusal> {
    match request.get(name) {
        None | Some(Json::Null) => Ok(()),
        Some(value) => match value.as_i64() {
            Some(number) if (least..=most).contains(&number) => Ok(()),
            _ => Err(Refusal(
                "InvalidParameterValue",
                format!("Value {value} for parameter {name} is invalid. Reason: Must be >= {least} and <= {most}, if provided."),
            )),
        },
    }
}

/// What AWS refuses and winterbaume accepts.
fn limits(action: &str, request: &Json, max_message_bytes: usize) -> Result<(), Refusal> {
    match action {
        "SendMessage" => {
            message(request, max_message_bytes)?;
        }
        "SendMessageBatch" => {
            let mut bytes = 0;
            for entry in batch(request)? {
                bytes += message(entry, max_message_bytes)?;
            }
            if bytes > MAX_BYTES {
                return Err(Refusal(
                    "BatchRequestTooLong",
                    format!("Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {bytes} bytes."),
                ));
            }
        }
        "ReceiveMessage" => {
            within(request, "MaxNumberOfMessages", 1, 10)?;
            within(request, "WaitTimeSeconds", 0, 20)?;
            within(request, "VisibilityTimeout", 0, 43_200)?;
        }
        "ChangeMessageVisibility" => within(request, "VisibilityTimeout", 0, 43_200)?,
        "ChangeMessageVisibilityBatch" => {
            for entry in batch(request)? {
                within(entry, "VisibilityTimeout", 0, 43_200)?;
            }
        }
        "DeleteMessageBatch" => {
            batch(request)?;
        }
        _ => {}
    }
    Ok(())
}

fn batch(request: &Json) -> Result<&[Json], Refusal> {
    let entries = request.get("Entries").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    if entries.is_empty() {
        return Err(Refusal("EmptyBatchRequest", "There should be at least one entry in the request.".to_owned()));
    }
    if entries.len() > 10 {
        let sentence = format!("Maximum number of entries per request are 10. You have sent {}.", entries.len());
        return Err(Refusal("TooManyEntriesInBatchRequest", sentence));
    }
    let mut ids = BTreeSet::new();
    for entry in entries {
        let id = entry.get("Id").and_then(Json::as_str).unwrap_or_default();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if id.is_empty() || id.len() > 80 || !id.chars().all(plain) {
            let sentence = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.";
            return Err(Refusal("InvalidBatchEntryId", sentence.to_owned()));
        }
        if !ids.insert(id) {
            return Err(Refusal("BatchEntryIdsNotDistinct", format!("Id {id} repeated.")));
        }
    }
    Ok(entries)
}

/// Checks one message and returns its size: body and attributes count.
fn message(entry: &Json, max_bytes: usize) -> Result<usize, Refusal> {
    let body = entry.get("MessageBody").and_then(Json::as_str).unwrap_or_default();
    if body.is_empty() {
        return Err(Refusal("MissingParameter", "The request must contain the parameter MessageBody.".to_owned()));
    }
    let sayable =
        |letter: char| matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if !body.chars().all(sayable) {
        return Err(Refusal("InvalidMessageContents", "The message contains characters outside the allowed set.".to_owned()));
    }
    let attributes = entry.get("MessageAttributes").and_then(Json::as_object);
    if attributes.is_some_and(|attributes| attributes.len() > 10) {
        return Err(Refusal(
            "InvalidParameterValue",
            "Number of message attributes exceeds the allowed maximum of 10.".to_owned(),
        ));
    }
    let text = |value: &Json, key: &str| value.get(key).and_then(Json::as_str).map_or(0, str::len);
    let attribute = |(name, value): (&String, &Json)| {
        name.len() + text(value, "DataType") + text(value, "StringValue") + text(value, "BinaryValue")
    };
    let bytes = body.len() + attributes.into_iter().flatten().map(attribute).sum::<usize>();
    if bytes > max_bytes {
        return Err(Refusal(
            "InvalidParameterValue",
            format!("One or more parameters are invalid. Reason: Message must be shorter than {max_bytes} bytes."),
        ));
    }
    within(entry, "DelaySeconds", 0, 900)?;
    Ok(bytes)
}
