//! The double's own opinion of the world, from what moved and what was asked: an oracle that shares no
//! code with the engine. Findings are data; whoever asks decides which of them were ordered.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::calls::CallLog;
use super::world::{PLATFORM, PayoutStatus, World};

#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// More than one transfer alive for one group and destination.
    pub double_transfers: Vec<DoublePaid>,
    /// More than one payout alive for one `metadata.item_id` on one account.
    pub double_payouts: Vec<DoublePaid>,
    /// One key, several sets of parameters.
    pub keys_reused: Vec<KeyMisuse>,
    /// POSTs that move money without a key: numbers of the calls.
    pub posts_without_key: Vec<usize>,
    /// A key sent again more than 23 hours after it was first sent with an unknown end.
    pub late_replays: Vec<KeyMisuse>,
    /// A key that executed twice, because Stripe had forgotten it.
    pub executed_twice: Vec<KeyMisuse>,
    /// Balances that do not equal the sum of their balance transactions: account, currency.
    pub broken_books: Vec<(String, String)>,
    /// By destination and currency.
    pub destinations: Vec<Destination>,
    pub calls: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct DoublePaid {
    /// Transfer group or item id.
    pub subject: String,
    pub account: String,
    pub ids: Vec<String>,
    pub live_minor: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct KeyMisuse {
    pub account: Option<String>,
    pub key: String,
    /// Numbers of the calls.
    pub calls: Vec<usize>,
}

/// What moved to one account in one currency, in minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Destination {
    pub account: String,
    pub currency: String,
    /// Transfers that somebody asked for; those of destination charges are not among them.
    pub transferred_minor: i64,
    pub reversed_minor: i64,
    /// Payouts that somebody asked for and that are pending, in transit or paid.
    pub paid_out_minor: i64,
    /// The same that Stripe made by itself.
    pub automatic_minor: i64,
    pub returned_minor: i64,
    pub available_minor: i64,
    pub pending_minor: i64,
}

impl Audit {
    /// Nobody was paid twice, every key was used as it should be, the books are right.
    pub fn is_clean(&self) -> bool {
        self.double_transfers.is_empty()
            && self.double_payouts.is_empty()
            && self.keys_reused.is_empty()
            && self.posts_without_key.is_empty()
            && self.late_replays.is_empty()
            && self.executed_twice.is_empty()
            && self.broken_books.is_empty()
    }
}

const REPLAY_LIMIT_MS: i64 = 23 * 3_600_000;

pub(super) fn audit(world: &World, log: &CallLog) -> Audit {
    let mut audit = Audit { calls: log.counts.calls, ..Audit::default() };
    find_double_transfers(world, &mut audit);
    find_double_payouts(world, &mut audit);
    check_keys(log, &mut audit);
    check_books(world, &mut audit);
    audit.destinations = sums(world);
    audit
}

fn find_double_transfers(world: &World, audit: &mut Audit) {
    let mut groups: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for (index, transfer) in world.transfers.iter().enumerate() {
        let live = transfer.amount > transfer.amount_reversed();
        if let (Some(group), false, true) = (&transfer.group, transfer.from_charge, live) {
            groups.entry((group, transfer.destination)).or_default().push(index);
        }
    }
    for ((group, destination), members) in groups.into_iter().filter(|(_, members)| members.len() > 1) {
        audit.double_transfers.push(DoublePaid {
            subject: group.to_owned(),
            account: world.account_id(destination).to_owned(),
            ids: members.iter().map(|i| world.transfers[*i].id.clone()).collect(),
            live_minor: members.iter().map(|i| world.transfers[*i].amount - world.transfers[*i].amount_reversed()).sum(),
        });
    }
}

fn find_double_payouts(world: &World, audit: &mut Audit) {
    let mut items: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for (index, payout) in world.payouts.iter().enumerate() {
        let live = !matches!(payout.status, PayoutStatus::Failed | PayoutStatus::Canceled);
        let item = payout.metadata.iter().find(|(key, _)| key == "item_id");
        if let (Some((_, item)), true) = (item, live) {
            items.entry((item, payout.owner)).or_default().push(index);
        }
    }
    for ((item, owner), members) in items.into_iter().filter(|(_, members)| members.len() > 1) {
        audit.double_payouts.push(DoublePaid {
            subject: item.to_owned(),
            account: world.account_id(owner).to_owned(),
            ids: members.iter().map(|i| world.payouts[*i].id.clone()).collect(),
            live_minor: members.iter().map(|i| world.payouts[*i].amount).sum(),
        });
    }
}

fn check_keys(log: &CallLog, audit: &mut Audit) {
    let mut by_key: HashMap<(Option<&str>, &str), Vec<usize>> = HashMap::new();
    let mut order = Vec::new();
    for call in log.calls.iter().filter(|call| call.method == "POST") {
        match &call.idempotency_key {
            None if call.endpoint.starts_with("POST /v1/transfers") || call.endpoint.starts_with("POST /v1/payouts") => {
                audit.posts_without_key.push(call.number);
            }
            None => {}
            Some(key) => {
                let id = (call.account.as_deref(), key.as_str());
                let uses = by_key.entry(id).or_default();
                if uses.is_empty() {
                    order.push(id);
                }
                uses.push(call.number);
            }
        }
    }
    for id in order {
        let uses = &by_key[&id];
        if uses.len() < 2 {
            continue;
        }
        let misuse = || KeyMisuse { account: id.0.map(str::to_owned), key: id.1.to_owned(), calls: uses.clone() };
        let different: HashSet<&str> = uses.iter().map(|n| log.calls[*n].fingerprint.as_str()).collect();
        if different.len() > 1 {
            audit.keys_reused.push(misuse());
        }
        if uses.iter().filter(|n| log.calls[**n].executed).count() > 1 {
            audit.executed_twice.push(misuse());
        }
        // Refusals before execution (key, rights, rate) start no clock: nothing ran.
        let first = uses.iter().find(|n| !matches!(log.calls[**n].status, 401 | 403 | 429));
        if first.is_some_and(|n| uses.iter().any(|m| log.calls[*m].at_ms - log.calls[*n].at_ms > REPLAY_LIMIT_MS)) {
            audit.late_replays.push(misuse());
        }
    }
}

fn check_books(world: &World, audit: &mut Audit) {
    for account in &world.accounts {
        for (currency, funds) in &account.balances {
            let (mut available, mut pending) = (0, 0);
            for txn in account.txns.iter().map(|i| &world.txns[*i]).filter(|txn| txn.currency == *currency) {
                if txn.pending {
                    pending += txn.amount - txn.fee;
                } else {
                    available += txn.amount - txn.fee;
                }
            }
            if (available, pending) != (funds.available, funds.pending) {
                audit.broken_books.push((account.spec.id.clone(), currency.to_string()));
            }
        }
    }
}

fn sums(world: &World) -> Vec<Destination> {
    let mut sums: BTreeMap<(usize, String), Destination> = BTreeMap::new();
    let mut of = |owner: usize, currency: String, add: &dyn Fn(&mut Destination)| {
        let entry = sums.entry((owner, currency.clone())).or_insert_with(|| Destination {
            account: world.account_id(owner).to_owned(),
            currency,
            ..Destination::default()
        });
        add(entry);
    };
    for transfer in world.transfers.iter().filter(|t| !t.from_charge) {
        of(transfer.destination, transfer.currency.to_string(), &|d| {
            d.transferred_minor += transfer.amount;
            d.reversed_minor += transfer.amount_reversed();
        });
    }
    for payout in &world.payouts {
        of(payout.owner, payout.currency.to_string(), &|d| match payout.status {
            PayoutStatus::Failed | PayoutStatus::Canceled => d.returned_minor += payout.amount,
            PayoutStatus::Pending | PayoutStatus::InTransit | PayoutStatus::Paid if payout.automatic => {
                d.automatic_minor += payout.amount;
            }
            PayoutStatus::Pending | PayoutStatus::InTransit | PayoutStatus::Paid => d.paid_out_minor += payout.amount,
        });
    }
    for (owner, account) in world.accounts.iter().enumerate().filter(|(owner, _)| *owner != PLATFORM) {
        for (currency, funds) in &account.balances {
            of(owner, currency.to_string(), &|d| {
                d.available_minor = funds.available;
                d.pending_minor = funds.pending;
            });
        }
    }
    sums.into_values().collect()
}
