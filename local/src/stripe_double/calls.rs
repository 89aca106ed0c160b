//! What was asked of the double: every call in order, and how many a second were let through.

use std::collections::BTreeMap;

use serde::Serialize;

use super::clock::machine_ms;

/// One request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub number: usize,
    /// The double's time.
    pub at_ms: i64,
    pub method: &'static str,
    /// `POST /v1/transfers`, `GET /v1/payouts/:id`; empty when no such endpoint exists.
    pub endpoint: &'static str,
    pub path: String,
    /// `Stripe-Account`
    pub account: Option<String>,
    pub idempotency_key: Option<String>,
    /// Endpoint and parameters in one figure, as the idempotency layer compares them.
    pub fingerprint: String,
    /// The parameters as they came.
    pub params: String,
    pub request_id: String,
    pub api_version: Option<String>,
    /// 0 while, and when, there was no answer.
    pub status: u16,
    pub error_code: Option<String>,
    pub executed: bool,
    pub replayed: bool,
    /// Name of the fault that met it.
    pub fault: Option<String>,
    /// What the answer was about.
    pub object_id: Option<String>,
}

/// Counted by the machine's clock, because that is what a benchmark measures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    pub calls: u64,
    /// Let through by the rate limits.
    pub accepted: u64,
    /// Answered 429.
    pub limited: u64,
    /// Unix second → (accepted, limited)
    pub by_second: BTreeMap<i64, (u64, u64)>,
    pub by_endpoint: BTreeMap<&'static str, (u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct CallLog {
    pub calls: Vec<Call>,
    pub counts: Counts,
    pub keep_calls: bool,
}

impl CallLog {
    /// Returns the call's number, by which it is finished later.
    pub(super) fn begin(&mut self, mut call: Call) -> usize {
        self.counts.calls += 1;
        let number = usize::try_from(self.counts.calls).unwrap_or(usize::MAX) - 1;
        call.number = number;
        if self.keep_calls {
            self.calls.push(call);
        }
        number
    }

    pub(super) fn finish(&mut self, number: usize, end: impl FnOnce(&mut Call)) {
        if let Some(call) = self.calls.get_mut(number) {
            end(call);
        }
    }

    pub(super) fn admitted(&mut self, endpoint: &'static str, accepted: bool) {
        let second = machine_ms().div_euclid(1000);
        let one = self.counts.by_second.entry(second).or_default();
        let two = self.counts.by_endpoint.entry(endpoint).or_default();
        if accepted {
            self.counts.accepted += 1;
            one.0 += 1;
            two.0 += 1;
        } else {
            self.counts.limited += 1;
            one.1 += 1;
            two.1 += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.counts = Counts::default();
    }
}
