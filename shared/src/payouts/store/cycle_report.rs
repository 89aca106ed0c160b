//! The SQL of a cycle's report.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::super::report::Operations;
use crate::db::{Tx, query_as};
use crate::error::Result;

/// The runs of a cycle date, in the order in which they were made.
pub async fn run_ids(tx: &mut Tx, cycle_on: NaiveDate) -> Result<Vec<i64>> {
    let rows: Vec<(i64,)> = tx
        .all(query_as("select id from payout_runs where kind = 'scheduled' and cycle_on = $1 order by id").bind(cycle_on))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

#[derive(FromRow)]
pub struct Count {
    pub id: i64,
    pub currency: String,
    pub items: i64,
    pub amount_minor: i64,
    pub status: Option<String>,
    pub status_items: Option<i64>,
    pub status_minor: Option<i64>,
}

pub async fn counts(tx: &mut Tx, runs: &[i64]) -> Result<Vec<Count>> {
    tx.all(
        query_as(
            "select b.id, b.currency::text as currency, b.items, b.amount_minor, c.status, c.items as status_items, c.amount_minor as status_minor
             from payout_batches b left join payout_batch_counts c on c.batch_id = b.id and c.items > 0
             where b.run_id = any($1) order by b.id, c.status",
        )
        .bind(runs.to_vec()),
    )
    .await
}

#[derive(FromRow)]
pub struct NotPaidRow {
    pub creator_id: Uuid,
    pub currency: String,
    pub balance_minor: i64,
    pub payable_minor: i64,
    pub reason: String,
    pub code: Option<String>,
}

/// Everyone with money who was not paid: the recorded exclusions, and the items that did not arrive.
pub async fn not_paid(tx: &mut Tx, runs: &[i64]) -> Result<Vec<NotPaidRow>> {
    tx.all(
        query_as(
            "select x.creator_id, x.currency::text as currency, x.balance_micros / m.micros_per_minor as balance_minor, x.payable_minor, x.reason, x.code
             from payout_exclusions x join currencies m on m.code = x.currency where x.run_id = any($1)
             union all
             select i.creator_id, i.currency::text, (b.held_platform + b.held_connected + b.available_platform + b.available_connected) / m.micros_per_minor
                    + case when i.status = 'failed' then 0 else i.amount_minor end,
                    i.amount_minor, i.status, i.failure_code
             from payout_items i join payout_batches p on p.id = i.batch_id join currencies m on m.code = i.currency
             join payee_balances b on b.payee_id = i.creator_id and b.currency = i.currency
             where p.run_id = any($1) and i.status not in ('paid', 'in_transit', 'canceled')
             order by 5, 1, 2",
        )
        .bind(runs.to_vec()),
    )
    .await
}

pub async fn operations(tx: &mut Tx, runs: &[i64]) -> Result<Operations> {
    tx.one(
        query_as(
            "select count(*) filter (where o.state in ('accepted', 'returned')) as accepted,
                    count(*) filter (where o.state = 'rejected') as rejected,
                    count(*) filter (where o.state in ('dispatched', 'not_run', 'unknown')) as unknown,
                    count(*) filter (where o.state in ('frozen', 'unresolved')) as unresolved
             from payout_operations o join payout_items i on i.id = o.item_id join payout_batches b on b.id = i.batch_id where b.run_id = any($1)",
        )
        .bind(runs.to_vec()),
    )
    .await
}

/// Thousandths of a statement per item.
pub async fn milli_statements_per_item(tx: &mut Tx, runs: &[i64]) -> Result<(i64,)> {
    tx.one(
        query_as(
            "select coalesce(1000 * sum(k.sql_statements) / nullif((select sum(items) from payout_batches where run_id = any($1)), 0), 0)::bigint
             from payout_chunks k join payout_batches b on b.id = k.batch_id where b.run_id = any($1)",
        )
        .bind(runs.to_vec()),
    )
    .await
}

#[derive(FromRow)]
pub struct ProgressRow {
    pub runs: i64,
    pub runs_completed: i64,
    pub halted: Vec<String>,
    pub unknown: i64,
    pub events: i64,
    pub funds_asked_at: Option<DateTime<Utc>>,
}

pub async fn progress(tx: &mut Tx, runs: &[i64]) -> Result<ProgressRow> {
    tx.one(
        query_as(
            "select (select count(*) from payout_runs where id = any($1)) as runs,
                    (select count(*) from payout_runs where id = any($1) and status = 'completed') as runs_completed,
                    array(select distinct halt_reason from payout_batches where run_id = any($1) and halt_reason is not null) as halted,
                    (select count(*) from payout_operations o join payout_items i on i.id = o.item_id join payout_batches b on b.id = i.batch_id
                     where b.run_id = any($1) and o.state in ('dispatched', 'unknown')) as unknown,
                    (select count(*) from stripe_events) as events,
                    (select coalesce(max(o.dispatched_at), 'epoch') from payout_items i join payout_batches b on b.id = i.batch_id
                     left join payout_operations o on o.item_id = i.id
                     where b.run_id = any($1) and i.status = 'awaiting_funds' having count(*) > 0) as funds_asked_at",
        )
        .bind(runs.to_vec()),
    )
    .await
}

pub async fn statuses(tx: &mut Tx, runs: &[i64]) -> Result<Vec<(String, i64)>> {
    tx.all(
        query_as(
            "select c.status, sum(c.items)::bigint from payout_batch_counts c join payout_batches b on b.id = c.batch_id
             where b.run_id = any($1) and c.items > 0 group by c.status",
        )
        .bind(runs.to_vec()),
    )
    .await
}

/// How many items of the runs have money that Stripe did not accept: no accepted last leg, and not withdrawn from the cycle.
pub async fn not_accepted(tx: &mut Tx, runs: &[i64]) -> Result<i64> {
    let (count,): (i64,) = tx
        .one(
            query_as(
                "select count(*) from payout_items i join payout_batches b on b.id = i.batch_id
                 where b.run_id = any($1) and i.status <> 'canceled'
                   and not exists (select from payout_operations o where o.item_id = i.id and o.state in ('accepted', 'returned')
                                   and o.leg = case when i.payout_minor = 0 then 'transfer' else 'payout' end)",
            )
            .bind(runs.to_vec()),
        )
        .await?;
    Ok(count)
}
