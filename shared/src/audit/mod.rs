//! The audit log: who did what to what, when, and what it was before and after.
//!
//! An action's row is written by the transaction that has its effect, last, because the log's writers wait for each other. The
//! database chains the rows by hashes and refuses to change or remove one; [`store::breaches`] finds what somebody changed past it.

pub mod routes;
pub mod store;

use serde_json::Value;

use crate::boundary::Boundary;
use crate::db::{Db, Tx};
use crate::error::{Error, Result};

/// Who acts, and by which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// A user's id, or the name of a machine: `cron`.
    pub actor: String,
    pub request_id: String,
}

impl By {
    pub fn new(actor: impl ToString, request_id: &str) -> Self {
        Self { actor: actor.to_string(), request_id: request_id.to_owned() }
    }
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Like `item.adopt`: a kind of subject, and a verb.
    pub action: &'static str,
    /// Like `item:7`.
    pub subject: String,
    pub before: Value,
    /// What it is now, and what was said about it.
    pub after: Value,
}

/// Writes the row of an action into the transaction that has its effect. Call it last before the commit.
pub async fn record(tx: &mut Tx, by: &By, act: &Act) -> Result<()> {
    store::insert(tx, by, act, "done").await
}

/// Writes the row of an action that was refused, and gives back the refusal: the answer to it.
pub async fn refused(db: &Db, by: &By, act: &Act, refusal: Error) -> Result<Error> {
    let mut tx = db.begin().await?;
    store::insert(&mut tx, by, act, "refused").await?;
    tx.commit(Boundary::SaveByRequest).await?;
    Ok(refusal)
}
