//! What the decisions about a chunk's items read and what they write: plain rows between the pure files and `store::chunks`.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;

use super::item::{Item, Status};
use super::operation::{Operation, State};
use crate::id::{ItemId, OperationId};
use crate::ledger::Posting;
use crate::rails::Leg;

/// An item with its latest operation, as loaded under their locks.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub item: Item,
    pub key: String,
    /// The connected account it goes to.
    pub account: String,
    /// The bank account as eligibility saw it last; only set at dispatch.
    pub destination: Option<String>,
    pub failure_code: Option<String>,
    pub failure_reason: Option<String>,
    pub due_at: Option<DateTime<Utc>>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub operation: Option<LoadedOperation>,
    /// Stripe's ids that any of its attempts is known by.
    pub stripe_ids: Vec<String>,
    /// The status in the database.
    pub was: Status,
}

#[derive(Debug, Clone)]
pub struct LoadedOperation {
    pub id: OperationId,
    pub facts: Operation,
    pub key: String,
    pub account: String,
    pub body: String,
    pub lookups: i32,
    pub unknown_since: Option<DateTime<Utc>>,
}

/// Eligibility asked once more for an item about to be sent.
#[derive(Debug, Clone, FromRow)]
pub struct Recheck {
    pub item_id: ItemId,
    pub account: Option<String>,
    pub destination: Option<String>,
    pub automatic: bool,
    /// Why not any more; `None`: still pay.
    pub reason: Option<String>,
}

/// An item's new row.
#[derive(Debug, Clone)]
pub struct ItemUpdate {
    pub was: Status,
    pub item: Item,
    pub account: String,
    /// The bank account as known at dispatch; `None` leaves it.
    pub destination: Option<String>,
    pub failure_code: Option<String>,
    pub failure_reason: Option<String>,
    pub due_at: Option<DateTime<Utc>>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub arrival_on: Option<NaiveDate>,
}

/// A new attempt, about to be sent.
#[derive(Debug, Clone)]
pub struct NewOperation {
    pub item: ItemId,
    pub leg: Leg,
    pub attempt: i32,
    pub key: String,
    pub account: String,
    pub amount_minor: i64,
    pub currency: String,
    pub body: String,
    pub dispatched_at: DateTime<Utc>,
    pub send_deadline: DateTime<Utc>,
}

/// What changed on an attempt.
#[derive(Debug, Clone)]
pub struct OperationUpdate {
    pub id: OperationId,
    pub was: State,
    pub state: State,
    pub first_dispatched_at: DateTime<Utc>,
    pub dispatched_at: DateTime<Utc>,
    pub send_deadline: Option<DateTime<Utc>>,
    pub sends: i32,
    pub lookups: i32,
    pub look_up: bool,
    pub cleared: bool,
    pub stripe_id: Option<String>,
    pub stripe_status: Option<String>,
    pub http_status: Option<i32>,
    pub code: Option<String>,
    pub message: Option<String>,
    pub request_id: Option<String>,
    pub replayed: bool,
    pub unknown_since: Option<DateTime<Utc>>,
}

/// Everything one commit changes: the only way a status, an attempt or an item's money is written.
#[derive(Debug, Default)]
pub struct Wave {
    pub postings: Vec<Posting>,
    pub operations: Vec<OperationUpdate>,
    pub new_operations: Vec<NewOperation>,
    pub items: Vec<ItemUpdate>,
}
