//! Everyone who is paid, and their connected accounts as Stripe last described them. Readiness is believed from Stripe only:
//! from `account.updated` and from reading the account, never from a file.

pub mod import;
pub mod onboarding;
pub mod requirements;
pub mod roster;
pub mod routes;
pub mod store;
pub mod sync;

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
                if error.is_transient() {
                    return Ok(());
                }
                continue;
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

/// Records what Stripe says of a payee's account at an instant.
pub async fn describe(tx: &mut Tx, payee: Uuid, account: Account, at: DateTime<Utc>) -> Result<()> {
    describe_all(tx, &[(payee, account)], at).await
}

/// Records what Stripe says of payees' accounts at an instant. A destination that changed is told to the address that was there
/// before, and refused payouts go out again by themselves to it; one that two payees share is told to the admins once. Who has
/// become ready and has missed something for not being so is marked for the sweep.
pub async fn describe_all(tx: &mut Tx, accounts: &[(Uuid, Account)], at: DateTime<Utc>) -> Result<()> {
    let payees: Vec<Uuid> = accounts.iter().map(|(payee, _)| *payee).collect();
    let before = store::destinations(tx, payees.clone()).await?;
    let ready_before = store::ready(tx, payees.clone()).await?;
    let changed = store::describe(tx, accounts, at).await?;
    let mut cured = store::ready(tx, payees).await?;
    cured.retain(|payee| !ready_before.contains(payee));
    store::mark_cured(tx, cured.into_iter().collect()).await?;

    let is_new = |(payee, account): &&(Uuid, Account)| {
        account.destination().is_some_and(|destination| before.get(payee).map(String::as_str) != Some(destination))
    };
    let new: Vec<Uuid> = accounts.iter().filter(is_new).map(|(payee, _)| *payee).collect();
    if changed.is_empty() && new.is_empty() {
        return Ok(());
    }
    store::retry_payouts_of(tx, &new, clock::now()).await?;
    for told in store::addresses(tx, changed).await? {
        let key = format!("destination_changed:{}:{}", told.payee, told.changed_at.timestamp());
        let payload = json!({ "creatorId": told.payee, "changedAt": told.changed_at, "to": told.emails });
        outbox::put(tx, &key, "destination_changed", payload).await?;
    }
    for shared in store::shared_destinations(tx, &new).await? {
        let key = format!("destination_shared:{}:{}", shared.destination, shared.payee);
        let payload = json!({ "creatorId": shared.payee, "others": shared.others, "destination": shared.destination });
        outbox::put(tx, &key, "destination_shared", payload).await?;
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
