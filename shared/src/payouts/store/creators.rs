//! The SQL of what one creator is told and may choose: their money, their payouts, their settings. All of it goes by the
//! creator's id, so nobody is told of another's.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::config::Policy;
use crate::db::{Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::ItemId;

/// A creator's money in one currency, what of it could be withdrawn and why not, and what is known of the creator. Micros as
/// of now: what was held until now counts as available even where the hourly job has not booked it yet.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Standing {
    pub schedule: String,
    /// The creator's own zone.
    pub timezone: Option<String>,
    /// The connected account may receive and pay out.
    pub ready: bool,
    /// Stripe pays the account out by itself.
    pub automatic: bool,
    /// None: the creator has nothing in any currency.
    pub currency: Option<String>,
    pub held_micros: i64,
    pub available_micros: i64,
    /// Reserved, being transferred, or at Stripe on its way to the bank.
    pub under_way_micros: i64,
    pub paid_out_micros: i64,
    /// Zero or below.
    pub debt_micros: i64,
    pub payable_minor: i64,
    /// Of what is payable, the part on the platform; the rest is on the connected account.
    pub transfer_minor: i64,
    pub minimum_minor: Option<i64>,
    /// Why nothing would be paid; none: it would.
    pub reason: Option<String>,
}

/// One row for each currency that the creator has anything in; one without a currency if there is none. Nothing: nobody has
/// told Payday of this user.
pub async fn standing(tx: &mut Tx, creator: Uuid, policy: &Policy, now: DateTime<Utc>) -> Result<Vec<Standing>> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let statement = query_as(
        "select schedule, timezone, ready, automatic, currency::text as currency, held_micros, available_micros, under_way_micros, paid_out_micros,
                debt_micros, payable_minor, transfer_minor, minimum_minor, reason
         from creator_standing($1, $2, $3)",
    );
    tx.all(statement.bind(creator).bind(policy).bind(now)).await
}

/// What a creator has chosen; defaults where they have not.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Settings {
    pub payout_enabled: bool,
    /// In whole units, as written.
    pub minimum_payout: Option<String>,
    pub schedule: String,
    pub timezone: Option<String>,
    pub beta_enabled: bool,
}

pub async fn settings(tx: &mut Tx, creator: Uuid) -> Result<Option<Settings>> {
    let statement = query_as(
        "select payout_enabled, trim_scale(minimum_payout_amount)::text as minimum_payout, schedule, timezone, beta_enabled
         from creator_payout_settings where creator_id = $1",
    );
    tx.optional(statement.bind(creator)).await
}

/// What is to be different. `None` leaves a setting as it is, `Some(None)` takes it back to its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub payout_enabled: Option<bool>,
    pub minimum_payout: Option<Option<String>>,
    pub schedule: Option<&'static str>,
    pub timezone: Option<Option<String>>,
}

/// Saves a creator's choices. A user of whom Payday knows nothing yet becomes a payee by them.
pub async fn change_settings(tx: &mut Tx, creator: Uuid, changes: Changes) -> Result<Settings> {
    tx.run(query("insert into payees (id) values ($1) on conflict do nothing").bind(creator)).await?;
    let statement = query_as(
        "insert into creator_payout_settings as s (creator_id, payout_enabled, minimum_payout_amount, schedule, timezone)
         values ($1, coalesce($2, true), $4::numeric, coalesce($5, 'semimonthly'), $7)
         on conflict (creator_id) do update set
            payout_enabled = coalesce($2, s.payout_enabled), minimum_payout_amount = case when $3 then $4::numeric else s.minimum_payout_amount end,
            schedule = coalesce($5, s.schedule), timezone = case when $6 then $7 else s.timezone end, updated_at = now()
         returning payout_enabled, trim_scale(minimum_payout_amount)::text as minimum_payout, schedule, timezone, beta_enabled",
    );
    let Changes { payout_enabled, minimum_payout, schedule, timezone } = changes;
    let statement = statement.bind(creator).bind(payout_enabled);
    let statement = statement.bind(minimum_payout.is_some()).bind(minimum_payout.flatten()).bind(schedule);
    tx.one(statement.bind(timezone.is_some()).bind(timezone.flatten())).await
}

/// A payout in a creator's list.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Payout {
    pub id: ItemId,
    /// Of its run: `scheduled`, `withdrawal`, `resume` or `partner`.
    pub kind: String,
    pub cycle_on: NaiveDate,
    pub currency: String,
    pub amount_minor: i64,
    pub status: String,
    pub failure_code: Option<String>,
    pub arrival_on: Option<NaiveDate>,
    pub created_at: DateTime<Utc>,
    pub paid_at: Option<DateTime<Utc>>,
}

/// A creator's payouts, newest first, older than a position.
pub async fn payouts(tx: &mut Tx, creator: Uuid, before: Option<i64>, limit: i64) -> Result<Vec<Payout>> {
    let statement = query_as(
        "select i.id, r.kind, r.cycle_on, i.currency::text as currency, i.amount_minor, i.status, i.failure_code, i.arrival_on, i.created_at, i.paid_at
         from payout_items i join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id
         where i.creator_id = $1 and i.id < $2 order by i.id desc limit $3",
    );
    tx.all(statement.bind(creator).bind(before.unwrap_or(i64::MAX)).bind(limit)).await
}

/// What a payout's timeline is made of.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Story {
    #[sqlx(flatten)]
    pub payout: Payout,
    pub transfer_minor: i64,
    pub payout_minor: i64,
    /// The last of the earnings that it could pay: when it was earned, and until when it was held.
    pub earned_at: Option<DateTime<Utc>>,
    pub held_until: Option<DateTime<Utc>>,
    /// When its money was set aside: with the payout, or with the withdrawal request before it.
    pub reserved_at: DateTime<Utc>,
    /// When Stripe had the transfer.
    pub transferred_at: Option<DateTime<Utc>>,
}

/// None: there is no such payout, or it is another's.
pub async fn story(tx: &mut Tx, creator: Uuid, item: i64) -> Result<Option<Story>> {
    let statement = query_as(
        "select i.id, r.kind, r.cycle_on, i.currency::text as currency, i.amount_minor, i.status, i.failure_code, i.arrival_on, i.created_at, i.paid_at,
                i.transfer_minor, i.payout_minor, e.occurred_at as earned_at, e.available_at as held_until, coalesce(w.created_at, i.created_at) as reserved_at,
                (select min(o.settled_at) from payout_operations o where o.item_id = i.id and o.leg = 'transfer' and o.state in ('accepted', 'returned')) as transferred_at
         from payout_items i join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id
         left join withdrawal_requests w on w.item_id = i.id
         left join lateral (
            select e.occurred_at, e.available_at from creator_earnings e
            where e.creator_id = i.creator_id and e.currency = i.currency and e.available_at <= r.cutoff_at
            order by e.available_at desc, e.id desc limit 1) e on true
         where i.id = $2 and i.creator_id = $1",
    );
    tx.optional(statement.bind(creator).bind(item)).await
}
