//! What a cycle did, for people and programs: the report of `cargo payday run`. It reads and adds nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::item::Status;
use super::reason;
use super::store::cycle_report as store;
use crate::db::Db;
use crate::error::Result;
use crate::ledger::store as ledger;

/// Amounts in minor units of the batch's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub cycle: NaiveDate,
    pub run_ids: Vec<i64>,
    /// How long it took, for whoever ran it to fill in.
    pub seconds: serde_json::Number,
    pub batches: Vec<BatchReport>,
    pub not_paid: Vec<NotPaid>,
    pub operations: Operations,
    pub ledger: LedgerReport,
    /// Statements of the chunk processors per item, from taking a chunk to giving it back; begin and commit not counted.
    pub sql_statements_per_item: serde_json::Number,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchReport {
    pub id: i64,
    pub currency: String,
    pub items: i64,
    pub amount_minor: i64,
    pub by_status: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub items: i64,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotPaid {
    pub creator_id: Uuid,
    pub currency: String,
    pub balance_minor: i64,
    pub payable_minor: i64,
    /// An exclusion's reason, or the status of an item that did not arrive.
    pub reason: String,
    pub code: Option<String>,
    pub action: &'static str,
}

/// Attempts by what is known of them. `unknown` may still be found out; `unresolved` needs a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Operations {
    pub accepted: i64,
    pub rejected: i64,
    pub unknown: i64,
    pub unresolved: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerReport {
    pub balanced: bool,
    pub differences: Vec<ledger::Difference>,
}

/// Reads the report of the runs of a cycle date.
pub async fn of_cycle(db: &Db, cycle_on: NaiveDate) -> Result<Report> {
    let mut tx = db.begin().await?;
    let run_ids = store::run_ids(&mut tx, cycle_on).await?;
    let mut batches: Vec<BatchReport> = Vec::new();
    for count in store::counts(&mut tx, &run_ids).await? {
        if batches.last().is_none_or(|last| last.id != count.id) {
            let by_status = BTreeMap::new();
            batches.push(BatchReport {
                id: count.id,
                currency: count.currency,
                items: count.items,
                amount_minor: count.amount_minor,
                by_status,
            });
        }
        if let (Some(last), Some(status)) = (batches.last_mut(), count.status) {
            last.by_status
                .insert(status, Sum { items: count.status_items.unwrap_or(0), amount_minor: count.status_minor.unwrap_or(0) });
        }
    }
    let not_paid = store::not_paid(&mut tx, &run_ids)
        .await?
        .into_iter()
        .map(|row| {
            let action = reason::of_reason(&row.reason, row.code.as_deref()).action;
            let store::NotPaidRow { creator_id, currency, balance_minor, payable_minor, reason, code } = row;
            NotPaid { creator_id, currency, balance_minor, payable_minor, reason, code, action }
        })
        .collect();
    let operations = store::operations(&mut tx, &run_ids).await?;
    let differences = ledger::differences(&mut tx).await?;
    let unbalanced = ledger::unbalanced(&mut tx).await?;
    let off = ledger::payees_out_of_balance(&mut tx).await?;
    let balanced = differences.is_empty() && unbalanced.is_empty() && off.is_empty();
    let (milli_statements,) = store::milli_statements_per_item(&mut tx, &run_ids).await?;
    Ok(Report {
        cycle: cycle_on,
        run_ids,
        seconds: 0.into(),
        batches,
        not_paid,
        operations,
        ledger: LedgerReport { balanced, differences },
        sql_statements_per_item: thousandths(milli_statements),
    })
}

/// A number of thousandths as JSON's decimal number, without a float in between.
pub fn thousandths(value: i64) -> serde_json::Number {
    let text = format!("{}.{:03}", value / 1_000, value % 1_000);
    text.parse().unwrap_or_else(|_| 0.into())
}

/// How far a cycle has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub runs: i64,
    pub runs_completed: i64,
    pub items: i64,
    pub by_status: BTreeMap<String, i64>,
    /// Why batches are halted.
    pub halted: Vec<String>,
    /// Attempts whose outcome nobody knows yet.
    pub unknown: i64,
    /// Events from Stripe so far: news.
    pub events: i64,
    /// When everything that waits for funds may be tried again; none if nothing waits.
    pub funds_retry_at: Option<DateTime<Utc>>,
}

impl Progress {
    pub fn of(&self, statuses: &[Status]) -> i64 {
        statuses.iter().filter_map(|status| self.by_status.get(status.as_str())).sum()
    }
}

/// Reads how far the runs of a cycle date have come.
pub async fn progress(db: &Db, cycle_on: NaiveDate, cooling: chrono::Duration) -> Result<Progress> {
    let mut tx = db.begin().await?;
    let run_ids = store::run_ids(&mut tx, cycle_on).await?;
    let row = store::progress(&mut tx, &run_ids).await?;
    let by_status: BTreeMap<String, i64> = store::statuses(&mut tx, &run_ids).await?.into_iter().collect();
    Ok(Progress {
        runs: row.runs,
        runs_completed: row.runs_completed,
        items: by_status.values().sum(),
        by_status,
        halted: row.halted,
        unknown: row.unknown,
        events: row.events,
        funds_retry_at: row.funds_asked_at.map(|asked| asked + cooling),
    })
}

/// Whether all money of every eligible payee was accepted by Stripe, even if a bank refused it later.
pub async fn all_accepted(db: &Db, cycle_on: NaiveDate) -> Result<bool> {
    let mut tx = db.begin().await?;
    let run_ids = store::run_ids(&mut tx, cycle_on).await?;
    Ok(store::not_accepted(&mut tx, &run_ids).await? == 0)
}
