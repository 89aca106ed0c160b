//! EventBridge Scheduler's API over HTTP, on `winterbaume-scheduler`.
//!
//! Winterbaume checks requests, knows groups, pages lists and words errors, but forgets a schedule's input, time zone, retry
//! policy and dead-letter queue. A caller that reads a schedule and writes all of it back, as pausing must, would lose them.
//! So each accepted body is kept here as well and laid over what winterbaume answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use winterbaume_core::{MockRequest, MockResponse, MockService};

use super::Inner;

pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new().fallback(handle).with_state(inner)
}

async fn handle(State(inner): State<Arc<Inner>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let answer = inner.request(&method, &uri, headers, body).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, answer.headers, answer.body).into_response()
}

fn refusal(status: u16, code: &'static str, message: &str) -> MockResponse {
    let mut answer = MockResponse::rest_json(status, json!({ "Message": message, "message": message }).to_string());
    answer.headers.insert("x-amzn-errortype", axum::http::HeaderValue::from_static(code));
    answer
}

/// What a request is about.
struct Target {
    action: &'static str,
    group: String,
    name: String,
}

fn target(method: &Method, uri: &Uri, body: &[u8]) -> Option<Target> {
    let decode = |text: &str| form_urlencoded::parse(format!("x={text}").as_bytes()).next().map(|(_, value)| value.into_owned());
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let of_query = || form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).find(|(key, _)| key == "groupName");
    let of_body = || serde_json::from_slice::<Json>(body).ok()?.get("GroupName")?.as_str().map(str::to_owned);
    let (action, name) = match (method.as_str(), &parts[..]) {
        ("GET", ["schedules"]) => ("ListSchedules", "*"),
        ("POST", ["schedules", name]) => ("CreateSchedule", *name),
        ("GET", ["schedules", name]) => ("GetSchedule", *name),
        ("PUT", ["schedules", name]) => ("UpdateSchedule", *name),
        ("DELETE", ["schedules", name]) => ("DeleteSchedule", *name),
        _ => return None,
    };
    let group = if matches!(action, "CreateSchedule" | "UpdateSchedule") {
        of_body()
    } else {
        of_query().map(|(_, group)| group.into_owned())
    };
    Some(Target { action, group: group.unwrap_or_else(|| "default".to_owned()), name: decode(name)? })
}

impl Inner {
    async fn request(&self, method: &Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> MockResponse {
        let Some(target) = target(method, uri, &body) else {
            return refusal(
                404,
                "UnknownOperationException",
                "the local Scheduler knows schedules only; groups are those of the template",
            );
        };
        let resource = if target.action == "ListSchedules" {
            // AWS lets this action be limited to no resource at all.
            "*".to_owned()
        } else {
            self.place.arn("scheduler", &format!("schedule/{}/{}", target.group, target.name))
        };
        if let Err(why) = self.identities.check(&headers, &format!("scheduler:{}", target.action), &resource) {
            return refusal(403, "AccessDeniedException", &why);
        }
        let kept: Option<Json> = match target.action {
            "CreateSchedule" | "UpdateSchedule" => match serde_json::from_slice(&body) {
                Ok(kept) => Some(kept),
                Err(error) => return refusal(400, "SerializationException", &format!("the body is not JSON: {error}")),
            },
            _ => None,
        };
        if let Some(kept) = &kept {
            let timing = super::timing_of(kept);
            if let Err(wrong) = timing {
                return refusal(400, "ValidationException", &format!("Invalid Schedule Expression: {wrong}"));
            }
        }
        let request = MockRequest {
            method: method.to_string(),
            uri: format!("https://scheduler.us-east-1.amazonaws.com{}", uri.path_and_query().map_or("/", |path| path.as_str())),
            headers,
            body,
        };
        let answer = self.service.handle(request).await;
        if !(200..300).contains(&answer.status) {
            return answer;
        }
        match (target.action, kept) {
            ("CreateSchedule" | "UpdateSchedule", Some(kept)) => self.keep(&target.group, &target.name, kept),
            ("DeleteSchedule", _) => self.forget(&target.group, &target.name),
            ("GetSchedule", _) => return self.complete(&target, answer),
            _ => {}
        }
        answer
    }

    fn complete(&self, target: &Target, answer: MockResponse) -> MockResponse {
        let (Some(Json::Object(kept)), Ok(Json::Object(mut whole))) =
            (self.kept(&target.group, &target.name), serde_json::from_slice(&answer.body))
        else {
            return answer;
        };
        whole.extend(kept.into_iter().filter(|(key, value)| key != "ClientToken" && !value.is_null()));
        whole.entry("ScheduleExpressionTimezone").or_insert_with(|| json!("UTC"));
        whole.entry("ActionAfterCompletion").or_insert_with(|| json!("NONE"));
        MockResponse { body: Json::Object(whole).to_string().into(), ..answer }
    }

    /// Passes a request to winterbaume from inside: to set up the template's schedules, to delete a completed one.
    pub(super) async fn own_request(&self, method: &str, path: &str, body: Option<&Json>) -> Result<(), String> {
        let request = MockRequest {
            method: method.to_owned(),
            uri: format!("https://scheduler.us-east-1.amazonaws.com{path}"),
            headers: HeaderMap::new(),
            body: body.map(Json::to_string).unwrap_or_default().into(),
        };
        let answer = self.service.handle(request).await;
        if (200..300).contains(&answer.status) { Ok(()) } else { Err(String::from_utf8_lossy(&answer.body).into_owned()) }
    }
}
