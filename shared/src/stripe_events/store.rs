//! The SQL of events.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;

use super::{Effect, Event};
use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Stores an event; `false`: it is there already.
pub async fn insert(tx: &mut Tx, event: &Event, payload: &Value) -> Result<bool> {
    let statement = query(
        "insert into stripe_events (id, type, account, livemode, occurred_at, payload, state) values ($1, $2, $3, $4, $5, $6, 'waiting') on conflict (id) do nothing",
    );
    let statement = statement
        .bind(event.id.clone())
        .bind(event.kind.clone())
        .bind(event.account.clone())
        .bind(event.livemode)
        .bind(event.created_at())
        .bind(payload.clone());
    Ok(tx.run(statement).await?.rows_affected() > 0)
}

/// Which of these events never came.
pub async fn not_received(tx: &mut Tx, ids: Vec<String>) -> Result<Vec<String>> {
    let statement = query_as::<(String,)>(
        "select u.id from unnest($1::text[]) as u (id) where not exists (select from stripe_events e where e.id = u.id)",
    );
    Ok(tx.all(statement.bind(ids)).await?.into_iter().map(|(id,)| id).collect())
}

/// How often a waiting event is tried before a person is asked: with the doubling delay up to an hour that is three days.
const MAX_TRIES: i32 = 80;

/// Writes down what an event did; one that waits is tried again after ten seconds, then ever longer up to an hour.
pub async fn finish(tx: &mut Tx, id: &str, effect: &Effect, tries: i32) -> Result<()> {
    let (state, text, object) = match effect {
        Effect::Applied(what) => ("applied", what.clone(), None),
        Effect::Ignored(why) => ("ignored", (*why).to_owned(), None),
        Effect::Waiting(for_what) if tries >= MAX_TRIES => {
            ("given_up", format!("never heard of {for_what}"), Some(for_what.clone()))
        }
        Effect::Waiting(for_what) => ("waiting", format!("waits for {for_what}"), Some(for_what.clone())),
    };
    let delay_seconds = (10_i64 << u32::try_from(tries.clamp(1, 10) - 1).unwrap_or(0)).min(3_600);
    let statement = query(
        "update stripe_events set state = $2, effect = $3, object_id = $4, tries = $5, applied_at = case when $2 = 'applied' then now() end,
            due_at = case when $2 = 'waiting' then now() + $6 * interval '1 second' end
         where id = $1",
    );
    tx.run(statement.bind(id.to_owned()).bind(state).bind(text).bind(object).bind(tries).bind(delay_seconds)).await?;
    if state == "given_up" {
        let payload = serde_json::json!({ "eventId": id });
        crate::notifications::store::put(tx, &format!("event_given_up:{id}"), "event_given_up", payload).await?;
    }
    Ok(())
}

/// What waited for this object is due now.
pub async fn wake(tx: &mut Tx, object: &str) -> Result<()> {
    tx.run(query("update stripe_events set due_at = now() where object_id = $1 and state = 'waiting'").bind(object.to_owned()))
        .await?;
    Ok(())
}

/// The ids of waiting events that are due, oldest first.
pub async fn due(tx: &mut Tx, limit: i64) -> Result<Vec<String>> {
    let rows: Vec<(String,)> = tx
        .all(query_as("select id from stripe_events where due_at <= now() order by occurred_at, id limit $1").bind(limit))
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// A waiting event under its lock; `None`: another sweep has it, or it waits no more.
pub async fn lock_waiting(tx: &mut Tx, id: &str) -> Result<Option<(Value, i32)>> {
    tx.optional(
        query_as("select payload, tries from stripe_events where id = $1 and state = 'waiting' for update skip locked")
            .bind(id.to_owned()),
    )
    .await
}

/// An event whatever its state, under its lock: payload, state, tries.
pub async fn lock(tx: &mut Tx, id: &str) -> Result<Option<(Value, String, i32)>> {
    tx.optional(query_as("select payload, state, tries from stripe_events where id = $1 for update").bind(id.to_owned())).await
}

/// An event as it was kept, without what Stripe sent.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Kept {
    pub id: String,
    pub kind: String,
    pub account: Option<String>,
    pub livemode: bool,
    pub state: String,
    pub effect: Option<String>,
    pub tries: i32,
    pub occurred_at: DateTime<Utc>,
    pub received_at: DateTime<Utc>,
    pub applied_at: Option<DateTime<Utc>>,
    pub due_at: Option<DateTime<Utc>>,
}

/// Which events a list shows; what is not named is not asked.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub kind: Option<String>,
    pub state: Option<String>,
    pub account: Option<String>,
}

/// Events, the last received first, after a position in that order.
pub async fn list(tx: &mut Tx, filter: &Filter, after: Option<(DateTime<Utc>, String)>, limit: i64) -> Result<Vec<Kept>> {
    let (after_at, after_id) = after.unzip();
    let statement = query_as(
        "select id, type as kind, account, livemode, state, effect, tries, occurred_at, received_at, applied_at, due_at from stripe_events
         where ($1::text is null or type = $1) and ($2::text is null or state = $2) and ($3::text is null or account = $3)
           and ($4::timestamptz is null or (received_at, id) < ($4, $5))
         order by received_at desc, id desc limit $6",
    );
    let statement = statement.bind(filter.kind.clone()).bind(filter.state.clone()).bind(filter.account.clone());
    tx.all(statement.bind(after_at).bind(after_id).bind(limit)).await
}

/// One event and what Stripe sent.
pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<(Kept, Value)>> {
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        event: Kept,
        payload: Value,
    }
    let statement = query_as(
        "select id, type as kind, account, livemode, state, effect, tries, occurred_at, received_at, applied_at, due_at, payload
         from stripe_events where id = $1",
    );
    let row: Option<Row> = tx.optional(statement.bind(id.to_owned())).await?;
    Ok(row.map(|row| (row.event, row.payload)))
}

/// Whether an event's mode is that of our key. Until a function with a key has told, both are taken.
pub async fn is_our_mode(tx: &mut Tx, livemode: bool) -> Result<bool> {
    let (ours,): (bool,) = tx.one(query_as("select coalesce(livemode, $1) = $1 from instance").bind(livemode)).await?;
    Ok(ours)
}

/// Tells the mode of our key.
pub async fn remember_mode(tx: &mut Tx, livemode: bool) -> Result<()> {
    tx.run(query("update instance set livemode = $1 where livemode is distinct from $1").bind(livemode)).await?;
    Ok(())
}

/// The attempt that an object of Stripe's belongs to, by the object's id or by the mark we put on it.
pub async fn operation_of(tx: &mut Tx, stripe_id: &str, mark: Option<&str>) -> Result<Option<(i64, i64)>> {
    // The mark is `{instance}-{item}-{leg}-{attempt}`; one of another instance matches nothing. Two questions, because each has its
    // index; with an `or` between them every event would read all operations there ever were.
    let statement = query_as(
        "with mark as (
            select substring($2 from '^[0-9a-f]+-(\\d{1,18})-')::bigint as item_id, substring($2 from '-(transfer|payout)-') as leg,
                   substring($2 from '-(\\d{1,9})$')::int as attempt
            from instance n where $2 like n.id || '-%'
         )
         select found.item_id, found.id from (
            select 1 as rank, o.item_id, o.id from payout_operations o where o.stripe_id = $1
            union all
            select 2, o.item_id, o.id from mark m join payout_operations o on o.item_id = m.item_id and o.leg = m.leg and o.attempt = m.attempt) as found
         order by found.rank limit 1",
    );
    tx.optional(statement.bind(stripe_id.to_owned()).bind(mark.map(str::to_owned))).await
}

/// An attempt's state and the id it is known by. The caller holds its item.
pub async fn attempt(tx: &mut Tx, operation: i64) -> Result<(String, Option<String>)> {
    tx.one(query_as("select state, stripe_id from payout_operations where id = $1").bind(operation)).await
}

/// An attempt's transfer was reversed up to a total; returns the total known before. A smaller total than that is old news.
pub async fn reverse(tx: &mut Tx, operation: i64, total_minor: i64) -> Result<i64> {
    let statement = query_as(
        "with was as (select reversed_minor from payout_operations where id = $1 for no key update)
         update payout_operations o set reversed_minor = greatest($2, was.reversed_minor) from was where o.id = $1 returning was.reversed_minor",
    );
    let (before,): (i64,) = tx.one(statement.bind(operation).bind(total_minor)).await?;
    Ok(before)
}
