//! Accounts that are mended are paid what they missed: the same day, as of the cycle they missed, once.

use payday::clock::Schedule;
use payday::earnings::NewEarning;
use payday::id::RunId;
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::Stage;
use payday_tests::world::{at, create_batches, earning, ready_account};
use serde_json::json;

const NOVEMBER: &str = "2026-11-16T00:00:00Z";

/// Creators of whom the first is not ready, each with 10.00, after the cycle.
async fn after_a_cycle(creators: u128) -> Stage {
    let stage = Stage::new().await;
    stage.accounts(1..=creators);
    stage.creators(1..=creators).await;
    stage.record((1..=creators).map(|n| earning(&format!("e{n}"), n, 1_000)).collect()).await;
    closed(&stage, "2026-11-01T00:00:00Z").await;
    stage.batches().await;
    stage.finish().await;
    stage
}

/// Stripe closes the first account, and opens it again.
async fn closed(stage: &Stage, when: &str) {
    let mut account = ready_account("acct_1");
    account["payouts_enabled"] = json!(false);
    described(stage, account, when).await;
}

async fn opened(stage: &Stage, when: &str) {
    described(stage, ready_account("acct_1"), when).await;
}

async fn described(stage: &Stage, account: serde_json::Value, when: &str) {
    let event = json!({ "id": format!("evt_{when}"), "type": "account.updated", "account": "acct_1", "created": at(when).timestamp(), "livemode": false,
                        "data": { "object": account } });
    stage.take_in(&event).await;
}

/// Sweeps, makes the batches of the runs that were started by that, and pays. Returns how many were started.
async fn swept(stage: &Stage) -> usize {
    let (runs, _) = stage.sweeper().await.sweep().await;
    for body in &runs {
        let message: serde_json::Value = serde_json::from_str(body).expect("a message");
        let run = RunId(message["runId"].as_i64().expect("an id"));
        create_batches(&stage.world.database, &stage.policy, run, 25).await;
    }
    stage.finish().await;
    runs.len()
}

async fn runs(stage: &Stage) -> Vec<String> {
    stage
        .rows("select kind, case when kind = 'resume' then right(schedule, 1) else schedule end, cutoff_at = '2026-11-15 06:00Z' from payout_runs order by id")
        .await
}

#[tokio::test]
async fn who_becomes_ready_is_paid_what_the_cycle_would_have_paid_and_nothing_that_matured_since() {
    let stage = after_a_cycle(2).await;
    assert_eq!(stage.rows("select reason from payout_exclusions").await, ["account_not_ready"]);
    // Earned before the cycle and matured after it, which something has booked since.
    stage.record(vec![NewEarning { occurred_at: at("2026-11-10T00:00:00Z"), ..earning("later", 1, 300) }]).await;
    stage.mature(at("2026-11-20T00:00:00Z")).await;
    assert_eq!(swept(&stage).await, 0, "still closed");
    opened(&stage, NOVEMBER).await;
    assert_eq!(swept(&stage).await, 1);
    assert_eq!(runs(&stage).await, ["scheduled semimonthly true", "resume 1 true"]);
    assert_eq!(
        stage.rows("select right(creator_id::text, 1), status, amount_minor from payout_items order by id").await,
        ["2 in_transit 1000", "1 in_transit 1000"]
    );
    assert_eq!(stage.balance(1, "usd").await, "available_platform=3000000 at_stripe=10000000");
    assert_eq!(swept(&stage).await, 0);
    // Closed and opened again on the same day and on the next: there is nothing more of that cycle.
    for (day, when) in [("2026-11-17T00:00:00Z", "2026-11-17T01:00:00Z"), ("2026-11-18T00:00:00Z", "2026-11-18T01:00:00Z")] {
        closed(&stage, day).await;
        opened(&stage, when).await;
        stage.run("update payout_runs set cycle_on = cycle_on - 1 where kind = 'resume'").await;
        assert_eq!(swept(&stage).await, 0);
    }
    stage.audit().await;
}

#[tokio::test]
async fn a_day_has_one_resumed_run_of_a_payee() {
    let mut stage = after_a_cycle(1).await;
    stage.payer.policy.calendar.zone = "Pacific/Kiritimati".parse().expect("a zone");
    opened(&stage, NOVEMBER).await;
    assert_eq!(swept(&stage).await, 1);
    // More of the missed cycle turns up: a dispute was won, say.
    stage.double.settle_payouts();
    stage.hear().await;
    stage.record(vec![earning("found", 1, 2_000)]).await;
    stage.run("update stripe_accounts set cured_at = now()").await;
    assert_eq!(swept(&stage).await, 0, "not twice a day");
    // Where it is another day at every hour.
    stage.payer.policy.calendar.zone = "Pacific/Pago_Pago".parse().expect("a zone");
    stage.run("update stripe_accounts set cured_at = now()").await;
    assert_eq!(swept(&stage).await, 1, "but on the next");
    assert_eq!(stage.statuses().await, "in_transit=1 paid=1");
    stage.audit().await;
}

#[tokio::test]
async fn nobody_is_resumed_who_missed_nothing_or_still_cannot_be_paid() {
    for (name, change, expected) in [
        ("the setting is off", "", 0),
        ("paused", "update payout_controls set paused = true", 0),
        (
            "a schedule without cycles",
            "insert into creator_payout_settings (creator_id, schedule) select id, 'manual' from payees on conflict (creator_id) do update set schedule = 'manual'",
            0,
        ),
        ("excluded for something else", "update payout_exclusions set reason = 'below_minimum'", 0),
        ("no cycle yet", "delete from payout_exclusions", 0),
        (
            "disabled since",
            "insert into creator_payout_settings (creator_id, payout_enabled) select id, false from payees on conflict (creator_id) do update set payout_enabled = false",
            0,
        ),
        ("in its cool-off", "update stripe_accounts set destination_changed_at = now()", 0),
        ("had no account", "update payout_exclusions set reason = 'no_account'", 1),
        ("was blocked", "update payout_exclusions set reason = 'blocked'", 1),
        ("nothing of that", "select", 1),
    ] {
        let mut stage = after_a_cycle(1).await;
        if change.is_empty() {
            stage.world.policy.auto_resume = false;
            stage.payer.policy.auto_resume = false;
        } else {
            stage.run(change).await;
        }
        opened(&stage, NOVEMBER).await;
        assert_eq!(swept(&stage).await, expected, "{name}");
        assert_eq!(runs(&stage).await.len(), 1 + expected, "{name}");
        stage.world.audit().await;
    }
}

#[tokio::test]
async fn refused_payments_are_taken_up_again_when_their_account_is_mended_and_never_by_a_second_transfer() {
    for leg in ["/v1/transfers", "/v1/payouts"] {
        let stage = Stage::new().await;
        let refusal =
            Fault::Error { status: 400, code: "payouts_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
        stage.double.fault(FaultRule::post(leg, When::Nth(1), refusal));
        stage.crowd(1, 1_000).await;
        stage.finish().await;
        let refused = if leg == "/v1/transfers" { "failed=1" } else { "payout_blocked=1" };
        assert_eq!(stage.statuses().await, refused);
        closed(&stage, NOVEMBER).await;
        assert_eq!(swept(&stage).await, 0);
        assert_eq!(stage.statuses().await, refused, "not while it is closed");
        opened(&stage, "2026-11-16T01:00:00Z").await;
        assert_eq!(swept(&stage).await, 0, "no run: the item itself goes on");
        assert_eq!((stage.statuses().await.as_str(), stage.double.transfers().len()), ("in_transit=1", 1), "{leg}");
        stage.audit().await;
    }
}

#[tokio::test]
async fn what_a_bank_sent_back_waits_for_another_bank_whatever_becomes_of_the_account() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    stage.hear().await;
    closed(&stage, NOVEMBER).await;
    opened(&stage, "2026-11-16T01:00:00Z").await;
    swept(&stage).await;
    assert_eq!((stage.statuses().await.as_str(), stage.double.payouts().len()), ("payout_blocked=1", 1));
    stage.audit().await;
}

#[tokio::test]
async fn sweeps_at_once_and_a_cycle_beside_them_pay_once() {
    let stage = after_a_cycle(1).await;
    opened(&stage, NOVEMBER).await;
    let (one, two) = (stage.sweeper().await, stage.sweeper().await);
    let (first, second) = futures::join!(one.sweep(), two.sweep());
    assert!(first.0.len() + second.0.len() >= 1);
    let (resumed,): (i64,) = stage.all("select id from payout_runs where kind = 'resume'").await.remove(0);
    let resume = create_batches(&stage.world.database, &stage.policy, RunId(resumed), 25);
    let cycle = stage.cycle(Schedule::Semimonthly, "2026-12-01", 25);
    futures::join!(resume, cycle);
    stage.finish().await;
    assert_eq!(stage.double.transfers().len(), 1);
    assert_eq!(stage.balance(1, "usd").await, "at_stripe=10000000");
    stage.audit().await;
}

#[tokio::test]
async fn a_refused_withdrawal_is_not_taken_up_again_because_the_account_is_mended() {
    let stage = Stage::new().await;
    stage.accounts(1..=1);
    stage.creators(1..=1).await;
    stage.record(vec![earning("e", 1, 10_000)]).await;
    stage.mature(at("2026-11-20T00:00:00Z")).await;
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), refusal));
    let queues = payday_tests::queues::QueueServer::start(&["create-batch", "process-chunk"]).await;
    let asked = payday::withdrawals::Withdrawal::new(payday_tests::world::creator(1), 1_000, &stage.policy).expect("tokens");
    let on_demand = payday::config::Withdrawals::OnDemand;
    let queue = queues.client("create-batch");
    let request = payday::withdrawals::request(&stage.db, &queue, &stage.policy, on_demand, &asked, None).await.expect("asked");
    let chunks = queues.client("process-chunk");
    payday::withdrawals::make_batch(&stage.db, &chunks, &stage.policy, request.id).await.expect("a batch");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "failed=1");
    closed(&stage, NOVEMBER).await;
    opened(&stage, "2026-11-16T01:00:00Z").await;
    swept(&stage).await;
    assert_eq!(stage.statuses().await, "failed=1", "its creator has the money back and asks anew");
    assert_eq!(stage.rows("select status from withdrawal_requests").await, ["failed"]);
    assert_eq!(stage.double.transfers().len(), 0);
    stage.audit().await;
}

#[tokio::test]
async fn a_refused_payout_waits_for_a_confirmed_bank_and_for_the_end_of_a_block_when_the_account_is_mended() {
    for (name, change, expected) in [
        ("as it was", "select", "in_transit=1"),
        ("blocked", "update payees set blocked_reason = 'odd'", "payout_blocked=1"),
        (
            "another bank",
            "update stripe_accounts set destination_changed_at = now() - interval '80 hours', destination = 'another'",
            "payout_blocked=1",
        ),
        (
            "another bank that somebody has looked at",
            "update stripe_accounts set destination_changed_at = now() - interval '80 hours', confirmed_destination = destination",
            "in_transit=1",
        ),
    ] {
        let mut stage = Stage::new().await;
        stage.world.policy.two_person_above_cents = 500;
        stage.payer.policy = stage.world.policy.clone();
        let refusal =
            Fault::Error { status: 400, code: "payouts_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
        stage.double.fault(FaultRule::post("/v1/payouts", When::Nth(1), refusal));
        stage.crowd(1, 1_000).await;
        stage.finish().await;
        assert_eq!(stage.statuses().await, "payout_blocked=1");
        closed(&stage, NOVEMBER).await;
        stage.run(change).await;
        stage.run("update stripe_accounts set cured_at = now()").await;
        swept(&stage).await;
        assert_eq!(stage.statuses().await, expected, "{name}");
        stage.audit().await;
    }
}

/// Both lock the account before its items.
#[tokio::test]
async fn a_sweep_and_an_event_about_the_same_account_never_wait_for_each_other_in_a_circle() {
    let stage = Stage::new().await;
    let refusal = Fault::Error { status: 400, code: "payouts_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    stage.double.fault(FaultRule::post("/v1/payouts", When::Nth(1), refusal));
    stage.crowd(1, 1_000).await;
    stage.finish().await;
    stage.run("update stripe_accounts set cured_at = now()").await;
    let sweeping = stage.sweeper().await;
    let event = async {
        let mut tx = stage.tx().await;
        payday::payees::store::by_account(&mut tx, "acct_1").await.expect("locked").expect("the account");
        while stage.count("pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let payee = payday_tests::world::creator(1);
        payday::payees::store::retry_payouts_of(&mut tx, &[payee], payday::clock::now()).await.expect("no circle");
        tx.commit(payday::boundary::Boundary::Outside).await.expect("a commit");
    };
    futures::join!(sweeping.sweep(), event);
    stage.finish().await;
    assert_eq!((stage.statuses().await.as_str(), stage.double.payouts().len()), ("in_transit=1", 1));
    stage.audit().await;
}
