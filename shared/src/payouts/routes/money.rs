//! `GET /api/tokens/earnings`: what a creator has, where it is, when it comes, and if it does not, why. One statement.

use axum::extract::State;
use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::reason::{Exclusion, Why};
use super::super::store::creators::{self, Standing};
use crate::clock::{self, Schedule};
use crate::config::Policy;
use crate::error::Result;
use crate::http::{AppState, Caller, Problem};
use crate::money::{Currency, Money};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatorEarningsAnswer {
    ok: bool,
    success: bool,
    earnings: CreatorEarnings,
}

/// In tokens, rounded down: money of the platform's currency ÷ what a token is worth to a creator.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreatorEarnings {
    /// All that was earned, less what disputes and refunds took back.
    total_earned: i64,
    /// No longer held, and not in a payment.
    available_balance: i64,
    /// Held against chargebacks.
    buffered_earnings: i64,
    /// In a payment that has not arrived yet.
    in_flight: i64,
    /// Of what is available, the part that stays behind by policy.
    reserve: i64,
    paid_out: i64,
    /// The connected account may receive and pay out.
    kyc_verified: bool,
    can_withdraw: bool,
    /// Why not, when `canWithdraw` is false.
    #[schema(example = "below_minimum")]
    reason: Option<String>,
    /// The one thing to do about it.
    action: Option<&'static str>,
    /// The same with its cause and whose move it is.
    why: Option<Why>,
    /// The next cycle of the creator's schedule, in the creator's zone; none if the schedule is manual.
    next_payout_date: Option<NaiveDate>,
    schedule: Schedule,
    /// In which dates are told.
    #[schema(example = "Europe/Berlin")]
    timezone: &'static str,
    /// The same in money, for each currency there is; the platform's own is always there.
    money: Vec<InMoney>,
}

/// Minor units (cents, or whole yen), each rounded down by itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InMoney {
    #[schema(example = "usd")]
    currency: String,
    total_earned_minor: i64,
    available_minor: i64,
    held_minor: i64,
    reserve_minor: i64,
    in_flight_minor: i64,
    paid_out_minor: i64,
    /// What disputes and refunds took back beyond the balance; new earnings cover it first.
    debt_minor: i64,
    /// What a payment made now would pay: available less debt and reserve.
    payable_minor: i64,
    /// The least that is paid.
    minimum_minor: Option<i64>,
    can_withdraw: bool,
    reason: Option<String>,
    action: Option<&'static str>,
    why: Option<Why>,
}

/// What the caller has earned.
///
/// A user of whom Payday knows nothing yet has zeros.
#[utoipa::path(
    get,
    path = "/api/tokens/earnings",
    tag = "earnings",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "In tokens and in money.", body = CreatorEarningsAnswer),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
pub(super) async fn earnings(State(state): State<AppState>, caller: Caller) -> Result<axum::Json<CreatorEarningsAnswer>> {
    let (policy, now) = (&*state.policy, clock::now());
    let mut tx = state.db.begin().await?;
    let mut rows = creators::standing(&mut tx, caller.id, policy, now).await?;
    drop(tx);

    let known = rows.first().cloned().unwrap_or_else(unknown);
    rows.retain(|row| row.currency.is_some());
    // The platform's own currency is always there.
    let own = policy.default_currency.code();
    let position = rows.iter().position(|row| row.currency.as_ref() == Some(&own)).unwrap_or_else(|| {
        rows.insert(0, Standing { currency: Some(own), reason: without_money(&known), ..unknown() });
        0
    });
    let of_tokens = &rows[position];
    let why = of_tokens.reason.as_deref().map(|reason| Why::new(reason, None));
    let schedule = Schedule::parse(&known.schedule).unwrap_or(Schedule::Semimonthly);
    let zone = policy.calendar.zone_of(known.timezone.as_deref());
    let next = schedule.next_after(now, policy.calendar).map(|cycle_on| policy.calendar.cutoff(cycle_on));
    let tokens = |micros: i64| micros.max(0).checked_div(policy.token_net_micros()).unwrap_or(0);
    let earnings = CreatorEarnings {
        total_earned: tokens(total(of_tokens)),
        available_balance: tokens(of_tokens.available_micros),
        buffered_earnings: tokens(of_tokens.held_micros),
        in_flight: tokens(of_tokens.under_way_micros),
        reserve: tokens(reserve(of_tokens, policy)),
        paid_out: tokens(of_tokens.paid_out_micros),
        kyc_verified: known.ready,
        can_withdraw: why.is_none(),
        reason: why.as_ref().map(|why| why.reason.clone()),
        action: why.as_ref().map(|why| why.action),
        why,
        next_payout_date: next.map(|instant| instant.with_timezone(&zone).date_naive()),
        schedule,
        timezone: zone.name(),
        money: rows.iter().map(|row| in_money(row, policy)).collect::<Result<_>>()?,
    };
    Ok(axum::Json(CreatorEarningsAnswer { ok: true, success: true, earnings }))
}

/// Of a user whom nobody has told Payday of.
fn unknown() -> Standing {
    Standing {
        schedule: Schedule::Semimonthly.as_str().to_owned(),
        timezone: None,
        ready: false,
        automatic: true,
        currency: None,
        held_micros: 0,
        available_micros: 0,
        under_way_micros: 0,
        paid_out_micros: 0,
        debt_micros: 0,
        payable_minor: 0,
        transfer_minor: 0,
        minimum_minor: None,
        reason: Some(Exclusion::NoAccount.as_str().to_owned()),
    }
}

/// Why a creator would not be paid in a currency that they have nothing in: what stands against paying at all, as it does for
/// their other money, else that there is nothing.
fn without_money(known: &Standing) -> Option<String> {
    let of_money = |reason: Exclusion| {
        matches!(
            reason,
            Exclusion::Held | Exclusion::Debt | Exclusion::BelowMinimum | Exclusion::ScheduleNotDue | Exclusion::UnsettledItem
        )
    };
    let reason = known.reason.as_deref().and_then(Exclusion::parse).filter(|reason| !of_money(*reason));
    Some(reason.unwrap_or(Exclusion::BelowMinimum).as_str().to_owned())
}

fn total(row: &Standing) -> i64 {
    row.held_micros + row.available_micros + row.under_way_micros + row.paid_out_micros + row.debt_micros
}

fn reserve(row: &Standing, policy: &Policy) -> i64 {
    policy.reserve.of((row.available_micros + row.debt_micros).max(0))
}

fn in_money(row: &Standing, policy: &Policy) -> Result<InMoney> {
    let code = row.currency.clone().unwrap_or_default();
    let currency: Currency = code.parse()?;
    let minor = |micros: i64| Money::new(micros, currency).minor();
    let why = row.reason.as_deref().map(|reason| Why::new(reason, None));
    Ok(InMoney {
        currency: code,
        total_earned_minor: minor(total(row)),
        available_minor: minor(row.available_micros),
        held_minor: minor(row.held_micros),
        reserve_minor: minor(reserve(row, policy)),
        in_flight_minor: minor(row.under_way_micros),
        paid_out_minor: minor(row.paid_out_micros),
        debt_minor: minor(-row.debt_micros),
        payable_minor: row.payable_minor,
        minimum_minor: row.minimum_minor,
        can_withdraw: why.is_none(),
        reason: why.as_ref().map(|why| why.reason.clone()),
        action: why.as_ref().map(|why| why.action),
        why,
    })
}
