//! Destination charges and what can undo them: made through the admin side only, since Payday never
//! charges anybody. Each moves money between platform and connected account as Stripe documents it:
//! the charge and its automatic transfer, the application fee kept back, refunds with or without
//! `reverse_transfer`, disputes taken from the platform.
//! <https://docs.stripe.com/connect/destination-charges>, <https://docs.stripe.com/connect/disputes>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::currency::Currency;
use super::form::Metadata;
use super::lists::json;
use super::objects::{Empty, seconds};
use super::transfers::NewTransfer;
use super::world::{Owner, PLATFORM, Posting, World};

/// A charge a fan pays, whose money goes on to a creator's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationCharge {
    pub amount: i64,
    pub currency: String,
    pub destination: String,
    pub application_fee_amount: i64,
    /// What Stripe keeps of the platform's part.
    pub stripe_fee: i64,
    /// How long the money stays pending on the connected account.
    pub pending_ms: i64,
    pub metadata: BTreeMap<String, String>,
}

impl Default for DestinationCharge {
    fn default() -> Self {
        Self {
            amount: 0,
            currency: "usd".to_owned(),
            destination: String::new(),
            application_fee_amount: 0,
            stripe_fee: 0,
            pending_ms: 0,
            metadata: BTreeMap::new(),
        }
    }
}

/// Ids of what a destination charge made.
#[derive(Debug, Clone, Serialize)]
pub struct Charged {
    pub payment_intent: String,
    pub charge: String,
    pub transfer: String,
}

#[derive(Debug)]
pub(super) struct Charge {
    pub id: String,
    pub payment_intent: String,
    pub amount: i64,
    pub amount_refunded: i64,
    pub currency: Currency,
    pub destination: Owner,
    pub transfer: usize,
    pub fee: i64,
    pub fee_refunded: i64,
    pub metadata: BTreeMap<String, String>,
    pub disputed: bool,
    pub created_ms: i64,
}

#[derive(Debug)]
pub(super) struct Dispute {
    pub id: String,
    pub charge: usize,
    pub amount: i64,
    pub status: &'static str,
    pub reason: String,
    pub created_ms: i64,
}

#[derive(Serialize)]
struct ChargeView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    amount_captured: i64,
    amount_refunded: i64,
    application_fee_amount: Option<i64>,
    captured: bool,
    created: i64,
    currency: Currency,
    destination: &'a str,
    disputed: bool,
    livemode: bool,
    metadata: &'a BTreeMap<String, String>,
    paid: bool,
    payment_intent: &'a str,
    refunded: bool,
    status: &'static str,
    transfer: &'a str,
    transfer_data: TransferData<'a>,
    transfer_group: Option<&'a str>,
}

#[derive(Serialize)]
struct TransferData<'a> {
    amount: Option<i64>,
    destination: &'a str,
}

#[derive(Serialize)]
struct IntentView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    amount_received: i64,
    application_fee_amount: Option<i64>,
    created: i64,
    currency: Currency,
    latest_charge: &'a str,
    livemode: bool,
    metadata: &'a BTreeMap<String, String>,
    status: &'static str,
    transfer_data: TransferData<'a>,
    transfer_group: Option<&'a str>,
}

#[derive(Serialize)]
struct DisputeView<'a> {
    id: &'a str,
    object: &'static str,
    amount: i64,
    balance_transactions: [u8; 0],
    charge: &'a str,
    created: i64,
    currency: Currency,
    evidence: Empty,
    is_charge_refundable: bool,
    livemode: bool,
    metadata: Empty,
    payment_intent: &'a str,
    reason: &'a str,
    status: &'static str,
}

/// Stripe's fee for a dispute, whoever wins.
const DISPUTE_FEE_MINOR: i64 = 1500;

impl World {
    pub(super) fn destination_charge(&mut self, new: &DestinationCharge) -> Result<Charged, String> {
        let destination = self.connected(&new.destination).ok_or_else(|| format!("no account {}", new.destination))?;
        let currency = Currency::parse(&new.currency).ok_or_else(|| format!("no currency {}", new.currency))?;
        if new.amount < 1 || new.application_fee_amount < 0 || new.application_fee_amount > new.amount {
            return Err("the amount must be positive and the fee no larger".to_owned());
        }
        let (intent, charge) = (self.ids.make("pi"), self.ids.make("ch"));
        let available_ms = self.now_ms + new.pending_ms;
        self.platform_posting("charge", new.amount, new.stripe_fee, currency, &charge, available_ms);
        let automatic = NewTransfer::for_charge(new.amount, currency, &charge, format!("group_{intent}"));
        let transfer = self.charge_transfer(automatic, destination, new.application_fee_amount, available_ms);
        if new.application_fee_amount > 0 {
            let fee = self.ids.make("fee");
            self.platform_posting("application_fee", new.application_fee_amount, 0, currency, &fee, available_ms);
        }
        let index = self.charges.len();
        self.charges.push(Charge {
            id: charge.clone(),
            payment_intent: intent.clone(),
            amount: new.amount,
            amount_refunded: 0,
            currency,
            destination,
            transfer,
            fee: new.application_fee_amount,
            fee_refunded: 0,
            metadata: new.metadata.clone(),
            disputed: false,
            created_ms: self.now_ms,
        });
        let body = self.charge_json(index);
        self.emit("charge.succeeded", PLATFORM, &charge, body, None);
        let body = self.intent_json(index);
        self.emit("payment_intent.succeeded", PLATFORM, &intent, body, None);
        Ok(Charged { payment_intent: intent, charge, transfer: self.transfers[transfer].id.clone() })
    }

    fn platform_posting(&mut self, kind: &'static str, amount: i64, fee: i64, currency: Currency, source: &str, at_ms: i64) {
        let reporting = match kind {
            "application_fee" => "platform_earning",
            "adjustment" => "dispute",
            other => other,
        };
        self.post(&Posting {
            owner: PLATFORM,
            kind,
            reporting,
            amount,
            fee,
            currency,
            source,
            available_ms: at_ms,
            exchange: None,
        });
    }

    fn charge_number(&self, id: &str) -> Result<usize, String> {
        self.charges.iter().position(|c| c.id == id || c.payment_intent == id).ok_or_else(|| format!("no charge {id}"))
    }

    /// `charge.refunded` carries the running total. With `reverse_transfer` the connected account pays
    /// its share back; `refund_application_fee` returns the fee's share to it.
    pub(super) fn refund_charge(
        &mut self,
        id: &str,
        amount: i64,
        reverse_transfer: bool,
        refund_fee: bool,
    ) -> Result<String, String> {
        let index = self.charge_number(id)?;
        let (before, total, currency, transfer, destination, fee, fee_before, charge_id) = {
            let c = &self.charges[index];
            (c.amount_refunded, c.amount, c.currency, c.transfer, c.destination, c.fee, c.fee_refunded, c.id.clone())
        };
        if amount < 1 || before + amount > total {
            return Err(format!("{amount} is more than is left of {id}"));
        }
        let refund = self.ids.make("re");
        let now = self.now_ms;
        self.platform_posting("refund", -amount, 0, currency, &refund, now);
        self.charges[index].amount_refunded = before + amount;
        if reverse_transfer {
            let left = self.transfers[transfer].amount - self.transfers[transfer].amount_reversed();
            if left > 0 {
                self.reverse(transfer, amount.min(left), Metadata::new());
            }
        }
        if refund_fee && fee > fee_before {
            let share =
                i64::try_from(i128::from(fee) * i128::from(before + amount) / i128::from(total)).unwrap_or(fee) - fee_before;
            let fee_refund = self.ids.make("fr");
            self.platform_posting("application_fee_refund", -share, 0, currency, &fee_refund, now);
            self.post(&Posting {
                owner: destination,
                kind: "application_fee_refund",
                reporting: "fee",
                amount: share,
                fee: 0,
                currency,
                source: &fee_refund,
                available_ms: now,
                exchange: None,
            });
            self.charges[index].fee_refunded = fee_before + share;
        }
        let body = self.charge_json(index);
        self.emit("charge.refunded", PLATFORM, &charge_id, body, Some(format!("{{\"amount_refunded\":{before}}}")));
        Ok(refund)
    }

    /// The cardholder's bank takes the money from the platform.
    pub(super) fn dispute_charge(&mut self, id: &str, amount: i64, reason: &str) -> Result<String, String> {
        let charge = self.charge_number(id)?;
        let left = self.charges[charge].amount - self.charges[charge].amount_refunded;
        if amount < 1 || amount > left || self.charges[charge].disputed {
            return Err(format!("{amount} of {id} cannot be disputed"));
        }
        let dispute = self.ids.make("dp");
        let (currency, now) = (self.charges[charge].currency, self.now_ms);
        self.charges[charge].disputed = true;
        self.disputes.push(Dispute {
            id: dispute.clone(),
            charge,
            amount,
            status: "needs_response",
            reason: reason.to_owned(),
            created_ms: now,
        });
        let index = self.disputes.len() - 1;
        self.dispute_event("charge.dispute.created", index);
        self.platform_posting("adjustment", -amount, DISPUTE_FEE_MINOR, currency, &dispute, now);
        self.dispute_event("charge.dispute.funds_withdrawn", index);
        Ok(dispute)
    }

    pub(super) fn close_dispute(&mut self, id: &str, won: bool) -> Result<(), String> {
        let index = self
            .disputes
            .iter()
            .position(|d| d.id == id && d.status == "needs_response")
            .ok_or_else(|| format!("no open dispute {id}"))?;
        self.disputes[index].status = if won { "won" } else { "lost" };
        if won {
            let (amount, charge, now) = (self.disputes[index].amount, self.disputes[index].charge, self.now_ms);
            let currency = self.charges[charge].currency;
            self.platform_posting("adjustment", amount, 0, currency, id, now);
            self.dispute_event("charge.dispute.funds_reinstated", index);
        }
        self.dispute_event("charge.dispute.closed", index);
        Ok(())
    }

    fn dispute_event(&mut self, kind: &str, index: usize) {
        let dispute = &self.disputes[index];
        let charge = &self.charges[dispute.charge];
        let id = dispute.id.clone();
        let body = json(&DisputeView {
            id: &dispute.id,
            object: "dispute",
            amount: dispute.amount,
            balance_transactions: [],
            charge: &charge.id,
            created: seconds(dispute.created_ms),
            currency: charge.currency,
            evidence: Empty {},
            is_charge_refundable: false,
            livemode: self.settings.livemode,
            metadata: Empty {},
            payment_intent: &charge.payment_intent,
            reason: &dispute.reason,
            status: dispute.status,
        });
        self.emit(kind, PLATFORM, &id, body, None);
    }

    fn charge_json(&self, index: usize) -> hyper::body::Bytes {
        let c = &self.charges[index];
        let transfer = &self.transfers[c.transfer];
        json(&ChargeView {
            id: &c.id,
            object: "charge",
            amount: c.amount,
            amount_captured: c.amount,
            amount_refunded: c.amount_refunded,
            application_fee_amount: (c.fee > 0).then_some(c.fee),
            captured: true,
            created: seconds(c.created_ms),
            currency: c.currency,
            destination: self.account_id(c.destination),
            disputed: c.disputed,
            livemode: self.settings.livemode,
            metadata: &c.metadata,
            paid: true,
            payment_intent: &c.payment_intent,
            refunded: c.amount_refunded == c.amount,
            status: "succeeded",
            transfer: &transfer.id,
            transfer_data: TransferData { amount: None, destination: self.account_id(c.destination) },
            transfer_group: transfer.group.as_deref(),
        })
    }

    fn intent_json(&self, index: usize) -> hyper::body::Bytes {
        let c = &self.charges[index];
        json(&IntentView {
            id: &c.payment_intent,
            object: "payment_intent",
            amount: c.amount,
            amount_received: c.amount,
            application_fee_amount: (c.fee > 0).then_some(c.fee),
            created: seconds(c.created_ms),
            currency: c.currency,
            latest_charge: &c.id,
            livemode: self.settings.livemode,
            metadata: &c.metadata,
            status: "succeeded",
            transfer_data: TransferData { amount: None, destination: self.account_id(c.destination) },
            transfer_group: self.transfers[c.transfer].group.as_deref(),
        })
    }
}
