//! What a worker does with its chunk in one commit: saves the answers it has and decides what goes out next. Pure: rows and
//! answers in, rows and calls out; knows no SQL, no clock, no Stripe. `pay` runs it over Postgres, the simulation over a model.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::item::{Event, Illegal, Status};
use super::operation::{Next, Operation, State, next};
use super::settle::{self, Consequence, Settled, asked_minor};
use super::wave::{ItemUpdate, Loaded, LoadedOperation, NewOperation, OperationUpdate, Recheck, Wave};
use crate::config::Sending;
use crate::id::{ItemId, operation_key};
use crate::rails::stripe::{Found, Marks, request_body};
use crate::rails::{Asked, Leg, Reply};

/// After its slot a send may wait so long for a free place; later it is not sent.
const SEND_GRACE_SECONDS: i64 = 30;

/// A payout that is kept back is asked about again after so long.
const HELD_HOURS: i64 = 1;

/// What came of a call to Stripe for an item.
#[derive(Debug, Clone)]
pub struct Answer {
    pub of: Send,
    pub said: Said,
}

#[derive(Debug, Clone)]
pub enum Said {
    Reply(Reply),
    Lookup(Lookup),
}

/// Which send of which attempt: a worker that was frozen may bring the answer to one when another has followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    pub leg: Leg,
    pub attempt: i32,
    /// The first send of an attempt is 1.
    pub number: i32,
}

/// What a lookup told.
#[derive(Debug, Clone)]
pub enum Lookup {
    Found(Found),
    /// Stripe answered and has nothing of ours: proves nothing.
    Nothing,
    /// The account is not ours to ask any more.
    NoAccount,
    Unanswered,
}

/// A call to be made once its dispatch is committed.
#[derive(Debug, Clone)]
pub struct Call {
    pub item: ItemId,
    /// The send it is, or asks about.
    pub send: Send,
    /// The attempt's mark on Stripe's objects.
    pub operation_mark: String,
    pub item_mark: String,
    pub account: String,
    pub kind: CallKind,
}

#[derive(Debug, Clone)]
pub enum CallKind {
    Send { asked: Asked, key: String, body: String, in_doubt: bool, wait: Duration, deadline: DateTime<Utc> },
    LookUp { since: DateTime<Utc> },
}

/// What a worker knows when it plans.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This database's id, part of every key and mark.
    pub instance: &'a str,
    pub sending: &'a Sending,
    pub now: DateTime<Utc>,
    /// Neither told to stop nor out of time.
    pub may_dispatch: bool,
    /// The batch waits for the platform's balance. Items that were funded since have been made due again and go out.
    pub halted_for_funds: bool,
}

/// What one commit writes, and what is to be decided before it.
#[derive(Debug, Default)]
pub struct Plan {
    pub wave: Wave,
    pub consequences: Vec<(ItemId, Consequence)>,
    ready: Vec<(Loaded, Next)>,
    /// Something just saved is due again at once.
    pub more_due: bool,
}

/// What is to be sent, looked up and given up.
#[derive(Debug, Default)]
pub struct Decided {
    /// Items not sent after all, each with the reason.
    pub canceled: Vec<(ItemId, String)>,
    pub lookups: Vec<Call>,
    pub sends: Vec<Due>,
}

/// What is to be sent and waits for its slot of the rate budget.
#[derive(Debug)]
pub struct Due {
    it: Loaded,
    pub leg: Leg,
    is_new: bool,
}

/// Takes in the answers to calls and sorts out what else is due. `in_flight`: items with a call under way.
pub fn settle(
    loaded: Vec<Loaded>,
    answers: &HashMap<ItemId, Answer>,
    in_flight: &HashSet<ItemId>,
    situation: &Situation<'_>,
) -> Result<Plan, Illegal> {
    let Situation { now, sending, may_dispatch, .. } = *situation;
    let mut plan = Plan::default();
    for mut it in loaded {
        let id = it.item.id;
        let settled = match answers.get(&id) {
            Some(answer) if is_overtaken(answer, &it) => {
                plan.consequences.extend(contradictions(answer, &it).iter().map(|consequence| (id, *consequence)));
                continue;
            }
            Some(Answer { said: Said::Reply(reply), .. }) => settle::reply(&mut it, reply, now, sending)?,
            Some(Answer { said: Said::Lookup(lookup), .. }) => settle::lookup(&mut it, lookup, now, sending)?,
            None if in_flight.contains(&id) => continue,
            None => None,
        };
        let Some(settled) = settled else {
            // Due, or already closed by a webhook that was faster than the answer.
            if may_dispatch && !answers.contains_key(&id) {
                let decided = next(&it.item, it.operation.as_ref().map(|operation| &operation.facts), now, sending);
                plan.ready.push((it, decided));
            }
            continue;
        };
        let due = settled.item.due_at.is_some_and(|due| due <= now);
        // The transfer has just arrived: the payout leg goes out in the same transaction.
        if due && may_dispatch && it.item.status == Status::AwaitingAvailable {
            plan.note(id, settled, false);
            plan.ready.push((it, Next::Dispatch(Leg::Payout)));
        } else {
            plan.more_due |= due;
            plan.note(id, settled, true);
        }
    }
    Ok(plan)
}

/// Whether another send or attempt has followed the one that the answer is about, whose own answer decides. That an object
/// was made stays true for the attempt, whichever send made it.
fn is_overtaken(answer: &Answer, it: &Loaded) -> bool {
    let Some(latest) = it.operation.as_ref().map(|operation| &operation.facts) else { return true };
    let same_attempt = (latest.leg, latest.attempt) == (answer.of.leg, answer.of.attempt);
    !same_attempt || (latest.sends != answer.of.number && made(answer).is_none())
}

fn made(answer: &Answer) -> Option<&str> {
    match &answer.said {
        Said::Reply(reply) => settle::live_object(reply),
        Said::Lookup(_) => None,
    }
}

/// An overtaken answer tells of an object that none of the item's attempts is known by: somebody may be paid twice.
fn contradictions(answer: &Answer, it: &Loaded) -> &'static [Consequence] {
    match made(answer) {
        Some(id) if !it.stripe_ids.iter().any(|known| known == id) => &[Consequence::Contradiction, Consequence::PageSomeone],
        _ => &[],
    }
}

impl Plan {
    fn note(&mut self, id: ItemId, settled: Settled, with_item: bool) {
        self.consequences.extend(settled.consequences.iter().map(|consequence| (id, *consequence)));
        self.wave.postings.extend(settled.postings);
        self.wave.operations.push(settled.operation);
        self.wave.items.extend(with_item.then_some(settled.item));
    }

    /// The items whose eligibility is asked once more before they are sent.
    pub fn asked_again(&self) -> Vec<ItemId> {
        let asks_again = |it: &Loaded, decided: Next| {
            matches!(decided, Next::Dispatch(Leg::Transfer) | Next::Resend(Leg::Transfer)) || it.item.status == Status::Pending
        };
        self.ready.iter().filter(|(it, decided)| asks_again(it, *decided)).map(|(it, _)| it.item.id).collect()
    }

    /// Payments that have waited for their connected balance and whose payout is due: much may have changed since their transfer.
    pub fn second_legs(&self) -> Vec<ItemId> {
        let is_second =
            |it: &Loaded, decided: Next| it.was == Status::AwaitingAvailable && matches!(decided, Next::Dispatch(Leg::Payout));
        self.ready.iter().filter(|(it, decided)| is_second(it, *decided)).map(|(it, _)| it.item.id).collect()
    }

    /// Keeps these payouts back, each for its reason; they are asked about again in an hour. Their money stays where it is.
    pub fn hold(&mut self, held: Vec<(ItemId, String)>, now: DateTime<Utc>) {
        let mut held: HashMap<ItemId, String> = held.into_iter().collect();
        for (it, decided) in std::mem::take(&mut self.ready) {
            match held.remove(&it.item.id) {
                None => self.ready.push((it, decided)),
                Some(reason) => self.wave.items.push(ItemUpdate {
                    due_at: Some(now + chrono::Duration::hours(HELD_HOURS)),
                    // The two days that the connected balance may take count from the end of this.
                    waiting_since: Some(now),
                    failure_code: Some(reason),
                    ..settle::item_row(&it)
                }),
            }
        }
    }

    /// Turns what is ready into sends, lookups and rows. `rechecks`: the answers to [`Plan::asked_again`].
    pub fn decide(&mut self, rechecks: Vec<Recheck>, situation: &Situation<'_>) -> Result<Decided, Illegal> {
        let short_now = self.consequences.iter().any(|(_, it)| *it == Consequence::OutOfFunds);
        let rechecks: HashMap<ItemId, Recheck> = rechecks.into_iter().map(|recheck| (recheck.item_id, recheck)).collect();
        let mut all = Decided::default();
        for (mut it, decided) in std::mem::take(&mut self.ready) {
            let id = it.item.id;
            if let Some(recheck) = rechecks.get(&id) {
                if let Some(reason) = no_longer(&it, recheck) {
                    self.cancel(&mut it, &reason)?;
                    all.canceled.push((id, reason));
                    continue;
                }
                it.destination.clone_from(&recheck.destination);
            }
            match decided {
                Next::Dispatch(Leg::Transfer) if short_now || situation.halted_for_funds && it.item.status == Status::Pending => {
                    self.wave.postings.extend(it.item.apply(Event::FundsHalted)?);
                    let mut row = settle::item_row(&it);
                    row.failure_code = Some("balance_insufficient".to_owned());
                    row.failure_reason = Some("The platform's Stripe balance is short.".to_owned());
                    self.wave.items.push(row);
                }
                Next::Dispatch(leg) => all.sends.push(Due { it, leg, is_new: true }),
                Next::Resend(leg) | Next::Replay(leg) => all.sends.push(Due { it, leg, is_new: false }),
                Next::LookUp(_) | Next::Clear(_) => {
                    all.lookups.extend(it.operation.as_ref().map(|operation| look_up(operation, id, situation)));
                }
                Next::GiveUp(_) => {
                    if let Some(settled) = settle::give_up(&mut it)? {
                        self.note(id, settled, true);
                    }
                }
                Next::Wait(until) => self.wave.items.push(ItemUpdate { due_at: Some(until), ..unhurried(&it) }),
                Next::Nothing => self.wave.items.push(unhurried(&it)),
            }
        }
        Ok(all)
    }

    fn cancel(&mut self, it: &mut Loaded, reason: &str) -> Result<(), Illegal> {
        self.wave.postings.extend(it.item.apply(Event::Canceled)?);
        if let Some(operation) = it.operation.as_ref().filter(|operation| operation.facts.state == State::NotRun) {
            self.wave.operations.push(OperationUpdate { state: State::Canceled, ..settle::unchanged(operation) });
        }
        self.wave.items.push(ItemUpdate { failure_code: Some(reason.to_owned()), ..settle::item_row(it) });
        Ok(())
    }

    /// The rows of an attempt about to be sent, and the call to make once they are committed. `wait`: until its slot.
    pub fn prepare(&mut self, due: Due, wait: Duration, situation: &Situation<'_>) -> Result<Call, Illegal> {
        let Due { mut it, leg, is_new } = due;
        let now = situation.now;
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let deadline = now + chrono::Duration::milliseconds(wait_ms) + chrono::Duration::seconds(SEND_GRACE_SECONDS);
        let item_mark = item_mark(situation, it.item.id);
        let asked = Asked {
            leg,
            amount_minor: asked_minor(&it.item, leg),
            currency: it.item.currency.code(),
            account: it.account.clone(),
        };
        if is_new {
            let event = match leg {
                Leg::Transfer => Event::TransferDispatched,
                Leg::Payout => Event::PayoutDispatched,
            };
            self.wave.postings.extend(it.item.apply(event)?);
        }
        let attempt = match leg {
            Leg::Transfer => it.item.transfer_attempt,
            Leg::Payout => it.item.payout_attempt,
        };
        let operation_mark = operation_mark(&item_mark, leg, attempt);
        let (key, body, number, in_doubt) = match &it.operation {
            Some(operation) if !is_new => {
                let in_doubt = operation.facts.state != State::NotRun;
                let first_dispatched_at = if in_doubt { operation.facts.first_dispatched_at } else { now };
                self.wave.operations.push(OperationUpdate {
                    state: State::Dispatched,
                    sends: operation.facts.sends + 1,
                    first_dispatched_at,
                    dispatched_at: now,
                    send_deadline: Some(deadline),
                    cleared: false,
                    look_up: false,
                    ..settle::unchanged(operation)
                });
                (operation.key.clone(), operation.body.clone(), operation.facts.sends + 1, in_doubt)
            }
            _ => {
                let key = operation_key(&it.key, leg.as_str(), attempt);
                let body = request_body(&asked, &Marks { operation: &operation_mark, item: &item_mark });
                self.wave.new_operations.push(NewOperation {
                    item: it.item.id,
                    leg,
                    attempt,
                    key: key.clone(),
                    account: it.account.clone(),
                    amount_minor: asked.amount_minor,
                    currency: asked.currency.clone(),
                    body: body.clone(),
                    dispatched_at: now,
                    send_deadline: deadline,
                });
                (key, body, 1, false)
            }
        };
        // Due at once should this worker die: its lease is what keeps others away.
        let row = ItemUpdate { due_at: Some(now), waiting_since: it.waiting_since, ..settle::item_row(&it) };
        self.wave.items.push(row);
        let kind = CallKind::Send { asked, key, body, in_doubt, wait, deadline };
        let send = Send { leg, attempt, number };
        Ok(Call { item: it.item.id, send, operation_mark, item_mark, account: it.account, kind })
    }
}

fn look_up(operation: &LoadedOperation, item: ItemId, situation: &Situation<'_>) -> Call {
    let Operation { leg, attempt, sends: number, first_dispatched_at: since, .. } = operation.facts;
    let item_mark = item_mark(situation, item);
    let operation_mark = operation_mark(&item_mark, leg, attempt);
    let send = Send { leg, attempt, number };
    Call { item, send, operation_mark, item_mark, account: operation.account.clone(), kind: CallKind::LookUp { since } }
}

fn item_mark(situation: &Situation<'_>, item: ItemId) -> String {
    format!("{}-{item}", situation.instance)
}

/// `{instance}-{item}-{leg}-{attempt}`: what a lookup or a webhook finds the attempt by.
pub fn operation_mark(item_mark: &str, leg: Leg, attempt: i32) -> String {
    format!("{item_mark}-{}-{attempt}", leg.as_str())
}

/// Why an item must not be sent any more: not eligible, or the account it was made for is another now.
fn no_longer(it: &Loaded, recheck: &Recheck) -> Option<String> {
    if let Some(reason) = &recheck.reason {
        return Some(reason.clone());
    }
    let same_account = recheck.account.as_deref() == Some(it.account.as_str());
    let same_way = recheck.automatic == (it.item.payout_minor == 0);
    (!same_account || !same_way).then(|| "account_not_ready".to_owned())
}

/// The item's row as it is, and not due any more.
fn unhurried(it: &Loaded) -> ItemUpdate {
    ItemUpdate {
        failure_code: it.failure_code.clone(),
        failure_reason: it.failure_reason.clone(),
        waiting_since: it.waiting_since,
        ..settle::item_row(it)
    }
}
