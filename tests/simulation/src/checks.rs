//! The standing checks of the money rules, over the model: the cheap ones of each item that changed, after every commit; all
//! of them now and then and at the end.

use std::collections::{BTreeMap, HashMap};

use payday::id::ItemId;
use payday::ledger::Account;
use payday::payouts::item::Status;
use payday::payouts::operation::State;
use payday::rails::Leg;

use crate::stripe::{Kind, Object};
use crate::tables::{Breach, CURRENCIES, ItemRow, OperationRow, Tables, coin, payee_number};

/// What must hold of an item whenever it is looked at.
pub fn item(tables: &Tables, id: ItemId) -> Result<(), Breach> {
    let Some(row) = tables.item(id) else { return Ok(()) };
    let operations: Vec<&OperationRow> = row.operations.iter().filter_map(|id| tables.operation(*id)).collect();
    for (leg, attempts) in [(Leg::Transfer, row.item.transfer_attempt), (Leg::Payout, row.item.payout_attempt)] {
        let of_leg: Vec<&&OperationRow> = operations.iter().filter(|it| it.leg == leg).collect();
        let numbers = of_leg.iter().zip(1..).all(|(it, number)| it.attempt == number);
        if !numbers || i32::try_from(of_leg.len()) != Ok(attempts) {
            return Err(Breach::new("the items' attempts are their operations'", format!("{row:?}")));
        }
        let closed = |it: &OperationRow| matches!(it.state, State::Rejected | State::Returned);
        if let Some(open) = of_leg.iter().rev().skip(1).find(|it| !closed(it)) {
            return Err(Breach::new("no attempt follows an open one", format!("{open:?}")));
        }
    }
    if let Some(ageless) = operations
        .iter()
        .find(|it| matches!(it.state, State::Unknown | State::Frozen | State::Unresolved) && it.unknown_since.is_none())
    {
        return Err(Breach::new("nothing unknown is without an age", format!("{ageless:?}")));
    }
    let sending = matches!(
        row.item.status,
        Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut | Status::AwaitingAvailable
    );
    if sending && row.due_at.is_none() {
        return Err(Breach::new("what is being sent will be looked at again", format!("{row:?}")));
    }
    if matches!(row.item.status, Status::NeedsReview | Status::Failed)
        && row.failure_code.is_none()
        && row.failure_reason.is_none()
    {
        return Err(Breach::new("who waits for a person has a reason", format!("{row:?}")));
    }
    Ok(())
}

/// Everything that the tables alone can tell, and what Stripe has.
pub fn all(tables: &Tables, objects: &[Object]) -> Result<(), Breach> {
    identity(tables)?;
    places(tables)?;
    totals(tables)?;
    stripe(tables, objects)?;
    tables.items.iter().try_for_each(|row| item(tables, row.item.id))
}

/// A payee's accounts add up to what was earned, and all accounts to zero.
fn identity(tables: &Tables) -> Result<(), Breach> {
    let mut earned: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for row in &tables.earnings {
        *earned.entry((row.payee, row.coin)).or_default() += row.net_micros - row.taken_back_net_micros;
    }
    for (payee, balances) in tables.balances.iter().enumerate() {
        for (coin, balance) in balances.iter().enumerate() {
            let has: i64 = balance[..=Account::Debt as usize].iter().sum();
            let net = earned.get(&(payee, coin)).copied().unwrap_or(0);
            if has != net {
                let detail = format!("payee {payee} has {has} {}, earned {net}", CURRENCIES[coin]);
                return Err(Breach::new("the payee identity", detail));
            }
            if balance.iter().sum::<i64>() != 0 {
                return Err(Breach::new("all accounts sum to zero", format!("payee {payee} {}", CURRENCIES[coin])));
            }
        }
    }
    Ok(())
}

/// In flight is what open transfers carry, reserved is what items keep.
fn places(tables: &Tables) -> Result<(), Breach> {
    let mut kept: BTreeMap<(usize, usize), [i64; 3]> = BTreeMap::new();
    for row in &tables.items {
        let unit = row.item.currency.micros_per_minor();
        let sums = kept.entry((payee_number(row.item.payee), coin(&row.item.currency.code()))).or_default();
        let open = |it: &&OperationRow| it.leg == Leg::Transfer && it.state.is_open();
        if tables.latest(row).filter(open).is_some() {
            sums[0] += row.item.transfer_minor * unit;
        }
        if matches!(row.item.status, Status::Pending | Status::AwaitingFunds) {
            sums[1] += row.item.transfer_minor * unit;
        }
        if !row.item.connected_moved && !matches!(row.item.status, Status::Failed | Status::Canceled) {
            sums[2] += row.item.connected_minor * unit;
        }
    }
    for (payee, balances) in tables.balances.iter().enumerate() {
        for (coin, balance) in balances.iter().enumerate() {
            let expected = kept.get(&(payee, coin)).copied().unwrap_or_default();
            let accounts = [Account::InFlight, Account::ReservedPlatform, Account::ReservedConnected];
            for (account, expected) in accounts.into_iter().zip(expected) {
                let is = balance[account as usize];
                if is != expected {
                    let detail = format!("payee {payee} {} {}: {is}, items say {expected}", CURRENCIES[coin], account.as_str());
                    return Err(Breach::new("in flight and reserved are what items keep", detail));
                }
            }
        }
    }
    Ok(())
}

/// A batch's total is its items'; one batch per hash and per run and currency.
fn totals(tables: &Tables) -> Result<(), Breach> {
    let mut hashes = std::collections::BTreeSet::new();
    for batch in &tables.batches {
        let (mut count, mut amount) = (0, 0);
        for row in tables.items_of(batch.id) {
            count += 1;
            amount += row.item.amount_minor;
        }
        if (count, amount) != (batch.items, batch.amount_minor) {
            return Err(Breach::new("a batch's total is its items'", format!("{batch:?}: {count} items of {amount}")));
        }
        if !hashes.insert(&batch.hash) {
            return Err(Breach::new("one batch per hash", format!("{batch:?}")));
        }
    }
    Ok(())
}

/// What was accepted exists at Stripe as it was asked; what exists was not refused.
fn stripe(tables: &Tables, objects: &[Object]) -> Result<(), Breach> {
    let by_id: HashMap<&str, &Object> = objects.iter().map(|it| (it.id.as_str(), it)).collect();
    for it in tables.operations.iter().filter(|it| it.state == State::Accepted) {
        let object = it.stripe_id.as_deref().and_then(|id| by_id.get(id));
        let kind = if it.leg == Leg::Transfer { Kind::Transfer } else { Kind::Payout };
        let same = object.is_some_and(|object| {
            (object.kind, object.amount, object.currency.as_str(), object.account.as_str())
                == (kind, it.amount_minor, it.currency.as_str(), it.account.as_str())
        });
        if !same {
            return Err(Breach::new("Stripe's objects are the ledger's", format!("{it:?} against {object:?}")));
        }
    }
    let by_mark: HashMap<String, &OperationRow> = tables.operations.iter().map(|it| (mark(tables, it), it)).collect();
    for object in objects.iter().filter(|it| it.live() > 0) {
        let Some(it) = by_mark.get(&object.mark) else {
            return Err(Breach::new("no object without a committed attempt", format!("{object:?}")));
        };
        if matches!(it.state, State::Rejected | State::Canceled | State::NotRun) {
            return Err(Breach::new("what is closed has nothing live at Stripe", format!("{it:?} against {object:?}")));
        }
    }
    Ok(())
}

/// The mark that an attempt puts on its object.
pub fn mark(tables: &Tables, it: &OperationRow) -> String {
    format!("{}-{}-{}-{}", tables.instance, it.item, it.leg.as_str(), it.attempt)
}

/// Whether an item is settled or waits for a person, the bank or the payee, with a reason.
pub fn is_at_rest(tables: &Tables, row: &ItemRow) -> bool {
    let for_a_person = tables.batch_of(row).halt_reason == Some("frozen_operation");
    match row.item.status {
        Status::Paid | Status::Canceled | Status::InTransit => true,
        Status::Failed | Status::NeedsReview | Status::PayoutBlocked | Status::Returned => {
            row.failure_code.is_some() || row.failure_reason.is_some()
        }
        Status::Pending
        | Status::AwaitingFunds
        | Status::Transferring
        | Status::PayingOut
        | Status::AwaitingAvailable
        | Status::Transferred => for_a_person,
    }
}
