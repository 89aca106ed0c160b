//! Each parser by name, as a function that tells whether it took the input.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use chrono::{DateTime, Utc};
use futures::FutureExt;
use http::{HeaderMap, Request, StatusCode};
use payday::config::{Jwt, JwtKeys, Policy};
use payday::earnings::routes::{EarningsBody, checked};
use payday::earnings::{self, NewEarning};
use payday::error::{Error, Result};
use payday::http::{Auth, Caller, CronCaller, CronSecrets, IdempotencyKey, Json, Limits, MIB, PageQuery, Query, Verifier};
use payday::http_client::Answer;
use payday::money::{Currency, scaled};
use payday::payouts::routes::settings::SettingsBody;
use payday::payouts::routes::statements::StatementQuery;
use payday::queue::Message;
use payday::rails::{Asked, Leg, Outcome, Reply, read_answer};
use payday::stripe_events::{Event, signature};
use payday::withdrawals::Withdrawal;
use payday::withdrawals::routes::WithdrawalBody;
use payday::{clock, payees};
use payday_local::cron::Timing;
use payday_local::template::{self, Place};
use payday_tests::world::{at, policy};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A name, which is also the folder of its corpus, and the parser.
pub type Parser = (&'static str, fn(&[u8]) -> bool);

/// A new parser at the edge gets a line here, a folder in `tests/corpus/` and its shapes in `growth.rs`.
pub const PARSERS: [Parser; 18] = [
    ("accounts-csv", |input| payees::import::parse(input).is_ok()),
    ("currency", |input| text(input).is_some_and(|text| text.parse::<Currency>().is_ok())),
    ("date", |input| text(input).is_some_and(|text| clock::parse_date(text).is_ok())),
    ("decimal", |input| text(input).is_some_and(|text| scaled(text, 6).is_some())),
    ("earnings-csv", |input| earnings::import::parse(input, &policy()).is_ok()),
    ("earnings-json", |input| earnings_body(input.to_vec(), &policy()).is_ok()),
    ("idempotency-key", |input| recognised_key(input)),
    ("page", is_page),
    ("queue-message", |input| text(input).is_some_and(|text| Message::parse(text).is_ok())),
    ("schedule", is_schedule),
    ("settings-json", |input| body::<SettingsBody>(input).and_then(SettingsBody::checked).is_ok()),
    ("signature-header", is_signed),
    ("statement-query", |input| query::<StatementQuery>(input).is_some_and(|query| query.read().is_ok())),
    ("stripe-answer", is_accepted),
    ("template", is_template),
    ("token", |input| text(input).is_some_and(|token| bearer(token).is_ok())),
    ("webhook-body", is_event),
    ("withdrawal-json", |input| {
        let asked = body::<WithdrawalBody>(input).and_then(|body| Withdrawal::new(Uuid::nil(), body.token_amount, &policy()));
        asked.is_ok_and(|asked| asked.micros > 0)
    }),
];

pub const SECRET: &str = "a shared secret of the tests";

pub fn now() -> DateTime<Utc> {
    at("2026-11-15T06:00:05Z")
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// What `POST /internal/earnings` makes of a body before it asks the database.
pub fn earnings_body(input: Vec<u8>, policy: &Policy) -> Result<Vec<NewEarning>> {
    let request = Request::post("/internal/earnings").header("content-type", "application/json").body(Body::from(input));
    let body = Json::<EarningsBody, { 5 * MIB }>::from_request(request.expect("a request"), &());
    let Json(body) = body.now_or_never().expect("the whole body is there")?;
    checked(body, policy, now())
}

/// A JSON body as a route reads it.
fn body<T: DeserializeOwned>(input: &[u8]) -> Result<T> {
    let request = Request::post("/").header("content-type", "application/json").body(Body::from(input.to_vec()));
    let read = Json::<T>::from_request(request.expect("a request"), &());
    read.now_or_never().expect("the whole body is there").map(|Json(body)| body)
}

/// The query of an address as a route reads it.
fn query<T: DeserializeOwned>(input: &[u8]) -> Option<T> {
    let request = Request::get(format!("/list?{}", text(input)?)).body(()).ok()?;
    let (mut parts, ()) = request.into_parts();
    Query::<T>::from_request_parts(&mut parts, &()).now_or_never().expect("nothing is fetched").ok().map(|Query(query)| query)
}

fn recognised_key(input: &[u8]) -> bool {
    let Ok(request) = Request::get("/").header("idempotency-key", input).body(()) else { return false };
    let (mut parts, ()) = request.into_parts();
    let key = IdempotencyKey::from_request_parts(&mut parts, &()).now_or_never().expect("nothing is fetched");
    key.is_ok_and(|IdempotencyKey(key)| key.is_some())
}

fn auth() -> Auth {
    let keys = Jwt { keys: JwtKeys::Secret(SECRET.to_owned()), issuer: None, audience: "authenticated".to_owned() };
    Auth {
        cron_secrets: CronSecrets::new(&["new-cron-secret".to_owned(), "old".to_owned()]),
        tokens: Verifier::new(keys),
        limits: Limits::new(0),
    }
}

/// Who a request with this header is, or why nobody.
fn recognised<C: FromRequestParts<Auth, Rejection = Error>>(header: &str, value: &[u8]) -> Result<C> {
    let Ok(request) = Request::get("/").header(header, value).body(()) else {
        return Err(Error::internal("not a header's value"));
    };
    let (mut parts, ()) = request.into_parts();
    C::from_request_parts(&mut parts, &auth()).now_or_never().expect("nothing is fetched")
}

pub fn bearer(token: &str) -> Result<Caller> {
    recognised("authorization", format!("Bearer {token}").as_bytes())
}

pub fn is_cron_secret(value: &[u8]) -> bool {
    recognised::<CronCaller>("x-cron-secret", value).is_ok()
}

fn is_page(input: &[u8]) -> bool {
    query::<PageQuery>(input).is_some_and(|query| query.page::<i64>("list").is_ok())
}

fn is_schedule(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    let Ok(timing) = Timing::parse(text, "Europe/Berlin") else { return false };
    // Whatever was read must also be usable, years ahead.
    for after in [now(), at("1970-01-01T00:00:00Z"), at("2199-12-31T23:00:00Z")] {
        assert!(timing.next(after, now()).is_none_or(|next| next > after || next > now()), "{text}");
    }
    true
}

/// The corpus holds headers that nobody signed.
fn is_signed(input: &[u8]) -> bool {
    let secrets = ["whsec_1".to_owned(), String::new()];
    text(input).is_some_and(|header| signature::verify(header, b"{}", &secrets, now()))
}

pub fn asked(leg: Leg) -> Asked {
    Asked { leg, amount_minor: 4_500, currency: "usd".to_owned(), account: "acct_1".to_owned() }
}

pub fn answered(status: u16, body: &[u8], leg: Leg, in_doubt: bool) -> Reply {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = Answer { status, headers: HeaderMap::new(), body: body.to_vec().into() };
    read_answer(&asked(leg), Ok(answer), in_doubt)
}

/// Whether a 200 with this body is taken for the transfer that was asked for.
fn is_accepted(input: &[u8]) -> bool {
    for status in [400, 402, 409, 429, 500] {
        for in_doubt in [false, true] {
            let outcome = answered(status, input, Leg::Payout, in_doubt).outcome;
            assert!(!matches!(outcome, Outcome::Accepted(_)), "{status}");
            assert!(!(in_doubt && matches!(outcome, Outcome::NotRun(_))), "{status}: an earlier send may have been run");
        }
    }
    matches!(answered(200, input, Leg::Transfer, false).outcome, Outcome::Accepted(_))
}

fn is_template(input: &[u8]) -> bool {
    let place = Place {
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
        stack_name: "payday".to_owned(),
        sqs_origin: "http://127.0.0.1:1".to_owned(),
    };
    text(input).is_some_and(|text| template::parse(text, &BTreeMap::new(), &place).is_ok())
}

fn is_event(input: &[u8]) -> bool {
    let Ok(payload) = serde_json::from_slice::<serde_json::Value>(input) else { return false };
    Event::deserialize(&payload).is_ok_and(|event| event.created_at() >= DateTime::UNIX_EPOCH || event.created_at() < now())
}
