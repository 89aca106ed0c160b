//! `kill -9` of every function at each moment that matters: the run goes on to its end, nobody is paid twice.

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, Utc};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::gate::{At, Gate};
use payday_tests::system::{Setup, System};
use payday_tests::world::at;

/// The cut-offs of the semimonthly cycles from February on.
fn cycles() -> impl Iterator<Item = DateTime<Utc>> {
    let first = at("2026-02-01T06:00:00Z");
    (0..8).flat_map(move |months| {
        let first = first + Months::new(months);
        [first, first.with_day(15).expect("every month has one")]
    })
}

/// Who is killed, and where it stands then.
const MOMENTS: [(&str, At, &str, &str); 14] = [
    ("cron-trigger", At::Insert, "payout_runs", "before the run is there"),
    ("cron-trigger", At::CommitOfInsert, "payout_runs", "in the commit of the run, before it is queued"),
    ("batch-creator", At::Insert, "payout_items", "in the middle of making the batches"),
    ("batch-creator", At::CommitOfInsert, "payout_items", "in the commit of the batches"),
    ("batch-creator", At::Update, "payout_chunks", "after the commit of the batches, before their chunks are queued"),
    ("chunk-processor", At::Update, "payout_chunks", "before it has the chunk"),
    ("chunk-processor", At::Insert, "payout_operations", "after the money was reserved, before the dispatch is committed"),
    ("chunk-processor", At::CommitOfInsert, "payout_operations", "in the commit of the dispatch, before the send"),
    ("chunk-processor", At::InsertOf("new.leg = 'arrive'"), "ledger_transfers", "after the transfer, before our commit says so"),
    ("chunk-processor", At::UpdateTo("new.status = 'in_transit'"), "payout_items", "after the payout, before our commit says so"),
    ("chunk-processor", At::CommitOfUpdate, "payout_operations", "in the commit of what Stripe answered"),
    ("webhook-receiver", At::Insert, "stripe_events", "before the event is stored"),
    ("webhook-receiver", At::UpdateTo("true"), "stripe_events", "before what the event did is committed"),
    ("webhook-receiver", At::CommitOfInsert, "stripe_events", "in the commit of what the event did, before the answer"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_function_killed_at_any_moment_is_followed_by_one_that_finishes_the_work() {
    let system = Setup::of(4).start().await;
    for ((cycle, (function, moment, table, what)), number) in cycles().zip(MOMENTS).zip(1..) {
        if number > 1 {
            system.earn(what, 1..=4).await;
        }
        let mut gate = Gate::close(&system.database, moment, table).await;
        let scheduler = system.stack.scheduler.clone();
        let fired = tokio::spawn(async move { scheduler.fire("payout-semimonthly", cycle).await });
        gate.reached().await;
        assert!(!system.stack.kill(function).is_empty(), "{function} {what}");
        gate.open().await;
        // The Scheduler's first attempt fails with the function it started, and is repeated.
        assert_eq!(fired.await.expect("fired").is_err(), function == "cron-trigger", "{function} {what}");
        system.drain().await;
        assert_eq!(system.statuses().await, format!("in_transit={}", number * 4), "{function} {what}");
        assert_eq!(system.double.transfers().len(), number * 4, "{function} {what}");
    }
    let crashes: u64 = system.stack.lambda.counters().values().map(|counters| counters.crashes).sum();
    assert!(crashes >= 14, "{crashes}");
    let paid = format!("paid={}", MOMENTS.len() * 4);
    system.ends(&paid).await;
}

/// Kills the chunk processors once so many requests to the endpoint have come, and lets everything come to its end.
async fn killed_in_the_middle_of_sending(endpoint: &str, fault: Fault) -> System {
    let path = endpoint.strip_prefix("POST ").expect("a path");
    let system = Setup::of(6).fault(FaultRule::post(path, When::First(5), fault)).start().await;
    system.fire().await;
    system.see("five requests without an answer", || system.called(endpoint) >= 5).await;
    // The third and last of what a worker sends at once may still be on its way to the double, which makes no difference.
    assert!(!system.stack.kill("chunk-processor").is_empty());
    system.drain().await;
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_dispatch_before_stripe_runs_it_the_same_request_is_sent_again() {
    for endpoint in ["POST /v1/transfers", "POST /v1/payouts"] {
        let system = killed_in_the_middle_of_sending(endpoint, Fault::TimeoutBefore).await;
        let calls: Vec<_> = system.double.calls().into_iter().filter(|call| call.endpoint == endpoint).collect();
        assert!(calls.iter().all(|call| !call.replayed), "nothing had run");
        assert_eq!(calls.iter().filter(|call| call.executed).count(), 6);
        assert!(calls.len() > 6, "five were sent twice");
        system.ends("paid=6").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_stripe_ran_it_before_our_commit_the_same_request_finds_what_it_made() {
    for endpoint in ["POST /v1/transfers", "POST /v1/payouts"] {
        let system = killed_in_the_middle_of_sending(endpoint, Fault::ExecuteThenHang).await;
        let calls: Vec<_> = system.double.calls().into_iter().filter(|call| call.endpoint == endpoint).collect();
        assert_eq!(calls.iter().filter(|call| call.executed).count(), 6);
        let replayed = calls.iter().filter(|call| call.replayed).count();
        // A webhook may tell of a payout before anybody asks again.
        assert!(replayed == 5 || endpoint == "POST /v1/payouts", "{replayed} replayed");
        system.ends("paid=6").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_killed_while_it_queues_chunks_again_loses_none() {
    let system = Setup::of(6).start().await;
    // The chunk's message is lost with its worker.
    let mut gate = Gate::close(&system.database, At::Insert, "payout_operations").await;
    system.fire().await;
    gate.reached().await;
    system.stack.kill("chunk-processor");
    gate.open().await;
    system.idle().await;
    system.later(Duration::from_secs(31)).await;
    let mut gate = Gate::close(&system.database, At::Update, "payout_chunks").await;
    let host = system.stack.lambda.clone();
    let sweep = serde_json::json!({ "job": "sweep", "pace": { "quietSeconds": 0, "askStripe": true } });
    let swept = tokio::spawn(async move { host.invoke("scheduled-jobs", &sweep).await });
    gate.reached().await;
    system.stack.kill("scheduled-jobs");
    gate.open().await;
    assert!(swept.await.expect("swept").is_err());
    system.ends("paid=6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_killed_before_its_commit_tells_nobody_twice_and_says_that_it_does_not_know() {
    let system = Setup::of(1).start().await;
    system.fire().await;
    system.idle().await;
    let message: i64 = system.database.value("select id from outbox where kind = 'run_completed'").await;
    let mut gate = Gate::close(&system.database, At::Update, "outbox").await;
    let hint = serde_json::json!({ "type": "notification", "outboxId": message }).to_string();
    system.stack.queues.send("NotificationQueue", &hint).expect("queued");
    gate.reached().await;
    assert!(!system.stack.kill("notifier").is_empty());
    gate.open().await;
    system.drain().await;
    let ways = system.database.rows("select channel, state from outbox_deliveries order by channel, recipient").await;
    assert_eq!(ways, ["email unsure", "email unsure", "slack unsure"]);
    assert_eq!((system.post_office.posts().len(), system.post_office.mails().len()), (1, 2), "each was told once");
    system.ends("paid=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_which_everybody_is_killed_again_and_again_pays_everybody_once() {
    let system = Setup::of(40).double(|double| double.latency_ms = 10).start().await;
    system.fire().await;
    let victims = ["chunk-processor", "webhook-receiver", "scheduled-jobs", "batch-creator", "notifier"];
    for (number, victim) in (1..=12).zip(victims.iter().cycle()) {
        // By Stripe's calls, not by time: the same on a slow machine as on a fast one.
        system
            .see("Stripe is called", || system.double.counts().calls >= number * 5 || system.stack.activity.running() == 0)
            .await;
        if number % 2 == 1 {
            system.stack.kill("chunk-processor");
        }
        system.stack.kill(victim);
        if system.stack.activity.running() == 0 {
            system.later(Duration::from_secs(6)).await;
            let sweep = serde_json::json!({ "job": "sweep", "pace": { "quietSeconds": 0, "askStripe": true } });
            let _ = system.stack.invoke("scheduled-jobs", sweep).await;
        }
    }
    system.ends("paid=40").await;
}
