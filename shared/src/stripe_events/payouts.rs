//! What becomes of payouts and transfers after Stripe accepted them. What the news mean is decided in `payouts::news`.

use chrono::DateTime;

use super::{Effect, Event, store};
use crate::clock;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::{ItemId, OperationId};
use crate::payees::store::destination_changed_at;
use crate::payouts::news::{self, PayoutNews, Verdict};
use crate::payouts::operation::State;
use crate::payouts::store::chunks;
use crate::payouts::wave::Loaded;
use crate::rails::Leg;

/// `payout.*` of a connected account. Our attempt is found by Stripe's id or by our mark, so it does not matter whether the
/// answer to the send has been saved yet.
pub async fn payout(tx: &mut Tx, event: &Event) -> Result<Effect> {
    if event.account.is_none() {
        return Ok(Effect::Ignored("the platform's own payout"));
    }
    let Some(id) = event.text("/id") else { return Ok(Effect::Ignored("not a payout")) };
    let status = match event.kind.as_str() {
        "payout.paid" => "paid",
        "payout.failed" => "failed",
        "payout.canceled" => "canceled",
        _ => event.text("/status").unwrap_or("pending"),
    };
    let text = |path: &str| event.text(path).map(str::to_owned);
    let news = PayoutNews {
        stripe_id: id.to_owned(),
        amount_minor: event.number("/amount"),
        currency: text("/currency"),
        status: status.to_owned(),
        failure_code: text("/failure_code"),
        failure_message: text("/failure_message"),
        arrival_on: event
            .number("/arrival_date")
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .map(|at| at.date_naive()),
        destination_changed_at: None,
    };
    payout_is(tx, event.text("/metadata/operation_id"), news).await
}

/// What Stripe says of a payout that has this id or our mark, by an event or asked.
pub async fn payout_is(tx: &mut Tx, mark: Option<&str>, mut news: PayoutNews) -> Result<Effect> {
    let Some((it, attempt)) = attempt_of(tx, mark, &news.stripe_id, Leg::Payout).await? else {
        return Ok(Effect::Ignored("not a payout of ours"));
    };
    if matches!(news.status.as_str(), "failed" | "canceled") {
        news.destination_changed_at = destination_changed_at(tx, it.item.id.0).await?;
    }
    act(tx, news::payout(it, attempt, &news)?).await
}

/// `transfer.reversed`: money that Stripe or a person fetched back from the connected account.
pub async fn transfer_reversed(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Some(id) = event.text("/id") else { return Ok(Effect::Ignored("not a transfer")) };
    transfer_is_reversed(tx, id, event.text("/metadata/operation_id"), event.number("/amount_reversed").unwrap_or(0)).await
}

/// How much of a transfer that has this id or our mark was reversed in all, by an event or asked.
pub async fn transfer_is_reversed(tx: &mut Tx, id: &str, mark: Option<&str>, reversed_minor: i64) -> Result<Effect> {
    let Some((it, attempt)) = attempt_of(tx, mark, id, Leg::Transfer).await? else {
        return Ok(Effect::Ignored("not a transfer of ours"));
    };
    let (state, known_as) = store::attempt(tx, attempt.0).await?;
    let unreadable = || Error::internal(format!("Operation {attempt} is in a state that this version does not know."));
    let state = State::parse(&state).ok_or_else(unreadable)?;
    if let Some(verdict) = news::not_booked(state, known_as.as_deref(), id) {
        return act(tx, verdict).await;
    }
    let total = reversed_minor.min(it.item.transfer_minor);
    let before = store::reverse(tx, attempt.0, total).await?;
    act(tx, news::reversed(it, attempt, id, total, before, clock::now())?).await
}

async fn act(tx: &mut Tx, verdict: Verdict) -> Result<Effect> {
    match verdict {
        Verdict::Nothing(why) => Ok(Effect::Applied(why)),
        Verdict::Person(why) => Ok(Effect::Waiting(format!("a person: {why}"))),
        Verdict::Change { wave, said } => {
            chunks::save(tx, &wave, clock::now()).await?;
            Ok(Effect::Applied(said))
        }
    }
}

/// The item and attempt that an object of Stripe's belongs to, under their locks.
async fn attempt_of(tx: &mut Tx, mark: Option<&str>, stripe_id: &str, leg: Leg) -> Result<Option<(Loaded, OperationId)>> {
    let Some((item, operation)) = store::operation_of(tx, stripe_id, mark).await? else { return Ok(None) };
    let Some(loaded) = chunks::load(tx, ItemId(item)).await? else { return Ok(None) };
    if loaded.operation.as_ref().is_some_and(|latest| latest.id.0 == operation && latest.facts.leg != leg) {
        return Ok(None);
    }
    Ok(Some((loaded, OperationId(operation))))
}
