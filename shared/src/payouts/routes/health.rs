//! `GET /internal/payouts/health`: whether the next cycle will be paid, part by part.
//!
//! The parts are asked at the same time and each has its own time limit, so a dead one costs the answer nothing but itself.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDate, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::controls::SCHEDULES;
use super::super::reason;
use super::super::store::{checks, jobs, reports};
use crate::clock;
use crate::db::Db;
use crate::error::Result;
use crate::http::{AppState, CronOrOperator, Problem, RequestId};
use crate::http_client::HttpClient;
use crate::id::{BatchId, RunId};
use crate::ledger;
use crate::queue::Queue;
use crate::schedule::{Arming, Scheduler};

/// What one part may take.
const PATIENCE: Duration = Duration::from_secs(3);
const STRIPE_PATIENCE: Duration = Duration::from_secs(2);
/// Runs or batches told of one by one.
const MOST_TOLD: i64 = 20;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthAnswer {
    /// The question could be answered: the database is there.
    ok: bool,
    success: bool,
    /// `ok`, or `degraded` when one of the checks is not, or `down` without the database.
    #[schema(example = "ok")]
    status: &'static str,
    /// Only when down.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    timestamp: DateTime<Utc>,
    request_id: String,
    checks: Checks,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Checks {
    database: Reached,
    queues: QueuesCheck,
    /// Any answer counts: no key is shown.
    stripe: Reached,
    schedule: ScheduleCheck,
    last_run: LastRunCheck,
    stuck_runs: StuckRunsCheck,
    unknown_outcomes: UnknownCheck,
    ledger: LedgerCheck,
    standing_checks: StandingChecks,
    halted_batches: HaltedCheck,
}

impl Checks {
    fn all_ok(&self) -> bool {
        [
            self.database.ok,
            self.queues.ok,
            self.stripe.ok,
            self.schedule.ok,
            self.last_run.ok,
            self.stuck_runs.ok,
            self.unknown_outcomes.ok,
            self.ledger.ok,
            self.standing_checks.ok,
            self.halted_batches.ok,
        ]
        .into_iter()
        .all(|ok| ok)
    }
}

/// Something that answers, or not.
#[derive(Debug, Serialize, ToSchema)]
struct Reached {
    ok: bool,
    ms: u64,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QueuesCheck {
    ok: bool,
    create_batch: QueueCheck,
    process_chunk: QueueCheck,
    notification: QueueCheck,
}

/// SQS's counts are approximate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QueueCheck {
    ok: bool,
    /// Messages that nobody works on yet.
    waiting: Option<i64>,
    in_flight: Option<i64>,
    delayed: Option<i64>,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ScheduleCheck {
    ok: bool,
    /// Every payout schedule is enabled at EventBridge Scheduler, and payouts are neither paused nor killed.
    armed: bool,
    paused: Option<bool>,
    killed: Option<bool>,
    /// Why payouts are paused.
    reason: Option<String>,
    /// `enabled`, `disabled` or `missing`, by schedule.
    schedules: BTreeMap<&'static str, &'static str>,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunTold {
    run_id: RunId,
    schedule: String,
    cycle_date: NaiveDate,
    status: String,
    started_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LastRunCheck {
    ok: bool,
    /// None: there was none yet, which is fine.
    run: Option<RunTold>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StuckRunsCheck {
    ok: bool,
    /// A run that has been running for longer is stuck.
    after_minutes: i64,
    /// The oldest of them.
    runs: Vec<RunTold>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UnknownCheck {
    /// Nothing has been unknown for as long as a run may take.
    ok: bool,
    oldest_at: Option<DateTime<Utc>>,
    oldest_age_seconds: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LedgerCheck {
    ok: bool,
    balanced: Option<bool>,
    /// What is missing or too much, by currency.
    differences: Vec<LedgerDifference>,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LedgerDifference {
    currency: String,
    amount_micros: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StandingChecks {
    /// None is known to be breached.
    ok: bool,
    /// When all of the database was last verified.
    verified_at: Option<DateTime<Utc>>,
    /// Seen breached since then.
    breached: Vec<BreachedTold>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BreachedTold {
    #[schema(example = "in_flight_is_open_transfers")]
    check: String,
    breached_at: DateTime<Utc>,
    /// The first rows that disagree.
    rows: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HaltedCheck {
    ok: bool,
    /// The oldest of them.
    batches: Vec<HaltedTold>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HaltedTold {
    batch_id: BatchId,
    run_id: RunId,
    currency: String,
    reason: String,
    halted_at: Option<DateTime<Utc>>,
    action: &'static str,
}

/// Whether payouts are well.
///
/// Answers within five seconds whatever is dead.
#[utoipa::path(
    get,
    path = "/internal/payouts/health",
    tag = "payouts",
    security(("cronSecret" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "`ok` or `degraded`, and why.", body = HealthAnswer),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; what is known all the same.", body = HealthAnswer),
    )
)]
pub(super) async fn health(State(state): State<AppState>, _: CronOrOperator, RequestId(request_id): RequestId) -> Response {
    let timestamp = clock::now();
    let began = clock::monotonic();
    let stuck_before = timestamp - chrono::Duration::minutes(state.stuck_run_minutes);
    let (records, ledger, create_batch, process_chunk, notification, stripe, arming) = tokio::join!(
        async { (within(PATIENCE, records(&state.db, stuck_before)).await, milliseconds(began)) },
        within(PATIENCE, unbalanced(&state.db)),
        queue(&state.queues.create_batch),
        queue(&state.queues.process_chunk),
        queue(&state.queues.notification),
        stripe(&state.stripe_api_base),
        within(PATIENCE, armed(&state.scheduler)),
    );
    let (records, database_ms) = records;
    let database = Reached { ok: records.is_ok(), ms: database_ms, error: records.as_ref().err().cloned() };
    let known = records.ok();
    let is_up = known.is_some();
    let queues =
        QueuesCheck { ok: create_batch.ok && process_chunk.ok && notification.ok, create_batch, process_chunk, notification };
    let schedule = schedule(arming, known.as_ref().map(|known| &known.controls));
    let Records { last_run, stuck, oldest_unknown, halted, verdicts, controls: _ } = known.unwrap_or_default();
    let age = oldest_unknown.map(|since| (timestamp - since).num_seconds().max(0));
    let checks = Checks {
        database,
        queues,
        stripe,
        schedule,
        last_run: LastRunCheck { ok: is_up, run: last_run.map(told) },
        stuck_runs: StuckRunsCheck {
            ok: is_up && stuck.is_empty(),
            after_minutes: state.stuck_run_minutes,
            runs: stuck.into_iter().map(told).collect(),
        },
        unknown_outcomes: UnknownCheck {
            ok: is_up && age.is_none_or(|age| age < state.stuck_run_minutes * 60),
            oldest_at: oldest_unknown,
            oldest_age_seconds: age,
        },
        ledger: ledger_check(ledger),
        standing_checks: standing_checks(is_up, verdicts),
        halted_batches: HaltedCheck { ok: is_up && halted.is_empty(), batches: halted.into_iter().map(halt).collect() },
    };
    let status = match (is_up, checks.all_ok()) {
        (false, _) => "down",
        (true, false) => "degraded",
        (true, true) => "ok",
    };
    let answer = HealthAnswer {
        ok: is_up,
        success: is_up,
        status,
        code: (!is_up).then_some("DATABASE_UNAVAILABLE"),
        error: (!is_up).then_some("The database does not answer; try again in a moment."),
        timestamp,
        request_id,
        checks,
    };
    (if is_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, axum::Json(answer)).into_response()
}

/// An answer in time, else a sentence about why there is none.
async fn within<T>(patience: Duration, work: impl Future<Output = Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(error = %error, causes = error.causes(), "a part is not well");
            Err(error.to_string())
        }
        Err(_) => Err(format!("There was no answer within {} s.", patience.as_secs())),
    }
}

fn milliseconds(began: std::time::Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What the database says of everything but the ledger.
#[derive(Default)]
struct Records {
    controls: Option<reports::Controls>,
    last_run: Option<reports::Run>,
    stuck: Vec<reports::Run>,
    oldest_unknown: Option<DateTime<Utc>>,
    halted: Vec<reports::HaltedBatch>,
    verdicts: Vec<checks::Verdict>,
}

async fn records(db: &Db, stuck_before: DateTime<Utc>) -> Result<Records> {
    let mut tx = db.begin().await?;
    Ok(Records {
        controls: Some(reports::controls(&mut tx).await?),
        last_run: reports::last_run(&mut tx).await?,
        stuck: reports::stuck_runs(&mut tx, stuck_before, MOST_TOLD).await?,
        oldest_unknown: jobs::oldest_unknown(&mut tx).await?,
        halted: reports::halted(&mut tx, MOST_TOLD).await?,
        verdicts: checks::verdicts(&mut tx).await?,
    })
}

/// The sums of all balances: on a connection of its own, because with many payees it takes longest.
async fn unbalanced(db: &Db) -> Result<Vec<(String, i64)>> {
    let mut tx = db.begin().await?;
    reports::give_up_after(&mut tx, PATIENCE).await?;
    ledger::store::unbalanced(&mut tx).await
}

fn ledger_check(answer: Result<Vec<(String, i64)>, String>) -> LedgerCheck {
    match answer {
        Ok(differences) => LedgerCheck {
            ok: differences.is_empty(),
            balanced: Some(differences.is_empty()),
            differences: differences
                .into_iter()
                .map(|(currency, amount_micros)| LedgerDifference { currency, amount_micros })
                .collect(),
            error: None,
        },
        Err(error) => LedgerCheck { ok: false, balanced: None, differences: Vec::new(), error: Some(error) },
    }
}

fn standing_checks(is_up: bool, verdicts: Vec<checks::Verdict>) -> StandingChecks {
    let verified_at = verdicts.iter().filter_map(|verdict| verdict.verified_at).max();
    let breached = verdicts.into_iter().filter_map(|verdict| {
        Some(BreachedTold { check: verdict.name, breached_at: verdict.breached_at?, rows: verdict.disagreeing })
    });
    let breached: Vec<BreachedTold> = breached.collect();
    StandingChecks { ok: is_up && breached.is_empty(), verified_at, breached }
}

async fn queue(queue: &Queue) -> QueueCheck {
    match within(PATIENCE, queue.depth()).await {
        Ok(depth) => QueueCheck {
            ok: true,
            waiting: Some(depth.visible),
            in_flight: Some(depth.in_flight),
            delayed: Some(depth.delayed),
            error: None,
        },
        Err(error) => QueueCheck { ok: false, waiting: None, in_flight: None, delayed: None, error: Some(error) },
    }
}

async fn stripe(base: &str) -> Reached {
    let began = clock::monotonic();
    // A connection of its own each time: whether one can be made is the question.
    let error = match HttpClient::new(STRIPE_PATIENCE) {
        Ok(client) => client.get(base, Vec::new()).await.err().map(|failure| {
            tracing::warn!(%failure, "stripe is not reachable");
            format!("Stripe could not be reached within {} s.", STRIPE_PATIENCE.as_secs())
        }),
        Err(error) => Some(error.to_string()),
    };
    Reached { ok: error.is_none(), ms: milliseconds(began), error }
}

async fn armed(scheduler: &Scheduler) -> Result<BTreeMap<&'static str, Arming>> {
    scheduler.armed(&SCHEDULES).await
}

fn schedule(
    arming: Result<BTreeMap<&'static str, Arming>, String>,
    controls: Option<&Option<reports::Controls>>,
) -> ScheduleCheck {
    let (arming, error) = match arming {
        Ok(arming) => (arming, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let controls = controls.and_then(Option::as_ref);
    let all_enabled = !arming.is_empty() && arming.values().all(|state| *state == Arming::Enabled);
    let armed = all_enabled && controls.is_some_and(|controls| !controls.paused && !controls.killed);
    ScheduleCheck {
        ok: armed,
        armed,
        paused: controls.map(|controls| controls.paused),
        killed: controls.map(|controls| controls.killed),
        reason: controls.and_then(|controls| controls.reason.clone()),
        schedules: arming
            .into_iter()
            .map(|(name, state)| {
                let state = match state {
                    Arming::Enabled => "enabled",
                    Arming::Disabled => "disabled",
                    Arming::Missing => "missing",
                };
                (name, state)
            })
            .collect(),
        error,
    }
}

fn told(run: reports::Run) -> RunTold {
    RunTold {
        run_id: run.id,
        schedule: run.schedule,
        cycle_date: run.cycle_on,
        status: run.status,
        started_at: run.started_at,
        completed_at: run.completed_at,
    }
}

fn halt(batch: reports::HaltedBatch) -> HaltedTold {
    HaltedTold {
        batch_id: batch.id,
        run_id: batch.run_id,
        currency: batch.currency,
        action: reason::halt_action(&batch.halt_reason),
        reason: batch.halt_reason,
        halted_at: batch.halted_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Schedule;

    #[test]
    fn every_schedule_that_is_ever_due_has_to_be_armed() {
        let named = Schedule::ALL.iter().filter(|schedule| **schedule != Schedule::Manual);
        let named: Vec<String> = named.map(|schedule| format!("payout-{}", schedule.as_str())).collect();
        assert_eq!(named, SCHEDULES);
    }

    #[test]
    fn a_schedule_is_armed_only_if_all_are_enabled_and_nothing_is_paused() {
        let controls = |paused, killed| Some(reports::Controls { paused, killed, reason: None });
        let all = |state| Ok(SCHEDULES.into_iter().map(|name| (name, state)).collect::<BTreeMap<_, _>>());
        let mut one_off: BTreeMap<_, _> = SCHEDULES.into_iter().map(|name| (name, Arming::Enabled)).collect();
        one_off.insert("payout-weekly", Arming::Disabled);
        for (arming, controls, armed) in [
            (all(Arming::Enabled), controls(false, false), true),
            (all(Arming::Enabled), controls(true, false), false),
            (all(Arming::Enabled), controls(false, true), false),
            (all(Arming::Enabled), None, false),
            (all(Arming::Missing), controls(false, false), false),
            (Ok(one_off), controls(false, false), false),
            (Err("no answer".to_owned()), controls(false, false), false),
        ] {
            let told = format!("{arming:?} {controls:?}");
            assert_eq!(schedule(arming, Some(&controls)).armed, armed, "{told}");
        }
    }
}
