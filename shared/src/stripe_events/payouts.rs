//! What becomes of payouts and transfers after Stripe accepted them.

use super::{Effect, Event, store};
use crate::clock;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::{ItemId, OperationId};
use crate::ledger::store::post;
use crate::ledger::{Account, Posting};
use crate::payouts::item::{self, Status};
use crate::payouts::operation::State;
use crate::payouts::settle;
use crate::payouts::store::chunks::{self, Loaded, Wave};
use crate::rails::{Accepted, Leg};

/// `payout.*` of a connected account. Our attempt is found by Stripe's id or by our mark, so it does not matter whether the
/// answer to the send has been saved yet.
pub async fn payout(tx: &mut Tx, event: &Event) -> Result<Effect> {
    if event.account.is_none() {
        return Ok(Effect::Ignored("the platform's own payout"));
    }
    let Some(id) = event.text("/id") else { return Ok(Effect::Ignored("not a payout")) };
    let Some((mut it, attempt)) = attempt_of(tx, event, id, Leg::Payout).await? else {
        return Ok(Effect::Ignored("not a payout of ours"));
    };
    let Some(latest) = it.operation.clone().filter(|latest| latest.id == attempt) else {
        return Ok(Effect::Applied("of an attempt that another one followed".to_owned()));
    };
    if event.number("/amount") != Some(it.item.payout_minor) || event.text("/currency") != Some(it.item.currency.code().as_str())
    {
        return Ok(Effect::Waiting(format!("a person: {id} is not what was asked for")));
    }
    let status = match event.kind.as_str() {
        "payout.paid" => "paid",
        "payout.failed" => "failed",
        "payout.canceled" => "canceled",
        _ => event.text("/status").unwrap_or("pending"),
    };
    let mut row = settle::unchanged(&latest);
    row.stripe_id = Some(id.to_owned());
    let mut postings = Vec::new();
    if latest.facts.state.is_open() {
        if latest.facts.state == State::Frozen {
            return Ok(Effect::Waiting(format!("a person: {id} belongs to a frozen attempt")));
        }
        postings.extend(settle::accept(&mut it.item, Leg::Payout, &accepted(id)).map_err(illegal)?);
        row.state = State::Accepted;
        row.unknown_since = None;
    }
    let event_on_item = match (status, row.state, it.item.status) {
        ("paid", State::Accepted, Status::InTransit) => Some(item::Event::PayoutPaid),
        // It was paid before the bank sent it back; the news come in the wrong order.
        ("paid", State::Returned, Status::PayoutBlocked) => Some(item::Event::PayoutPaid),
        ("failed" | "canceled", State::Accepted, Status::InTransit | Status::Paid) => Some(item::Event::PayoutFailed),
        _ => None,
    };
    if let Some(event_on_item) = event_on_item {
        postings.extend(it.item.apply(event_on_item).map_err(illegal)?);
    }
    let mut changed = settle::item_row(&it);
    changed.arrival_on =
        event.number("/arrival_date").and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0)).map(|at| at.date_naive());
    if event_on_item == Some(item::Event::PayoutFailed) {
        row.state = State::Returned;
        row.code = event.text("/failure_code").map(str::to_owned).or_else(|| Some(status.to_owned()));
        row.message = event.text("/failure_message").map(str::to_owned);
    }
    if matches!(it.item.status, Status::PayoutBlocked | Status::Returned) {
        changed.failure_code = row.code.clone().or(it.failure_code.clone());
        changed.failure_reason = row.message.clone().or(it.failure_reason.clone());
    }
    if row.state != latest.facts.state || event_on_item.is_some() {
        row.stripe_status = Some(status.to_owned());
        save(tx, vec![row], vec![changed], postings).await?;
        return Ok(Effect::Applied(format!("item {} is {}", it.item.id, it.item.status.as_str())));
    }
    Ok(Effect::Applied(format!("item {} stays {}", it.item.id, it.item.status.as_str())))
}

/// `transfer.reversed`: money that Stripe or a person fetched back from the connected account. Only the growth of the total
/// counts. It is available on the platform again, and never opens an attempt.
pub async fn transfer_reversed(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Some(id) = event.text("/id") else { return Ok(Effect::Ignored("not a transfer")) };
    let Some((mut it, attempt)) = attempt_of(tx, event, id, Leg::Transfer).await? else {
        return Ok(Effect::Ignored("not a transfer of ours"));
    };
    let total = event.number("/amount_reversed").unwrap_or(0).min(it.item.transfer_minor);
    let mut postings = Vec::new();
    let latest = it.operation.clone().filter(|latest| latest.id == attempt);
    let mut operations = Vec::new();
    if let Some(open) = latest.as_ref().filter(|latest| latest.facts.state.is_open() && latest.facts.state != State::Frozen) {
        postings.extend(settle::accept(&mut it.item, Leg::Transfer, &accepted(id)).map_err(illegal)?);
        let mut row = settle::unchanged(open);
        (row.state, row.unknown_since, row.stripe_id) = (State::Accepted, None, Some(id.to_owned()));
        operations.push(row);
    }
    let Some(before) = store::reverse(tx, attempt.0, total).await? else {
        return Ok(Effect::Applied("known already".to_owned()));
    };
    let micros = (total - before).saturating_mul(it.item.currency.micros_per_minor());
    let reversal = Posting {
        event: format!("reversal:{id}:{total}"),
        leg: "reversed",
        attempt: 1,
        payee: it.item.payee,
        currency: it.item.currency.code(),
        from: Account::AtStripe,
        to: Account::AvailablePlatform,
        micros,
    };
    // All of it came back before the bank was asked: the payment is over, and the money pays the next one.
    let over = total == it.item.amount_minor && it.item.status == Status::AwaitingAvailable;
    if over {
        it.item.reversed().map_err(illegal)?;
    }
    let mut row = settle::item_row(&it);
    // What was to be looked at again still is: a payout in doubt must not be forgotten over a reversal.
    row.due_at =
        if it.item.status == it.was { it.due_at } else { (it.item.status == Status::AwaitingAvailable).then(clock::now) };
    row.waiting_since = it.waiting_since;
    (row.failure_code, row.failure_reason) = (it.failure_code.clone(), it.failure_reason.clone());
    if over {
        row.failure_code = Some("transfer_reversed".to_owned());
    }
    // The arrival has to stand before the money leaves again.
    save(tx, operations, vec![row], postings).await?;
    post(tx, &[reversal]).await?;
    Ok(Effect::Applied(format!("{} minor units of item {} came back", total - before, it.item.id)))
}

/// The item and attempt that an object of Stripe's belongs to, under their locks.
async fn attempt_of(tx: &mut Tx, event: &Event, stripe_id: &str, leg: Leg) -> Result<Option<(Loaded, OperationId)>> {
    let mark = event.text("/metadata/operation_id");
    let Some((item, operation)) = store::operation_of(tx, stripe_id, mark).await? else { return Ok(None) };
    let Some(loaded) = chunks::load(tx, ItemId(item)).await? else { return Ok(None) };
    if loaded.operation.as_ref().is_some_and(|latest| latest.id.0 == operation && latest.facts.leg != leg) {
        return Ok(None);
    }
    Ok(Some((loaded, OperationId(operation))))
}

fn accepted(id: &str) -> Accepted {
    Accepted { stripe_id: id.to_owned(), status: None, arrival_on: None }
}

async fn save(
    tx: &mut Tx,
    operations: Vec<chunks::OperationUpdate>,
    items: Vec<chunks::ItemUpdate>,
    postings: Vec<Posting>,
) -> Result<()> {
    chunks::save(tx, &Wave { postings, operations, new_operations: Vec::new(), items }, clock::now()).await
}

fn illegal(illegal: item::Illegal) -> Error {
    Error::internal(format!("A transition is missing: {illegal}."))
}
