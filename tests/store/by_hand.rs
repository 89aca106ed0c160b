//! What operators decide about single payments: it is done once, the ledger follows, and the standing checks stay silent.

use std::time::Duration;

use chrono::Duration as Span;
use payday::audit::By;
use payday::config::Policy;
use payday::id::{ItemId, OperationId};
use payday::payouts::by_hand::decide::Verdict;
use payday::payouts::by_hand::{Decided, Desk};
use payday::payouts::item::Status;
use payday_local::stripe_double::{BankSpec, Fault, FaultRule, When};
use payday_tests::stage::{KEY, Stage, impatient};
use payday_tests::world::creator;

const LOG: &str = "select action, subject, outcome, after ->> 'status' from audit_log order by id";

/// An operator at the desk.
struct Operator {
    by: By,
    policy: Policy,
    two_person_above_cents: i64,
}

impl Operator {
    fn new(name: &str, stage: &Stage) -> Self {
        Self { by: By::new(name, "a request"), policy: stage.policy.clone(), two_person_above_cents: 0 }
    }

    fn desk<'a>(&'a self, stage: &'a Stage) -> Desk<'a> {
        let two_person_above_cents = self.two_person_above_cents;
        Desk { db: &stage.db, policy: &self.policy, two_person_above_cents, by: &self.by }
    }
}

fn refusal() -> Fault {
    Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true }
}

/// Creators 1 to 3 whose transfers were refused.
async fn refused() -> Stage {
    let stage = Stage::new().await;
    stage.double.fault(FaultRule::post("/v1/transfers", When::Always, refusal()));
    stage.crowd(3, 1_000).await;
    stage.finish().await;
    stage.double.clear_faults();
    assert_eq!(stage.statuses().await, "failed=3");
    stage
}

/// Creator 1 whose leg Stripe never answered for a day; creator 2 is paid.
async fn unresolved(leg: &str, executed: bool) -> Stage {
    let mut stage = Stage::new().await;
    stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(300));
    let fault = if executed { Fault::ExecuteThenHang } else { Fault::TimeoutBefore };
    stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::First(1), fault).for_account("acct_1"));
    stage.crowd(2, 1_000).await;
    stage.work().await;
    // The lookup of the 23rd hour is not answered well either: Stripe has forgotten our mark.
    stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Always, Fault::TimeoutBefore).for_account("acct_1"));
    stage.later(Span::hours(24)).await;
    if executed {
        stage.run("update payout_operations set state = 'unresolved', look_up = false where state = 'unknown'").await;
        stage
            .run("update payout_items set status = 'needs_review', due_at = null where status in ('transferring', 'paying_out')")
            .await;
    }
    stage.work().await;
    stage.double.clear_faults();
    assert_eq!(
        stage.row("select leg, state from payout_operations where state <> 'accepted'").await,
        format!("{leg} unresolved")
    );
    stage.world.audit().await;
    stage
}

#[tokio::test]
async fn a_failed_item_is_tried_again_once_however_often_it_is_pressed() {
    let stage = refused().await;
    let one = Operator::new("one", &stage);
    assert_eq!(one.desk(&stage).retry(ItemId(1), "cured").await.expect("retried"), Decided::Done(Status::Pending));
    assert_eq!(one.desk(&stage).retry(ItemId(1), "again").await.expect("under way"), Decided::Already(Status::Pending));
    stage.finish().await;
    assert_eq!(one.desk(&stage).retry(ItemId(1), "again").await.expect("under way"), Decided::Already(Status::InTransit));
    assert_eq!(
        stage.operations("1").await,
        ["transfer.1 rejected 1", "transfer.2 accepted 1", "payout.1 accepted 1"],
        "one attempt"
    );
    // Whoever may not be paid, and whose money is elsewhere.
    stage.run(format!("update payees set blocked_reason = 'odd' where id = '{}'", creator(2))).await;
    let refused = one.desk(&stage).retry(ItemId(2), "cured").await.expect_err("blocked");
    assert_eq!((refused.code, refused.message.contains("blocked")), ("NOT_ELIGIBLE", true));
    stage.run("update creator_payout_settings set schedule = 'manual'").await;
    stage.run(format!("update creator_payout_settings set schedule = 'semimonthly' where creator_id = '{}'", creator(3))).await;
    stage.cycle(payday::clock::Schedule::Semimonthly, "2026-12-01", 25).await;
    assert_eq!(one.desk(&stage).retry(ItemId(3), "cured").await.expect_err("superseded").code, "SUPERSEDED");
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(one.desk(&stage).retry(ItemId(1), "again").await.expect_err("paid").code, "NOT_RETRYABLE");
    assert_eq!(one.desk(&stage).retry(ItemId(99), "again").await.expect_err("nobody").code, "NOT_FOUND");
    assert_eq!(stage.rows(LOG).await, ["item.retry item:1 done pending"], "what was refused changed nothing");
    stage.audit().await;
}

#[tokio::test]
async fn a_refused_payout_is_sent_again_by_a_person_as_a_payout_and_never_as_a_transfer() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.finish().await;
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    stage.hear().await;
    assert_eq!(stage.statuses().await, "payout_blocked=1");
    // The bank account is another one, and no webhook has told of it.
    stage.double.update_account("acct_1", |account| {
        account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
    });
    let one = Operator::new("one", &stage);
    let desk = one.desk(&stage);
    assert_eq!(desk.retry(ItemId(1), "the bank was wrong").await.expect("due"), Decided::Done(Status::PayoutBlocked));
    assert_eq!(desk.retry(ItemId(1), "again").await.expect("due"), Decided::Already(Status::PayoutBlocked));
    stage.finish().await;
    assert_eq!(stage.operations("1").await, ["transfer.1 accepted 1", "payout.1 returned 1", "payout.2 accepted 1"]);
    assert_eq!((stage.statuses().await.as_str(), stage.double.transfers().len()), ("in_transit=1", 1));
    stage.audit().await;
}

#[tokio::test]
async fn what_was_paid_outside_is_closed_and_the_ledger_follows() {
    let stage = refused().await;
    let one = Operator::new("one", &stage);
    let desk = one.desk(&stage);
    // Failed, its money free again.
    assert_eq!(desk.adopt(ItemId(1), "wire 7", "the bank says so").await.expect("adopted"), Decided::Done(Status::Paid));
    assert_eq!(stage.balance(1, "usd").await, "paid_out=10000000");
    assert_eq!(desk.adopt(ItemId(1), "wire 7", "again").await.expect("known"), Decided::Already(Status::Paid));
    assert_eq!(desk.adopt(ItemId(1), "wire 8", "another").await.expect_err("paid").code, "NOT_ADOPTABLE");
    // Pending, its money set aside.
    desk.retry(ItemId(2), "cured").await.expect("retried");
    desk.adopt(ItemId(2), "wire 9", "the bank says so").await.expect("adopted");
    assert_eq!(stage.balance(2, "usd").await, "paid_out=10000000");
    // Failed, and a part of its money is not there any more: what is missing is debt.
    let dispute = "update creator_earnings set charge_id = 'ch_3' where creator_id =";
    stage.run(format!("{dispute} '{}'", creator(3))).await;
    let mut tx = stage.tx().await;
    payday::earnings::store::take_back(&mut tx, "dispute:dp_3", "ch_3", 300, "usd").await.expect("taken back");
    tx.commit(payday::boundary::Boundary::Outside).await.expect("a commit");
    assert_eq!(stage.balance(3, "usd").await, "available_platform=7000000");
    desk.adopt(ItemId(3), "cheque 3", "seen").await.expect("adopted");
    assert_eq!(stage.balance(3, "usd").await, "paid_out=10000000 debt=-3000000");
    assert_eq!(stage.rows("select right(creator_id::text, 1), status, adopted_reference, adopted_minor, paid_at is not null from payout_items order by id").await,
        ["1 paid wire 7 1000 true", "2 paid wire 9 1000 true", "3 paid cheque 3 1000 true"]);
    stage.finish().await;
    assert_eq!(stage.double.transfers().len(), 0, "nobody is paid twice");
    stage.world.audit().await;
}

#[tokio::test]
async fn what_may_still_be_paid_by_stripe_is_not_adopted() {
    let stage = unresolved("transfer", false).await;
    let one = Operator::new("one", &stage);
    assert_eq!(one.desk(&stage).adopt(ItemId(1), "wire", "seen").await.expect_err("open").code, "NOT_ADOPTABLE");
    assert_eq!(one.desk(&stage).adopt(ItemId(2), "wire", "seen").await.expect_err("in transit").code, "NOT_ADOPTABLE");
    assert_eq!(one.desk(&stage).retry(ItemId(1), "go on").await.expect_err("open").code, "RESOLVE_FIRST");
    assert_eq!(stage.count("audit_log").await, 0);
    stage.world.audit().await;
}

#[tokio::test]
async fn what_stripe_never_ran_is_resolved_as_rejected_and_can_be_sent_again() {
    for leg in ["transfer", "payout"] {
        let stage = unresolved(leg, false).await;
        let one = Operator::new("one", &stage);
        let desk = one.desk(&stage);
        let id = OperationId(stage.value("select id from payout_operations where state = 'unresolved'").await);
        let after = if leg == "transfer" { Status::Failed } else { Status::PayoutBlocked };
        assert_eq!(desk.resolve(id, &Verdict::Rejected, "not in the dashboard").await.expect("resolved"), Decided::Done(after));
        assert_eq!(desk.resolve(id, &Verdict::Rejected, "again").await.expect("so"), Decided::Already(after));
        stage.world.audit().await;
        desk.retry(ItemId(1), "send it").await.expect("retried");
        stage.finish().await;
        assert_eq!(stage.statuses().await, "in_transit=2", "{leg}");
        stage.audit().await;
    }
}

#[tokio::test]
async fn what_stripe_did_run_is_resolved_as_accepted_and_goes_on_from_there() {
    for leg in ["transfer", "payout"] {
        let stage = unresolved(leg, true).await;
        let one = Operator::new("one", &stage);
        let desk = one.desk(&stage);
        let id = OperationId(stage.value("select id from payout_operations where state = 'unresolved'").await);
        let object = if leg == "transfer" {
            stage.double.transfers().into_iter().find(|it| it.destination == "acct_1").expect("a transfer").id
        } else {
            stage.double.payouts().into_iter().find(|it| it.account == "acct_1").expect("a payout").id
        };
        let accepted = |stripe_id: &str| Verdict::Accepted { stripe_id: stripe_id.to_owned() };
        let other = stage
            .value::<String>(format!("select stripe_id from payout_operations where leg = '{leg}' and state = 'accepted'"))
            .await;
        assert_eq!(desk.resolve(id, &accepted(&other), "seen").await.expect_err("another's").code, "STRIPE_ID_TAKEN");
        assert_eq!(desk.resolve(id, &accepted("xx_1"), "seen").await.expect_err("no id of the leg").code, "VALIDATION_FAILED");
        desk.resolve(id, &accepted(&object), "seen in the dashboard").await.expect("resolved");
        let again = desk.resolve(id, &accepted(&object), "again").await.expect("known");
        assert!(matches!(again, Decided::Already(_)));
        assert_eq!(desk.resolve(id, &Verdict::Rejected, "no").await.expect_err("closed").code, "NOT_RESOLVABLE");
        assert_eq!(desk.resolve(OperationId(999), &Verdict::Rejected, "no").await.expect_err("nobody's").code, "NOT_FOUND");
        stage.finish().await;
        assert_eq!(stage.statuses().await, "in_transit=2", "{leg}");
        stage.audit().await;
    }
}

/// The object was there after all: whoever resolves it as rejected by mistake is caught before the next attempt.
#[tokio::test]
async fn a_mistaken_rejection_pays_nobody_twice() {
    let stage = unresolved("transfer", true).await;
    let one = Operator::new("one", &stage);
    let desk = one.desk(&stage);
    let id = OperationId(stage.value("select id from payout_operations where state = 'unresolved'").await);
    desk.resolve(id, &Verdict::Rejected, "overlooked").await.expect("resolved");
    for _ in 0..2 {
        desk.retry(ItemId(1), "send it").await.expect("retried");
        stage.later(Span::hours(1)).await;
        stage.finish().await;
        stage.run("update payout_batches set status = 'completed', halt_reason = null, completed_at = now()").await;
        assert_eq!(stage.statuses().await, "in_transit=1 needs_review=1");
    }
    let transfers = stage.double.transfers();
    assert_eq!(transfers.iter().filter(|it| it.destination == "acct_1").count(), 1, "looked up before it was sent");
    // What Stripe has done counts as paid: the money that was set aside leaves the books.
    desk.adopt(ItemId(1), &transfers[0].id, "it is in the dashboard").await.expect("adopted");
    assert_eq!(stage.balance(1, "usd").await, "paid_out=10000000");
    stage.world.audit().await;
}

#[tokio::test]
async fn large_sums_take_two_persons_who_say_the_same() {
    let stage = unresolved("transfer", false).await;
    let (mut one, mut two) = (Operator::new("one", &stage), Operator::new("two", &stage));
    (one.two_person_above_cents, two.two_person_above_cents) = (999, 999);
    let id = OperationId(stage.value("select id from payout_operations where state = 'unresolved'").await);
    let rejected = Verdict::Rejected;
    assert_eq!(one.desk(&stage).resolve(id, &rejected, "not there").await.expect("proposed"), Decided::Proposed);
    let own = one.desk(&stage).resolve(id, &rejected, "not there, really").await.expect_err("own");
    assert_eq!(own.code, "OWN_PROPOSAL");
    // Another opinion is another proposal.
    let accepted = Verdict::Accepted { stripe_id: "tr_seen".to_owned() };
    assert_eq!(two.desk(&stage).resolve(id, &accepted, "I see it").await.expect("proposed"), Decided::Proposed);
    assert_eq!(one.desk(&stage).resolve(id, &rejected, "not there").await.expect("proposed"), Decided::Proposed);
    assert_eq!(stage.statuses().await, "in_transit=1 needs_review=1", "nothing is done yet");
    assert_eq!(two.desk(&stage).resolve(id, &rejected, "right").await.expect("resolved"), Decided::Done(Status::Failed));
    assert_eq!(stage.count("operator_proposals").await, 0);
    assert_eq!(
        stage.rows("select action, actor, outcome from audit_log order by id").await,
        [
            "decision.propose one done",
            "operation.resolve one refused",
            "decision.propose two done",
            "decision.propose one done",
            "operation.resolve two done"
        ]
    );
    assert_eq!(one.desk(&stage).adopt(ItemId(1), "wire", "seen").await.expect("proposed"), Decided::Proposed);
    assert_eq!(two.desk(&stage).adopt(ItemId(1), "wire", "seen").await.expect("adopted"), Decided::Done(Status::Paid));
    stage.world.audit().await;
}

#[tokio::test]
async fn what_waited_too_long_for_its_connected_balance_goes_on_when_a_person_says_so() {
    let stage = Stage::new().await;
    stage.double.fault(FaultRule::post("/v1/payouts", When::Always, Fault::BalanceInsufficient));
    stage.crowd(1, 1_000).await;
    for _ in 0..40 {
        stage.work().await;
        stage.later(Span::hours(6)).await;
    }
    assert_eq!(stage.statuses().await, "needs_review=1");
    stage.double.clear_faults();
    let one = Operator::new("one", &stage);
    assert_eq!(one.desk(&stage).adopt(ItemId(1), "wire", "seen").await.expect_err("at stripe").code, "NOT_ADOPTABLE");
    let taken_up = one.desk(&stage).retry(ItemId(1), "there now").await.expect("taken up");
    assert_eq!(taken_up, Decided::Done(Status::AwaitingAvailable));
    stage.finish().await;
    assert_eq!((stage.statuses().await.as_str(), stage.double.transfers().len()), ("in_transit=1", 1));
    stage.audit().await;
}

/// Whoever finds a transfer that should not be there reverses it at Stripe, and Stripe tells of that before or after the decision.
#[tokio::test]
async fn a_transfer_that_was_given_back_and_resolved_as_rejected_is_available_once() {
    for told_first in [true, false] {
        let mut stage = Stage::new().await;
        stage.send_at_once(1);
        stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::WrongAmount).for_account("acct_1"));
        stage.crowd(1, 1_000).await;
        stage.work().await;
        assert_eq!(stage.row("select state from payout_operations").await, "frozen");
        let one = Operator::new("one", &stage);
        let rejected = async || {
            one.desk(&stage).resolve(OperationId(1), &Verdict::Rejected, "reversed in the dashboard").await.expect("resolved")
        };
        stage.double.reverse_transfer(&stage.double.transfers()[0].id, 1_000).expect("reversed");
        if told_first {
            stage.hear().await;
            assert_eq!(stage.balance(1, "usd").await, "in_flight=10000000", "a person decides");
            assert_eq!(rejected().await, Decided::Done(Status::Failed));
            stage.later(Span::hours(1)).await;
            assert_eq!(payday::stripe_events::retry_waiting(&stage.db, &stage.policy).await.expect("tried again"), 1);
        } else {
            assert_eq!(rejected().await, Decided::Done(Status::Failed));
            stage.hear().await;
        }
        assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000", "told first: {told_first}");
        assert_eq!(stage.count("stripe_events where type = 'transfer.reversed' and state = 'applied'").await, 1);
        stage.world.audit().await;
    }
}

#[tokio::test]
async fn a_payout_that_is_paid_after_somebody_said_it_was_rejected_waits_for_a_person() {
    let stage = unresolved("payout", true).await;
    let one = Operator::new("one", &stage);
    let id = OperationId(stage.value("select id from payout_operations where state = 'unresolved'").await);
    one.desk(&stage).resolve(id, &Verdict::Rejected, "overlooked").await.expect("resolved");
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=1 payout_blocked=1");
    assert_eq!(
        stage.rows("select state, object_id like 'a person: po_% is paid%' from stripe_events where account = 'acct_1' and type = 'payout.paid'").await,
        ["waiting true"]
    );
    stage.world.audit().await;
}

/// What is left open on the database, asked by another thread while this one, like a frozen Lambda, does nothing more.
fn left_open(stage: &Stage) -> i64 {
    let url = stage.database.url();
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let db = payday::db::Db::connect(&url, 1).expect("an address");
            let mut tx = db.begin().await.expect("a transaction");
            let statement = payday::db::query_as(
                "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%' and pid <> pg_backend_pid()",
            );
            let (open,): (i64,) = tx.one(statement).await.expect("an answer");
            open
        })
    });
    asked.join().expect("an answer")
}

#[tokio::test]
async fn a_decision_that_changes_nothing_gives_its_locks_back_before_it_answers() {
    let stage = refused().await;
    let one = Operator::new("one", &stage);
    let desk = one.desk(&stage);
    desk.adopt(ItemId(1), "wire 7", "seen").await.expect("adopted");
    stage.run(format!("update payees set blocked_reason = 'odd' where id = '{}'", creator(2))).await;
    let transfer = OperationId(1);
    assert!(matches!(desk.adopt(ItemId(1), "wire 7", "again").await, Ok(Decided::Already(_))));
    assert_eq!(left_open(&stage), 0, "adopted already");
    desk.adopt(ItemId(1), "wire 8", "another").await.expect_err("paid");
    assert_eq!(left_open(&stage), 0, "not adoptable");
    desk.retry(ItemId(2), "cured").await.expect_err("blocked");
    assert_eq!(left_open(&stage), 0, "not eligible");
    desk.resolve(transfer, &Verdict::Accepted { stripe_id: "tr_1".to_owned() }, "seen").await.expect_err("closed");
    assert_eq!(left_open(&stage), 0, "not resolvable");
    let sweeping = stage.sweeper().await;
    assert!(!sweeping.sweeper.retry_item(ItemId(2)).await.expect("stays failed"));
    assert_eq!(left_open(&stage), 0, "stays failed");
    assert!(!sweeping.sweeper.retry_item(ItemId(1)).await.expect("not failed"));
    assert_eq!(left_open(&stage), 0, "not failed");
    payday::payees::roster::block(&stage.db, creator(2), true, "odd", &one.by).await.expect("blocked before");
    assert_eq!(left_open(&stage), 0, "blocked already");
    payday::payouts::controls::resume_batch(&stage.db, payday::id::BatchId(1), "go on", &one.by).await.expect("not halted");
    assert_eq!(left_open(&stage), 0, "not halted");
}

#[tokio::test]
async fn whoever_only_looks_at_the_switches_waits_for_nobody_who_presses_them() {
    let stage = Stage::new().await;
    let mut pressing = stage.tx().await;
    payday::payouts::store::controls::lock(&mut pressing).await.expect("the switches");
    let looked = tokio::time::timeout(Duration::from_secs(5), payday::payouts::controls::suspended(&stage.db)).await;
    assert_eq!(looked.expect("at once").expect("an answer"), [""; 0]);
}
