//! Stripe's error envelope, and for each error whether the idempotency layer keeps it: what is refused
//! before the endpoint begins to execute is not kept, everything after is.
//! <https://docs.stripe.com/api/idempotent_requests>, <https://docs.stripe.com/error-low-level>

use std::ops::{Deref, DerefMut};

use hyper::body::Bytes;
use serde::Serialize;

/// Boxed: it travels in every `Result`, mostly not at all.
#[derive(Debug, Clone)]
pub(super) struct ApiError(Box<Details>);

#[derive(Debug, Clone)]
pub(super) struct Details {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<String>,
    pub message: String,
    pub param: Option<String>,
    /// Stored under the idempotency key.
    pub saved: bool,
    /// `Stripe-Rate-Limited-Reason`
    pub rate_limited_reason: Option<String>,
    /// `Retry-After`, seconds
    pub retry_after: Option<u32>,
}

impl Deref for ApiError {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_url: Option<String>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    request_log_url: String,
    #[serde(rename = "type")]
    kind: &'a str,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, message: String) -> Self {
        Self(Box::new(Details {
            status,
            kind,
            code: None,
            message,
            param: None,
            saved: false,
            rate_limited_reason: None,
            retry_after: None,
        }))
    }

    /// Refused before execution: bad parameters. Not kept under the key.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message.into())
    }

    /// Refused by the endpoint itself: kept under the key.
    pub(super) fn refused(code: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(400, "invalid_request_error", message.into()).saved();
        if !code.is_empty() {
            error.code = Some(code.to_owned());
        }
        error
    }

    pub(super) fn code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    pub(super) fn param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn saved(mut self) -> Self {
        self.saved = true;
        self
    }

    pub(super) fn missing_param(name: &str) -> Self {
        Self::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(name)
    }

    pub(super) fn unknown_param(name: &str) -> Self {
        Self::invalid(format!("Received unknown parameter: {name}")).code("parameter_unknown").param(name)
    }

    /// An id in the path: 404. (An id in a parameter is a 400, see `no_such_param`.)
    pub(super) fn no_such(what: &str, id: &str) -> Self {
        Self::refused("resource_missing", format!("No such {what}: '{id}'")).status(404).param(what)
    }

    pub(super) fn no_such_param(what: &str, id: &str, param: &str) -> Self {
        Self::refused("resource_missing", format!("No such {what}: '{id}'")).param(param)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "invalid_request_error", message.into())
    }

    /// <https://docs.stripe.com/error-codes> `account_invalid`
    pub(super) fn account_invalid(key: &str, account: &str) -> Self {
        Self::new(
            403,
            "invalid_request_error",
            format!(
                "The provided key '{}' does not have access to account '{account}' (or that account does not exist). \
                 Application access may have been revoked.",
                masked(key)
            ),
        )
        .code("account_invalid")
    }

    pub(super) fn forbidden(key: &str) -> Self {
        Self::new(
            403,
            "invalid_request_error",
            format!("The provided key '{}' does not have the required permissions for this endpoint.", masked(key)),
        )
    }

    pub(super) fn idempotency_mismatch(key: &str) -> Self {
        Self::new(
            400,
            "idempotency_error",
            format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{key}' if you meant to execute a different request."
            ),
        )
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        Self::new(
            409,
            "idempotency_error",
            format!(
                "There is currently another in-progress request using this Idempotent Key (that probably means you \
                 submitted twice, and the other request is still going through): {key}. Please try again later."
            ),
        )
        .code("idempotency_key_in_use")
    }

    /// <https://docs.stripe.com/rate-limits>
    pub(super) fn rate_limited(reason: &str) -> Self {
        let mut error = Self::new(
            429,
            "invalid_request_error",
            "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.".to_owned(),
        )
        .code("rate_limit");
        error.rate_limited_reason = Some(reason.to_owned());
        error
    }

    /// An object is locked by another request: a 429 without a rate-limit reason.
    /// <https://docs.stripe.com/rate-limits#object-lock-timeouts>
    pub(super) fn lock_timeout() -> Self {
        Self::new(
            429,
            "invalid_request_error",
            "This object cannot be accessed right now because another API request or Stripe process is currently accessing it. \
             If you see this error intermittently, retry the request."
                .to_owned(),
        )
        .code("lock_timeout")
    }

    pub(super) fn server(saved: bool) -> Self {
        let mut error = Self::new(500, "api_error", "An unknown error occurred".to_owned());
        error.saved = saved;
        error
    }

    pub(super) fn balance_insufficient() -> Self {
        Self::refused(
            "balance_insufficient",
            "You have insufficient funds in your Stripe account for this transfer. Your card balance is too low.  You can use \
             the /v1/balance endpoint to view your Stripe balance (for more details, see stripe.com/docs/api#balance).",
        )
    }

    pub(super) fn body(&self, request_id: &str, now_ms: i64) -> Bytes {
        let envelope = Envelope {
            error: Inner {
                code: self.code.as_deref(),
                doc_url: self
                    .code
                    .as_deref()
                    .map(|code| format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"))),
                message: &self.message,
                param: self.param.as_deref(),
                request_log_url: format!("https://dashboard.stripe.com/test/logs/{request_id}?t={}", now_ms.div_euclid(1000)),
                kind: self.kind,
            },
        };
        Bytes::from(serde_json::to_vec(&envelope).unwrap_or_default())
    }
}

/// As Stripe shows keys in messages: the kind, stars, the last four characters.
pub(super) fn masked(key: &str) -> String {
    let tail: String = key.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect();
    let head: String = key.chars().take(8).collect();
    format!("{head}{}{tail}", "*".repeat(12))
}
