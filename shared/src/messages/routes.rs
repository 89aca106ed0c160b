//! What did not come to its readers, for people to see.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use crate::error::{Error, Kind, Result};
use crate::http::{AppState, CronOrOperator, Page, PageQuery, Problem, Query, RequestId};

const STATES: [&str; 5] = ["waiting", "sending", "sent", "unsure", "given_up"];

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// `waiting`, `sending`, `sent`, `unsure` or `given_up`; the last two if not given.
    state: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListAnswer {
    ok: bool,
    success: bool,
    /// Newest first.
    deliveries: Vec<Row>,
    next_cursor: Option<String>,
    request_id: String,
}

/// One way of one message to one reader.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// The number at the end of the message itself.
    message_id: i64,
    #[schema(example = "run_completed")]
    kind: String,
    /// `slack` or `email`.
    channel: String,
    recipient: String,
    /// `waiting`, `sending`, `sent`, `unsure` (it may have arrived, and is not sent again) or `given_up`.
    state: String,
    attempts: i32,
    /// When it is tried next.
    due_at: Option<DateTime<Utc>>,
    /// Why it was not taken.
    why: Option<String>,
    created_at: DateTime<Utc>,
    sent_at: Option<DateTime<Utc>>,
}

/// Messages to people and whether they arrived.
#[utoipa::path(
    get,
    path = "/internal/notifications",
    tag = "notifications",
    security(("cronSecret" = []), ("bearer" = [])),
    params(ListQuery),
    responses(
        (status = 200, description = "A page of deliveries.", body = ListAnswer),
        (status = 400, description = "`limit`, `cursor` or `state` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn list(
    _: CronOrOperator,
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
    RequestId(request_id): RequestId,
) -> Result<axum::Json<ListAnswer>> {
    if query.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(Error::new(Kind::Malformed, "BAD_STATE", format!("state must be one of {}.", STATES.join(", "))));
    }
    let name = format!("notifications:{:?}", query.state);
    let page: Page<(i64, String, String)> = PageQuery { limit: query.limit, cursor: query.cursor }.page(&name)?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::list(&mut tx, query.state.as_deref(), page.after.as_ref(), page.limit + 1).await?;
    let next_cursor = page.cut(&name, &mut rows, |row| (row.outbox_id, row.channel.clone(), row.recipient.clone()));
    let deliveries = rows.into_iter().map(Row::from).collect();
    Ok(axum::Json(ListAnswer { ok: true, success: true, deliveries, next_cursor, request_id }))
}

impl From<store::Delivery> for Row {
    fn from(it: store::Delivery) -> Self {
        Self {
            message_id: it.outbox_id,
            kind: it.kind,
            channel: it.channel,
            recipient: it.recipient,
            state: it.state,
            attempts: it.attempts,
            due_at: it.due_at,
            why: it.why,
            created_at: it.created_at,
            sent_at: it.sent_at,
        }
    }
}
