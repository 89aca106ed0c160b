//! What a reply, or what a lookup found, means for an item and its attempt. Pure: facts in, new rows out.

use chrono::{DateTime, Utc};

use super::item::{Event, Illegal, Item, Status};
use super::operation::{self, Operation, State, not_available_retry_after, not_run_retry_after, unknown_retry_after};
use super::plan::Lookup;
use super::wave::{ItemUpdate, Loaded, LoadedOperation, OperationUpdate};
use crate::config::Sending;
use crate::ledger::Posting;
use crate::rails::stripe::Found;
use crate::rails::{Accepted, Hindrance, Leg, Outcome, Refusal, Reply};

/// How long a payout may wait for the connected balance before a person looks.
const NOT_AVAILABLE_LIMIT_DAYS: i64 = 2;

/// What the rest of the batch must hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The platform's balance is short: the batch halts until it is funded.
    OutOfFunds,
    /// Stripe refuses our key: everything halts.
    KeyRefused,
    /// Something contradicts itself: the batch halts for a person.
    Contradiction,
    /// The leg's endpoint asks for a slower pace.
    SlowDown(Leg),
    /// Stripe does not know the account: the payee is blocked, the batch goes on.
    BlockPayee,
    /// The item waits for a person, or Stripe dislikes a request that it may have run before.
    PageSomeone,
}

/// The rows that an item's reply changes.
#[derive(Debug)]
pub struct Settled {
    pub item: ItemUpdate,
    pub operation: OperationUpdate,
    pub postings: Vec<Posting>,
    pub consequences: Vec<Consequence>,
}

/// The attempt's row as it is, to be changed.
pub fn unchanged(operation: &LoadedOperation) -> OperationUpdate {
    let Operation { state, first_dispatched_at, dispatched_at, sends, look_up, cleared, .. } = operation.facts;
    OperationUpdate {
        id: operation.id,
        was: state,
        state,
        first_dispatched_at,
        dispatched_at,
        send_deadline: None,
        sends,
        lookups: operation.lookups,
        look_up,
        cleared,
        stripe_id: None,
        stripe_status: None,
        http_status: None,
        code: None,
        message: None,
        request_id: None,
        replayed: false,
        unknown_since: state.is_open().then_some(operation.unknown_since).flatten(),
    }
}

/// The item's row as it has become; without a failure and not due any more unless said otherwise.
pub fn item_row(loaded: &Loaded) -> ItemUpdate {
    ItemUpdate {
        was: loaded.was,
        item: loaded.item.clone(),
        account: loaded.account.clone(),
        destination: loaded.destination.clone(),
        failure_code: None,
        failure_reason: None,
        due_at: None,
        waiting_since: None,
        arrival_on: None,
    }
}

/// Applies the reply to a send. `None`: the attempt is closed already (a webhook was faster) and the reply says nothing new.
pub fn reply(loaded: &mut Loaded, reply: &Reply, now: DateTime<Utc>, sending: &Sending) -> Result<Option<Settled>, Illegal> {
    let Some(attempt) = loaded.operation.clone() else { return Ok(None) };
    if !matches!(attempt.facts.state, State::Dispatched | State::Unknown | State::NotRun) {
        return Ok(late_reply(loaded, &attempt, reply));
    }
    let leg = attempt.facts.leg;
    let mut row = unchanged(&attempt);
    row.state = operation::state_after(&reply.outcome);
    row.http_status = reply.http_status;
    row.code = reply.code.clone();
    row.message = reply.message.clone();
    row.request_id = reply.request_id.clone();
    row.replayed = reply.replayed;
    let age = now - attempt.facts.first_dispatched_at;
    let mut consequences = Vec::new();
    let mut postings = Vec::new();
    let mut due_at = None;
    let mut waiting_since = None;
    let mut arrival_on = None;

    match &reply.outcome {
        Outcome::Accepted(accepted) => {
            row.stripe_id = Some(accepted.stripe_id.clone());
            row.stripe_status = accepted.status.clone();
            row.unknown_since = None;
            postings = accept(&mut loaded.item, leg, accepted)?;
            if matches!(loaded.item.status, Status::PayoutBlocked) {
                row.state = State::Returned;
            }
            arrival_on = accepted.arrival_on;
            due_at = (loaded.item.status == Status::AwaitingAvailable).then_some(now);
            waiting_since = due_at;
        }
        Outcome::Rejected(refusal) => {
            row.unknown_since = None;
            let event = match (leg, refusal) {
                (Leg::Transfer, Refusal::Funds) => {
                    consequences.push(Consequence::OutOfFunds);
                    Event::TransferShort
                }
                (Leg::Transfer, Refusal::NoAccount | Refusal::Other) => Event::TransferRejected,
                (Leg::Payout, Refusal::Funds) => Event::PayoutNotYetAvailable,
                (Leg::Payout, Refusal::NoAccount | Refusal::Other) => Event::PayoutRejected,
            };
            postings = loaded.item.apply(event)?;
            if *refusal == Refusal::NoAccount {
                consequences.push(Consequence::BlockPayee);
            }
            if event == Event::PayoutNotYetAvailable {
                waiting_since = loaded.waiting_since.or(Some(now));
                if waiting_since.is_some_and(|since| now - since > chrono::Duration::days(NOT_AVAILABLE_LIMIT_DAYS)) {
                    postings.extend(loaded.item.apply(Event::NeedsReview)?);
                    consequences.push(Consequence::PageSomeone);
                } else {
                    due_at = Some(now + not_available_retry_after(attempt.facts.attempt, sending));
                }
            }
        }
        Outcome::NotRun(hindrance) => {
            row.unknown_since = None;
            due_at = Some(now + not_run_retry_after(reply, attempt.facts.sends, age));
            match hindrance {
                Hindrance::RateLimited => consequences.push(Consequence::SlowDown(leg)),
                Hindrance::KeyRefused => consequences.push(Consequence::KeyRefused),
                Hindrance::Unreachable | Hindrance::NotSent => {}
            }
        }
        Outcome::Unknown { look_up, .. } => {
            row.unknown_since = attempt.unknown_since.or(Some(attempt.facts.dispatched_at));
            row.look_up = *look_up;
            due_at = Some(now + unknown_retry_after(attempt.facts.sends + attempt.lookups, age));
            match reply.http_status {
                Some(_) if refuses_key(reply) => consequences.push(Consequence::KeyRefused),
                Some(429) => consequences.push(Consequence::SlowDown(leg)),
                Some(400 | 402) => consequences.push(Consequence::PageSomeone),
                _ => {}
            }
        }
        Outcome::Frozen { stripe_id, .. } => {
            row.stripe_id = stripe_id.clone();
            row.unknown_since = attempt.unknown_since.or(Some(attempt.facts.dispatched_at));
            postings = loaded.item.apply(Event::NeedsReview)?;
            consequences.extend([Consequence::Contradiction, Consequence::PageSomeone]);
        }
    }
    let mut item = item_row(loaded);
    (item.due_at, item.waiting_since, item.arrival_on) = (due_at, waiting_since, arrival_on);
    if !matches!(row.state, State::Accepted) {
        item.failure_code = reply.code.clone();
        item.failure_reason = reply.message.clone().or_else(|| explain(&reply.outcome));
    }
    Ok(Some(Settled { item, operation: row, postings, consequences }))
}

/// The reply to an attempt that is closed already. An object that none of the item's attempts is known by is a second payment.
fn late_reply(loaded: &mut Loaded, attempt: &LoadedOperation, reply: &Reply) -> Option<Settled> {
    let stripe_id = live_object(reply).filter(|id| !loaded.stripe_ids.iter().any(|known| known == id))?;
    Some(live_after_all(loaded, attempt, stripe_id))
}

/// The object that a reply says was made.
pub fn live_object(reply: &Reply) -> Option<&str> {
    match &reply.outcome {
        Outcome::Accepted(accepted) => Some(&accepted.stripe_id),
        Outcome::Frozen { stripe_id, .. } => stripe_id.as_deref(),
        Outcome::Rejected(_) | Outcome::NotRun(_) | Outcome::Unknown { .. } => None,
    }
}

/// The reply to a send that was stopped before it was written.
pub fn not_sent(in_doubt: bool) -> Reply {
    Reply::bare(if in_doubt {
        Outcome::Unknown { why: "not sent again: stopped or too late".to_owned(), look_up: false }
    } else {
        Outcome::NotRun(Hindrance::NotSent)
    })
}

/// Whether a reply says that nothing more may be sent: Stripe refuses our key, or contradicts itself.
pub fn halts(reply: &Reply) -> bool {
    matches!(reply.outcome, Outcome::Frozen { .. } | Outcome::NotRun(Hindrance::KeyRefused)) || refuses_key(reply)
}

fn refuses_key(reply: &Reply) -> bool {
    matches!(reply.http_status, Some(401 | 403)) && reply.code.as_deref() != Some("account_invalid")
}

/// What an accepted leg does to its item: also when the answer already says that the bank has paid or refused.
pub fn accept(item: &mut Item, leg: Leg, accepted: &Accepted) -> Result<Vec<Posting>, Illegal> {
    if leg == Leg::Transfer {
        return item.apply(Event::TransferAccepted);
    }
    let mut postings = item.apply(Event::PayoutAccepted)?;
    match accepted.status.as_deref() {
        Some("paid") => postings.extend(item.apply(Event::PayoutPaid)?),
        Some("failed" | "canceled") => postings.extend(item.apply(Event::PayoutFailed)?),
        _ => {}
    }
    Ok(postings)
}

/// What a lookup means. For an open attempt: found is accepted, a miss proves nothing. For a closed one: a miss clears the
/// way for the next attempt, something live is a contradiction. An object that failed or was reversed in full is not live.
pub fn lookup(loaded: &mut Loaded, lookup: &Lookup, now: DateTime<Utc>, sending: &Sending) -> Result<Option<Settled>, Illegal> {
    let Some(attempt) = loaded.operation.clone() else { return Ok(None) };
    let is_open = matches!(attempt.facts.state, State::Dispatched | State::Unknown | State::NotRun);
    match lookup {
        Lookup::Found(found) if is_open => reply(loaded, &Reply::bare(found_outcome(loaded, &attempt, found)), now, sending),
        // A webhook told of it while we asked.
        Lookup::Found(found) if attempt.facts.state == State::Accepted && loaded.stripe_ids.contains(&found.stripe_id) => {
            Ok(None)
        }
        Lookup::Found(found) if is_live(&attempt, found) => Ok(Some(live_after_all(loaded, &attempt, &found.stripe_id))),
        Lookup::Found(_) | Lookup::Nothing => Ok(Some(missed(loaded, &attempt, now, sending))),
        Lookup::NoAccount => Ok(account_gone(loaded, &attempt, now)),
        Lookup::Unanswered => Ok(Some(unanswered(loaded, &attempt, now))),
    }
}

fn found_outcome(loaded: &Loaded, attempt: &LoadedOperation, found: &Found) -> Outcome {
    let same = found.amount_minor == asked_minor(&loaded.item, attempt.facts.leg)
        && found.currency.eq_ignore_ascii_case(&loaded.item.currency.code());
    if !same {
        let why = "Stripe has another amount under our mark".to_owned();
        return Outcome::Frozen { why, stripe_id: Some(found.stripe_id.clone()) };
    }
    let arrival_on =
        found.arrival_date.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).map(|instant| instant.date_naive());
    Outcome::Accepted(Accepted { stripe_id: found.stripe_id.clone(), status: found.status.clone(), arrival_on })
}

fn is_live(attempt: &LoadedOperation, found: &Found) -> bool {
    !matches!(found.status.as_deref(), Some("failed" | "canceled"))
        && (attempt.facts.leg == Leg::Payout || found.reversed_minor < found.amount_minor)
}

/// A closed attempt has an object that lives: nothing more is sent until a person has looked. The attempt and the ledger stay
/// as they are, because which of them is wrong is what the person finds out.
fn live_after_all(loaded: &mut Loaded, attempt: &LoadedOperation, stripe_id: &str) -> Settled {
    let message = format!("Stripe has {stripe_id} for an attempt that is {}.", attempt.facts.state.as_str());
    let operation = OperationUpdate { message: Some(message.clone()), ..unchanged(attempt) };
    // What is paid, failed or canceled already stays so; the halted batch and the alert say the rest.
    let postings = loaded.item.apply(Event::NeedsReview).unwrap_or_default();
    let mut item = kept(loaded, None);
    item.failure_code = Some("second_object".to_owned());
    item.failure_reason = Some(message);
    Settled { item, operation, postings, consequences: vec![Consequence::Contradiction, Consequence::PageSomeone] }
}

fn missed(loaded: &Loaded, attempt: &LoadedOperation, now: DateTime<Utc>, sending: &Sending) -> Settled {
    let facts = &attempt.facts;
    let mut operation = OperationUpdate { lookups: attempt.lookups + 1, cleared: true, ..unchanged(attempt) };
    let mut due_at = now;
    if facts.state.is_open() {
        let window_over = now >= facts.first_dispatched_at + sending.replay_window;
        (operation.look_up, operation.cleared) = (false, window_over);
        if !window_over {
            due_at = now + unknown_retry_after(facts.sends + operation.lookups, now - facts.first_dispatched_at);
        }
    }
    Settled { item: kept(loaded, Some(due_at)), operation, postings: Vec::new(), consequences: Vec::new() }
}

/// Nobody can be asked any more, neither by sending again nor by looking: a person decides.
/// `None`: a person has it already, or the item is over; the answer of a worker that tells twice is no reason to fail.
fn account_gone(loaded: &mut Loaded, attempt: &LoadedOperation, now: DateTime<Utc>) -> Option<Settled> {
    let postings = loaded.item.apply(Event::NeedsReview).ok()?;
    let mut operation = OperationUpdate { lookups: attempt.lookups + 1, ..unchanged(attempt) };
    if attempt.facts.state.is_open() {
        operation.state = State::Unresolved;
        operation.unknown_since = attempt.unknown_since.or(Some(now));
    }
    let mut item = item_row(loaded);
    item.failure_code = Some("account_gone".to_owned());
    item.failure_reason =
        Some("The connected account has left the platform; what became of its payment cannot be asked.".to_owned());
    Some(Settled { item, operation, postings, consequences: vec![Consequence::PageSomeone] })
}

/// Nothing is known: ask again later.
fn unanswered(loaded: &Loaded, attempt: &LoadedOperation, now: DateTime<Utc>) -> Settled {
    let operation = OperationUpdate { lookups: attempt.lookups + 1, ..unchanged(attempt) };
    let age = now - attempt.facts.first_dispatched_at;
    let due_at = now + unknown_retry_after(attempt.facts.sends + operation.lookups, age);
    Settled { item: kept(loaded, Some(due_at)), operation, postings: Vec::new(), consequences: Vec::new() }
}

/// The item's row with what it says of failures and waiting, due at another time.
fn kept(loaded: &Loaded, due_at: Option<DateTime<Utc>>) -> ItemUpdate {
    ItemUpdate {
        due_at,
        waiting_since: loaded.waiting_since,
        failure_code: loaded.failure_code.clone(),
        failure_reason: loaded.failure_reason.clone(),
        ..item_row(loaded)
    }
}

/// The replay window is over and Stripe knows nothing: a person decides.
pub fn give_up(loaded: &mut Loaded) -> Result<Option<Settled>, Illegal> {
    let Some(attempt) = loaded.operation.clone() else { return Ok(None) };
    let postings = loaded.item.apply(Event::NeedsReview)?;
    let mut row = unchanged(&attempt);
    row.state = State::Unresolved;
    let mut item = item_row(loaded);
    item.failure_code = Some("unresolved".to_owned());
    item.failure_reason = Some("Stripe never said what became of this payment.".to_owned());
    Ok(Some(Settled { item, operation: row, postings, consequences: vec![Consequence::PageSomeone] }))
}

/// What becomes of a failed item that is to be taken up again; `None`: it stays failed. `superseded`: a newer item has the
/// money, or it is not there any more.
pub fn retry(superseded: bool, eligible: bool) -> Option<Event> {
    match (superseded, eligible) {
        (true, _) => Some(Event::Canceled),
        (false, true) => Some(Event::Retried),
        (false, false) => None,
    }
}

/// What a leg of an item asks Stripe for, minor units.
pub fn asked_minor(item: &Item, leg: Leg) -> i64 {
    match leg {
        Leg::Transfer => item.transfer_minor,
        Leg::Payout => item.payout_minor,
    }
}

fn explain(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Unknown { why, .. } | Outcome::Frozen { why, .. } => Some(why.clone()),
        Outcome::NotRun(Hindrance::NotSent) | Outcome::Accepted(_) => None,
        Outcome::NotRun(Hindrance::RateLimited) => Some("Stripe asks for a slower pace.".to_owned()),
        Outcome::NotRun(Hindrance::KeyRefused) => Some("Stripe refuses the key.".to_owned()),
        Outcome::NotRun(Hindrance::Unreachable) => Some("Stripe cannot be reached.".to_owned()),
        Outcome::Rejected(_) => Some("Stripe refused it.".to_owned()),
    }
}
