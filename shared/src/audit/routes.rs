//! Reading the audit log, and asking whether it is whole.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Filter};
use crate::error::Result;
use crate::http::{AppState, Operator, Page, PageQuery, Problem, Query, RequestId};

/// Breaks named in one answer; `cargo payday verify` names them all.
const MOST_TOLD: usize = 20;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(log)).routes(routes!(verify))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only what this user did.
    actor: Option<String>,
    /// Only this, like `item.adopt`.
    action: Option<String>,
    /// Only what was done to this, like `item:7`.
    subject: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LogAnswer {
    ok: bool,
    success: bool,
    /// Newest first.
    rows: Vec<LogRow>,
    next_cursor: Option<String>,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LogRow {
    id: i64,
    at: DateTime<Utc>,
    actor: String,
    #[schema(example = "item.adopt")]
    action: String,
    #[schema(example = "item:7")]
    subject: String,
    /// `done` or `refused`.
    outcome: String,
    #[schema(value_type = Object)]
    before: serde_json::Value,
    #[schema(value_type = Object)]
    after: serde_json::Value,
    request_id: String,
    hash: String,
}

/// What operators did.
///
/// Newest first, in pages of `limit` with the cursor of the page before.
#[utoipa::path(
    get,
    path = "/internal/audit",
    tag = "audit",
    security(("bearer" = [])),
    params(LogQuery),
    responses(
        (status = 200, description = "A page of the log.", body = LogAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn log(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<LogQuery>,
) -> Result<axum::Json<LogAnswer>> {
    let LogQuery { limit, cursor, actor, action, subject } = query;
    let filter = Filter { actor, action, subject };
    let list = format!("audit:{filter:?}");
    let page: Page<i64> = PageQuery { limit, cursor }.page(&list)?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::page(&mut tx, &filter, page.after, page.limit + 1).await?;
    let next_cursor = page.cut(&list, &mut rows, |row| row.id);
    Ok(axum::Json(LogAnswer { ok: true, success: true, rows: rows.into_iter().map(told).collect(), next_cursor, request_id }))
}

fn told(row: store::Row) -> LogRow {
    let store::Row { id, at, actor, action, subject, outcome, before, after, request_id, hash } = row;
    LogRow { id, at, actor, action, subject, outcome, before, after, request_id, hash }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VerifyAnswer {
    ok: bool,
    success: bool,
    /// The chain holds: nothing was changed, left out or put in.
    whole: bool,
    /// How many rows there are, which is the newest row's number.
    rows: i64,
    /// The newest row's hash. Kept elsewhere, it tells later that nothing before it was touched.
    head: String,
    /// The first rows at which the chain is broken.
    breaches: Vec<Break>,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Break {
    id: i64,
    problem: String,
}

/// Whether the audit log is as it was written.
#[utoipa::path(
    get,
    path = "/internal/audit/verify",
    tag = "audit",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The verdict.", body = VerifyAnswer),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn verify(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
) -> Result<axum::Json<VerifyAnswer>> {
    let mut tx = state.db.begin().await?;
    let (rows, head) = store::head(&mut tx).await?;
    let breaches = store::breaches(&mut tx).await?;
    let whole = breaches.is_empty();
    let breaches = breaches.into_iter().take(MOST_TOLD).map(|(id, problem)| Break { id, problem }).collect();
    Ok(axum::Json(VerifyAnswer { ok: true, success: true, whole, rows, head, breaches, request_id }))
}
