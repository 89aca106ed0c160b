//! Reads a JSON body, strictly, and says where it is wrong.
//!
//! What is no JSON at all is 400; JSON that is not what the route takes is 422 with the path of the field, unknown fields
//! included. The sentences are ours: a body, which may hold what is nobody's business, is not quoted back.

use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::error::{Error, Kind, Result};

pub const MIB: usize = 1 << 20;

/// A JSON body of type `T`, at most `LIMIT` bytes long. Lambda itself takes 6 MB. `T` should deny unknown fields.
#[derive(Debug)]
pub struct Json<T, const LIMIT: usize = MIB>(pub T);

/// The same from a scheduler, which may send any content type and no body at all; that is `T::default()`.
#[derive(Debug)]
pub struct LenientJson<T>(pub T);

impl<S: Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        is_json(request.headers())?;
        let body = read(request, LIMIT).await?;
        parse(&body).map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for LenientJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let body = read(request, MIB).await?;
        let is_empty = matches!(body.trim_ascii(), b"" | b"null");
        if is_empty { Ok(Self(T::default())) } else { parse(&body).map(Self) }
    }
}

fn is_json(headers: &HeaderMap) -> Result<()> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if json && plain {
        return Ok(());
    }
    Err(Error::new(
        Kind::UnsupportedMedia,
        "UNSUPPORTED_MEDIA_TYPE",
        "Send JSON with content-type application/json, not compressed.",
    ))
}

/// The raw body, at most so many bytes.
pub async fn read(request: Request, limit: usize) -> Result<Vec<u8>> {
    let too_large =
        || Error::new(Kind::TooLarge, "TOO_LARGE", format!("The body is above the limit of {limit} bytes; send it in parts."));
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Error::new(Kind::Malformed, "MALFORMED", "The body ended before it was complete.").with_source(error)),
    }
}

/// Reads a `T`; the errors are as the header of this file says.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let malformed = || Error::new(Kind::Malformed, "MALFORMED_JSON", "The body is not valid JSON.");
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed().with_source(error))?;
    // Postgres cannot keep a NUL in a text. Few bodies have the six characters, so few are read twice.
    if text.contains("\\u0000")
        && let Ok(value) = serde_json::from_str::<Value>(text)
        && let Some(path) = nul(&value)
    {
        return Err(Error::field(path, "must not contain a NUL character"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner().to_string())
    })
}

/// The path of the first text with a NUL in it.
fn nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| nul(item).map(|rest| join(&format!("[{index}]"), &rest)))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            if name.contains('\0') { Some(name.replace('\0', "\u{fffd}")) } else { nul(field).map(|rest| join(name, &rest)) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("" | ".", field) => field.to_owned(),
        (path, "") => path.to_owned(),
        (path, field) if field.starts_with('[') => format!("{path}{field}"),
        (path, field) => format!("{path}.{field}"),
    }
}

/// Our sentence for one of serde's, which quotes the value that it found.
fn explain(path: &str, serde: &str) -> Error {
    let named = || serde.split('`').nth(1).unwrap_or_default().chars().take(100).collect::<String>();
    // The reader stands on a field that it does not know or has seen; one that is missing it has not come to.
    let at = |name: &str| if path == name || path.ends_with(&format!(".{name}")) { path.to_owned() } else { join(path, name) };
    if serde.starts_with("unknown field") {
        return Error::field(at(&named()), "is not a field that this address takes");
    }
    if serde.starts_with("missing field") {
        return Error::field(join(path, &named()), "is required");
    }
    if serde.starts_with("duplicate field") {
        return Error::new(Kind::Malformed, "MALFORMED_JSON", format!("The body has the field {} twice.", named()));
    }
    let field = if matches!(path, "" | ".") { "body" } else { path };
    if serde.starts_with("number out of range") {
        return Error::field(field, WHOLE_NUMBER);
    }
    let expected = serde.rsplit_once(", expected ").or_else(|| serde.split_once("expected ")).map(|(_, rest)| rest);
    let expected = expected.map(|text| text.split(" at line ").next().unwrap_or(text));
    let problem = match expected {
        Some("i64" | "i32" | "u64" | "u32") => WHOLE_NUMBER.to_owned(),
        Some(text) if text.starts_with("struct ") || text == "a map" => "must be an object".to_owned(),
        Some("a sequence") => "must be a list".to_owned(),
        Some(text) => format!("must be {text}"),
        None => "is not a valid value".to_owned(),
    };
    Error::field(field, problem)
}

const WHOLE_NUMBER: &str = "must be a whole number that fits 64 bits, without quotes, fraction or exponent";

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use http::header::HeaderValue;
    use serde::Deserialize;
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::super::{Cors, finish};
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Blue,
    }

    #[expect(dead_code, reason = "only read")]
    #[derive(Deserialize, Debug)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Row {
        amount: i64,
        #[serde(default)]
        note: Option<String>,
        owner_id: Option<Uuid>,
        colour: Option<Colour>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Rows {
        rows: Vec<Row>,
    }

    #[derive(Deserialize, Debug, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Cycle {
        cycle_date: Option<String>,
    }

    fn router() -> Router {
        let routes = Router::new()
            .route("/rows", post(async |Json(rows): Json<Rows, 1000>| format!("{:?}", rows.rows.len())))
            .route("/cycle", post(async |LenientJson(cycle): LenientJson<Cycle>| cycle.cycle_date.unwrap_or_default()));
        finish(routes, Cors::default())
    }

    async fn send(path: &str, kind: Option<&str>, body: impl Into<Body>) -> (u16, String) {
        let mut request = Request::builder().method("POST").uri(path).body(body.into()).expect("a request");
        if let Some(kind) = kind {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(kind).expect("a content type"));
        }
        let response = router().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_body_that_breaks_a_rule_is_answered_with_the_path_of_its_field() {
        for (body, field) in [
            (r#"{"rows":[{"amount":1},{"amount":1.5}]}"#, "rows[1].amount"),
            (r#"{"rows":[{"amount":1e3}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":1.0}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":"100"}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":"NaN"}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":null}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":true}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":9223372036854775808}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":99999999999999999999999}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":1e999}]}"#, "rows[0].amount"),
            (r#"{"rows":[{}]}"#, "rows[0].amount"),
            (r#"{"rows":[{"amount":1,"status":"paid"}]}"#, "rows[0].status"),
            (r#"{"rows":[{"amount":1,"note":7}]}"#, "rows[0].note"),
            (r#"{"rows":[{"amount":1,"ownerId":"x"}]}"#, "rows[0].ownerId"),
            (r#"{"rows":[{"amount":1,"colour":"secret-green"}]}"#, "rows[0].colour"),
            (r#"{"rows":[{"amount":1,"note":"a\u0000b"}]}"#, "rows[0].note"),
            (r#"{"rows":{}}"#, "rows"),
            (r#"{"rows":[],"organizationId":"x"}"#, "organizationId"),
            ("{}", "rows"),
            ("[]", "body"),
            ("7", "body"),
        ] {
            let (status, answer) = send("/rows", Some("application/json"), body).await;
            let json: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!((status, json["details"][0]["field"].as_str()), (422, Some(field)), "{body}: {answer}");
            assert!(!answer.contains("secret-green") && !answer.contains("at line"), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_not_json_is_refused_without_being_quoted() {
        let kind = Some("application/json; charset=utf-8");
        for body in [
            "",
            "hunter2",
            "{\"rows\":[",
            "{\"rows\":[]} hunter2",
            "{'rows':[]}",
            "{\"rows\":[NaN]}",
            "{\"rows\":[{\"amount\":1,\"amount\":1}]}",
            "\u{feff}{}",
        ] {
            let (status, answer) = send("/rows", kind, body.to_owned()).await;
            assert_eq!(status, 400, "{body}: {answer}");
            assert!(!answer.contains("hunter2"), "{answer}");
        }
        assert_eq!(send("/rows", kind, vec![b'"', 0xff, b'"']).await.0, 400);
        let deep = format!("{{\"rows\":{}{}}}", "[".repeat(400), "]".repeat(400));
        assert!(matches!(send("/rows", kind, deep).await.0, 400 | 422));
    }

    #[tokio::test]
    async fn only_json_is_read_and_only_so_much_of_it() {
        let good = r#"{"rows":[{"amount":9223372036854775807,"note":"\\u0000 is text"}]}"#;
        for (kind, status) in [
            (Some("application/json"), 200),
            (Some("Application/JSON;charset=utf-8"), 200),
            (Some("application/problem+json"), 200),
            (Some("text/plain"), 415),
            (Some("application/x-www-form-urlencoded"), 415),
            (Some("application/jsonp"), 415),
            (None, 415),
        ] {
            assert_eq!(send("/rows", kind, good).await.0, status, "{kind:?}");
        }
        let padded = |length: usize| format!("{{\"rows\":[]{}}}", " ".repeat(length - 11));
        assert_eq!(send("/rows", Some("application/json"), padded(1000)).await.0, 200);
        assert_eq!(send("/rows", Some("application/json"), padded(1001)).await.0, 413);
        let unannounced = Body::from_stream(futures::stream::iter(
            padded(2000).into_bytes().chunks(100).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>(),
        ));
        assert_eq!(send("/rows", Some("application/json"), unannounced).await.0, 413);
    }

    #[tokio::test]
    async fn a_scheduler_may_send_what_schedulers_send() {
        for (kind, body, status, date) in [
            (None, "", 200, ""),
            (Some("text/plain"), "  \n", 200, ""),
            (Some("application/x-www-form-urlencoded"), "{}", 200, ""),
            (Some("application/json"), "null", 200, ""),
            (Some("application/json"), r#"{"cycleDate":null}"#, 200, ""),
            (Some("text/plain"), r#"{"cycleDate":"2026-11-15","detail-type":"Scheduled Event"}"#, 200, "2026-11-15"),
            (Some("application/json"), "{", 400, ""),
        ] {
            let (answered, text) = send("/cycle", kind, body).await;
            assert_eq!(answered, status, "{body}");
            assert!(answered != 200 || text == date, "{body}");
        }
        assert_eq!(send("/cycle", None, r#"{"cycleDate":5}"#).await.0, 422);
    }
}
