//! One error type for the whole library. It knows what kind of thing went wrong and a stable code, and nothing of HTTP:
//! `http/response.rs` turns it into an answer, the functions turn it into a failed invocation.
//!
//! `Display` is a sentence for a person and never prints the source, which may hold SQL or a host name; the source goes to the log.

use std::fmt;

/// What kind of failure this is; decides the HTTP status and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be understood at all (malformed JSON, bad cursor).
    Malformed,
    /// The request is understood and breaks a rule; `details` name the fields.
    Invalid,
    /// No or wrong credentials.
    Unauthenticated,
    /// Known caller, not allowed.
    Forbidden,
    /// Not there, or not the caller's.
    NotFound,
    /// It is there and in another state than the request assumes.
    Conflict,
    /// The very same request is being worked on; ask again after so many seconds and it is done.
    InProgress { retry_after_seconds: u32 },
    /// The method is not one this path has.
    MethodNotAllowed,
    /// The body is above the limit.
    TooLarge,
    /// The body is not of a content type we read.
    UnsupportedMedia,
    /// Too many requests; try again after so many seconds.
    RateLimited { retry_after_seconds: u32 },
    /// Something we stand on does not answer (database, queue, Stripe); trying again may help.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// One wrong field of a request: where (`earnings[3].amount`) and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldError {
    pub field: String,
    pub error: String,
}

/// The library's error. `code` is stable and for programs, `message` for people.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub code: &'static str,
    pub message: String,
    pub details: Vec<FieldError>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), details: Vec::new(), source: None }
    }

    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, message)
    }

    /// A rule broken by one field.
    pub fn field(field: impl Into<String>, error: impl Into<String>) -> Self {
        let (field, error) = (field.into(), error.into());
        let mut whole = Self::invalid("VALIDATION_FAILED", format!("{field}: {error}"));
        whole.details.push(FieldError { field, error });
        whole
    }

    pub fn fields(details: Vec<FieldError>) -> Self {
        let mut whole = Self::invalid("VALIDATION_FAILED", "Some fields are wrong; see details.");
        whole.details = details;
        whole
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, "NOT_FOUND", format!("{what} was not found."))
    }

    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, code, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, "INTERNAL", message)
    }

    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, code, message)
    }

    /// A setting that is missing or wrong; names the variable.
    pub fn config(variable: &str, problem: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, "CONFIG", format!("{variable}: {problem}"))
    }

    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same work may succeed a moment later without anything being changed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::RateLimited { .. })
    }

    /// The sources, for the log only.
    pub fn causes(&self) -> String {
        let mut text = String::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
