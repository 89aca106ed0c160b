//! The SQL of stopping and going on: pause and kill switch, what mirrors them, and halted batches.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::db::{Tx, query, query_as};
use crate::error::Result;
use crate::id::BatchId;

/// What is switched how.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Switches {
    pub paused: bool,
    pub killed: bool,
    pub reason: Option<String>,
    /// Schedules that were switched off for it.
    pub suspended_schedules: Vec<String>,
    /// When somebody last pressed.
    pub changed_at: DateTime<Utc>,
}

impl Switches {
    pub fn is_stopped(&self) -> bool {
        self.paused || self.killed
    }
}

/// How they are switched just now, for whoever only looks: a kill switch never waits for that.
pub async fn read(tx: &mut Tx) -> Result<Switches> {
    tx.one(query_as("select paused, killed, reason, suspended_schedules, changed_at from payout_controls")).await
}

/// The switches under their lock.
pub async fn lock(tx: &mut Tx) -> Result<Switches> {
    tx.one(query_as("select paused, killed, reason, suspended_schedules, changed_at from payout_controls for no key update"))
        .await
}

pub async fn switch(tx: &mut Tx, paused: bool, killed: bool, reason: &str, by: &str) -> Result<()> {
    let statement =
        query("update payout_controls set paused = $1, killed = $2, reason = $3, changed_by = $4, changed_at = now()");
    tx.run(statement.bind(paused).bind(killed).bind(reason.to_owned()).bind(by.to_owned())).await?;
    Ok(())
}

pub async fn suspend(tx: &mut Tx, schedules: &[String]) -> Result<()> {
    tx.run(query("update payout_controls set suspended_schedules = $1").bind(schedules.to_vec())).await?;
    Ok(())
}

/// Why a batch is halted, under its lock; the outer `None`: there is no such batch.
pub async fn lock_batch(tx: &mut Tx, batch: BatchId) -> Result<Option<Option<String>>> {
    let statement = query_as("select halt_reason from payout_batches where id = $1 for no key update");
    let row: Option<(Option<String>,)> = tx.optional(statement.bind(batch)).await?;
    Ok(row.map(|(reason,)| reason))
}

/// Lets a halted batch go on.
pub async fn resume_batch(tx: &mut Tx, batch: BatchId) -> Result<()> {
    let statement =
        query("update payout_batches set status = 'processing', halt_reason = null where id = $1 and status = 'halted'");
    tx.run(statement.bind(batch)).await?;
    Ok(())
}
