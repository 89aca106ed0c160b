//! From the calendar to chunks in the queue: a schedule fires (or an operator asks), runs are made, then their batches.
//!
//! Everything here may happen twice or be killed half-way: a run is unique by schedule and date, its batches are made in one
//! transaction or not at all, and a message that got lost is sent again by the sweep.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde_json::json;

use super::preview::Agreed;
use super::store::{batches, preview};
use crate::audit::{self, Act, By};
use crate::boundary::{Boundary, cross};
use crate::clock::{self, Calendar, Schedule};
use crate::config::Policy;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::RunId;
use crate::notifications::store as outbox;
use crate::queue::{Message, Queue};
use crate::telemetry::{Metric, metric};

/// What EventBridge Scheduler says when a payout schedule fires.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fired {
    pub schedule: Schedule,
    /// The time it was scheduled for, however late it comes.
    pub scheduled_time: DateTime<Utc>,
}

/// What became of a request to start a cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The runs of the date, one per schedule; the flag tells which are new.
    Runs(Vec<(RunId, bool)>),
    /// No schedule has a cycle on that date.
    NotDue,
    /// A pause or the kill switch is on; nothing was started.
    Paused,
}

/// A schedule has fired. The date is the scheduled time's, in the payout zone.
pub async fn fired(db: &Db, queue: &Queue, fired: &Fired, calendar: Calendar) -> Result<Started> {
    let cycle_on = calendar.date_of(fired.scheduled_time);
    if !fired.schedule.is_due_on(cycle_on) {
        return Ok(Started::NotDue);
    }
    let schedules = [fired.schedule];
    let why = Why::Machine("schedule");
    cross(Boundary::ScheduleFires, || start(db, queue, &schedules, cycle_on, calendar, why)).await
}

/// Why a cycle is started.
#[derive(Debug, Clone, Copy)]
pub enum Why<'a> {
    /// Its time has come; the name of what says so.
    Machine(&'a str),
    /// A person asks, for the facts of a preview or whatever they are.
    Person { by: &'a By, agreed: Option<&'a Agreed> },
}

/// Someone asks for the cycle of a date: all schedules due then. A cycle whose cut-off is still to come is refused.
pub async fn asked(db: &Db, queue: &Queue, cycle_on: NaiveDate, calendar: Calendar, why: Why<'_>) -> Result<Started> {
    if calendar.cutoff(cycle_on) > clock::now() {
        let message = format!(
            "The cycle of {cycle_on} is in the future; it can be run from {} on.",
            calendar.cutoff(cycle_on).to_rfc3339()
        );
        return Err(Error::invalid("CYCLE_IN_FUTURE", message));
    }
    let due = Schedule::due_on(cycle_on);
    if due.is_empty() {
        return Ok(Started::NotDue);
    }
    start(db, queue, &due, cycle_on, calendar, why).await
}

async fn start(
    db: &Db,
    queue: &Queue,
    schedules: &[Schedule],
    cycle_on: NaiveDate,
    calendar: Calendar,
    why: Why<'_>,
) -> Result<Started> {
    let cutoff_at = calendar.cutoff(cycle_on);
    let requested_by = match why {
        Why::Machine(name) => name,
        Why::Person { by, .. } => &by.actor,
    };
    let mut tx = db.begin().await?;
    if batches::is_stopped(&mut tx).await? {
        return Ok(Started::Paused);
    }
    let (mut runs, mut to_queue) = (Vec::new(), Vec::new());
    for schedule in schedules {
        let (run, new) = batches::start_run(&mut tx, *schedule, cycle_on, cutoff_at, requested_by).await?;
        let mut waited = false;
        if let Why::Person { agreed, .. } = why {
            waited = preview::agree(&mut tx, run, agreed.and_then(|agreed| agreed.get(schedule)).map(String::as_str)).await?;
        }
        to_queue.extend((new || waited).then_some(Message::CreateBatch { run_id: run }));
        runs.push((run, new));
    }
    if let Why::Person { by, agreed } = why {
        let ids: Vec<RunId> = runs.iter().map(|(run, _)| *run).collect();
        let act = Act {
            action: "cycle.run",
            subject: format!("cycle:{cycle_on}"),
            before: json!({}),
            after: json!({ "runIds": ids, "new": runs.iter().any(|(_, new)| *new), "previewed": agreed.is_some() }),
        };
        audit::record(&mut tx, by, &act).await?;
    }
    tx.commit(Boundary::StartRuns).await?;
    queue.send_all(Boundary::QueueRuns, &to_queue).await?;
    metric(Metric::RunsStarted, i64::try_from(to_queue.len()).unwrap_or(i64::MAX), &[]);
    Ok(Started::Runs(runs))
}

/// The cycles of the day and of the day before whose cut-off is over by half an hour and that have no run: somebody must hear
/// of it today. Nothing was missed before there was a database.
pub async fn missing(db: &Db, calendar: Calendar, now: DateTime<Utc>) -> Result<Vec<(NaiveDate, Vec<Schedule>)>> {
    let today = calendar.date_of(now);
    let mut missing = Vec::new();
    let mut tx = db.begin().await?;
    let born_at = batches::born_at(&mut tx).await?;
    for cycle_on in today.pred_opt().into_iter().chain([today]) {
        let cutoff_at = calendar.cutoff(cycle_on);
        if cutoff_at < born_at || cutoff_at + chrono::Duration::minutes(30) > now {
            continue;
        }
        let there = batches::schedules_run_on(&mut tx, cycle_on).await?;
        let mut due = Schedule::due_on(cycle_on);
        due.retain(|due| !there.iter().any(|schedule| schedule == due.as_str()));
        missing.extend((!due.is_empty()).then_some((cycle_on, due)));
    }
    Ok(missing)
}

/// Starts what [`missing`] found, as its schedule should have.
pub async fn make_good(db: &Db, queue: &Queue, cycle_on: NaiveDate, due: &[Schedule], calendar: Calendar) -> Result<Started> {
    start(db, queue, due, cycle_on, calendar, Why::Machine("heartbeat")).await
}

/// The batch creator: matures holds, makes the run's batches, and queues their chunks. Run again at any point, it ends the same.
pub async fn create_batches(db: &Db, queue: &Queue, policy: &Policy, chunk_size: i64, run: RunId) -> Result<()> {
    let mut tx = db.begin().await?;
    let stopped = batches::is_stopped(&mut tx).await?;
    let cutoff_at = batches::lock_run(&mut tx, run).await?.map(|run| run.cutoff_at);
    tx.commit(Boundary::ReadRun).await?;
    let Some(cutoff_at) = cutoff_at else {
        tracing::warn!(run = run.0, "there is no such run");
        return Ok(());
    };
    if stopped {
        tracing::info!(run = run.0, "paused: the sweep brings the run back on resume");
        return Ok(());
    }
    crate::earnings::mature(db, cutoff_at.min(clock::now())).await?;

    let mut tx = db.begin().await?;
    let locked = batches::lock_run(&mut tx, run).await?.ok_or_else(|| Error::not_found("The run"))?;
    if locked.batches_created_at.is_none() {
        batches::remember_policy(&mut tx, policy).await?;
        let made = match batches::create_batches(&mut tx, &locked, policy, chunk_size, clock::now()).await {
            Err(error) if error.code == "FACTS_CHANGED" => {
                tx.rollback().await;
                return wait_to_be_asked(db, &locked).await;
            }
            made => made?,
        };
        tracing::info!(run = run.0, batches = made.batches, items = made.items, excluded = made.excluded, "batches created");
        metric(Metric::PaymentsBatched, i64::try_from(made.items).unwrap_or(i64::MAX), &[]);
    }
    tx.commit(Boundary::CreateBatches).await?;

    let mut tx = db.begin().await?;
    let chunks = batches::chunks_to_queue(&mut tx, run).await?;
    super::complete_run(&mut tx, run).await?;
    tx.commit(Boundary::MarkChunksQueued).await?;
    let messages: Vec<Message> = chunks.into_iter().map(|chunk_id| Message::ProcessChunk { chunk_id }).collect();
    queue.send_all(Boundary::QueueChunks, &messages).await
}

/// The run was agreed to by a preview that showed other facts: nothing is made, the operators are told, and it waits until
/// somebody asks for it again.
async fn wait_to_be_asked(db: &Db, run: &batches::Run) -> Result<()> {
    tracing::warn!(run = run.id.0, "the facts have changed since the preview");
    let mut tx = db.begin().await?;
    batches::facts_changed(&mut tx, run, clock::now()).await?;
    let payload = json!({ "runId": run.id, "cycleDate": run.cycle_on, "schedule": run.schedule });
    let key = format!("facts_changed:{}:{}", run.id, run.preview_hash.as_deref().unwrap_or_default());
    outbox::put(&mut tx, &key, "facts_changed", payload).await?;
    tx.commit(Boundary::HoldRun).await
}
