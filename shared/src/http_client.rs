//! The HTTP client everything outside AWS is called with: pooled, with a timeout, and exact about how far a request got.
//!
//! A failure before the request was written is another thing than one after: the first did not happen, of the second nobody
//! knows. `Failure` keeps them apart because money depends on it.

use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::boundary::Interruption;
use crate::error::{Error, Result};

/// Answers above this are cut off and count as unreadable.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// What came back: status, headers and the raw body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// No answer, and how far the request got.
#[derive(Debug)]
pub enum Failure {
    /// It never left: name lookup, connection or TLS failed.
    NotSent(String),
    /// It may have arrived and been acted upon.
    Unanswered(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Unanswered(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl From<Interruption> for Failure {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Before => Self::NotSent("a test interrupts this".to_owned()),
            Interruption::After => Self::Unanswered("a test interrupts this".to_owned()),
        }
    }
}

/// A pooled client; cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl HttpClient {
    /// `timeout` is for a whole exchange, connecting included.
    pub fn new(timeout: Duration) -> Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout / 2));
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls_provider())
            .map_err(|error| Error::internal("The system's TLS certificates cannot be read.").with_source(error))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // hyper sends again by itself only what it has not begun to write, on a connection that was closed while idle.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .retry_canceled_requests(true)
            .build(tls);
        Ok(Self { client, timeout })
    }

    #[expect(clippy::disallowed_methods, reason = "a read of what is not Stripe's changes nothing")]
    pub async fn get(&self, url: &str, headers: Vec<(&'static str, HeaderValue)>) -> Result<Answer, Failure> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// Sends one request, once.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(&'static str, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| Failure::NotSent(error.to_string()))?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            // Connecting has half of the time, so by now the request was on its way.
            Err(_) => Err(Failure::Unanswered(format!("timed out after {} ms", self.timeout.as_millis()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let answer = self.client.request(request).await.map_err(|error| {
            let text = chain(&error);
            if error.is_connect() { Failure::NotSent(text) } else { Failure::Unanswered(text) }
        })?;
        let (head, body) = answer.into_parts();
        let body =
            Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| Failure::Unanswered(error.to_string()))?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

fn rustls_provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
