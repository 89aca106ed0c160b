//! Which browsers' pages may call: those of `FRONTEND_URL`, each named, never a wildcard.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode, Uri};

use crate::error::{Error, Result};

/// The origins that may call, as browsers write them.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// From addresses like `https://app.example.com`; a path behind one is left out, for an origin has none.
    pub fn new(urls: &[String]) -> Result<Self> {
        let origins = urls.iter().map(|url| {
            origin(url)
                .ok_or_else(|| Error::config("FRONTEND_URL", format!("{url:?} is not an address like https://app.example.com")))
        });
        Ok(Self { origins: origins.collect::<Result<_>>()? })
    }

    /// What this caller's answer says about it.
    pub(super) fn ask(&self, headers: &HeaderMap) -> Asked {
        let from = headers.get(ORIGIN);
        Asked { allowed: self.origins.iter().find(|origin| Some(*origin) == from).cloned() }
    }

    /// The answer to a browser that asks before it calls; nothing else is meant by `OPTIONS` with these headers.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let asks = request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        asks.then_some(())?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        if self.ask(headers).allowed.is_some() {
            let told = response.headers_mut();
            told.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
            told.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type, idempotency-key"));
            told.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        Some(response)
    }
}

/// Whether the origin that a request came from is one of ours.
pub(super) struct Asked {
    allowed: Option<HeaderValue>,
}

impl Asked {
    pub(super) fn allow(self, headers: &mut HeaderMap) {
        // Said also to those who are not allowed: a cache must not hand their answer to somebody who is.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
        }
    }
}

/// `scheme://host[:port]` in lower case, without the scheme's own port.
fn origin(url: &str) -> Option<HeaderValue> {
    let uri: Uri = url.to_ascii_lowercase().parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let own_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let port = authority.port_u16().filter(|port| *port != own_port).map(|port| format!(":{port}")).unwrap_or_default();
    HeaderValue::from_str(&format!("{scheme}://{}{port}", authority.host())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (url, expected) in [
            ("https://App.Example.com", Some("https://app.example.com")),
            ("https://app.example.com:443/path?x", Some("https://app.example.com")),
            ("http://localhost:3000/", Some("http://localhost:3000")),
            ("http://user:password@localhost", Some("http://localhost")),
            ("*", None),
            ("app.example.com", None),
            ("ftp://app.example.com", None),
            ("", None),
        ] {
            assert_eq!(origin(url).as_ref().and_then(|value| value.to_str().ok()), expected, "{url}");
        }
        assert!(Cors::new(&["*".to_owned()]).is_err_and(|error| error.message.contains("FRONTEND_URL")));
    }
}
