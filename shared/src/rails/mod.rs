//! The ways money travels, and what they answered. A rail never sees the database.
//!
//! Not knowing is an outcome, not an error: assuming failure would pay twice. What each answer of Stripe means depends on
//! whether the same attempt may already have been run by an earlier send, so [`read_answer`] is told that.

pub mod stripe;

use chrono::NaiveDate;
use serde::Deserialize;

use crate::http_client::{Answer, Failure};

/// One of the two movements of an item: platform balance → connected account, connected balance → bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    Transfer,
    Payout,
}

impl Leg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Payout => "payout",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Transfer, Self::Payout].into_iter().find(|leg| leg.as_str() == text)
    }
}

/// What an attempt is asked to do: compared with what the answer says was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub leg: Leg,
    pub amount_minor: i64,
    /// Lower-case code.
    pub currency: String,
    /// The connected account: destination of a transfer, owner of a payout.
    pub account: String,
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and it is what was asked.
    Accepted(Accepted),
    /// Definitely not done, and the same request will never be.
    Rejected(Refusal),
    /// Definitely not done; the same attempt may be sent again.
    NotRun(Hindrance),
    /// Nobody knows. `look_up`: sending again will not tell either, ask Stripe for the object.
    Unknown { why: String, look_up: bool },
    /// The answer contradicts what was asked: a person must look before anything else happens.
    Frozen { why: String, stripe_id: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub stripe_id: String,
    /// Stripe's status of a payout (`pending`, `in_transit`, `paid`); none for a transfer.
    pub status: Option<String>,
    pub arrival_on: Option<NaiveDate>,
}

/// Why a definite no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The balance it would come from is short.
    Funds,
    /// The account does not exist or is not ours: the payee is blocked, the batch goes on.
    NoAccount,
    /// The account cannot receive now, or Stripe dislikes this very request.
    Other,
}

/// Why it was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    RateLimited,
    KeyRefused,
    Unreachable,
    /// We did not send it: stopped, or past its deadline.
    NotSent,
}

/// An outcome and the evidence for it, kept on the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub outcome: Outcome,
    pub http_status: Option<i32>,
    pub request_id: Option<String>,
    /// Stripe answered from its memory of the first send.
    pub replayed: bool,
    pub code: Option<String>,
    pub message: Option<String>,
}

impl Reply {
    pub fn bare(outcome: Outcome) -> Self {
        Self { outcome, http_status: None, request_id: None, replayed: false, code: None, message: None }
    }
}

/// The few fields of an accepted object that money depends on; everything else may change under us.
#[derive(Deserialize)]
struct Object {
    id: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    destination: serde_json::Value,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    arrival_date: Option<i64>,
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorFields,
}

#[derive(Deserialize, Default)]
struct ErrorFields {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Reads Stripe's answer to a POST. `in_doubt`: an earlier send of the same attempt may have been run, so a refusal now says
/// nothing about then. [docs.stripe.com/api/idempotent_requests, docs.stripe.com/error-low-level]
pub fn read_answer(asked: &Asked, answer: Result<Answer, Failure>, in_doubt: bool) -> Reply {
    let answer = match answer {
        Err(Failure::NotSent(why)) if in_doubt => return Reply::bare(Outcome::Unknown { why, look_up: false }),
        Err(Failure::NotSent(why)) => {
            return Reply { message: Some(why), ..Reply::bare(Outcome::NotRun(Hindrance::Unreachable)) };
        }
        Err(Failure::Unanswered(why)) => return Reply::bare(Outcome::Unknown { why, look_up: false }),
        Ok(answer) => answer,
    };
    let replayed = answer.header("idempotent-replayed").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut reply = Reply {
        outcome: Outcome::Unknown { why: format!("answered {}", answer.status), look_up: replayed },
        http_status: Some(i32::from(answer.status.as_u16())),
        request_id: answer.header("request-id").map(str::to_owned),
        replayed,
        code: None,
        message: None,
    };
    if answer.status.is_success() {
        reply.outcome = read_object(asked, &answer.body);
        return reply;
    }
    let error = serde_json::from_str::<ErrorBody>(&without_nul(&answer.body)).unwrap_or_default().error;
    reply.outcome = read_refusal(answer.status.as_u16(), &error, in_doubt, replayed);
    reply.code = error.code.or(error.r#type);
    reply.message = error.message;
    reply
}

/// Postgres keeps no NUL in a text, and an answer must be kept whatever is in it.
fn without_nul(body: &[u8]) -> std::borrow::Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    if text.contains("\\u0000") { text.replace("\\u0000", "\u{fffd}").into() } else { text }
}

fn read_object(asked: &Asked, body: &[u8]) -> Outcome {
    let Ok(object) = serde_json::from_str::<Object>(&without_nul(body)) else {
        return Outcome::Unknown { why: "the answer cannot be read".to_owned(), look_up: false };
    };
    let destination = match &object.destination {
        serde_json::Value::Object(expanded) => expanded.get("id").and_then(|id| id.as_str()),
        other => other.as_str(),
    };
    let same_place = asked.leg == Leg::Payout || destination == Some(asked.account.as_str());
    if object.amount != asked.amount_minor || !object.currency.eq_ignore_ascii_case(&asked.currency) || !same_place {
        let why = format!(
            "asked for {} {} to {}, Stripe says {} {} to {}",
            asked.amount_minor,
            asked.currency,
            asked.account,
            object.amount,
            object.currency,
            destination.unwrap_or("nobody")
        );
        return Outcome::Frozen { why, stripe_id: Some(object.id) };
    }
    let arrival_on =
        object.arrival_date.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0)).map(|instant| instant.date_naive());
    Outcome::Accepted(Accepted { stripe_id: object.id, status: object.status, arrival_on })
}

fn read_refusal(status: u16, error: &ErrorFields, in_doubt: bool, replayed: bool) -> Outcome {
    let code = error.code.as_deref().unwrap_or_default();
    let unknown = |look_up: bool| Outcome::Unknown { why: format!("answered {status} {code}"), look_up: look_up || replayed };
    let not_run = |why: Hindrance| if in_doubt { unknown(false) } else { Outcome::NotRun(why) };
    if error.r#type.as_deref() == Some("idempotency_error") && code != "idempotency_key_in_use" {
        return Outcome::Frozen { why: "the key was used before with other parameters".to_owned(), stripe_id: None };
    }
    match (status, code) {
        (429, _) | (_, "lock_timeout" | "rate_limit") => not_run(Hindrance::RateLimited),
        (409, _) => unknown(false),
        (_, "balance_insufficient" | "insufficient_funds") => Outcome::Rejected(Refusal::Funds),
        (403, "account_invalid") | (404, _) | (400, "resource_missing") if !in_doubt => Outcome::Rejected(Refusal::NoAccount),
        (403, "account_invalid") | (404, _) | (400, "resource_missing") => unknown(true),
        (401 | 403, _) => not_run(Hindrance::KeyRefused),
        // What Stripe says of the account or the amount is said in good order and is final, also about the first send.
        (400 | 402, code) if is_definite(code) => Outcome::Rejected(Refusal::Other),
        (400 | 402, _) if !in_doubt => Outcome::Rejected(Refusal::Other),
        (400 | 402, _) => unknown(true),
        (500, _) => unknown(true),
        _ => unknown(false),
    }
}

/// Codes by which Stripe refuses what was asked for reasons of the account, not of the request's form: the open set's known part.
fn is_definite(code: &str) -> bool {
    matches!(
        code,
        "payouts_not_allowed"
            | "payouts_limit_exceeded"
            | "no_account"
            | "transfers_not_allowed"
            | "insufficient_capabilities_for_transfer"
            | "account_closed"
            | "account_frozen"
            | "bank_account_unusable"
            | "bank_account_restricted"
            | "bank_account_declined"
            | "bank_account_unverified"
            | "debit_not_authorized"
            | "invalid_account_number"
            | "invalid_currency"
            | "amount_too_small"
            | "amount_too_large"
    )
}

#[cfg(test)]
mod tests;
