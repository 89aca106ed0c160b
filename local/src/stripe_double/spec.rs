//! How a test or the demo describes accounts and banks to the double.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A connected account. The default is a ready one: transfers active, payouts manual, one bank.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct AccountSpec {
    /// `acct_…`; empty: the double makes one.
    pub id: String,
    pub country: String,
    pub default_currency: String,
    pub email: Option<String>,
    /// `express`, `custom`, `standard` or `none`
    #[serde(rename = "type")]
    pub kind: String,
    /// State of the `transfers` capability: `active`, `pending`, `inactive`.
    pub transfers: String,
    pub charges_enabled: bool,
    pub payouts_enabled: bool,
    pub details_submitted: bool,
    pub currently_due: Vec<String>,
    pub past_due: Vec<String>,
    pub eventually_due: Vec<String>,
    pub disabled_reason: Option<String>,
    /// `manual`, `daily`, `weekly`, `monthly`; none: `settings.payouts` is absent, and Stripe pays out
    /// automatically (daily is its default).
    pub payout_interval: Option<String>,
    pub delay_days: u32,
    pub banks: Vec<BankSpec>,
    pub metadata: BTreeMap<String, String>,
}

impl Default for AccountSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            country: "US".to_owned(),
            default_currency: "usd".to_owned(),
            email: None,
            kind: "express".to_owned(),
            transfers: "active".to_owned(),
            charges_enabled: true,
            payouts_enabled: true,
            details_submitted: true,
            currently_due: Vec::new(),
            past_due: Vec::new(),
            eventually_due: Vec::new(),
            disabled_reason: None,
            payout_interval: Some("manual".to_owned()),
            delay_days: 2,
            banks: vec![BankSpec::default()],
            metadata: BTreeMap::new(),
        }
    }
}

impl AccountSpec {
    /// A ready account in this country, whose bank takes this currency.
    pub fn ready(id: &str, country: &str, currency: &str) -> Self {
        Self {
            id: id.to_owned(),
            country: country.to_owned(),
            default_currency: currency.to_owned(),
            banks: vec![BankSpec { country: country.to_owned(), currency: currency.to_owned(), ..BankSpec::default() }],
            ..Self::default()
        }
    }

    /// Whether Stripe pays this account out by itself.
    pub(super) fn is_automatic(&self) -> bool {
        self.payout_interval.as_deref() != Some("manual")
    }
}

/// One external account of a connected account.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct BankSpec {
    /// `ba_…`; empty: the double makes one.
    pub id: String,
    pub country: String,
    pub currency: String,
    pub last4: String,
    /// Empty: the double makes one.
    pub fingerprint: String,
    pub default_for_currency: bool,
    /// `new`, `validated`, `verified`; `errored` after a payout to it failed.
    pub status: String,
    /// What becomes of payouts to it.
    pub outcome: PayoutOutcome,
}

impl Default for BankSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            country: "US".to_owned(),
            currency: "usd".to_owned(),
            last4: "6789".to_owned(),
            fingerprint: String::new(),
            default_for_currency: true,
            status: "new".to_owned(),
            outcome: PayoutOutcome::Paid,
        }
    }
}

/// How the bank ends a payout, once the payout settles.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PayoutOutcome {
    Paid,
    /// Refused by the bank, with Stripe's `failure_code`.
    Failed(String),
    /// `paid` first, `failed` this much later: "Some payouts that fail might initially show as `paid`,
    /// then change to `failed`." (<https://docs.stripe.com/api/payouts/object>)
    PaidThenFailed {
        code: String,
        after_ms: i64,
    },
    /// Stays in transit.
    Stuck,
}

/// How payouts proceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// Only by `settle_payouts`, `fail_payout` and the like.
    Manual,
    /// By the double's clock, counted from creation.
    Automatic { in_transit_after_ms: i64, paid_after_ms: i64 },
}
