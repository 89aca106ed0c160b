//! Looking payees up, blocking them, and the beta list, over HTTP.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use crate::audit::By;
use crate::error::{Error, Result};
use crate::http::{AppState, Json, Operator, Page, PageQuery, Path, Problem, Query, Reason, RequestId};

/// Creators added or removed by one request.
const MOST_IDS: usize = 1000;
const MOST_SEARCH_CHARS: usize = 200;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(block))
        .routes(routes!(unblock))
        .routes(routes!(beta, change_beta))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// How an id, an email or a connected account begins; everybody if not given.
    search: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SearchAnswer {
    ok: bool,
    success: bool,
    payees: Vec<Payee>,
    next_cursor: Option<String>,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Payee {
    id: Uuid,
    /// `creator` or `partner`.
    kind: String,
    email: Option<String>,
    #[schema(example = "acct_1")]
    account: Option<String>,
    country: Option<String>,
    /// The connected account may receive and pay out.
    ready: bool,
    payout_enabled: bool,
    beta: bool,
    #[schema(example = "semimonthly")]
    schedule: String,
    /// Why the payee is blocked; none: is not.
    blocked_reason: Option<String>,
    blocked_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// Look payees up.
///
/// By how an id, an email or a connected account begins, in pages.
#[utoipa::path(
    get,
    path = "/internal/payees",
    tag = "payees",
    security(("bearer" = [])),
    params(SearchQuery),
    responses(
        (status = 200, description = "A page of payees, by id.", body = SearchAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 422, description = "`search` is longer than any of them is.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn search(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<SearchQuery>,
) -> Result<axum::Json<SearchAnswer>> {
    let SearchQuery { limit, cursor, search } = query;
    let text = search.unwrap_or_default();
    if text.chars().count() > MOST_SEARCH_CHARS || text.contains('\0') {
        return Err(Error::field("search", format!("must be at most {MOST_SEARCH_CHARS} characters, none of them NUL")));
    }
    let search = super::search_for(&text);
    let list = format!("payees:{search:?}");
    let page: Page<Uuid> = PageQuery { limit, cursor }.page(&list)?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::search(&mut tx, &search, page.after, page.limit + 1).await?;
    let next_cursor = page.cut(&list, &mut rows, |row| row.id);
    Ok(axum::Json(SearchAnswer {
        ok: true,
        success: true,
        payees: rows.into_iter().map(told).collect(),
        next_cursor,
        request_id,
    }))
}

fn told(row: store::Row) -> Payee {
    Payee {
        id: row.id,
        kind: row.kind,
        email: row.email,
        account: row.account,
        country: row.country,
        ready: row.ready,
        payout_enabled: row.payout_enabled,
        beta: row.beta,
        schedule: row.schedule,
        blocked_reason: row.blocked_reason,
        blocked_at: row.blocked_at,
        created_at: row.created_at,
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BlockAnswer {
    ok: bool,
    success: bool,
    payee_id: Uuid,
    blocked: bool,
    /// It was not so before.
    changed: bool,
    request_id: String,
}

/// Block a payee.
///
/// Whoever is blocked is in no batch; what is not sent yet is canceled when its turn comes.
#[utoipa::path(
    post,
    path = "/internal/payees/{payeeId}/block",
    tag = "payees",
    security(("bearer" = [])),
    params(("payeeId" = Uuid, Path, description = "The payee's id.")),
    request_body = Reason,
    responses(
        (status = 200, description = "The payee is blocked, now or before.", body = BlockAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such payee.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn block(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(payee): Path<Uuid>,
    Json(body): Json<Reason>,
) -> Result<axum::Json<BlockAnswer>> {
    let by = By::new(operator.id, &request_id);
    let changed = super::block(&state.db, payee, true, body.text()?, &by).await?;
    Ok(axum::Json(BlockAnswer { ok: true, success: true, payee_id: payee, blocked: true, changed, request_id }))
}

/// Lift the block of a payee.
///
/// Also one that the engine has set because Stripe did not know the account.
#[utoipa::path(
    post,
    path = "/internal/payees/{payeeId}/unblock",
    tag = "payees",
    security(("bearer" = [])),
    params(("payeeId" = Uuid, Path, description = "The payee's id.")),
    request_body = Reason,
    responses(
        (status = 200, description = "The payee is not blocked, now or before.", body = BlockAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such payee.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "Without a reason.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn unblock(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(payee): Path<Uuid>,
    Json(body): Json<Reason>,
) -> Result<axum::Json<BlockAnswer>> {
    let by = By::new(operator.id, &request_id);
    let changed = super::block(&state.db, payee, false, body.text()?, &by).await?;
    Ok(axum::Json(BlockAnswer { ok: true, success: true, payee_id: payee, blocked: false, changed, request_id }))
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BetaAnswer {
    ok: bool,
    success: bool,
    creator_ids: Vec<Uuid>,
    next_cursor: Option<String>,
    request_id: String,
}

/// The creators in the beta.
#[utoipa::path(
    get,
    path = "/internal/payees/beta",
    tag = "payees",
    security(("bearer" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of them, by id.", body = BetaAnswer),
        (status = 400, description = "`limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn beta(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<BetaAnswer>> {
    let page: Page<Uuid> = query.page("beta")?;
    let mut tx = state.db.begin().await?;
    let mut creator_ids = store::beta(&mut tx, page.after, page.limit + 1).await?;
    let next_cursor = page.cut("beta", &mut creator_ids, |id| *id);
    Ok(axum::Json(BetaAnswer { ok: true, success: true, creator_ids, next_cursor, request_id }))
}

/// Creators to take into the beta and out of it: at most 1,000 together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BetaBody {
    #[serde(default)]
    add: Vec<Uuid>,
    #[serde(default)]
    remove: Vec<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BetaChanged {
    ok: bool,
    success: bool,
    /// Those who were not in it before.
    added: usize,
    /// Those who were in it before.
    removed: usize,
    request_id: String,
}

/// Change the beta list.
///
/// All of it or nothing. Adding somebody who is in it, or removing somebody who is not, changes nothing.
#[utoipa::path(
    post,
    path = "/internal/payees/beta",
    tag = "payees",
    security(("bearer" = [])),
    request_body = BetaBody,
    responses(
        (status = 200, description = "The list is as asked for.", body = BetaChanged),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 413, description = "More than 1,000 creators.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "An id is none or nobody's; `details` name it, like `add[3]`.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn change_beta(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Json(body): Json<BetaBody>,
) -> Result<axum::Json<BetaChanged>> {
    let BetaBody { mut add, mut remove } = body;
    if add.is_empty() && remove.is_empty() {
        return Err(Error::field("add", "say whom to add or to remove"));
    }
    if add.len() + remove.len() > MOST_IDS {
        let message = format!("One request takes at most {MOST_IDS} creators; send them in parts.");
        return Err(Error::new(crate::error::Kind::TooLarge, "TOO_LARGE", message));
    }
    if let Some(index) = remove.iter().position(|id| add.contains(id)) {
        return Err(Error::field(format!("remove[{index}]"), "is to be added as well"));
    }
    for ids in [&mut add, &mut remove] {
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(*id));
    }
    let by = By::new(operator.id, &request_id);
    let (added, removed) = super::change_beta(&state.db, &add, &remove, &by).await?;
    Ok(axum::Json(BetaChanged { ok: true, success: true, added, removed, request_id }))
}
