//! The outbox's SQL.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Waiting;
use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Puts a message into the outbox in the transaction that caused it. The same key again is the same fact and adds nothing.
pub async fn put(tx: &mut Tx, dedupe_key: &str, kind: &'static str, payload: Value) -> Result<()> {
    let statement =
        query("insert into outbox (dedupe_key, kind, payload) values ($1, $2, $3) on conflict (dedupe_key) do nothing");
    tx.run(statement.bind(dedupe_key.to_owned()).bind(kind).bind(payload)).await?;
    Ok(())
}

/// Marks waiting rows as announced now, the oldest first, and returns their ids.
pub async fn claim(tx: &mut Tx, now: DateTime<Utc>, quiet_since: DateTime<Utc>, limit: i64) -> Result<Vec<i64>> {
    let statement = query_as::<(i64,)>(
        "with due as (
            select id from outbox
            where sent_at is null and (queued_at is null or queued_at < $2)
            order by id limit $3 for update skip locked)
        update outbox set queued_at = $1 from due where outbox.id = due.id returning outbox.id",
    );
    let rows = tx.all(statement.bind(now).bind(quiet_since).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The row, locked, if it was not sent yet.
pub async fn waiting(tx: &mut Tx, id: i64) -> Result<Option<Waiting>> {
    tx.optional(query_as("select id, kind, payload from outbox where id = $1 and sent_at is null for update").bind(id)).await
}

pub async fn sent(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    tx.run(query("update outbox set sent_at = $2 where id = $1").bind(id).bind(now)).await?;
    Ok(())
}
