//! The SQL of paying those whom something mended had kept from being paid.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use crate::config::Policy;
use crate::db::{Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::{ItemId, RunId};

/// Payees for whom something was mended, and when, the longest ago first.
pub async fn cured(tx: &mut Tx, limit: i64) -> Result<Vec<(Uuid, DateTime<Utc>)>> {
    let statement = query_as(
        "select payee_id, cured_at from stripe_accounts where cured_at is not null order by cured_at, payee_id limit $1",
    );
    tx.all(statement.bind(limit)).await
}

/// It was looked at; what was mended since is looked at the next time.
pub async fn looked_at(tx: &mut Tx, payee: Uuid, cured_at: DateTime<Utc>) -> Result<()> {
    let statement = query("update stripe_accounts set cured_at = null where payee_id = $1 and cured_at = $2");
    tx.run(statement.bind(payee).bind(cured_at)).await?;
    Ok(())
}

/// The payee's failed items that may be tried again. A failed withdrawal is over for its creator, who has the money back and
/// asks anew.
pub async fn failed_items_of(tx: &mut Tx, payee: Uuid, max_retries: i32) -> Result<Vec<ItemId>> {
    let statement = query_as(
        "select id from payout_items i where creator_id = $1 and status = 'failed' and retries < $2
           and not exists (select from withdrawal_requests w where w.item_id = i.id) order by id",
    );
    let rows: Vec<(ItemId,)> = tx.all(statement.bind(payee).bind(max_retries)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Makes due the payouts that Stripe itself refused to make: not those that a bank sent back, which wait for another bank. Nobody
/// who is blocked is paid, and a large amount waits until an operator has confirmed a bank account that was changed.
pub async fn retry_refused_payouts_of(tx: &mut Tx, payee: Uuid, policy: &Policy, now: DateTime<Utc>) -> Result<u64> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let statement = query(
        "update payout_items i set due_at = $2
         from payees p, stripe_accounts a, currencies c
         where i.creator_id = $1 and i.status = 'payout_blocked' and i.due_at is null
           and p.id = i.creator_id and p.blocked_reason is null and a.payee_id = i.creator_id and c.code = i.currency
           and not needs_second_look($3, i.amount_minor * c.micros_per_minor, a.destination_changed_at, a.destination, a.confirmed_destination)
           and (select o.state from payout_operations o where o.item_id = i.id order by o.id desc limit 1) = 'rejected'",
    );
    Ok(tx.run(statement.bind(payee).bind(now).bind(policy)).await?.rows_affected())
}

/// The cut-off of the cycle that the payee missed, if they would be paid for it now in some currency.
pub async fn payable_cutoff(tx: &mut Tx, payee: Uuid, policy: &Policy, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let statement = query_as(
        "select m.cutoff from missed_cutoff($1) as m (cutoff)
         where m.cutoff is not null and exists (select from payout_candidates(null, '{}', m.cutoff, $2, $3, $1) c where c.reason is null)",
    );
    let row: Option<(DateTime<Utc>,)> = tx.optional(statement.bind(payee).bind(policy).bind(now)).await?;
    Ok(row.map(|(cutoff,)| cutoff))
}

/// The payee's run of a day; `None`: there was one that day.
pub async fn start(tx: &mut Tx, payee: Uuid, day: NaiveDate, cutoff_at: DateTime<Utc>) -> Result<Option<RunId>> {
    let statement = query_as(
        "insert into payout_runs (kind, schedule, cycle_on, cutoff_at, requested_by, queued_at) values ('resume', $1::uuid::text, $2, $3, 'resume', now())
         on conflict (kind, schedule, cycle_on) do nothing returning id",
    );
    let row: Option<(RunId,)> = tx.optional(statement.bind(payee).bind(day).bind(cutoff_at)).await?;
    Ok(row.map(|(id,)| id))
}
