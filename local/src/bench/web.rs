//! What comes in over HTTP: Stripe's webhooks for payouts of ours over sixteen connections, and creators asking over
//! sixty-four, through the front to the real functions. Creators are measured twice: connections that never pause tell what the
//! machine can do, and connections that ask at a pace tell how long one creator waits for an answer when it is not at its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};
use sha2::Sha256;

use super::cpu::Used;
use super::cycle::{complete, start_double};
use super::figures::{micros, millis, per_second, percentile};
use super::rig::{JWT_SECRET, Rig, WEBHOOK_SECRET, broken};
use crate::console::note;
use crate::job::Failure;
use crate::samples::Big;
use crate::stack::Stack;
use crate::stripe_double::{PayoutRecord, Rates, signature};

const WEBHOOK_CONNECTIONS: usize = 16;
const CREATOR_CONNECTIONS: usize = 64;
/// What creators ask for together, where they ask at a pace.
const ASKED_PER_SECOND: u64 = 200;
/// The aim for what creators ask.
const P99: Duration = Duration::from_millis(20);
const EVENTS: u64 = 3_000;
const REQUESTS: u64 = 3_000;
/// The database that a creator is looked up in.
const PAYEES: u64 = 100_000;
const EARNINGS_EACH: u64 = 10;

pub async fn measure(rig: &Rig) -> Result<Json, Failure> {
    let webhooks = webhooks(rig).await?;
    let (earnings, at_a_pace) = creators(rig).await?;
    Ok(json!({ "payout_paid": webhooks, "get_tokens_earnings": earnings, "creators_at_a_pace": at_a_pace }))
}

/// How requests are sent.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// From one request of a connection to its next; none: it never pauses.
    pace: Option<Duration>,
}

struct Asked {
    load: Load,
    took: Duration,
    /// Of each request, sorted.
    latencies: Vec<Duration>,
    failed: usize,
    used: Used,
}

impl Asked {
    fn figures(&self, function: &str) -> Json {
        let count = self.latencies.len() as u64;
        let each = |used: Duration| millis(Duration::from_micros(micros(used).checked_div(count).unwrap_or(0)));
        json!({
            "requests": count,
            "connections": self.load.connections,
            "not_answered_2xx": self.failed,
            "per_second": per_second(count, self.took),
            "p50_ms": millis(percentile(&self.latencies, 50)),
            "p99_ms": millis(percentile(&self.latencies, 99)),
            "cpu_ms_each": {
                "function": each(self.used.of(function)),
                "postgres": each(self.used.postgres),
                "client_and_local_runtime": each(self.used.payday),
            },
            "per_cpu_second_of_function_and_postgres": per_second(count, self.used.of(function) + self.used.postgres),
        })
    }
}

/// Sends all requests over so many connections; the first of each process, which connects it to the database, beforehand.
/// A request that is to be sent at a pace is late from the moment at which it was due, also when its connection was not free.
async fn ask(
    rig: &Rig,
    stack: &Stack,
    load: Load,
    warm_up: usize,
    requests: Vec<Request<Full<Bytes>>>,
) -> Result<Asked, Failure> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let run = |until: usize, pace: Option<Duration>| {
        let start = Instant::now();
        let connections = (0..load.connections).map(|connection| {
            let (client, requests, next) = (client.clone(), Arc::clone(&requests), Arc::clone(&next));
            // Spread out evenly, so that they do not all ask at once.
            let place =
                |pace: Duration| pace * u32::try_from(connection).unwrap_or(0) / u32::try_from(load.connections).unwrap_or(1);
            let mut due = pace.map(|pace| start + place(pace));
            tokio::spawn(async move {
                let (mut latencies, mut failed) = (Vec::new(), 0);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(at).filter(|_| at < until) else { break };
                    let began = due.unwrap_or_else(Instant::now);
                    tokio::time::sleep_until(began.into()).await;
                    due = due.zip(pace).map(|(due, pace)| due + pace);
                    let ok = match client.request(request.clone()).await {
                        Ok(response) => {
                            let ok = response.status().is_success();
                            response.into_body().collect().await.is_ok() && ok
                        }
                        Err(_) => false,
                    };
                    latencies.push(began.elapsed());
                    failed += usize::from(!ok);
                }
                (latencies, failed)
            })
        });
        futures::future::join_all(connections.collect::<Vec<_>>())
    };
    run(warm_up, None).await;
    next.store(warm_up, Ordering::Relaxed);
    let before = Used::now(stack, &rig.postgres);
    let began = Instant::now();
    let answers = run(usize::MAX, load.pace).await;
    let took = began.elapsed();
    let used = Used::now(stack, &rig.postgres).since(&before);
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for answer in answers {
        let (of_connection, failed_of_connection) = answer.map_err(broken)?;
        latencies.extend(of_connection);
        failed += failed_of_connection;
    }
    latencies.sort_unstable();
    Ok(Asked { load, took, latencies, failed, used })
}

const WARM_UP: usize = 200;

/// `payout.paid` for payouts of a cycle that Stripe has accepted.
async fn webhooks(rig: &Rig) -> Result<Json, Failure> {
    note(&format!("webhooks: {EVENTS} payout.paid over {WEBHOOK_CONNECTIONS} connections"));
    let creators = EVENTS + WARM_UP as u64;
    let loaded = rig.database("webhooks", creators, 2).await?;
    let double = start_double(0, Rates::unlimited()).await?;
    loaded.big.apply(&double);
    let settings = [("SENDS_PER_WORKER", "25"), ("STRIPE_RATE_TRANSFERS", "0"), ("STRIPE_RATE_PAYOUTS", "0")];
    let stack = rig.stack(&loaded.url, &double, &settings).await?;
    let asked = async {
        complete(rig, &stack, &loaded.url, || double.counts().accepted >= creators * 2).await?;
        let payouts = double.payouts();
        let requests = payouts.iter().enumerate().map(|(number, payout)| paid(&stack, number, payout));
        let load = Load { connections: WEBHOOK_CONNECTIONS, pace: None };
        let asked = ask(rig, &stack, load, WARM_UP, requests.collect::<Result<_, _>>()?).await?;
        let db = rig.db(&loaded.url)?;
        let mut tx = db.begin().await?;
        let (paid,): (i64,) = tx.one(payday::db::query_as("select count(*) from payout_items where status = 'paid'")).await?;
        Ok::<_, Failure>((asked, paid))
    }
    .await;
    stack.shutdown().await;
    let (asked, paid) = asked?;
    let mut figures = asked.figures("webhook-receiver");
    figures["aims"] =
        json!({ "every_event_made_its_item_paid": { "holds": asked.failed == 0 && u64::try_from(paid) == Ok(creators) } });
    Ok(figures)
}

fn paid(stack: &Stack, number: usize, payout: &PayoutRecord) -> Result<Request<Full<Bytes>>, Failure> {
    let metadata: serde_json::Map<String, Json> =
        payout.metadata.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let now = Utc::now().timestamp();
    let event = json!({
        "id": format!("evt_bench{number:012}"), "object": "event", "api_version": "2026-09-30.endive", "created": now,
        "livemode": false, "pending_webhooks": 1, "type": "payout.paid", "account": payout.account,
        "request": { "id": null, "idempotency_key": null },
        "data": { "object": {
            "id": payout.id, "object": "payout", "amount": payout.amount, "arrival_date": now, "automatic": false,
            "balance_transaction": "txn_bench", "created": now, "currency": payout.currency, "description": null,
            "destination": payout.destination, "failure_balance_transaction": null, "failure_code": null,
            "failure_message": null, "livemode": false, "metadata": metadata, "method": "standard",
            "source_type": "card", "statement_descriptor": null, "status": "paid", "type": "bank_account",
        } },
    });
    let body = event.to_string();
    Request::post(format!("{}/webhooks/stripe", stack.http_url))
        .header("content-type", "application/json; charset=utf-8")
        .header("stripe-signature", signature(WEBHOOK_SECRET, now, body.as_bytes()))
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)
}

/// What creators look at, one after the other.
const LOOKED_AT: [&str; 4] = ["/api/tokens/earnings", "/api/payouts", "/api/tokens/withdrawal-requests", "/api/payout-settings"];

/// Creators in a database of 100,000: who ask what they have earned without a pause, and who look at all of their pages at a pace.
async fn creators(rig: &Rig) -> Result<(Json, Json), Failure> {
    note(&format!("creators: {REQUESTS} requests over {CREATOR_CONNECTIONS} connections, twice"));
    let loaded = rig.database("creators", PAYEES, EARNINGS_EACH).await?;
    let double = start_double(0, Rates::unlimited()).await?;
    let stack = rig.stack(&loaded.url, &double, &[]).await?;
    let requests = |pages: &'static [&'static str]| {
        let number = |number: u64| {
            let page = pages[usize::try_from(number).unwrap_or_default() % pages.len()];
            asking(&stack, &loaded.big, page, number * 31 % PAYEES)
        };
        (0..REQUESTS + WARM_UP as u64).map(number).collect::<Result<Vec<_>, _>>()
    };
    let asked = async {
        let load = Load { connections: CREATOR_CONNECTIONS, pace: None };
        let without_a_pause = ask(rig, &stack, load, WARM_UP, requests(&LOOKED_AT[..1])?).await?;
        let pace = Duration::from_secs(CREATOR_CONNECTIONS as u64) / u32::try_from(ASKED_PER_SECOND).unwrap_or(1);
        let at_a_pace = ask(rig, &stack, Load { pace: Some(pace), ..load }, WARM_UP, requests(&LOOKED_AT)?).await?;
        Ok::<_, Failure>((without_a_pause, at_a_pace))
    }
    .await;
    stack.shutdown().await;
    rig.postgres.drop_database("creators").await?;
    let (without_a_pause, at_a_pace) = asked?;
    let mut figures = without_a_pause.figures("api");
    figures["payees"] = json!(PAYEES);
    figures["earnings"] = json!(PAYEES * EARNINGS_EACH);
    figures["aims"] = json!({ "every_request_answered": { "holds": without_a_pause.failed == 0 } });
    let mut paced = at_a_pace.figures("api");
    paced["asked_per_second"] = json!(ASKED_PER_SECOND);
    paced["aims"] = json!({
        "every_request_answered": { "holds": at_a_pace.failed == 0 },
        "p99_below_20_ms": { "holds": percentile(&at_a_pace.latencies, 99) < P99 },
    });
    Ok((figures, paced))
}

fn asking(stack: &Stack, big: &Big, page: &str, number: u64) -> Result<Request<Full<Bytes>>, Failure> {
    let claims = json!({
        "sub": big.creator_id(number), "aud": "authenticated", "iss": "bench", "exp": Utc::now().timestamp() + 3_600,
    });
    let part = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(JWT_SECRET.as_bytes()).map_err(broken)?;
    mac.update(signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    Request::get(format!("{}{page}", stack.http_url))
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .map_err(broken)
}
