//! The SQL of figures: from the counts that the database keeps at every commit, so that it costs the same after years.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;

use crate::db::{Tx, query_as};
use crate::error::Result;
use crate::id::RunId;

/// What became of payments, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Arrived {
    pub currency: String,
    /// Paid, or accepted by Stripe and on the way to the bank.
    pub arrived_items: i64,
    pub arrived_minor: i64,
    pub failed_items: i64,
    pub failed_minor: i64,
    /// Of the arrived: the bank has confirmed.
    pub paid_minor: i64,
}

/// Payments of batches made since an instant.
pub async fn arrived(tx: &mut Tx, since: DateTime<Utc>) -> Result<Vec<Arrived>> {
    let statement = query_as(
        "select b.currency::text as currency,
                coalesce(sum(c.items) filter (where c.status in ('paid', 'in_transit')), 0)::bigint as arrived_items,
                coalesce(sum(c.amount_minor) filter (where c.status in ('paid', 'in_transit')), 0)::bigint as arrived_minor,
                coalesce(sum(c.items) filter (where c.status in ('failed', 'payout_blocked', 'returned', 'needs_review')), 0)::bigint as failed_items,
                coalesce(sum(c.amount_minor) filter (where c.status in ('failed', 'payout_blocked', 'returned', 'needs_review')), 0)::bigint as failed_minor,
                coalesce(sum(c.amount_minor) filter (where c.status = 'paid'), 0)::bigint as paid_minor
         from payout_batches b join payout_batch_counts c on c.batch_id = b.id
         where b.created_at >= $1 group by b.currency order by b.currency",
    );
    tx.all(statement.bind(since)).await
}

/// Payments that did not arrive and have not changed since an instant. The statuses are among those of the partial index.
pub async fn failed_since_before(tx: &mut Tx, before: DateTime<Utc>) -> Result<i64> {
    let statement = query_as(
        "select count(*) from payout_items where status in ('payout_blocked', 'returned', 'failed', 'needs_review') and updated_at < $1",
    );
    let (count,): (i64,) = tx.one(statement.bind(before)).await?;
    Ok(count)
}

/// How long a run took.
#[derive(Debug, Clone, FromRow)]
pub struct Timed {
    pub run_id: RunId,
    pub schedule: String,
    pub cycle_on: NaiveDate,
    pub items: i64,
    pub milliseconds: i64,
}

/// The cycles' runs completed since an instant, the newest first.
pub async fn timed(tx: &mut Tx, since: DateTime<Utc>, limit: i64) -> Result<Vec<Timed>> {
    let statement = query_as(
        "select r.id as run_id, r.schedule, r.cycle_on, coalesce((select sum(b.items) from payout_batches b where b.run_id = r.id), 0)::bigint as items,
                (extract(epoch from r.completed_at - r.started_at) * 1000)::bigint as milliseconds
         from payout_runs r where r.kind = 'scheduled' and r.completed_at >= $1 order by r.id desc limit $2",
    );
    tx.all(statement.bind(since).bind(limit)).await
}

/// How many creators there are, have an account, and can be paid.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Onboarded {
    pub creators: i64,
    pub with_account: i64,
    pub ready: i64,
}

pub async fn onboarded(tx: &mut Tx) -> Result<Onboarded> {
    tx.one(query_as(
        "select count(*) as creators, count(account) as with_account, count(*) filter (where ready) as ready from payee_facts where kind = 'creator'",
    ))
    .await
}
