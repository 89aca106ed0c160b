//! Turns an error into an answer: the only file that knows both.
//!
//! A handler's error becomes a status and headers here; the body is written by [`super::finish`], which knows the request's
//! id. Sources never leave the process, and of a fault of ours not even the sentence does.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;
use crate::error::{Error, FieldError, Kind};

/// Seconds after which it is worth asking again what did not answer.
const UNAVAILABLE_RETRY_SECONDS: u32 = 5;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Always false.
    pub ok: bool,
    /// Always false.
    pub success: bool,
    /// Stable, for programs.
    #[schema(value_type = String, example = "VALIDATION_FAILED")]
    pub code: &'static str,
    /// A sentence for a person.
    pub error: String,
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Quote it when asking for help; it finds the request in the logs.
    pub request_id: String,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    pub details: Vec<FieldError>,
}

/// The error of an answer, on its way to [`super::finish`].
#[derive(Clone)]
pub(super) struct Failure(pub(super) Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(self.kind).into_response();
        let retry_after = match self.kind {
            Kind::RateLimited { retry_after_seconds } | Kind::InProgress { retry_after_seconds } => {
                Some(retry_after_seconds.max(1))
            }
            Kind::Unavailable => Some(UNAVAILABLE_RETRY_SECONDS),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"payday\""));
        }
        response.extensions_mut().insert(Failure(Arc::new(self)));
        response
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Malformed => StatusCode::BAD_REQUEST,
        Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict | Kind::InProgress { .. } => StatusCode::CONFLICT,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error behind an answer, if it is not a success. An answer that some part below us made (axum refusing a path) gets
/// an error by its status, so that no body is ever in another form than ours.
pub(super) fn failure(response: &Response) -> Option<Arc<Error>> {
    if let Some(Failure(error)) = response.extensions().get() {
        return Some(error.clone());
    }
    let is_ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (kind, code, message) = match response.status() {
        status if is_ours || !(status.is_client_error() || status.is_server_error()) => return None,
        StatusCode::NOT_FOUND => (Kind::NotFound, "NOT_FOUND", "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            (Kind::MethodNotAllowed, "METHOD_NOT_ALLOWED", "This address does not take this method.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => (Kind::TooLarge, "TOO_LARGE", "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Kind::UnsupportedMedia, "UNSUPPORTED_MEDIA_TYPE", "Send JSON with content-type application/json.")
        }
        status if status.is_client_error() => (Kind::Malformed, "MALFORMED", "The request cannot be understood."),
        _ => (Kind::Internal, "INTERNAL", ""),
    };
    Some(Arc::new(Error::new(kind, code, message)))
}

/// The answer for an error: the headers that it already has, and our body.
pub(super) fn problem(error: &Error, method: &Method, headers: &HeaderMap, request_id: &str) -> Response {
    let ours = error.kind == Kind::Internal;
    let problem = Problem {
        ok: false,
        success: false,
        code: if ours { "INTERNAL" } else { error.code },
        error: if ours {
            "Something went wrong on our side. Try again; if it stays, quote the request id.".to_owned()
        } else {
            error.message.clone()
        },
        timestamp: clock::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        request_id: request_id.to_owned(),
        details: if ours { Vec::new() } else { error.details.clone() },
    };
    let mut response = (status(error.kind), axum::Json(problem)).into_response();
    for (name, value) in headers.iter().filter(|(name, _)| !matches!(name.as_str(), "content-type" | "content-length")) {
        response.headers_mut().append(name, value.clone());
    }
    if method == Method::HEAD {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}
