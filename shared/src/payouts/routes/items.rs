//! What operators decide about single payments: retry, adopt, resolve.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::by_hand::decide::Verdict;
use super::super::by_hand::{Decided, Desk, retry_at};
use super::super::item::Status;
use super::super::store::by_hand as store;
use crate::audit::By;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::http::{AppState, Cursor, Json, Operator, Path, Problem, RequestId, words};
use crate::id::{ItemId, OperationId, RunId};

/// Items that one request tries again at most, and for how long.
const MOST_RETRIES: i64 = 500;
const RETRY_PATIENCE: Duration = Duration::from_secs(15);
const MOST_EVIDENCE_CHARS: usize = 2000;

fn desk<'a>(state: &'a AppState, by: &'a By) -> Desk<'a> {
    Desk { db: &state.db, policy: &state.policy, two_person_above_cents: state.two_person_above_cents, by }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemAnswer {
    ok: bool,
    success: bool,
    /// Done now. Else it had been done before, or waits for a second person or for its time.
    changed: bool,
    /// Where the item is now; none while a second operator has to send the same.
    #[schema(example = "pending")]
    status: Option<&'static str>,
    /// Another operator has to send the same.
    proposed: bool,
    /// When it is tried again, if that was asked for.
    scheduled_at: Option<DateTime<Utc>>,
    request_id: String,
}

fn answer(decided: Decided, request_id: String) -> Response {
    let (changed, status, proposed) = match decided {
        Decided::Done(status) => (true, Some(status), false),
        Decided::Already(status) => (false, Some(status), false),
        Decided::Proposed => (false, None, true),
    };
    let status = status.map(Status::as_str);
    let body = ItemAnswer { ok: true, success: true, changed, status, proposed, scheduled_at: None, request_id };
    (if proposed { StatusCode::ACCEPTED } else { StatusCode::OK }, axum::Json(body)).into_response()
}

/// Why it is tried again, and when.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryBody {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Not now but then, within a year; for failed items.
    at: Option<DateTime<Utc>>,
}

/// Try a payment again.
///
/// A failed transfer anew, a refused payout by another payout leg and never by another transfer, what a person has looked at where
/// it stopped. Pressed twice it is one attempt. It goes out with the next sweep, after the cooling time.
#[utoipa::path(
    post,
    path = "/internal/payouts/items/{itemId}/retry",
    tag = "payouts",
    security(("bearer" = [])),
    params(("itemId" = i64, Path, description = "The item's id.")),
    request_body = RetryBody,
    responses(
        (status = 200, description = "It is tried again, now or since before.", body = ItemAnswer),
        (status = 202, description = "It is tried again then.", body = ItemAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such item.", body = Problem),
        (status = 409, description = "`NOT_RETRYABLE`, `NOT_ELIGIBLE`, `SUPERSEDED`, `RESOLVE_FIRST`, `ALREADY_SCHEDULED`, `NO_SUCH_SCHEDULE`: nothing changed, and the sentence says why.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason, or at a time that is not to come.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database or the scheduler does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn retry(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<i64>,
    Json(body): Json<RetryBody>,
) -> Result<Response> {
    let by = By::new(operator.id, &request_id);
    let reason = words("reason", &body.reason, 500)?;
    let desk = desk(&state, &by);
    let Some(at) = body.at else {
        return Ok(answer(desk.retry(ItemId(id), reason).await?, request_id));
    };
    let now = clock::now();
    if at <= now + chrono::Duration::minutes(1) || at > now + chrono::Duration::days(366) {
        return Err(Error::field("at", "must be between a minute and a year from now"));
    }
    let status = retry_at(&desk, &state.scheduler, ItemId(id), at, reason).await?.as_str();
    let (status, scheduled_at) = (Some(status), Some(at));
    let body = ItemAnswer { ok: true, success: true, changed: false, status, proposed: false, scheduled_at, request_id };
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}

/// Which failed payments are tried again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryAllBody {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Of this run only; of all if not given.
    run_id: Option<RunId>,
    /// `nextCursor` of the answer before.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryAllAnswer {
    ok: bool,
    success: bool,
    retried: u64,
    /// How many were not, by the code of the reason.
    #[schema(value_type = Object)]
    not_retried: BTreeMap<&'static str, u64>,
    /// Send it to go on; none: all were looked at.
    next_cursor: Option<String>,
    request_id: String,
}

/// Try all failed payments again.
///
/// All whose payee can be paid now and whose money is still there, some hundreds in a request.
#[utoipa::path(
    post,
    path = "/internal/payouts/retry",
    tag = "payouts",
    security(("bearer" = [])),
    request_body = RetryAllBody,
    responses(
        (status = 200, description = "What was tried again.", body = RetryAllAnswer),
        (status = 400, description = "Not JSON, or the cursor is none.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn retry_all(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Json(body): Json<RetryAllBody>,
) -> Result<axum::Json<RetryAllAnswer>> {
    let by = By::new(operator.id, &request_id);
    let reason = words("reason", &body.reason, 500)?;
    let desk = desk(&state, &by);
    let list = format!("retry:{:?}", body.run_id);
    let after = body.cursor.as_deref().map(|text| Cursor::read::<i64>(&list, text)).transpose()?.unwrap_or_default();
    let mut tx = state.db.begin().await?;
    let items = store::failed_after(&mut tx, body.run_id, ItemId(after), MOST_RETRIES).await?;
    drop(tx);
    let began = clock::monotonic();
    let (mut retried, mut not_retried, mut done) = (0, BTreeMap::new(), 0);
    for id in &items {
        if began.elapsed() > RETRY_PATIENCE {
            break;
        }
        match desk.retry(*id, reason).await {
            Ok(_) => retried += 1,
            Err(refusal) if refusal.kind == Kind::Conflict => *not_retried.entry(refusal.code).or_default() += 1,
            Err(error) => return Err(error),
        }
        done += 1;
    }
    let is_last = done == items.len() && i64::try_from(items.len()).unwrap_or(i64::MAX) < MOST_RETRIES;
    let last = done.checked_sub(1).and_then(|last| items.get(last)).map_or(after, |id| id.0);
    let next_cursor = (!is_last).then(|| Cursor::write(&list, &last));
    Ok(axum::Json(RetryAllAnswer { ok: true, success: true, retried, not_retried, next_cursor, request_id }))
}

/// How a payment was made outside of Payday.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptBody {
    /// What the payment is known by there: a bank's reference, a cheque's number.
    #[schema(min_length = 1, max_length = 200)]
    reference: String,
    /// How you know.
    #[schema(min_length = 1, max_length = 2000)]
    evidence: String,
}

/// Close a payment that was made outside.
///
/// The item is paid and the ledger says so: its money goes from reserved or available to paid out, what is missing becomes debt.
/// Above `TWO_PERSON_ABOVE_CENTS` a second operator has to send the same reference.
#[utoipa::path(
    post,
    path = "/internal/payouts/items/{itemId}/adopt",
    tag = "payouts",
    security(("bearer" = [])),
    params(("itemId" = i64, Path, description = "The item's id.")),
    request_body = AdoptBody,
    responses(
        (status = 200, description = "The item is paid, now or by this reference before.", body = ItemAnswer),
        (status = 202, description = "Another operator has to send the same.", body = ItemAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator. `OWN_PROPOSAL`: nobody confirms their own.", body = Problem),
        (status = 404, description = "There is no such item.", body = Problem),
        (status = 409, description = "`NOT_ADOPTABLE`: it is being paid, is paid, or its money is at Stripe.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reference or evidence.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn adopt(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<i64>,
    Json(body): Json<AdoptBody>,
) -> Result<Response> {
    let by = By::new(operator.id, &request_id);
    let reference = words("reference", &body.reference, 200)?;
    let evidence = words("evidence", &body.evidence, MOST_EVIDENCE_CHARS)?;
    Ok(answer(desk(&state, &by).adopt(ItemId(id), reference, evidence).await?, request_id))
}

/// What became of an attempt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResolveBody {
    /// `accepted` or `rejected`.
    #[schema(example = "accepted")]
    outcome: String,
    /// Stripe's id of it, like `tr_…` or `po_…`, if accepted.
    stripe_id: Option<String>,
    /// How you know.
    #[schema(min_length = 1, max_length = 2000)]
    evidence: String,
}

/// Say what became of an unresolved or frozen attempt.
///
/// Accepted, with Stripe's id: the payment goes on from there. Rejected: a transfer's money is available again, a payout's stays at
/// Stripe; before another attempt Stripe is asked once more. Above `TWO_PERSON_ABOVE_CENTS` a second operator has to send the same.
#[utoipa::path(
    post,
    path = "/internal/payouts/operations/{operationId}/resolve",
    tag = "payouts",
    security(("bearer" = [])),
    params(("operationId" = i64, Path, description = "The operation's id.")),
    request_body = ResolveBody,
    responses(
        (status = 200, description = "It is resolved, now or so before.", body = ItemAnswer),
        (status = 202, description = "Another operator has to send the same.", body = ItemAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator. `OWN_PROPOSAL`: nobody confirms their own.", body = Problem),
        (status = 404, description = "There is no such operation.", body = Problem),
        (status = 409, description = "`NOT_RESOLVABLE`: it is neither unresolved nor frozen. `STRIPE_ID_TAKEN`: another operation is known by this id, or this one by another.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without evidence, or accepted without an id.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn resolve(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<i64>,
    Json(body): Json<ResolveBody>,
) -> Result<Response> {
    let by = By::new(operator.id, &request_id);
    let evidence = words("evidence", &body.evidence, MOST_EVIDENCE_CHARS)?;
    let verdict = match (body.outcome.as_str(), body.stripe_id) {
        ("accepted", Some(stripe_id)) if is_stripe_id(&stripe_id) => Verdict::Accepted { stripe_id },
        ("accepted", _) => return Err(Error::field("stripeId", "must be Stripe's id of it, like tr_1… or po_1…")),
        ("rejected", None) => Verdict::Rejected,
        ("rejected", Some(_)) => return Err(Error::field("stripeId", "must be left out: what was rejected has none")),
        _ => return Err(Error::field("outcome", "must be accepted or rejected")),
    };
    Ok(answer(desk(&state, &by).resolve(OperationId(id), &verdict, evidence).await?, request_id))
}

fn is_stripe_id(text: &str) -> bool {
    let known = text.strip_prefix("tr_").or_else(|| text.strip_prefix("po_"));
    known.is_some_and(|rest| (1..=250).contains(&rest.len()) && rest.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'))
}
