//! What goes wrong on a larger scale: workers die, keys are revoked, money is short, Stripe is away for a day.

use std::time::{Duration, Instant};

use chrono::Duration as Span;
use payday::boundary::Boundary;
use payday::db::Db;
use payday::id::ItemId;
use payday::payouts::item::Status;
use payday::payouts::operation::State;
use payday::payouts::pay::Payer;
use payday::payouts::store::chunks;
use payday::payouts::wave::{ItemUpdate, OperationUpdate, Wave};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::{KEY, Stage, impatient};
use payday_tests::world::{creator, currency, earning};

/// A worker of its own, with connections of its own, so that dropping it is what killing a function is.
fn another_worker(stage: &Stage) -> Payer {
    let Payer { stripe, policy, sending, .. } = stage.payer.clone();
    Payer::new(Db::connect(&stage.url(), 2).expect("an address"), stripe, policy, sending)
}

/// The boundaries are the statements: a chunk is begun over and over, each time killed one statement later.
#[tokio::test]
async fn a_worker_killed_after_any_of_its_statements_loses_and_doubles_nothing() {
    let stage = Stage::new().await;
    let chunks = stage.crowd_in_chunks(24, 700, 1).await;
    let mut finished = 0;
    for (kill_after, chunk) in (1..).zip(&chunks) {
        let worker = another_worker(&stage);
        let working = worker.process_chunk(*chunk, Instant::now() + Duration::from_secs(900));
        let killer = async {
            while worker.db.statements() < kill_after {
                tokio::task::yield_now().await;
            }
        };
        futures::pin_mut!(working, killer);
        let ended = futures::future::select(working, killer).await;
        finished += u64::from(matches!(ended, futures::future::Either::Left(_)));
    }
    assert!((1..20).contains(&finished), "{finished} of 24 came through: the others were killed on their way");
    // Their leases hold for a while, then others take over.
    stage.work().await;
    stage.later(Span::seconds(6)).await;
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=24");
    assert_eq!((stage.double.transfers().len(), stage.double.payouts().len()), (24, 24));
    stage.audit().await;
}

#[tokio::test]
async fn a_worker_killed_while_its_requests_are_under_way_is_succeeded_when_its_lease_is_over() {
    for leg in ["transfers", "payouts"] {
        let stage = Stage::new().await;
        let chunk = stage.crowd(8, 700).await[0];
        // The requests are run, their answers never arrive.
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}"), When::First(8), Fault::ExecuteThenHang));
        let worker = another_worker(&stage);
        let working = worker.process_chunk(chunk, Instant::now() + Duration::from_secs(900));
        let killer = async {
            while stage.calls("POST", &format!("/v1/{leg}")).len() < 8 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        futures::pin_mut!(working, killer);
        assert!(matches!(futures::future::select(working, killer).await, futures::future::Either::Right(_)));
        let sent = stage.calls("POST", "/v1/").len();
        stage.process(chunk).await.expect("the lease is another's");
        assert_eq!(stage.calls("POST", "/v1/").len(), sent);
        stage.later(Span::seconds(6)).await;
        stage.process(chunk).await.expect("taken over");
        assert_eq!(stage.statuses().await, "in_transit=8");
        let state = format!("select distinct state, sends, replayed from payout_operations where leg || 's' = '{leg}'");
        assert_eq!(stage.rows(&state).await, ["accepted 2 true"]);
        stage.audit().await;
    }
}

/// Nobody knows whether it was run, so it is asked about first; the payee's settings count for what comes after.
#[tokio::test]
async fn what_a_dead_worker_sent_is_not_canceled_though_its_payee_no_longer_qualifies() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(3, 700).await[0];
    stage.double.fault(FaultRule::post("/v1/transfers", When::First(3), Fault::ExecuteThenHang));
    let worker = another_worker(&stage);
    let working = worker.process_chunk(chunk, Instant::now() + Duration::from_secs(900));
    let killer = async {
        while stage.calls("POST", "/v1/transfers").len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    futures::pin_mut!(working, killer);
    assert!(matches!(futures::future::select(working, killer).await, futures::future::Either::Right(_)));
    stage
        .run(
            "insert into creator_payout_settings (creator_id, payout_enabled) select creator_id, false from payout_items
             on conflict (creator_id) do update set payout_enabled = false",
        )
        .await;
    stage.later(Span::seconds(6)).await;
    stage.process(chunk).await.expect("taken over");
    assert_eq!(stage.count("payout_items where status = 'canceled'").await, 0);
    assert_eq!(stage.rows("select distinct state from payout_operations where leg = 'transfer'").await, ["accepted"]);
    stage.audit().await;
}

#[tokio::test]
async fn a_wave_about_what_has_changed_meanwhile_is_refused_as_a_whole() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(1, 700).await[0];
    stage.work().await;
    let item = ItemId(stage.value("select id from payout_items").await);
    for (attempt_was, item_was, saved) in [
        (State::Unknown, Status::InTransit, false),
        (State::Accepted, Status::Pending, false),
        (State::Accepted, Status::InTransit, true),
    ] {
        let now = payday::clock::now();
        let mut tx = stage.tx().await;
        let it = chunks::load_due(&mut tx, chunk, now, &[item]).await.expect("an answer").remove(0);
        let attempt = it.operation.expect("an attempt");
        let operation = OperationUpdate {
            id: attempt.id,
            was: attempt_was,
            state: State::Returned,
            first_dispatched_at: attempt.facts.first_dispatched_at,
            dispatched_at: attempt.facts.dispatched_at,
            send_deadline: None,
            sends: attempt.facts.sends,
            lookups: 0,
            look_up: false,
            cleared: false,
            stripe_id: None,
            stripe_status: None,
            http_status: None,
            code: None,
            message: None,
            request_id: None,
            replayed: false,
            unknown_since: None,
        };
        let item = ItemUpdate {
            was: item_was,
            item: it.item,
            account: it.account,
            destination: None,
            failure_code: None,
            failure_reason: None,
            due_at: None,
            waiting_since: None,
            arrival_on: None,
        };
        let wave = Wave { operations: vec![operation], items: vec![item], ..Wave::default() };
        assert_eq!(chunks::save(&mut tx, &wave, now).await.is_ok(), saved, "{attempt_was:?} {item_was:?}");
        // What was refused leaves nothing behind, whatever its caller does with the transaction.
        drop(tx);
        assert_eq!(stage.row("select state from payout_operations where leg = 'payout'").await, "accepted");
    }
}

#[tokio::test]
async fn a_revoked_key_halts_everything_with_one_alert_and_a_good_one_resumes_it() {
    let mut stage = Stage::new().await;
    stage.send_at_once(1);
    stage.double.fund("eur", 1_000_000);
    stage.accounts(1..=6);
    stage.creators(1..=6).await;
    stage.record((1..=6).map(|n| earning(&format!("e{n}"), n, 1_000)).collect()).await;
    let mut euros = earning("eur", 1, 500);
    euros.currency = currency("eur");
    stage.record(vec![euros]).await;
    stage.double.update_account("acct_1", |account| {
        let mut bank = account.banks[0].clone();
        (bank.id, bank.currency) = ("ba_eur".to_owned(), "eur".to_owned());
        account.banks.push(bank);
    });
    stage.cycle(payday::clock::Schedule::Semimonthly, payday_tests::world::CYCLE, 3).await;
    // Revoked in the middle of the first chunk of dollars: the second of its three items is refused.
    stage.double.fault(FaultRule { method: None, ..FaultRule::post("/v1/*", When::From(2), Fault::Unauthorized) });
    let sweeping = stage.sweeper().await;
    let dollars = stage
        .all::<(i64,)>(
            "select k.id from payout_chunks k join payout_batches b on b.id = k.batch_id where b.currency = 'usd' order by 1",
        )
        .await;
    stage.process(payday::id::ChunkId(dollars[0].0)).await.expect("halted in good order");
    assert_eq!(
        stage.rows("select currency, status, halt_reason from payout_batches order by 1").await,
        ["eur halted stripe_key_rejected", "usd halted stripe_key_rejected"]
    );
    assert_eq!(stage.calls("POST", "/v1/").len(), 2, "the third never left");
    assert_eq!(stage.row("select count(*) filter (where state = 'accepted'), count(*) filter (where state = 'not_run') from payout_operations").await, "1 2");
    let refused = stage.calls("POST", "/v1/").len();
    stage.work().await;
    stage.later(Span::hours(1)).await;
    stage.work().await;
    sweeping.sweep().await;
    stage.work().await;
    assert_eq!(stage.calls("POST", "/v1/").len(), refused, "nothing is sent with a key that Stripe refuses");
    assert_eq!(stage.count("payout_batches where halt_reason = 'stripe_key_rejected'").await, 2);
    assert_eq!(stage.rows("select kind from outbox").await, ["batch_halted"], "one alert");
    stage.world.audit().await;

    stage.double.clear_faults();
    let (_, queued) = sweeping.sweep().await;
    assert_eq!(queued.len(), 3, "the sweep queues what is due: {queued:?}");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=7");
    assert_eq!(stage.row("select max(attempt) from payout_operations").await, "1", "no attempt was used up");
    stage.audit().await;
}

#[tokio::test]
async fn a_key_refused_for_an_attempt_in_doubt_leaves_it_in_doubt() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::ExecuteThenReset));
    stage.work().await;
    stage.double.fault(FaultRule::post("/v1/*", When::Always, Fault::Unauthorized));
    stage.later(Span::seconds(2)).await;
    stage.work().await;
    assert_eq!(stage.row("select state, sends, http_status from payout_operations").await, "unknown 2 401");
    assert_eq!(stage.row("select halt_reason from payout_batches").await, "stripe_key_rejected");
    stage.double.clear_faults();
    stage.sweeper().await.sweep().await;
    stage.finish().await;
    assert_eq!(stage.operations("1").await, ["transfer.1 accepted 3", "payout.1 accepted 1"]);
    stage.audit().await;
}

#[tokio::test]
async fn a_short_balance_halts_the_batch_and_it_continues_by_itself_when_funded() {
    let stage = Stage::new().await;
    stage.double.fund("usd", -100_000_000 + 10 * 1_000);
    let chunks = stage.crowd(30, 1_000).await;
    stage.process(chunks[0]).await.expect("worked");
    assert_eq!(stage.statuses().await, "awaiting_funds=15 in_transit=10 pending=5");
    assert_eq!(stage.row("select status, halt_reason from payout_batches").await, "halted awaiting_funds");
    assert_eq!(
        stage.row("select distinct failure_code from payout_items where status = 'awaiting_funds'").await,
        "balance_insufficient"
    );
    assert_eq!(stage.balance(25, "usd").await, "reserved_platform=10000000", "the reservation stays");
    let calls = stage.calls("POST", "/v1/transfers").len();
    assert_eq!(calls, 25);
    stage.process(chunks[1]).await.expect("worked");
    assert_eq!(stage.statuses().await, "awaiting_funds=20 in_transit=10");
    assert_eq!(stage.calls("POST", "/v1/transfers").len(), calls, "the second chunk is not even tried");
    assert_eq!(stage.row("select status from payout_batches").await, "completed", "what waits for funds does not hold it open");
    assert_eq!(stage.count("outbox where kind = 'batch_halted'").await, 1);
    stage.audit().await;

    let sweeping = stage.sweeper().await;
    let (_, queued) = sweeping.sweep().await;
    assert_eq!(queued, [""; 0], "not funded");
    // Funds for seven: the oldest items go first, after the cooling time, under a new number.
    stage.double.fund("usd", 7_500);
    let (_, queued) = sweeping.sweep().await;
    assert_eq!(queued.len(), 1);
    stage.work().await;
    assert_eq!(stage.calls("POST", "/v1/transfers").len(), calls, "not before the cooling time");
    assert_eq!(sweeping.sweep().await.1, [""; 0], "and what is promised to the seven is not promised again");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "awaiting_funds=13 in_transit=17");
    assert_eq!(
        stage.rows("select transfer_attempt, count(*) from payout_items where status = 'in_transit' group by 1 order by 1").await,
        ["1 10", "2 7"]
    );
    stage.audit().await;

    stage.double.fund("usd", 1_000_000);
    sweeping.sweep().await;
    stage.work().await;
    assert_eq!(
        stage.row("select count(*) filter (where transfer_attempt = 1) from payout_items where creator_id > (select creator_id from payout_items order by creator_id offset 24 limit 1)").await,
        "5",
        "those that were never sent go out at once, at attempt 1"
    );
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=30");
    assert_eq!(stage.rows("select transfer_attempt, count(*) from payout_items group by 1 order by 1").await, ["1 15", "2 15"]);
    stage.audit().await;
}

#[tokio::test]
async fn an_attempt_unknown_at_23_hours_is_looked_up_once_and_then_left_to_a_person() {
    for (leg, list) in [("transfer", "/v1/transfers"), ("payout", "/v1/payouts")] {
        let mut stage = Stage::new().await;
        stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(300));
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Always, Fault::TimeoutBefore).for_account("acct_1"));
        stage.crowd(2, 1_000).await;
        stage.work().await;
        stage.later(Span::hours(22)).await;
        stage.work().await;
        let of_it = |stage: &Stage, method: &str| {
            stage.calls(method, list).into_iter().filter(|call| call.fault.is_some() || method == "GET").count()
        };
        assert_eq!((of_it(&stage, "POST"), of_it(&stage, "GET")), (2, 0), "{leg}: replayed within the window");
        stage.later(Span::hours(2)).await;
        stage.work().await;
        assert_eq!((of_it(&stage, "POST"), of_it(&stage, "GET")), (2, 1), "{leg}: one lookup and no replay");
        assert_eq!(stage.statuses().await, "in_transit=1 needs_review=1");
        assert_eq!(stage.rows("select state from payout_operations where state <> 'accepted'").await, ["unresolved"]);
        assert_eq!(stage.count("outbox where kind = 'item_needs_a_person'").await, 1);
        stage.later(Span::days(3)).await;
        stage.work().await;
        assert_eq!((of_it(&stage, "POST"), of_it(&stage, "GET")), (2, 1), "{leg}: and nothing more");
        stage.world.audit().await;
        stage.audit_double();
    }
}

#[tokio::test]
async fn a_lookup_at_23_hours_that_finds_the_object_accepts_it() {
    for leg in ["transfer", "payout"] {
        let mut stage = Stage::new().await;
        stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(300));
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Nth(1), Fault::ExecuteThenHang));
        stage.crowd(1, 1_000).await;
        stage.work().await;
        stage.later(Span::hours(26)).await;
        stage.double.expire_keys();
        stage.finish().await;
        assert_eq!(stage.statuses().await, "in_transit=1", "{leg}");
        assert_eq!(stage.calls("POST", &format!("/v1/{leg}s")).len(), 1);
        stage.audit().await;
    }
}

#[tokio::test]
async fn a_day_without_stripe_delays_what_was_never_sent_and_nothing_else() {
    let stage = Stage::new().await;
    stage.crowd(5, 1_000).await;
    stage.double.go_down();
    stage.work().await;
    assert_eq!(stage.rows("select distinct state, sends from payout_operations").await, ["not_run 1"]);
    for _ in 0..26 {
        stage.later(Span::hours(1)).await;
        stage.work().await;
    }
    assert_eq!(stage.statuses().await, "transferring=5");
    stage.world.audit().await;
    stage.double.go_up();
    stage.later(Span::hours(2)).await;
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=5");
    assert_eq!(stage.row("select max(attempt) from payout_operations").await, "1");
    stage.audit().await;
}

#[tokio::test]
async fn a_database_that_is_away_while_answers_arrive_gets_them_when_it_is_back() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(5, 1_000).await[0];
    stage.double.hold();
    let worker = another_worker(&stage);
    let outage = async {
        stage.double.held_requests(5).await;
        // Every connection of the worker is cut, as by a restart, and none is let in for a moment.
        stage.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()").await;
        stage.run(format!("alter database {} connection limit 0", stage.name)).await;
        stage.double.release();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stage.run(format!("alter database {} connection limit -1", stage.name)).await;
    };
    let (worked, ()) = tokio::join!(worker.process_chunk(chunk, Instant::now() + Duration::from_secs(900)), outage);
    worked.expect("it goes on when the database is back");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=5");
    assert_eq!((stage.double.transfers().len(), stage.double.payouts().len()), (5, 5));
    stage.audit().await;
}

#[tokio::test]
async fn the_daily_retry_takes_up_what_failed_once_its_reason_is_gone_and_no_newer_item_has_the_money() {
    let stage = Stage::new().await;
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    stage.double.fault(FaultRule::post("/v1/transfers", When::Always, refusal));
    stage.crowd(3, 1_000).await;
    stage.finish().await;
    assert_eq!(stage.statuses().await, "failed=3");
    stage.run(format!("update payees set blocked_reason = 'odd' where id = '{}'", creator(2))).await;
    // The third creator's money is in the next cycle's item.
    stage.run(format!("update creator_payout_settings set schedule = 'manual' where creator_id <> '{}'", creator(3))).await;
    stage.cycle(payday::clock::Schedule::Semimonthly, "2026-12-01", 25).await;
    stage.double.clear_faults();

    let sweeping = stage.sweeper().await;
    sweeping.sweeper.retry(60).await.expect("retried");
    assert_eq!(
        stage.rows("select right(creator_id::text, 1), status, retries, failure_code from payout_items order by id").await,
        ["1 pending 1 -", "2 failed 0 transfers_not_allowed", "3 canceled 0 superseded", "3 pending 0 -"]
    );
    sweeping.sweeper.retry(60).await.expect("pressed twice: once");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "canceled=1 failed=1 in_transit=2");
    assert_eq!(
        stage.operations("select min(id) from payout_items").await,
        ["transfer.1 rejected 1", "transfer.2 accepted 1", "payout.1 accepted 1"]
    );
    assert_eq!(stage.double.transfers().len(), 2);
    stage.audit().await;
}

#[tokio::test]
async fn a_sweep_brings_back_lost_messages_and_completes_what_is_finished() {
    let stage = Stage::new().await;
    let sweeping = stage.sweeper().await;
    stage.crowd(30, 500).await;
    let (_, queued) = sweeping.sweep().await;
    assert_eq!(queued.len(), 2, "chunks that nobody was told of");
    // A run whose message was lost, or whose batch creator died.
    let mut tx = stage.tx().await;
    payday::payouts::store::batches::start_run(
        &mut tx,
        payday::clock::Schedule::Weekly,
        payday_tests::world::day("2026-11-16"),
        payday_tests::world::cutoff(),
        "test",
    )
    .await
    .expect("a run");
    tx.commit(Boundary::Outside).await.expect("a commit");
    let (runs, _) = sweeping.sweep().await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    stage.work().await;
    // The worker died before it could say so.
    stage.run("update payout_batches set status = 'processing', completed_at = null; update payout_runs set status = 'running', completed_at = null").await;
    let (_, queued) = sweeping.sweep().await;
    assert_eq!(queued, [""; 0]);
    assert_eq!(
        stage.row("select b.status, r.status from payout_batches b join payout_runs r on r.id = b.run_id").await,
        "completed completed"
    );
    // A pause is obeyed.
    payday_tests::stage::control(&stage.db, "paused", true).await;
    stage.run("update payout_items set due_at = now()").await;
    assert_eq!(sweeping.sweep().await, (vec![], vec![]));
}

/// Stripe keeps a 500 under the key for good: every replay is answered with it, and only lookups are asked in between.
#[tokio::test]
async fn an_error_that_stripe_stored_under_the_key_is_never_worked_around() {
    for leg in ["transfer", "payout"] {
        let stage = Stage::new().await;
        stage.double.fault(FaultRule::post(&format!("/v1/{leg}s"), When::Nth(1), Fault::Error500Stored));
        stage.crowd(1, 1_000).await;
        for hours in [0, 1, 10, 11] {
            stage.later(Span::hours(hours)).await;
            stage.work().await;
            assert_eq!(stage.row("select max(attempt) from payout_operations").await, "1", "{leg}: no way around the key");
        }
        let state = format!("select state, replayed, http_status from payout_operations where leg = '{leg}'");
        assert_eq!(stage.row(&state).await, "unknown true 500");
        stage.later(Span::hours(2)).await;
        stage.finish().await;
        assert_eq!(stage.row(&state).await, "unresolved true 500");
        assert_eq!(stage.statuses().await, "needs_review=1");
        assert_eq!(stage.calls("POST", &format!("/v1/{leg}s")).iter().filter(|call| call.executed).count(), 0);
        stage.world.audit().await;
        stage.audit_double();
    }
}
