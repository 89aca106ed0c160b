//! The SQL of looking ahead: who would get what in a cycle, and whether there is money for it. It changes nothing.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::clock::Schedule;
use crate::config::Policy;
use crate::db::{FORGET_PLANS, ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::RunId;

/// Which runs of a date are looked at, as of when.
#[derive(Debug, Clone)]
pub struct Occasion {
    pub cycle_on: NaiveDate,
    pub cutoff_at: DateTime<Utc>,
    /// The schedules asked about, of those due on the date.
    pub schedules: Vec<Schedule>,
    /// When the batches would be made.
    pub at: DateTime<Utc>,
}

/// What would happen to everybody: in sums, and a page of it one by one.
#[derive(Debug, Clone, FromRow)]
pub struct Foreseen {
    /// The hash of each schedule's facts; a schedule without anybody has none.
    pub hashes: Json<Vec<(String, String)>>,
    pub sums: Json<Vec<Sum>>,
    pub reasons: Json<Vec<Reason>>,
    pub page: Json<Vec<Entry>>,
}

/// Who is paid in a currency.
#[derive(Debug, Clone, Deserialize)]
pub struct Sum {
    pub currency: String,
    pub payees: i64,
    pub amount_minor: i64,
    pub transfer_minor: i64,
}

/// How many are not paid in a currency for a reason, and what they have.
#[derive(Debug, Clone, Deserialize)]
pub struct Reason {
    pub currency: String,
    pub reason: String,
    pub payees: i64,
    pub balance_minor: i64,
}

/// What would happen to one payee in one currency.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    pub creator_id: Uuid,
    pub currency: String,
    pub schedule: Schedule,
    pub reason: Option<String>,
    pub payable_minor: i64,
    pub transfer_minor: i64,
    pub connected_minor: i64,
    pub account: Option<String>,
    pub balance_minor: i64,
}

/// A place in the list of entries.
pub type Position = (Uuid, String, Schedule);

/// Asks the one definition of eligibility for each of the runs, as the batch creator will.
pub async fn foresee(
    tx: &mut Tx,
    occasion: &Occasion,
    policy: &Policy,
    after: Option<&Position>,
    limit: i64,
) -> Result<Foreseen> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let due = Schedule::due_on(occasion.cycle_on);
    let names = |schedules: &[Schedule]| schedules.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>();
    tx.run(query(ROOM_FOR_MANY)).await?;
    let statement = query_as(
        "with facts as materialized (
            select s.schedule, c.creator_id, c.currency::text as currency, c.reason, c.payable_minor, c.transfer_minor, c.connected_minor, c.account,
                   c.balance_micros / c.minor_micros as balance_minor,
                   payout_fact(c.creator_id, c.currency::text, c.account, c.destination, c.payable_minor, c.transfer_minor,
                               case when c.automatic then 0 else c.payable_minor end, c.reason) as fact
            from unnest($1::text[]) as s (schedule)
            cross join lateral payout_candidates(array[s.schedule], array_remove($2::text[], s.schedule), $3, $4, $5, foresee => true) as c
            -- Whoever's schedule is not due at all is told so by the first of the date's runs.
            where c.reason is distinct from 'schedule_not_due' or s.schedule = ($2::text[])[1]
         )
         select
            (select coalesce(jsonb_agg(jsonb_build_array(h.schedule, h.hash)), '[]') from (
                select schedule, encode(sha256(convert_to(string_agg(fact, chr(10) order by creator_id, currency), 'UTF8')), 'hex') as hash
                from facts group by schedule) as h) as hashes,
            (select coalesce(jsonb_agg(to_jsonb(p) order by p.currency), '[]') from (
                select currency, count(*) as payees, sum(payable_minor)::bigint as amount_minor, sum(transfer_minor)::bigint as transfer_minor
                from facts where reason is null group by currency) as p) as sums,
            (select coalesce(jsonb_agg(to_jsonb(r) order by r.currency, r.reason), '[]') from (
                select currency, reason, count(*) as payees, sum(balance_minor)::bigint as balance_minor
                from facts where reason is not null group by currency, reason) as r) as reasons,
            (select coalesce(jsonb_agg(to_jsonb(e) order by e.creator_id, e.currency, e.schedule), '[]') from (
                select creator_id, currency, schedule, reason, payable_minor, transfer_minor, connected_minor, account, balance_minor
                from facts where $6::uuid is null or (creator_id, currency, schedule) > ($6, $7, $8)
                order by creator_id, currency, schedule limit $9) as e) as page",
    )
    .bind(names(&occasion.schedules))
    .bind(names(&due))
    .bind(occasion.cutoff_at)
    .bind(policy)
    .bind(occasion.at)
    .bind(after.map(|(creator, _, _)| *creator))
    .bind(after.map(|(_, currency, _)| currency.clone()))
    .bind(after.map(|(_, _, schedule)| schedule.as_str()))
    .bind(limit);
    let foreseen = tx.one(statement).await?;
    tx.run(query(FORGET_PLANS)).await?;
    Ok(foreseen)
}

/// What was paid in the cycle before, by currency, and its date; of the same schedules.
pub async fn last_cycle(tx: &mut Tx, occasion: &Occasion) -> Result<Vec<(NaiveDate, String, i64, i64)>> {
    let statement = query_as(
        "select r.cycle_on, b.currency::text, sum(b.items)::bigint, sum(b.amount_minor)::bigint
         from payout_runs r join payout_batches b on b.run_id = r.id
         where r.kind = 'scheduled' and r.schedule = any($1) and r.cycle_on = (
            select max(cycle_on) from payout_runs where kind = 'scheduled' and schedule = any($1) and cycle_on < $2 and batches_created_at is not null)
         group by r.cycle_on, b.currency",
    );
    let schedules: Vec<String> = occasion.schedules.iter().map(|it| it.as_str().to_owned()).collect();
    tx.all(statement.bind(schedules).bind(occasion.cycle_on)).await
}

/// What the platform has at Stripe and who has a claim on it already, by currency.
#[derive(Debug, Clone, FromRow)]
pub struct Funds {
    pub currency: String,
    /// Items that are not sent yet, minor units.
    pub claimed_minor: i64,
    /// None: Stripe has not been asked yet.
    pub available_minor: Option<i64>,
    pub read_at: Option<DateTime<Utc>>,
}

pub async fn funds(tx: &mut Tx) -> Result<Vec<Funds>> {
    tx.all(query_as(
        "with claimed as (
            -- In two parts, because each has its index.
            select currency::text as currency, sum(transfer_minor)::bigint as minor from (
                select currency, transfer_minor from payout_items where due_at is not null and status in ('pending', 'awaiting_funds', 'transferring')
                union all
                select currency, transfer_minor from payout_items where due_at is null and status = 'awaiting_funds') as i
            group by currency)
         select coalesce(s.currency, c.currency) as currency, coalesce(c.minor, 0) as claimed_minor, s.available_minor, s.read_at
         from stripe_balances s full join claimed c on c.currency = s.currency",
    ))
    .await
}

/// Keeps what Stripe says the platform has; a currency that it does not name any more has nothing.
pub async fn keep_balances(tx: &mut Tx, balances: &[(String, i64)], now: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "insert into stripe_balances as s (currency, available_minor, read_at)
         select u.currency, sum(u.minor), $3 from (
            select * from unnest($1::text[], $2::bigint[]) union all select currency, 0 from stripe_balances) as u (currency, minor)
         group by u.currency order by u.currency
         on conflict (currency) do update set available_minor = excluded.available_minor, read_at = excluded.read_at where s.read_at < excluded.read_at",
    )
    .bind(balances.iter().map(|(currency, _)| currency.clone()).collect::<Vec<_>>())
    .bind(balances.iter().map(|(_, minor)| *minor).collect::<Vec<_>>())
    .bind(now);
    tx.run(statement).await?;
    Ok(())
}

/// The runs of a date, with the facts that each was agreed to with; not those whose facts were others then.
pub async fn agreed(tx: &mut Tx, cycle_on: NaiveDate) -> Result<Vec<(String, Option<String>)>> {
    let statement = query_as(
        "select schedule, preview_hash from payout_runs where kind = 'scheduled' and cycle_on = $1 and facts_changed_at is null",
    );
    tx.all(statement.bind(cycle_on)).await
}

/// Says which facts a run without batches may be made of; none: whatever they are. `true`: its batches have to be queued
/// (again), because it waited for somebody to ask.
pub async fn agree(tx: &mut Tx, run: RunId, hash: Option<&str>) -> Result<bool> {
    let statement = query_as(
        "with was as (select id, facts_changed_at from payout_runs where id = $1 and batches_created_at is null for no key update)
         update payout_runs r set preview_hash = $2, facts_changed_at = null,
                queued_at = case when was.facts_changed_at is null then r.queued_at else now() end
         from was where r.id = was.id returning was.facts_changed_at is not null",
    );
    let row: Option<(bool,)> = tx.optional(statement.bind(run).bind(hash.map(str::to_owned))).await?;
    Ok(row.is_some_and(|(waited,)| waited))
}
