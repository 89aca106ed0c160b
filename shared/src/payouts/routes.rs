//! How cycles are started and watched over HTTP, what creators are told of their money and payouts, and what they may choose.
//!
//! Nothing here moves money: a start makes runs and queues ids, and starting the same cycle again finds the same runs. So a
//! caller whose answer was lost asks again.

mod batches;
mod controls;
mod health;
mod history;
mod items;
mod kpis;
mod money;
mod preview;
pub mod settings;
pub mod statements;
mod status;

use axum::extract::State;
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cycle::{self, Started, Why};
use super::preview as looking_ahead;
use super::store::reports;
use crate::audit::{self, Act, By};
use crate::clock::{self, Calendar, Schedule};
use crate::error::{Error, Result};
use crate::http::{AppState, CronCaller, CronOrOperator, LenientJson, Problem, RequestId};
use crate::id::RunId;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(trigger))
        .routes(routes!(run))
        .routes(routes!(preview::preview))
        .routes(routes!(status::status))
        .routes(routes!(health::health))
        .routes(routes!(kpis::kpis))
        .routes(routes!(controls::pause))
        .routes(routes!(controls::kill))
        .routes(routes!(controls::resume))
        .routes(routes!(batches::resume))
        .routes(routes!(items::retry))
        .routes(routes!(items::retry_all))
        .routes(routes!(items::adopt))
        .routes(routes!(items::resolve))
        .routes(routes!(money::earnings))
        .routes(routes!(history::payouts))
        .routes(routes!(history::payout))
        .routes(routes!(statements::statement))
        .routes(routes!(settings::settings, settings::change_settings))
}

/// What a scheduler may say. Whatever else it sends along is not looked at: a pay day is not lost over it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
struct Trigger {
    /// Like `2026-11-15`; today in the payout zone if empty or not given.
    #[schema(format = Date)]
    cycle_date: Option<String>,
}

/// The cycle to run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RunBody {
    /// Like `2026-11-15`; today in the payout zone if empty or not given.
    #[schema(format = Date)]
    cycle_date: Option<String>,
    /// `hash` of the preview that this run was agreed to by: with other facts it is refused.
    preview_hash: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum TriggerAnswer {
    Triggered(Triggered),
    Skipped(Skipped),
}

/// The cycle's runs are there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Triggered {
    ok: bool,
    success: bool,
    message: String,
    /// Names the occasion: the same for every call of one cycle.
    #[schema(example = "cycle:2026-11-15")]
    event_id: String,
    run_ids: Vec<RunId>,
    day_of_month: u32,
    timestamp: DateTime<Utc>,
    note: String,
    request_id: String,
}

/// Nothing was started, and why; not an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Skipped {
    ok: bool,
    success: bool,
    /// Always true.
    skipped: bool,
    reason: String,
    day_of_month: u32,
    timestamp: DateTime<Utc>,
    request_id: String,
}

/// Start the payouts of the day, for a scheduler.
///
/// Takes any content type and an empty body. On a day without a cycle, before its hour, and while payouts are paused nothing is
/// started and the answer says so; it is a success all the same. Call it as often as you like: each cycle runs once.
#[utoipa::path(
    post,
    path = "/api/cron/payouts",
    tag = "payouts",
    security(("cronSecret" = [])),
    request_body(content = Option<Trigger>, description = "May be empty."),
    responses(
        (status = 200, description = "Started, started before, or skipped with a reason.", body = TriggerAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or a wrong cron secret.", body = Problem),
        (status = 422, description = "`cycleDate` is not a date.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database or the queue does not answer; ask again.", body = Problem),
    )
)]
async fn trigger(
    State(state): State<AppState>,
    _: CronCaller,
    RequestId(request_id): RequestId,
    LenientJson(body): LenientJson<Trigger>,
) -> Result<axum::Json<TriggerAnswer>> {
    let (calendar, timestamp) = (state.policy.calendar, clock::now());
    let cycle_on = cycle_date(body.cycle_date.as_deref(), calendar, timestamp)?;
    let day_of_month = cycle_on.day();
    let skipped = |reason, request_id| {
        let skipped = Skipped { ok: true, success: true, skipped: true, reason, day_of_month, timestamp, request_id };
        Ok(axum::Json(TriggerAnswer::Skipped(skipped)))
    };
    if Schedule::due_on(cycle_on).is_empty() {
        return skipped(format!("{cycle_on} is not a pay day{}.", next_pay_day(cycle_on)), request_id);
    }
    if calendar.cutoff(cycle_on) > timestamp {
        return skipped(too_early(cycle_on, calendar), request_id);
    }
    let runs = match cycle::asked(&state.db, &state.queues.create_batch, cycle_on, calendar, Why::Machine("cron")).await? {
        Started::Runs(runs) => runs,
        Started::NotDue => return skipped(format!("{cycle_on} is not a pay day{}.", next_pay_day(cycle_on)), request_id),
        Started::Paused => {
            return skipped("Payouts are paused; nothing was started. Resume them, then call again.".to_owned(), request_id);
        }
    };
    tracing::info!(%cycle_on, ?runs, "cycle triggered over http");
    let is_new = runs.iter().any(|(_, new)| *new);
    let run_ids: Vec<RunId> = runs.into_iter().map(|(id, _)| id).collect();
    Ok(axum::Json(TriggerAnswer::Triggered(Triggered {
        ok: true,
        success: true,
        message: if is_new {
            format!("The payouts of {cycle_on} have been started.")
        } else {
            format!("The payouts of {cycle_on} had been started before; nothing is paid twice.")
        },
        event_id: format!("cycle:{cycle_on}"),
        note: format!("Payments are made in the background. Watch {}.", addresses(&run_ids)),
        run_ids,
        day_of_month,
        timestamp,
        request_id,
    })))
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunAnswer {
    ok: bool,
    success: bool,
    /// The first of the runs; a date that several schedules share has several.
    run_id: RunId,
    run_ids: Vec<RunId>,
    cycle_date: NaiveDate,
    /// All of the runs had been started before.
    already_existed: bool,
    /// `running`, or `completed` when all of the runs are.
    #[schema(example = "running")]
    status: &'static str,
    request_id: String,
}

/// Run the cycle of a date.
///
/// All schedules due on the date run. A second call for the same date returns the same runs. With the hash of a preview it is run
/// only if the facts are still those.
#[utoipa::path(
    post,
    path = "/internal/payouts/run",
    tag = "payouts",
    security(("cronSecret" = []), ("bearer" = [])),
    request_body(content = Option<RunBody>, description = "May be empty: today in the payout zone."),
    responses(
        (status = 200, description = "The runs of the date, started now or before.", body = RunAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 409, description = "`PAUSED`: payouts are paused, nothing was started. `PREVIEW_STALE`: the facts have changed since the preview.", body = Problem),
        (status = 422, description = "`VALIDATION_FAILED`: not a date. `NOT_A_PAY_DAY`: no schedule has a cycle on the date. `CYCLE_IN_FUTURE`: its hour is still to come.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database or the queue does not answer; ask again.", body = Problem),
    )
)]
async fn run(
    State(state): State<AppState>,
    caller: CronOrOperator,
    RequestId(request_id): RequestId,
    LenientJson(body): LenientJson<RunBody>,
) -> Result<axum::Json<RunAnswer>> {
    let calendar = state.policy.calendar;
    let cycle_on = cycle_date(body.cycle_date.as_deref(), calendar, clock::now())?;
    let not_a_pay_day = || Error::invalid("NOT_A_PAY_DAY", format!("{cycle_on} is not a pay day{}.", next_pay_day(cycle_on)));
    if Schedule::due_on(cycle_on).is_empty() {
        return Err(not_a_pay_day());
    }
    let by = By::new(caller.actor(), &request_id);
    let agreed = match &body.preview_hash {
        None => None,
        Some(hash) => Some(agree(&state, cycle_on, hash, &by).await?),
    };
    let why = Why::Person { by: &by, agreed: agreed.as_ref() };
    let runs = match cycle::asked(&state.db, &state.queues.create_batch, cycle_on, calendar, why).await? {
        Started::Runs(runs) => runs,
        Started::NotDue => return Err(not_a_pay_day()),
        Started::Paused => {
            let message = "Payouts are paused; nothing was started. Resume them, then ask again.";
            return Err(Error::conflict("PAUSED", message));
        }
    };
    tracing::info!(actor = caller.actor(), %cycle_on, ?runs, "run asked for");
    let already_existed = runs.iter().all(|(_, new)| !new);
    let run_ids: Vec<RunId> = runs.into_iter().map(|(id, _)| id).collect();
    let run_id = run_ids.first().copied().ok_or_else(not_a_pay_day)?;
    let is_completed = already_existed && {
        let mut tx = state.db.begin().await?;
        reports::are_completed(&mut tx, &run_ids).await?
    };
    Ok(axum::Json(RunAnswer {
        ok: true,
        success: true,
        run_id,
        run_ids,
        cycle_date: cycle_on,
        already_existed,
        status: if is_completed { "completed" } else { "running" },
        request_id,
    }))
}

/// The facts that a preview showed, if they are still those; the refusal is in the audit log.
async fn agree(state: &AppState, cycle_on: NaiveDate, hash: &str, by: &By) -> Result<looking_ahead::Agreed> {
    if hash.len() != 64 || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Error::field("previewHash", "must be the hash of a preview, 64 hexadecimal digits"));
    }
    let occasion = looking_ahead::occasion(cycle_on, None, state.policy.calendar, clock::now())?;
    match looking_ahead::still_agrees(&state.db, &state.policy, &occasion, hash).await {
        Err(refusal) if refusal.code == "PREVIEW_STALE" => {
            let after = serde_json::json!({ "previewHash": hash });
            let act = Act { action: "cycle.run", subject: format!("cycle:{cycle_on}"), before: serde_json::json!({}), after };
            Err(audit::refused(&state.db, by, &act, refusal).await?)
        }
        agreed => agreed,
    }
}

/// The date that is asked for, else today's in the payout zone.
fn cycle_date(text: Option<&str>, calendar: Calendar, now: DateTime<Utc>) -> Result<NaiveDate> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(calendar.date_of(now)),
        // Our own words: the sentence of the parser quotes what was sent.
        Some(text) => clock::parse_date(text)
            .map_err(|_| Error::field("cycleDate", "must be a date of the calendar, written like 2026-11-15")),
    }
}

/// `; the next one is 2026-11-15`, or nothing where the calendar ends.
fn next_pay_day(after: NaiveDate) -> String {
    let next = after.iter_days().skip(1).take(62).find(|date| !Schedule::due_on(*date).is_empty());
    next.map(|date| format!("; the next one is {date}")).unwrap_or_default()
}

fn too_early(cycle_on: NaiveDate, calendar: Calendar) -> String {
    let cutoff_at = calendar.cutoff(cycle_on).with_timezone(&calendar.zone);
    format!("The cycle of {cycle_on} begins at {} ({}); call again from then on.", cutoff_at.to_rfc3339(), calendar.zone)
}

fn addresses(runs: &[RunId]) -> String {
    let addresses: Vec<String> = runs.iter().map(|run| format!("GET /internal/payouts/status/{run}")).collect();
    addresses.join(" and ")
}

#[cfg(test)]
#[path = "routes/tests.rs"]
mod tests;
