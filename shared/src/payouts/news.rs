//! What Stripe's later news of a payout or a transfer mean for its item. Pure, like `settle`: news come in any order, twice or
//! not at all, and the final state is the same.

use chrono::{DateTime, NaiveDate, SubsecRound, Utc};

use super::item::{Event, Illegal, Status};
use super::operation::State;
use super::settle;
use super::wave::{Loaded, Wave};
use crate::id::OperationId;
use crate::ledger::{Account, Posting};
use crate::rails::{Accepted, Leg};

/// A payout of ours as Stripe tells of it.
#[derive(Debug, Clone)]
pub struct PayoutNews {
    pub stripe_id: String,
    pub amount_minor: Option<i64>,
    /// Lower-case code.
    pub currency: Option<String>,
    /// `pending`, `in_transit`, `paid`, `failed` or `canceled`.
    pub status: String,
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
    pub arrival_on: Option<NaiveDate>,
    /// Of a refusal: when the payee's bank account became another one, in whole seconds.
    pub destination_changed_at: Option<DateTime<Utc>>,
}

/// What is to be done about news.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing, and why.
    Nothing(String),
    /// A person must look at what it says.
    Person(String),
    Change {
        wave: Wave,
        said: String,
    },
}

/// News of the payout that belongs to `attempt` of the item.
pub fn payout(mut it: Loaded, attempt: OperationId, news: &PayoutNews) -> Result<Verdict, Illegal> {
    let Some(latest) = it.operation.clone().filter(|latest| latest.id == attempt) else {
        return Ok(Verdict::Nothing("of an attempt that another one followed".to_owned()));
    };
    let id = &news.stripe_id;
    if news.amount_minor != Some(it.item.payout_minor) || news.currency.as_deref() != Some(it.item.currency.code().as_str()) {
        return Ok(Verdict::Person(format!("{id} is not what was asked for")));
    }
    let status = news.status.as_str();
    if !latest.facts.state.is_open() && !it.stripe_ids.contains(id) {
        // The attempt counts as refused, or is known by another id: one of the two is wrong, and a person finds out which.
        let said = format!("{id} is {status}, and its attempt is {}", latest.facts.state.as_str());
        return Ok(if matches!(status, "failed" | "canceled") { Verdict::Nothing(said) } else { Verdict::Person(said) });
    }
    let mut row = settle::unchanged(&latest);
    row.stripe_id = Some(id.clone());
    let mut postings = Vec::new();
    if latest.facts.state.is_open() {
        if latest.facts.state == State::Frozen {
            return Ok(Verdict::Person(format!("{id} belongs to a frozen attempt")));
        }
        postings.extend(settle::accept(&mut it.item, Leg::Payout, &accepted(id))?);
        row.state = State::Accepted;
        row.unknown_since = None;
    }
    // What a person is to decide about is not decided by news meanwhile; they wait, and are not lost.
    if it.item.status == Status::NeedsReview && matches!(status, "paid" | "failed" | "canceled") && row.state == State::Accepted {
        return Ok(Verdict::Person(format!("{id} is {status}, and item {} waits for a person", it.item.id)));
    }
    let event = match (status, row.state, it.item.status) {
        ("paid", State::Accepted, Status::InTransit) => Some(Event::PayoutPaid),
        // It was paid before the bank sent it back; the news come in the wrong order.
        ("paid", State::Returned, Status::PayoutBlocked) => Some(Event::PayoutPaid),
        ("failed" | "canceled", State::Accepted, Status::InTransit | Status::Paid) => Some(Event::PayoutFailed),
        _ => None,
    };
    if let Some(event) = event {
        postings.extend(it.item.apply(event)?);
    }
    let mut changed = settle::item_row(&it);
    changed.arrival_on = news.arrival_on;
    if it.item.status == Status::Returned && event == Some(Event::PayoutPaid) {
        // That it goes out again, because the bank account is another one by now, must not be forgotten over old news.
        changed.due_at = it.due_at;
    }
    if event == Some(Event::PayoutFailed) {
        // The other bank account may be known before the refusal of the first.
        changed.due_at =
            news.destination_changed_at.filter(|changed_at| *changed_at >= latest.facts.dispatched_at.trunc_subsecs(0));
        row.state = State::Returned;
        row.code = news.failure_code.clone().or_else(|| Some(status.to_owned()));
        row.message = news.failure_message.clone();
    }
    if matches!(it.item.status, Status::PayoutBlocked | Status::Returned) {
        changed.failure_code = row.code.clone().or(it.failure_code.clone());
        changed.failure_reason = row.message.clone().or(it.failure_reason.clone());
    }
    let name = it.item.status.as_str();
    if row.state == latest.facts.state && event.is_none() {
        return Ok(Verdict::Nothing(format!("item {} stays {name}", it.item.id)));
    }
    row.stripe_status = Some(status.to_owned());
    let said = format!("item {} is {name}", it.item.id);
    let wave = Wave { postings, operations: vec![row], new_operations: Vec::new(), items: vec![changed] };
    Ok(Verdict::Change { wave, said })
}

/// Why the reversal of a transfer is not to be booked; `None`: it is. What it is known by and its state are the attempt's own,
/// which need not be the item's latest.
pub fn not_booked(state: State, known_as: Option<&str>, stripe_id: &str) -> Option<Verdict> {
    if known_as.is_some_and(|known| known != stripe_id) {
        // Somebody mends what should not be there; the attempt's own transfer stays where it is.
        return Some(Verdict::Nothing(format!(
            "{stripe_id} came back, a second transfer of one attempt: the books never had it"
        )));
    }
    match state {
        State::Rejected | State::Canceled => Some(Verdict::Nothing(format!(
            "{stripe_id} came back, and its attempt is {}: the books never had it",
            state.as_str()
        ))),
        State::Frozen => Some(Verdict::Person(format!("{stripe_id} came back and belongs to a frozen attempt"))),
        State::Dispatched | State::Accepted | State::NotRun | State::Unknown | State::Unresolved | State::Returned => None,
    }
}

/// The transfer that belongs to `attempt` was reversed up to `total_minor`, of which `before_minor` was known. Only the growth
/// counts: it is available on the platform again, and never opens an attempt.
pub fn reversed(
    mut it: Loaded,
    attempt: OperationId,
    stripe_id: &str,
    total_minor: i64,
    before_minor: i64,
    now: DateTime<Utc>,
) -> Result<Verdict, Illegal> {
    let total = total_minor.min(it.item.transfer_minor);
    let growth = total - before_minor;
    let mut wave = Wave::default();
    let latest = it.operation.clone().filter(|latest| latest.id == attempt);
    if let Some(open) = latest.filter(|latest| latest.facts.state.is_open()) {
        // The arrival has to stand before the money leaves again.
        wave.postings.extend(settle::accept(&mut it.item, Leg::Transfer, &accepted(stripe_id))?);
        let mut row = settle::unchanged(&open);
        (row.state, row.unknown_since, row.stripe_id) = (State::Accepted, None, Some(stripe_id.to_owned()));
        wave.operations.push(row);
    }
    if growth <= 0 && wave.operations.is_empty() {
        return Ok(Verdict::Nothing("known already".to_owned()));
    }
    if growth > 0 {
        wave.postings.push(Posting {
            event: format!("reversal:{stripe_id}:{total}"),
            leg: "reversed",
            attempt: 1,
            payee: it.item.payee,
            currency: it.item.currency.code(),
            from: Account::AtStripe,
            to: Account::AvailablePlatform,
            micros: growth.saturating_mul(it.item.currency.micros_per_minor()),
        });
    }
    // All of it came back before the bank was asked: the payment is over, and the money pays the next one.
    let over = total == it.item.amount_minor && it.item.status == Status::AwaitingAvailable;
    if over {
        it.item.reversed()?;
    }
    let mut row = settle::item_row(&it);
    // What was to be looked at again still is: a payout in doubt must not be forgotten over a reversal.
    row.due_at = if it.item.status == it.was { it.due_at } else { (it.item.status == Status::AwaitingAvailable).then_some(now) };
    row.waiting_since = it.waiting_since;
    row.failure_code = if over { Some("transfer_reversed".to_owned()) } else { it.failure_code.clone() };
    row.failure_reason.clone_from(&it.failure_reason);
    wave.items.push(row);
    Ok(Verdict::Change { wave, said: format!("{growth} minor units of item {} came back", it.item.id) })
}

fn accepted(id: &str) -> Accepted {
    Accepted { stripe_id: id.to_owned(), status: None, arrival_on: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ItemId;
    use crate::money::Currency;
    use crate::payouts::item::Item;
    use crate::payouts::operation::Operation;
    use crate::payouts::wave::LoadedOperation;

    #[test]
    fn news_of_a_payment_that_a_person_is_to_decide_about_wait_for_the_person() {
        let sent_at = DateTime::from_timestamp(1_800_000_000, 0).expect("an instant");
        let item = Item {
            id: ItemId(7),
            payee: uuid::Uuid::nil(),
            currency: Currency::USD,
            status: Status::NeedsReview,
            amount_minor: 1_000,
            transfer_minor: 0,
            connected_minor: 1_000,
            payout_minor: 1_000,
            transfer_attempt: 0,
            payout_attempt: 1,
            connected_moved: true,
            retries: 0,
        };
        let facts = Operation {
            leg: Leg::Payout,
            attempt: 1,
            state: State::Accepted,
            first_dispatched_at: sent_at,
            dispatched_at: sent_at,
            sends: 1,
            look_up: false,
            cleared: false,
        };
        let operation = LoadedOperation {
            id: OperationId(1),
            facts,
            key: "key".to_owned(),
            account: "acct_1".to_owned(),
            body: String::new(),
            lookups: 0,
            unknown_since: None,
        };
        let loaded = Loaded {
            was: item.status,
            item,
            key: "key".to_owned(),
            account: "acct_1".to_owned(),
            destination: None,
            failure_code: Some("second_object".to_owned()),
            failure_reason: None,
            due_at: None,
            waiting_since: None,
            operation: Some(operation),
            stripe_ids: vec!["po_1".to_owned()],
        };
        for (status, waits) in [("in_transit", false), ("paid", true), ("failed", true), ("canceled", true)] {
            let news = PayoutNews {
                stripe_id: "po_1".to_owned(),
                amount_minor: Some(1_000),
                currency: Some("usd".to_owned()),
                status: status.to_owned(),
                failure_code: None,
                failure_message: None,
                arrival_on: None,
                destination_changed_at: None,
            };
            let verdict = payout(loaded.clone(), OperationId(1), &news).expect("a legal event");
            assert_eq!(matches!(verdict, Verdict::Person(_)), waits, "{status}: {verdict:?}");
        }
    }
}
