//! What the fake Stripe tells by webhook. The ids of events count up; two events may tell one fact.

use chrono::{DateTime, Utc};

use super::accounts::Described;

#[derive(Debug, Clone)]
pub struct Event {
    pub id: u64,
    /// Whole seconds, as Stripe has them.
    pub created: DateTime<Utc>,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Payout(PayoutSaid),
    TransferReversed {
        id: String,
        mark: String,
        amount_reversed: i64,
    },
    AccountUpdated(Described),
    Deauthorized(String),
    ExternalAccount(String),
    /// A destination charge was paid.
    Payment {
        intent: String,
        charge: String,
        account: String,
        amount: i64,
        fee: i64,
        currency: String,
    },
    /// A dispute or refund of a charge, with its running total.
    TakenBack {
        source: String,
        charge: String,
        amount: i64,
        currency: String,
    },
}

#[derive(Debug, Clone)]
pub struct PayoutSaid {
    pub id: String,
    /// The connected account whose money it is.
    pub account: String,
    pub mark: String,
    pub amount: i64,
    pub currency: String,
    pub status: &'static str,
    pub failure_code: Option<&'static str>,
}

impl What {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Payout(said) => match said.status {
                "paid" => "payout.paid",
                "failed" => "payout.failed",
                "canceled" => "payout.canceled",
                _ => "payout.created",
            },
            Self::TransferReversed { .. } => "transfer.reversed",
            Self::AccountUpdated(_) => "account.updated",
            Self::Deauthorized(_) => "account.application.deauthorized",
            Self::ExternalAccount(_) => "account.external_account.updated",
            Self::Payment { .. } => "payment_intent.succeeded",
            Self::TakenBack { source, .. } if source.starts_with("refund") => "charge.refunded",
            Self::TakenBack { .. } => "charge.dispute.created",
        }
    }
}
