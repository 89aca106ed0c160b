//! The connected accounts at the fake Stripe: what they may do, their bank, and their balances, where funds pend for days.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

/// An account as Stripe describes it to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub id: String,
    pub transfers_active: bool,
    pub payouts_enabled: bool,
    pub past_due: bool,
    /// Pays out on our command only.
    pub manual: bool,
    pub bank: String,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub described: Described,
    /// The bank refuses what is paid out to it.
    pub bank_refuses: bool,
    /// It has left the platform.
    pub gone: bool,
    /// So many hours pass until a transfer's money can be paid out.
    pub pends_hours: i64,
    balances: BTreeMap<String, Balance>,
}

#[derive(Debug, Clone, Default)]
struct Balance {
    available: i64,
    pending: Vec<(DateTime<Utc>, i64)>,
}

impl Account {
    pub fn new(described: Described) -> Self {
        Self { described, bank_refuses: false, gone: false, pends_hours: 0, balances: BTreeMap::new() }
    }

    pub fn credit(&mut self, currency: &str, amount: i64, available_at: DateTime<Utc>) {
        self.balances.entry(currency.to_owned()).or_default().pending.push((available_at, amount));
    }

    /// What can be paid out now, minor units.
    pub fn available(&mut self, currency: &str, now: DateTime<Utc>) -> i64 {
        let Some(balance) = self.balances.get_mut(currency) else { return 0 };
        let there: i64 = balance.pending.iter().filter(|(at, _)| *at <= now).map(|(_, amount)| amount).sum();
        balance.pending.retain(|(at, _)| *at > now);
        balance.available += there;
        balance.available
    }

    /// Takes from what is available, or gives back to it.
    pub fn debit(&mut self, currency: &str, amount: i64) {
        self.balances.entry(currency.to_owned()).or_default().available -= amount;
    }
}
