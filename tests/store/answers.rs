//! Every answer of Stripe to a send, on both legs, on a real database: what has become of the attempt and the item when all is
//! said. Nobody is paid twice by any of them.

use std::time::Duration;

use payday::boundary::Boundary;
use payday::id::BatchId;
use payday::payouts::store::jobs;
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::{KEY, Stage, impatient};
use payday_tests::world::{account_of, creator};

/// What the first send of a leg meets, and the only attempt of that leg in the end: its state and how often it was sent.
struct Case {
    fault: Fault,
    wanted: &'static str,
}

fn case(fault: Fault, wanted: &'static str) -> Case {
    Case { fault, wanted }
}

fn cases() -> Vec<Case> {
    vec![
        case(Fault::Slow { ms: 1 }, "accepted 1"),
        case(Fault::UnknownEnum, "accepted 1"),
        // Never run, and nobody knows: the replay runs it.
        case(Fault::TimeoutBefore, "accepted 2"),
        case(Fault::ResetBefore, "accepted 2"),
        case(Fault::Html { status: 502 }, "accepted 2"),
        case(Fault::Html { status: 503 }, "accepted 2"),
        case(Fault::Html { status: 504 }, "accepted 2"),
        case(Fault::KeyInUse, "accepted 2"),
        // Looked up, not found, then sent again under the same key.
        case(Fault::Error500Before, "accepted 2"),
        // Run, and nobody knows: the replay is answered from Stripe's memory.
        case(Fault::ExecuteThenHang, "accepted 2"),
        case(Fault::ExecuteThenReset, "accepted 2"),
        case(Fault::ExecuteThenHtml { status: 502 }, "accepted 2"),
        case(Fault::Truncated, "accepted 2"),
        case(Fault::Garbage, "accepted 2"),
        case(Fault::MissingField { name: "amount".to_owned() }, "accepted 2"),
        // Run, and Stripe remembers an error: only a lookup tells.
        case(Fault::ExecuteThen500, "accepted 1"),
        // Definitely not run: the same attempt goes out again.
        case(Fault::RateLimited { reason: "endpoint-rate".to_owned(), retry_after: None }, "accepted 2"),
        case(Fault::LockTimeout, "accepted 2"),
        // Definitely refused.
        case(refusal(400, "parameter_invalid_integer"), "rejected 1"),
        case(refusal(400, "payouts_not_allowed"), "rejected 1"),
        case(Fault::NotFound, "rejected 1"),
        case(Fault::AccountInvalid, "rejected 1"),
    ]
}

fn refusal(status: u16, code: &str) -> Fault {
    Fault::Error { status, code: code.to_owned(), message: "no".to_owned(), stored: true }
}

async fn check(leg: &str, refused: &str) {
    let cases = cases();
    let count = u128::try_from(cases.len()).expect("small");
    let mut stage = Stage::new().await;
    stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(400));
    for (n, case) in (1..).zip(&cases) {
        let rule = FaultRule::post(&format!("/v1/{leg}s"), When::Nth(1), case.fault.clone());
        stage.double.fault(rule.for_account(&account_of(n)));
    }
    stage.crowd(count, 1_000).await;
    stage.work().await;
    // Some are over and some in doubt: the standing checks hold in between as well.
    stage.world.audit().await;
    stage.audit_double();

    stage.finish().await;
    for (n, case) in (1..).zip(&cases) {
        let of = format!("select id from payout_items where creator_id = '{}'", creator(n));
        let attempts = stage
            .rows(&format!("select attempt, state, sends from payout_operations where item_id = ({of}) and leg = '{leg}'"))
            .await;
        assert_eq!(attempts, [format!("1 {}", case.wanted)], "{:?}", case.fault);
        let status = stage.row(&format!("select status from payout_items where id = ({of})")).await;
        assert_eq!(status, if case.wanted.starts_with("accepted") { "in_transit" } else { refused }, "{:?}", case.fault);
    }
    let faults = stage.double.faults();
    assert!(faults.iter().all(|it| it.fired == 1), "each fault was met once");
    let blocked = stage.rows("select id, blocked_reason from payees where blocked_reason is not null order by id").await;
    let no_account: Vec<String> = (1..)
        .zip(&cases)
        .filter(|(_, case)| matches!(case.fault, Fault::NotFound | Fault::AccountInvalid))
        .map(|(n, _)| format!("{} Stripe does not know the account", creator(n)))
        .collect();
    assert_eq!(blocked, no_account);
    assert_eq!(stage.row("select status, halt_reason from payout_batches").await, "completed -", "the batch goes on");
    stage.audit().await;
}

#[tokio::test]
async fn each_answer_to_a_transfer_leads_to_one_transfer_or_none() {
    check("transfer", "failed").await;
}

#[tokio::test]
async fn each_answer_to_a_payout_leads_to_one_payout_or_none() {
    check("payout", "payout_blocked").await;
}

#[tokio::test]
async fn a_refused_transfer_gives_the_money_back_and_a_refused_payout_leaves_it_at_stripe() {
    for (leg, status, balance) in
        [("transfer", "failed", "available_platform=10000000"), ("payout", "payout_blocked", "at_stripe=10000000")]
    {
        let stage = Stage::new().await;
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Always, refusal(400, "payouts_not_allowed")));
        stage.crowd(1, 1_000).await;
        stage.finish().await;
        assert_eq!(
            stage.row("select status, failure_code, failure_reason from payout_items").await,
            format!("{status} payouts_not_allowed no")
        );
        assert_eq!(stage.balance(1, "usd").await, balance);
        stage.audit().await;
    }
}

#[tokio::test]
async fn a_halt_that_ends_by_itself_gives_way_to_one_that_needs_a_person_and_never_the_other_way_round() {
    for passing in ["awaiting_funds", "stripe_key_rejected"] {
        let stage = Stage::new().await;
        stage.crowd(1, 1_000).await;
        let batch = BatchId(stage.value("select id from payout_batches").await);
        let mut tx = stage.tx().await;
        for (reason, halted) in [(passing, 1), ("frozen_operation", 1), (passing, 0)] {
            assert_eq!(jobs::halt(&mut tx, batch, reason).await.expect("asked"), halted, "{passing}: {reason}");
        }
        tx.commit(Boundary::Outside).await.expect("a commit");
        assert_eq!(stage.row("select halt_reason from payout_batches").await, "frozen_operation");
    }
}

#[tokio::test]
async fn an_answer_that_contradicts_what_was_asked_freezes_the_attempt_and_halts_the_batch() {
    for (leg, fault) in [
        ("transfer", Fault::WrongAmount),
        ("transfer", Fault::WrongDestination),
        ("transfer", Fault::WrongCurrency),
        ("payout", Fault::WrongAmount),
        ("payout", Fault::WrongCurrency),
    ] {
        let mut stage = Stage::new().await;
        // One after the other, so that there is something left to halt.
        stage.send_at_once(1);
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Nth(1), fault.clone()).for_account("acct_1"));
        stage.crowd_in_chunks(3, 1_000, 1).await;
        stage.work().await;
        assert_eq!(stage.statuses().await, "needs_review=1 pending=2", "{leg} {fault:?}");
        assert_eq!(stage.row("select status, halt_reason from payout_batches").await, "halted frozen_operation");
        assert_eq!(
            stage.row("select state, sends, stripe_id is not null, unknown_since is not null from payout_operations order by id desc limit 1").await,
            "frozen 1 true true"
        );
        let sent = stage.calls("POST", "/v1/").len();
        stage.later(chrono::Duration::days(2)).await;
        stage.work().await;
        assert_eq!(stage.calls("POST", "/v1/").len(), sent, "nothing of a halted batch is sent");
        assert_eq!(stage.rows("select kind from outbox order by kind").await, ["batch_halted", "item_needs_a_person"]);
        // A person has looked: the others go on, the frozen one stays.
        let mut tx = stage.tx().await;
        assert_eq!(jobs::resume(&mut tx, "frozen_operation").await.expect("resumed"), 1);
        tx.commit(Boundary::Outside).await.expect("a commit");
        stage.finish().await;
        assert_eq!(stage.statuses().await, "in_transit=2 needs_review=1");
        stage.world.audit().await;
        stage.audit_double();
    }
}

#[tokio::test]
async fn a_key_that_stripe_knows_with_other_parameters_freezes_the_attempt() {
    let stage = Stage::new().await;
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::ExecuteThenReset));
    stage.crowd(1, 1_000).await;
    stage.work().await;
    stage.run("update payout_operations set request_body = replace(request_body, 'amount=1000', 'amount=1001')").await;
    stage.later(chrono::Duration::seconds(2)).await;
    stage.work().await;
    assert_eq!(stage.row("select state, code from payout_operations").await, "frozen idempotency_error");
    assert_eq!(stage.statuses().await, "needs_review=1");
    assert_eq!(stage.row("select halt_reason from payout_batches").await, "frozen_operation");
    assert_eq!(stage.double.transfers().len(), 1);
    stage.world.audit().await;
}

#[tokio::test]
async fn a_429_slows_every_worker_down_for_a_while() {
    let stage = Stage::new().await;
    let limited = Fault::RateLimited { reason: "global-rate".to_owned(), retry_after: None };
    stage.double.fault(FaultRule::post("/v1/transfers", When::First(3), limited));
    stage.crowd(10, 1_000).await;
    stage.work().await;
    assert_eq!(stage.statuses().await, "in_transit=10");
    assert_eq!(stage.row("select max(attempt) from payout_operations").await, "1", "no attempt is used up");
    let budget = "select slowed_by, slowed_at > now() - interval '1 minute' from rate_budgets where endpoint = 'transfers'";
    assert_eq!(stage.row(budget).await, "2 true", "a burst of refusals counts once");
    assert_eq!(stage.row("select slowed_by from rate_budgets where endpoint = 'payouts'").await, "1", "payouts are not slowed");
    // The second that everyone waits, and then slots apart from each other.
    let sends = stage.calls("POST", "/v1/transfers");
    let gap = sends[10].at_ms - sends[9].at_ms;
    assert!(gap >= 800, "{gap} ms until the first is sent again");
    stage.audit().await;
}
