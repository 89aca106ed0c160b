//! Identifiers that cannot be built wrong.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Who is paid: the uuid of the user (`sub` of the token).
pub type PayeeId = Uuid;

macro_rules! row_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

row_ids! {
    /// One execution of a cycle.
    RunId,
    /// A request to pay many in one currency.
    BatchId,
    /// Items handed to a worker together.
    ChunkId,
    /// One payee's payment in a batch.
    ItemId,
    /// One send of a leg.
    OperationId,
}

/// The hash that makes a batch unique: the same occasion can never have a second one.
///
/// `occasion` is the cycle date or the id of the request that caused the batch.
pub fn batch_hash(instance: &str, kind: &str, schedule: &str, occasion: &str, currency: &str) -> String {
    let mut hash = Sha256::new();
    for part in [instance, kind, schedule, occasion, currency] {
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

/// The key of an item: stable for its whole life, the stem of its operations' keys.
pub fn item_key(instance: &str, batch_hash: &str, payee: PayeeId) -> String {
    format!("payday:{instance}:{batch_hash}:{payee}")
}

/// The idempotency key of one attempt of one leg. Never a date, a clock or anything random per call: the same attempt has
/// the same key for ever, and another attempt another.
pub fn operation_key(item_key: &str, leg: &str, attempt: i32) -> String {
    format!("{item_key}:{leg}:{attempt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_hash_differs_in_every_part() {
        let base = batch_hash("i", "scheduled", "weekly", "2026-11-16", "usd");
        for other in [
            batch_hash("j", "scheduled", "weekly", "2026-11-16", "usd"),
            batch_hash("i", "resume", "weekly", "2026-11-16", "usd"),
            batch_hash("i", "scheduled", "monthly", "2026-11-16", "usd"),
            batch_hash("i", "scheduled", "weekly", "2026-11-23", "usd"),
            batch_hash("i", "scheduled", "weekly", "2026-11-16", "eur"),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, batch_hash("i", "scheduled", "weekly", "2026-11-16", "usd"));
    }

    #[test]
    fn an_operation_key_fits_stripes_limit() {
        let key = operation_key(&item_key(&"f".repeat(16), &"f".repeat(32), Uuid::nil()), "transfer", i32::MAX);
        assert!(key.len() <= 255, "{}", key.len());
    }
}
