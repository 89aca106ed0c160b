//! What goes around a whole router: the request's id, its span and its one log line, panics, unknown routes and methods,
//! CORS, and the headers that every answer carries.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use lambda_http::request::RequestContext;
use tracing::Instrument;
use uuid::Uuid;

use super::cors::Cors;
use super::response;
use crate::clock;
use crate::error::{Error, Kind};
use crate::telemetry::{Metric, metric};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request that is being answered: API Gateway's, so that its log and ours meet, else one of our own. What a
/// client sends as such is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    fn of(request: &Request) -> Self {
        let given = match request.extensions().get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
            _ => None,
        };
        let printable = |id: &String| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self(given.filter(printable).unwrap_or_else(|| Uuid::new_v4().to_string()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Error::internal("A router is not wrapped in http::finish."))
    }
}

/// Makes a router answer as the product says. Call it last, on the merged router.
pub fn finish(routes: Router, cors: Cors) -> Router {
    routes
        .fallback(async || Error::new(Kind::NotFound, "NOT_FOUND", "There is nothing at this address."))
        .method_not_allowed_fallback(async || {
            Error::new(Kind::MethodNotAllowed, "METHOD_NOT_ALLOWED", "This address does not take this method.")
        })
        .layer(from_fn_with_state(Arc::new(cors), answer))
}

async fn answer(State(cors): State<Arc<Cors>>, mut request: Request, next: Next) -> Response {
    let began = clock::monotonic();
    let id = RequestId::of(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(id.clone());
    let span = tracing::info_span!("request", request = %id);
    async move {
        let asked = cors.ask(request.headers());
        let preflight = cors.preflight(&request);
        let (response, panicked) = match preflight {
            Some(response) => (response, false),
            None => match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                Ok(response) => (response, false),
                Err(_) => (Error::internal("A handler panicked.").into_response(), true),
            },
        };
        let failure = response::failure(&response);
        let mut response = match &failure {
            Some(error) => response::problem(error, &method, response.headers(), &id.0),
            None => response,
        };
        asked.allow(response.headers_mut());
        secure(response.headers_mut());
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis());
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        if status >= 500 {
            metric(Metric::RequestsFailed, 1, &[]);
        }
        // The address without its query, which may hold what is nobody's business. A panic was logged where it happened.
        match failure {
            Some(error) if status >= 500 && !panicked => {
                tracing::error!(%method, path, status, ms, code = error.code, error = %error, causes = error.causes(), "answered");
            }
            Some(error) => tracing::info!(%method, path, status, ms, code = error.code, error = %error, "answered"),
            None => tracing::info!(%method, path, status, ms, "answered"),
        }
        response
    }
    .instrument(span)
    .await
}

/// Answers are about money and about one caller: nobody in between keeps them, no browser guesses what they are.
fn secure(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::{get, post};
    use http::Method;
    use lambda_http::request::RequestContext;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::super::Cors;
    use super::*;

    fn router() -> Router {
        let routes = Router::new()
            .route("/fine", get(async |id: RequestId| id.0))
            .route("/panics", get(async || -> String { std::panic::resume_unwind(Box::new("secret words")) }))
            .route("/typed/{number}", get(async |axum::extract::Path(number): axum::extract::Path<i64>| number.to_string()))
            .route("/posts", post(async || "posted").get(async || "got"))
            .route(
                "/sql",
                get(async || Err::<(), _>(Error::internal("select * from payees").with_source("relation payees does not exist"))),
            )
            .route(
                "/busy",
                get(async || {
                    Err::<(), _>(
                        Error::unavailable("DATABASE_UNAVAILABLE", "The database does not answer.")
                            .with_source("db.internal:5432"),
                    )
                }),
            )
            .route(
                "/flood",
                get(async || {
                    Err::<(), _>(Error::new(Kind::RateLimited { retry_after_seconds: 7 }, "RATE_LIMITED", "Too many requests."))
                }),
            )
            .route("/field", get(async || Err::<(), _>(Error::field("amount", "must be above 0"))));
        finish(routes, Cors::new(&["https://app.example.com".to_owned()]).expect("an origin"))
    }

    async fn call(request: http::request::Builder) -> (u16, HeaderMap, String) {
        let response = router().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn every_failure_is_answered_in_the_one_form() {
        for (method, path, status, code) in [
            (Method::GET, "/nowhere", 404, "NOT_FOUND"),
            (Method::DELETE, "/posts", 405, "METHOD_NOT_ALLOWED"),
            (Method::GET, "/panics", 500, "INTERNAL"),
            (Method::GET, "/typed/abc", 400, "MALFORMED"),
            (Method::GET, "/sql", 500, "INTERNAL"),
            (Method::GET, "/busy", 503, "DATABASE_UNAVAILABLE"),
            (Method::GET, "/flood", 429, "RATE_LIMITED"),
            (Method::GET, "/field", 422, "VALIDATION_FAILED"),
        ] {
            let (answered, headers, body) = call(Request::builder().method(method).uri(path)).await;
            let json: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((answered, json["code"].as_str()), (status, Some(code)), "{path}");
            assert_eq!((&json["ok"], &json["success"]), (&Value::Bool(false), &Value::Bool(false)), "{path}");
            assert_eq!(json["requestId"].as_str(), headers["x-request-id"].to_str().ok(), "{path}");
            assert!(
                json["timestamp"].is_string()
                    && json["error"].as_str().is_some_and(|text| text.ends_with('.') || path == "/field"),
                "{path}: {body}"
            );
            assert_eq!(json.get("details").is_some(), path == "/field", "{path}");
            for leak in ["select", "relation", "db.internal", "secret words"] {
                assert!(!body.contains(leak), "{path} tells {leak}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_says_what_else_is_allowed_and_when_to_come_back() {
        let (_, headers, _) = call(Request::builder().method(Method::PUT).uri("/posts")).await;
        let mut allowed: Vec<_> = headers["allow"].to_str().expect("text").split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "HEAD", "POST"]);
        assert_eq!(call(Request::builder().uri("/flood")).await.1["retry-after"], "7");
        assert!(call(Request::builder().uri("/busy")).await.1.contains_key("retry-after"));
    }

    #[tokio::test]
    async fn the_request_id_is_the_gateways_and_never_the_clients() {
        let gateway = serde_json::from_value(
            serde_json::json!({ "requestId": "JKJaXmPLvHcESHA=", "http": { "method": "GET" }, "timeEpoch": 0 }),
        )
        .expect("a context");
        let request =
            Request::builder().uri("/fine").header("x-request-id", "mine").extension(RequestContext::ApiGatewayV2(gateway));
        let (_, headers, body) = call(request).await;
        assert_eq!((headers["x-request-id"].to_str().ok(), body.as_str()), (Some("JKJaXmPLvHcESHA="), "JKJaXmPLvHcESHA="));
        let (_, headers, _) = call(Request::builder().uri("/fine").header("x-request-id", "mine")).await;
        assert!(headers["x-request-id"].to_str().is_ok_and(|id| Uuid::parse_str(id).is_ok()));
    }

    #[tokio::test]
    async fn every_answer_is_private_and_is_what_it_says() {
        for path in ["/fine", "/nowhere", "/panics"] {
            let (_, headers, _) = call(Request::builder().uri(path)).await;
            assert_eq!(
                (headers["x-content-type-options"].as_bytes(), headers["cache-control"].as_bytes()),
                (&b"nosniff"[..], &b"no-store"[..]),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn only_the_frontends_may_call_from_a_browser() {
        for (origin, path, allowed) in [
            ("https://app.example.com", "/fine", true),
            ("https://app.example.com", "/nowhere", true),
            ("https://app.example.com", "/panics", true),
            ("https://app.example.com.evil.com", "/fine", false),
            ("http://app.example.com", "/fine", false),
            ("null", "/fine", false),
        ] {
            let (_, headers, _) = call(Request::builder().uri(path).header("origin", origin)).await;
            let expected = allowed.then_some(origin);
            assert_eq!(
                headers.get("access-control-allow-origin").and_then(|value| value.to_str().ok()),
                expected,
                "{origin} {path}"
            );
            assert_eq!(headers["vary"], "Origin", "{origin} {path}");
            let ask = Request::builder()
                .method(Method::OPTIONS)
                .uri(path)
                .header("origin", origin)
                .header("access-control-request-method", "POST");
            let (status, headers, body) = call(ask).await;
            assert_eq!((status, body.as_str()), (204, ""), "{origin} {path}");
            assert_eq!(headers.contains_key("access-control-allow-methods"), allowed, "{origin} {path}");
        }
        assert_eq!(call(Request::builder().method(Method::OPTIONS).uri("/fine")).await.0, 405);
    }
}
