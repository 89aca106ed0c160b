//! The outbox: messages to people, written by the transaction that caused them, so that a fact and its message exist together or
//! not at all. `messages` sends them afterwards.
//!
//! A row is waiting until `sent_at` is set: none of its ways to readers is open any more. The queue only hints at it: a lost hint is
//! given again by the sweep, and so is one for a way that is to be tried again.

pub mod store;

use chrono::Duration;

use crate::boundary::Boundary;
use crate::clock;
use crate::db::Db;
use crate::error::Result;
use crate::queue::{Message, Queue};

/// Rows announced at once; the next sweep announces more. A minute's worth of what SES sends for an ordinary account.
const ANNOUNCED_AT_ONCE: i64 = 1_000;

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
