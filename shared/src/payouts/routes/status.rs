//! `GET /internal/payouts/status/{runId}`: how far a run is, from the counts that the database keeps at every commit.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::item::Status;
use super::super::reason::{self, Actor, Advice};
use super::super::store::reports::{self, Count, NotArrived};
use crate::error::{Error, Result};
use crate::http::{AppState, CronOrOperator, Page, PageQuery, Path, Problem, Query, RequestId};
use crate::id::{BatchId, ItemId, RunId};

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusAnswer {
    ok: bool,
    success: bool,
    run_id: RunId,
    /// `scheduled`, `withdrawal`, `resume` or `partner`.
    kind: String,
    schedule: String,
    cycle_date: NaiveDate,
    /// What was earned and available until then is paid.
    cutoff_at: DateTime<Utc>,
    /// `running`, or `completed` when nothing is pending or being sent. What waits for funds, a bank or a person does not hold
    /// a run open.
    status: String,
    /// `schedule`, `cron`, or the id of who asked.
    requested_by: String,
    started_at: DateTime<Utc>,
    /// None: who is paid has not been selected yet.
    batches_created_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    progress: RunProgress,
    /// Items by status, of all batches.
    counts: BTreeMap<String, i64>,
    /// One for each currency; amounts of two currencies are never added.
    batches: Vec<RunBatch>,
    /// Why others with a balance were not paid.
    exclusions: Vec<Exclusion>,
    /// Items that did not arrive, a page of them.
    failures: Vec<Failure>,
    /// Ask with it for the next page of failures; none: this is the last.
    next_cursor: Option<String>,
    request_id: String,
}

/// Items by how far they are.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunProgress {
    items: i64,
    /// Paid, accepted by Stripe and on the way to the bank, or canceled.
    done: i64,
    /// Pending or being sent.
    sending: i64,
    /// Waiting for funds, or for money to become available at Stripe; they go on by themselves.
    waiting: i64,
    /// Failed, blocked, returned, or in need of a person.
    failed: i64,
    /// Of the items, those not pending or being sent any more; rounded down.
    percent: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunBatch {
    batch_id: BatchId,
    #[schema(example = "usd")]
    currency: String,
    /// `processing`, `halted` or `completed`.
    status: String,
    halt_reason: Option<String>,
    /// What to do about the halt.
    action: Option<&'static str>,
    items: i64,
    amount_minor: i64,
    by_status: BTreeMap<String, StatusSum>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StatusSum {
    items: i64,
    amount_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Exclusion {
    #[schema(example = "below_minimum")]
    reason: String,
    /// One for each creator and currency.
    count: i64,
    cause: &'static str,
    who_acts: Actor,
    action: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_id: ItemId,
    batch_id: BatchId,
    creator_id: Uuid,
    currency: String,
    amount_minor: i64,
    /// `failed`, `awaiting_funds`, `awaiting_available`, `payout_blocked`, `returned` or `needs_review`.
    reason: String,
    /// Stripe's code, where it gave one.
    code: Option<String>,
    /// Stripe's sentence, where it gave one.
    message: Option<String>,
    cause: &'static str,
    who_acts: Actor,
    /// The one thing to do.
    action: &'static str,
    updated_at: DateTime<Utc>,
}

/// How a run goes.
///
/// Progress, counts and sums by status, and what did not arrive, in pages of `limit` with the cursor of the page before.
#[utoipa::path(
    get,
    path = "/internal/payouts/status/{runId}",
    tag = "payouts",
    security(("cronSecret" = []), ("bearer" = [])),
    params(("runId" = i64, Path, description = "The run's id."), PageQuery),
    responses(
        (status = 200, description = "The run.", body = StatusAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such run.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn status(
    State(state): State<AppState>,
    _: CronOrOperator,
    RequestId(request_id): RequestId,
    Path(id): Path<i64>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<StatusAnswer>> {
    let list = format!("failures:{id}");
    let page: Page<(i64, i64)> = query.page(&list)?;
    let mut tx = state.db.begin().await?;
    let run = reports::run(&mut tx, id).await?.ok_or_else(|| Error::not_found("The run"))?;
    let (batches, counts) = batches(reports::counts(&mut tx, run.id).await?);
    let exclusions = reports::exclusions(&mut tx, run.id).await?;
    let mut rows = reports::not_arrived(&mut tx, run.id, page.after, page.limit + 1).await?;
    let next_cursor = page.cut(&list, &mut rows, |row| (row.batch_id.0, row.id.0));
    Ok(axum::Json(StatusAnswer {
        ok: true,
        success: true,
        run_id: run.id,
        kind: run.kind,
        schedule: run.schedule,
        cycle_date: run.cycle_on,
        cutoff_at: run.cutoff_at,
        status: run.status,
        requested_by: run.requested_by,
        started_at: run.started_at,
        batches_created_at: run.batches_created_at,
        completed_at: run.completed_at,
        progress: progress(&counts),
        counts,
        batches,
        exclusions: exclusions
            .into_iter()
            .map(|(reason, count)| {
                let Advice { cause, who, action } = reason::of_reason(&reason, None);
                Exclusion { reason, count, cause, who_acts: who, action }
            })
            .collect(),
        failures: rows.into_iter().map(failure).collect(),
        next_cursor,
        request_id,
    }))
}

/// The batches with their sums, and the items of all of them by status.
fn batches(rows: Vec<Count>) -> (Vec<RunBatch>, BTreeMap<String, i64>) {
    let (mut batches, mut counts): (Vec<RunBatch>, BTreeMap<String, i64>) = (Vec::new(), BTreeMap::new());
    for row in rows {
        if batches.last().is_none_or(|last| last.batch_id != row.id) {
            batches.push(RunBatch {
                batch_id: row.id,
                currency: row.currency,
                status: row.status,
                action: row.halt_reason.as_deref().map(reason::halt_action),
                halt_reason: row.halt_reason,
                items: row.items,
                amount_minor: row.amount_minor,
                by_status: BTreeMap::new(),
            });
        }
        let (Some(status), Some(items), Some(amount_minor)) = (row.item_status, row.status_items, row.status_minor) else {
            continue;
        };
        *counts.entry(status.clone()).or_default() += items;
        if let Some(batch) = batches.last_mut() {
            batch.by_status.insert(status, StatusSum { items, amount_minor });
        }
    }
    (batches, counts)
}

fn progress(counts: &BTreeMap<String, i64>) -> RunProgress {
    let mut progress = RunProgress::default();
    for (status, items) in counts {
        progress.items += items;
        let Some(status) = Status::parse(status) else { continue };
        let part = match status {
            Status::Paid | Status::InTransit | Status::Canceled => &mut progress.done,
            Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut => &mut progress.sending,
            Status::AwaitingFunds | Status::AwaitingAvailable => &mut progress.waiting,
            Status::PayoutBlocked | Status::Returned | Status::Failed | Status::NeedsReview => &mut progress.failed,
        };
        *part += items;
    }
    progress.percent = (100 * (progress.items - progress.sending)).checked_div(progress.items).unwrap_or(100);
    progress
}

fn failure(row: NotArrived) -> Failure {
    let Advice { cause, who, action } = reason::of_reason(&row.status, row.failure_code.as_deref());
    Failure {
        item_id: row.id,
        batch_id: row.batch_id,
        creator_id: row.creator_id,
        currency: row.currency,
        amount_minor: row.amount_minor,
        cause,
        who_acts: who,
        action,
        reason: row.status,
        code: row.failure_code,
        message: row.failure_reason,
        updated_at: row.updated_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_every_status_once() {
        let counts = Status::ALL.iter().map(|status| (status.as_str().to_owned(), 10)).collect();
        let progress = progress(&counts);
        assert_eq!(progress.items, progress.done + progress.sending + progress.waiting + progress.failed);
        assert_eq!(
            (progress.items, progress.done, progress.sending, progress.waiting, progress.failed, progress.percent),
            (130, 30, 40, 20, 40, 69)
        );
        assert_eq!(super::progress(&BTreeMap::new()).percent, 100);
    }

    #[test]
    fn what_is_listed_as_a_failure_is_what_neither_arrived_nor_is_being_sent() {
        for status in Status::ALL {
            let part = progress(&BTreeMap::from([(status.as_str().to_owned(), 1)]));
            assert_eq!(reason::did_not_arrive(*status) && !status.is_sending(), part.waiting + part.failed == 1, "{status:?}");
        }
    }
}
