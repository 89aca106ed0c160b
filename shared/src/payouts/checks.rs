//! The standing checks: what must hold of the books whatever has happened. A breach stops the batch and alerts, because a
//! book that contradicts itself is how paying twice looks from inside.
//!
//! The cheap ones run after each chunk, over its items and their payees only, and stop its batch; all of them run daily and
//! by `cargo payday verify`, over everything. Each only reads, and what they read is one instant, so that they may run at any
//! time and beside anything. Nothing but a person resumes a batch that one of them has stopped.
//!
//! Not here, because the database cannot answer it: that Stripe's own sums are the ledger's. That is for reconciliation.

use serde_json::json;

use super::store::checks as store;
use crate::audit;
use crate::boundary::Boundary;
use crate::clock;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::id::{BatchId, ChunkId};
use crate::ledger::store as ledger;
use crate::notifications::store as outbox;
use crate::telemetry::{Metric, metric};

/// Rows that an alert, a log line and the kept verdict name; `cargo payday verify` names them all.
const ROWS_TOLD: usize = 20;

macro_rules! checks {
    ($($name:ident = $text:literal, $cost:ident: $sentence:literal;)+) => {
        /// A standing check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check { $(#[doc = $sentence] $name),+ }

        impl Check {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What holds.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }

            pub fn cost(self) -> Cost {
                match self { $(Self::$name => Cost::$cost),+ }
            }

            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|check| check.name() == name)
            }
        }
    };
}

/// What answering costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A few index lookups for each item: asked after every chunk.
    Cheap,
    /// Reads what there is: asked daily.
    Whole,
}

checks! {
    SumsToZero = "accounts_sum_to_zero", Whole: "All accounts sum to zero, per currency.";
    BalancesAreEntries = "balances_are_the_entries", Whole: "Every balance is the sum of its entries.";
    PayeeIdentity = "payees_have_what_they_earned", Whole:
        "A payee's accounts add up to what was earned, net of what was taken back, plus what was written off.";
    NotNegative = "accounts_are_not_negative", Cheap:
        "No account of a payee is below zero, except debt, and at_stripe after a reversal that Stripe made.";
    InFlight = "in_flight_is_open_transfers", Cheap: "What is in flight is what open transfer operations carry.";
    Reserved = "reserved_is_what_items_keep", Cheap:
        "What is reserved is what items keep that are not sent yet, and what pending withdrawals ask for.";
    AtStripe = "at_stripe_is_what_arrived", Whole: "What is at Stripe is what transfers brought there and has not left.";
    OneLiveObject = "one_live_object_per_leg", Cheap: "An item has at most one live Stripe object for each leg.";
    ClosedBefore = "attempts_follow_closed_ones", Cheap: "No attempt follows one that is not closed.";
    AllAttempts = "attempts_are_all_there", Cheap: "An item's attempts are numbered without a gap, and it knows the last.";
    Dispatched = "sends_were_dispatched", Cheap: "No send is without a committed dispatch, also in the ledger.";
    Outcomes = "postings_follow_outcomes", Cheap: "The ledger has the postings that a transfer's outcome asks for.";
    ReplayWindow = "no_replay_after_the_window", Cheap: "Nothing was sent again 23 hours or more after its first send.";
    NoNewTransfer = "no_transfer_after_a_payout", Cheap: "No transfer follows a payout of the same item.";
    Owned = "unknown_has_age_and_owner", Cheap: "What is not known has an age, and a worker or a person who looks at it.";
    Forgotten = "nothing_is_forgotten", Cheap: "What is pending or being sent will be looked at again.";
    Totals = "batch_total_is_its_items", Cheap: "A batch's total is the sum of its items.";
    Counts = "counts_are_the_items", Whole: "A batch's counts by status are its items'.";
    Runs = "runs_are_their_batches", Whole: "A completed run has its batches, and each was completed.";
    Withdrawals = "withdrawals_follow_their_items", Whole: "A withdrawal is as its item is, and of the same amount.";
    OneBatch = "one_batch_per_hash", Whole: "A batch hash has one batch.";
    OneEffect = "webhooks_have_one_effect", Whole: "What Stripe took back was booked once, however often it was told.";
    KnownObjects = "objects_at_stripe_are_ours", Whole: "No event bears the mark of an attempt that was never dispatched.";
    AuditLog = "audit_log_is_whole", Whole: "The audit log is as it was written.";
}

/// A row that disagrees with a check: whose it is, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    pub check: Check,
    pub row: String,
}

/// The cheap checks over one chunk: its items, their payees, its batch. One statement, however many items.
pub async fn of_chunk(tx: &mut Tx, chunk: ChunkId) -> Result<Vec<Breach>> {
    named(store::of_items(tx, Some(chunk)).await?)
}

/// Every check over everything. Expected: nothing.
pub async fn of_everything(tx: &mut Tx) -> Result<Vec<Breach>> {
    store::make_room(tx).await?;
    let mut found = named(store::of_items(tx, None).await?)?;
    found.extend(named(store::of_everything(tx).await?)?);
    for (currency, micros) in ledger::unbalanced(tx).await? {
        found.push(Breach {
            check: Check::SumsToZero,
            row: format!("{currency}: all accounts sum to {micros} micros, expected 0"),
        });
    }
    for it in ledger::differences(tx).await? {
        let row = format!(
            "{} {} {}: {} micros are kept, the entries sum to {}",
            it.holder, it.currency, it.account, it.kept, it.from_entries
        );
        found.push(Breach { check: Check::BalancesAreEntries, row });
    }
    for (payee, currency, has, earned) in ledger::payees_out_of_balance(tx).await? {
        let row = format!("payee {payee} {currency}: accounts add up to {has} micros, expected {earned}");
        found.push(Breach { check: Check::PayeeIdentity, row });
    }
    for (id, problem) in audit::store::breaches(tx).await? {
        found.push(Breach { check: Check::AuditLog, row: format!("row {id}: {problem}") });
    }
    found.sort_unstable();
    Ok(found)
}

fn named(rows: Vec<(String, String)>) -> Result<Vec<Breach>> {
    let breach = |(name, row): (String, String)| match Check::parse(&name) {
        Some(check) => Ok(Breach { check, row }),
        None => Err(Error::internal(format!("There is no standing check {name}."))),
    };
    rows.into_iter().map(breach).collect()
}

/// The rows by check, in the order of the list.
pub fn by_check(breaches: &[Breach]) -> Vec<(Check, Vec<&str>)> {
    let rows = |check: Check| breaches.iter().filter(|breach| breach.check == check).map(|breach| breach.row.as_str()).collect();
    Check::ALL.iter().map(|check| (*check, rows(*check))).filter(|(_, rows): &(Check, Vec<&str>)| !rows.is_empty()).collect()
}

/// Stops the batch, whatever else it was halted for: those halts end by themselves, this one does not. One alert for each
/// check and halt, however many chunks find the same.
pub async fn stop_batch(tx: &mut Tx, batch: BatchId, breaches: &[Breach]) -> Result<()> {
    let halted_at = store::halt(tx, batch).await?;
    for (check, rows) in by_check(breaches) {
        store::breached(tx, check.name(), &told(&rows)).await?;
        let key = format!("standing_check:{}:batch:{batch}:{}", check.name(), halted_at.timestamp_millis());
        let payload = json!({
            "batchId": batch, "check": check.name(), "expected": check.sentence(), "disagreeing": rows.len(), "rows": told(&rows),
        });
        outbox::put(tx, &key, "standing_check_breached", payload).await?;
        tracing::error!(batch = batch.0, check = check.name(), rows = ?told(&rows), "a standing check stops the batch");
    }
    metric(Metric::StandingCheckBreached, i64::try_from(breaches.len()).unwrap_or(i64::MAX), &[]);
    Ok(())
}

/// The daily job: all checks over everything; keeps the verdict and alerts once a day for each check that is breached.
pub async fn verify(db: &Db) -> Result<()> {
    let mut tx = db.begin().await?;
    let breaches = of_everything(&mut tx).await?;
    let breached = by_check(&breaches);
    let (audited, head) = audit::store::head(&mut tx).await?;
    store::verified(&mut tx, &Check::ALL.iter().map(|check| check.name()).collect::<Vec<_>>()).await?;
    for (check, rows) in &breached {
        store::breached(&mut tx, check.name(), &told(rows)).await?;
        let key = format!("standing_check:{}:day:{}", check.name(), clock::now().date_naive());
        let payload =
            json!({ "check": check.name(), "expected": check.sentence(), "disagreeing": rows.len(), "rows": told(rows) });
        outbox::put(&mut tx, &key, "standing_check_breached", payload).await?;
        tracing::error!(check = check.name(), disagreeing = rows.len(), rows = ?told(rows), "a standing check is breached");
    }
    tx.commit(Boundary::KeepVerdict).await?;
    if breaches.is_empty() {
        // Into the log, which is kept elsewhere: who changes the database cannot change what its audit log was.
        tracing::info!(checks = Check::ALL.len(), audited, audit_head = head, "every standing check holds");
    } else {
        metric(Metric::StandingCheckBreached, i64::try_from(breaches.len()).unwrap_or(i64::MAX), &[]);
    }
    Ok(())
}

fn told(rows: &[&str]) -> Vec<String> {
    rows.iter().take(ROWS_TOLD).map(|row| (*row).to_owned()).collect()
}
