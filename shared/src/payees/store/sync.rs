//! The SQL of reading all accounts.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Since when accounts are being read, and after which one to go on. What was finished, or was interrupted two days ago, begins anew.
pub async fn begin_sync(tx: &mut Tx, now: DateTime<Utc>) -> Result<(DateTime<Utc>, Option<String>)> {
    let statement = query_as(
        "update account_sync set
            started_at = case when finished_at is null and started_at > $1 - interval '2 days' then started_at else $1 end,
            after_account = case when finished_at is null and started_at > $1 - interval '2 days' then after_account end,
            finished_at = null
         returning started_at, after_account",
    );
    tx.one(statement.bind(now)).await
}

pub async fn sync_goes_on(tx: &mut Tx, after: &str) -> Result<()> {
    tx.run(query("update account_sync set after_account = $1 where finished_at is null").bind(after.to_owned())).await?;
    Ok(())
}

/// All pages were read: accounts of ours that none of them had are to be read one by one. Returns how many those are.
pub async fn finish_sync(tx: &mut Tx, started_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<u64> {
    tx.run(query("update account_sync set finished_at = $1, after_account = null").bind(now)).await?;
    let missing = query(
        "update stripe_accounts set stale = true where deauthorized_at is null and state_at < date_trunc('second', $1::timestamptz) and not stale",
    );
    Ok(tx.run(missing.bind(started_at)).await?.rows_affected())
}

/// Whose these accounts are and when each was described, under the rows' locks.
pub async fn lock_accounts(tx: &mut Tx, accounts: Vec<String>) -> Result<HashMap<String, (Uuid, DateTime<Utc>)>> {
    let statement = query_as(
        "select account, payee_id, case when state_at = '-infinity' then 'epoch' else state_at end from stripe_accounts
         where account = any($1) order by payee_id for no key update",
    );
    let rows: Vec<(String, Uuid, DateTime<Utc>)> = tx.all(statement.bind(accounts)).await?;
    Ok(rows.into_iter().map(|(account, payee, state_at)| (account, (payee, state_at))).collect())
}

/// Accounts that Stripe lists later than they left have been let in again.
pub async fn let_in_again(tx: &mut Tx, accounts: Vec<String>, at: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "update stripe_accounts set deauthorized_at = null, updated_at = now() where account = any($1) and deauthorized_at < $2",
    );
    tx.run(statement.bind(accounts).bind(at)).await?;
    Ok(())
}
