//! A double with a standing clock, a client that sees everything of an answer, and a receiver of webhooks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use payday_local::stripe_double::{AccountSpec, ClockMode, DeliveryOptions, StripeDouble, StripeDoubleOptions, WebhookTarget};
use serde_json::Value;

pub const KEY: &str = "sk_test_double";
/// 2026-11-15 06:00 UTC
pub const START_MS: i64 = 1_794_722_400_000;
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

pub fn options() -> StripeDoubleOptions {
    StripeDoubleOptions { clock: ClockMode::Manual { start_ms: START_MS }, seed: Some(7), ..StripeDoubleOptions::default() }
}

pub struct Stripe {
    pub double: StripeDouble,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// One answer, or what came instead.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn id(&self) -> String {
        self.str("/id")
    }

    pub fn str(&self, pointer: &str) -> String {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub fn int(&self, pointer: &str) -> Option<i64> {
        self.json.pointer(pointer).and_then(Value::as_i64)
    }

    pub fn code(&self) -> String {
        self.str("/error/code")
    }

    pub fn ids(&self) -> Vec<String> {
        let data = self.json["data"].as_array().cloned().unwrap_or_default();
        data.iter().filter_map(|o| o["id"].as_str().map(str::to_owned)).collect()
    }
}

/// What can be sent with a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'a> {
    pub key: Option<&'a str>,
    pub account: Option<&'a str>,
    pub api_key: Option<&'a str>,
}

pub fn keyed(key: &str) -> With<'_> {
    With { key: Some(key), ..With::default() }
}

pub fn for_account(account: &str) -> With<'_> {
    With { account: Some(account), ..With::default() }
}

impl Stripe {
    pub async fn start(options: StripeDoubleOptions) -> Self {
        let double = StripeDouble::start(options).await.expect("a free port");
        Self { double, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// With `acct_a`, a ready account in the US, and 1,000.00 USD on the platform.
    pub async fn funded() -> Self {
        let stripe = Self::start(options()).await;
        stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
        stripe.double.fund("usd", 100_000);
        stripe
    }

    /// None: no (whole) answer came.
    pub async fn send(&self, method: &str, path: &str, form: &str, with: With<'_>) -> Option<Answer> {
        let url = if method == "GET" && !form.is_empty() {
            format!("{}{path}?{form}", self.double.base_url())
        } else {
            format!("{}{path}", self.double.base_url())
        };
        let mut request = http::Request::builder().method(method).uri(url);
        let api_key = with.api_key.unwrap_or(KEY);
        if !api_key.is_empty() {
            request = request.header("authorization", format!("Bearer {api_key}"));
        }
        if let Some(key) = with.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(account) = with.account {
            request = request.header("stripe-account", account);
        }
        let body = if method == "POST" { Bytes::from(form.to_owned()) } else { Bytes::new() };
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(Full::new(body)).expect("a request");
        let response = self.client.request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }

    pub async fn post(&self, path: &str, form: &str, with: With<'_>) -> Answer {
        self.send("POST", path, form, with).await.expect("an answer")
    }

    pub async fn get(&self, path: &str, query: &str) -> Answer {
        self.get_as(path, query, With::default()).await
    }

    pub async fn get_as(&self, path: &str, query: &str, with: With<'_>) -> Answer {
        self.send("GET", path, query, with).await.expect("an answer")
    }

    pub async fn transfer(&self, form: &str, key: &str) -> Answer {
        self.post("/v1/transfers", form, keyed(key)).await
    }

    pub async fn payout(&self, account: &str, form: &str, key: &str) -> Answer {
        self.post("/v1/payouts", form, With { key: Some(key), account: Some(account), api_key: None }).await
    }

    pub fn available(&self, account: Option<&str>, currency: &str) -> i64 {
        self.double.funds(account, currency).available
    }
}

pub const TEN_TO_A: &str = "amount=1000&currency=usd&destination=acct_a&transfer_group=item_1";

/// What a webhook endpoint got.
#[derive(Debug, Clone)]
pub struct Received {
    pub signature: String,
    pub body: String,
    pub json: Value,
}

impl Received {
    pub fn kind(&self) -> String {
        self.json["type"].as_str().unwrap_or_default().to_owned()
    }
}

/// An endpoint that keeps what it gets and answers as told.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    got: Arc<Mutex<Vec<Received>>>,
    /// Statuses for the next requests; 200 when there is none left.
    answers: Arc<Mutex<Vec<u16>>>,
}

pub const PLATFORM_SECRET: &str = "whsec_platform";
pub const CONNECT_SECRET: &str = "whsec_connect";

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/webhooks/stripe", listener.local_addr().expect("an address"));
        let receiver = Self { url, got: Arc::default(), answers: Arc::default() };
        let shared = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let shared = shared.clone();
                    async move {
                        let signature = request
                            .headers()
                            .get("stripe-signature")
                            .and_then(|v| v.to_str().ok())
                            .unwrap_or_default()
                            .to_owned();
                        let bytes = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                        let body = String::from_utf8_lossy(&bytes).into_owned();
                        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
                        shared.got.lock().expect("not poisoned").push(Received { signature, body, json });
                        let mut answers = shared.answers.lock().expect("not poisoned");
                        let status = if answers.is_empty() { 200 } else { answers.remove(0) };
                        http::Response::builder().status(status).body(Full::new(Bytes::new()))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        receiver
    }

    pub fn answer_next(&self, statuses: &[u16]) {
        self.answers.lock().expect("not poisoned").extend_from_slice(statuses);
    }

    pub fn got(&self) -> Vec<Received> {
        self.got.lock().expect("not poisoned").clone()
    }

    pub fn kinds(&self) -> Vec<String> {
        self.got().iter().map(Received::kind).collect()
    }

    pub fn target(&self) -> WebhookTarget {
        WebhookTarget {
            url: self.url.clone(),
            platform_secret: PLATFORM_SECRET.to_owned(),
            connect_secret: CONNECT_SECRET.to_owned(),
            enabled_events: Vec::new(),
        }
    }
}

/// A funded double whose events arrive one after the other.
pub async fn with_receiver() -> (Stripe, Receiver) {
    let receiver = Receiver::start().await;
    let stripe = Stripe::start(StripeDoubleOptions {
        webhooks: Some(receiver.target()),
        delivery: DeliveryOptions { parallel: 1, retry_ms: vec![1], ..DeliveryOptions::default() },
        ..options()
    })
    .await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    stripe.double.fund("usd", 100_000);
    (stripe, receiver)
}
