//! Pause, kill switch, circuit breaker: what is in flight finishes, nothing new starts, nothing is lost.

use std::time::{Duration, Instant};

use payday_tests::gate::{At, Gate};
use payday_tests::http::request;
use payday_tests::system::{Setup, System};
use payday_tests::world::{account_of, at, creator};
use serde_json::{Value as Json, json};

use crate::abuse;

/// An operator presses a button.
async fn press(system: &System, button: &str) -> Json {
    let body = json!({ "reason": "to see that it stops" }).to_string();
    let (bearer, kind) = (abuse::operator(), "application/json");
    let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
    let answer = request(&system.stack.http_url, "POST", button, &headers, body).await;
    assert_eq!(answer.status, 200, "{button}: {answer:?}");
    answer.json()
}

async fn stopped_in_the_middle(button: &str) -> System {
    let system = Setup::of(40)
        .setting("CHUNK_SIZE", 10)
        .setting("SENDS_PER_WORKER", 1)
        .double(|double| double.latency_ms = 80)
        .start()
        .await;
    system.fire().await;
    system.see("the run is in the middle", || system.executed("POST /v1/transfers") >= 8).await;
    press(&system, button).await;
    let stopped_at = Instant::now();
    system.idle().await;
    // Seen from outside: the last request came within the second.
    let calls = system.double.counts().calls;
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(system.double.transfers().len() < 40, "it was stopped in the middle");
    assert_eq!(system.database.count("payout_operations where state = 'dispatched'").await, 0, "what was in flight has finished");
    // Nothing starts while it is on: no sweep, no message, no schedule.
    system.sweep().await;
    let pay_day = at("2026-11-01T06:00:00Z");
    let fired = system.stack.fire("payout-semimonthly", pay_day).await.expect_err("its schedule is off");
    assert!(fired.to_string().contains("disabled"), "{fired}");
    let input = json!({ "schedule": "semimonthly", "scheduledTime": pay_day });
    system.stack.invoke("cron-trigger", input).await.unwrap_or_else(|error| panic!("{error}"));
    let chunks: Vec<(i64,)> = system.database.all("select id from payout_chunks").await;
    for (chunk,) in chunks {
        let again = serde_json::json!({ "type": "payout.process-chunk", "chunkId": chunk }).to_string();
        system.stack.queues.send("ProcessChunkQueue", &again).expect("queued");
    }
    system.idle().await;
    assert_eq!(system.double.counts().calls, calls, "nothing new starts");
    assert_eq!(system.database.count("payout_runs").await, 1);
    let schedule = system.get("/internal/payouts/health").await.json()["checks"]["schedule"].clone();
    assert_eq!((&schedule["ok"], &schedule["armed"]), (&json!(false), &json!(false)), "{schedule}");
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_stops_sends_within_a_second_and_resume_continues() {
    let system = stopped_in_the_middle("/internal/payouts/kill").await;
    let resumed = press(&system, "/internal/payouts/resume").await;
    assert_eq!((&resumed["mirrored"], &resumed["suspendedSchedules"]), (&json!(true), &json!([])), "{resumed}");
    assert_eq!(system.get("/internal/payouts/health").await.json()["checks"]["schedule"]["armed"], true);
    system.sweep().await;
    system.drain().await;
    assert_eq!(system.database.count("payout_operations where attempt > 1").await, 0);
    system.ends("paid=40").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_keeps_what_was_not_sent_set_aside_and_resume_continues() {
    let system = stopped_in_the_middle("/internal/payouts/pause").await;
    let money = "select (select sum(reserved_platform + in_flight)::bigint / 10000 from payee_balances),
                        (select sum(transfer_minor)::bigint from payout_items where status in ('pending', 'transferring'))";
    let money: Vec<(i64, i64)> = system.database.all(money).await;
    assert!(money[0].0 > 0 && money[0].0 == money[0].1, "{money:?}");
    press(&system, "/internal/payouts/resume").await;
    system.ends("paid=40").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_no_longer_qualifies_when_it_is_their_turn_is_canceled_and_released() {
    let system = Setup::of(6).start().await;
    // The batch is made, and its only chunk has not been looked at.
    let mut gate = Gate::close(&system.database, At::Update, "payout_chunks").await;
    system.fire().await;
    gate.reached().await;
    let first = |n: u128| format!("creator_id = '{}'", creator(n));
    system
        .database
        .run(format!(
            "insert into creator_payout_settings (creator_id, payout_enabled) values ('{}', false)
        on conflict (creator_id) do update set payout_enabled = false",
            creator(1)
        ))
        .await;
    system.double.update_account(&account_of(2), |account| account.payouts_enabled = false);
    system.until("the webhook is in", "select count(*) = 1 from stripe_events").await;
    gate.open().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "canceled=2 in_transit=4");
    for (n, reason) in [(1, "payouts_disabled"), (2, "account_not_ready")] {
        assert_eq!(system.database.rows(&format!("select reason from payout_exclusions where {}", first(n))).await, [reason]);
    }
    let free = "select sum(available_platform)::bigint / 10000 from payee_balances";
    assert_eq!(system.database.value::<i64>(free).await, 2_001 + 2_002);
    system.ends("canceled=2 paid=4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_contradict_themselves_stop_the_batch_until_a_person_resumes_it() {
    let system = Setup::of(6).setting("CHUNK_SIZE", 2).start().await;
    let post = |event: &str, from: &str, to: &str| {
        format!(
            "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
             select '{event}', 'x', payee_id, currency, '{from}', '{to}', 7 from payee_balances order by payee_id limit 1"
        )
    };
    system.database.run(post("planted", "earnings", "in_flight")).await;
    system.fire().await;
    system.idle().await;
    let batch = "select status, halt_reason from payout_batches";
    assert_eq!(system.database.row(batch).await, "halted standing_check");
    system.sweep().await;
    system.idle().await;
    assert_eq!(system.database.row(batch).await, "halted standing_check", "nothing goes on by itself");
    let health = async || system.get("/internal/payouts/health").await.json()["checks"]["standingChecks"].clone();
    let told = health().await;
    assert_eq!((&told["ok"], &told["breached"][0]["check"]), (&json!(false), &json!("in_flight_is_open_transfers")), "{told}");

    system.database.run(post("mended", "in_flight", "earnings")).await;
    system.job("verify").await;
    let told = health().await;
    assert_eq!((&told["ok"], told["verifiedAt"].is_string()), (&json!(true), true), "{told}");
    assert_eq!(press(&system, "/internal/payouts/batches/1/resume").await["changed"], true);
    system.sweep().await;
    assert_eq!(system.database.count("outbox where kind = 'standing_check_breached'").await, 1);
    system.ends("paid=6").await;
}
