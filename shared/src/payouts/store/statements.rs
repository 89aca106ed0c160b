//! The SQL of statements: one creator's earnings, what was taken back, and payouts, within a period.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::super::statement::{Moment, Period};
use crate::db::{Tx, query_as};
use crate::error::Result;
use crate::id::ItemId;

/// Earnings of one kind in one currency on one day or in one month; or what was taken back of such.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Summed {
    /// A day or a month, as the period divides itself.
    pub period: String,
    pub currency: String,
    pub kind: String,
    pub count: i64,
    pub gross_micros: i64,
    pub fee_micros: i64,
}

pub async fn earned(tx: &mut Tx, creator: Uuid, period: &Period) -> Result<Vec<Summed>> {
    let statement = query_as(
        "select to_char(t.at at time zone $5, $6) as period, e.currency::text as currency, e.kind, count(*) as count,
                sum(e.gross_micros)::bigint as gross_micros, sum(e.fee_micros)::bigint as fee_micros
         from creator_earnings e cross join lateral (values (case when $2 then e.available_at else e.occurred_at end)) as t (at)
         where e.creator_id = $1 and t.at >= $3 and t.at < $4
         group by 1, 2, 3 order by 1, 2, 3",
    );
    let by_maturity = period.earned == Moment::Matured;
    let statement = statement.bind(creator).bind(by_maturity).bind(period.from).bind(period.until);
    tx.all(statement.bind(period.zone.name()).bind(period.format())).await
}

/// By when it was taken back, whenever it had been earned.
pub async fn taken_back(tx: &mut Tx, creator: Uuid, period: &Period) -> Result<Vec<Summed>> {
    let statement = query_as(
        "select to_char(r.created_at at time zone $4, $5) as period, e.currency::text as currency, e.kind, count(*) as count,
                sum(r.gross_micros)::bigint as gross_micros, sum(r.gross_micros - r.net_micros)::bigint as fee_micros
         from creator_earnings e join earning_reversals r on r.earning_id = e.id
         where e.creator_id = $1 and r.created_at >= $2 and r.created_at < $3
         group by 1, 2, 3 order by 1, 2, 3",
    );
    let statement = statement.bind(creator).bind(period.from).bind(period.until);
    tx.all(statement.bind(period.zone.name()).bind(period.format())).await
}

/// A payout in a statement.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Paid {
    pub id: ItemId,
    pub currency: String,
    pub amount_micros: i64,
    pub status: String,
    pub cycle_on: NaiveDate,
    pub paid_at: Option<DateTime<Utc>>,
}

/// Those of the period's cycles, on their way or arrived; or those that arrived within it, whichever cycle's they are.
pub async fn paid(tx: &mut Tx, creator: Uuid, period: &Period) -> Result<Vec<Paid>> {
    let statement = query_as(
        "select i.id, i.currency::text as currency, i.amount_minor * c.micros_per_minor as amount_micros, i.status, r.cycle_on, i.paid_at
         from payout_items i join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id join currencies c on c.code = i.currency
         where i.creator_id = $1
           and case when $2 then r.cycle_on > $5 and r.cycle_on <= $6 and i.status not in ('failed', 'canceled')
                    else i.status = 'paid' and i.paid_at >= $3 and i.paid_at < $4 end
         order by i.id",
    );
    let by_cycle = period.earned == Moment::Matured;
    let statement = statement.bind(creator).bind(by_cycle).bind(period.from).bind(period.until);
    tx.all(statement.bind(period.after).bind(period.to)).await
}
