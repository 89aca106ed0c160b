//! `GET /api/tokens/earnings`: what a creator has, where it is, when it comes, and if it does not, why.
//!
//! Two statements, both by the creator's id; what counts as payable is asked of the one function that batches ask.

use axum::extract::State;
use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::reason;
use super::super::store::reports::{self, CreatorMoney};
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
    /// The next cycle of the creator's schedule; none if the schedule is manual.
    next_payout_date: Option<NaiveDate>,
    schedule: Schedule,
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
    let facts = reports::creator_facts(&mut tx, caller.id, policy, now).await?;
    let rows = match facts {
        Some(_) => reports::creator_money(&mut tx, caller.id, policy, now).await?,
        None => Vec::new(),
    };
    drop(tx);

    let without_money = facts.as_ref().map_or("no_account", |facts| facts.reason.as_str());
    let own = policy.default_currency.code();
    let of_tokens = rows.iter().find(|row| row.currency == own).cloned().unwrap_or_else(|| nothing(own.clone()));
    let mut money = rows.into_iter().map(|row| in_money(row, policy, without_money)).collect::<Result<Vec<_>>>()?;
    if !money.iter().any(|it| it.currency == own) {
        money.insert(0, in_money(nothing(own.clone()), policy, without_money)?);
    }
    let answer = money.iter().find(|it| it.currency == own);
    let reason = answer.and_then(|it| it.reason.clone());
    let schedule = facts.as_ref().and_then(|facts| Schedule::parse(&facts.schedule)).unwrap_or(Schedule::Semimonthly);
    let tokens = |micros: i64| micros.max(0).checked_div(policy.token_net_micros()).unwrap_or(0);
    let earnings = CreatorEarnings {
        total_earned: tokens(total(&of_tokens)),
        available_balance: tokens(of_tokens.available_micros),
        buffered_earnings: tokens(of_tokens.held_micros),
        in_flight: tokens(of_tokens.under_way_micros),
        reserve: tokens(reserve(&of_tokens, policy)),
        paid_out: tokens(of_tokens.paid_out_micros),
        kyc_verified: facts.as_ref().is_some_and(|facts| facts.ready),
        can_withdraw: reason.is_none(),
        action: reason.as_deref().map(reason::action),
        reason,
        next_payout_date: schedule.next_after(now, policy.calendar),
        schedule,
        money,
    };
    Ok(axum::Json(CreatorEarningsAnswer { ok: true, success: true, earnings }))
}

fn nothing(currency: String) -> CreatorMoney {
    CreatorMoney {
        currency,
        held_micros: 0,
        available_micros: 0,
        under_way_micros: 0,
        paid_out_micros: 0,
        debt_micros: 0,
        payable_minor: 0,
        minimum_minor: None,
        was_asked: false,
        reason: None,
    }
}

fn total(row: &CreatorMoney) -> i64 {
    row.held_micros + row.available_micros + row.under_way_micros + row.paid_out_micros + row.debt_micros
}

fn reserve(row: &CreatorMoney, policy: &Policy) -> i64 {
    policy.reserve.of((row.available_micros + row.debt_micros).max(0))
}

fn in_money(row: CreatorMoney, policy: &Policy, without_money: &str) -> Result<InMoney> {
    let currency: Currency = row.currency.parse()?;
    let minor = |micros: i64| Money::new(micros, currency).minor();
    let reason = match (row.was_asked, without_money) {
        (true, _) => row.reason.clone(),
        (false, "below_minimum") if row.debt_micros < 0 => Some("debt".to_owned()),
        (false, reason) => Some(reason.to_owned()),
    };
    Ok(InMoney {
        total_earned_minor: minor(total(&row)),
        available_minor: minor(row.available_micros),
        held_minor: minor(row.held_micros),
        reserve_minor: minor(reserve(&row, policy)),
        in_flight_minor: minor(row.under_way_micros),
        paid_out_minor: minor(row.paid_out_micros),
        debt_minor: minor(-row.debt_micros),
        payable_minor: row.payable_minor,
        minimum_minor: row.minimum_minor,
        can_withdraw: reason.is_none(),
        action: reason.as_deref().map(reason::action),
        reason,
        currency: row.currency,
    })
}
