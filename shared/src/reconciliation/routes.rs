//! What reconciliation found, for the people who own it.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::compare::Kind;
use super::store::{self, Discrepancy};
use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::error::{self, Error, FieldError, Result};
use crate::http::{AppState, CronOrOperator, Json, Page, PageQuery, Path, Problem, Query, RequestId};
use crate::id::ItemId;

/// What a person writes may be so long.
const MOST_OWNER: usize = 200;
const MOST_NOTE: usize = 2_000;
const STATES: [&str; 3] = ["open", "resolved", "ignored"];

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(change))
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
    /// `open`, `resolved` or `ignored`; whatever is not resolved if not given.
    state: Option<String>,
    /// Only this kind, like `missing_at_stripe`.
    kind: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListAnswer {
    ok: bool,
    success: bool,
    /// Newest first.
    discrepancies: Vec<Row>,
    next_cursor: Option<String>,
    /// None has begun yet: none.
    last_reconciliation: Option<Reconciled>,
    request_id: String,
}

/// A place where Stripe and the books do not say the same.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: i64,
    #[schema(example = "missing_at_stripe")]
    kind: String,
    /// What the kind means.
    meaning: &'static str,
    /// Stripe's id of the object, or what else it is about.
    subject: String,
    creator_id: Option<Uuid>,
    item_id: Option<ItemId>,
    account: Option<String>,
    /// What the books say.
    expected: String,
    /// What Stripe says.
    found: String,
    /// `open`, `resolved` (by itself, or by a person) or `ignored`.
    state: String,
    owner: Option<String>,
    note: Option<String>,
    /// Who changed it last.
    changed_by: Option<String>,
    first_seen_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    times_seen: i64,
    resolved_at: Option<DateTime<Utc>>,
}

impl From<Discrepancy> for Row {
    fn from(it: Discrepancy) -> Self {
        Self {
            meaning: Kind::parse(&it.kind).map_or("Of a kind that this version does not know.", Kind::sentence),
            id: it.id,
            kind: it.kind,
            subject: it.subject,
            creator_id: it.payee_id,
            item_id: it.item_id,
            account: it.account,
            expected: it.expected,
            found: it.found,
            state: it.state,
            owner: it.owner,
            note: it.note,
            changed_by: it.changed_by,
            first_seen_at: it.first_seen_at,
            last_seen_at: it.last_seen_at,
            times_seen: it.times_seen,
            resolved_at: it.resolved_at,
        }
    }
}

/// The newest comparison with Stripe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Reconciled {
    /// `events`, `transfers`, `payouts`, `closing` or `done`.
    stage: String,
    /// What was made at Stripe since then is compared.
    since: DateTime<Utc>,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    /// Pages asked of Stripe.
    reads: i64,
    /// Events that no webhook had brought.
    events_missed: i64,
    /// Operations that learned from the comparison what no webhook had told.
    mended: i64,
    /// Of the same objects; amounts of two currencies are never added.
    sums: Vec<SumRow>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SumRow {
    /// `transfer`: less what was reversed. `payout`: what is paid.
    leg: String,
    #[schema(example = "usd")]
    currency: String,
    objects: i64,
    stripe_minor: i64,
    ledger_minor: i64,
}

/// What Stripe and the books do not agree about.
#[utoipa::path(
    get,
    path = "/internal/discrepancies",
    tag = "reconciliation",
    security(("cronSecret" = []), ("bearer" = [])),
    params(ListQuery),
    responses(
        (status = 200, description = "A page of discrepancies, and how the newest reconciliation stands.", body = ListAnswer),
        (status = 400, description = "`limit`, `cursor`, `state` or `kind` is wrong.", body = Problem),
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
    let malformed = |code, message: String| Error::new(error::Kind::Malformed, code, message);
    if query.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(malformed("BAD_STATE", format!("state must be one of {}.", STATES.join(", "))));
    }
    if query.kind.as_deref().is_some_and(|kind| Kind::parse(kind).is_none()) {
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        return Err(malformed("BAD_KIND", format!("kind must be one of {}.", kinds.join(", "))));
    }
    let name = format!("discrepancies:{:?}:{:?}", query.state, query.kind);
    let page: Page<i64> = PageQuery { limit: query.limit, cursor: query.cursor }.page(&name)?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::list(&mut tx, query.state.as_deref(), query.kind.as_deref(), page.after, page.limit + 1).await?;
    let next_cursor = page.cut(&name, &mut rows, |row| row.id);
    let last_reconciliation = match store::newest(&mut tx).await? {
        Some(it) => Some(Reconciled {
            sums: store::sums(&mut tx, it.id).await?.into_iter().map(sum_row).collect(),
            stage: it.stage,
            since: it.since,
            started_at: it.started_at,
            finished_at: it.finished_at,
            reads: it.reads,
            events_missed: it.events_missed,
            mended: it.mended,
        }),
        None => None,
    };
    let discrepancies = rows.into_iter().map(Row::from).collect();
    Ok(axum::Json(ListAnswer { ok: true, success: true, discrepancies, next_cursor, last_reconciliation, request_id }))
}

fn sum_row(it: store::Sum) -> SumRow {
    SumRow {
        leg: it.leg,
        currency: it.currency,
        objects: it.objects,
        stripe_minor: it.stripe_minor,
        ledger_minor: it.ledger_minor,
    }
}

/// What a person decides. What is not given stays as it is; an empty text takes it away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    /// `open`, `resolved` or `ignored`. Found again, what was resolved is opened anew; what is ignored stays so while it stays as it is.
    #[schema(example = "ignored")]
    state: Option<String>,
    /// Who looks after it.
    owner: Option<String>,
    note: Option<String>,
}

impl Change {
    fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut tell = |field: &str, error: String| wrong.push(FieldError { field: field.to_owned(), error });
        if self.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
            tell("state", format!("must be one of {}", STATES.join(", ")));
        }
        for (field, text, most) in [("owner", &self.owner, MOST_OWNER), ("note", &self.note, MOST_NOTE)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > most) {
                tell(field, format!("must have at most {most} characters"));
            }
        }
        if self.state.is_none() && self.owner.is_none() && self.note.is_none() {
            tell("body", "must have one of state, owner and note".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::fields(wrong)) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ChangeAnswer {
    ok: bool,
    success: bool,
    discrepancy: Row,
    request_id: String,
}

/// Take a discrepancy over, note what it is about, resolve or ignore it.
#[utoipa::path(
    patch,
    path = "/internal/discrepancies/{id}",
    tag = "reconciliation",
    security(("cronSecret" = []), ("bearer" = [])),
    params(("id" = i64, Path, description = "The discrepancy's id.")),
    request_body(content = Change),
    responses(
        (status = 200, description = "As it is now.", body = ChangeAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 404, description = "There is no such discrepancy.", body = Problem),
        (status = 415, description = "Not sent as JSON.", body = Problem),
        (status = 422, description = "`VALIDATION_FAILED`: a field is wrong, or there is none.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn change(
    caller: CronOrOperator,
    State(state): State<AppState>,
    Path(id): Path<i64>,
    RequestId(request_id): RequestId,
    Json(change): Json<Change>,
) -> Result<axum::Json<ChangeAnswer>> {
    change.check()?;
    let given = |new: Option<String>, old: Option<String>| match new {
        Some(text) => Some(text).filter(|text| !text.is_empty()),
        None => old,
    };
    let mut tx = state.db.begin().await?;
    let Some(mut it) = store::lock(&mut tx, id).await? else { return Err(Error::not_found("The discrepancy")) };
    let told = |it: &Discrepancy| json!({ "state": it.state, "owner": it.owner, "note": it.note });
    let before = told(&it);
    it.owner = given(change.owner, it.owner);
    it.note = given(change.note, it.note);
    it.state = change.state.unwrap_or(it.state);
    store::change(&mut tx, &it, &caller.actor()).await?;
    let changed = store::lock(&mut tx, id).await?.unwrap_or(it);
    let act = Act { action: "discrepancy.change", subject: format!("discrepancy:{id}"), before, after: told(&changed) };
    audit::record(&mut tx, &By::new(caller.actor(), &request_id), &act).await?;
    tx.commit(Boundary::SaveByRequest).await?;
    tracing::info!(discrepancy = id, actor = caller.actor(), state = changed.state, "discrepancy changed");
    Ok(axum::Json(ChangeAnswer { ok: true, success: true, discrepancy: changed.into(), request_id }))
}
