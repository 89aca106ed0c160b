//! Everyone who is paid, and their connected accounts as Stripe last described them. Readiness is believed from Stripe only:
//! from `account.updated` and from reading the account, never from a file.

pub mod import;
pub mod onboarding;
pub mod requirements;
pub mod routes;
pub mod store;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::boundary::Boundary;
use crate::clock::{self, Schedule};
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::notifications::store as outbox;
use crate::rails::stripe::{Account, Stripe};

/// Reads from Stripe the accounts whose events did not say which description is the newest. Reads are rationed: so many a sweep.
pub async fn read_stale(db: &Db, stripe: &Stripe) -> Result<()> {
    let mut tx = db.begin().await?;
    let stale = store::stale(&mut tx, 50).await?;
    drop(tx);
    for (payee, id) in stale {
        // Asked before it is read: an event that comes meanwhile is newer and wins.
        let at = clock::now().trunc_subsecs(0);
        let account = match stripe.account(&id).await {
            Ok(account) => account,
            Err(error) => {
                tracing::warn!(account = id, error = %error, "account could not be read");
                return Ok(());
            }
        };
        let mut tx = db.begin().await?;
        was_read(&mut tx, payee, &id, account, at).await?;
        tx.commit(Boundary::DescribeAccount).await?;
    }
    Ok(())
}

/// Records what Stripe said of an account when it was asked at an instant; `None`: it knows none such.
pub async fn was_read(tx: &mut Tx, payee: Uuid, id: &str, account: Option<Account>, at: DateTime<Utc>) -> Result<()> {
    let Some(account) = account else {
        store::deauthorize(tx, id, at).await?;
        return store::mark_read(tx, id).await;
    };
    // An event that came while we asked may be the newer. Of the same second it cannot be told: asked once more.
    let known_from = store::by_account(tx, id).await?.map(|(_, state_at)| state_at);
    if known_from.is_some_and(|known_from| known_from <= at) {
        describe(tx, payee, account, at).await?;
    }
    if known_from.is_some_and(|known_from| known_from < at) {
        store::mark_read(tx, id).await?;
    }
    Ok(())
}

/// Records what Stripe says of a payee's account at an instant. Refused payouts go out again by themselves once the bank account
/// is another one.
pub async fn describe(tx: &mut Tx, payee: Uuid, account: Account, at: DateTime<Utc>) -> Result<()> {
    let before = store::destination(tx, payee).await?;
    let destination = account.destination().map(str::to_owned);
    store::describe(tx, &[(payee, account)], at).await?;
    if destination.is_some() && destination != before {
        store::retry_payouts_of(tx, payee, clock::now()).await?;
    }
    if before.is_some() && destination.is_some() && destination != before {
        let key = format!("destination_changed:{payee}:{}", at.timestamp());
        outbox::put(tx, &key, "destination_changed", json!({ "creatorId": payee, "changedAt": at })).await?;
    }
    Ok(())
}

/// A payee as someone enters it: settings, and the connected account it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayee {
    pub id: Uuid,
    pub account: Option<String>,
    pub country: Option<String>,
    pub email: Option<String>,
    pub payout_enabled: bool,
    /// In whole units, as written: `12.50`.
    pub minimum_payout: Option<String>,
    pub schedule: Schedule,
    pub beta: bool,
}
