//! `GET /api/statements`: what a creator earned and was paid in a cycle or a year, as JSON or as a file.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::statement::{self, Line, Period, Total};
use super::super::store::{creators, statements};
use crate::clock::{self, Schedule, parse_date};
use crate::config::Policy;
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::http::{AppState, Caller, Csv, Problem, Query};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// A pay day like `2026-11-15`; or a year, not both.
    cycle: Option<String>,
    /// A calendar year like `2026`, in the creator's zone.
    year: Option<String>,
    /// `json` (the default) or `csv`.
    format: Option<String>,
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    Cycle(chrono::NaiveDate),
    Year(i32),
}

impl StatementQuery {
    pub fn read(&self) -> Result<(Occasion, bool)> {
        let asked = match (&self.cycle, &self.year) {
            (Some(date), None) => Occasion::Cycle(
                parse_date(date).map_err(|_| Error::field("cycle", "must be a date of the calendar, written like 2026-11-15"))?,
            ),
            (None, Some(year)) => {
                let digits = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
                let year = year.parse().ok().filter(|_| digits);
                Occasion::Year(year.ok_or_else(|| Error::field("year", "must be a year of four digits like 2026"))?)
            }
            (Some(_), Some(_)) => return Err(Error::field("year", "must not be given together with cycle")),
            (None, None) => return Err(Error::field("cycle", "is required, or year instead")),
        };
        match self.format.as_deref() {
            None | Some("json") => Ok((asked, false)),
            Some("csv") => Ok((asked, true)),
            Some(_) => Err(Error::field("format", "must be json or csv")),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StatementAnswer {
    ok: bool,
    success: bool,
    /// Included.
    from: DateTime<Utc>,
    /// Not included.
    until: DateTime<Utc>,
    /// In which days, months and years are counted.
    #[schema(example = "Europe/Berlin")]
    timezone: String,
    lines: Vec<Line>,
    /// For each currency; nothing is added up over two.
    totals: Vec<Total>,
}

/// A statement of a cycle or a calendar year.
///
/// Earnings by day (of a cycle) or month (of a year), currency and kind, with count, gross, fees and net; what disputes and
/// refunds took back; and the payouts. A cycle's statement has what the cycle paid: earnings whose hold ended since the cycle
/// before. A year's has what was earned and what arrived within it. CSV has the same lines.
#[utoipa::path(
    get,
    path = "/api/statements",
    tag = "creators",
    security(("bearer" = [])),
    params(StatementQuery),
    responses(
        (status = 200, description = "The statement.", content(
            (StatementAnswer = "application/json"),
            (String = "text/csv"),
        )),
        (status = 400, description = "The query cannot be read.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 422, description = "Not a pay day or a year, one in the future, or neither given; `details` name it.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn statement(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<StatementQuery>,
) -> Result<Response> {
    let (asked, as_file) = query.read()?;
    let mut tx = state.db.begin().await?;
    let period = period(&mut tx, caller.id, asked, &state.policy).await?;
    let earned = statements::earned(&mut tx, caller.id, &period).await?;
    let taken_back = statements::taken_back(&mut tx, caller.id, &period).await?;
    let paid = statements::paid(&mut tx, caller.id, &period).await?;
    drop(tx);
    let (lines, totals) = statement::write(&earned, &taken_back, &paid, &period)?;
    if !as_file {
        let (from, until, timezone) = (period.from, period.until, period.zone.name().to_owned());
        return Ok(axum::Json(StatementAnswer { ok: true, success: true, from, until, timezone, lines, totals }).into_response());
    }
    let mut file = Csv::new(&Line::COLUMNS)?;
    for line in &lines {
        file.line(line.cells().iter().map(String::as_str))?;
    }
    let name = match asked {
        Occasion::Cycle(date) => format!("statement-{date}.csv"),
        Occasion::Year(year) => format!("statement-{year}.csv"),
    };
    file.answer(&name)
}

/// In the creator's zone and for the creator's schedule.
async fn period(tx: &mut Tx, creator: Uuid, asked: Occasion, policy: &Policy) -> Result<Period> {
    let settings = creators::settings(tx, creator).await?;
    let schedule = settings.as_ref().and_then(|it| Schedule::parse(&it.schedule)).unwrap_or(Schedule::Semimonthly);
    let zone = policy.calendar.zone_of(settings.as_ref().and_then(|it| it.timezone.as_deref()));
    match asked {
        Occasion::Cycle(date) => Period::of_cycle(date, schedule, policy.calendar, zone, clock::now()),
        Occasion::Year(year) => Period::of_year(year, zone, clock::now()),
    }
}
