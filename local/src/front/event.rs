//! API Gateway's payload format 2.0, both ways.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::template::Route;

pub(super) fn from_request(
    parts: &Parts,
    body: &[u8],
    route: &Route,
    path_parameters: &[(String, String)],
    ip: IpAddr,
    account: &str,
) -> Json {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    let mut cookies: Vec<String> = Vec::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == COOKIE {
            cookies.extend(value.split(';').map(|cookie| cookie.trim().to_owned()));
        } else {
            headers.entry(name.as_str()).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
        }
    }
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let host = header(HOST);
    headers.entry("x-forwarded-for").or_insert_with(|| ip.to_string());
    headers.entry("x-forwarded-proto").or_insert_with(|| "http".to_owned());
    headers.entry("x-forwarded-port").or_insert_with(|| host.rsplit(':').next().unwrap_or("80").to_owned());
    if !body.is_empty() {
        headers.entry("content-length").or_insert_with(|| body.len().to_string());
    }

    let raw_query = parts.uri.query().unwrap_or_default();
    let mut query: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(raw_query.as_bytes()) {
        query.entry(name.into_owned()).and_modify(|all| *all = format!("{all},{value}")).or_insert_with(|| value.into_owned());
    }
    let now = chrono::Utc::now();
    let path = parts.uri.path();
    let route_key = if route.path == "$default" { "$default".to_owned() } else { format!("{} {}", route.method, route.path) };
    let mut event = json!({
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": {
            "accountId": account,
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": ip.to_string(),
                "userAgent": header(USER_AGENT),
            },
            "requestId": uuid::Uuid::new_v4().simple().to_string()[..16].to_owned(),
            "routeKey": route_key,
            "stage": "$default",
            "time": now.format("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": now.timestamp_millis(),
        },
        "isBase64Encoded": false,
    });
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    if !query.is_empty() {
        event["queryStringParameters"] = json!(query);
    }
    if !path_parameters.is_empty() {
        event["pathParameters"] =
            path_parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>().into();
    }
    if !body.is_empty() {
        match std::str::from_utf8(body) {
            Ok(text) if is_text(&header(CONTENT_TYPE)) => event["body"] = json!(text),
            _ => {
                event["body"] = json!(STANDARD.encode(body));
                event["isBase64Encoded"] = json!(true);
            }
        }
    }
    event
}

/// Types that API Gateway passes on as text; everything else, forms too, comes in base64.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || matches!(kind.as_str(), "application/json" | "application/javascript" | "application/xml")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// The response that an answer means, or why it means none. An answer without `statusCode` is itself the body of a 200.
pub(super) fn to_response(answer: Json) -> Result<Response<Body>, String> {
    let Some(status) = answer.get("statusCode") else {
        let mut response = Response::new(Body::from(answer.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    };
    let status = status.as_u64().or_else(|| status.as_str().and_then(|status| status.parse().ok()));
    let status = status.and_then(|status| u16::try_from(status).ok()).and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| format!("its statusCode is {}", answer["statusCode"]))?;
    let body = answer.get("body").and_then(Json::as_str).unwrap_or_default();
    let body = if answer.get("isBase64Encoded").and_then(Json::as_bool).unwrap_or(false) {
        STANDARD.decode(body).map_err(|error| format!("its body is no base64: {error}"))?
    } else {
        body.as_bytes().to_vec()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // API Gateway says text/plain unless told otherwise.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    let mut put = |name: &str, value: &Json| -> Result<(), String> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header's name"))?;
        // The server works these out from the body it sends.
        if name != "content-length" && name != "transfer-encoding" {
            headers.insert(name.clone(), text.parse().map_err(|_| format!("the header {name} has a value that cannot be sent"))?);
        }
        Ok(())
    };
    for (name, value) in answer.get("headers").and_then(Json::as_object).into_iter().flatten() {
        put(name, value)?;
    }
    for cookie in answer.get("cookies").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
        headers.append(SET_COOKIE, cookie.parse().map_err(|_| "a cookie cannot be sent".to_owned())?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_the_response_that_api_gateway_would_send() {
        let answer = json!({
            "statusCode": 201,
            "headers": { "content-type": "application/json", "x-request-id": "r1" },
            "cookies": ["a=1; Secure", "b=2"],
            "body": "eyJvayI6dHJ1ZX0=",
            "isBase64Encoded": true,
        });
        let response = to_response(answer).expect("a response");
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);

        assert_eq!(to_response(json!({ "hello": 1 })).expect("a response").status(), 200);
        for nonsense in [
            json!({ "statusCode": "many" }),
            json!({ "statusCode": 99_999 }),
            json!({ "statusCode": 200, "body": "%", "isBase64Encoded": true }),
        ] {
            assert!(to_response(nonsense.clone()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn only_text_is_passed_on_as_text() {
        for (kind, text) in [
            ("application/json; charset=utf-8", true),
            ("text/csv", true),
            ("application/problem+json", true),
            ("application/x-www-form-urlencoded", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_text(kind), text, "{kind}");
        }
    }
}
