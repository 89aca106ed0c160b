//! Looking ahead: who would get what in a cycle, who not and why, and whether there is money for it. Changes nothing.
//!
//! A preview has a hash of its facts: who is paid how much to which bank account, and who is not paid for which reason. A run that
//! is told the hash is made of the same facts or not at all: it is compared when the run is asked for, and once more by the batch
//! creator in the transaction that reserves the money (`cycle`).

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use sha2::{Digest, Sha256};

use super::store::preview::{self as store, Occasion};
use crate::clock::{Calendar, Schedule};
use crate::config::Policy;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};

/// The occasion of a date, for one schedule or all that are due then.
pub fn occasion(cycle_on: NaiveDate, only: Option<Schedule>, calendar: Calendar, now: DateTime<Utc>) -> Result<Occasion> {
    let mut schedules = Schedule::due_on(cycle_on);
    if let Some(only) = only {
        if !schedules.contains(&only) {
            return Err(Error::field("schedule", format!("{} has no cycle on {cycle_on}", only.as_str())));
        }
        schedules = vec![only];
    }
    let cutoff_at = calendar.cutoff(cycle_on);
    Ok(Occasion { cycle_on, cutoff_at, schedules, at: now.max(cutoff_at) })
}

/// One hash for all of a date's runs that are looked at. The date is part of it: another cycle's preview is another one.
pub fn hash(occasion: &Occasion, hashes: &[(String, String)]) -> String {
    let mut whole = Sha256::new();
    whole.update(occasion.cycle_on.to_string());
    for schedule in &occasion.schedules {
        let of_it = hashes.iter().find(|(name, _)| name == schedule.as_str()).map_or("", |(_, hash)| hash);
        whole.update(format!(" {}:{of_it}", schedule.as_str()));
    }
    hex::encode(whole.finalize())
}

/// The facts that each run must be made of.
pub type Agreed = BTreeMap<Schedule, String>;

/// Compares what a preview showed with what is now; refuses if it is another (`PREVIEW_STALE`). A run that was made by this very
/// preview agrees with it for ever: asking again finds it.
pub async fn still_agrees(db: &Db, policy: &Policy, occasion: &Occasion, previewed: &str) -> Result<Agreed> {
    let mut tx = db.begin().await?;
    let made: Vec<(String, String)> = store::agreed(&mut tx, occasion.cycle_on)
        .await?
        .into_iter()
        .filter_map(|(schedule, hash)| Some((schedule, hash?)))
        .collect();
    let mut hashes = made;
    if hash(occasion, &hashes) != previewed {
        hashes = store::foresee(&mut tx, occasion, policy, None, 0).await?.hashes.0;
    }
    if hash(occasion, &hashes) != previewed {
        let message = format!(
            "The facts of {} have changed since the preview; nothing was started. Look at the preview again, and run what it shows.",
            occasion.cycle_on
        );
        return Err(Error::conflict("PREVIEW_STALE", message));
    }
    let of = |schedule: &Schedule| {
        hashes.iter().find(|(name, _)| name == schedule.as_str()).map(|(_, hash)| hash.clone()).unwrap_or_default()
    };
    Ok(occasion.schedules.iter().map(|schedule| (*schedule, of(schedule))).collect())
}

/// What a cycle needs of the platform's balance in a currency, minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funding {
    pub currency: String,
    /// What the cycle would transfer.
    pub needed_minor: i64,
    /// What payments of earlier cycles still have to be transferred.
    pub claimed_minor: i64,
    /// At Stripe, when it was last asked; none: not asked yet.
    pub available_minor: Option<i64>,
    pub read_at: Option<DateTime<Utc>>,
}

impl Funding {
    /// What is missing; zero if it suffices, or if Stripe has not been asked.
    pub fn short_minor(&self) -> i64 {
        self.available_minor.map_or(0, |available| (self.needed_minor.saturating_add(self.claimed_minor) - available).max(0))
    }
}

/// What the foreseen sums need, by currency; a currency that is not needed is left out.
pub async fn funding(tx: &mut Tx, sums: &[store::Sum]) -> Result<Vec<Funding>> {
    let funds = store::funds(tx).await?;
    // Of a currency in which Stripe names no balance there is none, once Stripe has been asked at all.
    let asked_at = funds.iter().filter_map(|it| it.read_at).max();
    let needs = sums.iter().filter(|sum| sum.transfer_minor > 0);
    Ok(needs
        .map(|sum| {
            let known = funds.iter().find(|it| it.currency == sum.currency);
            let read_at = known.and_then(|it| it.read_at).or(asked_at);
            Funding {
                currency: sum.currency.clone(),
                needed_minor: sum.transfer_minor,
                claimed_minor: known.map_or(0, |it| it.claimed_minor),
                available_minor: known.and_then(|it| it.available_minor).or(asked_at.map(|_| 0)),
                read_at,
            }
        })
        .collect())
}
