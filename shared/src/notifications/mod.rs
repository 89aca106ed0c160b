//! Messages to people: written into the outbox by the transaction that caused them, so that a fact and its message exist
//! together or not at all, and sent afterwards.
//!
//! A row is waiting until `sent_at` is set. The queue only hints at it: a lost hint is given again by the sweep, a repeated
//! one finds the row sent. So far the notifier writes what it would send into its log.

pub mod store;

use chrono::Duration;

use crate::boundary::Boundary;
use crate::clock;
use crate::db::Db;
use crate::error::Result;
use crate::queue::{Message, Queue};

/// Rows announced at once; the next sweep announces more.
const ANNOUNCED_AT_ONCE: i64 = 100;

/// A message that waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    pub id: i64,
    pub kind: String,
    pub payload: serde_json::Value,
}

/// Tells the notifier of the rows that nobody told it of in the last `quiet`. Safe to run twice at once: rows that another is
/// announcing are passed over. Returns how many it told of.
pub async fn announce(db: &Db, queue: &Queue, quiet: Duration) -> Result<usize> {
    let now = clock::now();
    let mut tx = db.begin().await?;
    let ids = store::claim(&mut tx, now, now - quiet, ANNOUNCED_AT_ONCE).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    // Marked before they are sent: killed in between, they are announced again after `quiet`.
    tx.commit(Boundary::AnnounceOutbox).await?;
    let messages: Vec<_> = ids.iter().map(|id| Message::Notification { outbox_id: *id }).collect();
    queue.send_all(Boundary::QueueNotifications, &messages).await?;
    Ok(ids.len())
}

/// Sends one message of the outbox, unless it was sent before.
pub async fn deliver(db: &Db, outbox_id: i64) -> Result<()> {
    let mut tx = db.begin().await?;
    let Some(waiting) = store::waiting(&mut tx, outbox_id).await? else {
        tracing::debug!(outbox = outbox_id, "already sent");
        return Ok(());
    };
    tracing::info!(outbox = waiting.id, kind = waiting.kind, payload = %waiting.payload, "a message for people");
    store::sent(&mut tx, waiting.id, clock::now()).await?;
    tx.commit(Boundary::MarkOutboxSent).await
}
