//! `POST /internal/earnings`: earnings in bulk, idempotent by the caller's `sourceId`.
//!
//! All rows are looked at before any is recorded, and all are recorded or none. So a caller whose answer was lost sends the
//! same request again.

use axum::extract::State;
use chrono::{DateTime, Duration, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Frozen, Kind, NAME, NewEarning, Place, Recorded, Sums, Value, is_name};
use crate::audit::By;
use crate::clock;
use crate::config::Policy;
use crate::error::{Error, FieldError, Kind as ErrorKind, Result};
use crate::http::{AppState, CronOrOperator, Json, MIB, Problem, RequestId};
use crate::money::Currency;

/// Rows of one request.
const MOST_ROWS: usize = 1000;
/// Wrong fields named in one answer.
const MOST_DETAILS: usize = 100;
const MAX_BYTES: usize = 5 * MIB;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(record_earnings))
}

/// Earnings to record: 1 to 1,000.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EarningsBody {
    #[schema(min_items = 1, max_items = 1000)]
    earnings: Vec<EarningBody>,
}

/// One earning, in tokens or in money, never in both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarningBody {
    /// The caller's own id of it; the same one again is the same earning.
    #[schema(min_length = 1, max_length = 200)]
    source_id: String,
    #[schema(format = Uuid)]
    creator_id: String,
    /// `tip`, `call`, `message`, `sale` or `other`.
    #[schema(example = "tip")]
    kind: String,
    /// Worth the platform's rate in its default currency.
    #[schema(minimum = 1)]
    tokens: Option<i64>,
    /// In minor units: cents, or whole yen.
    #[schema(minimum = 1)]
    amount: Option<i64>,
    /// An ISO code like `usd`, which an amount needs; tokens are of the default currency.
    #[schema(example = "usd")]
    currency: Option<String>,
    /// The platform's part of the amount, in minor units; else its percentage.
    #[schema(minimum = 0)]
    fee: Option<i64>,
    /// Stripe's charge behind it, by which a dispute finds it.
    #[schema(max_length = 200)]
    charge_id: Option<String>,
    /// `platform` (the default), or `connected` for money that is on the creator's account already.
    #[schema(example = "platform")]
    place: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    occurred_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EarningsAnswer {
    ok: bool,
    success: bool,
    /// Earnings that were new.
    recorded: u64,
    /// Earnings that had been recorded before with the same content.
    already_there: u64,
    request_id: String,
}

/// Record earnings in bulk.
///
/// All of them are recorded or none. A `sourceId` that was recorded before with the same content counts as already there.
#[utoipa::path(
    post,
    path = "/internal/earnings",
    tag = "earnings",
    security(("cronSecret" = []), ("bearer" = [])),
    request_body = EarningsBody,
    responses(
        (status = 200, description = "Recorded, or already there.", body = EarningsAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or wrong credentials.", body = Problem),
        (status = 403, description = "Not an operator.", body = Problem),
        (status = 409, description = "`SOURCE_ID_CONFLICT`: a `sourceId` was recorded before with other content. Nothing was recorded.", body = Problem),
        (status = 413, description = "More than 1,000 earnings, or more than 5 MiB.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "A field is wrong; `details` name it, like `earnings[3].amount`.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
    )
)]
async fn record_earnings(
    State(state): State<AppState>,
    caller: CronOrOperator,
    RequestId(request_id): RequestId,
    Json(body): Json<EarningsBody, MAX_BYTES>,
) -> Result<axum::Json<EarningsAnswer>> {
    let earnings = checked(body, &state.policy, clock::now())?;
    let by = By::new(caller.actor(), &request_id);
    let person = matches!(caller, CronOrOperator::Operator(_)).then_some(&by);
    let Recorded { recorded, already_there } = super::record_by(&state.db, &state.policy, earnings, person).await?;
    tracing::info!(actor = caller.actor(), recorded, already_there, "earnings recorded");
    Ok(axum::Json(EarningsAnswer { ok: true, success: true, recorded, already_there, request_id }))
}

/// Every row as an earning, or what is wrong with them.
pub fn checked(body: EarningsBody, policy: &Policy, now: DateTime<Utc>) -> Result<Vec<NewEarning>> {
    if body.earnings.is_empty() {
        return Err(Error::field("earnings", "must hold at least one earning"));
    }
    if body.earnings.len() > MOST_ROWS {
        let (kind, message) =
            (ErrorKind::TooLarge, format!("One request takes at most {MOST_ROWS} earnings; send them in parts."));
        return Err(Error::new(kind, "TOO_LARGE", message));
    }
    let mut wrong = Vec::new();
    let mut earnings = Vec::with_capacity(body.earnings.len());
    let mut sums = Sums::default();
    for (index, row) in body.earnings.into_iter().enumerate() {
        let mut complaint = |field: &str, error: &str| {
            wrong.push(FieldError { field: format!("earnings[{index}].{field}"), error: error.to_owned() })
        };
        if let Some((earning, frozen)) = earning(row, policy, now, &mut complaint) {
            match sums.add(&earning, &frozen) {
                Ok(()) => earnings.push(earning),
                Err(problem) => complaint(field_of(&earning), problem),
            }
        }
        if wrong.len() >= MOST_DETAILS {
            break;
        }
    }
    if wrong.is_empty() { Ok(earnings) } else { Err(Error::fields(wrong)) }
}

/// One row as an earning; each thing that is wrong with it is a complaint, and then there is none.
fn earning(
    row: EarningBody,
    policy: &Policy,
    now: DateTime<Utc>,
    complaint: &mut impl FnMut(&str, &str),
) -> Option<(NewEarning, Frozen)> {
    let mut fine = true;
    let mut rule = |holds: bool, field: &str, error: &str| {
        if !holds {
            fine = false;
            complaint(field, error);
        }
    };

    rule(is_name(&row.source_id), "sourceId", NAME);
    rule(row.charge_id.as_deref().is_none_or(is_name), "chargeId", NAME);
    let creator_id = Uuid::parse_str(&row.creator_id).ok();
    rule(creator_id.is_some(), "creatorId", "must be a UUID");
    let kind = Kind::parse(&row.kind);
    rule(kind.is_some(), "kind", "must be tip, call, message, sale or other");
    let place = row.place.as_deref().map_or(Some(Place::Platform), Place::parse);
    rule(place.is_some(), "place", "must be platform or connected");
    let occurred_at =
        DateTime::parse_from_rfc3339(&row.occurred_at).ok().map(|instant| instant.with_timezone(&Utc).trunc_subsecs(6));
    rule(occurred_at.is_some(), "occurredAt", "must be an RFC 3339 instant like 2026-11-15T06:00:00Z");
    rule(
        occurred_at.is_none_or(|instant| instant <= now + Duration::days(1)),
        "occurredAt",
        "must not be more than a day in the future",
    );

    let currency = match &row.currency {
        Some(code) => code.parse::<Currency>().ok(),
        None => Some(policy.default_currency),
    };
    rule(currency.is_some(), "currency", "must be an ISO currency code like usd");
    let value = match (row.tokens, row.amount) {
        (Some(tokens), None) => {
            rule(row.fee.is_none(), "fee", "goes with an amount, not with tokens");
            rule(
                currency.is_none_or(|currency| currency == policy.default_currency),
                "currency",
                "tokens are worth the platform's default currency only",
            );
            rule(place != Some(Place::Connected), "place", "tokens are always on the platform");
            Some(Value::Tokens(tokens))
        }
        (None, Some(minor)) => {
            rule(row.currency.is_some(), "currency", "is required with an amount");
            if let Some(problem) = currency.and_then(|currency| currency.refuses(minor)) {
                rule(false, "amount", &problem);
            }
            rule(row.fee.is_none_or(|fee| fee >= 0), "fee", "must not be negative");
            rule(row.fee.is_none_or(|fee| fee <= minor.max(0)), "fee", "must not be above the amount");
            Some(Value::Amount { minor, fee_minor: row.fee })
        }
        (Some(_), Some(_)) => {
            rule(false, "amount", "must not be given together with tokens");
            None
        }
        (None, None) => {
            rule(false, "amount", "is required, or tokens instead");
            None
        }
    };
    let earning = NewEarning {
        source_id: row.source_id,
        creator_id: creator_id?,
        kind: kind?,
        value: value?,
        currency: currency?,
        place: place?,
        charge_id: row.charge_id,
        occurred_at: occurred_at?,
    };
    if !fine {
        return None;
    }
    match earning.freeze(policy) {
        Ok(frozen) => Some((earning, frozen)),
        Err(error) => {
            complaint(field_of(&earning), error);
            None
        }
    }
}

/// The field that says what an earning is worth.
fn field_of(earning: &NewEarning) -> &'static str {
    if matches!(earning.value, Value::Tokens(_)) { "tokens" } else { "amount" }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
