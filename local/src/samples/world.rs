//! What Stripe knows: the double's accounts, balances and troubles, for the sample (`samples/stripe.json`) or for a user's own
//! files.
//!
//! Applied in two steps. [`World::apply`] sets the double up before anything is imported. [`World::raise`] is what happens
//! between import and cycle: disputes come as webhooks, and some creators change their bank account.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use payday::config::Policy;
use payday::earnings::{NewEarning, Place};
use payday::money::Currency;
use payday::payees::NewPayee;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::stripe_double::{AccountSpec, BankSpec, PayoutOutcome, StripeDouble};

/// Minor units of every currency on the platform when a user's own files are run: more than anybody earns.
const WELL_FUNDED_MINOR: i64 = 1_000_000_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The platform's available balance, minor units by currency.
    pub platform: BTreeMap<String, i64>,
    /// The earnings that had matured when the disputes came are those of this instant and before.
    pub matured_before_disputes: Option<DateTime<Utc>>,
    /// Raised after the import.
    #[serde(default)]
    pub disputes: Vec<Dispute>,
    /// Accounts whose owners give Stripe another bank account after the import.
    #[serde(default)]
    pub bank_changes: Vec<String>,
    /// Accounts whose bank account becomes unusable if [`World::raise_refusals`] is called: Stripe then refuses the payout.
    #[serde(default)]
    pub refusals: Vec<String>,
    pub accounts: Vec<KnownAccount>,
    /// What lies on connected accounts from destination charges.
    #[serde(default)]
    pub balances: Vec<ConnectedBalance>,
}

/// A connected account as Stripe knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAccount {
    pub id: String,
    pub country: String,
    /// Of its bank accounts, one each; the first is the account's own.
    pub currencies: Vec<String>,
    /// The capability: `active`, `pending`, `inactive`.
    #[serde(default = "active", skip_serializing_if = "is_active")]
    pub transfers: String,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub payouts_enabled: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past_due: Vec<String>,
    /// `manual`, `daily`, `weekly`, `monthly`, or `unstated`: Stripe says nothing.
    #[serde(default = "manual", skip_serializing_if = "is_manual")]
    pub interval: String,
    /// Stripe's `failure_code` when its bank refuses every payout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bank_fails: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectedBalance {
    pub account: String,
    pub currency: String,
    pub amount_minor: i64,
}

/// A dispute of a charge that an earning names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispute {
    pub id: String,
    pub charge: String,
    pub amount_minor: i64,
    pub currency: String,
    pub reason: String,
}

fn active() -> String {
    "active".to_owned()
}
fn manual() -> String {
    "manual".to_owned()
}
fn yes() -> bool {
    true
}
fn is_active(text: &str) -> bool {
    text == "active"
}
fn is_manual(text: &str) -> bool {
    text == "manual"
}
fn is_yes(yes: &bool) -> bool {
    *yes
}

impl KnownAccount {
    /// Ready and on a manual schedule, with a bank account per currency.
    pub fn ready(id: &str, country: &str, currencies: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            country: country.to_owned(),
            currencies: currencies.iter().map(|it| (*it).to_owned()).collect(),
            transfers: active(),
            payouts_enabled: true,
            past_due: Vec::new(),
            interval: manual(),
            bank_fails: None,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.transfers == "active" && self.payouts_enabled && self.past_due.is_empty()
    }

    pub fn spec(&self) -> AccountSpec {
        let bank = |currency: &String| BankSpec {
            country: self.country.clone(),
            currency: currency.clone(),
            outcome: self.bank_fails.clone().map_or(PayoutOutcome::Paid, PayoutOutcome::Failed),
            ..BankSpec::default()
        };
        AccountSpec {
            id: self.id.clone(),
            country: self.country.clone(),
            default_currency: self.currencies.first().cloned().unwrap_or_else(|| "usd".to_owned()),
            transfers: self.transfers.clone(),
            payouts_enabled: self.payouts_enabled,
            past_due: self.past_due.clone(),
            currently_due: self.past_due.clone(),
            disabled_reason: (!self.past_due.is_empty() || !self.payouts_enabled).then(|| "requirements.past_due".to_owned()),
            payout_interval: (self.interval != "unstated").then(|| self.interval.clone()),
            banks: self.currencies.iter().map(bank).collect(),
            ..AccountSpec::default()
        }
    }
}

impl World {
    /// Reads `stripe.json`. A field that is not known is an error, and so is a value that could only be a slip.
    pub fn load(json: &str) -> Result<Self> {
        let world: Self = serde_json::from_str(json).context("the file does not describe a world for the Stripe double")?;
        let mut ids = HashSet::new();
        for account in &world.accounts {
            ensure!(account.id.starts_with("acct_"), "account {:?}: the id must look like acct_1AbC", account.id);
            ensure!(ids.insert(account.id.as_str()), "account {} stands twice", account.id);
            ensure!(!account.currencies.is_empty(), "account {}: name the currency of its bank account", account.id);
            let known = ["active", "pending", "inactive"].contains(&account.transfers.as_str());
            ensure!(known, "account {}: transfers must be active, pending or inactive", account.id);
            let known = ["manual", "daily", "weekly", "monthly", "unstated"].contains(&account.interval.as_str());
            ensure!(known, "account {}: interval must be manual, daily, weekly, monthly or unstated", account.id);
        }
        let named = world.bank_changes.iter().chain(&world.refusals).chain(world.balances.iter().map(|it| &it.account));
        for account in named {
            ensure!(ids.contains(account.as_str()), "account {account} is named but not among the accounts");
        }
        let currencies = world.platform.keys().chain(world.balances.iter().map(|it| &it.currency));
        for currency in currencies.chain(world.disputes.iter().map(|it| &it.currency)) {
            ensure!(currency.parse::<Currency>().is_ok(), "{currency:?} is not a currency that Stripe takes");
        }
        Ok(world)
    }

    /// As `stripe.json` is written: what there are many of, one a line.
    pub fn to_json(&self) -> String {
        let line = |value: serde_json::Result<String>| value.unwrap_or_default();
        let mut out = String::from("{\n");
        let mut field = |name: &str, value: String, last: bool| {
            out.push_str(&format!("  \"{name}\": {value}{}\n", if last { "" } else { "," }));
        };
        field("platform", line(serde_json::to_string(&self.platform)), false);
        field("matured_before_disputes", line(serde_json::to_string(&self.matured_before_disputes)), false);
        field("disputes", lines(&self.disputes), false);
        field("bank_changes", lines(&self.bank_changes), false);
        field("refusals", lines(&self.refusals), false);
        field("accounts", lines(&self.accounts), false);
        field("balances", lines(&self.balances), true);
        out.push_str("}\n");
        out
    }

    /// A kind world for a user's own files: every account that they name exists, is ready and manual with a bank account for
    /// each currency its creator earned, what was earned on connected accounts lies there, and the platform has plenty.
    pub fn default_for(payees: &[(u64, NewPayee)], earnings: &[NewEarning], policy: &Policy) -> Self {
        let mut currencies: HashMap<Uuid, BTreeSet<String>> = HashMap::new();
        let mut connected: BTreeMap<(Uuid, String), i64> = BTreeMap::new();
        let mut platform: BTreeMap<String, i64> = Currency::all().map(|currency| (currency.code(), WELL_FUNDED_MINOR)).collect();
        for earning in earnings {
            let code = earning.currency.code();
            currencies.entry(earning.creator_id).or_default().insert(code.clone());
            let unit = earning.currency.micros_per_minor();
            let net = earning.freeze(policy).map_or(0, |worth| worth.gross_micros - worth.fee_micros);
            // Rounded up: what is payable is rounded down.
            let minor = net / unit + i64::from(net % unit > 0);
            let sum = match earning.place {
                Place::Connected => connected.entry((earning.creator_id, code)).or_default(),
                Place::Platform => platform.entry(code).or_insert(WELL_FUNDED_MINOR),
            };
            *sum = sum.saturating_add(minor);
        }
        let mut world = Self { platform, ..Self::default() };
        for (_, payee) in payees {
            let Some(account) = &payee.account else { continue };
            let country = payee.country.as_deref().unwrap_or("US");
            let mut known = KnownAccount::ready(account, country, &[]);
            known.currencies = currencies.get(&payee.id).map(|all| all.iter().cloned().collect()).unwrap_or_default();
            if known.currencies.is_empty() {
                known.currencies.push(policy.default_currency.code());
            }
            for currency in &known.currencies {
                if let Some(minor) = connected.get(&(payee.id, currency.clone())) {
                    let balance = ConnectedBalance { account: account.clone(), currency: currency.clone(), amount_minor: *minor };
                    world.balances.push(balance);
                }
            }
            world.accounts.push(known);
        }
        world
    }

    /// Sets the double up, before the import.
    pub fn apply(&self, double: &StripeDouble) -> Result<()> {
        double.add_accounts(self.accounts.iter().map(KnownAccount::spec));
        for (currency, minor) in &self.platform {
            ensure!(double.fund(currency, *minor), "the double has no currency {currency}");
        }
        for balance in &self.balances {
            let funded = double.fund_account(Some(&balance.account), &balance.currency, balance.amount_minor);
            ensure!(funded, "the double has no account {} or no currency {}", balance.account, balance.currency);
        }
        Ok(())
    }

    /// From now on Stripe refuses the payouts of the accounts in `refusals`: their bank account cannot be used.
    pub fn raise_refusals(&self, double: &StripeDouble) {
        for id in &self.refusals {
            double.update_account(id, |spec| {
                for bank in &mut spec.banks {
                    "errored".clone_into(&mut bank.status);
                }
            });
        }
    }
}

fn lines<T: Serialize>(list: &[T]) -> String {
    if list.is_empty() {
        return "[]".to_owned();
    }
    let each: Vec<String> = list.iter().map(|it| serde_json::to_string(it).unwrap_or_default()).collect();
    format!("[\n    {}\n  ]", each.join(",\n    "))
}
