//! Everything the double knows: accounts with their books, transfers, payouts, balance transactions,
//! events, and what falls due at which time. Plain data under one lock; nothing here waits or speaks HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hyper::body::Bytes;

use super::charges::{Charge, Dispute};
use super::currency::Currency;
use super::form::Metadata;
use super::idempotency::Keys;
use super::ids::Ids;
use super::spec::{AccountSpec, Settlement};

/// Index of an account in `World::accounts`; the platform itself is the first.
pub(super) type Owner = usize;
pub(super) const PLATFORM: Owner = 0;

#[derive(Debug)]
pub(super) struct World {
    pub settings: Settings,
    pub ids: Ids,
    pub now_ms: i64,
    pub accounts: Vec<Account>,
    pub account_index: HashMap<String, Owner>,
    pub transfers: Vec<Transfer>,
    pub transfer_index: HashMap<String, usize>,
    pub transfers_by_group: HashMap<String, Vec<usize>>,
    pub payouts: Vec<Payout>,
    pub payout_index: HashMap<String, usize>,
    pub txns: Vec<BalanceTxn>,
    pub txn_index: HashMap<String, usize>,
    pub charges: Vec<Charge>,
    pub disputes: Vec<Dispute>,
    pub events: Vec<Arc<Event>>,
    pub event_index: HashMap<String, usize>,
    pub keys: Keys,
    /// Events not yet handed to the delivery of webhooks.
    pub outbox: Vec<Arc<Event>>,
    /// The request being executed, for `event.request`.
    pub request: Option<(String, Option<String>)>,
    due: BTreeMap<(i64, u64), Due>,
    due_count: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub livemode: bool,
    pub settlement: Settlement,
    pub transfer_available_after_ms: i64,
    pub automatic_payout_after_ms: i64,
    pub exchange: Vec<Exchange>,
}

/// Stripe converts a transfer into the account's default currency when no bank of the account takes the
/// transfer's own. One unit `from` (minor) is `numerator / denominator` units `to` (minor).
#[derive(Debug, Clone)]
pub struct Exchange {
    pub from: String,
    pub to: String,
    pub numerator: i64,
    pub denominator: i64,
}

#[derive(Debug)]
pub(super) struct Account {
    pub spec: AccountSpec,
    pub created_ms: i64,
    pub deauthorized: bool,
    pub balances: BTreeMap<Currency, Funds>,
    pub txns: Vec<usize>,
    pub payouts: Vec<usize>,
    pub events: Vec<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Funds {
    pub available: i64,
    pub pending: i64,
}

#[derive(Debug)]
pub(super) struct Transfer {
    pub id: String,
    pub amount: i64,
    pub currency: Currency,
    pub destination: Owner,
    pub created_ms: i64,
    pub group: Option<String>,
    pub description: Option<String>,
    pub metadata: Metadata,
    pub source_transaction: Option<String>,
    pub balance_transaction: String,
    pub destination_payment: String,
    /// What the destination was credited, which differs after a currency conversion.
    pub credited: (i64, Currency),
    pub reversals: Vec<Reversal>,
    /// Made by Stripe for a destination charge.
    pub from_charge: bool,
}

impl Transfer {
    pub(super) fn amount_reversed(&self) -> i64 {
        self.reversals.iter().map(|r| r.amount).sum()
    }
}

#[derive(Debug)]
pub(super) struct Reversal {
    pub id: String,
    pub amount: i64,
    pub created_ms: i64,
    pub metadata: Metadata,
    pub balance_transaction: String,
    pub destination_payment_refund: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayoutStatus {
    Pending,
    InTransit,
    Paid,
    Failed,
    Canceled,
}

impl PayoutStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InTransit => "in_transit",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

#[derive(Debug)]
pub(super) struct Payout {
    pub id: String,
    pub owner: Owner,
    pub amount: i64,
    pub currency: Currency,
    pub created_ms: i64,
    pub arrival_ms: i64,
    pub automatic: bool,
    pub status: PayoutStatus,
    pub destination: String,
    pub balance_transaction: String,
    pub failure_balance_transaction: Option<String>,
    pub failure_code: Option<String>,
    pub metadata: Metadata,
    pub description: Option<String>,
    pub statement_descriptor: Option<String>,
}

#[derive(Debug)]
pub(super) struct BalanceTxn {
    pub id: String,
    pub kind: &'static str,
    pub reporting: &'static str,
    pub amount: i64,
    pub fee: i64,
    pub currency: Currency,
    pub source: String,
    pub created_ms: i64,
    pub available_ms: i64,
    pub pending: bool,
    pub owner: Owner,
    /// The automatic payout that took it.
    pub payout: Option<usize>,
    pub exchange: Option<(i64, i64)>,
}

#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub kind: String,
    /// Set for events of a connected account.
    pub account: Option<String>,
    pub created: i64,
    pub object_id: String,
    pub object: Bytes,
    pub previous: Option<String>,
    pub request: Option<(String, Option<String>)>,
    pub(super) owner: Owner,
    pub(super) livemode: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Due {
    /// A pending balance transaction becomes available.
    Available(usize),
    PayoutInTransit(usize),
    PayoutSettles(usize),
    PayoutFails(usize, String),
    AutomaticPayout(Owner, Currency),
}

/// One posting to an account's balance.
pub(super) struct Posting<'a> {
    pub owner: Owner,
    pub kind: &'static str,
    pub reporting: &'static str,
    pub amount: i64,
    pub fee: i64,
    pub currency: Currency,
    pub source: &'a str,
    pub available_ms: i64,
    pub exchange: Option<(i64, i64)>,
}

impl World {
    pub(super) fn new(settings: Settings, seed: u64, now_ms: i64, platform: AccountSpec) -> Self {
        let mut world = Self {
            settings,
            ids: Ids::new(seed),
            now_ms,
            accounts: Vec::new(),
            account_index: HashMap::new(),
            transfers: Vec::new(),
            transfer_index: HashMap::new(),
            transfers_by_group: HashMap::new(),
            payouts: Vec::new(),
            payout_index: HashMap::new(),
            txns: Vec::new(),
            txn_index: HashMap::new(),
            charges: Vec::new(),
            disputes: Vec::new(),
            events: Vec::new(),
            event_index: HashMap::new(),
            keys: Keys::default(),
            outbox: Vec::new(),
            request: None,
            due: BTreeMap::new(),
            due_count: 0,
        };
        world.insert_account(platform);
        world
    }

    pub(super) fn insert_account(&mut self, mut spec: AccountSpec) -> Owner {
        if spec.id.is_empty() {
            spec.id = self.ids.make("acct");
        }
        self.name_banks(&mut spec);
        let owner = self.accounts.len();
        self.account_index.insert(spec.id.clone(), owner);
        self.accounts.push(Account {
            spec,
            created_ms: self.now_ms,
            deauthorized: false,
            balances: BTreeMap::new(),
            txns: Vec::new(),
            payouts: Vec::new(),
            events: Vec::new(),
        });
        owner
    }

    pub(super) fn name_banks(&mut self, spec: &mut AccountSpec) {
        for bank in &mut spec.banks {
            if bank.id.is_empty() {
                bank.id = self.ids.make("ba");
            }
            if bank.fingerprint.is_empty() {
                bank.fingerprint = format!("fp{}", &bank.id[bank.id.len().saturating_sub(14)..]);
            }
        }
    }

    /// A connected account that has not left the platform.
    pub(super) fn connected(&self, id: &str) -> Option<Owner> {
        self.account_index.get(id).copied().filter(|owner| *owner != PLATFORM && !self.accounts[*owner].deauthorized)
    }

    pub(super) fn account_id(&self, owner: Owner) -> &str {
        &self.accounts[owner].spec.id
    }

    pub(super) fn funds(&self, owner: Owner, currency: Currency) -> Funds {
        self.accounts[owner].balances.get(&currency).copied().unwrap_or_default()
    }

    /// Books one balance transaction and returns its id.
    pub(super) fn post(&mut self, posting: &Posting<'_>) -> String {
        let id = self.ids.make("txn");
        let index = self.txns.len();
        let pending = posting.available_ms > self.now_ms;
        let net = posting.amount - posting.fee;
        let account = &mut self.accounts[posting.owner];
        let funds = account.balances.entry(posting.currency).or_default();
        if pending {
            funds.pending += net;
        } else {
            funds.available += net;
        }
        account.txns.push(index);
        self.txn_index.insert(id.clone(), index);
        self.txns.push(BalanceTxn {
            id: id.clone(),
            kind: posting.kind,
            reporting: posting.reporting,
            amount: posting.amount,
            fee: posting.fee,
            currency: posting.currency,
            source: posting.source.to_owned(),
            created_ms: self.now_ms,
            available_ms: posting.available_ms.max(self.now_ms),
            pending,
            owner: posting.owner,
            payout: None,
            exchange: posting.exchange,
        });
        if pending {
            self.schedule(posting.available_ms, Due::Available(index));
        } else if posting.amount > 0 {
            self.plan_automatic_payout(posting.owner, posting.currency);
        }
        id
    }

    fn plan_automatic_payout(&mut self, owner: Owner, currency: Currency) {
        if owner != PLATFORM && self.accounts[owner].spec.is_automatic() {
            let at = self.now_ms.saturating_add(self.settings.automatic_payout_after_ms);
            self.schedule(at, Due::AutomaticPayout(owner, currency));
        }
    }

    pub(super) fn emit(&mut self, kind: &str, owner: Owner, object_id: &str, object: Bytes, previous: Option<String>) {
        let event = Arc::new(Event {
            id: self.ids.make("evt"),
            kind: kind.to_owned(),
            account: (owner != PLATFORM).then(|| self.account_id(owner).to_owned()),
            created: self.now_ms.div_euclid(1000),
            object_id: object_id.to_owned(),
            object,
            previous,
            request: self.request.clone(),
            owner,
            livemode: self.settings.livemode,
        });
        let index = self.events.len();
        self.event_index.insert(event.id.clone(), index);
        self.accounts[owner].events.push(index);
        self.outbox.push(Arc::clone(&event));
        self.events.push(event);
    }

    pub(super) fn schedule(&mut self, at_ms: i64, due: Due) {
        self.due_count += 1;
        self.due.insert((at_ms, self.due_count), due);
    }

    pub(super) fn next_due_ms(&self) -> Option<i64> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Brings the world up to `now_ms`. Time never runs backwards here, whatever the clock does.
    pub(super) fn run_due(&mut self, now_ms: i64) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let ((at, _), due) = entry.remove_entry();
            self.now_ms = self.now_ms.max(at);
            match due {
                Due::Available(index) => {
                    let txn = &mut self.txns[index];
                    txn.pending = false;
                    let (owner, currency, net) = (txn.owner, txn.currency, txn.amount - txn.fee);
                    let funds = self.accounts[owner].balances.entry(currency).or_default();
                    funds.pending -= net;
                    funds.available += net;
                    if net > 0 {
                        self.plan_automatic_payout(owner, currency);
                    }
                }
                Due::PayoutInTransit(index) => self.payout_in_transit(index),
                Due::PayoutSettles(index) => self.payout_settles(index),
                Due::PayoutFails(index, code) => self.payout_fails(index, &code),
                Due::AutomaticPayout(owner, currency) => self.automatic_payout(owner, currency),
            }
        }
        self.now_ms = self.now_ms.max(now_ms);
    }
}
