//! The HTTP client everything outside AWS is called with: pooled, with a timeout, and exact about how far a request got.
//!
//! A failure before the request was written is another thing than one after: the first did not happen, of the second nobody
//! knows. `Failure` keeps them apart because money depends on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
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
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    timeout: Duration,
}

/// Finds the addresses of a name; where only public hosts may be called, those alone.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    public_only: bool,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        tower::Service::poll_ready(&mut self.system, context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, public_only) = (tower::Service::call(&mut self.system, name), self.public_only);
        Box::pin(async move {
            let all: Vec<SocketAddr> = found.await?.filter(|address| !public_only || is_public(address.ip())).collect();
            if all.is_empty() {
                return Err(std::io::Error::other("the name has no address, or leads inside"));
            }
            Ok(all.into_iter())
        })
    }
}

/// Whether a host that is named in a URL could be anywhere but inside. What its name resolves to is looked at when it is called.
pub fn may_be_public(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => is_public(address),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            let inside = ["localhost", "internal", "local", "lan", "home", "corp", "intranet"];
            let top = name.rsplit('.').next().unwrap_or_default();
            // A name without a dot is one of this network; one that ends in a number is an address in disguise.
            name.contains('.') && !inside.contains(&top) && !top.starts_with(|first: char| first.is_ascii_digit())
        }
    }
}

/// Whether an address is of the public Internet. [iana.org/assignments/iana-ipv4-special-registry, …-ipv6-special-registry]
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!((a, b, c), (0 | 224..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // 2000::/3 is what is given out; of it, 2001::/23, 2001:db8::/32 and 2002::/16 lead elsewhere.
    match address.segments() {
        [0x2001, second, ..] => second >= 0x0200 && second != 0x0db8,
        [first, ..] => (0x2000..=0x3fff).contains(&first) && first != 0x2002,
    }
}

impl HttpClient {
    /// `timeout` is for a whole exchange, connecting included.
    pub fn new(timeout: Duration) -> Result<Self> {
        Self::with(timeout, false)
    }

    /// One for URLs that come from outside: a name that leads inside is not connected to. Addresses in a URL are not looked up, so
    /// [`may_be_public`] is to be asked of its host first.
    pub fn to_public_hosts(timeout: Duration) -> Result<Self> {
        Self::with(timeout, true)
    }

    fn with(timeout: Duration, public_only: bool) -> Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { system: GaiResolver::new(), public_only });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_inside_is_told_from_one_that_may_be_public() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "postgres",
            "db.internal",
            "printer.local",
            "nas.lan",
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.5",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd12::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[2001:db8::1]",
            "[2002:a00:1::]",
            "[64:ff9b::a00:1]",
            "[ff02::1]",
            "0x7f.1",
            "127.1",
            "2130706433",
            "",
        ] {
            assert!(!may_be_public(host), "{host}");
        }
        for host in [
            "hooks.slack.com",
            "example.com.",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "[2606:4700::1111]",
            "[2001:4860:4860::8888]",
        ] {
            assert!(may_be_public(host), "{host}");
        }
    }
}
