//! Lambda's Runtime API: what a function's process asks for its next event and tells the answer.
//!
//! Why not `lambda-simulator` 0.2, which has one: it can lose the wake-up for a finished invocation (it looks, and only then
//! begins to wait for a change), so that an answer is seen at the function's timeout, up to 15 minutes late; it keeps every
//! payload for ever; it refuses the init errors of the Rust runtime, which come without a content type; and it switches on
//! rustls' `ring` for the whole workspace, where with two crypto providers a TLS client that does not name one panics.
//!
//! One server for all processes: the Rust runtime takes a URL with a path in `AWS_LAMBDA_RUNTIME_API`, so each process has its
//! own (`http://127.0.0.1:port/<process>`), and an answer from a process that was given up finds nobody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Lambda's limit for what goes in and comes out of a synchronous invocation.
pub const MAX_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;

/// An event on its way to a process.
pub(super) struct Job {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    pub(super) arn: String,
    pub(super) timeout_ms: i64,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Told when the process takes the event: the function's time begins then.
    pub(super) taken: oneshot::Sender<()>,
}

pub(super) enum Answer {
    Response(Bytes),
    Error { error_type: String, message: String },
}

/// The Runtime API's side of one process.
pub(super) struct Desk {
    jobs: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    current: Mutex<Option<(String, oneshot::Sender<Answer>)>>,
    /// Told at the first request for an event: init is over.
    ready: Mutex<Option<oneshot::Sender<()>>>,
    init_error: Mutex<Option<String>>,
}

impl Desk {
    pub(super) fn new(jobs: mpsc::Receiver<Job>, ready: oneshot::Sender<()>) -> Self {
        Self { jobs: jobs.into(), current: Mutex::default(), ready: Mutex::new(Some(ready)), init_error: Mutex::default() }
    }

    pub(super) fn init_error(&self) -> Option<String> {
        self.init_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, request_id: &str, answer: Answer) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.take_if(|(id, _)| id == request_id) {
            Some((_, sender)) => sender.send(answer).is_ok(),
            None => false,
        }
    }
}

/// The processes that may ask, by their path.
#[derive(Clone, Default)]
pub(super) struct Desks(Arc<Mutex<HashMap<String, Arc<Desk>>>>);

impl Desks {
    pub(super) fn open(&self, name: &str, desk: Arc<Desk>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), desk);
    }

    pub(super) fn close(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn find(&self, name: &str) -> Option<Arc<Desk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Serves until the returned task is aborted.
pub(super) async fn serve(desks: Desks) -> std::io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/{desk}/2018-06-01/runtime/invocation/next", get(next))
        .route("/{desk}/2018-06-01/runtime/invocation/{request_id}/response", post(response))
        .route("/{desk}/2018-06-01/runtime/invocation/{request_id}/error", post(error))
        .route("/{desk}/2018-06-01/runtime/init/error", post(init_error))
        // Our own limit is looked at below, so that the caller learns about it too.
        .layer(DefaultBodyLimit::disable())
        .with_state(desks);
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the runtime api stopped");
        }
    });
    Ok((address, server))
}

async fn next(State(desks): State<Desks>, Path(desk): Path<String>) -> Response {
    let Some(desk) = desks.find(&desk) else { return StatusCode::GONE.into_response() };
    if let Some(ready) = desk.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = ready.send(());
    }
    let Some(job) = desk.jobs.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline_ms = chrono::Utc::now().timestamp_millis() + job.timeout_ms;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", job.request_id.clone()),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", job.arn),
        ("lambda-runtime-trace-id", format!("Root=1-00000000-{}", &job.request_id.replace('-', "")[..24])),
        ("content-type", "application/json".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    *desk.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((job.request_id, job.answer));
    let _ = job.taken.send(());
    (headers, job.payload).into_response()
}

async fn response(State(desks): State<Desks>, Path((desk, request_id)): Path<(String, String)>, body: Bytes) -> Response {
    let Some(desk) = desks.find(&desk) else { return StatusCode::GONE.into_response() };
    let (status, answer) = if body.len() > MAX_PAYLOAD_BYTES {
        let message = format!(
            "Response payload size ({} bytes) exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes).",
            body.len()
        );
        (StatusCode::PAYLOAD_TOO_LARGE, Answer::Error { error_type: "Function.ResponseSizeTooLarge".to_owned(), message })
    } else {
        (StatusCode::ACCEPTED, Answer::Response(body))
    };
    acknowledge(&desk, &request_id, answer, status)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Diagnostic {
    error_type: String,
    error_message: String,
}

impl Default for Diagnostic {
    fn default() -> Self {
        Self { error_type: "Unknown".to_owned(), error_message: String::new() }
    }
}

async fn error(State(desks): State<Desks>, Path((desk, request_id)): Path<(String, String)>, body: Bytes) -> Response {
    let Some(desk) = desks.find(&desk) else { return StatusCode::GONE.into_response() };
    let Diagnostic { error_type, error_message } = serde_json::from_slice(&body).unwrap_or_default();
    acknowledge(&desk, &request_id, Answer::Error { error_type, message: error_message }, StatusCode::ACCEPTED)
}

fn acknowledge(desk: &Desk, request_id: &str, answer: Answer, status: StatusCode) -> Response {
    if desk.answer(request_id, answer) {
        (status, Json(json!({ "status": "OK" }))).into_response()
    } else {
        let body = json!({ "errorType": "InvalidRequestID", "errorMessage": "no invocation of this id is open" });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

async fn init_error(State(desks): State<Desks>, Path(desk): Path<String>, body: Bytes) -> Response {
    let Some(desk) = desks.find(&desk) else { return StatusCode::GONE.into_response() };
    let Diagnostic { error_type, error_message } = serde_json::from_slice(&body).unwrap_or_default();
    *desk.init_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error_type}: {error_message}"));
    (StatusCode::ACCEPTED, Json(json!({ "status": "OK" }))).into_response()
}
