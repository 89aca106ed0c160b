//! How creators ask for withdrawals, watch them, and take them back.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store::{self, Request};
use super::{Withdrawal, cancel, request};
use crate::error::Result;
use crate::http::{AppState, Caller, IdempotencyKey, Json, Page, PageQuery, Path, Problem, Query};
use crate::id::ItemId;
use crate::payouts::reason::{Exclusion, Why};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(request_withdrawal))
        .routes(routes!(withdrawal_requests))
        .routes(routes!(cancel_withdrawal))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithdrawalBody {
    #[schema(minimum = 1)]
    pub token_amount: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct WithdrawalAnswer {
    ok: bool,
    success: bool,
    request: WithdrawalRequest,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WithdrawalRequest {
    request_id: Uuid,
    token_amount: i64,
    #[schema(example = "usd")]
    currency: String,
    /// What is paid: tokens × rate × (1 − fee), rounded down to what Stripe takes; what is left stays in the balance.
    amount_minor: i64,
    /// `pending` (can be canceled), `batched` (being paid), `paid`, `failed` (the money is in the balance again) or `canceled`.
    #[schema(example = "pending")]
    status: String,
    /// The payout that pays it, once it is batched: see `/api/payouts/{payoutId}`.
    payout_id: Option<ItemId>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Why it waits or did not arrive, and the one thing to do.
    why: Option<Why>,
}

impl From<Request> for WithdrawalRequest {
    fn from(request: Request) -> Self {
        let code = request.failure_code.as_deref();
        let why = match (request.status.as_str(), request.item_status.as_deref(), code) {
            ("pending", ..) => request.has_to_wait.then(|| Why::new(Exclusion::UnsettledItem.as_str(), None)),
            ("failed", None, Some(reason)) => Some(Why::new(reason, None)),
            ("failed", Some("failed"), code) => Some(Why::of_failed_withdrawal(code)),
            (_, Some(item), code) => Why::of_item(item, code),
            _ => None,
        };
        Self {
            request_id: request.id,
            token_amount: request.token_amount,
            currency: request.currency,
            amount_minor: request.amount_minor,
            status: request.status,
            payout_id: request.item_id,
            created_at: request.created_at,
            updated_at: request.updated_at,
            why,
        }
    }
}

/// Ask for tokens to be paid.
///
/// The money is reserved at once and goes out by itself, at once or with the next cycle as the platform has set it. With an
/// `Idempotency-Key` the same request can be sent again: it is made once.
#[utoipa::path(
    post,
    path = "/api/tokens/request-withdrawal",
    tag = "creators",
    security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible ASCII characters; the caller's own.")),
    request_body = WithdrawalBody,
    responses(
        (status = 200, description = "The request, made now or before under the same key.", body = WithdrawalAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 409, description = "`PAYOUTS_DISABLED`, `NOT_IN_BETA`, `NO_ACCOUNT`, `ACCOUNT_NOT_READY`, `BLOCKED`, `DESTINATION_COOLOFF`: the creator cannot be paid now. `REQUEST_IN_PROGRESS`: the same key is being worked on; `Retry-After` says when to ask again.", body = Problem),
        (status = 413, description = "More than 1 MiB.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "`VALIDATION_FAILED`: a field or the key is wrong. `INSUFFICIENT_BALANCE`: more than is payable. `BELOW_MINIMUM`: less than is paid at once. `IDEMPOTENCY_KEY_REUSED`: the key was used for another amount.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn request_withdrawal(
    State(state): State<AppState>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<WithdrawalBody>,
) -> Result<axum::Json<WithdrawalAnswer>> {
    let asked = Withdrawal::new(caller.id, body.token_amount, &state.policy)?;
    let made = request(&state.db, &state.queues.create_batch, &state.policy, state.withdrawals, &asked, key).await?;
    tracing::info!(request = %made.id, amount_minor = made.amount_minor, "withdrawal requested");
    Ok(axum::Json(WithdrawalAnswer { ok: true, success: true, request: made.into() }))
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WithdrawalsAnswer {
    ok: bool,
    success: bool,
    requests: Vec<WithdrawalRequest>,
    /// None: this is the last page.
    next_cursor: Option<String>,
}

/// The caller's withdrawal requests, newest first.
#[utoipa::path(
    get,
    path = "/api/tokens/withdrawal-requests",
    tag = "creators",
    security(("bearer" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of requests.", body = WithdrawalsAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn withdrawal_requests(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<WithdrawalsAnswer>> {
    let page: Page<(DateTime<Utc>, Uuid)> = query.page("withdrawal-requests")?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::page(&mut tx, caller.id, page.after, page.limit + 1).await?;
    drop(tx);
    let next_cursor = page.cut("withdrawal-requests", &mut rows, |row| (row.created_at, row.id));
    let requests = rows.into_iter().map(WithdrawalRequest::from).collect();
    Ok(axum::Json(WithdrawalsAnswer { ok: true, success: true, requests, next_cursor }))
}

/// Take a withdrawal request back.
///
/// Only while it is `pending`; its money is in the balance again. Canceling it twice is the same as once.
#[utoipa::path(
    post,
    path = "/api/tokens/withdrawal-requests/{requestId}/cancel",
    tag = "creators",
    security(("bearer" = [])),
    params(("requestId" = Uuid, Path, description = "The request's id.")),
    responses(
        (status = 200, description = "The request, which is canceled now or was before.", body = WithdrawalAnswer),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 404, description = "The caller has no such request.", body = Problem),
        (status = 409, description = "`NOT_PENDING`: it is being paid, or over.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn cancel_withdrawal(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<WithdrawalAnswer>> {
    let canceled = cancel(&state.db, caller.id, id).await?;
    tracing::info!(request = %id, "withdrawal canceled");
    Ok(axum::Json(WithdrawalAnswer { ok: true, success: true, request: canceled.into() }))
}
