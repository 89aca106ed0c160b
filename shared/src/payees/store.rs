//! The SQL of payees.

mod destinations;
mod onboarding;
mod sync;

use chrono::{DateTime, SubsecRound, Utc};
pub use destinations::{
    Confirmed, Destination, Filter, Shared, Told, addresses, confirm, destination_changed_at, destinations, list_destinations,
    mark_cured, ready, retry_payouts_of, retry_payouts_to_new_bank_of, shared_destinations,
};
pub use onboarding::{
    Connection, account_created, account_refused, account_request, connected, connection, instance, lock_payee, look_up_account,
    make_payee, save_account_request, sends_again,
};
pub use sync::{begin_sync, finish_sync, let_in_again, lock_accounts, sync_goes_on};
use uuid::Uuid;

use super::NewPayee;
use crate::db::{Tx, query, query_as};
use crate::error::Result;
use crate::rails::stripe::Account;

/// Rows written by one statement.
const ROWS_AT_ONCE: usize = 5_000;

/// Enters payees and their settings; those there are get what is said now. Accounts come by [`describe`].
pub async fn import(tx: &mut Tx, payees: &[NewPayee]) -> Result<()> {
    for rows in payees.chunks(ROWS_AT_ONCE) {
        let people = query(
            "insert into payees (id, email) select * from unnest($1::uuid[], $2::text[])
             on conflict (id) do update set email = coalesce(excluded.email, payees.email),
                former_email = case when excluded.email <> payees.email then payees.email else payees.former_email end,
                email_changed_at = case when excluded.email <> payees.email then now() else payees.email_changed_at end",
        );
        let ids: Vec<Uuid> = rows.iter().map(|it| it.id).collect();
        tx.run(people.bind(ids.clone()).bind(rows.iter().map(|it| it.email.clone()).collect::<Vec<_>>())).await?;
        let settings = query(
            "insert into creator_payout_settings (creator_id, payout_enabled, minimum_payout_amount, schedule, beta_enabled)
             select id, enabled, minimum::numeric, schedule, beta from unnest($1::uuid[], $2::bool[], $3::text[], $4::text[], $5::bool[]) as u (id, enabled, minimum, schedule, beta)
             on conflict (creator_id) do update set payout_enabled = excluded.payout_enabled, minimum_payout_amount = excluded.minimum_payout_amount,
                schedule = excluded.schedule, beta_enabled = excluded.beta_enabled, updated_at = now()",
        )
        .bind(ids)
        .bind(rows.iter().map(|it| it.payout_enabled).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.minimum_payout.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.schedule.as_str().to_owned()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.beta).collect::<Vec<_>>());
        tx.run(settings).await?;
    }
    Ok(())
}

/// Records what Stripe says of payees' accounts at an instant. Another account than before, or another bank account, is a
/// change of destination and starts the cool-off; the first is none. Returns the payees whose destination is changed now.
pub async fn describe(tx: &mut Tx, accounts: &[(Uuid, Account)], at: DateTime<Utc>) -> Result<Vec<Uuid>> {
    // Stripe's events carry whole seconds: one of the second in which an account was read cannot be told from an older one,
    // and must not be taken for one.
    let at = at.trunc_subsecs(0);
    let mut changed: Vec<(Uuid, bool)> = Vec::new();
    for rows in accounts.chunks(ROWS_AT_ONCE) {
        let statement = query_as::<(Uuid, bool)>(
            "insert into stripe_accounts as a (payee_id, account, country, transfers_active, payouts_enabled, charges_enabled, past_due, disabled_reason,
                                               payout_interval, destination, requirements, state_at)
             select *, $12 from unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::bool[], $6::bool[], $7::bool[], $8::text[], $9::text[], $10::text[], $11::jsonb[])
             on conflict (payee_id) do update set
                account = excluded.account, country = coalesce(excluded.country, a.country), transfers_active = excluded.transfers_active,
                payouts_enabled = excluded.payouts_enabled, charges_enabled = excluded.charges_enabled, past_due = excluded.past_due,
                disabled_reason = excluded.disabled_reason, requirements = excluded.requirements, payout_interval = excluded.payout_interval, destination = coalesce(excluded.destination, a.destination),
                destination_changed_at = case
                    when a.account <> excluded.account or a.destination <> excluded.destination then excluded.state_at
                    else a.destination_changed_at end,
                deauthorized_at = case when a.account <> excluded.account then null else a.deauthorized_at end,
                state_at = excluded.state_at, updated_at = now()
             returning payee_id, coalesce(destination_changed_at = state_at, false)",
        )
        .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.id.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.country.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.transfers_active()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.payouts_enabled).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.charges_enabled).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.past_due()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.disabled_reason().map(str::to_owned)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.payout_interval().map(str::to_owned)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| it.destination().map(str::to_owned)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, it)| sqlx::types::Json(it.requirements())).collect::<Vec<_>>())
        .bind(at);
        changed.extend(tx.all(statement).await?);
    }
    Ok(changed.into_iter().filter(|(_, changed)| *changed).map(|(payee, _)| payee).collect())
}

/// The payee of a connected account, and when its description is from, under the row's lock.
pub async fn by_account(tx: &mut Tx, account: &str) -> Result<Option<(Uuid, DateTime<Utc>)>> {
    let statement = query_as(
        "select payee_id, case when state_at = '-infinity' then 'epoch' else state_at end from stripe_accounts where account = $1 for no key update",
    );
    tx.optional(statement.bind(account.to_owned())).await
}

/// Asks a sweep to read the account again: its events do not say which of them is the newer.
pub async fn mark_stale(tx: &mut Tx, account: &str) -> Result<u64> {
    Ok(tx
        .run(query("update stripe_accounts set stale = true where account = $1").bind(account.to_owned()))
        .await?
        .rows_affected())
}

/// The platform may no longer act for the account: it is not ready until it is connected anew.
pub async fn deauthorize(tx: &mut Tx, account: &str, at: DateTime<Utc>) -> Result<u64> {
    let statement = query(
        "update stripe_accounts set deauthorized_at = coalesce(deauthorized_at, $2), updated_at = now() where account = $1",
    );
    Ok(tx.run(statement.bind(account.to_owned()).bind(at)).await?.rows_affected())
}

/// Accounts to be read again.
pub async fn stale(tx: &mut Tx, limit: i64) -> Result<Vec<(Uuid, String)>> {
    tx.all(query_as("select payee_id, account from stripe_accounts where stale order by payee_id limit $1").bind(limit)).await
}

/// The account was read; there is nothing more to know of it now.
pub async fn mark_read(tx: &mut Tx, account: &str) -> Result<()> {
    tx.run(query("update stripe_accounts set stale = false where account = $1").bind(account.to_owned())).await?;
    Ok(())
}
