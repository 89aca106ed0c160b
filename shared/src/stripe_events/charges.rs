//! Money that fans paid: destination charges become earnings, disputes and refunds take them back.

use super::{Effect, Event, store};
use crate::config::Policy;
use crate::db::Tx;
use crate::earnings::store::{self as earnings, Claim, TakenBack};
use crate::earnings::{Kind, NewEarning, Place, Value};
use crate::error::Result;

/// A payment with a destination is an earning that lies on the connected account already: the amount received less the
/// application fee and nothing more.
pub async fn payment(tx: &mut Tx, policy: &Policy, event: &Event) -> Result<Effect> {
    let (Some(id), Some(account)) = (event.text("/id"), event.id_at("/transfer_data/destination")) else {
        return Ok(Effect::Ignored("not a destination charge"));
    };
    let Some((payee, _)) = crate::payees::store::by_account(tx, account).await? else {
        return Ok(Effect::Waiting(account.to_owned()));
    };
    let amount = event.number("/amount_received").unwrap_or(0);
    let Some(Ok(currency)) = event.text("/currency").map(str::parse) else {
        return Ok(Effect::Ignored("without a currency we know"));
    };
    if amount <= 0 {
        return Ok(Effect::Ignored("nothing was received"));
    }
    let charge = event.id_at("/latest_charge").or_else(|| event.id_at("/charges/data/0")).map(str::to_owned);
    let earning = NewEarning {
        source_id: format!("stripe:{id}"),
        creator_id: payee,
        kind: Kind::Sale,
        value: Value::Amount {
            minor: amount,
            fee_minor: Some(event.number("/application_fee_amount").unwrap_or(0).clamp(0, amount)),
        },
        currency,
        place: Place::Connected,
        charge_id: charge.clone(),
        occurred_at: event
            .number("/created")
            .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
            .unwrap_or_else(|| event.created_at()),
    };
    let recorded = earnings::record(tx, policy, &[earning]).await?;
    if let Some(charge) = charge {
        store::wake(tx, &charge).await?;
    }
    Ok(Effect::Applied(format!("{} earning of {payee}", if recorded.recorded > 0 { "recorded" } else { "had recorded" })))
}

pub async fn refunded(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Some(charge) = event.text("/id") else { return Ok(Effect::Ignored("not a charge")) };
    let (Some(minor), Some(currency)) = (event.number("/amount_refunded"), event.text("/currency")) else {
        return Ok(Effect::Ignored("without an amount"));
    };
    let source = format!("refund:{charge}");
    settle(tx, Claim { source: &source, charge, minor, currency, said_at: None }).await
}

/// Events of one dispute come in any order; each says whether the disputed money is gone as of then, and the newest counts.
pub async fn disputed(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let (Some(dispute), Some(charge)) = (event.text("/id"), event.id_at("/charge")) else {
        return Ok(Effect::Ignored("not a dispute of a charge"));
    };
    let (Some(amount), Some(currency)) = (event.number("/amount"), event.text("/currency")) else {
        return Ok(Effect::Ignored("without an amount"));
    };
    let Some(is_gone) = is_gone(&event.kind, event.text("/status").unwrap_or_default()) else {
        return Ok(Effect::Ignored("an inquiry: no money has moved"));
    };
    let (source, minor) = (format!("dispute:{dispute}"), if is_gone { amount } else { 0 });
    settle(tx, Claim { source: &source, charge, minor, currency, said_at: Some(event.created_at()) }).await
}

/// Whether the disputed money is gone, by what an event of the dispute says; `None`: it says nothing of money. An inquiry
/// (`warning_…`) takes none until it becomes a dispute. <https://docs.stripe.com/disputes/how-disputes-work>
fn is_gone(kind: &str, status: &str) -> Option<bool> {
    match (kind, status) {
        ("charge.dispute.created", inquiry) if inquiry.starts_with("warning_") => None,
        ("charge.dispute.created" | "charge.dispute.funds_withdrawn", _) | ("charge.dispute.closed", "lost") => Some(true),
        ("charge.dispute.funds_reinstated", _) | ("charge.dispute.closed", "won" | "warning_closed" | "prevented") => Some(false),
        _ => None,
    }
}

async fn settle(tx: &mut Tx, claim: Claim<'_>) -> Result<Effect> {
    let charge = claim.charge;
    match earnings::claim(tx, &claim).await? {
        TakenBack::Net(micros) if micros < 0 => Ok(Effect::Applied(format!("gave back {} micros of {charge}", -micros))),
        TakenBack::Net(micros) => Ok(Effect::Applied(format!("took back {micros} micros of {charge}"))),
        TakenBack::NoEarning => Ok(Effect::Waiting(charge.to_owned())),
        TakenBack::OtherCurrency => Ok(Effect::Waiting(format!("a person: {charge} was earned in another currency"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disputed_money_is_gone_until_the_dispute_is_won_and_an_inquiry_takes_none() {
        for (kind, status, expected) in [
            ("created", "needs_response", Some(true)),
            ("created", "", Some(true)),
            ("created", "warning_needs_response", None),
            ("funds_withdrawn", "needs_response", Some(true)),
            ("funds_reinstated", "under_review", Some(false)),
            ("closed", "won", Some(false)),
            ("closed", "warning_closed", Some(false)),
            ("closed", "lost", Some(true)),
            ("closed", "a status of next year", None),
        ] {
            assert_eq!(is_gone(&format!("charge.dispute.{kind}"), status), expected, "{kind} {status}");
        }
    }
}
