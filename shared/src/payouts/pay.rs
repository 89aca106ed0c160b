//! Pays the items of one chunk. May run twice at once, late, or be killed between any two lines: an attempt's key and bytes
//! are committed under the item's lock before the first send, so sending again is safe. Assuming failure is not, so a send
//! without an answer leaves the attempt `unknown`, and it is replayed or looked up later.
//!
//! A worker holds the chunk's lease, prolongs it while it works, and hears on the same pulse whether to stop: pause, kill
//! switch, halted batch, lost lease. It alternates between one transaction that saves the replies so far and dispatches what
//! may go next, and the sends themselves; no transaction is open while Stripe is called. What is saved and what goes next is
//! decided in `plan`; here is only the order of things.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::calls::{LEASE_SECONDS, Orders, make, pulse};
use super::checks;
use super::plan::{self, Answer, Call, Said, Situation};
use super::settle::Consequence;
use super::store::chunks::{self, Claim};
use super::store::jobs;
use crate::boundary::Boundary;
use crate::clock;
use crate::config::{Policy, Sending};
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::id::{ChunkId, ItemId};
use crate::notifications::store as outbox;
use crate::rails::stripe::Stripe;
use crate::rails::{Leg, Outcome};
use crate::telemetry::{Metric, metric};

/// Replies wait at most so long for others to be saved with.
const GATHER: Duration = Duration::from_millis(100);
/// With less time than this left, nothing new is dispatched: every send must end inside the handler.
const TIME_TO_FINISH: Duration = Duration::from_secs(45);
// Why a batch halts.
const FROZEN: &str = "frozen_operation";
const KEY_REJECTED: &str = "stripe_key_rejected";
const OUT_OF_FUNDS: &str = "awaiting_funds";

/// Pays chunks: what a chunk processor keeps between invocations.
#[derive(Clone)]
pub struct Payer {
    pub db: Db,
    pub stripe: Stripe,
    pub policy: Policy,
    pub sending: Sending,
    /// Places for sends at once, shared by all chunks of an invocation.
    places: Arc<Semaphore>,
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
    pub fn new(db: Db, stripe: Stripe, policy: Policy, sending: Sending) -> Self {
        let places = Arc::new(Semaphore::new(sending.sends_per_worker));
        Self { db, stripe, policy, sending, places }
    }

    /// Works on a chunk until nothing of it can go on now. By `until` the handler has to be done.
    /// A chunk that is someone else's, paused or halted is left as it is; a sweep brings it back.
    pub async fn process_chunk(&self, chunk: ChunkId, until: Instant) -> Result<()> {
        let payer = &Self { db: self.db.counting_apart(), ..self.clone() };
        let db = &payer.db;
        let lease = Uuid::new_v4();
        let mut tx = db.begin().await?;
        let claim = chunks::claim(&mut tx, chunk, lease, LEASE_SECONDS).await?;
        let Some(claim) = claim else {
            tracing::debug!(chunk = chunk.0, "chunk is being worked on or does not exist");
            return Ok(());
        };
        tx.commit(Boundary::ClaimChunk).await?;

        let halted = claim.halt_reason.as_deref().is_some_and(|reason| reason != OUT_OF_FUNDS);
        let batch = claim.batch_id;
        let orders = Orders::default();
        orders.stop.store(claim.stopped || halted, Ordering::Relaxed);
        orders.confirm();
        let mut work = Work { payer, chunk, claim, orders: &orders, in_flight: HashSet::new(), until };
        // Side by side in one task: nothing outlives the handler, and no statement is ever cut off half-way.
        let working = async {
            let worked = work.run().await;
            orders.done.notify_one();
            worked
        };
        let (worked, ()) = tokio::join!(working, pulse(db, chunk, lease, &orders));

        let mut tx = db.begin().await?;
        // With the release, so that a batch that must stop is stopped before anyone else can take the chunk.
        let breaches = checks::of_chunk(&mut tx, chunk).await?;
        if !breaches.is_empty() {
            checks::stop_batch(&mut tx, batch, &breaches).await?;
        }
        let statements = i64::try_from(db.statements()).unwrap_or(0) + 1;
        if let Some(run) = chunks::release(&mut tx, chunk, lease, statements).await? {
            super::complete_run(&mut tx, run).await?;
        }
        tx.commit(Boundary::ReleaseChunk).await?;
        worked
    }
}

impl Work<'_> {
    async fn run(&mut self) -> Result<()> {
        let Payer { stripe, places, .. } = self.payer;
        let orders = self.orders;
        let mut calls = FuturesUnordered::new();
        let mut answers: HashMap<ItemId, Answer> = HashMap::new();
        loop {
            let (to_make, more_due) = self.settle_and_dispatch(&mut answers).await?;
            for call in to_make {
                self.in_flight.insert(call.item);
                calls.push(make(call, stripe, places, orders));
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
                    count_sends(answers.values());
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
        let situation = Situation {
            instance: &self.claim.instance,
            sending: &self.payer.sending,
            now,
            may_dispatch: !self.orders.must_stop() && clock::monotonic() + TIME_TO_FINISH < self.until,
            halted_for_funds: self.claim.halt_reason.as_deref() == Some(OUT_OF_FUNDS),
        };
        let mut plan = plan::settle(loaded, answers, &self.in_flight, &situation)?;
        let asked = plan.asked_again();
        let rechecks = match asked.as_slice() {
            [] => Vec::new(),
            asked => chunks::recheck(&mut tx, asked, &self.payer.policy, now).await?,
        };
        let second_legs = plan.second_legs();
        if !second_legs.is_empty() {
            plan.hold(chunks::held_back(&mut tx, &second_legs, &self.payer.policy, now).await?, now);
        }
        let decided = plan.decide(rechecks, &situation)?;
        chunks::exclude(&mut tx, self.claim.batch_id, &decided.canceled).await?;
        let mut calls = decided.lookups;
        let (transfers, payouts): (Vec<_>, Vec<_>) = decided.sends.into_iter().partition(|due| due.leg == Leg::Transfer);
        for (leg, sends) in [(Leg::Transfer, transfers), (Leg::Payout, payouts)] {
            let slots = self.slots(&mut tx, leg, sends.len()).await?;
            for (due, wait) in sends.into_iter().zip(slots) {
                calls.push(plan.prepare(due, wait, &situation)?);
            }
        }
        chunks::save(&mut tx, &plan.wave, now).await?;
        self.alert(&mut tx, &plan.consequences).await?;
        tx.commit(Boundary::SaveRepliesAndDispatch).await?;
        self.follow(&plan.consequences).await;
        Ok((calls, plan.more_due))
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

    /// What nobody would meet a second time: a person is called and a contradiction halts the batch together with the answer
    /// that says so.
    async fn alert(&self, tx: &mut Tx, consequences: &[(ItemId, Consequence)]) -> Result<()> {
        let batch = self.claim.batch_id;
        for id in about(consequences, Consequence::PageSomeone) {
            let payload = json!({ "itemId": id, "batchId": batch });
            outbox::put(tx, &format!("page:item:{id}"), "item_needs_a_person", payload).await?;
        }
        if !about(consequences, Consequence::Contradiction).is_empty() {
            let halted = jobs::halt(tx, batch, FROZEN).await?;
            self.tell_of_halt(tx, halted, FROZEN).await?;
        }
        Ok(())
    }

    async fn tell_of_halt(&self, tx: &mut Tx, halted: u64, reason: &str) -> Result<()> {
        if halted == 0 {
            return Ok(());
        }
        if reason == KEY_REJECTED {
            metric(Metric::StripeKeyRejected, 1, &[]);
        }
        let (batch, key) = (self.claim.batch_id, format!("halted:{reason}:{}:{}", self.claim.run_id, clock::now().timestamp()));
        tracing::error!(batch = batch.0, reason, "halted");
        outbox::put(tx, &key, "batch_halted", json!({ "batchId": batch, "reason": reason })).await
    }

    /// What replies mean beyond their own batch: in a transaction of its own, because it locks other batches' rows. If this
    /// worker dies before it, the next one meets the same refusal.
    async fn follow(&mut self, consequences: &[(ItemId, Consequence)]) {
        if consequences.is_empty() {
            return;
        }
        let any = |wanted: Consequence| consequences.iter().any(|(_, it)| *it == wanted);
        let halts = [
            (Consequence::Contradiction, FROZEN),
            (Consequence::KeyRefused, KEY_REJECTED),
            (Consequence::OutOfFunds, OUT_OF_FUNDS),
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
        let mut tx = self.payer.db.begin().await?;
        for leg in [Leg::Transfer, Leg::Payout] {
            if !about(consequences, Consequence::SlowDown(leg)).is_empty() {
                chunks::slow_down(&mut tx, leg).await?;
            }
        }
        jobs::block_payees(&mut tx, &about(consequences, Consequence::BlockPayee), "Stripe does not know the account").await?;
        if !about(consequences, Consequence::KeyRefused).is_empty() {
            let halted = jobs::halt_all(&mut tx, KEY_REJECTED).await?;
            self.tell_of_halt(&mut tx, halted, KEY_REJECTED).await?;
        } else if !about(consequences, Consequence::OutOfFunds).is_empty() {
            let halted = jobs::halt(&mut tx, self.claim.batch_id, OUT_OF_FUNDS).await?;
            self.tell_of_halt(&mut tx, halted, OUT_OF_FUNDS).await?;
        }
        tx.commit(Boundary::TellOthers).await
    }
}

/// The items that have a consequence.
fn about(consequences: &[(ItemId, Consequence)], wanted: Consequence) -> Vec<ItemId> {
    consequences.iter().filter(|(_, it)| *it == wanted).map(|(id, _)| *id).collect()
}

/// What became of the sends of a wave, for CloudWatch.
fn count_sends<'a>(answers: impl Iterator<Item = &'a Answer>) {
    let (mut accepted, mut refused) = (0, 0);
    for answer in answers {
        if let Said::Reply(reply) = &answer.said {
            accepted += i64::from(matches!(reply.outcome, Outcome::Accepted(_)));
            refused += i64::from(matches!(reply.outcome, Outcome::Rejected(_)));
        }
    }
    for (name, count) in [(Metric::SendsAccepted, accepted), (Metric::SendsRefused, refused)] {
        if count > 0 {
            metric(name, count, &[]);
        }
    }
}
