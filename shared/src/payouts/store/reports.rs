//! The SQL of telling operators: how a run goes, whether all is well. It reads and locks nothing.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Tx, query_as};
use crate::error::Result;
use crate::id::{BatchId, ItemId, RunId};

/// A run as its status tells of it.
#[derive(Debug, Clone, FromRow)]
pub struct Run {
    pub id: RunId,
    pub kind: String,
    pub schedule: String,
    pub cycle_on: NaiveDate,
    pub cutoff_at: DateTime<Utc>,
    pub status: String,
    pub requested_by: String,
    pub batches_created_at: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
}

pub async fn run(tx: &mut Tx, id: i64) -> Result<Option<Run>> {
    let statement = query_as(
        "select id, kind, schedule, cycle_on, cutoff_at, status, requested_by, batches_created_at, started_at, completed_at
         from payout_runs where id = $1",
    );
    tx.optional(statement.bind(id)).await
}

/// The run of a cycle that was started last; those of single payees come and go beside them.
pub async fn last_run(tx: &mut Tx) -> Result<Option<Run>> {
    tx.optional(query_as(
        "select id, kind, schedule, cycle_on, cutoff_at, status, requested_by, batches_created_at, started_at, completed_at
         from payout_runs where kind = 'scheduled' order by id desc limit 1",
    ))
    .await
}

/// The runs that have been running since before an instant, oldest first.
pub async fn stuck_runs(tx: &mut Tx, started_before: DateTime<Utc>, limit: i64) -> Result<Vec<Run>> {
    let statement = query_as(
        "select id, kind, schedule, cycle_on, cutoff_at, status, requested_by, batches_created_at, started_at, completed_at
         from payout_runs where status = 'running' and started_at < $1 order by id limit $2",
    );
    tx.all(statement.bind(started_before).bind(limit)).await
}

/// Whether all of the runs are completed.
pub async fn are_completed(tx: &mut Tx, runs: &[RunId]) -> Result<bool> {
    let statement = query_as("select coalesce(bool_and(status = 'completed'), false) from payout_runs where id = any($1)");
    let (completed,): (bool,) = tx.one(statement.bind(runs.iter().map(|id| id.0).collect::<Vec<_>>())).await?;
    Ok(completed)
}

/// How many items of a batch are in one status, and what they are worth. A batch without items has one row without a status.
#[derive(Debug, Clone, FromRow)]
pub struct Count {
    pub id: BatchId,
    pub currency: String,
    pub status: String,
    pub halt_reason: Option<String>,
    pub items: i64,
    pub amount_minor: i64,
    pub item_status: Option<String>,
    pub status_items: Option<i64>,
    pub status_minor: Option<i64>,
}

/// The run's batches, each as its counts.
pub async fn counts(tx: &mut Tx, run: RunId) -> Result<Vec<Count>> {
    let statement = query_as(
        "select b.id, b.currency::text as currency, b.status, b.halt_reason, b.items, b.amount_minor,
                c.status as item_status, c.items as status_items, c.amount_minor as status_minor
         from payout_batches b left join payout_batch_counts c on c.batch_id = b.id and c.items > 0
         where b.run_id = $1 order by b.id, c.status",
    );
    tx.all(statement.bind(run)).await
}

/// An item that did not arrive and does not go on by itself right now.
#[derive(Debug, Clone, FromRow)]
pub struct NotArrived {
    pub batch_id: BatchId,
    pub id: ItemId,
    pub creator_id: Uuid,
    pub currency: String,
    pub amount_minor: i64,
    pub status: String,
    pub failure_code: Option<String>,
    pub failure_reason: Option<String>,
    pub updated_at: DateTime<Utc>,
}

/// The run's items that did not arrive, after a position (batch, item). The statuses are those of the partial index.
pub async fn not_arrived(tx: &mut Tx, run: RunId, after: Option<(i64, i64)>, limit: i64) -> Result<Vec<NotArrived>> {
    let (batch, item) = after.unwrap_or((0, 0));
    let statement = query_as(
        "select i.batch_id, i.id, i.creator_id, i.currency::text as currency, i.amount_minor, i.status, i.failure_code, i.failure_reason, i.updated_at
         from payout_batches b join payout_items i on i.batch_id = b.id
         where b.run_id = $1 and (i.batch_id, i.id) > ($2, $3)
           and i.status in ('awaiting_funds', 'awaiting_available', 'payout_blocked', 'returned', 'failed', 'needs_review')
         order by i.batch_id, i.id limit $4",
    );
    tx.all(statement.bind(run).bind(batch).bind(item).bind(limit)).await
}

/// How many were not paid in the run for which reason: one for each creator and currency.
pub async fn exclusions(tx: &mut Tx, run: RunId) -> Result<Vec<(String, i64)>> {
    let statement = query_as("select reason, count(*) from payout_exclusions where run_id = $1 group by reason order by reason");
    tx.all(statement.bind(run)).await
}

/// The pause and the kill switch.
#[derive(Debug, Clone, FromRow)]
pub struct Controls {
    pub paused: bool,
    pub killed: bool,
    pub reason: Option<String>,
}

pub async fn controls(tx: &mut Tx) -> Result<Controls> {
    tx.one(query_as("select paused, killed, reason from payout_controls")).await
}

#[derive(Debug, Clone, FromRow)]
pub struct HaltedBatch {
    pub id: BatchId,
    pub run_id: RunId,
    pub currency: String,
    pub halt_reason: String,
    pub halted_at: Option<DateTime<Utc>>,
}

/// The batches that are halted now, oldest first.
pub async fn halted(tx: &mut Tx, limit: i64) -> Result<Vec<HaltedBatch>> {
    let statement = query_as(
        "select id, run_id, currency::text as currency, halt_reason, halted_at from payout_batches where halt_reason is not null order by id limit $1",
    );
    tx.all(statement.bind(limit)).await
}

/// Lets the database itself give up on the statements of this transaction: whoever asked has stopped waiting by then.
pub async fn give_up_after(tx: &mut Tx, patience: Duration) -> Result<()> {
    let statement = query_as("select set_config('statement_timeout', $1, true)");
    let _: (String,) = tx.one(statement.bind(patience.as_millis().to_string())).await?;
    Ok(())
}
