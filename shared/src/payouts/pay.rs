//! Pays the items of one chunk. May run twice at once, late, or be killed between any two lines: an attempt's key and bytes
//! are committed under the item's lock before the first send, so sending again is safe. Assuming failure is not, so a send
//! without an answer leaves the attempt `unknown`, and it is replayed or looked up later.
//!
//! A worker holds the chunk's lease, prolongs it while it works, and hears on the same pulse whether to stop: pause, kill
//! switch, halted batch, lost lease. It alternates between one transaction that saves the replies so far and dispatches what
//! may go next, and the sends themselves; no transaction is open while Stripe is called.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::calls::{Answer, Call, CallKind, LEASE_SECONDS, Orders, make, pulse};
use super::item::{Event, Illegal, Status};
use super::operation::{Next, State, next};
use super::settle::{self, Consequence, Settled, asked_minor};
use super::store::chunks::{self, Claim, Loaded, NewOperation, Wave};
use super::store::jobs;
use crate::clock;
use crate::config::{Policy, Sending};
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ItemId, operation_key};
use crate::notifications::store as outbox;
use crate::rails::stripe::{Marks, Stripe, request_body};
use crate::rails::{Asked, Leg, Outcome, Reply};

/// Replies wait at most so long for others to be saved with.
const GATHER: Duration = Duration::from_millis(100);
/// After its slot a send may wait so long for a free place; later it is not sent.
const SEND_GRACE_SECONDS: i64 = 30;
/// With less time than this left, nothing new is dispatched: every send must end inside the handler.
const TIME_TO_FINISH: Duration = Duration::from_secs(45);

/// Pays chunks: what a chunk processor keeps between invocations.
#[derive(Clone)]
pub struct Payer {
    pub db: Db,
    pub stripe: Stripe,
    pub policy: Policy,
    pub sending: Sending,
}

/// One worker's hold on one chunk.
struct Work<'a> {
    payer: &'a Payer,
    chunk: ChunkId,
    claim: Claim,
    orders: &'a Orders,
    in_flight: HashSet<ItemId>,
    until: Instant,
}

impl Payer {
    /// Works on a chunk until nothing of it can go on now. By `until` the handler has to be done.
    /// A chunk that is someone else's, paused or halted is left as it is; a sweep brings it back.
    pub async fn process_chunk(&self, chunk: ChunkId, until: Instant) -> Result<()> {
        let statements_before = self.db.statements();
        let lease = Uuid::new_v4();
        let mut tx = self.db.begin().await?;
        let claim = chunks::claim(&mut tx, chunk, lease, LEASE_SECONDS).await?;
        let Some(claim) = claim else {
            tracing::debug!(chunk = chunk.0, "chunk is being worked on or does not exist");
            return Ok(());
        };
        tx.commit("claim chunk").await?;

        let halted = claim.halt_reason.as_deref().is_some_and(|reason| reason != "awaiting_funds");
        let orders = Orders::default();
        orders.stop.store(claim.stopped || halted, Ordering::Relaxed);
        orders.confirm();
        let mut work = Work { payer: self, chunk, claim, orders: &orders, in_flight: HashSet::new(), until };
        // Side by side in one task: nothing outlives the handler, and no statement is ever cut off half-way.
        let working = async {
            let worked = work.run().await;
            orders.done.notify_one();
            worked
        };
        let (worked, ()) = tokio::join!(working, pulse(&self.db, chunk, lease, &orders));

        let statements = i64::try_from(self.db.statements() - statements_before).unwrap_or(0) + 1;
        let mut tx = self.db.begin().await?;
        if let Some(run) = chunks::release(&mut tx, chunk, lease, statements).await? {
            super::complete_run(&mut tx, run).await?;
        }
        tx.commit("release chunk").await?;
        worked
    }
}

impl Work<'_> {
    async fn run(&mut self) -> Result<()> {
        let permits = Semaphore::new(self.payer.sending.sends_per_worker);
        let (stripe, orders) = (&self.payer.stripe, self.orders);
        let mut calls = FuturesUnordered::new();
        let mut answers: HashMap<ItemId, Answer> = HashMap::new();
        loop {
            let (to_make, more_due) = self.settle_and_dispatch(&mut answers).await?;
            for call in to_make {
                self.in_flight.insert(call.item);
                calls.push(make(call, stripe, &permits, orders));
            }
            let Some(first) = calls.next().await else {
                if more_due && !self.orders.must_stop() && clock::monotonic() + TIME_TO_FINISH < self.until {
                    continue;
                }
                return Ok(());
            };
            let mut next = Some(first);
            let gathered_at = tokio::time::Instant::now() + GATHER;
            while let Some((item, answer)) = next {
                answers.insert(item, answer);
                next = tokio::time::timeout_at(gathered_at, calls.next()).await.ok().flatten();
            }
        }
    }

    /// One transaction: saves the answers and dispatches what may go next; returns the calls to make, and whether something
    /// just saved is due again at once. Answers survive a failing database: they are
    /// saved as soon as it is back, as long as the handler has time.
    async fn settle_and_dispatch(&mut self, answers: &mut HashMap<ItemId, Answer>) -> Result<(Vec<Call>, bool)> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.try_settle_and_dispatch(answers).await {
                Ok(done) => {
                    for (item, _) in answers.drain() {
                        self.in_flight.remove(&item);
                    }
                    return Ok(done);
                }
                // Whether the commit happened is not known: everything is read again, and what was saved is not saved twice.
                Err(error) if error.is_transient() && clock::monotonic() + pause < self.until => {
                    tracing::warn!(chunk = self.chunk.0, error = %error, causes = error.causes(), "saving again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_settle_and_dispatch(&mut self, answers: &HashMap<ItemId, Answer>) -> Result<(Vec<Call>, bool)> {
        let now = clock::now();
        let mut tx = self.payer.db.begin().await?;
        let named: Vec<ItemId> = answers.keys().copied().collect();
        let loaded = chunks::load_due(&mut tx, self.chunk, now, &named).await?;
        let mut wave = Wave::default();
        let mut consequences: Vec<(ItemId, Consequence)> = Vec::new();
        let mut ready: Vec<(Loaded, Next)> = Vec::new();
        let may_dispatch = !self.orders.must_stop() && clock::monotonic() + TIME_TO_FINISH < self.until;

        let mut more_due = false;
        for mut it in loaded {
            let id = it.item.id;
            let settled = match answers.get(&id) {
                Some(answer) => self.settle(&mut it, answer, now)?,
                None if self.in_flight.contains(&id) => continue,
                None => None,
            };
            let Some(settled) = settled else {
                // Due, or already closed by a webhook that was faster than the answer.
                if may_dispatch && !answers.contains_key(&id) {
                    let decided =
                        next(&it.item, it.operation.as_ref().map(|operation| &operation.facts), now, &self.payer.sending);
                    ready.push((it, decided));
                }
                continue;
            };
            consequences.extend(settled.consequences.iter().map(|consequence| (id, *consequence)));
            wave.postings.extend(settled.postings);
            wave.operations.push(settled.operation);
            // The transfer has just arrived: the payout leg goes out in the same transaction.
            let due = settled.item.due_at.is_some_and(|due| due <= now);
            if due && may_dispatch && it.item.status == Status::AwaitingAvailable {
                ready.push((it, Next::Dispatch(Leg::Payout)));
            } else {
                more_due |= due;
                wave.items.push(settled.item);
            }
        }
        let calls = self.dispatch(&mut tx, ready, &mut wave, &mut consequences, now).await?;
        chunks::save(&mut tx, &wave, now).await?;
        tx.commit("save replies and dispatch").await?;
        self.follow(&consequences).await;
        Ok((calls, more_due))
    }

    fn settle(&self, it: &mut Loaded, answer: &Answer, now: DateTime<Utc>) -> Result<Option<Settled>> {
        let settled = match answer {
            Answer::Sent(reply) => {
                log_reply(self.claim.batch_id.0, it, reply);
                settle::reply(it, reply, now, &self.payer.sending)
            }
            Answer::LookedUp(Ok(found)) => settle::lookup(it, found.as_ref(), now, &self.payer.sending),
            Answer::LookedUp(Err(error)) => {
                tracing::warn!(item = it.item.id.0, error = %error, "lookup not answered");
                return Ok(settle::lookup_failed(it, now));
            }
        };
        settled.map_err(illegal)
    }

    /// Turns decisions into attempts to be sent, asking about eligibility once more under the payees' locks.
    async fn dispatch(
        &self,
        tx: &mut Tx,
        ready: Vec<(Loaded, Next)>,
        wave: &mut Wave,
        consequences: &mut Vec<(ItemId, Consequence)>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Call>> {
        let short_now = consequences.iter().any(|(_, it)| *it == Consequence::OutOfFunds);
        // Items that were funded since the halt have been made due again and go out.
        let halted = self.claim.halt_reason.as_deref() == Some("awaiting_funds");
        let asks_again = |it: &Loaded, decided: Next| {
            matches!(decided, Next::Dispatch(Leg::Transfer) | Next::Resend(Leg::Transfer)) || it.item.status == Status::Pending
        };
        let asked: Vec<ItemId> =
            ready.iter().filter(|(it, decided)| asks_again(it, *decided)).map(|(it, _)| it.item.id).collect();
        let rechecks: HashMap<ItemId, chunks::Recheck> = if asked.is_empty() {
            HashMap::new()
        } else {
            chunks::recheck(tx, &asked, &self.payer.policy, now)
                .await?
                .into_iter()
                .map(|recheck| (recheck.item_id, recheck))
                .collect()
        };

        let mut canceled: Vec<(ItemId, String)> = Vec::new();
        let mut sends: Vec<(Loaded, Leg, bool)> = Vec::new();
        let mut calls = Vec::new();
        for (mut it, decided) in ready {
            if let Some(recheck) = rechecks.get(&it.item.id) {
                if let Some(reason) = no_longer(&it, recheck) {
                    wave.postings.extend(it.item.apply(Event::Canceled).map_err(illegal)?);
                    if let Some(operation) = it.operation.as_ref().filter(|operation| operation.facts.state == State::NotRun) {
                        wave.operations.push(chunks::OperationUpdate { state: State::Canceled, ..settle::unchanged(operation) });
                    }
                    let mut row = settle::item_row(&it);
                    row.failure_code = Some(reason.clone());
                    wave.items.push(row);
                    canceled.push((it.item.id, reason));
                    continue;
                }
                it.destination.clone_from(&recheck.destination);
            }
            match decided {
                Next::Dispatch(Leg::Transfer) if short_now || halted && it.item.status == Status::Pending => {
                    wave.postings.extend(it.item.apply(Event::FundsHalted).map_err(illegal)?);
                    let mut row = settle::item_row(&it);
                    row.failure_code = Some("balance_insufficient".to_owned());
                    row.failure_reason = Some("The platform's Stripe balance is short.".to_owned());
                    wave.items.push(row);
                }
                Next::Dispatch(leg) => sends.push((it, leg, true)),
                Next::Resend(leg) | Next::Replay(leg) => sends.push((it, leg, false)),
                Next::LookUp(leg) | Next::Clear(leg) => calls.push(self.look_up(&it, leg)),
                Next::GiveUp(_) => {
                    if let Some(settled) = settle::give_up(&mut it).map_err(illegal)? {
                        consequences.extend(settled.consequences.iter().map(|consequence| (it.item.id, *consequence)));
                        wave.postings.extend(settled.postings);
                        wave.operations.push(settled.operation);
                        wave.items.push(settled.item);
                    }
                }
                Next::Wait(until) => {
                    let mut row = settle::item_row(&it);
                    keep_failure(&mut row, &it);
                    row.due_at = Some(until);
                    row.waiting_since = it.waiting_since;
                    wave.items.push(row);
                }
                Next::Nothing => {
                    let mut row = settle::item_row(&it);
                    keep_failure(&mut row, &it);
                    row.waiting_since = it.waiting_since;
                    wave.items.push(row);
                }
            }
        }
        chunks::exclude(tx, self.claim.batch_id, &canceled).await?;
        for leg in [Leg::Transfer, Leg::Payout] {
            let legs: Vec<&mut (Loaded, Leg, bool)> = sends.iter_mut().filter(|(_, of, _)| *of == leg).collect();
            let slots = self.slots(tx, leg, legs.len()).await?;
            for ((it, _, is_new), wait) in legs.into_iter().zip(slots) {
                calls.push(self.prepare(it, leg, *is_new, wait, wave, now)?);
            }
        }
        Ok(calls)
    }

    /// The rows of an attempt about to be sent, and the call to make once they are committed.
    fn prepare(
        &self,
        it: &mut Loaded,
        leg: Leg,
        is_new: bool,
        wait: Duration,
        wave: &mut Wave,
        now: DateTime<Utc>,
    ) -> Result<Call> {
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let deadline = now + chrono::Duration::milliseconds(wait_ms) + chrono::Duration::seconds(SEND_GRACE_SECONDS);
        let item_mark = format!("{}-{}", self.claim.instance, it.item.id);
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
            wave.postings.extend(it.item.apply(event).map_err(illegal)?);
        }
        let attempt = match leg {
            Leg::Transfer => it.item.transfer_attempt,
            Leg::Payout => it.item.payout_attempt,
        };
        let operation_mark = operation_mark(&item_mark, leg, attempt);
        let (key, body, in_doubt) = match &it.operation {
            Some(operation) if !is_new => {
                let in_doubt = operation.facts.state != State::NotRun;
                let mut row = settle::unchanged(operation);
                row.state = State::Dispatched;
                row.sends += 1;
                row.dispatched_at = now;
                row.send_deadline = Some(deadline);
                row.cleared = false;
                row.look_up = false;
                if !in_doubt {
                    row.first_dispatched_at = now;
                }
                wave.operations.push(row);
                (operation.key.clone(), operation.body.clone(), in_doubt)
            }
            _ => {
                let key = operation_key(&it.key, leg.as_str(), attempt);
                let body = request_body(&asked, &Marks { operation: &operation_mark, item: &item_mark });
                wave.new_operations.push(NewOperation {
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
                (key, body, false)
            }
        };
        let mut row = settle::item_row(it);
        // Due at once should this worker die: its lease is what keeps others away.
        row.due_at = Some(now);
        row.destination.clone_from(&it.destination);
        row.waiting_since = it.waiting_since;
        wave.items.push(row);
        let kind = CallKind::Send { asked, key, body, in_doubt, wait, deadline };
        Ok(Call { item: it.item.id, leg, operation_mark, item_mark, account: it.account.clone(), kind })
    }

    fn look_up(&self, it: &Loaded, leg: Leg) -> Call {
        let item_mark = format!("{}-{}", self.claim.instance, it.item.id);
        let (attempt, since, account) = match &it.operation {
            Some(operation) => (operation.facts.attempt, operation.facts.first_dispatched_at, operation.account.clone()),
            None => (1, clock::now(), it.account.clone()),
        };
        Call {
            item: it.item.id,
            leg,
            operation_mark: operation_mark(&item_mark, leg, attempt),
            item_mark,
            account,
            kind: CallKind::LookUp { since },
        }
    }

    /// How long each of `count` sends of a leg has to wait for its slot of the shared rate budget.
    async fn slots(&self, tx: &mut Tx, leg: Leg, count: usize) -> Result<Vec<Duration>> {
        let per_second = match leg {
            Leg::Transfer => self.payer.sending.rate_transfers,
            Leg::Payout => self.payer.sending.rate_payouts,
        };
        if count == 0 || (per_second == 0 && !self.orders.slowed.load(Ordering::Relaxed)) {
            return Ok(vec![Duration::ZERO; count]);
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let (start_ms, gap_ms) = chunks::reserve_slots(tx, leg, count, per_second).await?;
        Ok((0..count).map(|place| Duration::from_millis(u64::try_from(start_ms + place * gap_ms).unwrap_or(0))).collect())
    }

    /// What replies mean beyond their own item: in a transaction of its own, because it locks other batches' rows. If this
    /// worker dies before it, the next one meets the same refusal.
    async fn follow(&mut self, consequences: &[(ItemId, Consequence)]) {
        if consequences.is_empty() {
            return;
        }
        let any = |wanted: Consequence| consequences.iter().any(|(_, it)| *it == wanted);
        let halts = [
            (Consequence::Contradiction, "frozen_operation"),
            (Consequence::KeyRefused, "stripe_key_rejected"),
            (Consequence::OutOfFunds, "awaiting_funds"),
        ];
        if let Some((consequence, reason)) = halts.into_iter().find(|(consequence, _)| any(*consequence)) {
            self.claim.halt_reason = Some(reason.to_owned());
            self.orders.stop.fetch_or(consequence != Consequence::OutOfFunds, Ordering::Relaxed);
        }
        self.orders
            .slowed
            .fetch_or(any(Consequence::SlowDown(Leg::Transfer)) || any(Consequence::SlowDown(Leg::Payout)), Ordering::Relaxed);
        if let Err(error) = self.tell_others(consequences).await {
            tracing::error!(batch = self.claim.batch_id.0, error = %error, causes = error.causes(), "others could not be told");
        }
    }

    async fn tell_others(&self, consequences: &[(ItemId, Consequence)]) -> Result<()> {
        let batch = self.claim.batch_id;
        let mut tx = self.payer.db.begin().await?;
        for leg in [Leg::Transfer, Leg::Payout] {
            if consequences.iter().any(|(_, it)| *it == Consequence::SlowDown(leg)) {
                chunks::slow_down(&mut tx, leg).await?;
            }
        }
        let about =
            |wanted: Consequence| consequences.iter().filter(move |(_, it)| *it == wanted).map(|(id, _)| *id).collect::<Vec<_>>();
        jobs::block_payees(&mut tx, &about(Consequence::BlockPayee), "Stripe does not know the account").await?;
        for id in about(Consequence::PageSomeone) {
            outbox::put(&mut tx, &format!("page:item:{id}"), "item_needs_a_person", json!({ "itemId": id, "batchId": batch }))
                .await?;
        }
        let reason = self.claim.halt_reason.as_deref();
        if let Some(reason) = reason.filter(|_| {
            !about(Consequence::Contradiction).is_empty()
                || !about(Consequence::KeyRefused).is_empty()
                || !about(Consequence::OutOfFunds).is_empty()
        }) {
            let halted = if reason == "stripe_key_rejected" {
                jobs::halt_all(&mut tx, reason).await?
            } else {
                jobs::halt(&mut tx, batch, reason).await?
            };
            if halted > 0 {
                outbox::put(
                    &mut tx,
                    &format!("halted:{reason}:{}:{}", self.claim.run_id, clock::now().timestamp()),
                    "batch_halted",
                    json!({ "batchId": batch, "reason": reason }),
                )
                .await?;
                tracing::error!(batch = batch.0, reason, "halted");
            }
        }
        tx.commit("tell others").await
    }
}

/// `{instance}-{item}-{leg}-{attempt}`: what a lookup or a webhook finds the attempt by.
pub fn operation_mark(item_mark: &str, leg: Leg, attempt: i32) -> String {
    format!("{item_mark}-{}-{attempt}", leg.as_str())
}

/// Why an item must not be sent any more: not eligible, or the account it was made for is another now.
fn no_longer(it: &Loaded, recheck: &chunks::Recheck) -> Option<String> {
    if let Some(reason) = &recheck.reason {
        return Some(reason.clone());
    }
    let same_account = recheck.account.as_deref() == Some(it.account.as_str());
    let same_way = recheck.automatic == (it.item.payout_minor == 0);
    (!same_account || !same_way).then(|| "account_not_ready".to_owned())
}

fn keep_failure(row: &mut chunks::ItemUpdate, it: &Loaded) {
    row.failure_code.clone_from(&it.failure_code);
    row.failure_reason.clone_from(&it.failure_reason);
}

fn log_reply(batch: i64, it: &Loaded, reply: &Reply) {
    let item = it.item.id.0;
    let leg = it.operation.as_ref().map(|operation| operation.facts.leg.as_str());
    match &reply.outcome {
        Outcome::Accepted(accepted) => tracing::info!(batch, item, leg, stripe_id = accepted.stripe_id, "accepted"),
        outcome @ (Outcome::Rejected(_) | Outcome::NotRun(_) | Outcome::Unknown { .. }) => {
            tracing::warn!(batch, item, leg, outcome = ?outcome, code = reply.code, request_id = reply.request_id, "not accepted");
        }
        outcome @ Outcome::Frozen { .. } => {
            tracing::error!(batch, item, leg, outcome = ?outcome, request_id = reply.request_id, "frozen")
        }
    }
}

fn illegal(illegal: Illegal) -> Error {
    Error::internal(format!("A transition is missing: {illegal}."))
}
