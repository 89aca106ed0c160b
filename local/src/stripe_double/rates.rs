//! Stripe's limits: so many requests a second per account and per endpoint, creating payouts 15 a second
//! and 30 at once. They stand before the idempotency layer: a limited request leaves no trace under its
//! key. <https://docs.stripe.com/rate-limits>

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Requests a second; none: unlimited.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    pub global: Option<u32>,
    /// Every endpoint that is not named below.
    pub endpoint: Option<u32>,
    /// By name, as in `POST /v1/transfers`, `GET /v1/payouts/:id`.
    pub endpoints: HashMap<String, Option<u32>>,
    pub payouts_at_once: Option<u32>,
    /// How many may come at once after a pause, in thousandths of a second's worth.
    pub burst_per_mille: u32,
    /// Sent as `Retry-After` with a 429. Stripe documents none.
    pub retry_after: Option<u32>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl Rates {
    pub fn unlimited() -> Self {
        Self {
            global: None,
            endpoint: None,
            endpoints: HashMap::new(),
            payouts_at_once: None,
            burst_per_mille: 1000,
            retry_after: None,
        }
    }

    /// As documented for live mode.
    pub fn live() -> Self {
        Self {
            global: Some(100),
            endpoint: Some(25),
            endpoints: HashMap::from([("POST /v1/payouts".to_owned(), Some(15))]),
            payouts_at_once: Some(30),
            ..Self::unlimited()
        }
    }

    /// As documented for sandboxes.
    pub fn sandbox() -> Self {
        Self { global: Some(25), ..Self::live() }
    }

    /// The same limit for all of it together, for transfers and for payouts.
    pub fn each(per_second: u32) -> Self {
        Self {
            endpoints: HashMap::from([
                ("POST /v1/transfers".to_owned(), Some(per_second)),
                ("POST /v1/payouts".to_owned(), Some(per_second)),
            ]),
            ..Self::unlimited()
        }
    }
}

#[derive(Debug)]
pub(super) struct Limiter {
    rates: Rates,
    buckets: HashMap<&'static str, Bucket>,
    payouts_in_flight: u32,
}

/// Tokens in thousandths, so that a rate per second refills exactly per millisecond.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    milli_tokens: i64,
    at_ms: i64,
}

const GLOBAL: &str = "*";
pub(super) const CREATE_PAYOUT: &str = "POST /v1/payouts";

impl Limiter {
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, buckets: HashMap::new(), payouts_in_flight: 0 }
    }

    pub(super) fn set(&mut self, rates: Rates) {
        self.rates = rates;
        self.buckets.clear();
    }

    /// Takes a token of each bucket, or names the limit that was reached and takes none.
    pub(super) fn admit(&mut self, endpoint: &'static str, now_ms: i64) -> Result<(), (&'static str, Option<u32>)> {
        if endpoint == CREATE_PAYOUT && self.rates.payouts_at_once.is_some_and(|most| self.payouts_in_flight >= most) {
            return Err(("endpoint-concurrency", self.rates.retry_after));
        }
        let by_endpoint = self.rates.endpoints.get(endpoint).copied().unwrap_or(self.rates.endpoint);
        for (name, rate, reason) in [(GLOBAL, self.rates.global, "global-rate"), (endpoint, by_endpoint, "endpoint-rate")] {
            if rate.is_some_and(|rate| !self.refill(name, rate, now_ms)) {
                return Err((reason, self.rates.retry_after));
            }
        }
        for (name, rate) in [(GLOBAL, self.rates.global), (endpoint, by_endpoint)] {
            if rate.is_some()
                && let Some(bucket) = self.buckets.get_mut(name)
            {
                bucket.milli_tokens -= 1000;
            }
        }
        if endpoint == CREATE_PAYOUT {
            self.payouts_in_flight += 1;
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, endpoint: &'static str) {
        if endpoint == CREATE_PAYOUT {
            self.payouts_in_flight = self.payouts_in_flight.saturating_sub(1);
        }
    }

    /// Whether a token is there.
    fn refill(&mut self, name: &'static str, rate: u32, now_ms: i64) -> bool {
        let full = (i64::from(rate) * i64::from(self.rates.burst_per_mille)).max(1000);
        let bucket = self.buckets.entry(name).or_insert(Bucket { milli_tokens: full, at_ms: now_ms });
        let elapsed_ms = (now_ms - bucket.at_ms).clamp(0, 3_600_000);
        bucket.milli_tokens = (bucket.milli_tokens + elapsed_ms * i64::from(rate)).min(full);
        bucket.at_ms = bucket.at_ms.max(now_ms);
        bucket.milli_tokens >= 1000
    }
}
