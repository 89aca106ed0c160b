//! Stopping and going on: pause, kill switch, and batches that wait for a person.
//!
//! The truth is a row in Postgres, which every worker obeys within a second and every start asks first. EventBridge Scheduler
//! mirrors it: the payout schedules that were armed are switched off, and exactly those on again. The mirror may break off
//! anywhere; whoever switches next, or the sweep, completes it.

use serde_json::json;

use super::store::controls::{self as store, Switches};
use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};
use crate::id::BatchId;
use crate::schedule::{Arming, Scheduler};

/// The schedules that start payouts, by their names in the template.
pub const SCHEDULES: [&str; 3] = ["payout-semimonthly", "payout-monthly", "payout-weekly"];

/// What an operator presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// Nothing new starts until somebody resumes.
    Pause,
    /// The same in an emergency, told apart in the log and by health.
    Kill,
    /// Lifts both.
    Resume,
}

impl Press {
    fn action(self) -> &'static str {
        match self {
            Self::Pause => "payouts.pause",
            Self::Kill => "payouts.kill",
            Self::Resume => "payouts.resume",
        }
    }

    fn switched(self, before: &Switches) -> (bool, bool) {
        match self {
            Self::Pause => (true, before.killed),
            Self::Kill => (before.paused, true),
            Self::Resume => (false, false),
        }
    }
}

/// Switches, and says how it is switched then. Pressing twice changes nothing more.
pub async fn press(db: &Db, press: Press, reason: &str, by: &By) -> Result<Switches> {
    let mut tx = db.begin().await?;
    let before = store::lock(&mut tx).await?;
    let (paused, killed) = press.switched(&before);
    store::switch(&mut tx, paused, killed, reason, &by.actor).await?;
    let act = Act {
        action: press.action(),
        subject: "payouts".to_owned(),
        before: json!({ "paused": before.paused, "killed": before.killed, "reason": before.reason }),
        after: json!({ "paused": paused, "killed": killed, "reason": reason }),
    };
    audit::record(&mut tx, by, &act).await?;
    tx.commit(Boundary::SaveByRequest).await?;
    tracing::warn!(actor = by.actor, action = act.action, reason, "switched");
    Ok(Switches { paused, killed, reason: Some(reason.to_owned()), ..before })
}

/// Brings the Scheduler's schedules to what Postgres says. What is to be switched is remembered before it is, so this can be
/// killed anywhere and begun again.
pub async fn mirror(db: &Db, scheduler: &Scheduler) -> Result<()> {
    // Somebody may press while this works: then it is not yet what Postgres says.
    for _ in 0..3 {
        let mut tx = db.begin().await?;
        let is = store::read(&mut tx).await?;
        drop(tx);
        if is.is_stopped() {
            suspend(db, scheduler).await?
        } else {
            unsuspend(db, scheduler, &is).await?
        }
        let mut tx = db.begin().await?;
        if store::read(&mut tx).await?.changed_at == is.changed_at {
            return Ok(());
        }
    }
    Ok(())
}

async fn suspend(db: &Db, scheduler: &Scheduler) -> Result<()> {
    let arming = scheduler.armed(&SCHEDULES).await?;
    let armed: Vec<&str> = arming.into_iter().filter(|(_, arming)| *arming == Arming::Enabled).map(|(name, _)| name).collect();
    if armed.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    let is = store::lock(&mut tx).await?;
    if !is.is_stopped() {
        tx.rollback().await;
        return Ok(());
    }
    // Also those that another has switched off meanwhile.
    let mut suspended = is.suspended_schedules;
    suspended.extend(armed.iter().map(|name| (*name).to_owned()));
    suspended.sort();
    suspended.dedup();
    store::suspend(&mut tx, &suspended).await?;
    tx.commit(Boundary::MirrorSwitches).await?;
    for name in armed {
        scheduler.switch(name, false).await?;
    }
    Ok(())
}

async fn unsuspend(db: &Db, scheduler: &Scheduler, before: &Switches) -> Result<()> {
    if before.suspended_schedules.is_empty() {
        return Ok(());
    }
    for name in &before.suspended_schedules {
        scheduler.switch(name, true).await?;
    }
    let mut tx = db.begin().await?;
    // Whoever has pressed since may have switched them off again.
    if store::lock(&mut tx).await?.changed_at != before.changed_at {
        tx.rollback().await;
        return Ok(());
    }
    store::suspend(&mut tx, &[]).await?;
    tx.commit(Boundary::MirrorSwitches).await
}

/// Lets a batch go on that was halted for a person to look. `false`: it was not halted any more.
pub async fn resume_batch(db: &Db, batch: BatchId, reason: &str, by: &By) -> Result<bool> {
    let mut tx = db.begin().await?;
    match go_on(&mut tx, batch, reason, by).await {
        Ok(true) => {
            tx.commit(Boundary::SaveByRequest).await?;
            tracing::warn!(actor = by.actor, batch = batch.0, reason, "batch resumed");
            Ok(true)
        }
        other => {
            tx.rollback().await;
            other
        }
    }
}

async fn go_on(tx: &mut Tx, batch: BatchId, reason: &str, by: &By) -> Result<bool> {
    let halted_for = store::lock_batch(tx, batch).await?.ok_or_else(|| Error::not_found("The batch"))?;
    match halted_for.as_deref() {
        None => return Ok(false),
        Some("standing_check" | "frozen_operation") => {}
        Some(other) => {
            let message = format!("The batch is halted for {other} and goes on by itself: {}", super::reason::halt_action(other));
            return Err(Error::conflict("GOES_ON_BY_ITSELF", message));
        }
    }
    store::resume_batch(tx, batch).await?;
    let act = Act {
        action: "batch.resume",
        subject: format!("batch:{batch}"),
        before: json!({ "haltReason": halted_for }),
        after: json!({ "haltReason": null, "reason": reason }),
    };
    audit::record(tx, by, &act).await?;
    Ok(true)
}

/// The schedules that are off because payouts are stopped.
pub async fn suspended(db: &Db) -> Result<Vec<String>> {
    let mut tx = db.begin().await?;
    Ok(store::read(&mut tx).await?.suspended_schedules)
}
