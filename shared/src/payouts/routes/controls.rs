//! `POST /internal/payouts/pause`, `…/kill` and `…/resume`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::controls::{self, Press};
use crate::audit::By;
use crate::error::Result;
use crate::http::{AppState, Json, Operator, Problem, Reason, RequestId};

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SwitchAnswer {
    ok: bool,
    success: bool,
    paused: bool,
    killed: bool,
    reason: Option<String>,
    /// EventBridge Scheduler has been switched alike. If not, the next sweep does it; nothing depends on it.
    mirrored: bool,
    /// The schedules that are off because of it and go on again with it.
    suspended_schedules: Vec<String>,
    request_id: String,
}

/// Pause payouts.
///
/// Nothing new is sent or started; what is in flight finishes, what is reserved stays so.
#[utoipa::path(
    post,
    path = "/internal/payouts/pause",
    tag = "payouts",
    security(("bearer" = [])),
    request_body = Reason,
    responses(
        (status = 200, description = "Payouts are paused, now or before.", body = SwitchAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn pause(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Json(body): Json<Reason>,
) -> Result<axum::Json<SwitchAnswer>> {
    press(&state, operator, Press::Pause, &body, request_id).await
}

/// Stop all payouts at once.
///
/// The kill switch: every worker stops within a second, and nothing is lost.
#[utoipa::path(
    post,
    path = "/internal/payouts/kill",
    tag = "payouts",
    security(("bearer" = [])),
    request_body = Reason,
    responses(
        (status = 200, description = "The kill switch is on, now or before.", body = SwitchAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn kill(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Json(body): Json<Reason>,
) -> Result<axum::Json<SwitchAnswer>> {
    press(&state, operator, Press::Kill, &body, request_id).await
}

/// Go on with payouts.
///
/// Lifts pause and kill switch. Runs go on with the next sweep where they stopped.
#[utoipa::path(
    post,
    path = "/internal/payouts/resume",
    tag = "payouts",
    security(("bearer" = [])),
    request_body = Reason,
    responses(
        (status = 200, description = "Payouts go on.", body = SwitchAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
pub(super) async fn resume(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Json(body): Json<Reason>,
) -> Result<axum::Json<SwitchAnswer>> {
    press(&state, operator, Press::Resume, &body, request_id).await
}

async fn press(
    state: &AppState,
    operator: Operator,
    press: Press,
    body: &Reason,
    request_id: String,
) -> Result<axum::Json<SwitchAnswer>> {
    let by = By::new(operator.id, &request_id);
    let mut switches = controls::press(&state.db, press, body.text()?, &by).await?;
    // The truth is committed, and obeyed whether or not the Scheduler answers.
    let mirrored = match controls::mirror(&state.db, &state.scheduler).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(error = %error, causes = error.causes(), "the schedules do not mirror the switches yet");
            false
        }
    };
    switches.suspended_schedules = controls::suspended(&state.db).await?;
    Ok(axum::Json(SwitchAnswer {
        ok: true,
        success: true,
        paused: switches.paused,
        killed: switches.killed,
        reason: switches.reason,
        mirrored,
        suspended_schedules: switches.suspended_schedules,
        request_id,
    }))
}
