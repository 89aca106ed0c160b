//! The audit log's SQL.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;

use super::{Act, By};
use crate::db::{ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::Result;

/// Adds a row. The database gives it its number, its time and its hash.
pub(super) async fn insert(tx: &mut Tx, by: &By, act: &Act, outcome: &'static str) -> Result<()> {
    let statement = query(
        "insert into audit_log (actor, action, subject, outcome, before, after, request_id) values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(by.actor.clone())
    .bind(act.action)
    .bind(act.subject.clone())
    .bind(outcome)
    .bind(act.before.clone())
    .bind(act.after.clone())
    .bind(by.request_id.clone());
    tx.run(statement).await?;
    Ok(())
}

/// A row of the log.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub outcome: String,
    pub before: Value,
    pub after: Value,
    pub request_id: String,
    pub hash: String,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub subject: Option<String>,
}

/// The rows before a number, newest first.
pub async fn page(tx: &mut Tx, filter: &Filter, before: Option<i64>, limit: i64) -> Result<Vec<Row>> {
    let statement = query_as(
        "select id, at, actor, action, subject, outcome, before, after, request_id, encode(hash, 'hex') as hash from audit_log
         where ($1::text is null or actor = $1) and ($2::text is null or action = $2) and ($3::text is null or subject = $3)
           and ($4::bigint is null or id < $4)
         order by id desc limit $5",
    )
    .bind(filter.actor.clone())
    .bind(filter.action.clone())
    .bind(filter.subject.clone())
    .bind(before)
    .bind(limit);
    tx.all(statement).await
}

/// The newest row's number and hash: whoever keeps them elsewhere can tell later that nothing before was touched.
pub async fn head(tx: &mut Tx) -> Result<(i64, String)> {
    tx.one(query_as("select id, encode(hash, 'hex') from audit_head")).await
}

/// The rows at which the chain is broken, with the reason. Expected: nothing. Reads the whole log.
pub async fn breaches(tx: &mut Tx) -> Result<Vec<(i64, String)>> {
    tx.run(query(ROOM_FOR_MANY)).await?;
    tx.all(query_as("select id, problem from audit_breaches()")).await
}
