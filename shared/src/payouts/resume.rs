//! An account that is mended is paid what it missed, the same day, and nobody has to do anything.
//!
//! `payees` marks whose account has become ready, or whose bank account an operator has confirmed, if the last cycle left them out
//! for it or a payment of theirs was refused. The sweep takes up refused payments by the rules of the daily retry, and starts a
//! run of kind `resume` for the payee alone: as of the cut-off of the cycle they missed, so nothing is paid early, and unique by
//! payee and day, so nothing twice. Its batch is made like any other and asks for eligibility again. Killed half-way, the mark is
//! still there and the next sweep ends the same.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::store::resume;
use super::sweep::{MAX_RETRIES, Sweeper};
use crate::boundary::Boundary;
use crate::clock;
use crate::error::Result;
use crate::queue::Message;

/// Payees looked at by one sweep; the next looks at more.
const PAYEES_AT_ONCE: i64 = 100;

impl Sweeper {
    /// Looks at everybody for whom something was mended. Whoever cannot be looked at keeps the mark for the next sweep, and holds up
    /// nobody else.
    pub(super) async fn resume(&self) -> Result<()> {
        if !self.policy.auto_resume {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let cured = resume::cured(&mut tx, PAYEES_AT_ONCE).await?;
        drop(tx);
        for (payee, cured_at) in cured {
            if let Err(error) = self.resume_payee(payee, cured_at).await {
                tracing::warn!(%payee, error = %error, causes = error.causes(), "could not be resumed");
            }
        }
        Ok(())
    }

    async fn resume_payee(&self, payee: Uuid, cured_at: DateTime<Utc>) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let failed = resume::failed_items_of(&mut tx, payee, MAX_RETRIES).await?;
        drop(tx);
        for item in failed {
            self.retry_item(item).await?;
        }
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        // First, because whoever describes an account locks it before its items too.
        resume::looked_at(&mut tx, payee, cured_at).await?;
        resume::retry_refused_payouts_of(&mut tx, payee, &self.policy, now).await?;
        let run = match resume::payable_cutoff(&mut tx, payee, &self.policy, now).await? {
            Some(cutoff) => resume::start(&mut tx, payee, self.policy.calendar.date_of(now), cutoff).await?,
            None => None,
        };
        tx.commit(Boundary::ResumePayee).await?;
        if let Some(run_id) = run {
            tracing::info!(%payee, run = run_id.0, "resumed");
            self.create_batch.send_all(Boundary::QueueResume, &[Message::CreateBatch { run_id }]).await?;
        }
        Ok(())
    }
}
