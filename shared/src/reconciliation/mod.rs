//! Compares Stripe's transfers and payouts with these books, both ways, and makes good what no webhook told.
//!
//! The job looks every hour. It begins one reconciliation a day and goes on with it until it is done: where it stands is committed
//! after each page, under a lease, so it may be killed anywhere, run twice at once, or take several hours. No transaction is open
//! while Stripe is asked. In order:
//!
//! 1. **Events** of the platform since the day before the last reconciliation (Stripe keeps 30 days): those that no webhook brought
//!    are taken in as if one had.
//! 2. **Transfers** since then, against the operations that their ids or marks name.
//! 3. **Payouts** live on connected accounts, one list each. So an account is asked only when a payout's arrival day is over without
//!    news, each day until there are some, and once more ten days after a payout was sent: by then a bank has sent it back or keeps it.
//! 4. At the end, what is here and not there, the sums, and money that Stripe will not hold much longer.
//!
//! What news mean is decided by `payouts::news`, as for webhooks. What cannot be explained becomes a row of `discrepancies`, which
//! a person owns and which is resolved by itself once both sides say the same.
//!
//! What it costs, for a cycle of 100,000 payees: transfers in pages of 100 are 1,000 reads, and a day's overlap reads a cycle twice at
//! most; the last look at each account is 100,000 reads. At 10 reads a second, of the 25 that Stripe takes for one endpoint
//! [docs.stripe.com/rate-limits], that is two minutes and just under three hours, spread over the hourly slices of twelve minutes.

mod closing;
pub mod compare;
mod pages;
pub mod routes;
pub mod store;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::boundary::Boundary;
use crate::clock;
use crate::config::Policy;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::id::{ItemId, OperationId};
use crate::rails::stripe::Stripe;
use crate::telemetry::{Metric, metric};
use compare::Kind;
use store::DueAccount;

/// A new reconciliation begins so long after the last one began: daily, whichever hour the schedule fires.
const EVERY: chrono::Duration = chrono::Duration::hours(23);
/// The lease outlasts the slowest page.
const LEASE: chrono::Duration = chrono::Duration::minutes(3);
/// One invocation works for so long; the function's timeout is 15 minutes.
const SLICE: Duration = Duration::from_secs(12 * 60);
/// Ten days after a payout was sent its bank has paid it, or sent it back.
const LAST_LOOK_AFTER: chrono::Duration = chrono::Duration::days(10);

/// How far a reconciliation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Events,
    Transfers,
    Payouts,
    Closing,
    Done,
}

impl Stage {
    pub const ALL: [Self; 5] = [Self::Events, Self::Transfers, Self::Payouts, Self::Closing, Self::Done];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Transfers => "transfers",
            Self::Payouts => "payouts",
            Self::Closing => "closing",
            Self::Done => "done",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    fn next(self) -> Self {
        match self {
            Self::Events => Self::Transfers,
            Self::Transfers => Self::Payouts,
            Self::Payouts => Self::Closing,
            Self::Closing | Self::Done => Self::Done,
        }
    }
}

/// A reconciliation under our lease, and what was counted since it was last written.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    id: i64,
    lease: Uuid,
    stage: Stage,
    /// The last object or account of the stage that is done.
    cursor: Option<String>,
    since: DateTime<Utc>,
    started_at: DateTime<Utc>,
    /// Begins our marks.
    instance: String,
    reads: i64,
    events_missed: i64,
    mended: i64,
}

impl Standing {
    /// After a page: on to the next, or to the next stage.
    fn goes_on(&mut self, next: Option<String>) {
        if next.is_none() {
            self.stage = self.stage.next();
        }
        self.cursor = next;
    }
}

/// Something that Stripe and these books do not agree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub subject: String,
    pub payee: Option<Uuid>,
    pub item: Option<ItemId>,
    pub account: Option<String>,
    pub expected: String,
    pub found: String,
}

/// What an object at Stripe adds to the sums.
#[derive(Debug, Clone)]
pub struct Totals {
    pub operation: Option<OperationId>,
    pub currency: String,
    pub minor: i64,
}

/// Money that has been on a connected account for a while.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Held {
    pub payee: Uuid,
    pub currency: String,
    pub since: DateTime<Utc>,
    pub micros: i64,
    pub account: String,
    pub country: Option<String>,
}

/// Keeps reads apart, whoever of this process makes them.
pub struct Pace {
    gap: Duration,
    next_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many a second; zero: as fast as they go.
    pub fn per_second(reads: u32) -> Self {
        let gap = if reads == 0 { Duration::ZERO } else { Duration::from_secs(1) / reads };
        Self { gap, next_at: Mutex::new(None) }
    }

    fn slot(&self, now: Instant) -> Duration {
        let mut next_at = self.next_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next_at.map_or(now, |at| at.max(now));
        *next_at = Some(at + self.gap);
        at - now
    }

    /// Waits for the next read's turn.
    async fn turn(&self) {
        let wait = self.slot(clock::monotonic());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// What a reconciliation works with.
pub struct Reconciler {
    pub db: Db,
    pub stripe: Stripe,
    pub policy: Policy,
    pub pace: Pace,
}

impl Reconciler {
    /// Goes on with the reconciliation of the day until it is done or this invocation's time is over.
    pub async fn run(&self) -> Result<()> {
        let Some(mut it) = self.take().await? else { return self.tell_age().await };
        let stop_at = clock::monotonic() + SLICE;
        let worked = self.work(&mut it, stop_at).await;
        let mut tx = self.db.begin().await?;
        store::give_back(&mut tx, &it).await?;
        tx.commit(Boundary::SaveReconciled).await?;
        match worked {
            // The next hour goes on where this one stopped; if none gets through, the age alarms.
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %error, causes = error.causes(), stage = it.stage.as_str(), "reconciliation interrupted");
            }
            Err(error) => return Err(error),
            Ok(()) => tracing::info!(reconciliation = it.id, stage = it.stage.as_str(), "reconciliation goes on"),
        }
        self.tell_age().await
    }

    async fn take(&self) -> Result<Option<Standing>> {
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        let begun = store::begin(&mut tx, now, now - EVERY).await?;
        let taken = store::take(&mut tx, Uuid::new_v4(), now, now + LEASE).await?;
        tx.commit(Boundary::BeginReconciliation).await?;
        if begun > 0 {
            tracing::info!(since = ?taken.as_ref().map(|it| it.since), "reconciliation begins");
        }
        Ok(taken)
    }

    async fn work(&self, it: &mut Standing, stop_at: Instant) -> Result<()> {
        let mut accounts: VecDeque<DueAccount> = VecDeque::new();
        while it.stage != Stage::Done && clock::monotonic() < stop_at {
            match it.stage {
                Stage::Events => self.page_of_events(it).await?,
                Stage::Transfers => self.page_of_transfers(it).await?,
                Stage::Payouts => self.some_accounts(it, &mut accounts).await?,
                Stage::Closing => self.close(it).await?,
                Stage::Done => {}
            }
        }
        Ok(())
    }

    /// Commits what a page came to, together with where the reconciliation stands then.
    async fn save(&self, mut tx: Tx, it: &mut Standing) -> Result<()> {
        if !store::advance(&mut tx, it, clock::now() + LEASE).await? {
            return Err(Error::unavailable("RECONCILIATION_TAKEN", "Another process goes on with this reconciliation."));
        }
        tx.commit(Boundary::SaveReconciled).await?;
        (it.reads, it.events_missed, it.mended) = (0, 0, 0);
        Ok(())
    }

    /// How long ago a reconciliation was last done, which an alarm watches.
    async fn tell_age(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let age = (clock::now() - store::last_finished(&mut tx).await?).num_seconds();
        metric(Metric::ReconciliationAgeSeconds, age, &[]);
        metric(Metric::DiscrepanciesOpen, store::open(&mut tx).await?, &[]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keep_their_distance_and_none_is_made_up_for_after_a_pause() {
        let (pace, now) = (Pace::per_second(10), clock::monotonic());
        let waits: Vec<u128> = (0..4).map(|_| pace.slot(now).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        assert_eq!([pace.slot(later), pace.slot(later)], [Duration::ZERO, Duration::from_millis(100)]);
        let unlimited = Pace::per_second(0);
        assert!((0..1_000).all(|_| unlimited.slot(now).is_zero()));
    }

    #[test]
    fn every_stage_leads_to_the_end() {
        for mut stage in Stage::ALL {
            assert_eq!(Stage::parse(stage.as_str()), Some(stage));
            for _ in 0..4 {
                stage = stage.next();
            }
            assert_eq!(stage, Stage::Done);
        }
    }
}
