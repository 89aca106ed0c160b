//! Stripe's objects as JSON: the fields of the API reference that a payout platform can meet, with every
//! field that is not nullable there.

use hyper::body::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::currency::Currency;
use super::form::Metadata;
use super::lists::json;
use super::spec::BankSpec;
use super::world::{Account, BalanceTxn, Event, Owner, Payout, Reversal, Transfer, World};

/// Metadata as an object.
#[derive(Clone, Copy)]
pub(super) struct Meta<'a>(pub &'a Metadata);

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// `{}`
#[derive(Serialize)]
pub(super) struct Empty {}

#[derive(Serialize)]
pub(super) struct ListView<'a, T> {
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
    total_count: usize,
    url: std::borrow::Cow<'a, str>,
}

impl<'a, T> ListView<'a, T> {
    pub(super) fn of(data: Vec<T>, url: impl Into<std::borrow::Cow<'a, str>>) -> Self {
        Self { object: "list", total_count: data.len(), data, has_more: false, url: url.into() }
    }
}

pub(super) fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1000)
}

#[derive(Serialize)]
pub(super) struct TransferView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    amount_reversed: i64,
    balance_transaction: &'a str,
    created: i64,
    currency: Currency,
    description: Option<&'a str>,
    destination: &'a str,
    destination_payment: &'a str,
    livemode: bool,
    metadata: Meta<'a>,
    reversals: ListView<'a, ReversalView<'a>>,
    reversed: bool,
    source_transaction: Option<&'a str>,
    source_type: &'static str,
    transfer_group: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct ReversalView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    balance_transaction: &'a str,
    created: i64,
    currency: Currency,
    destination_payment_refund: &'a str,
    metadata: Meta<'a>,
    source_refund: Option<&'a str>,
    transfer: &'a str,
}

pub(super) fn reversal_view<'a>(transfer: &'a Transfer, reversal: &'a Reversal) -> ReversalView<'a> {
    ReversalView {
        id: &reversal.id,
        object: "transfer_reversal",
        amount: reversal.amount,
        balance_transaction: &reversal.balance_transaction,
        created: seconds(reversal.created_ms),
        currency: transfer.currency,
        destination_payment_refund: &reversal.destination_payment_refund,
        metadata: Meta(&reversal.metadata),
        source_refund: None,
        transfer: &transfer.id,
    }
}

impl World {
    pub(super) fn transfer_view(&self, index: usize) -> TransferView<'_> {
        let t = &self.transfers[index];
        let amount_reversed = t.amount_reversed();
        TransferView {
            id: &t.id,
            object: "transfer",
            amount: t.amount,
            amount_reversed,
            balance_transaction: &t.balance_transaction,
            created: seconds(t.created_ms),
            currency: t.currency,
            description: t.description.as_deref(),
            destination: self.account_id(t.destination),
            destination_payment: &t.destination_payment,
            livemode: self.settings.livemode,
            metadata: Meta(&t.metadata),
            reversals: ListView::of(
                t.reversals.iter().rev().take(10).map(|r| reversal_view(t, r)).collect(),
                format!("/v1/transfers/{}/reversals", t.id),
            ),
            reversed: amount_reversed == t.amount,
            source_transaction: t.source_transaction.as_deref(),
            source_type: "card",
            transfer_group: t.group.as_deref(),
        }
    }

    pub(super) fn transfer_json(&self, index: usize) -> Bytes {
        json(&self.transfer_view(index))
    }

    pub(super) fn payout_view(&self, index: usize) -> PayoutView<'_> {
        let p: &Payout = &self.payouts[index];
        PayoutView {
            id: &p.id,
            object: "payout",
            amount: p.amount,
            application_fee: None,
            application_fee_amount: None,
            arrival_date: seconds(p.arrival_ms),
            automatic: p.automatic,
            balance_transaction: &p.balance_transaction,
            created: seconds(p.created_ms),
            currency: p.currency,
            description: p.description.as_deref(),
            destination: &p.destination,
            failure_balance_transaction: p.failure_balance_transaction.as_deref(),
            failure_code: p.failure_code.as_deref(),
            failure_message: p.failure_code.as_deref().map(failure_message),
            livemode: self.settings.livemode,
            metadata: Meta(&p.metadata),
            method: "standard",
            original_payout: None,
            reconciliation_status: if p.automatic { "completed" } else { "not_applicable" },
            reversed_by: None,
            source_type: "card",
            statement_descriptor: p.statement_descriptor.as_deref(),
            status: p.status.as_str(),
            kind: "bank_account",
        }
    }

    pub(super) fn payout_json(&self, index: usize) -> Bytes {
        json(&self.payout_view(index))
    }

    pub(super) fn account_view(&self, owner: Owner) -> AccountView<'_> {
        let account: &Account = &self.accounts[owner];
        let spec = &account.spec;
        AccountView {
            id: &spec.id,
            object: "account",
            business_type: Some("individual"),
            capabilities: Capabilities { card_payments: spec.charges_enabled.then_some("active"), transfers: &spec.transfers },
            charges_enabled: spec.charges_enabled,
            controller: Controller { kind: "application", is_controller: true },
            country: &spec.country,
            created: seconds(account.created_ms),
            default_currency: &spec.default_currency,
            details_submitted: spec.details_submitted,
            email: spec.email.as_deref(),
            external_accounts: ListView::of(
                spec.banks.iter().map(|bank| bank_view(&spec.id, bank)).collect(),
                format!("/v1/accounts/{}/external_accounts", spec.id),
            ),
            metadata: &spec.metadata,
            payouts_enabled: spec.payouts_enabled,
            requirements: Requirements {
                alternatives: [],
                current_deadline: None,
                currently_due: &spec.currently_due,
                disabled_reason: spec.disabled_reason.as_deref(),
                errors: [],
                eventually_due: &spec.eventually_due,
                past_due: &spec.past_due,
                pending_verification: [],
            },
            settings: AccountSettings {
                branding: Empty {},
                card_payments: Empty {},
                dashboard: Dashboard { display_name: None, timezone: "Etc/UTC" },
                payments: Empty {},
                payouts: spec.payout_interval.as_deref().map(|interval| PayoutSettings {
                    debit_negative_balances: interval != "manual",
                    schedule: Schedule {
                        delay_days: spec.delay_days,
                        interval,
                        monthly_anchor: (interval == "monthly").then_some(1),
                        weekly_anchor: (interval == "weekly").then_some("monday"),
                    },
                    statement_descriptor: None,
                }),
            },
            kind: &spec.kind,
        }
    }

    pub(super) fn account_json(&self, owner: Owner) -> Bytes {
        json(&self.account_view(owner))
    }

    pub(super) fn txn_view(&self, index: usize) -> TxnView<'_> {
        let t: &BalanceTxn = &self.txns[index];
        TxnView {
            id: &t.id,
            object: "balance_transaction",
            amount: t.amount,
            available_on: seconds(t.available_ms),
            balance_type: "payments",
            created: seconds(t.created_ms),
            currency: t.currency,
            description: None,
            exchange_rate: t.exchange.and_then(|(n, d)| RawValue::from_string(decimal(n, d)).ok()),
            fee: t.fee,
            fee_details: if t.fee == 0 {
                Vec::new()
            } else {
                vec![Fee { amount: t.fee, application: None, currency: t.currency, description: "fees", kind: "stripe_fee" }]
            },
            net: t.amount - t.fee,
            reporting_category: t.reporting,
            source: &t.source,
            status: if t.pending { "pending" } else { "available" },
            kind: t.kind,
        }
    }

    /// An event without the brackets of a list.
    pub(super) fn event_view<'a>(&'a self, event: &'a Event) -> Box<RawValue> {
        let text = String::from_utf8(event_body(event)).unwrap_or_default();
        RawValue::from_string(text).unwrap_or_default()
    }
}

/// The body of a webhook and of `GET /v1/events/{id}`: the object as it was when the event happened.
pub(super) fn event_body(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.object.len() + 320);
    let mut push = |text: &str| out.extend_from_slice(text.as_bytes());
    push("{\"id\":\"");
    push(&event.id);
    push("\",\"object\":\"event\"");
    if let Some(account) = &event.account {
        push(",\"account\":\"");
        push(account);
        push("\"");
    }
    push(",\"api_version\":\"2026-09-30.endive\",\"created\":");
    push(&event.created.to_string());
    push(",\"data\":{\"object\":");
    push(std::str::from_utf8(&event.object).unwrap_or("null"));
    if let Some(previous) = &event.previous {
        push(",\"previous_attributes\":");
        push(previous);
    }
    push("},\"livemode\":");
    push(if event.livemode { "true" } else { "false" });
    push(",\"pending_webhooks\":1,\"request\":");
    match &event.request {
        None => push("{\"id\":null,\"idempotency_key\":null}"),
        Some((id, key)) => {
            push("{\"id\":\"");
            push(id);
            push("\",\"idempotency_key\":");
            push(&serde_json::to_string(key).unwrap_or_else(|_| "null".to_owned()));
            push("}");
        }
    }
    push(",\"type\":\"");
    push(&event.kind);
    push("\"}");
    out
}

/// Six decimals of a fraction, without floats.
fn decimal(numerator: i64, denominator: i64) -> String {
    let millionths = i128::from(numerator) * 1_000_000 / i128::from(denominator.max(1));
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// <https://docs.stripe.com/api/payouts/failures>
fn failure_message(code: &str) -> &'static str {
    match code {
        "account_closed" => "The bank account has been closed.",
        "account_frozen" => "The bank account has been frozen.",
        "bank_account_restricted" => "The bank account has restrictions on either the type, or the number, of payouts allowed.",
        "could_not_process" => "The bank could not process this payout.",
        "invalid_account_number" => "The routing number seems correct, but the account number is invalid.",
        "no_account" => {
            "The bank account details on file are probably incorrect. No bank account could be located with those details."
        }
        _ => "The payout failed.",
    }
}

#[derive(Serialize)]
pub(super) struct PayoutView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    application_fee: Option<&'a str>,
    application_fee_amount: Option<i64>,
    arrival_date: i64,
    automatic: bool,
    balance_transaction: &'a str,
    created: i64,
    currency: Currency,
    description: Option<&'a str>,
    destination: &'a str,
    failure_balance_transaction: Option<&'a str>,
    failure_code: Option<&'a str>,
    failure_message: Option<&'static str>,
    livemode: bool,
    metadata: Meta<'a>,
    method: &'static str,
    original_payout: Option<&'a str>,
    reconciliation_status: &'static str,
    reversed_by: Option<&'a str>,
    source_type: &'static str,
    statement_descriptor: Option<&'a str>,
    status: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct TxnView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    available_on: i64,
    balance_type: &'static str,
    created: i64,
    currency: Currency,
    description: Option<&'a str>,
    exchange_rate: Option<Box<RawValue>>,
    fee: i64,
    fee_details: Vec<Fee>,
    net: i64,
    reporting_category: &'static str,
    source: &'a str,
    status: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Fee {
    amount: i64,
    application: Option<String>,
    currency: Currency,
    description: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct BankView<'a> {
    id: &'a str,
    object: &'static str,
    account: &'a str,
    account_holder_name: Option<&'a str>,
    account_holder_type: Option<&'a str>,
    account_type: Option<&'a str>,
    available_payout_methods: [&'static str; 1],
    bank_name: &'static str,
    country: &'a str,
    currency: &'a str,
    default_for_currency: bool,
    fingerprint: &'a str,
    last4: &'a str,
    metadata: Empty,
    routing_number: Option<&'a str>,
    status: &'a str,
}

pub(super) fn bank_view<'a>(account: &'a str, bank: &'a BankSpec) -> BankView<'a> {
    BankView {
        id: &bank.id,
        object: "bank_account",
        account,
        account_holder_name: None,
        account_holder_type: None,
        account_type: None,
        available_payout_methods: ["standard"],
        bank_name: "STRIPE TEST BANK",
        country: &bank.country,
        currency: &bank.currency,
        default_for_currency: bank.default_for_currency,
        fingerprint: &bank.fingerprint,
        last4: &bank.last4,
        metadata: Empty {},
        routing_number: None,
        status: &bank.status,
    }
}

#[derive(Serialize)]
pub(super) struct AccountView<'a> {
    id: &'a str,
    object: &'static str,
    business_type: Option<&'static str>,
    capabilities: Capabilities<'a>,
    charges_enabled: bool,
    controller: Controller,
    country: &'a str,
    created: i64,
    default_currency: &'a str,
    details_submitted: bool,
    email: Option<&'a str>,
    external_accounts: ListView<'a, BankView<'a>>,
    metadata: &'a std::collections::BTreeMap<String, String>,
    payouts_enabled: bool,
    requirements: Requirements<'a>,
    settings: AccountSettings<'a>,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize)]
struct Controller {
    #[serde(rename = "type")]
    kind: &'static str,
    is_controller: bool,
}

#[derive(Serialize)]
struct Capabilities<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    card_payments: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    transfers: &'a str,
}

#[derive(Serialize)]
struct Requirements<'a> {
    alternatives: [u8; 0],
    current_deadline: Option<i64>,
    currently_due: &'a [String],
    disabled_reason: Option<&'a str>,
    errors: [u8; 0],
    eventually_due: &'a [String],
    past_due: &'a [String],
    pending_verification: [u8; 0],
}

#[derive(Serialize)]
struct AccountSettings<'a> {
    branding: Empty,
    card_payments: Empty,
    dashboard: Dashboard,
    payments: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    payouts: Option<PayoutSettings<'a>>,
}

#[derive(Serialize)]
struct Dashboard {
    display_name: Option<&'static str>,
    timezone: &'static str,
}

#[derive(Serialize)]
struct PayoutSettings<'a> {
    debit_negative_balances: bool,
    schedule: Schedule<'a>,
    statement_descriptor: Option<&'a str>,
}

#[derive(Serialize)]
struct Schedule<'a> {
    delay_days: u32,
    interval: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    monthly_anchor: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weekly_anchor: Option<&'static str>,
}
