//! What Stripe tells us: stored once by the event's id and applied in the same transaction, then answered 2xx.
//!
//! Events come in any order, twice, under two ids for one fact, days late or never. So an event only moves what the rules of
//! its object let it move, one for an object we do not know yet waits and is tried again, and the final state is the same
//! whatever the order. A known type with unexpected content must not be lost either: only the few fields needed are read.

mod accounts;
mod charges;
mod payouts;
pub mod routes;
pub mod signature;
pub mod store;

pub use payouts::{payout_is, transfer_is_reversed};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::audit::{self, Act, By};
use crate::boundary::{Boundary, cross};
use crate::clock;
use crate::config::Policy;
use crate::db::{Db, Tx};
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Metric, metric};

/// An event's envelope.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The connected account it is about; none for the platform's own.
    #[serde(default)]
    pub account: Option<String>,
    #[serde(default)]
    pub livemode: bool,
    created: i64,
    data: Data,
}

#[derive(Debug, Clone, Deserialize)]
struct Data {
    object: Value,
}

impl Event {
    pub fn created_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.created, 0).unwrap_or_default()
    }

    pub fn object(&self) -> &Value {
        &self.data.object
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.data.object.pointer(path)?.as_str()
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.data.object.pointer(path)?.as_i64()
    }

    /// The id at a place where Stripe puts either an id or the expanded object.
    fn id_at(&self, path: &str) -> Option<&str> {
        let value = self.data.object.pointer(path)?;
        value.as_str().or_else(|| value.get("id")?.as_str())
    }
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It changed something, or had changed it already under another id.
    Applied(String),
    /// It concerns nothing of ours.
    Ignored(&'static str),
    /// It concerns something that we may yet hear of, named so that it can be found again then.
    Waiting(String),
}

/// The events that the platform's own list has; those of connected accounts are in theirs. Stripe takes twenty types at most.
pub const OF_THE_PLATFORM: [&str; 7] = [
    "transfer.reversed",
    "payment_intent.succeeded",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
];

/// Whether an event was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    New,
    Repeated,
}

/// Verifies and takes in one delivery. An error of kind `Malformed` is the sender's (400); any other means: deliver again.
pub async fn receive(db: &Db, policy: &Policy, secrets: &[String], header: Option<&str>, body: &[u8]) -> Result<Received> {
    let verified = header.is_some_and(|header| signature::verify(header, body, secrets, clock::now()));
    if !verified {
        tracing::warn!(bytes = body.len(), "a webhook without a valid signature was refused");
        metric(Metric::WebhooksRefused, 1, &[]);
        return Err(Error::new(Kind::Malformed, "SIGNATURE_INVALID", "The signature is missing, wrong or too old."));
    }
    let malformed = |error: serde_json::Error| {
        Error::new(Kind::Malformed, "EVENT_UNREADABLE", "The body is not a Stripe event.").with_source(error)
    };
    let mut payload: Value = serde_json::from_slice(body).map_err(malformed)?;
    // Postgres cannot keep a NUL. Refused for it, the event would come again for three days and then be lost.
    if body.windows(NUL.len()).any(|part| part == NUL) {
        replace_nul(&mut payload);
    }
    let event = Event::deserialize(&payload).map_err(malformed)?;
    let received = take_in(db, policy, &event, &payload).await?;
    if received == Received::New {
        metric(Metric::EventsReceived, 1, &[]);
    }
    Ok(received)
}

/// How JSON writes a NUL.
const NUL: &[u8] = br"\u0000";

/// Puts a replacement character in place of each NUL, in names too.
fn replace_nul(value: &mut Value) {
    let replace = |text: &str| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => *text = replace(text),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(fields) => {
            let renamed = std::mem::take(fields).into_iter().map(|(name, mut field)| {
                replace_nul(&mut field);
                (replace(&name), field)
            });
            *fields = renamed.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Stores an event once and applies it in the same transaction.
pub async fn take_in(db: &Db, policy: &Policy, event: &Event, payload: &Value) -> Result<Received> {
    cross(Boundary::Webhook, || store_and_apply(db, policy, event, payload)).await
}

async fn store_and_apply(db: &Db, policy: &Policy, event: &Event, payload: &Value) -> Result<Received> {
    let mut tx = db.begin().await?;
    if !store::insert(&mut tx, event, payload).await? {
        return Ok(Received::Repeated);
    }
    let effect = apply(&mut tx, policy, event).await?;
    store::finish(&mut tx, &event.id, &effect, 1).await?;
    tx.commit(Boundary::ApplyEvent).await?;
    tracing::info!(event = event.id, kind = event.kind, effect = ?effect, "event taken in");
    Ok(Received::New)
}

/// Tells the mode (live or test) of our key, so that events of the other are kept apart.
pub async fn remember_mode(db: &Db, livemode: bool) -> Result<()> {
    let mut tx = db.begin().await?;
    store::remember_mode(&mut tx, livemode).await?;
    tx.commit(Boundary::RememberMode).await
}

/// Tries again the events that wait and are due. Returns how many found what they were waiting for.
pub async fn retry_waiting(db: &Db, policy: &Policy) -> Result<u64> {
    let mut tx = db.begin().await?;
    let due = store::due(&mut tx, 200).await?;
    drop(tx);
    let mut found = 0;
    for id in due {
        found += u64::from(retry(db, policy, &id).await?);
    }
    Ok(found)
}

/// Tries one of them again; whether it found what it was waiting for.
pub async fn retry(db: &Db, policy: &Policy, id: &str) -> Result<bool> {
    let mut tx = db.begin().await?;
    let Some((payload, tries)) = store::lock_waiting(&mut tx, id).await? else { return Ok(false) };
    let effect = apply(&mut tx, policy, &read(payload)?).await?;
    store::finish(&mut tx, id, &effect, tries + 1).await?;
    tx.commit(Boundary::ApplyWaitingEvent).await?;
    Ok(!matches!(effect, Effect::Waiting(_)))
}

/// What trying an event again did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// False: it was applied before, and that stands.
    pub tried: bool,
    pub event: store::Kept,
}

/// Tries an event again, as an operator asks: one that waits, was given up or was ignored. One that was applied has no second
/// effect. `None`: there is no such event.
pub async fn replay(db: &Db, policy: &Policy, id: &str, by: &By) -> Result<Option<Replayed>> {
    let mut tx = db.begin().await?;
    let Some((payload, state, tries)) = store::lock(&mut tx, id).await? else { return Ok(None) };
    let tried = state != "applied";
    if tried {
        let effect = apply(&mut tx, policy, &read(payload)?).await?;
        store::finish(&mut tx, id, &effect, tries + 1).await?;
    }
    let kept = store::get(&mut tx, id).await?.map(|(event, _)| event);
    if tried {
        let after =
            json!({ "state": kept.as_ref().map(|event| &event.state), "effect": kept.as_ref().map(|event| &event.effect) });
        let act = Act { action: "event.replay", subject: format!("event:{id}"), before: json!({ "state": state }), after };
        audit::record(&mut tx, by, &act).await?;
    }
    tx.commit(Boundary::ApplyWaitingEvent).await?;
    Ok(kept.map(|event| Replayed { tried, event }))
}

/// A stored event.
fn read(payload: Value) -> Result<Event> {
    serde_json::from_value(payload).map_err(|error| Error::internal("A stored event cannot be read.").with_source(error))
}

async fn apply(tx: &mut Tx, policy: &Policy, event: &Event) -> Result<Effect> {
    if !store::is_our_mode(tx, event.livemode).await? {
        return Ok(Effect::Ignored("of the other mode (live or test)"));
    }
    match event.kind.as_str() {
        "account.updated" => accounts::updated(tx, event).await,
        "account.application.deauthorized" => accounts::deauthorized(tx, event).await,
        "account.external_account.created"
        | "account.external_account.updated"
        | "account.external_account.deleted"
        | "capability.updated" => accounts::to_be_read_again(tx, event).await,
        "payout.created" | "payout.updated" | "payout.paid" | "payout.failed" | "payout.canceled" => {
            payouts::payout(tx, event).await
        }
        "transfer.reversed" => payouts::transfer_reversed(tx, event).await,
        "payment_intent.succeeded" => charges::payment(tx, policy, event).await,
        "charge.refunded" => charges::refunded(tx, event).await,
        "charge.dispute.created"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn"
        | "charge.dispute.funds_reinstated" => charges::disputed(tx, event).await,
        _ => Ok(Effect::Ignored("of a type that changes nothing here")),
    }
}
