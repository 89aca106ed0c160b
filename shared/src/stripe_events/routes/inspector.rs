//! What came from Stripe, what it did, and trying one again.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::By;
use crate::error::{Error, Kind, Result};
use crate::http::{AppState, Operator, Page, PageQuery, Path, Problem, Query, RequestId};
use crate::stripe_events::store::{self, Filter, Kept};
use crate::stripe_events::{Replayed, replay};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(event)).routes(routes!(replay_event))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only events of this type.
    #[param(example = "payout.failed")]
    r#type: Option<String>,
    /// Only events in this state: `applied`, `ignored`, `waiting` or `given_up`.
    state: Option<String>,
    /// Only events of this connected account.
    account: Option<String>,
}

/// An event that Stripe sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventRow {
    #[schema(example = "evt_1")]
    id: String,
    #[schema(example = "payout.failed")]
    r#type: String,
    /// The connected account that it is about; none for the platform's own.
    account: Option<String>,
    livemode: bool,
    /// `applied`; `ignored`, if it concerns nothing of ours; `waiting` for something not known yet; `given_up` after three days
    /// of that.
    state: String,
    /// What it did, or why nothing.
    #[schema(example = "item 7 is payout_blocked")]
    effect: Option<String>,
    tries: i32,
    occurred_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    applied_at: Option<DateTime<Utc>>,
    /// When one that waits is tried again.
    next_try_at: Option<DateTime<Utc>>,
}

impl From<Kept> for EventRow {
    fn from(kept: Kept) -> Self {
        Self {
            id: kept.id,
            r#type: kept.kind,
            account: kept.account,
            livemode: kept.livemode,
            state: kept.state,
            effect: kept.effect,
            tries: kept.tries,
            occurred_at: kept.occurred_at,
            received_at: kept.received_at,
            applied_at: kept.applied_at,
            next_try_at: kept.due_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventsAnswer {
    ok: bool,
    success: bool,
    events: Vec<EventRow>,
    /// Ask with it for the next page; none: this is the last.
    next_cursor: Option<String>,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventAnswer {
    ok: bool,
    success: bool,
    event: EventRow,
    /// What Stripe sent, as it was kept.
    #[schema(value_type = Object)]
    payload: Value,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReplayAnswer {
    ok: bool,
    success: bool,
    /// False: it was applied before, and was not tried again.
    tried: bool,
    event: EventRow,
    request_id: String,
}

/// The events that came, the last first.
#[utoipa::path(
    get,
    path = "/internal/stripe-events",
    tag = "stripe events",
    security(("bearer" = [])),
    params(EventsQuery),
    responses(
        (status = 200, description = "A page of events.", body = EventsAnswer),
        (status = 400, description = "A filter, `limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn events(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<EventsQuery>,
) -> Result<axum::Json<EventsAnswer>> {
    let EventsQuery { limit, cursor, r#type: kind, state: wanted, account } = query;
    let is_state = |text: &String| ["applied", "ignored", "waiting", "given_up"].contains(&text.as_str());
    if !wanted.as_ref().is_none_or(is_state) || !kind.as_deref().is_none_or(is_word) || !account.as_deref().is_none_or(is_word) {
        let message = "type, state or account is none that an event can have; state is applied, ignored, waiting or given_up.";
        return Err(Error::new(Kind::Malformed, "BAD_FILTER", message));
    }
    let list = format!("stripe-events:{kind:?}:{wanted:?}:{account:?}");
    let page: Page<(DateTime<Utc>, String)> = PageQuery { limit, cursor }.page(&list)?;
    let mut tx = state.db.begin().await?;
    let filter = Filter { kind, state: wanted, account };
    let mut rows = store::list(&mut tx, &filter, page.after.clone(), page.limit + 1).await?;
    let next_cursor = page.cut(&list, &mut rows, |row| (row.received_at, row.id.clone()));
    let events = rows.into_iter().map(EventRow::from).collect();
    Ok(axum::Json(EventsAnswer { ok: true, success: true, events, next_cursor, request_id }))
}

/// One event: what came, and what it did.
#[utoipa::path(
    get,
    path = "/internal/stripe-events/{id}",
    tag = "stripe events",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The event's id.", example = "evt_1")),
    responses(
        (status = 200, description = "The event.", body = EventAnswer),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such event.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn event(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<String>,
) -> Result<axum::Json<EventAnswer>> {
    let mut tx = state.db.begin().await?;
    let found = if is_word(&id) { store::get(&mut tx, &id).await? } else { None };
    let (kept, payload) = found.ok_or_else(|| Error::not_found("The event"))?;
    Ok(axum::Json(EventAnswer { ok: true, success: true, event: kept.into(), payload, request_id }))
}

/// Try an event again.
///
/// One that waits, was given up or was ignored is applied as if it had just come. One that was applied has no second effect.
#[utoipa::path(
    post,
    path = "/internal/stripe-events/{id}/replay",
    tag = "stripe events",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The event's id.", example = "evt_1")),
    responses(
        (status = 200, description = "What it did, now or before.", body = ReplayAnswer),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such event.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn replay_event(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(id): Path<String>,
) -> Result<axum::Json<ReplayAnswer>> {
    let by = By::new(operator.id, &request_id);
    let found = if is_word(&id) { replay(&state.db, &state.policy, &id, &by).await? } else { None };
    let Replayed { tried, event } = found.ok_or_else(|| Error::not_found("The event"))?;
    tracing::info!(actor = %operator.id, event = id, tried, state = event.state, "event replayed");
    Ok(axum::Json(ReplayAnswer { ok: true, success: true, tried, event: event.into(), request_id }))
}

/// Whether a text can be an id or a type of Stripe's.
fn is_word(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
