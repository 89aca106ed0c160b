//! `GET /internal/payouts/kpis`: the figures.

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::kpis::{self, Kpis};
use super::super::store::kpis::{Arrived, Timed};
use crate::clock;
use crate::error::Result;
use crate::http::{AppState, CronOrOperator, Problem, RequestId};
use crate::id::RunId;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KpisAnswer {
    ok: bool,
    success: bool,
    /// Rates and sums are of so many days before this.
    timestamp: DateTime<Utc>,
    days: i64,
    success_rate: SuccessRate,
    /// Of the same days, by currency; amounts of two currencies are never added.
    payments: Vec<Payments>,
    /// Since ever.
    total_paid: Vec<TotalPaid>,
    /// Payments that did not arrive and that nobody has done anything about for 24 hours.
    failed_over24_hours: i64,
    run_time: RunTime,
    onboarding: Onboarding,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SuccessRate {
    /// Payments that arrived, of those that have an end; two decimals, rounded down. None: there was none.
    #[schema(example = "98.75")]
    percent: Option<String>,
    #[schema(example = "98.00")]
    target_percent: String,
    on_target: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Payments {
    #[schema(example = "usd")]
    currency: String,
    /// Paid, or accepted by Stripe and on the way to the bank.
    arrived: i64,
    arrived_minor: i64,
    failed: i64,
    failed_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TotalPaid {
    #[schema(example = "usd")]
    currency: String,
    /// Confirmed by banks.
    paid_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunTime {
    /// Of the runs below.
    slowest_seconds: Option<i64>,
    average_seconds: Option<i64>,
    /// The newest first.
    runs: Vec<Run>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Run {
    run_id: RunId,
    schedule: String,
    cycle_date: NaiveDate,
    items: i64,
    seconds: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Onboarding {
    creators: i64,
    with_account: i64,
    /// Their account can receive and pay out.
    ready: i64,
    /// Ready of all; none: there is nobody.
    percent: Option<String>,
}

/// How well payouts go: success rate of 30 days, what failed, what was paid, time for each run, onboarding rate.
#[utoipa::path(
    get,
    path = "/internal/payouts/kpis",
    tag = "payouts",
    security(("cronSecret" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The figures.", body = KpisAnswer),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn kpis(
    _: CronOrOperator,
    State(state): State<AppState>,
    RequestId(request_id): RequestId,
) -> Result<axum::Json<KpisAnswer>> {
    let timestamp = clock::now();
    let mut tx = state.db.begin().await?;
    let it = Kpis::read(&mut tx, timestamp).await?;
    let seconds: Vec<i64> = it.runs.iter().map(|run| run.milliseconds / 1_000).collect();
    Ok(axum::Json(KpisAnswer {
        ok: true,
        success: true,
        timestamp,
        days: kpis::DAYS,
        success_rate: SuccessRate {
            percent: it.success().map(kpis::percent),
            target_percent: kpis::percent(kpis::TARGET),
            on_target: it.success().is_none_or(|share| share > kpis::TARGET),
        },
        failed_over24_hours: it.failed_over_a_day,
        run_time: RunTime {
            slowest_seconds: seconds.iter().copied().max(),
            average_seconds: i64::try_from(seconds.len())
                .ok()
                .filter(|runs| *runs > 0)
                .map(|runs| seconds.iter().sum::<i64>() / runs),
            runs: it.runs.iter().cloned().map(run).collect(),
        },
        onboarding: Onboarding {
            creators: it.onboarded.creators,
            with_account: it.onboarded.with_account,
            ready: it.onboarded.ready,
            percent: it.onboarding().map(kpis::percent),
        },
        total_paid: it.ever.iter().map(|it| TotalPaid { currency: it.currency.clone(), paid_minor: it.paid_minor }).collect(),
        payments: it.arrived.into_iter().map(payments).collect(),
        request_id,
    }))
}

fn run(it: Timed) -> Run {
    Run { run_id: it.run_id, schedule: it.schedule, cycle_date: it.cycle_on, items: it.items, seconds: it.milliseconds / 1_000 }
}

fn payments(it: Arrived) -> Payments {
    Payments {
        currency: it.currency,
        arrived: it.arrived_items,
        arrived_minor: it.arrived_minor,
        failed: it.failed_items,
        failed_minor: it.failed_minor,
    }
}
