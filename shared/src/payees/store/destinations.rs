//! The SQL of bank accounts and cards: which were changed, who was told, what an operator has confirmed, who shares one.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Payees' destinations as last described.
pub async fn destinations(tx: &mut Tx, payees: Vec<Uuid>) -> Result<HashMap<Uuid, String>> {
    let statement =
        query_as("select payee_id, destination from stripe_accounts where payee_id = any($1) and destination is not null");
    let rows: Vec<(Uuid, String)> = tx.all(statement.bind(payees)).await?;
    Ok(rows.into_iter().collect())
}

/// Of these payees, those whose account is ready.
pub async fn ready(tx: &mut Tx, payees: Vec<Uuid>) -> Result<HashSet<Uuid>> {
    let rows: Vec<(Uuid,)> =
        tx.all(query_as("select payee_id from payee_facts where payee_id = any($1) and ready").bind(payees)).await?;
    Ok(rows.into_iter().map(|(payee,)| payee).collect())
}

/// Marks for the sweep those of these payees who have missed something: something that kept them from being paid is mended.
pub async fn mark_cured(tx: &mut Tx, payees: Vec<Uuid>) -> Result<()> {
    if payees.is_empty() {
        return Ok(());
    }
    let statement = query(
        "update stripe_accounts a set cured_at = now()
         where a.payee_id = any($1)
           and (exists (select from payout_items i where i.creator_id = a.payee_id and i.status in ('failed', 'payout_blocked'))
                or missed_cutoff(a.payee_id) is not null)",
    );
    tx.run(statement.bind(payees)).await?;
    Ok(())
}

/// Makes payout legs that were refused due again: the bank account is another one, so the same money may go out by a new payout.
/// A large amount waits until an operator has confirmed the bank account, and whoever is blocked for the end of that.
pub async fn retry_payouts_of(tx: &mut Tx, payees: &[Uuid], now: DateTime<Utc>) -> Result<u64> {
    let statement = query(
        "update payout_items i set due_at = $2
         from stripe_accounts a, currencies c, payees e, payout_policies p
         where i.creator_id = any($1) and i.status in ('payout_blocked', 'returned') and i.due_at is null
           and a.payee_id = i.creator_id and c.code = i.currency and e.id = i.creator_id and e.blocked_reason is null
           and not needs_second_look(p.policy, i.amount_minor * c.micros_per_minor, a.destination_changed_at, a.destination, a.confirmed_destination)",
    );
    Ok(tx.run(statement.bind(payees.to_vec()).bind(now)).await?.rows_affected())
}

/// When the bank account of an item's payee became another one; `None`: it is the first, or it waits to be confirmed, or the payee is blocked.
pub async fn destination_changed_at(tx: &mut Tx, item: i64) -> Result<Option<DateTime<Utc>>> {
    let statement = query_as(
        "select a.destination_changed_at
         from payout_items i join stripe_accounts a on a.payee_id = i.creator_id join currencies c on c.code = i.currency
         join payees e on e.id = i.creator_id cross join payout_policies p
         where i.id = $1 and a.destination_changed_at is not null and e.blocked_reason is null
           and not needs_second_look(p.policy, i.amount_minor * c.micros_per_minor, a.destination_changed_at, a.destination, a.confirmed_destination)",
    );
    let row: Option<(DateTime<Utc>,)> = tx.optional(statement.bind(item)).await?;
    Ok(row.map(|(at,)| at))
}

/// Who has to hear of a change.
#[derive(Debug, Clone, FromRow)]
pub struct Told {
    pub payee: Uuid,
    pub changed_at: DateTime<Utc>,
    /// The payee's address, and the one before it if that is not a month ago.
    pub emails: Vec<String>,
}

pub async fn addresses(tx: &mut Tx, payees: Vec<Uuid>) -> Result<Vec<Told>> {
    let statement = query_as(
        "select p.id as payee, a.destination_changed_at as changed_at,
                array_remove(array[p.email, case when p.email_changed_at > now() - interval '30 days' then p.former_email end], null) as emails
         from payees p join stripe_accounts a on a.payee_id = p.id where p.id = any($1) and a.destination_changed_at is not null order by p.id",
    );
    tx.all(statement.bind(payees)).await
}

/// A destination that more than one payee has.
#[derive(Debug, Clone, FromRow)]
pub struct Shared {
    pub payee: Uuid,
    pub destination: String,
    pub others: Vec<Uuid>,
}

/// Of these payees, those whose destination another one has too.
pub async fn shared_destinations(tx: &mut Tx, payees: &[Uuid]) -> Result<Vec<Shared>> {
    let statement = query_as(
        "select a.payee_id as payee, a.destination, array_agg(b.payee_id order by b.payee_id) as others
         from stripe_accounts a join stripe_accounts b on b.destination = a.destination and b.payee_id <> a.payee_id
         where a.payee_id = any($1) group by a.payee_id, a.destination order by a.payee_id",
    );
    tx.all(statement.bind(payees.to_vec())).await
}

/// Which destinations a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Changed, and not confirmed since.
    Unconfirmed,
    /// Had by more than one payee.
    Shared,
}

/// A payee's destination as an operator looks at it.
#[derive(Debug, Clone, FromRow)]
pub struct Destination {
    pub payee: Uuid,
    pub account: String,
    pub destination: String,
    pub changed_at: Option<DateTime<Utc>>,
    pub confirmed: bool,
    pub confirmed_at: Option<DateTime<Utc>>,
    pub confirmed_by: Option<String>,
    pub shared_with: Vec<Uuid>,
}

/// Destinations by payee, after a payee.
pub async fn list_destinations(tx: &mut Tx, filter: Filter, after: Option<Uuid>, limit: i64) -> Result<Vec<Destination>> {
    let statement = query_as(
        "select a.payee_id as payee, a.account, a.destination, a.destination_changed_at as changed_at,
                coalesce(a.destination = a.confirmed_destination, false) as confirmed, a.confirmed_at, a.confirmed_by, o.others as shared_with
         from stripe_accounts a
         cross join lateral (
            select coalesce(array_agg(b.payee_id order by b.payee_id), '{}') as others from stripe_accounts b
            where b.destination = a.destination and b.payee_id <> a.payee_id) o
         where a.destination is not null and ($1 is null or a.payee_id > $1)
           and case when $2 then o.others <> '{}'
                    else a.destination_changed_at is not null and a.destination is distinct from a.confirmed_destination end
         order by a.payee_id limit $3",
    );
    tx.all(statement.bind(after).bind(filter == Filter::Shared).bind(limit)).await
}

/// What became of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    Now,
    Before,
    /// The destination is another one by now.
    Changed,
    /// There is no such payee, or they have no destination.
    Nothing,
}

/// Notes that an operator has looked at a payee's destination.
pub async fn confirm(tx: &mut Tx, payee: Uuid, destination: &str, by: &str, at: DateTime<Utc>) -> Result<Confirmed> {
    let present: Option<(Option<String>, Option<String>)> = tx
        .optional(
            query_as("select destination, confirmed_destination from stripe_accounts where payee_id = $1 for no key update")
                .bind(payee),
        )
        .await?;
    let Some((Some(present), confirmed)) = present else { return Ok(Confirmed::Nothing) };
    if present != destination {
        return Ok(Confirmed::Changed);
    }
    if confirmed.as_deref() == Some(destination) {
        return Ok(Confirmed::Before);
    }
    let statement = query(
        "update stripe_accounts set confirmed_destination = $2, confirmed_by = $3, confirmed_at = $4, updated_at = now() where payee_id = $1",
    );
    tx.run(statement.bind(payee).bind(destination.to_owned()).bind(by.to_owned()).bind(at)).await?;
    Ok(Confirmed::Now)
}

/// The same for a payee whose bank account an operator has just confirmed, or who is not blocked any more: what was refused
/// before it became this one.
pub async fn retry_payouts_to_new_bank_of(tx: &mut Tx, payee: Uuid, now: DateTime<Utc>) -> Result<u64> {
    let statement = query(
        "update payout_items i set due_at = $2 from stripe_accounts a, currencies c, payees e, payout_policies p
         where i.creator_id = $1 and i.status in ('payout_blocked', 'returned') and i.due_at is null
           and a.payee_id = i.creator_id and c.code = i.currency and e.id = i.creator_id and e.blocked_reason is null
           and a.destination_changed_at >= all (
                select date_trunc('second', o.dispatched_at) from payout_operations o where o.item_id = i.id and o.leg = 'payout')
           and not needs_second_look(p.policy, i.amount_minor * c.micros_per_minor, a.destination_changed_at, a.destination, a.confirmed_destination)",
    );
    Ok(tx.run(statement.bind(payee).bind(now)).await?.rows_affected())
}
