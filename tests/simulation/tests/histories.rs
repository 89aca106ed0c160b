//! Whole histories, seed by seed: that no rule breaks, that everything was exercised, and that a broken rule is noticed.

use payday::payouts::item::Status;
use payday::payouts::operation::State;
use payday_simulation::counts::Counts;
use payday_simulation::planted::Planted;
use payday_simulation::{explain, history, many, run, shrink};

/// So many fit in half a minute of two cores in the profile of the tests.
const HISTORIES: u64 = 10_000;

#[test]
fn in_ten_thousand_histories_no_rule_breaks_and_everything_happens() {
    let lived = many::live(1, HISTORIES, &|_| ());
    if let Some((history, breach)) = &lived.failed {
        panic!("{}", explain(history, breach));
    }
    assert_eq!(lived.histories, HISTORIES);
    assert_everything_happened(&lived.counts);
}

fn assert_everything_happened(counts: &Counts) {
    let statuses = Status::ALL.iter().filter(|status| **status != Status::Transferred).map(|status| ("items", status.as_str()));
    let states = State::ALL.iter().map(|state| ("attempts", state.as_str()));
    let rest = [
        ("first sends", "accepted|rejected|not run|unknown|frozen"),
        ("replays", "accepted|rejected|unknown"),
        ("lookups", "found|nothing|no account|unanswered"),
        ("halted", "awaiting_funds|stripe_key_rejected|frozen_operation"),
        ("money", "earned on the platform|charged for an account|disputed|refunded|transfers reversed|debts at the end"),
        ("people", "blocked"),
        ("buttons", "pause|kill|resume|retry"),
        ("queue", "sent|lost"),
        ("webhooks", "late|never|doubled|repeated|waiting"),
        ("functions", "thawed"),
        ("troubles", "minutes|26 hours"),
        ("schedules", "fired|fired again"),
        (
            "events",
            "payout.created|payout.paid|payout.failed|payout.canceled|transfer.reversed|account.updated|account.application.deauthorized|\
             account.external_account.updated|payment_intent.succeeded|charge.refunded|charge.dispute.created",
        ),
        (
            "exclusions",
            "payouts_disabled|schedule_not_due|no_account|account_not_ready|blocked|unsettled_item|destination_cooloff|held|debt|below_minimum",
        ),
        (
            "stripe",
            "429|lock_timeout|503|connection refused|timeout before it was run|timeout after it was run|run after the caller gave up|\
             stored 500, not run|500 after it was run|truncated answer|answer with another amount|balance_insufficient|replayed from memory",
        ),
    ];
    let rest = rest.iter().flat_map(|(kind, names)| names.split('|').map(|name| (*kind, name)));
    let boundaries = [
        "claim chunk",
        "save replies and dispatch",
        "call stripe",
        "tell others",
        "release chunk",
        "create batches",
        "queue chunks",
        "take due chunks",
    ];
    let ends = ["killed before", "killed after", "frozen before", "database away", "answer lost"];
    let struck = boundaries.iter().flat_map(|boundary| ends.iter().map(move |end| (*end, *boundary)));
    let missing: Vec<_> =
        statuses.chain(states).chain(rest).chain(struck).filter(|(kind, name)| counts.of(kind, name) == 0).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{counts}");
}

#[test]
fn the_same_seed_is_the_same_history_and_ends_the_same() {
    for seed in 1..40 {
        let (one, other) = (history::of_seed(seed), history::of_seed(seed));
        assert_eq!(one, other);
        assert_eq!(run(&one, None).fingerprint, run(&other, None).fingerprint, "seed {seed}");
    }
    assert_ne!(run(&history::of_seed(1), None).fingerprint, run(&history::of_seed(2), None).fingerprint);
}

#[test]
fn a_rule_broken_on_purpose_is_noticed_and_shrunk_to_a_few_steps() {
    for (planted, rule) in [
        (Planted::FreshKeyPerSend, "one object per attempt"),
        (Planted::ReplayForTwoDays, "no replay past 23 hours"),
        (Planted::TimeoutIsRefusal, "what is closed has nothing live at Stripe"),
    ] {
        let caught = (1..400).map(history::of_seed).find_map(|history| {
            let breach = run(&history, Some(planted)).breach?;
            (breach.rule == rule).then_some(history)
        });
        let history = caught.unwrap_or_else(|| panic!("{planted:?} was not noticed by: {rule}"));
        let shrunk = shrink::shrink(&history, rule, Some(planted));
        assert!(
            shrunk.steps.len() <= 12,
            "{planted:?}: {} of {} steps\n{:#?}",
            shrunk.steps.len(),
            history.steps.len(),
            shrunk.steps
        );
        assert!(run(&shrunk, None).breach.is_none(), "{planted:?}: the engine itself is fine");
    }
}
