//! Money that fans paid: destination charges become earnings, disputes and refunds take them back.

use super::{Effect, Event, store};
use crate::config::Policy;
use crate::db::Tx;
use crate::earnings::store::{TakenBack, record, take_back};
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
    let recorded = record(tx, policy, &[earning]).await?;
    if let Some(charge) = charge {
        store::wake(tx, &charge).await?;
    }
    Ok(Effect::Applied(format!("{} earning of {payee}", if recorded.recorded > 0 { "recorded" } else { "had recorded" })))
}

pub async fn refunded(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Some(charge) = event.text("/id") else { return Ok(Effect::Ignored("not a charge")) };
    take(tx, event, &format!("refund:{charge}"), charge, event.number("/amount_refunded")).await
}

pub async fn disputed(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let (Some(dispute), Some(charge)) = (event.text("/id"), event.id_at("/charge")) else {
        return Ok(Effect::Ignored("not a dispute of a charge"));
    };
    take(tx, event, &format!("dispute:{dispute}"), charge, event.number("/amount")).await
}

async fn take(tx: &mut Tx, event: &Event, source: &str, charge: &str, amount: Option<i64>) -> Result<Effect> {
    let (Some(amount), Some(currency)) = (amount, event.text("/currency")) else {
        return Ok(Effect::Ignored("without an amount"));
    };
    match take_back(tx, source, charge, amount, currency).await? {
        TakenBack::Net(micros) => Ok(Effect::Applied(format!("took back {micros} micros of {charge}"))),
        TakenBack::NoEarning => Ok(Effect::Waiting(charge.to_owned())),
        TakenBack::OtherCurrency => Ok(Effect::Waiting(format!("a person: {charge} was earned in another currency"))),
    }
}
