//! `GET /internal/payouts/preview`: what a cycle would do.

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::preview::{self as looking_ahead, Funding};
use super::super::reason;
use super::super::store::preview::{self as store, Position};
use super::cycle_date;
use crate::clock::{self, Schedule};
use crate::error::{Error, Result};
use crate::http::{AppState, Operator, Page, PageQuery, Problem, Query, RequestId};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct PreviewQuery {
    /// Like `2026-11-15`; today in the payout zone if not given. May be in the future.
    #[param(format = Date)]
    cycle_date: Option<String>,
    /// One schedule of those due then; all of them if not given.
    #[param(value_type = Option<Schedule>)]
    schedule: Option<String>,
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviewAnswer {
    ok: bool,
    success: bool,
    cycle_date: NaiveDate,
    /// What was earned and available until then is paid.
    cutoff_at: DateTime<Utc>,
    schedules: Vec<Schedule>,
    /// Of the facts: give it to `POST /internal/payouts/run` as `previewHash`, and what is run is this or nothing. Only the preview
    /// of all schedules of a date can be run.
    hash: String,
    /// Who is paid, by currency; amounts of two currencies are never added.
    currencies: Vec<CurrencySum>,
    /// Who is not paid, by reason and currency.
    not_paid: Vec<NotPaid>,
    /// One by one, by creator: a page of them.
    entries: Vec<Entry>,
    next_cursor: Option<String>,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CurrencySum {
    #[schema(example = "usd")]
    currency: String,
    payees: i64,
    amount_minor: i64,
    /// The cycle before of the same schedules; none: there was none.
    last_cycle: Option<LastCycle>,
    /// None: nothing has to be transferred.
    funding: Option<FundingTold>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LastCycle {
    cycle_date: NaiveDate,
    payees: i64,
    amount_minor: i64,
    /// This one's less that one's.
    payees_difference: i64,
    amount_difference_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FundingTold {
    /// What would be transferred from the platform's balance.
    needed_minor: i64,
    /// What payments made before still have to be transferred.
    claimed_minor: i64,
    /// The platform's balance at Stripe; none: nobody has looked yet.
    available_minor: Option<i64>,
    /// When it was looked at, which is every hour.
    read_at: Option<DateTime<Utc>>,
    short_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NotPaid {
    #[schema(example = "below_minimum")]
    reason: String,
    currency: String,
    payees: i64,
    balance_minor: i64,
    action: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Entry {
    creator_id: Uuid,
    currency: String,
    schedule: Schedule,
    paid: bool,
    /// What is paid; of those who are not, what would be.
    amount_minor: i64,
    transfer_minor: i64,
    connected_minor: i64,
    account: Option<String>,
    /// Held and available, before anything is paid.
    balance_minor: i64,
    /// Why not; none: paid.
    reason: Option<String>,
    action: Option<&'static str>,
}

/// What a cycle would do.
///
/// Who would get what, who not and why, by sums and one by one. Changes nothing; may be of a cycle in the future.
#[utoipa::path(
    get,
    path = "/internal/payouts/preview",
    tag = "payouts",
    security(("bearer" = [])),
    params(PreviewQuery),
    responses(
        (status = 200, description = "The cycle as it would be.", body = PreviewAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 422, description = "`VALIDATION_FAILED`: not a date, or no schedule that is due then. `NOT_A_PAY_DAY`: no schedule has a cycle on the date.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn preview(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<PreviewQuery>,
) -> Result<axum::Json<PreviewAnswer>> {
    let PreviewQuery { cycle_date: date, schedule, limit, cursor } = query;
    let now = clock::now();
    let cycle_on = cycle_date(date.as_deref(), state.policy.calendar, now)?;
    let names = "semimonthly, monthly or weekly";
    let only = match schedule.as_deref() {
        None => None,
        Some(text) => Some(Schedule::parse(text).ok_or_else(|| Error::field("schedule", format!("must be {names}")))?),
    };
    if Schedule::due_on(cycle_on).is_empty() {
        let message = format!("{cycle_on} is not a pay day{}.", super::next_pay_day(cycle_on));
        return Err(Error::invalid("NOT_A_PAY_DAY", message));
    }
    let occasion = looking_ahead::occasion(cycle_on, only, state.policy.calendar, now)?;
    let list = format!("preview:{cycle_on}:{only:?}");
    let page: Page<Position> = PageQuery { limit, cursor }.page(&list)?;
    let mut tx = state.db.begin().await?;
    let foreseen = store::foresee(&mut tx, &occasion, &state.policy, page.after.as_ref(), page.limit + 1).await?;
    let funding = looking_ahead::funding(&mut tx, &foreseen.sums).await?;
    let last = store::last_cycle(&mut tx, &occasion).await?;
    let mut entries = foreseen.page.0;
    let next_cursor = page.cut(&list, &mut entries, |entry| (entry.creator_id, entry.currency.clone(), entry.schedule));
    Ok(axum::Json(PreviewAnswer {
        ok: true,
        success: true,
        cycle_date: cycle_on,
        cutoff_at: occasion.cutoff_at,
        hash: looking_ahead::hash(&occasion, &foreseen.hashes),
        schedules: occasion.schedules,
        currencies: foreseen.sums.0.into_iter().map(|sum| currency(sum, &last, &funding)).collect(),
        not_paid: foreseen.reasons.0.into_iter().map(not_paid).collect(),
        entries: entries.into_iter().map(told).collect(),
        next_cursor,
        request_id,
    }))
}

fn currency(sum: store::Sum, last: &[(NaiveDate, String, i64, i64)], funding: &[Funding]) -> CurrencySum {
    // A currency that the cycle before did not have is new by all of it.
    let before = last.iter().find(|(_, currency, ..)| *currency == sum.currency).map(|(_, _, payees, minor)| (*payees, *minor));
    let last_cycle = last.first().map(|(cycle_date, ..)| {
        let (payees, amount_minor) = before.unwrap_or_default();
        LastCycle {
            cycle_date: *cycle_date,
            payees,
            amount_minor,
            payees_difference: sum.payees - payees,
            amount_difference_minor: sum.amount_minor - amount_minor,
        }
    });
    let funding = funding.iter().find(|it| it.currency == sum.currency).map(|it| FundingTold {
        needed_minor: it.needed_minor,
        claimed_minor: it.claimed_minor,
        available_minor: it.available_minor,
        read_at: it.read_at,
        short_minor: it.short_minor(),
    });
    CurrencySum { currency: sum.currency, payees: sum.payees, amount_minor: sum.amount_minor, last_cycle, funding }
}

fn not_paid(row: store::Reason) -> NotPaid {
    let store::Reason { currency, reason, payees, balance_minor } = row;
    NotPaid { action: reason::of_reason(&reason, None).action, reason, currency, payees, balance_minor }
}

fn told(row: store::Entry) -> Entry {
    Entry {
        creator_id: row.creator_id,
        currency: row.currency,
        schedule: row.schedule,
        paid: row.reason.is_none(),
        amount_minor: row.payable_minor,
        transfer_minor: row.transfer_minor,
        connected_minor: row.connected_minor,
        account: row.account,
        balance_minor: row.balance_minor,
        action: row.reason.as_deref().map(|reason| reason::of_reason(reason, None).action),
        reason: row.reason,
    }
}
