//! The SQL of withdrawals.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Parts, Withdrawal};
use crate::config::Policy;
use crate::db::{Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ItemId, batch_hash, item_key};
use crate::payouts::store::batches;

/// A request as its creator is told of it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Request {
    pub id: Uuid,
    pub token_amount: i64,
    pub currency: String,
    /// What is paid.
    pub amount_minor: i64,
    pub status: String,
    pub item_id: Option<ItemId>,
    /// Of the item, which says more than the request's own.
    pub item_status: Option<String>,
    /// Stripe's, or the exclusion for which it was not sent.
    pub failure_code: Option<String>,
    /// Pending because an earlier payment has to be settled first.
    pub has_to_wait: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A request to be made.
#[derive(Debug, Clone)]
pub struct New {
    pub asked: Withdrawal,
    pub parts: Parts,
    pub key: Option<String>,
    /// None: with the next cycle.
    pub due_at: Option<DateTime<Utc>>,
}

/// Takes the lock of a creator's key until the transaction ends; `false`: another request with the key is under way.
pub async fn take_key(tx: &mut Tx, creator: Uuid, key: &str) -> Result<bool> {
    let statement = query_as("select pg_try_advisory_xact_lock(hashtextextended($1, 0))");
    let (taken,): (bool,) = tx.one(statement.bind(format!("withdrawal:{creator}:{key}"))).await?;
    Ok(taken)
}

pub async fn by_key(tx: &mut Tx, creator: Uuid, key: &str) -> Result<Option<Request>> {
    let statement = query_as("select id from withdrawal_requests where creator_id = $1 and idempotency_key = $2");
    let found: Option<(Uuid,)> = tx.optional(statement.bind(creator).bind(key.to_owned())).await?;
    match found {
        Some((id,)) => of_creator(tx, creator, id).await,
        None => Ok(None),
    }
}

pub async fn of_creator(tx: &mut Tx, creator: Uuid, id: Uuid) -> Result<Option<Request>> {
    let statement = query_as(
        "select w.id, w.token_amount, w.currency::text as currency, w.transfer_minor + w.connected_minor as amount_minor, w.status, w.item_id,
                i.status as item_status, coalesce(i.failure_code, w.failure_code) as failure_code,
                w.status = 'pending' and exists (select from payout_items u where u.creator_id = w.creator_id and u.currency = w.currency and is_unsettled(u.status))
                    as has_to_wait, w.created_at, w.updated_at
         from withdrawal_requests w left join payout_items i on i.id = w.item_id
         where w.creator_id = $1 and w.id = $2",
    );
    tx.optional(statement.bind(creator).bind(id)).await
}

/// A creator's requests, newest first, older than a position.
pub async fn page(tx: &mut Tx, creator: Uuid, before: Option<(DateTime<Utc>, Uuid)>, limit: i64) -> Result<Vec<Request>> {
    let statement = query_as(
        "select w.id, w.token_amount, w.currency::text as currency, w.transfer_minor + w.connected_minor as amount_minor, w.status, w.item_id,
                i.status as item_status, coalesce(i.failure_code, w.failure_code) as failure_code,
                w.status = 'pending' and exists (select from payout_items u where u.creator_id = w.creator_id and u.currency = w.currency and is_unsettled(u.status))
                    as has_to_wait, w.created_at, w.updated_at
         from withdrawal_requests w left join payout_items i on i.id = w.item_id
         where w.creator_id = $1 and ($2::timestamptz is null or (w.created_at, w.id) < ($2, $3))
         order by w.created_at desc, w.id desc limit $4",
    );
    let (at, id) = before.unzip();
    tx.all(statement.bind(creator).bind(at).bind(id).bind(limit)).await
}

/// The caller holds the payee's balance and has seen that it suffices.
pub async fn insert(tx: &mut Tx, new: &New) -> Result<Request> {
    let Withdrawal { creator, tokens, micros, currency } = new.asked;
    let statement = query_as(
        "insert into withdrawal_requests (creator_id, token_amount, currency, amount_micros, transfer_minor, connected_minor, idempotency_key, due_at, queued_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         returning id",
    );
    let statement = statement.bind(creator).bind(tokens).bind(currency.code()).bind(micros);
    let statement =
        statement.bind(new.parts.transfer_minor).bind(new.parts.connected_minor).bind(new.key.clone()).bind(new.due_at);
    let (id,): (Uuid,) = tx.one(statement).await?;
    of_creator(tx, creator, id).await?.ok_or_else(|| Error::internal("A withdrawal request is gone again."))
}

/// Whose request it is, and its currency.
pub async fn owner(tx: &mut Tx, id: Uuid) -> Result<Option<(Uuid, String)>> {
    let statement = query_as("select creator_id, currency::text from withdrawal_requests where id = $1");
    tx.optional(statement.bind(id)).await
}

/// A request as those see it who decide about it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Locked {
    pub id: Uuid,
    pub creator_id: Uuid,
    pub currency: String,
    pub status: String,
    pub transfer_minor: i64,
    pub connected_minor: i64,
    pub due_at: Option<DateTime<Utc>>,
}

pub async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<Locked>> {
    let statement = query_as(
        "select id, creator_id, currency::text as currency, status, transfer_minor, connected_minor, due_at
         from withdrawal_requests where id = $1 for no key update",
    );
    tx.optional(statement.bind(id)).await
}

/// Ends a pending request without an item.
pub async fn close(tx: &mut Tx, id: Uuid, status: &'static str, failure_code: Option<&'static str>) -> Result<()> {
    let statement = query(
        "update withdrawal_requests set status = $2, failure_code = $3, updated_at = now() where id = $1 and status = 'pending'",
    );
    tx.run(statement.bind(id).bind(status).bind(failure_code)).await?;
    Ok(())
}

/// Whether an earlier payment stands between the payee and the next one.
pub async fn has_unsettled_item(tx: &mut Tx, creator: Uuid, currency: &str) -> Result<bool> {
    let statement =
        query_as("select exists (select from payout_items where creator_id = $1 and currency = $2 and is_unsettled(status))");
    let (unsettled,): (bool,) = tx.one(statement.bind(creator).bind(currency.to_owned())).await?;
    Ok(unsettled)
}

/// Where a payee's money goes.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Way {
    pub account: Option<String>,
    pub destination: Option<String>,
    /// Stripe pays the account out by itself.
    pub automatic: bool,
}

pub async fn way(tx: &mut Tx, creator: Uuid) -> Result<Option<Way>> {
    let statement = query_as(
        "select f.account, a.destination, f.automatic from payee_facts f left join stripe_accounts a on a.payee_id = f.payee_id where f.payee_id = $1",
    );
    tx.optional(statement.bind(creator)).await
}

/// Makes the run of a pending request with its batch, chunk and item, in one statement. The item takes over what the request
/// has reserved, so nothing is posted.
pub async fn batch(
    tx: &mut Tx,
    request: &Locked,
    way: &Way,
    policy: &Policy,
    cycle_on: NaiveDate,
    now: DateTime<Utc>,
) -> Result<ChunkId> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let instance = batches::instance(tx).await?;
    let occasion = request.id.to_string();
    let hash = batch_hash(&instance, "withdrawal", "on_demand", &occasion, &request.currency);
    let amount_minor = request.transfer_minor + request.connected_minor;
    let statement = query_as(
        "with run as (
            insert into payout_runs (kind, schedule, cycle_on, cutoff_at, requested_by, policy, batches_created_at, queued_at)
            values ('withdrawal', $1, $2, $3, $4::uuid::text, $5, $3, $3) returning id
         ), batch as (
            insert into payout_batches (run_id, currency, batch_hash, items, amount_minor) select id, $6, $7, 1, $8 from run returning id
         ), chunk as (
            insert into payout_chunks (batch_id, ordinal, queued_at) select id, 0, $3 from batch returning id, batch_id
         ), item as (
            insert into payout_items (batch_id, chunk_id, creator_id, currency, idempotency_key, amount_minor, transfer_minor, connected_minor, payout_minor,
                                      account, destination, due_at)
            select batch_id, id, $4::uuid, $6, $9, $8, $10, $11, $12, $13, $14, $3 from chunk returning id
         ), request as (
            update withdrawal_requests w set status = 'batched', item_id = item.id, updated_at = $3 from item where w.id = $15
         )
         select id from chunk",
    );
    let statement = statement.bind(occasion).bind(cycle_on).bind(now).bind(request.creator_id).bind(policy);
    let key = item_key(&instance, &hash, request.creator_id);
    let statement = statement.bind(request.currency.clone()).bind(hash).bind(amount_minor).bind(key);
    let statement = statement.bind(request.transfer_minor).bind(request.connected_minor);
    let statement = statement.bind(if way.automatic { 0 } else { amount_minor });
    let (chunk_id,): (ChunkId,) =
        tx.one(statement.bind(way.account.clone()).bind(way.destination.clone()).bind(request.id)).await?;
    Ok(chunk_id)
}

/// Due requests that can be batched and whose last message is a while ago, oldest first, marked as queued again.
pub async fn take_due(tx: &mut Tx, quiet_since: DateTime<Utc>, limit: i64) -> Result<Vec<Uuid>> {
    let statement = query_as(
        "with due as (
            select w.id from withdrawal_requests w
            where w.status = 'pending' and w.due_at <= now() and coalesce(w.queued_at, '-infinity') < $1
              and not exists (select from payout_items i where i.creator_id = w.creator_id and i.currency = w.currency and is_unsettled(i.status))
            order by w.due_at, w.id limit $2 for no key update of w skip locked)
         update withdrawal_requests w set queued_at = now() from due where w.id = due.id returning w.id",
    );
    let rows: Vec<(Uuid,)> = tx.all(statement.bind(quiet_since).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
