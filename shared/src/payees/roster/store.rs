//! The SQL of looking up payees, blocking them, and the beta list.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// A payee as operators see them.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub id: Uuid,
    pub kind: String,
    pub email: Option<String>,
    pub account: Option<String>,
    pub country: Option<String>,
    pub ready: bool,
    pub payout_enabled: bool,
    pub beta: bool,
    pub schedule: String,
    pub blocked_reason: Option<String>,
    pub blocked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// What is looked for: everybody, or those whose id is in the range, or whose email or account begins like this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    pub ids: Option<(Uuid, Uuid)>,
    /// Patterns of `like`.
    pub email: Option<String>,
    pub account: Option<String>,
}

/// The payees after an id, in the order of their ids.
pub async fn search(tx: &mut Tx, search: &Search, after: Option<Uuid>, limit: i64) -> Result<Vec<Row>> {
    let statement = query_as(
        "select p.id, p.kind, p.email, f.account, f.country, f.ready, f.payout_enabled, f.beta_enabled as beta, f.schedule, p.blocked_reason,
                p.blocked_at, p.created_at
         from payees p join payee_facts f on f.payee_id = p.id
         where ($1::uuid is null or p.id > $1)
           and ($2::uuid is null and $4::text is null and $5::text is null
                or p.id between $2 and $3 or lower(p.email) like $4
                or p.id in (select a.payee_id from stripe_accounts a where a.account like $5))
         order by p.id limit $6",
    )
    .bind(after)
    .bind(search.ids.map(|(low, _)| low))
    .bind(search.ids.map(|(_, high)| high))
    .bind(search.email.clone())
    .bind(search.account.clone())
    .bind(limit);
    tx.all(statement).await
}

/// Why a payee is blocked, under the payee's lock; the outer `None`: there is no such payee.
pub async fn lock_block(tx: &mut Tx, payee: Uuid) -> Result<Option<Option<String>>> {
    let row: Option<(Option<String>,)> =
        tx.optional(query_as("select blocked_reason from payees where id = $1 for no key update").bind(payee)).await?;
    Ok(row.map(|(reason,)| reason))
}

/// Blocks a payee for a reason, or lifts the block.
pub async fn block(tx: &mut Tx, payee: Uuid, reason: Option<&str>, now: DateTime<Utc>) -> Result<()> {
    let statement =
        query("update payees set blocked_reason = $2, blocked_at = case when $2::text is not null then $3 end where id = $1");
    tx.run(statement.bind(payee).bind(reason.map(str::to_owned)).bind(now)).await?;
    Ok(())
}

/// The creators in the beta after an id.
pub async fn beta(tx: &mut Tx, after: Option<Uuid>, limit: i64) -> Result<Vec<Uuid>> {
    let statement = query_as(
        "select creator_id from creator_payout_settings where beta_enabled and ($1::uuid is null or creator_id > $1)
         order by creator_id limit $2",
    );
    let rows: Vec<(Uuid,)> = tx.all(statement.bind(after).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Which of these nobody knows.
pub async fn unknown(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let statement =
        query_as("select u.id from unnest($1::uuid[]) as u (id) where not exists (select from payees p where p.id = u.id)");
    let rows: Vec<(Uuid,)> = tx.all(statement.bind(ids.to_vec())).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Takes creators into the beta or out of it; returns those for whom that is new.
pub async fn set_beta(tx: &mut Tx, ids: &[Uuid], beta: bool) -> Result<Vec<Uuid>> {
    let statement = query_as(
        "insert into creator_payout_settings as s (creator_id, beta_enabled)
         select id, $2 from unnest($1::uuid[]) as u (id)
         where $2 or exists (select from creator_payout_settings b where b.creator_id = u.id) order by id
         on conflict (creator_id) do update set beta_enabled = excluded.beta_enabled, updated_at = now()
            where s.beta_enabled is distinct from excluded.beta_enabled
         returning creator_id",
    );
    let mut rows: Vec<(Uuid,)> = tx.all(statement.bind(ids.to_vec()).bind(beta)).await?;
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
