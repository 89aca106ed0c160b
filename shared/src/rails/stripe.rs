//! All of Stripe that moves or reads money; connected accounts are in `accounts`. async-stripe builds the requests, our own
//! client sends them once and keeps status, headers and raw body, [`super::read_answer`] says what the answer means.
//!
//! async-stripe's `Retry` and `ExponentialBackoff` strategies re-send POSTs without any key and are never used. Reads are
//! rationed like sends: lists come in pages of 100.

mod accounts;
mod lists;

use std::collections::HashMap;

pub use accounts::{Account, AccountLink, Agreement, Created, NewAccount, Requirements, agreement};
use chrono::{DateTime, Utc};
use http::Method;
use http::header::HeaderValue;
use hyper::body::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stripe::StripeRequest;
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_connect::transfer::{CreateTransfer, ListTransfer};
use stripe_core::balance::RetrieveForMyAccountBalance;
use stripe_core::payout::{CreatePayout, ListPayout};
use stripe_types::{RangeBoundsTs, RangeQueryTs};

pub use lists::{ListPage, Object};

use super::{Asked, Leg, Reply, read_answer};
use crate::boundary::{Boundary, cross};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::http_client::{Answer, Failure, HttpClient};

/// So many pages of an account's payouts are looked through; what lies behind them is not known to be missing.
const PAYOUT_PAGES: usize = 100;

/// What is written on every object we make, so that a lookup or a webhook finds its operation again.
pub struct Marks<'a> {
    /// `{instance}-{operation id}`.
    pub operation: &'a str,
    /// `{instance}-{item id}`; also a transfer's group.
    pub item: &'a str,
}

/// The body of a POST, built once and committed before the first send: every later send of the attempt repeats these bytes.
pub fn request_body(asked: &Asked, marks: &Marks<'_>) -> String {
    let currency = asked.currency.parse::<stripe_types::Currency>().unwrap_or_else(|never| match never {});
    let metadata =
        HashMap::from([("operation_id".to_owned(), marks.operation.to_owned()), ("item_id".to_owned(), marks.item.to_owned())]);
    let built = match asked.leg {
        Leg::Transfer => CreateTransfer::new(currency, asked.account.as_str())
            .amount(asked.amount_minor)
            .transfer_group(marks.item)
            .metadata(metadata)
            .build(),
        Leg::Payout => CreatePayout::new(asked.amount_minor, currency).metadata(metadata).build(),
    };
    built.body.unwrap_or_default()
}

/// A transfer or payout that a lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub stripe_id: String,
    pub amount_minor: i64,
    pub currency: String,
    pub status: Option<String>,
    pub arrival_date: Option<i64>,
    /// Minor units that a reversal took back.
    pub reversed_minor: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct Balance {
    available: Vec<BalanceAmount>,
}

#[derive(Deserialize)]
struct BalanceAmount {
    amount: i64,
    currency: String,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    arrival_date: Option<i64>,
    #[serde(default)]
    amount_reversed: i64,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// Stripe under one key; cheap to clone.
#[derive(Clone)]
pub struct Stripe {
    http: HttpClient,
    base: String,
    authorization: HeaderValue,
}

impl Stripe {
    pub fn new(config: &config::Stripe) -> Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", config.secret_key))
            .map_err(|_| Error::config("STRIPE_SECRET_KEY", "has characters that no key has"))?;
        authorization.set_sensitive(true);
        Ok(Self { http: HttpClient::new(config.timeout)?, base: config.api_base.clone(), authorization })
    }

    /// Sends one attempt, once: the named wrapper around every call that moves money.
    /// `in_doubt`: an earlier send of the same attempt may have been run.
    pub async fn send(&self, asked: &Asked, key: &str, body: &str, in_doubt: bool) -> Reply {
        let (boundary, path, account) = match asked.leg {
            Leg::Transfer => (Boundary::SendTransfer, "/transfers", None),
            Leg::Payout => (Boundary::SendPayout, "/payouts", Some(asked.account.as_str())),
        };
        let answer = self.exchange(boundary, Method::POST, path, account, Some(key), body.to_owned()).await;
        read_answer(asked, answer, in_doubt)
    }

    /// The transfer that an operation made, if it did. A miss proves nothing.
    pub async fn find_transfer(&self, marks: &Marks<'_>) -> Result<Option<Found>> {
        let list = ListTransfer::new().transfer_group(marks.item).limit(100);
        let page: List<Listed> = self.read(Boundary::FindTransfer, &list.build(), None).await?;
        Ok(pick(page.data, marks))
    }

    /// The payout that an operation made, if it did: payouts have no group, so the account's are paged by time of creation.
    /// A miss proves nothing.
    pub async fn find_payout(&self, account: &str, marks: &Marks<'_>, since: DateTime<Utc>) -> Result<Option<Found>> {
        // Clocks differ a little; five minutes cost nothing.
        let created = RangeQueryTs::Bounds(RangeBoundsTs {
            gte: Some((since - chrono::Duration::minutes(5)).timestamp()),
            ..RangeBoundsTs::default()
        });
        let mut after: Option<String> = None;
        for _ in 0..PAYOUT_PAGES {
            let mut list = ListPayout::new().created(created).limit(100);
            if let Some(after) = &after {
                list = list.starting_after(after.as_str());
            }
            let page: List<Listed> = self.read(Boundary::FindPayout, &list.build(), Some(account)).await?;
            after = page.data.last().map(|payout| payout.id.clone());
            let more = page.has_more;
            if let Some(found) = pick(page.data, marks) {
                return Ok(Some(found));
            }
            if !more || after.is_none() {
                return Ok(None);
            }
        }
        Err(Error::unavailable("STRIPE_LIST_TOO_LONG", format!("{account} has made too many payouts since to look through.")))
    }

    /// The platform's available balance in a currency, minor units.
    pub async fn available(&self, currency: &str) -> Result<i64> {
        let balances = self.balances().await?;
        Ok(balances.iter().filter(|(of, _)| of == currency).map(|(_, minor)| minor).sum())
    }

    /// The platform's available balances, by currency in minor units.
    pub async fn balances(&self) -> Result<Vec<(String, i64)>> {
        let balance: Balance = self.read(Boundary::ReadBalance, &RetrieveForMyAccountBalance::new().build(), None).await?;
        Ok(balance.available.into_iter().map(|part| (part.currency, part.amount)).collect())
    }

    async fn read<T: DeserializeOwned>(&self, boundary: Boundary, request: &RequestBuilder, account: Option<&str>) -> Result<T> {
        debug_assert!(matches!(request.method, StripeMethod::Get), "only reads come this way");
        let path = match request.query.as_deref() {
            Some(query) if !query.is_empty() => format!("{}?{query}", request.path),
            _ => request.path.clone(),
        };
        let answer = self.exchange(boundary, Method::GET, &path, account, None, String::new()).await;
        let answer = answer.map_err(|failure| self.silent(&failure))?;
        match answer.status.as_u16() {
            200..=299 => serde_json::from_slice(&answer.body).map_err(|error| {
                Error::unavailable("STRIPE_UNREADABLE", "Stripe's answer cannot be read; try again.").with_source(error)
            }),
            404 => Err(Error::not_found("The Stripe object")),
            403 if answer.body.windows(15).any(|part| part == b"account_invalid") => Err(Error::not_found("The Stripe account")),
            _ => Err(self.not_done(&answer)),
        }
    }

    fn silent(&self, failure: &dyn std::fmt::Display) -> Error {
        Error::unavailable(
            "STRIPE_UNAVAILABLE",
            format!("Stripe does not answer ({failure}); check {} and try again.", self.base),
        )
    }

    /// An answer that does not do what was asked.
    fn not_done(&self, answer: &Answer) -> Error {
        match answer.status.as_u16() {
            401 | 403 => Error::new(
                Kind::Forbidden,
                "STRIPE_KEY_REFUSED",
                "Stripe refuses the key; check STRIPE_SECRET_KEY (or --stripe-key).",
            ),
            429 => Error::new(
                Kind::RateLimited { retry_after_seconds: 1 },
                "STRIPE_RATE_LIMITED",
                "Stripe asks us to slow down; try again in a moment.",
            ),
            409 | 500..=599 => self.silent(&answer.status),
            status => Error::internal(format!("Stripe refused a request with status {status}.")),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    async fn exchange(
        &self,
        boundary: Boundary,
        method: Method,
        path: &str,
        account: Option<&str>,
        key: Option<&str>,
        body: String,
    ) -> Result<Answer, Failure> {
        let unsendable = |error: http::header::InvalidHeaderValue| Failure::NotSent(error.to_string());
        let mut headers = vec![
            ("authorization", self.authorization.clone()),
            ("stripe-version", HeaderValue::from_str(&stripe_shared::version::VERSION.to_string()).map_err(unsendable)?),
            ("user-agent", HeaderValue::from_static(concat!("payday/", env!("CARGO_PKG_VERSION")))),
        ];
        if method == Method::POST {
            headers.push(("content-type", HeaderValue::from_static("application/x-www-form-urlencoded")));
        }
        if let Some(key) = key {
            headers.push(("idempotency-key", HeaderValue::from_str(key).map_err(unsendable)?));
        }
        if let Some(account) = account {
            headers.push(("stripe-account", HeaderValue::from_str(account).map_err(unsendable)?));
        }
        let (url, body) = (format!("{}/v1{path}", self.base), Bytes::from(body));
        cross(boundary, || self.http.send(method.clone(), &url, headers.clone(), body.clone())).await
    }
}

fn pick(objects: Vec<Listed>, marks: &Marks<'_>) -> Option<Found> {
    let ours = |object: &Listed| object.metadata.get("operation_id").is_some_and(|mark| mark == marks.operation);
    objects.into_iter().find(ours).map(|object| Found {
        stripe_id: object.id,
        amount_minor: object.amount,
        currency: object.currency,
        status: object.status,
        arrival_date: object.arrival_date,
        reversed_minor: object.amount_reversed,
    })
}
