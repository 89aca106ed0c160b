//! `GET` and `PATCH /api/payout-settings`: what a creator may choose about being paid.

use axum::extract::State;
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::super::store::creators::{self, Changes, Settings};
use crate::boundary::Boundary;
use crate::clock::Schedule;
use crate::error::{Error, FieldError, Result};
use crate::http::{AppState, Caller, Json, Problem};
use crate::money::{MICROS_PER_UNIT, scaled};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingsAnswer {
    ok: bool,
    success: bool,
    settings: PayoutSettings,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PayoutSettings {
    payout_enabled: bool,
    /// The creator's own, in whole units of each currency; the largest of this, the platform's and Stripe's minimum counts.
    #[schema(example = "25.00")]
    minimum_payout_amount: Option<String>,
    schedule: Schedule,
    /// In which dates are told and years counted; the platform's if the creator has chosen none.
    #[schema(example = "Europe/Berlin")]
    timezone: String,
    /// Read only: whether the creator is in the rollout.
    beta_enabled: bool,
}

fn answer(settings: Option<Settings>, state: &AppState) -> axum::Json<SettingsAnswer> {
    let timezone = settings.as_ref().and_then(|it| it.timezone.as_deref());
    let settings = PayoutSettings {
        timezone: state.policy.calendar.zone_of(timezone).name().to_owned(),
        payout_enabled: settings.as_ref().is_none_or(|it| it.payout_enabled),
        schedule: settings.as_ref().and_then(|it| Schedule::parse(&it.schedule)).unwrap_or(Schedule::Semimonthly),
        beta_enabled: settings.as_ref().is_some_and(|it| it.beta_enabled),
        minimum_payout_amount: settings.and_then(|it| it.minimum_payout),
    };
    axum::Json(SettingsAnswer { ok: true, success: true, settings })
}

/// The caller's payout settings.
#[utoipa::path(
    get,
    path = "/api/payout-settings",
    tag = "creators",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The settings; defaults where nothing was chosen.", body = SettingsAnswer),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn settings(State(state): State<AppState>, caller: Caller) -> Result<axum::Json<SettingsAnswer>> {
    let mut tx = state.db.begin().await?;
    let settings = creators::settings(&mut tx, caller.id).await?;
    drop(tx);
    Ok(answer(settings, &state))
}

/// What is to be different. What is left out stays; `null` takes a minimum or a zone back to the platform's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettingsBody {
    payout_enabled: Option<bool>,
    /// In whole units, as text: `"25.00"`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "25.00")]
    minimum_payout_amount: Option<Option<String>>,
    /// `semimonthly`, `weekly`, `monthly` or `manual`.
    schedule: Option<String>,
    /// An IANA name like `Europe/Berlin`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "Europe/Berlin")]
    timezone: Option<Option<String>>,
}

/// Tells `null` from what is left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// More than anybody is paid at once, in whole units.
const MOST: i64 = 1_000_000_000;

impl SettingsBody {
    /// Every wrong field is named.
    pub fn checked(self) -> Result<Changes> {
        let mut wrong = Vec::new();
        let mut rule = |fine: bool, field: &str, error: &str| {
            if !fine {
                wrong.push(FieldError { field: field.to_owned(), error: error.to_owned() });
            }
        };
        let minimum = |text: &String| scaled(text, 6).is_some_and(|micros| micros <= MOST * MICROS_PER_UNIT);
        rule(
            self.minimum_payout_amount.iter().flatten().all(minimum),
            "minimumPayoutAmount",
            "must be an amount in whole units like \"25.00\", at most 1000000000",
        );
        let schedule = self.schedule.as_deref().map(Schedule::parse);
        rule(schedule != Some(None), "schedule", "must be semimonthly, weekly, monthly or manual");
        let is_zone = |name: &String| name.parse::<Tz>().is_ok();
        rule(self.timezone.iter().flatten().all(is_zone), "timezone", "must be an IANA time zone like Europe/Berlin");
        if !wrong.is_empty() {
            return Err(Error::fields(wrong));
        }
        Ok(Changes {
            payout_enabled: self.payout_enabled,
            minimum_payout: self.minimum_payout_amount,
            schedule: schedule.flatten().map(Schedule::as_str),
            timezone: self.timezone,
        })
    }
}

/// Change payout settings.
///
/// They hold from the next cycle on; a payment that is being made is not called off, except that switching payouts off keeps
/// what was not sent yet from being sent.
#[utoipa::path(
    patch,
    path = "/api/payout-settings",
    tag = "creators",
    security(("bearer" = [])),
    request_body = SettingsBody,
    responses(
        (status = 200, description = "The settings as they are now.", body = SettingsAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 413, description = "More than 1 MiB.", body = Problem),
        (status = 415, description = "Not `application/json`.", body = Problem),
        (status = 422, description = "A field is wrong, unknown or read only; `details` name it.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn change_settings(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<SettingsBody>,
) -> Result<axum::Json<SettingsAnswer>> {
    let changes = body.checked()?;
    let mut tx = state.db.begin().await?;
    let settings = creators::change_settings(&mut tx, caller.id, changes).await?;
    tx.commit(Boundary::SaveByRequest).await?;
    tracing::info!(creator = %caller.id, ?settings, "payout settings changed");
    Ok(answer(Some(settings), &state))
}
