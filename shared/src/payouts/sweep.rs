//! What keeps runs going when a message was lost, a worker died, money was missing or Stripe was away. Runs every minute and
//! may run twice at once: each step takes what it finds under a lock or only sends hints.

use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;

use super::store::{batches, chunks, jobs};
use super::wave::{Loaded, Wave};
use super::{item::Event, settle};
use crate::boundary::Boundary;
use crate::clock;
use crate::config::Policy;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::id::ItemId;
use crate::queue::{Message, Queue};
use crate::rails::stripe::Stripe;

/// What a sweep works with.
#[derive(Clone)]
pub struct Sweeper {
    pub db: Db,
    pub stripe: Stripe,
    pub policy: Policy,
    pub create_batch: Queue,
    pub process_chunk: Queue,
}

/// How a sweep goes about it; the local runtime sweeps faster than the schedule does.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pace {
    /// A message younger than this is not yet thought lost.
    pub quiet_seconds: i64,
    /// Whether to ask Stripe for the balance that payments wait for, and whether it takes our key again.
    pub ask_stripe: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { quiet_seconds: 60, ask_stripe: true }
    }
}

/// Chunks brought back by one sweep at most; the next sweep brings more.
const CHUNKS_AT_ONCE: i64 = 200;
/// A failed item is taken up again so often.
pub(super) const MAX_RETRIES: i32 = 5;

impl Sweeper {
    pub async fn sweep(&self, pace: Pace) -> Result<()> {
        let now = clock::now();
        let quiet_since = now - Duration::seconds(pace.quiet_seconds);
        let mut tx = self.db.begin().await?;
        let stopped = batches::is_stopped(&mut tx).await?;
        let completable = jobs::completable(&mut tx).await?;
        let runs = jobs::completable_runs(&mut tx).await?;
        for batch in completable {
            super::complete(&mut tx, batch).await?;
        }
        for run in runs {
            super::complete_run(&mut tx, run).await?;
        }
        tx.commit(Boundary::Complete).await?;
        if stopped {
            return Ok(());
        }
        if pace.ask_stripe {
            self.resume_after_key_change().await?;
            self.continue_when_funded().await?;
        }
        self.resume().await?;

        let mut tx = self.db.begin().await?;
        let runs = jobs::take_runs_without_batches(&mut tx, quiet_since).await?;
        tx.commit(Boundary::TakeRuns).await?;
        let messages: Vec<Message> = runs.into_iter().map(|run_id| Message::CreateBatch { run_id }).collect();
        self.create_batch.send_all(Boundary::QueueRunsAgain, &messages).await?;

        // Messages that still wait are hints enough; only when there are none can some have been lost.
        if self.process_chunk.depth().await?.visible > 0 {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        // The time now, not that of the sweep's beginning: what was just released for new funds is due since.
        let chunks = jobs::take_due_chunks(&mut tx, clock::now(), quiet_since, CHUNKS_AT_ONCE).await?;
        tx.commit(Boundary::TakeDueChunks).await?;
        if !chunks.is_empty() {
            tracing::info!(chunks = chunks.len(), "chunks queued again");
        }
        let messages: Vec<Message> = chunks.into_iter().map(|chunk_id| Message::ProcessChunk { chunk_id }).collect();
        self.process_chunk.send_all(Boundary::QueueChunksAgain, &messages).await
    }

    /// Batches halted because Stripe refused the key go on once it takes one.
    async fn resume_after_key_change(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let reasons = jobs::halt_reasons(&mut tx).await?;
        drop(tx);
        if !reasons.iter().any(|reason| reason == "stripe_key_rejected") {
            return Ok(());
        }
        if let Err(error) = self.stripe.available(&self.policy.default_currency.code()).await {
            tracing::warn!(error = %error, "still halted");
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let resumed = jobs::resume(&mut tx, "stripe_key_rejected").await?;
        tx.commit(Boundary::ResumeAfterKeyChange).await?;
        tracing::info!(batches = resumed, "resumed: Stripe takes the key");
        Ok(())
    }

    /// Payments that wait for the platform's balance go out, oldest first, as far as it reaches.
    async fn continue_when_funded(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let waiting = jobs::awaiting_funds(&mut tx).await?;
        drop(tx);
        for money in waiting {
            let available = match self.stripe.available(&money.currency).await {
                Ok(available) => available,
                Err(error) => {
                    tracing::warn!(error = %error, "the balance could not be read");
                    return Ok(());
                }
            };
            let mut tx = self.db.begin().await?;
            let released = jobs::release_funded(&mut tx, &money.currency, available, clock::now()).await?;
            tx.commit(Boundary::ReleaseFunded).await?;
            tracing::info!(
                currency = money.currency,
                waiting = money.items,
                needed_minor = money.total_minor,
                available_minor = available,
                released,
                "waiting for funds"
            );
        }
        Ok(())
    }

    /// The daily retry: failed items whose payee is eligible now are taken up again, unless a newer item has the money; and
    /// runs that are still running after `stuck_minutes` are looked at.
    pub async fn retry(&self, stuck_minutes: i64) -> Result<()> {
        let mut tx = self.db.begin().await?;
        if batches::is_stopped(&mut tx).await? {
            return Ok(());
        }
        let failed = jobs::failed_items(&mut tx, MAX_RETRIES, 10_000).await?;
        drop(tx);
        let mut retried = 0_u64;
        let mut passing = None;
        for item in failed {
            match self.retry_item(item).await {
                Ok(true) => retried += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(item = item.0, error = %error, causes = error.causes(), "could not be retried");
                    passing = passing.or(Some(error).filter(Error::is_transient));
                }
            }
        }
        let mut tx = self.db.begin().await?;
        let stuck = jobs::running_since_before(&mut tx, clock::now() - Duration::minutes(stuck_minutes)).await?;
        drop(tx);
        crate::telemetry::metric(crate::telemetry::Metric::RunsStuck, i64::try_from(stuck.len()).unwrap_or(i64::MAX), &[]);
        tracing::info!(retried, stuck = stuck.len(), "retried");
        self.sweep(Pace::default()).await?;
        // The job is started again by who started it; tomorrow would be a day too late for a hiccup of the database.
        passing.map_or(Ok(()), Err)
    }

    /// Takes a failed item up again; `false` if it stays failed or a newer item has the money.
    pub async fn retry_item(&self, id: ItemId) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        match self.take_up(&mut tx, id).await {
            Ok(Some(event)) => {
                tx.commit(Boundary::RetryItem).await?;
                Ok(event == Event::Retried)
            }
            other => {
                tx.rollback().await;
                other.map(|_| false)
            }
        }
    }

    /// `None`: nothing is changed.
    async fn take_up(&self, tx: &mut Tx, id: ItemId) -> Result<Option<Event>> {
        let now = clock::now();
        let Some(mut it) = chunks::load(tx, id).await? else { return Err(Error::not_found("The payout item")) };
        if it.item.status != super::item::Status::Failed {
            return Ok(None);
        }
        let stands = standing(tx, &self.policy, &it, now).await?;
        let Some(event) = settle::retry(stands.superseded, stands.reason.is_none()) else { return Ok(None) };
        let postings = it.item.apply(event)?;
        let mut row = settle::item_row(&it);
        row.due_at = (event == Event::Retried).then_some(now);
        if event == Event::Canceled {
            row.failure_code = Some("superseded".to_owned());
        }
        let wave = Wave { postings, items: vec![row], ..Wave::default() };
        chunks::save(tx, &wave, now).await?;
        Ok(Some(event))
    }
}

/// What stands against taking a failed item up again.
pub(super) struct Standing {
    /// A newer item has the money, or it is not there any more.
    pub superseded: bool,
    /// Why the payee may not be paid now.
    pub reason: Option<String>,
}

pub(super) async fn standing(tx: &mut Tx, policy: &Policy, it: &Loaded, now: DateTime<Utc>) -> Result<Standing> {
    let balance = crate::ledger::store::lock_balance(tx, it.item.payee, &it.item.currency.code()).await?;
    let unit = it.item.currency.micros_per_minor();
    let there = balance.available_platform >= it.item.transfer_minor.saturating_mul(unit)
        && balance.available_connected >= it.item.connected_minor.saturating_mul(unit);
    let superseded = !there || jobs::has_newer_item(tx, it.item.id).await?;
    let recheck = chunks::recheck(tx, &[it.item.id], policy, now).await?.into_iter().next();
    let reason = recheck.map_or_else(|| Some("no_account".to_owned()), |recheck| recheck.reason);
    Ok(Standing { superseded, reason })
}
