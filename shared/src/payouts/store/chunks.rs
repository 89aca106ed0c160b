//! The SQL of paying a chunk. The number of statements does not grow with the number of items.
//!
//! Locks are always taken in the order item → payee's balance → withdrawal request → batch, and within a table by id, so that
//! workers, webhooks and jobs never wait for each other in a circle: postings first, statuses last.

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use sqlx::FromRow;
use uuid::Uuid;

use super::super::item::{Item, Status};
use super::super::operation::{Operation, State};
use super::super::wave::{ItemUpdate, Loaded, LoadedOperation, NewOperation, OperationUpdate, Recheck, Wave};
use crate::config::Policy;
use crate::db::{Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::{BatchId, ChunkId, ItemId, OperationId, RunId};
use crate::ledger::Posting;
use crate::rails::Leg;

/// What a worker learns when it takes a chunk.
#[derive(Debug, Clone, FromRow)]
pub struct Claim {
    pub batch_id: BatchId,
    pub run_id: i64,
    pub batch_status: String,
    pub halt_reason: Option<String>,
    pub stopped: bool,
    /// This database's id, part of every key and mark.
    pub instance: String,
}

/// Takes the lease of a chunk for so many seconds; `None` if there is no such chunk or another worker has it. Attempts that
/// a dead worker left dispatched become unknown in the same transaction.
pub async fn claim(tx: &mut Tx, chunk: ChunkId, lease: Uuid, lease_seconds: i32) -> Result<Option<Claim>> {
    let statement = query_as(
        "with claimed as (
            update payout_chunks set lease = $2, leased_until = now() + $3 * interval '1 second'
            where id = $1 and leased_until < now() returning batch_id
         ), orphaned as (
            update payout_operations o set state = 'unknown', unknown_since = coalesce(o.unknown_since, o.dispatched_at)
            from payout_items i where i.chunk_id = $1 and o.item_id = i.id and o.state = 'dispatched' and exists (select from claimed)
         )
         select b.id as batch_id, b.run_id, b.status as batch_status, b.halt_reason, c.paused or c.killed as stopped, n.id as instance
         from claimed join payout_batches b on b.id = claimed.batch_id, payout_controls c, instance n",
    );
    tx.optional(statement.bind(chunk).bind(lease).bind(lease_seconds)).await
}

/// What a worker hears while it works.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Pulse {
    /// Paused, killed, or the batch is halted for another reason than funds.
    pub stopped: bool,
    /// A rate budget is slowed, so that slots are asked for even when rates are unlimited.
    pub slowed: bool,
}

/// Prolongs the lease and asks whether to go on; `None`: the lease is lost, stop at once.
pub async fn pulse(tx: &mut Tx, chunk: ChunkId, lease: Uuid, lease_seconds: i32) -> Result<Option<Pulse>> {
    let statement = query_as(
        "update payout_chunks k set leased_until = now() + $3 * interval '1 second'
         from payout_batches b, payout_controls c
         where k.id = $1 and k.lease = $2 and b.id = k.batch_id
         returning c.paused or c.killed or coalesce(b.halt_reason, 'awaiting_funds') <> 'awaiting_funds' as stopped,
                   exists (select from rate_budgets where slowed_at > now() - interval '1 minute') as slowed",
    );
    tx.optional(statement.bind(chunk).bind(lease).bind(lease_seconds)).await
}

/// Gives the chunk back, notes what it has cost, and completes its batch if nothing of it is pending or being sent any more.
/// What waits (for funds, for a bank, for a person) does not hold a batch open. Returns the run if the batch was completed now.
pub async fn release(tx: &mut Tx, chunk: ChunkId, lease: Uuid, statements: i64) -> Result<Option<RunId>> {
    let statement = query_as(
        "with released as (
            update payout_chunks set leased_until = '-infinity', lease = null, sql_statements = sql_statements + $3 where id = $1 and lease = $2
         )
         update payout_batches b set status = 'completed', halt_reason = null, completed_at = now()
         where b.id = (select batch_id from payout_chunks where id = $1) and (b.status = 'processing' or b.halt_reason = 'awaiting_funds')
           and not exists (select from payout_batch_counts c where c.batch_id = b.id and c.items > 0 and c.status in ('pending', 'transferring', 'transferred', 'paying_out'))
         returning b.run_id",
    );
    let row: Option<(RunId,)> = tx.optional(statement.bind(chunk).bind(lease).bind(statements)).await?;
    Ok(row.map(|(run,)| run))
}

#[derive(FromRow)]
struct Row {
    id: ItemId,
    creator_id: Uuid,
    currency: String,
    idempotency_key: String,
    status: String,
    amount_minor: i64,
    transfer_minor: i64,
    connected_minor: i64,
    payout_minor: i64,
    transfer_attempt: i32,
    payout_attempt: i32,
    connected_moved: bool,
    retries: i32,
    account: String,
    failure_code: Option<String>,
    failure_reason: Option<String>,
    due_at: Option<DateTime<Utc>>,
    waiting_since: Option<DateTime<Utc>>,
    operation_id: Option<OperationId>,
    leg: Option<String>,
    attempt: Option<i32>,
    state: Option<String>,
    operation_account: Option<String>,
    request_body: Option<String>,
    first_dispatched_at: Option<DateTime<Utc>>,
    dispatched_at: Option<DateTime<Utc>>,
    sends: Option<i32>,
    lookups: Option<i32>,
    look_up: Option<bool>,
    cleared: Option<bool>,
    operation_key: Option<String>,
    unknown_since: Option<DateTime<Utc>>,
    stripe_ids: Vec<String>,
}

/// The chunk's items that are due, and those named, under their locks and their payees'.
pub async fn load_due(tx: &mut Tx, chunk: ChunkId, now: DateTime<Utc>, named: &[ItemId]) -> Result<Vec<Loaded>> {
    let statement = query_as(
        "select i.id from payout_items i join payee_balances b on b.payee_id = i.creator_id and b.currency = i.currency
         where i.chunk_id = $1 and (i.due_at <= $2 or i.id = any($3)) order by i.id for no key update of i, b",
    );
    let locked = tx.all(statement.bind(chunk).bind(now).bind(named.iter().map(|id| id.0).collect::<Vec<_>>())).await?;
    read_locked(tx, locked).await
}

/// One item under its lock and its payee's.
pub async fn load(tx: &mut Tx, id: ItemId) -> Result<Option<Loaded>> {
    let statement = query_as(
        "select i.id from payout_items i join payee_balances b on b.payee_id = i.creator_id and b.currency = i.currency
         where i.id = $1 for no key update of i, b",
    );
    let locked = tx.all(statement.bind(id)).await?;
    Ok(read_locked(tx, locked).await?.into_iter().next())
}

/// Read by a statement of its own: one that waited for the locks would see the items as they are now, and their operations as
/// they were before the wait.
async fn read_locked(tx: &mut Tx, locked: Vec<(i64,)>) -> Result<Vec<Loaded>> {
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    let statement = query_as(
        "select i.id, i.creator_id, i.currency::text as currency, i.idempotency_key, i.status, i.amount_minor, i.transfer_minor, i.connected_minor,
                i.payout_minor, i.transfer_attempt, i.payout_attempt, i.connected_moved, i.retries, i.account, i.failure_code, i.failure_reason, i.due_at, i.waiting_since,
                o.id as operation_id, o.leg, o.attempt, o.state, o.account as operation_account, o.request_body, o.first_dispatched_at,
                o.dispatched_at, o.sends, o.lookups, o.look_up, o.cleared, o.idempotency_key as operation_key, o.unknown_since,
                array_remove(array(select p.stripe_id from payout_operations p where p.item_id = i.id), null) as stripe_ids
         from payout_items i
         left join lateral (select * from payout_operations p where p.item_id = i.id order by p.id desc limit 1) o on true
         where i.id = any($1) order by i.id",
    );
    let rows: Vec<Row> = tx.all(statement.bind(locked.into_iter().map(|(id,)| id).collect::<Vec<_>>())).await?;
    rows.into_iter().map(read).collect()
}

fn read(row: Row) -> Result<Loaded> {
    let unreadable = |what: &str| Error::internal(format!("Item {} has {what} that this version does not know.", row.id));
    let item = Item {
        id: row.id,
        payee: row.creator_id,
        currency: row.currency.parse()?,
        status: Status::parse(&row.status).ok_or_else(|| unreadable("a status"))?,
        amount_minor: row.amount_minor,
        transfer_minor: row.transfer_minor,
        connected_minor: row.connected_minor,
        payout_minor: row.payout_minor,
        transfer_attempt: row.transfer_attempt,
        payout_attempt: row.payout_attempt,
        connected_moved: row.connected_moved,
        retries: row.retries,
    };
    let operation = match row.operation_id {
        None => None,
        Some(id) => {
            let missing = || unreadable("an operation");
            Some(LoadedOperation {
                id,
                facts: Operation {
                    leg: row.leg.as_deref().and_then(Leg::parse).ok_or_else(missing)?,
                    attempt: row.attempt.ok_or_else(missing)?,
                    state: row.state.as_deref().and_then(State::parse).ok_or_else(missing)?,
                    first_dispatched_at: row.first_dispatched_at.ok_or_else(missing)?,
                    dispatched_at: row.dispatched_at.ok_or_else(missing)?,
                    sends: row.sends.ok_or_else(missing)?,
                    look_up: row.look_up.ok_or_else(missing)?,
                    cleared: row.cleared.ok_or_else(missing)?,
                },
                key: row.operation_key.ok_or_else(missing)?,
                account: row.operation_account.ok_or_else(missing)?,
                body: row.request_body.ok_or_else(missing)?,
                lookups: row.lookups.ok_or_else(missing)?,
                unknown_since: row.unknown_since,
            })
        }
    };
    Ok(Loaded {
        was: item.status,
        item,
        key: row.idempotency_key,
        account: row.account,
        destination: None,
        failure_code: row.failure_code,
        failure_reason: row.failure_reason,
        due_at: row.due_at,
        waiting_since: row.waiting_since,
        operation,
        stripe_ids: row.stripe_ids,
    })
}

/// Eligibility asked once more for items about to be sent.
pub async fn recheck(tx: &mut Tx, items: &[ItemId], policy: &Policy, now: DateTime<Utc>) -> Result<Vec<Recheck>> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let statement = query_as("select item_id, account, destination, automatic, reason from payout_recheck($1, $2, $3)");
    tx.all(statement.bind(items.iter().map(|id| id.0).collect::<Vec<_>>()).bind(policy).bind(now)).await
}

/// Of items whose money is at Stripe, those that must not go on to the bank now, with the reason: their payee is blocked, or the
/// bank account has become another one and waits for the cool-off or for an operator.
pub async fn held_back(tx: &mut Tx, items: &[ItemId], policy: &Policy, now: DateTime<Utc>) -> Result<Vec<(ItemId, String)>> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let statement = query_as(
        "select i.id, case when p.blocked_reason is not null then 'blocked' else 'destination_cooloff' end
         from payout_items i join payees p on p.id = i.creator_id join currencies c on c.code = i.currency left join stripe_accounts a on a.payee_id = i.creator_id
         where i.id = any($1)
           and (p.blocked_reason is not null or a.destination_changed_at + make_interval(hours => ($2 ->> 'destination_cooloff_hours')::int) > $3
                or needs_second_look($2, i.amount_minor * c.micros_per_minor, a.destination_changed_at, a.destination, a.confirmed_destination))",
    );
    tx.all(statement.bind(items.iter().map(|id| id.0).collect::<Vec<_>>()).bind(policy).bind(now)).await
}

/// Writes a wave, in one statement; a withdrawal request follows its item. If anything is no longer as it was loaded, it is refused as a whole and the caller reads again.
pub async fn save(tx: &mut Tx, wave: &Wave, now: DateTime<Utc>) -> Result<()> {
    // The new attempts come after the old ones are closed, since an item has one open attempt.
    let statement = query_as(
        "with posted as (
            insert into ledger_transfers (event, leg, attempt, payee_id, currency, from_account, to_account, amount_micros)
            select * from jsonb_to_recordset($1) as u (event text, leg text, attempt int, payee uuid, currency text, source text, target text, micros bigint)
         ), operations as (
            update payout_operations o set
                state = u.state, first_dispatched_at = u.first_dispatched_at, dispatched_at = u.dispatched_at, send_deadline = coalesce(u.send_deadline, o.send_deadline),
                sends = u.sends, lookups = u.lookups, look_up = u.look_up, cleared = u.cleared,
                stripe_id = coalesce(o.stripe_id, u.stripe_id), stripe_status = coalesce(u.stripe_status, o.stripe_status),
                http_status = coalesce(u.http_status, o.http_status), code = coalesce(u.code, o.code), message = coalesce(u.message, o.message),
                request_id = coalesce(u.request_id, o.request_id), replayed = o.replayed or u.replayed, unknown_since = u.unknown_since,
                settled_at = case when u.state in ('accepted', 'rejected', 'returned', 'canceled') then $5 end
            from jsonb_to_recordset($2) as u (
                id bigint, was text, state text, first_dispatched_at timestamptz, dispatched_at timestamptz, send_deadline timestamptz, sends int, lookups int,
                look_up bool, cleared bool, stripe_id text, stripe_status text, http_status int, code text, message text, request_id text, replayed bool,
                unknown_since timestamptz)
            where o.id = u.id and o.state = u.was
            returning 1
         ), closed as (
            select count(*) as operations from operations
         ), opened as (
            insert into payout_operations (item_id, leg, attempt, state, idempotency_key, account, amount_minor, currency, request_body,
                                           first_dispatched_at, dispatched_at, send_deadline)
            select u.item_id, u.leg, u.attempt, 'dispatched', u.key, u.account, u.amount_minor, u.currency, u.body, u.dispatched_at, u.dispatched_at, u.send_deadline
            from closed, jsonb_to_recordset($3) as u (
                item_id bigint, leg text, attempt int, key text, account text, amount_minor bigint, currency text, body text, dispatched_at timestamptz,
                send_deadline timestamptz)
            where closed.operations >= 0
         ), items as (
            update payout_items i set
                status = u.status, transfer_attempt = u.transfer_attempt, payout_attempt = u.payout_attempt, connected_moved = u.connected_moved,
                retries = u.retries, account = u.account, destination = coalesce(u.destination, i.destination), payout_minor = u.payout_minor,
                failure_code = u.failure_code, failure_reason = u.failure_reason, due_at = u.due_at, waiting_since = u.waiting_since,
                arrival_on = coalesce(u.arrival_on, i.arrival_on), updated_at = $5,
                paid_at = case when u.status = 'paid' then coalesce(i.paid_at, $5) end
            from jsonb_to_recordset($4) as u (
                id bigint, was text, status text, transfer_attempt int, payout_attempt int, connected_moved bool, retries int, account text, destination text,
                payout_minor bigint, failure_code text, failure_reason text, due_at timestamptz, waiting_since timestamptz, arrival_on date)
            where i.id = u.id and i.status = u.was
            returning 1
         ), withdrawals as (
            update withdrawal_requests w set status = u.becomes, updated_at = $5
            from (select id, case status when 'paid' then 'paid' when 'failed' then 'failed' when 'canceled' then 'failed' else 'batched' end as becomes
                  from jsonb_to_recordset($4) as i (id bigint, status text)) as u
            where w.item_id = u.id and w.status <> u.becomes
         )
         select closed.operations, (select count(*) from items) from closed",
    )
    .bind(wave.postings.iter().filter(|it| it.micros != 0).map(posting_row).collect::<Json>())
    .bind(wave.operations.iter().map(operation_row).collect::<Json>())
    .bind(wave.new_operations.iter().map(new_operation_row).collect::<Json>())
    .bind(wave.items.iter().map(item_row).collect::<Json>())
    .bind(now);
    let written: (i64, i64) = tx.one(statement).await?;
    let meant = [wave.operations.len(), wave.items.len()].map(|rows| i64::try_from(rows).unwrap_or(i64::MAX));
    if written == meant.into() {
        return Ok(());
    }
    Err(Error::unavailable("CHANGED_MEANWHILE", "Something else changed the same payments just now; try again."))
}

fn posting_row(it: &Posting) -> Json {
    json!({
        "event": it.event, "leg": it.leg, "attempt": it.attempt, "payee": it.payee, "currency": it.currency, "source": it.from.as_str(),
        "target": it.to.as_str(), "micros": it.micros,
    })
}

fn operation_row(it: &OperationUpdate) -> Json {
    json!({
        "id": it.id, "was": it.was.as_str(), "state": it.state.as_str(), "first_dispatched_at": it.first_dispatched_at,
        "dispatched_at": it.dispatched_at, "send_deadline": it.send_deadline, "sends": it.sends, "lookups": it.lookups, "look_up": it.look_up,
        "cleared": it.cleared, "stripe_id": it.stripe_id, "stripe_status": it.stripe_status, "http_status": it.http_status, "code": it.code,
        "message": it.message, "request_id": it.request_id, "replayed": it.replayed, "unknown_since": it.unknown_since,
    })
}

fn new_operation_row(it: &NewOperation) -> Json {
    json!({
        "item_id": it.item, "leg": it.leg.as_str(), "attempt": it.attempt, "key": it.key, "account": it.account, "amount_minor": it.amount_minor,
        "currency": it.currency, "body": it.body, "dispatched_at": it.dispatched_at, "send_deadline": it.send_deadline,
    })
}

fn item_row(it: &ItemUpdate) -> Json {
    json!({
        "id": it.item.id, "was": it.was.as_str(), "status": it.item.status.as_str(), "transfer_attempt": it.item.transfer_attempt,
        "payout_attempt": it.item.payout_attempt, "connected_moved": it.item.connected_moved, "retries": it.item.retries, "account": it.account,
        "destination": it.destination, "payout_minor": it.item.payout_minor, "failure_code": it.failure_code, "failure_reason": it.failure_reason,
        "due_at": it.due_at, "waiting_since": it.waiting_since, "arrival_on": it.arrival_on,
    })
}

/// Reserves the next `count` slots of an endpoint's rate budget, shared by all workers. Returns the milliseconds until the
/// first and between two; (0, 0) when nothing limits. The spacing is 2 % wider than the rate so that jitter never makes a 21st of 20.
pub async fn reserve_slots(tx: &mut Tx, leg: Leg, count: i64, per_second: i64) -> Result<(i64, i64)> {
    let statement = query_as(
        "with budget as (
            select endpoint, greatest(next_at, clock_timestamp()) as from_at,
                   greatest(1, slowed_by >> least(5, floor(extract(epoch from clock_timestamp() - slowed_at) / 10))::int) as slowed
            from rate_budgets where endpoint = $1 for no key update
         ), spaced as (
            select *, case when $3 = 0 and slowed = 1 then 0 else 1020000 * slowed / case when $3 = 0 then 100 else $3 end end as gap_micros from budget
         )
         update rate_budgets b set next_at = s.from_at + s.gap_micros * $2 * interval '1 microsecond'
         from spaced s where b.endpoint = s.endpoint
         returning ceil(extract(epoch from s.from_at - clock_timestamp()) * 1000)::bigint, (s.gap_micros / 1000)::bigint",
    );
    let (start, gap): (i64, i64) = tx.one(statement.bind(endpoint(leg)).bind(count).bind(per_second)).await?;
    Ok((start.max(0), gap))
}

/// After a 429: every worker's next slot of the endpoint is a second away, and slots are twice as far apart for a while.
/// A burst of refusals counts once.
pub async fn slow_down(tx: &mut Tx, leg: Leg) -> Result<()> {
    let statement = query(
        "update rate_budgets set slowed_by = least(32, 2 * greatest(1, slowed_by >> least(5, floor(extract(epoch from now() - slowed_at) / 10))::int)),
                slowed_at = now(), next_at = greatest(next_at, now() + interval '1 second')
         where endpoint = $1 and slowed_at < now() - interval '1 second'",
    );
    tx.run(statement.bind(endpoint(leg))).await?;
    Ok(())
}

fn endpoint(leg: Leg) -> &'static str {
    match leg {
        Leg::Transfer => "transfers",
        Leg::Payout => "payouts",
    }
}

/// Why an item that was batched is not paid after all, for the run's record. What it had reserved is about to be released and
/// belongs to the balance.
pub async fn exclude(tx: &mut Tx, batch: BatchId, canceled: &[(ItemId, String)]) -> Result<()> {
    if canceled.is_empty() {
        return Ok(());
    }
    let statement = query(
        "insert into payout_exclusions (run_id, creator_id, currency, reason, code, balance_micros, payable_minor)
         select b.run_id, i.creator_id, i.currency, u.reason, case when u.reason = 'destination_cooloff' then destination_code(i.creator_id, p.policy, now()) end,
                m.held_platform + m.held_connected + m.available_platform + m.available_connected + i.amount_minor * c.micros_per_minor, i.amount_minor
         from unnest($2::bigint[], $3::text[]) as u (id, reason)
         join payout_items i on i.id = u.id join payout_batches b on b.id = i.batch_id join currencies c on c.code = i.currency
         join payee_balances m on m.payee_id = i.creator_id and m.currency = i.currency cross join payout_policies p
         where b.id = $1
         on conflict (run_id, creator_id, currency) do update set reason = excluded.reason, code = excluded.code, balance_micros = excluded.balance_micros, payable_minor = excluded.payable_minor",
    )
    .bind(batch)
    .bind(canceled.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
    .bind(canceled.iter().map(|(_, reason)| reason.clone()).collect::<Vec<_>>());
    tx.run(statement).await?;
    Ok(())
}
