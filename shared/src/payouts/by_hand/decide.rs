//! What a person's decision does to an item and its attempt. Pure, like `settle`.

use chrono::{DateTime, Utc};

use super::super::item::{Event, Illegal, Status, Whereabouts};
use super::super::operation::State;
use super::super::settle;
use super::super::wave::{Loaded, OperationUpdate, Wave};
use crate::rails::{Accepted, Leg};

/// What somebody found out about an attempt of which Stripe never said what became of it, or said two things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Stripe has it, under this id.
    Accepted { stripe_id: String },
    /// Stripe never ran it, or gave the money back.
    Rejected,
}

/// The attempt becomes what the evidence says. `None`: there is nothing to resolve about it.
pub fn resolve(it: &mut Loaded, verdict: &Verdict, now: DateTime<Utc>) -> Result<Option<Wave>, Illegal> {
    let Some(attempt) = it.operation.clone() else { return Ok(None) };
    if !matches!(attempt.facts.state, State::Frozen | State::Unresolved) {
        return Ok(None);
    }
    let leg = attempt.facts.leg;
    // Whatever was looked up before: the next attempt, if there is one, asks Stripe anew.
    let mut row = OperationUpdate { unknown_since: None, cleared: false, look_up: false, ..settle::unchanged(&attempt) };
    let postings;
    let mut item;
    match verdict {
        Verdict::Accepted { stripe_id } => {
            let accepted = Accepted { stripe_id: stripe_id.clone(), status: None, arrival_on: None };
            postings = settle::accept(&mut it.item, leg, &accepted)?;
            (row.state, row.stripe_id) = (State::Accepted, Some(stripe_id.clone()));
            item = settle::item_row(it);
            item.due_at = (it.item.status == Status::AwaitingAvailable).then_some(now);
            item.waiting_since = item.due_at;
        }
        Verdict::Rejected => {
            let event = match leg {
                Leg::Transfer => Event::TransferRejected,
                Leg::Payout => Event::PayoutRejected,
            };
            postings = it.item.apply(event)?;
            row.state = State::Rejected;
            item = settle::item_row(it);
            item.failure_code = Some("rejected_by_hand".to_owned());
            item.failure_reason = Some("An operator found that Stripe did not run this payment.".to_owned());
        }
    }
    Ok(Some(Wave { postings, operations: vec![row], new_operations: Vec::new(), items: vec![item] }))
}

/// Closes the item as paid outside of Payday. `None`: not in its status, or while an attempt may still pay it.
pub fn adopt(it: &mut Loaded, money: &Whereabouts) -> Option<Wave> {
    if it.operation.as_ref().is_some_and(|operation| operation.facts.state.is_open()) {
        return None;
    }
    let postings = it.item.adopt(money)?;
    Some(Wave { postings, items: vec![settle::item_row(it)], ..Wave::default() })
}

/// What pressing retry does.
#[derive(Debug)]
pub enum Retry {
    Again(Wave),
    /// It goes on by itself: somebody has pressed before.
    UnderWay,
    /// First an open attempt has to be resolved.
    Open,
    /// There is nothing to try again.
    Never,
}

/// `money` is asked about items that need a review only. That the payee may be paid now is the caller's to know.
pub fn retry(it: &mut Loaded, money: &Whereabouts, now: DateTime<Utc>) -> Result<Retry, Illegal> {
    let is_due = it.due_at.is_some_and(|due_at| due_at <= now);
    let mut wave = Wave::default();
    match it.item.status {
        Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut | Status::InTransit => {
            return Ok(Retry::UnderWay);
        }
        Status::AwaitingAvailable | Status::PayoutBlocked | Status::Returned if is_due => return Ok(Retry::UnderWay),
        Status::AwaitingAvailable | Status::PayoutBlocked | Status::Returned => {}
        Status::Failed => wave.postings = it.item.apply(Event::Retried)?,
        Status::NeedsReview => {
            if it.operation.as_ref().is_some_and(|operation| operation.facts.state.is_open()) {
                return Ok(Retry::Open);
            }
            let Some(postings) = it.item.take_up(money) else { return Ok(Retry::Never) };
            wave.postings = postings;
            // A look at Stripe from before the review proves nothing now.
            let cleared = it.operation.as_ref().map(|last| OperationUpdate { cleared: false, ..settle::unchanged(last) });
            wave.operations.extend(cleared);
        }
        Status::AwaitingFunds | Status::Paid | Status::Canceled => return Ok(Retry::Never),
    }
    let mut row = settle::item_row(it);
    row.due_at = (it.item.status != Status::Canceled).then_some(now);
    match it.item.status {
        Status::PayoutBlocked | Status::Returned => {
            (row.failure_code, row.failure_reason) = (it.failure_code.clone(), it.failure_reason.clone());
        }
        // The two days that the connected balance may take count anew.
        Status::AwaitingAvailable => row.waiting_since = Some(now),
        _ => {}
    }
    wave.items.push(row);
    Ok(Retry::Again(wave))
}
