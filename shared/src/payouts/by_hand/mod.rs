//! What operators decide about single payments: try again, close one that was paid outside, say what became of one that Stripe
//! never answered. Each is one transaction with its row in the audit log; `decide` says what it does, `consent` whether a second
//! person has to agree.
//!
//! Pressing twice does nothing twice: every decision is taken under the item's lock, on what it is by then. Nothing is sent here:
//! what is made due goes out with the next sweep.

pub mod consent;
pub mod decide;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use self::consent::{Consent, consent};
use self::decide::{Retry, Verdict};
use super::item::{Status, Whereabouts};
use super::operation::State;
use super::settle::asked_minor;
use super::store::by_hand::{self as store, Proposal};
use super::store::chunks;
use super::sweep::standing;
use super::wave::Loaded;
use super::{item, reason};
use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::clock;
use crate::config::Policy;
use crate::db::{Db, Tx};
use crate::error::{Error, Kind, Result};
use crate::id::{ItemId, OperationId};
use crate::ledger::store::lock_balance;
use crate::rails::Leg;
use crate::schedule::Scheduler;

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is done; the item's status now.
    Done(Status),
    /// It had been done before.
    Already(Status),
    /// Another operator has to send the same.
    Proposed,
}

/// What two persons are asked for, and who asks.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    pub db: &'a Db,
    pub policy: &'a Policy,
    /// Above so many hundredths of a unit two persons decide; 0: never.
    pub two_person_above_cents: i64,
    pub by: &'a By,
}

/// What a decision came to in its transaction.
enum Outcome {
    Decided(Decided),
    /// Nobody confirms their own; the act that was refused.
    Own(Act),
}

/// A decision that may need a second person.
#[derive(Debug, Clone, Copy)]
struct Decision<'a> {
    subject: &'a str,
    action: &'static str,
    content: &'a Value,
    evidence: &'a str,
    micros: i64,
}

async fn load(tx: &mut Tx, id: ItemId) -> Result<Loaded> {
    chunks::load(tx, id).await?.ok_or_else(|| Error::not_found("The payout item"))
}

async fn whereabouts(tx: &mut Tx, it: &Loaded) -> Result<Whereabouts> {
    let (at_stripe_minor, came_back) = store::at_stripe(tx, it.item.id).await?;
    let balance = lock_balance(tx, it.item.payee, &it.item.currency.code()).await?;
    let unit = it.item.currency.micros_per_minor();
    Ok(Whereabouts {
        at_stripe_minor,
        came_back,
        available_platform_minor: balance.available_platform / unit,
        available_connected_minor: balance.available_connected / unit,
    })
}

fn told(it: &item::Item) -> Value {
    json!({ "status": it.status.as_str(), "amountMinor": it.amount_minor, "currency": it.currency.code(), "creatorId": it.payee })
}

impl Desk<'_> {
    /// Tries an item again: a failed transfer anew, a refused payout by another payout leg, what a person has looked at where it
    /// stopped. Pressed twice, it is one attempt.
    pub async fn retry(&self, id: ItemId, reason: &str) -> Result<Decided> {
        let mut tx = self.db.begin().await?;
        let outcome = self.decide_retry(&mut tx, id, reason).await;
        self.end(tx, outcome).await
    }

    async fn decide_retry(&self, tx: &mut Tx, id: ItemId, reason: &str) -> Result<Outcome> {
        let now = clock::now();
        let mut it = load(tx, id).await?;
        let (status, before) = (it.item.status, told(&it.item));
        let money = whereabouts(tx, &it).await?;
        let wave = match decide::retry(&mut it, &money, now)? {
            Retry::Again(wave) => wave,
            Retry::UnderWay => return Ok(Outcome::Decided(Decided::Already(status))),
            Retry::Open => {
                let message = "Nobody knows yet what became of its last attempt: resolve that first.";
                return Err(Error::conflict("RESOLVE_FIRST", message));
            }
            Retry::Never => {
                let status = status.as_str();
                let message =
                    format!("An item that is {status} cannot be tried again. {}", reason::of_reason(status, None).action);
                return Err(Error::conflict("NOT_RETRYABLE", message));
            }
        };
        let stands = standing(tx, self.policy, &it, now).await?;
        if status == Status::Failed && stands.superseded {
            let message = "A newer payment of this payee has the money; the failed one is not tried again.";
            return Err(Error::conflict("SUPERSEDED", message));
        }
        // Money that is on its way already is kept only from an account that cannot take it, or from whom somebody has blocked.
        let counts =
            |why: &String| status == Status::Failed || matches!(why.as_str(), "no_account" | "account_not_ready" | "blocked");
        if let Some(why) = stands.reason.filter(counts) {
            let message = format!("The payee cannot be paid now ({why}). {}", reason::of_reason(&why, None).action);
            return Err(Error::conflict("NOT_ELIGIBLE", message));
        }
        chunks::save(tx, &wave, now).await?;
        let mut after = told(&it.item);
        after["reason"] = reason.into();
        self.record(tx, "item.retry", format!("item:{id}"), before, after).await?;
        Ok(Outcome::Decided(Decided::Done(it.item.status)))
    }

    /// Closes an item that was paid outside of Payday.
    pub async fn adopt(&self, id: ItemId, reference: &str, evidence: &str) -> Result<Decided> {
        let mut tx = self.db.begin().await?;
        let outcome = self.decide_adopt(&mut tx, id, reference, evidence).await;
        let decided = self.end(tx, outcome).await?;
        if let Decided::Done(_) = decided {
            tracing::warn!(actor = self.by.actor, item = id.0, reference, "adopted");
        }
        Ok(decided)
    }

    async fn decide_adopt(&self, tx: &mut Tx, id: ItemId, reference: &str, evidence: &str) -> Result<Outcome> {
        let now = clock::now();
        let subject = format!("item:{id}");
        let mut it = load(tx, id).await?;
        if it.item.status == Status::Paid {
            return match store::adopted_by(tx, id).await? {
                Some(known) if known == reference => Ok(Outcome::Decided(Decided::Already(Status::Paid))),
                _ => Err(Error::conflict("NOT_ADOPTABLE", "The item is paid already.")),
            };
        }
        let before = told(&it.item);
        let money = whereabouts(tx, &it).await?;
        let Some(wave) = decide::adopt(&mut it, &money) else {
            let message = "An item can be adopted while it is pending, waits for funds, has failed or needs a review, has no open attempt \
                           and no money at Stripe: resolve the attempt, or reverse the transfer at Stripe, first.";
            return Err(Error::conflict("NOT_ADOPTABLE", message));
        };
        let content = json!({ "reference": reference });
        let micros = it.item.amount_minor.saturating_mul(it.item.currency.micros_per_minor());
        let decision = Decision { subject: &subject, action: "item.adopt", content: &content, evidence, micros };
        if let Some(waits) = self.what_stands_against(tx, &decision).await? {
            return Ok(waits);
        }
        chunks::save(tx, &wave, now).await?;
        store::adopted(tx, id, reference, it.item.amount_minor).await?;
        let mut after = told(&it.item);
        (after["reference"], after["evidence"]) = (reference.into(), evidence.into());
        self.record(tx, "item.adopt", subject, before, after).await?;
        Ok(Outcome::Decided(Decided::Done(it.item.status)))
    }

    /// Says what became of an attempt that is unresolved or frozen.
    pub async fn resolve(&self, id: OperationId, verdict: &Verdict, evidence: &str) -> Result<Decided> {
        let mut tx = self.db.begin().await?;
        let outcome = self.decide_resolve(&mut tx, id, verdict, evidence).await;
        let decided = self.end(tx, outcome).await?;
        if let Decided::Done(_) = decided {
            tracing::warn!(actor = self.by.actor, operation = id.0, ?verdict, "resolved by hand");
        }
        Ok(decided)
    }

    async fn decide_resolve(&self, tx: &mut Tx, id: OperationId, verdict: &Verdict, evidence: &str) -> Result<Outcome> {
        let now = clock::now();
        let subject = format!("operation:{id}");
        let item = store::item_of(tx, id).await?.ok_or_else(|| Error::not_found("The operation"))?;
        let mut it = load(tx, item).await?;
        let attempt = it.operation.clone().filter(|latest| latest.id == id);
        let state = attempt.as_ref().map(|attempt| attempt.facts.state);
        let content = match verdict {
            Verdict::Accepted { stripe_id } => json!({ "outcome": "accepted", "stripeId": stripe_id }),
            Verdict::Rejected => json!({ "outcome": "rejected" }),
        };
        match (state, verdict) {
            (Some(State::Accepted), Verdict::Accepted { stripe_id }) if it.stripe_ids.contains(stripe_id) => {
                return Ok(Outcome::Decided(Decided::Already(it.item.status)));
            }
            (Some(State::Rejected), Verdict::Rejected) => return Ok(Outcome::Decided(Decided::Already(it.item.status))),
            _ => {}
        }
        if let (Verdict::Accepted { stripe_id }, Some(leg)) = (verdict, attempt.as_ref().map(|attempt| attempt.facts.leg)) {
            let prefix = match leg {
                Leg::Transfer => "tr_",
                Leg::Payout => "po_",
            };
            if !stripe_id.starts_with(prefix) {
                return Err(Error::field("stripeId", format!("the id of a {} begins with {prefix}", leg.as_str())));
            }
        }
        if let Verdict::Accepted { stripe_id } = verdict
            && !store::can_be(tx, id, stripe_id).await?
        {
            let message = "Another operation is known by this id, or this operation by another id.";
            return Err(Error::conflict("STRIPE_ID_TAKEN", message));
        }
        let mut before = told(&it.item);
        before["state"] = state.map(State::as_str).into();
        let Some((attempt, wave)) = attempt.zip(decide::resolve(&mut it, verdict, now)?) else {
            let message = "Only the last attempt of an item can be resolved, while it is unresolved or frozen.";
            return Err(Error::conflict("NOT_RESOLVABLE", message));
        };
        let micros = asked_minor(&it.item, attempt.facts.leg).saturating_mul(it.item.currency.micros_per_minor());
        let decision = Decision { subject: &subject, action: "operation.resolve", content: &content, evidence, micros };
        if let Some(waits) = self.what_stands_against(tx, &decision).await? {
            return Ok(waits);
        }
        chunks::save(tx, &wave, now).await?;
        let mut after = told(&it.item);
        (after["decision"], after["evidence"]) = (content, evidence.into());
        self.record(tx, "operation.resolve", subject, before, after).await?;
        Ok(Outcome::Decided(Decided::Done(it.item.status)))
    }

    /// What stands between a decision and its effect: it is kept until another operator sends the same, or is one's own to confirm.
    /// `None`: it counts.
    async fn what_stands_against(&self, tx: &mut Tx, decision: &Decision<'_>) -> Result<Option<Outcome>> {
        let Decision { subject, action, content, evidence, micros } = *decision;
        let open = store::lock_proposal(tx, subject).await?;
        match consent(self.two_person_above_cents, micros, open.as_ref(), action, content, &self.by.actor) {
            Consent::Given => {
                store::forget_proposal(tx, subject).await?;
                Ok(None)
            }
            Consent::Proposed => {
                let proposal = Proposal {
                    action: action.to_owned(),
                    decision: content.clone(),
                    evidence: evidence.to_owned(),
                    proposed_by: self.by.actor.clone(),
                };
                store::propose(tx, subject, &proposal).await?;
                let after = json!({ "of": action, "decision": content, "evidence": evidence });
                self.record(tx, "decision.propose", subject.to_owned(), json!({}), after).await?;
                Ok(Some(Outcome::Decided(Decided::Proposed)))
            }
            Consent::Own => {
                let after = json!({ "decision": content, "evidence": evidence });
                Ok(Some(Outcome::Own(Act { action, subject: subject.to_owned(), before: json!({}), after })))
            }
        }
    }

    /// Ends a decision's transaction. What changed nothing gives its locks back at once; confirming one's own is in the log.
    async fn end(&self, tx: Tx, outcome: Result<Outcome>) -> Result<Decided> {
        match outcome {
            Ok(Outcome::Decided(decided @ (Decided::Done(_) | Decided::Proposed))) => {
                tx.commit(Boundary::SaveByRequest).await?;
                Ok(decided)
            }
            Ok(Outcome::Decided(already)) => {
                tx.rollback().await;
                Ok(already)
            }
            Ok(Outcome::Own(act)) => {
                tx.rollback().await;
                let message = "You have proposed this; another operator has to confirm it.";
                let refusal = Error::new(Kind::Forbidden, "OWN_PROPOSAL", message);
                Err(audit::refused(self.db, self.by, &act, refusal).await?)
            }
            Err(error) => {
                tx.rollback().await;
                Err(error)
            }
        }
    }

    async fn record(&self, tx: &mut Tx, action: &'static str, subject: String, before: Value, after: Value) -> Result<()> {
        audit::record(tx, self.by, &Act { action, subject, before, after }).await
    }
}

/// Has a failed item tried again at a time: a schedule that fires once starts the retry job for it, which finds by itself whether
/// that can be done by then. Asking again before is refused.
pub async fn retry_at(desk: &Desk<'_>, scheduler: &Scheduler, id: ItemId, at: DateTime<Utc>, reason: &str) -> Result<Status> {
    let mut tx = desk.db.begin().await?;
    let it = match load(&mut tx, id).await {
        Ok(it) if it.item.status == Status::Failed => it,
        other => {
            tx.rollback().await;
            let status = other?.item.status.as_str();
            let message = format!("Only a failed item can be tried again later; this one is {status}.");
            return Err(Error::conflict("NOT_RETRYABLE", message));
        }
    };
    let mut after = told(&it.item);
    (after["reason"], after["at"]) = (reason.into(), json!(at));
    desk.record(&mut tx, "item.retry_later", format!("item:{id}"), told(&it.item), after).await?;
    // Before the schedule is made: what the log has and the Scheduler has not is seen by the answer, and asked for again.
    tx.commit(Boundary::SaveByRequest).await?;
    let input = json!({ "job": "retry", "item": id, "scheduledTime": "<aws.scheduler.scheduled-time>" });
    if scheduler.once(&format!("retry-item-{id}"), at, "job-retry", &input).await? {
        return Ok(it.item.status);
    }
    Err(Error::conflict("ALREADY_SCHEDULED", "It is going to be tried again already; wait for that, or retry it now."))
}
