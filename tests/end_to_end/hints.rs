//! Messages and schedules are hints: doubled, lost, late, poisoned or never given, each cycle is paid once.

use std::time::Duration;

use payday_local::queues::Fault;
use payday_tests::gate::{At, Gate};
use payday_tests::system::{Expected, PATIENCE, Setup};
use payday_tests::world::{at, cutoff};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_twice_at_once_is_one_batch_and_one_send() {
    let system = Setup::of(6).double(|double| double.latency_ms = 20).start().await;
    system.stack.queues.fault("CreateBatchQueue", Fault::Duplicate).expect("a queue");
    system.stack.queues.fault("ProcessChunkQueue", Fault::Duplicate).expect("a queue");
    system.fire().await;
    system.idle().await;
    let counters = system.stack.lambda.counters();
    assert_eq!(counters["batch-creator"].invocations, 2);
    assert!(counters["chunk-processor"].invocations >= 2);
    assert_eq!(system.database.count("payout_batches").await, 1);
    assert_eq!(system.called("POST /v1/transfers"), 6);
    system.ends("paid=6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_back_while_its_worker_still_works_is_one_send() {
    let system = Setup::of(6).start().await;
    system.double.hold();
    system.fire().await;
    system.double.held_requests(5).await;
    // As if the visibility timeout were over.
    assert_eq!(system.stack.queues.reveal("ProcessChunkQueue").expect("a queue"), 1);
    system.see("another worker has looked at it", || system.stack.lambda.counters()["chunk-processor"].invocations == 2).await;
    system.double.release();
    system.idle().await;
    assert_eq!(system.called("POST /v1/transfers"), 6);
    system.ends("paid=6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_lost_are_sent_again_by_the_sweep() {
    let system = Setup::of(6).start().await;
    for queue in ["CreateBatchQueue", "ProcessChunkQueue", "NotificationQueue"] {
        system.stack.queues.fault(queue, Fault::Drop).expect("a queue");
    }
    system.fire().await;
    system.idle().await;
    assert_eq!(system.statuses().await, "no items");
    system.ends("paid=6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_message_among_ten_ends_in_the_dead_letter_queue_and_the_others_are_done() {
    let system = Setup::of(9).setting("CHUNK_SIZE", 1).start().await;
    let poison = json!({ "type": "payout.process-chunk", "chunkId": "seven" }).to_string();
    let mut gate = Gate::close(&system.database, At::Update, "payout_chunks").await;
    system.fire().await;
    gate.reached().await;
    system.stack.queues.send("ProcessChunkQueue", &poison).expect("queued");
    gate.open().await;
    system.see("the poison is put aside", || !system.stack.queues.bodies("ProcessChunkDlq").unwrap_or_default().is_empty()).await;
    assert_eq!(system.stack.queues.bodies("ProcessChunkDlq").expect("a queue"), [poison]);
    system.ends_with("paid=9", &Expected { dead_letters: 1, ..Expected::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_notification_in_a_batch_of_ten_fails_alone() {
    let system = Setup::of(1).start().await;
    system.fire().await;
    system.idle().await;
    for n in 0..9 {
        system.database.run(format!("insert into outbox (dedupe_key, kind, payload) values ('test:{n}', 'test', '{{}}')")).await;
    }
    // All ten wait before the notifier is free for them.
    let mut gate = Gate::close(&system.database, At::Update, "outbox").await;
    let ids: Vec<(i64,)> = system.database.all("select id from outbox where kind = 'test' order by id").await;
    for (number, (id,)) in (0..).zip(&ids) {
        if number == 4 {
            system.stack.queues.send("NotificationQueue", "poison").expect("queued");
        }
        system
            .stack
            .queues
            .send("NotificationQueue", &json!({ "type": "notification", "outboxId": id }).to_string())
            .expect("queued");
    }
    gate.reached().await;
    gate.open().await;
    system.see("the poison is put aside", || !system.stack.queues.bodies("NotificationDlq").unwrap_or_default().is_empty()).await;
    system.until("the others were told", "select bool_and(sent_at is not null) from outbox where kind = 'test'").await;
    assert_eq!(system.stack.queues.bodies("NotificationDlq").expect("a queue"), ["poison"]);
    system.ends_with("paid=1", &Expected { dead_letters: 1, ..Expected::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_fires_ten_times_or_a_day_late_makes_one_batch_for_its_own_date() {
    let system = Setup::of(4).start().await;
    // Ten at once, each with the time it was scheduled for; the machine's clock says another day.
    let firing = (0..10).map(|_| system.stack.fire("payout-semimonthly", cutoff()));
    for fired in futures::future::join_all(firing).await {
        fired.unwrap_or_else(|error| panic!("{error}"));
    }
    system.drain().await;
    system.fire().await;
    system.drain().await;
    let runs = system.database.rows("select schedule, cycle_on, status from payout_runs").await;
    assert_eq!(runs, ["semimonthly 2026-11-15 completed"]);
    assert_eq!(system.database.count("payout_batches").await, 1);
    assert_eq!(system.double.transfers().len(), 4);
    system.ends("paid=4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_fires_on_a_day_that_is_not_its_own_starts_nothing() {
    let system = Setup::of(1).start().await;
    system.fire_at(cutoff() + chrono::Duration::days(1)).await;
    system.stack.fire("payout-weekly", cutoff()).await.unwrap_or_else(|error| panic!("{error}"));
    system.idle().await;
    assert_eq!(system.database.count("payout_runs").await, 0);
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_schedules_of_a_date_run_side_by_side_and_each_pays_its_own() {
    let system = Setup::of(4).start().await;
    system.database.run("update creator_payout_settings set schedule = 'monthly' where creator_id in (select id from payees order by id limit 2)").await;
    let first = at("2026-11-01T06:00:00Z");
    for schedule in ["payout-monthly", "payout-semimonthly"] {
        system.stack.fire(schedule, first).await.unwrap_or_else(|error| panic!("{error}"));
    }
    system.drain().await;
    let paid = system
        .database
        .rows("select r.schedule, b.items from payout_runs r join payout_batches b on b.run_id = r.id order by 1")
        .await;
    assert_eq!(paid, ["monthly 2", "semimonthly 2"]);
    system.ends("paid=4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_frozen_in_the_middle_and_thaws_after_another_has_finished_pays_nobody_again() {
    let system = Setup::of(3).start().await;
    system.double.hold();
    system.fire().await;
    system.double.held_requests(3).await;
    assert!(!system.stack.lambda.freeze("chunk-processor").is_empty());
    // Stripe pays, and the frozen worker does not read the answers. Its lease is over; another takes the chunk.
    system.double.release();
    system.see("all transfers are made", || system.executed("POST /v1/transfers") == 3).await;
    system.later(Duration::from_secs(6)).await;
    system.stack.queues.reveal("ProcessChunkQueue").expect("a queue");
    system.until("everything is accepted", "select count(*) = 3 from payout_items where status in ('in_transit', 'paid')").await;
    // What the first one now finds out changes nothing.
    system.stack.lambda.thaw("chunk-processor");
    system.idle().await;
    assert_eq!((system.executed("POST /v1/transfers"), system.executed("POST /v1/payouts")), (3, 3));
    system.ends("paid=3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_generations_of_workers_share_a_run_during_a_deployment() {
    let system = Setup::of(24).setting("CHUNK_SIZE", 4).double(|double| double.latency_ms = 10).start().await;
    let newer = system.beside(vec![("SENDS_PER_WORKER", "2".to_owned())]).await;
    system.fire().await;
    system.see("the older ones have begun", || system.double.counts().calls > 30).await;
    // The same schedule, every message in the words of a newer sender, and both generations' sweeps.
    newer.fire("payout-semimonthly", cutoff()).await.unwrap_or_else(|error| panic!("{error}"));
    let run: i64 = system.database.value("select id from payout_runs").await;
    let body = json!({ "type": "payout.create-batch", "runId": run, "traceId": "x" });
    newer.queues.send("CreateBatchQueue", &body.to_string()).expect("queued");
    let chunks: Vec<(i64,)> = system.database.all("select id from payout_chunks").await;
    for (chunk,) in chunks {
        let body = json!({ "type": "payout.process-chunk", "chunkId": chunk, "since": "2.0" });
        newer.queues.send("ProcessChunkQueue", &body.to_string()).expect("queued");
    }
    let sweep = json!({ "job": "sweep", "pace": { "quietSeconds": 0 }, "added": true });
    newer.invoke("scheduled-jobs", sweep).await.unwrap_or_else(|error| panic!("{error}"));
    newer.wait_idle(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    system.drain().await;
    assert_eq!((system.executed("POST /v1/transfers"), system.executed("POST /v1/payouts")), (24, 24));
    newer.shutdown().await;
    system.ends("paid=24").await;
}
