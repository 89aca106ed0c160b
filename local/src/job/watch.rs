//! Watches a cycle to its end: sweeps faster than the schedule would, waits for what only needs time, and gives up in time.

use std::time::{Duration, Instant};

use payday::clock;
use payday::config::Sending;
use payday::db::Db;
use payday::payouts::item::Status;
use payday::payouts::report::{self, Progress};
use serde_json::json;

use super::{Failure, Job, News};
use crate::stack::Stack;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Without news for so long, what is in transit is left to the bank.
const NEWS_WITHIN: Duration = Duration::from_secs(30);

/// Returns the problems that ended the watch, if it was not the end of the work.
pub async fn watch(
    stack: &Stack,
    db: &Db,
    job: &Job,
    sending: &Sending,
    tell: &mut impl FnMut(News<'_>),
) -> Result<Vec<String>, Failure> {
    let began = Instant::now();
    let mut swept_at = Instant::now();
    let mut funds_checked = false;
    let mut last: Option<Progress> = None;
    let mut news_at = Instant::now();
    loop {
        let now = match report::progress(db, job.cycle_on, sending.attempt_cooling).await {
            Ok(now) => now,
            // The database restarts: it is brought back, and the work goes on.
            Err(error) if error.is_transient() && began.elapsed() < job.timeout => {
                tell(News::Note(format!("{error} Trying again.")));
                tokio::time::sleep(SWEEP_EVERY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if last.as_ref() != Some(&now) {
            news_at = Instant::now();
            tell(News::Progress(&now));
            last = Some(now.clone());
        }
        if now.halted.iter().any(|reason| reason == "stripe_key_rejected") {
            return Ok(vec!["Stripe refuses the key; check STRIPE_SECRET_KEY or --stripe-key. Nothing is lost: run again with --keep once it is right.".to_owned()]);
        }
        if began.elapsed() > job.timeout {
            return Ok(vec![format!("Gave up after {} s with work left: {}.", job.timeout.as_secs(), describe(&now))]);
        }
        let sending_or_waiting =
            now.of(&[Status::Pending, Status::Transferring, Status::Transferred, Status::PayingOut, Status::AwaitingAvailable]);
        let stopped_for_a_person = now.halted.iter().any(|reason| reason == "frozen_operation" || reason == "standing_check");
        let busy = now.runs == 0 || now.runs_completed < now.runs || sending_or_waiting > 0;
        let mut ask_stripe = false;
        if stopped_for_a_person && now.unknown == 0 && stack.activity.running() == 0 {
            return Ok(vec![
                "A payment contradicts itself, so its batch is stopped for a person: see needs_review in the report.".to_owned(),
            ]);
        }
        if !busy {
            match now.funds_retry_at {
                Some(retry_at) if !funds_checked => {
                    if retry_at <= clock::now() {
                        tell(News::Note("The platform's balance was short; looking once more.".to_owned()));
                        ask_stripe = true;
                        funds_checked = true;
                    }
                }
                _ if now.of(&[Status::InTransit]) > 0 && news_at.elapsed() < NEWS_WITHIN => {}
                _ => return Ok(Vec::new()),
            }
        }
        if ask_stripe || swept_at.elapsed() >= SWEEP_EVERY {
            swept_at = Instant::now();
            let sweep = json!({ "job": "sweep", "pace": { "quietSeconds": 2, "askStripe": ask_stripe } });
            if let Err(error) = stack.invoke("scheduled-jobs", sweep).await {
                tell(News::Note(format!("A sweep failed and is repeated: {error}.")));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn describe(progress: &Progress) -> String {
    let counts: Vec<String> = progress.by_status.iter().map(|(status, items)| format!("{items} {status}")).collect();
    if counts.is_empty() { "no batch was created".to_owned() } else { counts.join(", ") }
}
