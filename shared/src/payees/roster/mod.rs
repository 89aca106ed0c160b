//! Payees as operators see them: looking them up, blocking them, and the beta list.

pub mod routes;
pub mod store;

use serde_json::json;
use uuid::Uuid;

use self::store::Search;
use crate::audit::{self, Act, By};
use crate::boundary::Boundary;
use crate::clock;
use crate::db::Db;
use crate::error::{Error, FieldError, Result};
use crate::payees::store as payees;

/// Blocks a payee for a reason, or lifts the block (`reason` says why); whoever is blocked is in no batch, and what is not sent
/// yet is canceled when its turn comes. Whoever is not blocked any more is paid what they missed for it, by the next sweep.
/// `false`: it was so before.
pub async fn block(db: &Db, payee: Uuid, blocked: bool, reason: &str, by: &By) -> Result<bool> {
    let mut tx = db.begin().await?;
    let Some(before) = store::lock_block(&mut tx, payee).await? else { return Err(Error::not_found("The payee")) };
    if before.is_some() == blocked {
        tx.rollback().await;
        return Ok(false);
    }
    let now = clock::now();
    store::block(&mut tx, payee, blocked.then_some(reason), now).await?;
    if !blocked {
        // Marked before items are locked, as whoever describes an account does it.
        payees::mark_cured(&mut tx, vec![payee]).await?;
        payees::retry_payouts_to_new_bank_of(&mut tx, payee, now).await?;
    }
    let act = Act {
        action: if blocked { "payee.block" } else { "payee.unblock" },
        subject: format!("payee:{payee}"),
        before: json!({ "blockedReason": before }),
        after: json!({ "blockedReason": blocked.then_some(reason), "reason": reason }),
    };
    audit::record(&mut tx, by, &act).await?;
    tx.commit(Boundary::SaveByRequest).await?;
    tracing::warn!(actor = by.actor, %payee, blocked, reason, "payee blocked or unblocked");
    Ok(true)
}

/// Takes creators into the beta and out of it, all or none; returns how many of each were new to it.
pub async fn change_beta(db: &Db, add: &[Uuid], remove: &[Uuid], by: &By) -> Result<(usize, usize)> {
    let mut tx = db.begin().await?;
    let unknown = store::unknown(&mut tx, add).await?;
    if !unknown.is_empty() {
        let place = |id: &Uuid| add.iter().position(|other| other == id).unwrap_or_default();
        let details = unknown
            .iter()
            .map(|id| FieldError { field: format!("add[{}]", place(id)), error: "is nobody whom Payday knows".to_owned() });
        return Err(Error::fields(details.collect()));
    }
    let added = store::set_beta(&mut tx, add, true).await?;
    let removed = store::set_beta(&mut tx, remove, false).await?;
    let counts = (added.len(), removed.len());
    if counts != (0, 0) {
        let act = Act {
            action: "beta.change",
            subject: "beta".to_owned(),
            before: json!({}),
            after: json!({ "added": added, "removed": removed }),
        };
        audit::record(&mut tx, by, &act).await?;
        tx.commit(Boundary::SaveByRequest).await?;
    }
    Ok(counts)
}

/// What a text may be the beginning of: an id, an email, an account.
pub fn search_for(text: &str) -> Search {
    let text = text.trim();
    if text.is_empty() {
        return Search::default();
    }
    let pattern = |text: &str| format!("{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    Search { ids: ids_like(text), email: Some(pattern(&text.to_lowercase())), account: Some(pattern(text)) }
}

/// The first and the last id that begin like this.
fn ids_like(text: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    if digits.len() > 32 || digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let filled = |with: &str| Uuid::try_parse(&format!("{digits}{}", with.repeat(32 - digits.len()))).ok();
    filled("0").zip(filled("f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_for_as_the_beginning_of_an_id_an_email_or_an_account_and_never_as_a_pattern() {
        let of = |text: &str| search_for(text);
        let low_high = |search: Search| search.ids.map(|(low, high)| (low.to_string(), high.to_string()));
        assert_eq!(
            low_high(of("c0de-0")),
            Some(("c0de0000-0000-0000-0000-000000000000".to_owned(), "c0de0fff-ffff-ffff-ffff-ffffffffffff".to_owned()))
        );
        assert_eq!(low_high(of("acct_1")), None);
        let all = of(" Ann_50%@X ");
        assert_eq!((all.email.as_deref(), all.account.as_deref()), (Some("ann\\_50\\%@x%"), Some("Ann\\_50\\%@X%")));
        assert_eq!(of("  "), Search::default());
    }
}
