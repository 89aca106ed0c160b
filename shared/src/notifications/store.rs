//! The outbox's SQL.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Puts a message into the outbox in the transaction that caused it. The same key again is the same fact and adds nothing.
pub async fn put(tx: &mut Tx, dedupe_key: &str, kind: &'static str, payload: Value) -> Result<()> {
    let statement =
        query("insert into outbox (dedupe_key, kind, payload) values ($1, $2, $3) on conflict (dedupe_key) do nothing");
    tx.run(statement.bind(dedupe_key.to_owned()).bind(kind).bind(payload)).await?;
    Ok(())
}

/// Marks waiting rows as announced now, and returns their ids: those that nobody announced of late, and those with a way that
/// has become due since. Operators' first, then the oldest.
pub async fn claim(tx: &mut Tx, now: DateTime<Utc>, quiet_since: DateTime<Utc>, limit: i64) -> Result<Vec<i64>> {
    let statement = query_as::<(i64,)>(
        "with due as (
            select o.id from outbox o
            left join lateral (select count(*) as ways, min(d.due_at) as due_at from outbox_deliveries d where d.outbox_id = o.id) d on true
            where o.sent_at is null and case
                when d.ways = 0 then o.queued_at is null or o.queued_at < $2
                else d.due_at <= $1 and (o.queued_at is null or o.queued_at < greatest(d.due_at, $2)) end
            order by o.kind like 'creator%', o.id limit $3 for update of o skip locked)
        update outbox set queued_at = $1 from due where outbox.id = due.id returning outbox.id",
    );
    let rows = tx.all(statement.bind(now).bind(quiet_since).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
