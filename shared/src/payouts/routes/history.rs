//! `GET /api/payouts` and `GET /api/payouts/{id}`: a creator's payouts, and the way of one of them.

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::item::Status;
use super::super::reason::Why;
use super::super::store::creators::{self, Payout};
use super::super::timeline::{Step, timeline};
use crate::error::{Error, Result};
use crate::http::{AppState, Caller, Page, PageQuery, Path, Problem, Query};
use crate::id::ItemId;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PayoutsAnswer {
    ok: bool,
    success: bool,
    payouts: Vec<CreatorPayout>,
    /// None: this is the last page.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreatorPayout {
    payout_id: ItemId,
    /// `scheduled`, `withdrawal`, or `resume` for what a repaired account was owed.
    #[schema(example = "scheduled")]
    kind: String,
    cycle_date: NaiveDate,
    #[schema(example = "usd")]
    currency: String,
    amount_minor: i64,
    /// `pending`, `transferring`, `paying_out`, `in_transit`, `paid`; `awaiting_funds`, `awaiting_available`; `payout_blocked`,
    /// `returned`, `failed`, `needs_review`, `canceled`.
    #[schema(example = "in_transit")]
    status: String,
    created_at: DateTime<Utc>,
    /// When Stripe expects it at the bank.
    expected_arrival: Option<NaiveDate>,
    paid_at: Option<DateTime<Utc>>,
    /// Why it has not arrived, and the one thing to do.
    why: Option<Why>,
}

impl From<Payout> for CreatorPayout {
    fn from(payout: Payout) -> Self {
        let code = payout.failure_code.as_deref();
        let why = match (payout.kind.as_str(), payout.status.as_str()) {
            ("withdrawal", "failed") => Some(Why::of_failed_withdrawal(code)),
            (_, status) => Why::of_item(status, code),
        };
        Self {
            payout_id: payout.id,
            kind: payout.kind,
            cycle_date: payout.cycle_on,
            currency: payout.currency,
            amount_minor: payout.amount_minor,
            status: payout.status,
            created_at: payout.created_at,
            expected_arrival: payout.arrival_on,
            paid_at: payout.paid_at,
            why,
        }
    }
}

/// The caller's payouts, newest first.
#[utoipa::path(
    get,
    path = "/api/payouts",
    tag = "creators",
    security(("bearer" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of payouts.", body = PayoutsAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn payouts(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<PayoutsAnswer>> {
    let page: Page<i64> = query.page("payouts")?;
    let mut tx = state.db.begin().await?;
    let mut rows = creators::payouts(&mut tx, caller.id, page.after, page.limit + 1).await?;
    drop(tx);
    let next_cursor = page.cut("payouts", &mut rows, |row| row.id.0);
    let payouts = rows.into_iter().map(CreatorPayout::from).collect();
    Ok(axum::Json(PayoutsAnswer { ok: true, success: true, payouts, next_cursor }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PayoutAnswer {
    ok: bool,
    success: bool,
    payout: CreatorPayout,
    /// What has happened, in order, and what is to come.
    timeline: Vec<Step>,
}

/// One payout's way.
///
/// Earned, held until, reserved, transferred, expected arrival, paid; or where it stopped, why, and the one thing to do.
#[utoipa::path(
    get,
    path = "/api/payouts/{payoutId}",
    tag = "creators",
    security(("bearer" = [])),
    params(("payoutId" = i64, Path, description = "The payout's id.")),
    responses(
        (status = 200, description = "The payout.", body = PayoutAnswer),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 404, description = "The caller has no such payout.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn payout(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<axum::Json<PayoutAnswer>> {
    let mut tx = state.db.begin().await?;
    let story = creators::story(&mut tx, caller.id, id).await?.ok_or_else(|| Error::not_found("The payout"))?;
    drop(tx);
    let status = Status::parse(&story.payout.status);
    let status = status.ok_or_else(|| Error::internal("A payout has a status that this version does not know."))?;
    let timeline = timeline(&story, status);
    Ok(axum::Json(PayoutAnswer { ok: true, success: true, payout: story.payout.into(), timeline }))
}
