//! Payouts: how matured earnings reach banks, once.
//!
//! A **cycle** is the calendar occasion; a **run** is one execution of it for one schedule, with one **batch** per currency; a
//! batch has one **item** per payee, handed to workers in **chunks**; an item has up to two **legs**, and each attempt of a leg
//! is an **operation**.
//!
//! Invariants: one run per schedule and date, one batch per hash. Money is reserved in the transaction that makes its item.
//! At most one operation of an item is open. No attempt n+1 without a closed n. No send without a committed dispatch. Every
//! status is written by `store::chunks::save`, every legal transition is in `item`. Pause and kill switch change no item.

pub mod by_hand;
mod calls;
pub mod checks;
pub mod controls;
pub mod cycle;
pub mod forecast;
pub mod item;
pub mod kpis;
pub mod news;
pub mod operation;
pub mod pay;
pub mod plan;
pub mod preview;
pub mod reason;
pub mod report;
mod resume;
pub mod settle;
pub mod statement;
pub mod store;
pub mod sweep;
pub mod timeline;
pub mod wave;

pub mod routes;

use serde_json::json;

use crate::db::Tx;
use crate::error::Result;
use crate::id::BatchId;
use crate::notifications::store as outbox;
use crate::telemetry::{Metric, metric};

/// Completes the batch, and its run, if nothing of them is pending or being sent any more, and tells the admins of a finished
/// run. May be called at any time, by anyone, any number of times.
pub async fn complete(tx: &mut Tx, batch: BatchId) -> Result<()> {
    if let Some(run) = store::batches::complete_batch(tx, batch).await? {
        tracing::info!(batch = batch.0, run = run.0, "batch completed");
        complete_run(tx, run).await?;
    }
    Ok(())
}

/// The same for a run. Of a withdrawal, and of what somebody had missed, its creator hears, not the admins.
pub async fn complete_run(tx: &mut Tx, run: crate::id::RunId) -> Result<()> {
    if let Some((kind, milliseconds)) = store::batches::complete_run(tx, run).await? {
        tracing::info!(run = run.0, kind, milliseconds, "run completed");
        if kind == "scheduled" {
            metric(Metric::RunMilliseconds, milliseconds, &[]);
            outbox::put(tx, &format!("run_completed:{run}"), "run_completed", json!({ "runId": run })).await?;
        }
    }
    Ok(())
}
