//! Operators look at bank accounts that were changed or are shared, and confirm one.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::http::{AppState, Json, MIB, Operator, Page, PageQuery, Path, Problem, Query, RequestId};
use crate::payees::store::{self, Confirmed, Destination, Filter};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DestinationsQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// `unconfirmed` (the default): changed, and not confirmed since. `shared`: had by more than one payee.
    #[param(example = "unconfirmed")]
    filter: Option<String>,
}

/// Where a payee's money goes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DestinationRow {
    payee_id: Uuid,
    #[schema(example = "acct_1")]
    account_id: String,
    /// What Stripe calls the bank account or card: its fingerprint, else its id. Never a number.
    destination: String,
    /// None: it is the first.
    changed_at: Option<DateTime<Utc>>,
    confirmed: bool,
    confirmed_at: Option<DateTime<Utc>>,
    confirmed_by: Option<String>,
    /// Other payees with the same one.
    shared_with: Vec<Uuid>,
}

impl From<Destination> for DestinationRow {
    fn from(it: Destination) -> Self {
        Self {
            payee_id: it.payee,
            account_id: it.account,
            destination: it.destination,
            changed_at: it.changed_at,
            confirmed: it.confirmed,
            confirmed_at: it.confirmed_at.filter(|_| it.confirmed),
            confirmed_by: it.confirmed_by.filter(|_| it.confirmed),
            shared_with: it.shared_with,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DestinationsAnswer {
    ok: bool,
    success: bool,
    destinations: Vec<DestinationRow>,
    /// Ask with it for the next page; none: this is the last.
    next_cursor: Option<String>,
    request_id: String,
}

/// What an operator has looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConfirmBody {
    /// As the list says it: another one than the present is not confirmed by mistake.
    destination: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfirmAnswer {
    ok: bool,
    success: bool,
    payee_id: Uuid,
    destination: String,
    /// Payments that had been refused and go out again now.
    retried: u64,
    request_id: String,
}

/// Bank accounts that were changed and nobody has confirmed, or that payees share.
#[utoipa::path(
    get,
    path = "/internal/payees/destinations",
    tag = "connect",
    security(("bearer" = [])),
    params(DestinationsQuery),
    responses(
        (status = 200, description = "A page of them, by payee.", body = DestinationsAnswer),
        (status = 400, description = "`filter`, `limit` or `cursor` is wrong.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn destinations(
    State(state): State<AppState>,
    _: Operator,
    RequestId(request_id): RequestId,
    Query(query): Query<DestinationsQuery>,
) -> Result<axum::Json<DestinationsAnswer>> {
    let DestinationsQuery { limit, cursor, filter } = query;
    let filter = match filter.as_deref().unwrap_or("unconfirmed") {
        "unconfirmed" => Filter::Unconfirmed,
        "shared" => Filter::Shared,
        _ => return Err(Error::new(Kind::Malformed, "BAD_FILTER", "filter is unconfirmed or shared.")),
    };
    let list = format!("destinations:{filter:?}");
    let page: Page<Uuid> = PageQuery { limit, cursor }.page(&list)?;
    let mut tx = state.db.begin().await?;
    let mut rows = store::list_destinations(&mut tx, filter, page.after, page.limit + 1).await?;
    let next_cursor = page.cut(&list, &mut rows, |row| row.payee);
    let destinations = rows.into_iter().map(DestinationRow::from).collect();
    Ok(axum::Json(DestinationsAnswer { ok: true, success: true, destinations, next_cursor, request_id }))
}

/// Confirm a payee's bank account.
///
/// Amounts above `TWO_PERSON_ABOVE_CENTS` go to a changed bank account only after this, and not before the cool-off is over.
/// Confirming the same one again changes nothing.
#[utoipa::path(
    post,
    path = "/internal/payees/{id}/destination/confirm",
    tag = "connect",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The payee's id.")),
    request_body = ConfirmBody,
    responses(
        (status = 200, description = "Confirmed.", body = ConfirmAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator. `OWN_DESTINATION`: nobody confirms their own.", body = Problem),
        (status = 404, description = "There is no such payee, or they have no bank account.", body = Problem),
        (status = 409, description = "`DESTINATION_CHANGED`: it is another one by now. Nothing was confirmed.", body = Problem),
        (status = 422, description = "A field is wrong.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn confirm(
    State(state): State<AppState>,
    operator: Operator,
    RequestId(request_id): RequestId,
    Path(payee_id): Path<Uuid>,
    Json(body): Json<ConfirmBody, MIB>,
) -> Result<axum::Json<ConfirmAnswer>> {
    let destination = body.destination;
    let by = By::new(operator.id, &request_id);
    let act = Act {
        action: "destination.confirm",
        subject: format!("payee:{payee_id}"),
        before: json!({}),
        after: json!({ "destination": destination }),
    };
    if operator.id == payee_id {
        let refusal =
            Error::new(Kind::Forbidden, "OWN_DESTINATION", "This is your own bank account; another operator has to look.");
        return Err(audit::refused(&state.db, &by, &act, refusal).await?);
    }
    let now = clock::now();
    let mut tx = state.db.begin().await?;
    let confirmed = store::confirm(&mut tx, payee_id, &destination, &by.actor, now).await;
    let retried = if let Ok(Confirmed::Now) = confirmed {
        store::mark_cured(&mut tx, vec![payee_id]).await?;
        let retried = store::retry_payouts_to_new_bank_of(&mut tx, payee_id, now).await?;
        audit::record(&mut tx, &by, &act).await?;
        tx.commit(Boundary::SaveByRequest).await?;
        retried
    } else {
        tx.rollback().await;
        0
    };
    match confirmed? {
        Confirmed::Nothing => return Err(Error::not_found("The payee's bank account")),
        Confirmed::Changed => {
            let message = "The bank account is another one by now; look at it again.";
            return Err(Error::conflict("DESTINATION_CHANGED", message));
        }
        Confirmed::Now | Confirmed::Before => {}
    }
    tracing::info!(actor = %operator.id, payee = %payee_id, retried, "destination confirmed");
    Ok(axum::Json(ConfirmAnswer { ok: true, success: true, payee_id, destination, retried, request_id }))
}
