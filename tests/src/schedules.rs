//! EventBridge Scheduler for tests without the runtime around them: it keeps schedules as they were last written, and fires none.
//! Like the real one it takes an update for the whole schedule.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::SdkConfig;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use payday::schedule::Scheduler;
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

/// The template's payout schedules, and the one that a retry at a time is made like.
const NAMES: [&str; 4] = ["payout-semimonthly", "payout-monthly", "payout-weekly", "job-retry"];

/// Schedules by name.
#[derive(Clone)]
pub struct Schedules(Arc<Mutex<BTreeMap<String, Json>>>);

impl Default for Schedules {
    fn default() -> Self {
        let schedule = |name: &str| {
            json!({
                "Name": name, "GroupName": "payday", "State": "ENABLED", "ScheduleExpression": "cron(0 6 1,15 * ? *)",
                "ScheduleExpressionTimezone": "Europe/Berlin", "Description": format!("what {name} is for"),
                "FlexibleTimeWindow": { "Mode": "OFF" },
                "Target": {
                    "Arn": "arn:aws:lambda:us-east-1:123456789012:function:f", "RoleArn": "arn:aws:iam::123456789012:role/r",
                    "Input": "{}", "RetryPolicy": { "MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 5 },
                    "DeadLetterConfig": { "Arn": "arn:aws:sqs:us-east-1:123456789012:dlq" },
                },
            })
        };
        Self(Arc::new(Mutex::new(NAMES.into_iter().map(|name| (name.to_owned(), schedule(name))).collect())))
    }
}

impl Schedules {
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<String, Json>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are switched off.
    pub fn disabled(&self) -> Vec<String> {
        self.all().iter().filter(|(_, it)| it["State"] == "DISABLED").map(|(name, _)| name.clone()).collect()
    }

    pub fn set_state(&self, name: &str, state: &str) {
        if let Some(schedule) = self.all().get_mut(name) {
            schedule["State"] = state.into();
        }
    }

    /// The API, for a server that has others beside it.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/schedules", get(list))
            .route("/schedules/{name}", get(read).post(create).put(update))
            .with_state(self.clone())
    }

    /// A server and a client of it. The server ends with the handle.
    pub async fn serve(&self, aws: &SdkConfig) -> (Scheduler, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = self.routes();
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        (Scheduler::new(&aws.clone().into_builder().endpoint_url(url).build(), "payday".to_owned()), server)
    }
}

fn refusal(status: StatusCode, code: &'static str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
    (status, headers, axum::Json(json!({ "Message": code }))).into_response()
}

async fn list(State(schedules): State<Schedules>) -> axum::Json<Json> {
    let summaries: Vec<Json> = schedules
        .all()
        .values()
        .map(|it| json!({ "Name": it["Name"], "GroupName": it["GroupName"], "State": it["State"] }))
        .collect();
    axum::Json(json!({ "Schedules": summaries }))
}

async fn read(State(schedules): State<Schedules>, Path(name): Path<String>) -> Response {
    match schedules.all().get(&name) {
        Some(schedule) => axum::Json(schedule.clone()).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "ResourceNotFoundException"),
    }
}

async fn create(
    State(schedules): State<Schedules>,
    Path(name): Path<String>,
    axum::Json(mut body): axum::Json<Json>,
) -> Response {
    if schedules.all().contains_key(&name) {
        return refusal(StatusCode::CONFLICT, "ConflictException");
    }
    body["Name"] = name.clone().into();
    schedules.all().insert(name, body);
    axum::Json(json!({ "ScheduleArn": "arn" })).into_response()
}

async fn update(
    State(schedules): State<Schedules>,
    Path(name): Path<String>,
    axum::Json(mut body): axum::Json<Json>,
) -> Response {
    if !schedules.all().contains_key(&name) {
        return refusal(StatusCode::NOT_FOUND, "ResourceNotFoundException");
    }
    body["Name"] = name.clone().into();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("ClientToken");
    }
    schedules.all().insert(name, body);
    axum::Json(json!({ "ScheduleArn": "arn" })).into_response()
}
