//! What `stripe_events` does: an event is stored once and applied in the same transaction; one for an object we do not know
//! yet waits. What the news of payouts and transfers mean is the library's own decision.

use chrono::Duration;
use payday::config::Policy;
use payday::earnings::{Kind, NewEarning, Place, Value};
use payday::id::{ItemId, OperationId};
use payday::payouts::news::{self, PayoutNews, Verdict};
use payday::payouts::wave::Loaded;
use payday::rails::Leg;

use super::earnings::TakenBack;
use super::{Breach, EventRow, Tables, Time, coin, currency, payee_id, payee_number, place};
use crate::stripe::events::{Event, PayoutSaid, What};

/// How often a waiting event is tried before a person is asked.
const MAX_TRIES: i32 = 80;

/// What an event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Applied,
    Ignored,
    /// For what; an object's id wakes it.
    Waiting(String),
    GivenUp,
}

impl Tables {
    /// Stores an event once and applies it. `None`: it is there already.
    pub fn take_in(&mut self, policy: &Policy, event: &Event, now: Time) -> Result<Option<Effect>, Breach> {
        if self.events.contains_key(&event.id) {
            return Ok(None);
        }
        let effect = self.apply(policy, event, now)?;
        self.finish(event, &effect, 1, now);
        Ok(Some(effect))
    }

    /// The waiting events that are due.
    pub fn due_events(&self, now: Time) -> Vec<u64> {
        self.events.iter().filter(|(_, row)| row.due_at.is_some_and(|due| due <= now)).map(|(id, _)| *id).collect()
    }

    /// Tries a waiting event again.
    pub fn retry_event(&mut self, policy: &Policy, id: u64, now: Time) -> Result<Option<(Event, Effect)>, Breach> {
        let Some(row) = self.events.get(&id).filter(|row| matches!(row.effect, Effect::Waiting(_))) else { return Ok(None) };
        let (event, tries) = (row.event.clone(), row.tries + 1);
        let effect = self.apply(policy, &event, now)?;
        self.finish(&event, &effect, tries, now);
        Ok(Some((event, effect)))
    }

    fn finish(&mut self, event: &Event, effect: &Effect, tries: i32, now: Time) {
        let given_up = matches!(effect, Effect::Waiting(_)) && tries >= MAX_TRIES;
        let effect = if given_up { Effect::GivenUp } else { effect.clone() };
        let seconds = (10_i64 << (tries.clamp(1, 10) - 1)).min(3_600);
        let due_at = matches!(effect, Effect::Waiting(_)).then(|| now + Duration::seconds(seconds));
        if given_up {
            self.outbox.insert(format!("event_given_up:{}", event.id));
        }
        self.events.insert(event.id, EventRow { event: event.clone(), effect, tries, due_at });
    }

    fn apply(&mut self, policy: &Policy, event: &Event, now: Time) -> Result<Effect, Breach> {
        match &event.what {
            What::Payout(said) => self.payout(said),
            What::TransferReversed { id, mark, amount_reversed } => self.transfer_reversed(id, mark, *amount_reversed, now),
            What::AccountUpdated(said) => {
                let Some(payee) = self.payee_of_account(&said.id) else { return Ok(Effect::Waiting(said.id.clone())) };
                let Some(state_at) = self.payees[payee].account.as_ref().map(|row| row.state_at) else {
                    return Ok(Effect::Waiting(said.id.clone()));
                };
                if event.created < state_at {
                    return Ok(Effect::Applied);
                }
                if event.created == state_at {
                    self.mark_stale(&said.id, true);
                    return Ok(Effect::Applied);
                }
                self.describe(payee, said, event.created, now);
                Ok(Effect::Applied)
            }
            What::Deauthorized(account) => {
                let known = self.deauthorize(account, event.created);
                Ok(if known { Effect::Applied } else { Effect::Waiting(account.clone()) })
            }
            What::ExternalAccount(account) => {
                let known = self.mark_stale(account, true);
                Ok(if known { Effect::Applied } else { Effect::Waiting(account.clone()) })
            }
            What::Payment { intent, charge, account, amount, fee, currency: code } => {
                let Some(payee) = self.payee_of_account(account) else { return Ok(Effect::Waiting(account.clone())) };
                self.record(
                    policy,
                    &NewEarning {
                        source_id: format!("stripe:{intent}"),
                        creator_id: payee_id(payee),
                        kind: Kind::Sale,
                        value: Value::Amount { minor: *amount, fee_minor: Some(*fee) },
                        currency: currency(coin(code)),
                        place: Place::Connected,
                        charge_id: Some(charge.clone()),
                        occurred_at: event.created,
                    },
                )?;
                self.wake(charge, now);
                Ok(Effect::Applied)
            }
            What::TakenBack { source, charge, amount, currency } => match self.take_back(source, charge, *amount, currency)? {
                TakenBack::Net(_) => Ok(Effect::Applied),
                TakenBack::NoEarning => Ok(Effect::Waiting(charge.clone())),
            },
        }
    }

    /// What waited for this object is due now.
    fn wake(&mut self, object: &str, now: Time) {
        for row in self.events.values_mut() {
            if matches!(&row.effect, Effect::Waiting(what) if what == object) {
                row.due_at = Some(now);
            }
        }
    }

    fn payout(&mut self, said: &PayoutSaid) -> Result<Effect, Breach> {
        let Some((it, attempt)) = self.attempt_of(&said.id, &said.mark, Leg::Payout) else { return Ok(Effect::Ignored) };
        let refused = matches!(said.status, "failed" | "canceled");
        let payee = &self.payees[payee_number(it.item.payee)];
        let account = payee.account.as_ref().filter(|_| refused && payee.blocked_reason.is_none());
        let news = PayoutNews {
            stripe_id: said.id.clone(),
            amount_minor: Some(said.amount),
            currency: Some(said.currency.clone()),
            status: said.status.to_owned(),
            failure_code: said.failure_code.map(str::to_owned),
            failure_message: None,
            arrival_on: None,
            destination_changed_at: account.and_then(|row| row.destination_changed_at),
        };
        self.act(news::payout(it, attempt, &news)?)
    }

    fn transfer_reversed(&mut self, id: &str, mark: &str, amount_reversed: i64, now: Time) -> Result<Effect, Breach> {
        let Some((it, attempt)) = self.attempt_of(id, mark, Leg::Transfer) else { return Ok(Effect::Ignored) };
        let total = amount_reversed.min(it.item.transfer_minor);
        let row = &self.operations[place(attempt.0)];
        if let Some(verdict) = news::not_booked(row.state, row.stripe_id.as_deref(), id) {
            return self.act(verdict);
        }
        let row = &mut self.operations[place(attempt.0)];
        let before = row.reversed_minor;
        row.reversed_minor = before.max(total);
        self.act(news::reversed(it, attempt, id, total, before, now)?)
    }

    fn act(&mut self, verdict: Verdict) -> Result<Effect, Breach> {
        match verdict {
            Verdict::Nothing(_) => Ok(Effect::Applied),
            Verdict::Person(why) => Ok(Effect::Waiting(format!("a person: {why}"))),
            Verdict::Change { wave, .. } => {
                self.save(&wave)?;
                Ok(Effect::Applied)
            }
        }
    }

    /// The item and attempt that an object belongs to, by Stripe's id or by our mark.
    fn attempt_of(&self, stripe_id: &str, mark: &str, leg: Leg) -> Option<(Loaded, OperationId)> {
        let marked = || {
            let mut parts = mark.strip_prefix(&self.instance)?.strip_prefix('-')?.split('-');
            let item: i64 = parts.next()?.parse().ok()?;
            let leg = Leg::parse(parts.next()?)?;
            let attempt: i32 = parts.next()?.parse().ok()?;
            let row = self.item(ItemId(item))?;
            let of = |id: &&OperationId| self.operation(**id).is_some_and(|it| (it.leg, it.attempt) == (leg, attempt));
            row.operations.iter().find(of).copied()
        };
        let operation = self.by_stripe_id.get(stripe_id).copied().or_else(marked)?;
        let loaded = self.load(self.operation(operation)?.item)?;
        if loaded.operation.as_ref().is_some_and(|latest| latest.id == operation && latest.facts.leg != leg) {
            return None;
        }
        Some((loaded, operation))
    }
}
