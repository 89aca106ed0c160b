//! The SQL of reconciliation.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value as Json, json};
use sqlx::FromRow;
use uuid::Uuid;

use super::compare::{LEAST_HELD_DAYS, Ours};
use super::{Finding, Held, Standing, Totals};
use crate::db::{ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::{ItemId, OperationId};
use crate::payouts::item::Status;
use crate::payouts::operation::State;
use crate::rails::Leg;

/// Begins a reconciliation if none is open and the last one began before `last_before`. It compares what was made since a day
/// before the last one began, and 30 days back at first.
pub async fn begin(tx: &mut Tx, now: DateTime<Utc>, last_before: DateTime<Utc>) -> Result<u64> {
    let statement = query(
        "insert into reconciliations (since, started_at)
         select greatest(coalesce(max(started_at) - interval '1 day', '-infinity'), $1 - interval '30 days'), $1 from reconciliations
         having coalesce(max(started_at), '-infinity') < $2 and count(*) filter (where finished_at is null) = 0
         on conflict do nothing",
    );
    Ok(tx.run(statement.bind(now).bind(last_before)).await?.rows_affected())
}

#[derive(FromRow)]
struct StandingRow {
    id: i64,
    stage: String,
    cursor: Option<String>,
    since: DateTime<Utc>,
    started_at: DateTime<Utc>,
    instance: String,
}

/// Takes the lease of the open reconciliation; `None`: there is none, or another process works on it.
pub async fn take(tx: &mut Tx, lease: Uuid, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<Option<Standing>> {
    let statement = query_as::<StandingRow>(
        "update reconciliations r set lease = $1, leased_until = $3 from instance n
         where r.finished_at is null and r.leased_until < $2
         returning r.id, r.stage, r.cursor, r.since, r.started_at, n.id as instance",
    );
    let Some(row) = tx.optional(statement.bind(lease).bind(now).bind(until)).await? else { return Ok(None) };
    let unknown = || Error::internal(format!("Reconciliation {} has a stage that this version does not know.", row.id));
    let stage = super::Stage::parse(&row.stage).ok_or_else(unknown)?;
    Ok(Some(Standing {
        id: row.id,
        lease,
        stage,
        cursor: row.cursor,
        since: row.since,
        started_at: row.started_at,
        instance: row.instance,
        ..Standing::default()
    }))
}

/// Writes where the reconciliation stands now and prolongs the lease; `false`: another process has it.
pub async fn advance(tx: &mut Tx, it: &Standing, until: DateTime<Utc>) -> Result<bool> {
    let statement = query(
        "update reconciliations set stage = $3, cursor = $4, leased_until = $5, reads = reads + $6, events_missed = events_missed + $7,
                mended = mended + $8, finished_at = case when $3 = 'done' then now() end
         where id = $1 and lease = $2 and finished_at is null",
    );
    let statement = statement
        .bind(it.id)
        .bind(it.lease)
        .bind(it.stage.as_str())
        .bind(it.cursor.clone())
        .bind(until)
        .bind(it.reads)
        .bind(it.events_missed)
        .bind(it.mended);
    Ok(tx.run(statement).await?.rows_affected() > 0)
}

/// Gives the lease back, so that the next process need not wait for its end.
pub async fn give_back(tx: &mut Tx, it: &Standing) -> Result<()> {
    let statement = query("update reconciliations set leased_until = '-infinity' where id = $1 and lease = $2");
    tx.run(statement.bind(it.id).bind(it.lease)).await?;
    Ok(())
}

#[derive(FromRow)]
struct OursRow {
    asked: String,
    operation_id: OperationId,
    item_id: ItemId,
    creator_id: Uuid,
    state: String,
    stripe_id: Option<String>,
    amount_minor: i64,
    currency: String,
    account: String,
    reversed_minor: i64,
    item_status: String,
}

/// The operations that objects of Stripe's belong to, by the object's id or else by our mark on it; with the id that was asked.
pub async fn ours(tx: &mut Tx, leg: Leg, ids: Vec<String>, marks: Vec<Option<String>>) -> Result<Vec<(String, Ours)>> {
    let statement = query_as::<OursRow>(
        "with theirs as (
            select t.stripe_id, coalesce(
                (select o.id from payout_operations o where o.stripe_id = t.stripe_id),
                (select o.id from payout_operations o
                 where t.mark like n.id || '-%' and o.item_id = substring(t.mark from '^[0-9a-f]+-(\\d{1,18})-')::bigint
                   and o.leg = substring(t.mark from '-(transfer|payout)-') and o.attempt = substring(t.mark from '-(\\d{1,9})$')::int)) as operation_id
            from unnest($1::text[], $2::text[]) as t (stripe_id, mark), instance n)
         select t.stripe_id as asked, o.id as operation_id, o.item_id, i.creator_id, o.state, o.stripe_id, o.amount_minor, o.currency::text as currency,
                o.account, o.reversed_minor, i.status as item_status
         from theirs t join payout_operations o on o.id = t.operation_id and o.leg = $3 join payout_items i on i.id = o.item_id",
    );
    let rows = tx.all(statement.bind(ids).bind(marks).bind(leg.as_str())).await?;
    rows.into_iter().map(read).collect()
}

fn read(row: OursRow) -> Result<(String, Ours)> {
    let unreadable = || Error::internal(format!("Operation {} is in a state that this version does not know.", row.operation_id));
    let ours = Ours {
        operation: row.operation_id,
        item: row.item_id,
        payee: row.creator_id,
        state: State::parse(&row.state).ok_or_else(unreadable)?,
        stripe_id: row.stripe_id,
        amount_minor: row.amount_minor,
        currency: row.currency,
        account: row.account,
        reversed_minor: row.reversed_minor,
        item_status: Status::parse(&row.item_status).ok_or_else(unreadable)?,
    };
    Ok((row.asked, ours))
}

/// Writes what was found. Found again it stays the same row: opened anew if it was resolved, or if a person ignored something else.
pub async fn record(tx: &mut Tx, it: &Standing, findings: &[Finding]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let rows: Json = findings.iter().map(finding_row).collect();
    let statement = query(
        "insert into discrepancies as d (kind, subject, payee_id, item_id, account, expected, found)
         select distinct on (u.kind, u.subject) u.kind, u.subject, u.payee_id, u.item_id, u.account, u.expected, u.found
         from jsonb_to_recordset($1) as u (kind text, subject text, payee_id uuid, item_id bigint, account text, expected text, found text)
         order by u.kind, u.subject
         on conflict (kind, subject) do update set
            payee_id = excluded.payee_id, item_id = excluded.item_id, account = excluded.account, expected = excluded.expected, found = excluded.found,
            state = case when d.state = 'ignored' and d.found = excluded.found then 'ignored' else 'open' end,
            first_seen_at = case when d.state = 'resolved' then now() else d.first_seen_at end,
            times_seen = case when d.state = 'resolved' then 1 when d.last_seen_at < $2 then d.times_seen + 1 else d.times_seen end,
            told_at = case when d.state = 'resolved' or d.state = 'ignored' and d.found <> excluded.found then null else d.told_at end,
            last_seen_at = now(), resolved_at = null",
    );
    tx.run(statement.bind(rows).bind(it.started_at)).await?;
    Ok(())
}

fn finding_row(it: &Finding) -> Json {
    json!({
        "kind": it.kind.as_str(), "subject": it.subject, "payee_id": it.payee, "item_id": it.item, "account": it.account,
        "expected": it.expected, "found": it.found,
    })
}

/// Resolves what was compared again and not found again.
pub async fn resolve_compared(tx: &mut Tx, subjects: &[String], findings: &[Finding]) -> Result<()> {
    let statement = query(
        "update discrepancies d set state = 'resolved', resolved_at = now()
         where d.state <> 'resolved' and d.subject = any($1)
           and not exists (select from unnest($2::text[], $3::text[]) as u (kind, subject) where u.kind = d.kind and u.subject = d.subject)",
    )
    .bind(subjects.to_vec())
    .bind(findings.iter().map(|it| it.kind.as_str().to_owned()).collect::<Vec<_>>())
    .bind(findings.iter().map(|it| it.subject.clone()).collect::<Vec<_>>());
    tx.run(statement).await?;
    Ok(())
}

/// Notes that the objects of these operations were found at Stripe and are settled. A payout is looked at for the last time when a
/// bank has had its time to send it back.
pub async fn settled(tx: &mut Tx, operations: Vec<OperationId>, payouts_before: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "update payout_operations set reconciled_at = now()
         where id = any($1) and reconciled_at is null and (leg = 'transfer' or dispatched_at < $2)",
    );
    tx.run(statement.bind(operations.into_iter().map(|id| id.0).collect::<Vec<_>>()).bind(payouts_before)).await?;
    Ok(())
}

/// Adds Stripe's amounts of the objects that bear our mark, and what the ledger has for their operations.
pub async fn add_up(tx: &mut Tx, it: &Standing, leg: Leg, totals: &[Totals]) -> Result<()> {
    let statement = query(
        "with theirs as (
            select * from unnest($3::bigint[], $4::text[], $5::bigint[]) as u (operation_id, currency, minor)
         ), booked as (
            select t.currency, count(*) as objects, sum(t.minor) as stripe_minor, coalesce(sum(b.micros / c.micros_per_minor), 0) as ledger_minor
            from theirs t join currencies c on c.code = t.currency
            left join payout_operations o on o.id = t.operation_id
            left join lateral (
                select sum(case when l.leg = 'return' then -l.amount_micros else l.amount_micros end)
                       - case when o.leg = 'transfer' then o.reversed_minor * c.micros_per_minor else 0 end as micros
                from ledger_transfers l
                where l.event = 'item:' || o.item_id and l.attempt = o.attempt
                  and l.leg = any (case when o.leg = 'transfer' then array['arrive'] else array['settle', 'return'] end)) b on true
            group by t.currency)
         insert into reconciliation_sums as s (reconciliation_id, leg, currency, objects, stripe_minor, ledger_minor)
         select $1, $2, currency, objects, stripe_minor, ledger_minor from booked order by currency
         on conflict (reconciliation_id, leg, currency) do update set
            objects = s.objects + excluded.objects, stripe_minor = s.stripe_minor + excluded.stripe_minor, ledger_minor = s.ledger_minor + excluded.ledger_minor",
    )
    .bind(it.id)
    .bind(leg.as_str())
    .bind(totals.iter().map(|it| it.operation.map(|id| id.0)).collect::<Vec<_>>())
    .bind(totals.iter().map(|it| it.currency.clone()).collect::<Vec<_>>())
    .bind(totals.iter().map(|it| it.minor).collect::<Vec<_>>());
    tx.run(statement).await?;
    Ok(())
}

/// A connected account whose payouts are to be asked about.
#[derive(Debug, Clone, FromRow)]
pub struct DueAccount {
    pub account: String,
    pub payee: Uuid,
    /// When the oldest of them was dispatched.
    pub since: DateTime<Utc>,
    pub operations: Vec<i64>,
    pub stripe_ids: Vec<String>,
}

/// Accounts after one, with payouts whose arrival day is over without news, or that are to be looked at for the last time.
pub async fn due_accounts(
    tx: &mut Tx,
    after: Option<&str>,
    today: NaiveDate,
    last_look_before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<DueAccount>> {
    tx.run(query(ROOM_FOR_MANY)).await?;
    let statement = query_as(
        "select o.account, (array_agg(i.creator_id))[1] as payee, min(o.first_dispatched_at) as since, array_agg(o.id order by o.id) as operations,
                array_agg(o.stripe_id order by o.id) as stripe_ids
         from payout_operations o join payout_items i on i.id = o.item_id
         where o.leg = 'payout' and o.stripe_id is not null and o.account > coalesce($1, '')
           and (i.status = 'in_transit' and o.state = 'accepted' and coalesce(i.arrival_on, (o.dispatched_at + interval '5 days')::date) < $2
                or o.reconciled_at is null and o.state in ('accepted', 'returned') and o.dispatched_at < $3)
         group by o.account order by o.account limit $4",
    );
    tx.all(statement.bind(after.map(str::to_owned)).bind(today).bind(last_look_before).bind(limit)).await
}

/// Accepted transfers sent after an instant and known before another that no page of Stripe's had, after an operation.
pub async fn unseen_transfers(
    tx: &mut Tx,
    sent_after: DateTime<Utc>,
    known_before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Ours>> {
    let statement = query_as::<OursRow>(
        "select coalesce(o.stripe_id, '') as asked, o.id as operation_id, o.item_id, i.creator_id, o.state, o.stripe_id, o.amount_minor,
                o.currency::text as currency, o.account, o.reversed_minor, i.status as item_status
         from payout_operations o join payout_items i on i.id = o.item_id
         where o.leg = 'transfer' and o.state in ('accepted', 'returned') and o.reconciled_at is null
           and o.first_dispatched_at > $1 and o.settled_at < $2
         order by o.id limit $3",
    );
    let rows = tx.all(statement.bind(sent_after).bind(known_before).bind(limit)).await?;
    rows.into_iter().map(|row| read(row).map(|(_, ours)| ours)).collect()
}

/// Money on connected accounts by how long it has been there: what was transferred and did not go on to the bank, and destination
/// charges that nobody paid out, the newest of them first.
pub async fn held(tx: &mut Tx, now: DateTime<Utc>, limit: i64) -> Result<Vec<Held>> {
    let statement = query_as(
        "with transferred as (
            select i.creator_id, i.currency, min(coalesce(o.settled_at, i.updated_at)) as since, sum(i.amount_minor * c.micros_per_minor)::bigint as micros
            from payout_items i join currencies c on c.code = i.currency
            left join payout_operations o on o.item_id = i.id and o.leg = 'transfer' and o.state = 'accepted'
            where i.status in ('awaiting_available', 'payout_blocked', 'returned', 'needs_review') and i.payout_minor > 0
            group by i.creator_id, i.currency
         ), charged as (
            select payee_id, currency, held_connected + available_connected + reserved_connected as micros from payee_balances
            where held_connected + available_connected + reserved_connected > 0
         ), piled as (
            select e.creator_id, e.currency, e.occurred_at, h.micros,
                   sum(e.net_micros - e.taken_back_net_micros) over newest - (e.net_micros - e.taken_back_net_micros) as newer
            from charged h join creator_earnings e on e.creator_id = h.payee_id and e.currency = h.currency and e.place = 'connected'
            window newest as (partition by e.creator_id, e.currency order by e.occurred_at desc, e.id desc)
         ), held as (
            select * from transferred
            union all
            select creator_id, currency, min(occurred_at), max(micros) from piled where newer < micros group by creator_id, currency)
         select h.creator_id as payee, h.currency::text as currency, min(h.since) as since, sum(h.micros)::bigint as micros, a.account, a.country::text as country
         from held h join stripe_accounts a on a.payee_id = h.creator_id
         where h.since <= $1 - make_interval(days => $2)
         group by h.creator_id, h.currency, a.account, a.country order by min(h.since) limit $3",
    );
    tx.all(statement.bind(now).bind(LEAST_HELD_DAYS).bind(limit)).await
}

/// A sum that a reconciliation made.
#[derive(Debug, Clone, FromRow)]
pub struct Sum {
    pub leg: String,
    pub currency: String,
    pub objects: i64,
    pub stripe_minor: i64,
    pub ledger_minor: i64,
}

pub async fn sums(tx: &mut Tx, reconciliation: i64) -> Result<Vec<Sum>> {
    let statement = query_as(
        "select leg, currency::text as currency, objects, stripe_minor, ledger_minor from reconciliation_sums where reconciliation_id = $1 order by leg desc, currency",
    );
    tx.all(statement.bind(reconciliation)).await
}

/// Resolves what the end of a reconciliation looks at as a whole and did not find again, what news have settled meanwhile, and what
/// was missing and has been seen.
pub async fn resolve_gone(tx: &mut Tx, it: &Standing) -> Result<()> {
    let statement = query(
        "update discrepancies d set state = 'resolved', resolved_at = now()
         where d.state <> 'resolved' and (
            d.kind in ('held_too_long', 'sums_differ') and d.last_seen_at < $1
            or d.kind = 'payout_overdue' and exists (select from payout_items i where i.id = d.item_id and i.status <> 'in_transit')
            or d.kind = 'missing_at_stripe' and exists (
                select from payout_operations o where 'operation ' || o.id = d.subject and (o.reconciled_at is not null or o.state not in ('accepted', 'returned'))
                and o.item_id = d.item_id))",
    );
    tx.run(statement.bind(it.started_at)).await?;
    Ok(())
}

/// What people have not been told of yet, marked as told now.
pub async fn untold(
    tx: &mut Tx,
    kinds: Vec<String>,
    kinds_seen_again: Vec<String>,
) -> Result<Vec<(String, String, String, String)>> {
    let statement = query_as(
        "with untold as (
            update discrepancies set told_at = now()
            where state = 'open' and told_at is null and (kind = any($1) or times_seen > 1 and kind = any($2))
            returning id, kind, subject, expected, found)
         select kind, subject, expected, found from untold order by id",
    );
    tx.all(statement.bind(kinds).bind(kinds_seen_again)).await
}

/// How many discrepancies are open.
pub async fn open(tx: &mut Tx) -> Result<i64> {
    let (open,): (i64,) = tx.one(query_as("select count(*) from discrepancies where state = 'open'")).await?;
    Ok(open)
}

/// When the last reconciliation ended; none has yet: when this database began.
pub async fn last_finished(tx: &mut Tx) -> Result<DateTime<Utc>> {
    let (at,): (DateTime<Utc>,) =
        tx.one(query_as("select coalesce((select max(finished_at) from reconciliations), created_at) from instance")).await?;
    Ok(at)
}

/// A discrepancy as people see it.
#[derive(Debug, Clone, FromRow)]
pub struct Discrepancy {
    pub id: i64,
    pub kind: String,
    pub subject: String,
    pub payee_id: Option<Uuid>,
    pub item_id: Option<ItemId>,
    pub account: Option<String>,
    pub expected: String,
    pub found: String,
    pub state: String,
    pub owner: Option<String>,
    pub note: Option<String>,
    pub changed_by: Option<String>,
    pub first_seen_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub times_seen: i64,
    pub resolved_at: Option<DateTime<Utc>>,
}

/// Discrepancies in a state (none: not resolved) and of a kind, the newest first, before a position.
pub async fn list(
    tx: &mut Tx,
    state: Option<&str>,
    kind: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Discrepancy>> {
    let statement = query_as(
        "select id, kind, subject, payee_id, item_id, account, expected, found, state, owner, note, changed_by, first_seen_at, last_seen_at, times_seen, resolved_at
         from discrepancies
         where case when $1::text is null then state <> 'resolved' else state = $1 end and ($2::text is null or kind = $2) and id < coalesce($3, 9223372036854775807)
         order by id desc limit $4",
    );
    tx.all(statement.bind(state.map(str::to_owned)).bind(kind.map(str::to_owned)).bind(before).bind(limit)).await
}

/// One discrepancy under its lock.
pub async fn lock(tx: &mut Tx, id: i64) -> Result<Option<Discrepancy>> {
    let statement = query_as(
        "select id, kind, subject, payee_id, item_id, account, expected, found, state, owner, note, changed_by, first_seen_at, last_seen_at, times_seen, resolved_at
         from discrepancies where id = $1 for no key update",
    );
    tx.optional(statement.bind(id)).await
}

/// Writes what a person decides about a discrepancy.
pub async fn change(tx: &mut Tx, it: &Discrepancy, by: &str) -> Result<()> {
    let statement = query(
        "update discrepancies set state = $2, owner = $3, note = $4, changed_by = $5,
                resolved_at = case when $2 = 'resolved' then coalesce(resolved_at, now()) end
         where id = $1",
    );
    tx.run(statement.bind(it.id).bind(it.state.clone()).bind(it.owner.clone()).bind(it.note.clone()).bind(by.to_owned())).await?;
    Ok(())
}

/// A reconciliation as people see it.
#[derive(Debug, Clone, FromRow)]
pub struct Told {
    pub id: i64,
    pub stage: String,
    pub since: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub reads: i64,
    pub events_missed: i64,
    pub mended: i64,
}

/// The newest reconciliation.
pub async fn newest(tx: &mut Tx) -> Result<Option<Told>> {
    tx.optional(query_as(
        "select id, stage, since, started_at, finished_at, reads, events_missed, mended from reconciliations order by id desc limit 1",
    ))
    .await
}
