//! What creators earn: recorded once by the caller's `sourceId` with rate and fee frozen, held against chargebacks, matured,
//! and taken back by disputes and refunds.
//!
//! An earning is **held** until `available_at` (an instant, inclusive) and available from then on. Which is which is told by one
//! watermark, not by a mark on each row, so maturing writes one posting per payee however many earnings mature. What is
//! payable at a cut-off leaves out what matured after it, also when something has matured that since.

pub mod import;
pub mod routes;
pub mod store;
pub mod taking_back;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::clock;
use crate::config::Policy;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::money::Currency;

/// What was earned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tip,
    Call,
    Message,
    Sale,
    Other,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Tip, Self::Call, Self::Message, Self::Sale, Self::Other];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tip => "tip",
            Self::Call => "call",
            Self::Message => "message",
            Self::Sale => "sale",
            Self::Other => "other",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where the money lies: on the platform's Stripe balance, or on the creator's connected account already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Platform,
    Connected,
}

impl Place {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Connected => "connected",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Platform, Self::Connected].into_iter().find(|place| place.as_str() == text)
    }
}

/// What it was worth to whoever paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Tokens, worth the policy's rate in the default currency.
    Tokens(i64),
    /// Minor units; without a fee of its own the policy's percentage applies.
    Amount { minor: i64, fee_minor: Option<i64> },
}

/// An earning as someone reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEarning {
    /// The caller's own id of it: the same one again is the same earning.
    pub source_id: String,
    pub creator_id: Uuid,
    pub kind: Kind,
    pub value: Value,
    pub currency: Currency,
    pub place: Place,
    /// Stripe's charge behind it, by which a dispute finds it.
    pub charge_id: Option<String>,
    pub occurred_at: DateTime<Utc>,
}

/// How many were new and how many were there already with the same content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    pub recorded: u64,
    pub already_there: u64,
}

/// An earning with its worth frozen, in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    pub gross_micros: i64,
    pub fee_micros: i64,
    pub token_rate_micros: Option<i64>,
    pub fee_ppm: Option<i64>,
}

/// Whether a text may be somebody else's id of something.
fn is_name(text: &str) -> bool {
    (1..=MOST_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

const MOST_NAME_CHARS: usize = 200;
const NAME: &str = "must be 1 to 200 characters without control characters";

/// What earnings that are recorded together add up to, by currency: a sum that the ledger cannot hold is refused where it
/// comes about, for the database would only say that there is one.
#[derive(Debug, Default)]
pub struct Sums(HashMap<Currency, i64>);

impl Sums {
    pub fn add(&mut self, earning: &NewEarning, frozen: &Frozen) -> Result<(), &'static str> {
        let sum = self.0.entry(earning.currency).or_default();
        *sum = sum.checked_add(frozen.gross_micros).ok_or("is more than the ledger can hold, together with those before it")?;
        Ok(())
    }
}

impl NewEarning {
    /// Freezes rate and fee. The error is a sentence about the value, for whoever knows where it stood.
    pub fn freeze(&self, policy: &Policy) -> Result<Frozen, &'static str> {
        const TOO_LARGE: &str = "is more than the ledger can hold";
        match self.value {
            Value::Tokens(tokens) => {
                if tokens <= 0 {
                    return Err("must be above zero");
                }
                if self.currency != policy.default_currency {
                    return Err("tokens are worth the platform's default currency only");
                }
                let gross = tokens.checked_mul(policy.token_rate_micros).ok_or(TOO_LARGE)?;
                let fee = policy.platform_fee.of(gross);
                Ok(Frozen {
                    gross_micros: gross,
                    fee_micros: fee,
                    token_rate_micros: Some(policy.token_rate_micros),
                    fee_ppm: Some(policy.platform_fee.0),
                })
            }
            Value::Amount { minor, fee_minor } => {
                if minor <= 0 {
                    return Err("must be above zero");
                }
                let unit = self.currency.micros_per_minor();
                let gross = minor.checked_mul(unit).ok_or(TOO_LARGE)?;
                let (fee, ppm) = match fee_minor {
                    Some(fee) if !(0..=minor).contains(&fee) => return Err("the fee must be between zero and the amount"),
                    Some(fee) => (fee.checked_mul(unit).ok_or(TOO_LARGE)?, None),
                    None => (policy.platform_fee.of(gross), Some(policy.platform_fee.0)),
                };
                Ok(Frozen { gross_micros: gross, fee_micros: fee, token_rate_micros: None, fee_ppm: ppm })
            }
        }
    }

    /// Tells a repetition from a contradiction: a hash of what the caller said, not of what became of it.
    pub fn content_hash(&self) -> i64 {
        let value = match self.value {
            Value::Tokens(tokens) => format!("tokens {tokens}"),
            Value::Amount { minor, fee_minor } => format!("amount {minor} fee {fee_minor:?}"),
        };
        let said = format!(
            "{} {} {value} {} {} {:?} {}",
            self.creator_id,
            self.kind.as_str(),
            self.currency,
            self.place.as_str(),
            self.charge_id,
            self.occurred_at.timestamp_micros()
        );
        let mut first = [0_u8; 8];
        first.copy_from_slice(&Sha256::digest(said.as_bytes())[..8]);
        i64::from_be_bytes(first)
    }

    pub fn available_at(&self, policy: &Policy) -> DateTime<Utc> {
        self.occurred_at + chrono::Duration::hours(24 * policy.hold_days)
    }
}

/// Records earnings, all or none. The same `sourceId` with the same content is counted as there already; with other content it
/// is refused (`SOURCE_ID_CONFLICT`, the ids in `details`).
pub async fn record(db: &Db, policy: &Policy, earnings: Vec<NewEarning>) -> Result<Recorded> {
    record_by(db, policy, earnings, None).await
}

/// The same for a person, which the audit log has then; machines record all day long.
pub async fn record_by(db: &Db, policy: &Policy, earnings: Vec<NewEarning>, person: Option<&By>) -> Result<Recorded> {
    let mut tx = db.begin().await?;
    let recorded = store::record(&mut tx, policy, &earnings).await.map_err(|error| match error.code {
        "OUT_OF_RANGE" => Error::field("earnings", "are more than the ledger can hold, together with what is recorded already"),
        _ => error,
    })?;
    if let Some(by) = person {
        let first = earnings.first().map(|earning| &earning.source_id);
        let after = json!({ "recorded": recorded.recorded, "alreadyThere": recorded.already_there, "firstSourceId": first });
        let act = Act { action: "earnings.record", subject: "earnings".to_owned(), before: json!({}), after };
        audit::record(&mut tx, by, &act).await?;
    }
    tx.commit(Boundary::RecordEarnings).await?;
    Ok(recorded)
}

/// Makes available what was held until the instant or before. Never goes back; safe to run twice at once.
pub async fn mature(db: &Db, through: DateTime<Utc>) -> Result<u64> {
    // Nothing matures ahead of time, whatever a caller thinks the time is.
    let through = through.min(clock::now());
    let mut tx = db.begin().await?;
    let postings = store::mature(&mut tx, through).await?;
    tx.commit(Boundary::MatureEarnings).await?;
    Ok(postings)
}

/// The conflict of a repeated source id with other content.
fn conflict(ids: Vec<String>) -> Error {
    let mut error =
        Error::conflict("SOURCE_ID_CONFLICT", "Some sourceIds were recorded before with other content; nothing was recorded.");
    error.details = ids
        .into_iter()
        .map(|id| crate::error::FieldError {
            field: "sourceId".to_owned(),
            error: format!("{id} was recorded before with other content"),
        })
        .collect();
    error
}
