//! Two persons for large sums: one proposes, another one says the same. Pure.
//!
//! A decision counts when two different operators have sent the same one. Who sends a different one proposes that instead, so
//! a proposal is withdrawn by making another.

use serde_json::Value;

use super::super::store::by_hand::Proposal;

/// What a decision amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Do it.
    Given,
    /// Kept until another operator sends the same.
    Proposed,
    /// Nobody confirms their own.
    Own,
}

/// `above_cents`: above how many hundredths of a unit two persons are asked for; 0: never.
pub fn consent(
    above_cents: i64,
    amount_micros: i64,
    open: Option<&Proposal>,
    action: &str,
    decision: &Value,
    actor: &str,
) -> Consent {
    if above_cents == 0 || amount_micros <= above_cents.saturating_mul(10_000) {
        return Consent::Given;
    }
    match open.filter(|open| open.action == action && open.decision == *decision) {
        None => Consent::Proposed,
        Some(open) if open.proposed_by == actor => Consent::Own,
        Some(_) => Consent::Given,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_different_persons_have_to_say_the_same_above_the_amount() {
        let open = Proposal {
            action: "resolve".to_owned(),
            decision: json!({ "outcome": "rejected" }),
            evidence: "seen".to_owned(),
            proposed_by: "one".to_owned(),
        };
        let (same, other) = (json!({ "outcome": "rejected" }), json!({ "outcome": "accepted" }));
        for (above_cents, open, action, decision, actor, expected) in [
            (0, None, "resolve", &same, "one", Consent::Given),
            (100, None, "resolve", &same, "one", Consent::Given),
            (99, None, "resolve", &same, "one", Consent::Proposed),
            (99, Some(&open), "resolve", &same, "one", Consent::Own),
            (99, Some(&open), "resolve", &same, "two", Consent::Given),
            (99, Some(&open), "resolve", &other, "two", Consent::Proposed),
            (99, Some(&open), "resolve", &other, "one", Consent::Proposed),
            (99, Some(&open), "adopt", &same, "two", Consent::Proposed),
        ] {
            let told = format!("{above_cents} {open:?} {action} {decision} {actor}");
            assert_eq!(consent(above_cents, 1_000_000, open, action, decision, actor), expected, "{told}");
        }
    }
}
