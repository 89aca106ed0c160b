//! The daily reading of all connected accounts, so that a lost event makes nobody wrong for longer than a day.
//!
//! Accounts come in pages of 100, one page after the other, which is as many reads a second as Stripe takes time for one: far
//! below what it allows. Each page is written in a transaction that also says how far this has come: killed, it goes on there, and
//! run again the same day it begins anew. What is known from a later moment than the page stays. Accounts that the list lacks
//! are read one by one by the sweep, which finds out whether they have left.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{describe_all, onboarding, store};
use crate::boundary::Boundary;
use crate::clock;
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::rails::stripe::{Account, Stripe};

/// So many pages are read by one run of the job: half of the function's time at a second for each. The next run goes on.
const PAGES: usize = 450;

/// Reads all accounts, or goes on where a run was interrupted. Returns how many of ours were described.
pub async fn sync(db: &Db, stripe: &Stripe) -> Result<u64> {
    let mut tx = db.begin().await?;
    let (started_at, mut after) = store::begin_sync(&mut tx, clock::now()).await?;
    tx.commit(Boundary::SyncAccounts).await?;
    let mut described = 0;
    for _ in 0..PAGES {
        // Asked before the page is read: an event that comes meanwhile is newer and wins.
        let at = clock::now();
        let (page, more) = stripe.accounts(after.as_deref()).await?;
        after = page.last().map(|account| account.id.clone());
        let mut tx = db.begin().await?;
        described += write(&mut tx, page, at).await?;
        match &after {
            Some(after) if more => store::sync_goes_on(&mut tx, after).await?,
            _ => {
                let missing = store::finish_sync(&mut tx, started_at, clock::now()).await?;
                tx.commit(Boundary::SyncAccounts).await?;
                tracing::info!(described, missing, "accounts read");
                return Ok(described);
            }
        }
        tx.commit(Boundary::SyncAccounts).await?;
    }
    tracing::info!(described, "accounts read in part; the next run goes on");
    Ok(described)
}

/// Describes those of a page that are ours and not known from a later moment.
async fn write(tx: &mut Tx, page: Vec<Account>, at: DateTime<Utc>) -> Result<u64> {
    let ids: Vec<String> = page.iter().map(|account| account.id.clone()).collect();
    let known = store::lock_accounts(tx, ids.clone()).await?;
    store::let_in_again(tx, ids, at).await?;
    let mut accounts: Vec<(Uuid, Account)> = Vec::new();
    for account in page {
        match known.get(&account.id) {
            Some((payee, state_at)) if *state_at < at => accounts.push((*payee, account)),
            Some(_) => {}
            None => {
                // One whose creation was never answered.
                if let Some(payee) = onboarding::owner_of_new(tx, &account).await? {
                    accounts.push((payee, account));
                }
            }
        }
    }
    accounts.sort_by_key(|(payee, _)| *payee);
    describe_all(tx, &accounts, at).await?;
    Ok(accounts.len() as u64)
}
