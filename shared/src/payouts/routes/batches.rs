//! `POST /internal/payouts/batches/{batchId}/resume`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::controls;
use crate::audit::By;
use crate::error::Result;
use crate::http::{AppState, Json, Operator, Path, Problem, Reason, RequestId};
use crate::id::BatchId;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResumeAnswer {
    ok: bool,
    success: bool,
    batch_id: BatchId,
    /// It was halted until now.
    changed: bool,
    request_id: String,
}

/// Let a halted batch go on.
///
/// For one that was stopped by a standing check or a frozen operation, once somebody has understood why. It goes on with the next
/// sweep, and a check that is still breached stops it again.
#[utoipa::path(
    post,
    path = "/internal/payouts/batches/{batchId}/resume",
    tag = "payouts",
    security(("bearer" = [])),
    params(("batchId" = i64, Path, description = "The batch's id.")),
    request_body = Reason,
    responses(
        (status = 200, description = "The batch is not halted, now or before.", body = ResumeAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such batch.", body = Problem),
        (status = 409, description = "`GOES_ON_BY_ITSELF`: it waits for funds or for a key.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn resume(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<i64>,
    Json(body): Json<Reason>,
) -> Result<axum::Json<ResumeAnswer>> {
    let by = By::new(operator.id, &request_id);
    let changed = controls::resume_batch(&state.db, BatchId(id), body.text()?, &by).await?;
    Ok(axum::Json(ResumeAnswer { ok: true, success: true, batch_id: BatchId(id), changed, request_id }))
}
