//! The SQL of what keeps batches going: halts and their end, lost messages, funding, retries.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::db::{Tx, query, query_as};
use crate::error::Result;
use crate::id::{BatchId, ChunkId, ItemId, RunId};

/// Halts a batch; nothing of it is sent until it is resumed. Zero: it was halted already, or is
/// completed. A contradiction takes the place of a halt that would end by itself.
pub async fn halt(tx: &mut Tx, batch: BatchId, reason: &str) -> Result<u64> {
    let statement = query(
        "update payout_batches set status = 'halted', halt_reason = $2, halted_at = now()
         where id = $1 and (status = 'processing' or $2 = 'frozen_operation' and halt_reason in ('awaiting_funds', 'stripe_key_rejected'))",
    );
    Ok(tx.run(statement.bind(batch).bind(reason.to_owned())).await?.rows_affected())
}

/// Halts every batch that is being processed or waits for funds. Returns how many that were.
pub async fn halt_all(tx: &mut Tx, reason: &str) -> Result<u64> {
    let statement = query(
        "update payout_batches b set status = 'halted', halt_reason = $1, halted_at = now()
         from (select id from payout_batches where status = 'processing' or halt_reason = 'awaiting_funds' order by id for no key update) as due
         where b.id = due.id",
    );
    Ok(tx.run(statement.bind(reason.to_owned())).await?.rows_affected())
}

/// Ends the halts of a reason.
pub async fn resume(tx: &mut Tx, reason: &str) -> Result<u64> {
    let statement = query("update payout_batches set status = 'processing', halt_reason = null where halt_reason = $1");
    Ok(tx.run(statement.bind(reason.to_owned())).await?.rows_affected())
}

/// The reasons for which batches are halted now.
pub async fn halt_reasons(tx: &mut Tx) -> Result<Vec<String>> {
    let rows: Vec<(String,)> =
        tx.all(query_as("select distinct halt_reason from payout_batches where halt_reason is not null")).await?;
    Ok(rows.into_iter().map(|(reason,)| reason).collect())
}

/// Blocks the payees of items until a person looks; the first reason stays.
pub async fn block_payees(tx: &mut Tx, items: &[ItemId], reason: &str) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let statement = query(
        "update payees p set blocked_reason = $2, blocked_at = now()
         from (select distinct creator_id from payout_items where id = any($1)) as i where p.id = i.creator_id and p.blocked_reason is null",
    );
    tx.run(statement.bind(items.iter().map(|id| id.0).collect::<Vec<_>>()).bind(reason.to_owned())).await?;
    Ok(())
}

/// Chunks with something due that nobody works on and whose last message is a while ago, oldest first, marked as queued again.
pub async fn take_due_chunks(tx: &mut Tx, now: DateTime<Utc>, quiet_since: DateTime<Utc>, limit: i64) -> Result<Vec<ChunkId>> {
    let statement = query_as(
        "with due as (
            select k.id from payout_chunks k join payout_batches b on b.id = k.batch_id
            where k.id in (select i.chunk_id from payout_items i where i.due_at <= $1)
              and k.leased_until < now() and coalesce(k.queued_at, '-infinity') < $2
              and (b.halt_reason is null or b.halt_reason = 'awaiting_funds')
            order by k.queued_at nulls first, k.id limit $3 for no key update of k skip locked)
         update payout_chunks k set queued_at = now() from due where k.id = due.id returning k.id",
    );
    let rows: Vec<(ChunkId,)> = tx.all(statement.bind(now).bind(quiet_since).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Runs whose batches were never created though their message is a while ago, marked as queued again.
pub async fn take_runs_without_batches(tx: &mut Tx, quiet_since: DateTime<Utc>) -> Result<Vec<RunId>> {
    let rows: Vec<(RunId,)> = tx
        .all(query_as("update payout_runs set queued_at = now() where status = 'running' and batches_created_at is null and facts_changed_at is null and queued_at < $1 returning id").bind(quiet_since))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Batches that could be completed: nothing of them is pending or being sent.
pub async fn completable(tx: &mut Tx) -> Result<Vec<BatchId>> {
    let rows: Vec<(BatchId,)> = tx
        .all(query_as(
            "select b.id from payout_batches b
             where (b.status = 'processing' or b.halt_reason = 'awaiting_funds')
               and not exists (select from payout_batch_counts c where c.batch_id = b.id and c.items > 0
                               and c.status in ('pending', 'transferring', 'transferred', 'paying_out'))
             order by b.id",
        ))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Runs that are still running though all their batches are completed.
pub async fn completable_runs(tx: &mut Tx) -> Result<Vec<RunId>> {
    let rows: Vec<(RunId,)> = tx
        .all(query_as(
            "select id from payout_runs r where status = 'running' and batches_created_at is not null
               and not exists (select from payout_batches b where b.run_id = r.id and b.status <> 'completed')",
        ))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Runs that have been running since before the instant.
pub async fn running_since_before(tx: &mut Tx, started_before: DateTime<Utc>) -> Result<Vec<RunId>> {
    let rows: Vec<(RunId,)> = tx
        .all(query_as("select id from payout_runs where status = 'running' and started_at < $1 order by id").bind(started_before))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Money that waits for the platform's balance, per currency.
#[derive(Debug, Clone, FromRow)]
pub struct AwaitingFunds {
    pub currency: String,
    pub items: i64,
    pub total_minor: i64,
    pub smallest_minor: i64,
}

pub async fn awaiting_funds(tx: &mut Tx) -> Result<Vec<AwaitingFunds>> {
    tx.all(query_as(
        "select currency::text, count(*) as items, sum(transfer_minor)::bigint as total_minor, min(transfer_minor) as smallest_minor
         from payout_items where status = 'awaiting_funds' and due_at is null group by currency order by currency",
    ))
    .await
}

/// Makes due what the available balance covers, oldest items first, and lets the halted batches of the currency go on. What an
/// earlier sweep made due and what is being sent has a claim on that balance already. Returns how many items that are.
pub async fn release_funded(tx: &mut Tx, currency: &str, available_minor: i64, now: DateTime<Utc>) -> Result<u64> {
    let statement = query(
        "with queue as (
            select id, sum(transfer_minor) over (order by id) as until_here from payout_items where status = 'awaiting_funds' and due_at is null and currency = $1
         ), claimed as (
            select coalesce(sum(transfer_minor), 0) as minor from payout_items
            where currency = $1 and (status = 'transferring' or status = 'awaiting_funds' and due_at is not null)
         ), covered as (
            select i.id from payout_items i join queue q on q.id = i.id cross join claimed c
            where q.until_here + c.minor <= $2 order by i.id for no key update of i)
         update payout_items i set due_at = $3 from covered where i.id = covered.id and i.status = 'awaiting_funds'",
    );
    let released = tx.run(statement.bind(currency.to_owned()).bind(available_minor).bind(now)).await?.rows_affected();
    if released > 0 {
        let resume = query(
            "update payout_batches set status = 'processing', halt_reason = null where currency = $1 and halt_reason = 'awaiting_funds'",
        );
        tx.run(resume.bind(currency.to_owned())).await?;
    }
    Ok(released)
}

/// Failed items that may be taken up again: their payee is there to be asked about, fewest retries first. A failed withdrawal
/// is over for its creator, who has the money back and asks anew.
pub async fn failed_items(tx: &mut Tx, max_retries: i32, limit: i64) -> Result<Vec<ItemId>> {
    let rows: Vec<(ItemId,)> = tx
        .all(
            query_as(
                "select id from payout_items i where status = 'failed' and retries < $1
                   and not exists (select from withdrawal_requests w where w.item_id = i.id)
                 order by id limit $2",
            )
            .bind(max_retries)
            .bind(limit),
        )
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Whether a newer item has been made for the payee of this one in its currency.
pub async fn has_newer_item(tx: &mut Tx, item: ItemId) -> Result<bool> {
    let (newer,): (bool,) = tx
        .one(
            query_as(
                "select exists (select from payout_items n join payout_items i on n.creator_id = i.creator_id and n.currency = i.currency
                                where i.id = $1 and n.id > i.id and n.status not in ('canceled', 'failed'))",
            )
            .bind(item),
        )
        .await?;
    Ok(newer)
}

/// How old the oldest outcome is that nobody knows; `None`: all are known.
pub async fn oldest_unknown(tx: &mut Tx) -> Result<Option<DateTime<Utc>>> {
    let (oldest,): (Option<DateTime<Utc>>,) =
        tx.one(query_as("select min(unknown_since) from payout_operations where unknown_since is not null and state in ('dispatched', 'unknown', 'frozen', 'unresolved')")).await?;
    Ok(oldest)
}
