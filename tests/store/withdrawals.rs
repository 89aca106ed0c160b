//! Withdrawals: what is asked for is reserved at once, goes out once, and comes back if it cannot; whoever else is at it.

use chrono::Duration as Span;
use futures::future::join_all;
use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config::Withdrawals;
use payday::db::Db;
use payday::error::{Error, Result};
use payday::payouts::store::creators::{self, Changes};
use payday::payouts::store::resume;
use payday::withdrawals::store::Request;
use payday::withdrawals::{self, Withdrawal};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::queues::QueueServer;
use payday_tests::stage::{Stage, control};
use payday_tests::world::{CYCLE, account_of, create_batches, creator, cutoff, day, earning};
use uuid::Uuid;

/// A stage on which somebody withdraws, and the queues between.
struct Desk {
    stage: Stage,
    queues: QueueServer,
}

impl Desk {
    /// With so many creators who have 10.00 each. A token is worth 4.5 cents.
    async fn of(count: u128) -> Self {
        let stage = Stage::new().await;
        stage.accounts(1..=count);
        stage.creators(1..=count).await;
        stage.record((1..=count).map(|n| earning(&format!("e{n}"), n, 1_000)).collect()).await;
        Self { stage, queues: QueueServer::start(&["create-batch", "process-chunk"]).await }
    }

    async fn ask_by(&self, db: &Db, n: u128, tokens: i64, go_out: Withdrawals, key: Option<&str>) -> Result<Request> {
        let (policy, queue) = (&self.stage.policy, self.queues.client("create-batch"));
        let asked = Withdrawal::new(creator(n), tokens, policy)?;
        withdrawals::request(db, &queue, policy, go_out, &asked, key.map(str::to_owned)).await
    }

    async fn ask(&self, n: u128, tokens: i64) -> Uuid {
        let made = self.ask_by(&self.stage.db, n, tokens, Withdrawals::OnDemand, None).await;
        made.unwrap_or_else(|error| panic!("{error}: {}", error.causes())).id
    }

    /// What the batch creator does with the request's message.
    async fn batch(&self, id: Uuid) -> Result<()> {
        withdrawals::make_batch(&self.stage.db, &self.queues.client("process-chunk"), &self.stage.policy, id).await
    }

    /// Sweeps, and batches whatever it has found.
    async fn sweep(&self) -> usize {
        let queue = self.queues.client("create-batch");
        self.queues.taken("create-batch");
        withdrawals::sweep(&self.stage.db, &queue, Span::zero()).await.expect("swept");
        let found = self.queues.taken("create-batch");
        for body in &found {
            let message: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let id = message["requestId"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            self.batch(id).await.expect("a batch");
        }
        found.len()
    }

    async fn statuses(&self, n: u128) -> Vec<String> {
        let sql = format!("select status from withdrawal_requests where creator_id = '{}' order by created_at", creator(n));
        self.stage.rows(&sql).await
    }
}

fn refused<T>(answer: Result<T>) -> &'static str {
    answer.err().map_or("not refused", |error: Error| error.code)
}

#[tokio::test]
async fn a_withdrawal_is_reserved_at_once_and_paid_by_the_engine() {
    let desk = Desk::of(1).await;
    let stage = &desk.stage;
    // The earning's hold is over and nothing has booked that yet: the request does.
    let id = desk.ask(1, 100).await;
    assert_eq!(stage.balance(1, "usd").await, "available_platform=5500000 reserved_platform=4500000");
    stage.world.audit().await;
    assert_eq!(desk.queues.taken("create-batch"), [format!(r#"{{"type":"payout.withdraw","requestId":"{id}"}}"#)]);
    // The message comes three times, twice of them at once.
    let (one, other) = tokio::join!(desk.batch(id), desk.batch(id));
    one.and(other).expect("batched");
    desk.batch(id).await.expect("nothing more to do");
    assert_eq!(stage.row("select kind, status from payout_runs").await, "withdrawal running");
    assert_eq!(stage.row("select count(*), sum(amount_minor) from payout_items").await, "1 450");
    assert_eq!(stage.balance(1, "usd").await, "available_platform=5500000 reserved_platform=4500000");
    stage.world.audit().await;

    stage.finish().await;
    assert_eq!(desk.statuses(1).await, ["batched"]);
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(desk.statuses(1).await, ["paid"]);
    assert_eq!(stage.row("select status from payout_runs").await, "completed");
    assert_eq!(stage.balance(1, "usd").await, "available_platform=5500000 paid_out=4500000");
    stage.audit().await;
    // The cycle pays the rest, and a bank that sends back a withdrawal makes it one that is being paid again.
    stage.batches().await;
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=2");
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    stage.hear().await;
    assert_eq!(desk.statuses(1).await, ["batched"]);
    stage.audit().await;
}

#[tokio::test]
async fn no_more_than_what_is_payable_can_be_asked_for_however_many_ask_at_once() {
    let desk = Desk::of(1).await;
    // 222 tokens are 9.99.
    let answers = join_all((0..12).map(|_| async {
        let db = Db::connect(&desk.stage.url(), 2).expect("an address");
        desk.ask_by(&db, 1, 60, Withdrawals::OnDemand, None).await
    }))
    .await;
    let (granted, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(granted.len(), 3);
    assert!(refusals.into_iter().all(|answer| refused(answer) == "INSUFFICIENT_BALANCE"));
    assert_eq!(desk.stage.balance(1, "usd").await, "available_platform=1900000 reserved_platform=8100000");
    desk.stage.world.audit().await;
    desk.ask(1, 42).await;
    desk.stage.world.audit().await;
}

#[tokio::test]
async fn the_same_key_is_one_request_and_another_s_is_another_one() {
    let desk = Desk::of(2).await;
    let stage = &desk.stage;
    let ask = async |n, tokens, key| desk.ask_by(&stage.db, n, tokens, Withdrawals::OnDemand, Some(key)).await;
    let first = ask(1, 50, "k").await.expect("a request");
    assert_eq!(ask(1, 50, "k").await.expect("the same"), first);
    assert_eq!(refused(ask(1, 51, "k").await), "IDEMPOTENCY_KEY_REUSED");
    assert_ne!(ask(2, 51, "k").await.expect("another's").id, first.id);
    assert_ne!(ask(1, 50, "l").await.expect("another one").id, first.id);
    withdrawals::cancel(&stage.db, creator(1), first.id).await.expect("canceled");
    assert_eq!(ask(1, 50, "k").await.expect("what has become of it").status, "canceled");

    // While one is being worked on, the others are told to come back.
    let mut tx = stage.tx().await;
    assert!(withdrawals::store::take_key(&mut tx, creator(1), "m").await.expect("the lock"));
    assert_eq!(refused(ask(1, 50, "m").await), "REQUEST_IN_PROGRESS");
    tx.rollback().await;
    let answers = join_all((0..8).map(|_| ask(1, 50, "m"))).await;
    assert!(answers.iter().any(Result::is_ok));
    assert_eq!(stage.count("withdrawal_requests where idempotency_key = 'm'").await, 1);
    stage.world.audit().await;
}

#[tokio::test]
async fn a_request_is_canceled_or_batched_and_never_both() {
    const CREATORS: u128 = 12;
    let desk = Desk::of(CREATORS).await;
    let stage = &desk.stage;
    let mut canceled = 0;
    for n in 1..=CREATORS {
        let id = desk.ask(n, 100).await;
        let cancels = async {
            let answers = join_all((0..2).map(|_| withdrawals::cancel(&stage.db, creator(n), id))).await;
            answers.into_iter().filter(|answer| answer.is_ok()).count()
        };
        // Whoever comes first.
        let (taken_back, batched) = if n % 2 == 0 {
            tokio::join!(cancels, desk.batch(id))
        } else {
            let (b, c) = tokio::join!(desk.batch(id), cancels);
            (c, b)
        };
        batched.expect("batched, or nothing to do");
        canceled += usize::from(taken_back > 0);
        stage.world.audit().await;
    }
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    let paid = stage.count("withdrawal_requests where status = 'paid'").await;
    assert_eq!(stage.count("withdrawal_requests where status = 'canceled'").await, i64::try_from(canceled).expect("few"));
    assert_eq!(usize::try_from(paid).expect("few") + canceled, 12);
    assert_eq!(i64::try_from(stage.double.transfers().len()), Ok(paid));
    stage.audit().await;
}

#[tokio::test]
async fn only_its_own_creator_takes_a_request_back_and_only_while_it_is_pending() {
    let desk = Desk::of(2).await;
    let stage = &desk.stage;
    let id = desk.ask(1, 100).await;
    assert_eq!(refused(withdrawals::cancel(&stage.db, creator(2), id).await), "NOT_FOUND");
    assert_eq!(refused(withdrawals::cancel(&stage.db, creator(1), Uuid::nil()).await), "NOT_FOUND");
    for _ in 0..2 {
        assert_eq!(withdrawals::cancel(&stage.db, creator(1), id).await.expect("canceled").status, "canceled");
    }
    assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000");
    desk.batch(id).await.expect("nothing to do");
    assert_eq!(stage.count("payout_runs").await, 0);
    let other = desk.ask(1, 100).await;
    desk.batch(other).await.expect("a batch");
    assert_eq!(refused(withdrawals::cancel(&stage.db, creator(1), other).await), "NOT_PENDING");
    stage.finish().await;
    stage.audit().await;
}

#[tokio::test]
async fn a_withdrawal_that_stripe_refuses_gives_its_money_back_and_nobody_takes_it_up_again() {
    let desk = Desk::of(1).await;
    let stage = &desk.stage;
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), refusal).for_account(&account_of(1)));
    let id = desk.ask(1, 100).await;
    desk.batch(id).await.expect("a batch");
    stage.finish().await;
    assert_eq!(desk.statuses(1).await, ["failed"]);
    assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000");
    let sweeping = stage.sweeper().await;
    sweeping.sweeper.retry(60).await.expect("the daily retry");
    assert_eq!((desk.statuses(1).await, stage.statuses().await), (vec!["failed".to_owned()], "failed=1".to_owned()));
    // An operator may all the same.
    let item = stage.value::<i64>("select id from payout_items").await;
    assert!(sweeping.sweeper.retry_item(payday::id::ItemId(item)).await.expect("retried"));
    assert_eq!(desk.statuses(1).await, ["batched"]);
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(desk.statuses(1).await, ["paid"]);
    stage.audit().await;
}

#[tokio::test]
async fn who_no_longer_qualifies_when_it_is_sent_has_the_money_back_with_the_reason() {
    let desk = Desk::of(3).await;
    let stage = &desk.stage;
    let ids = [desk.ask(1, 100).await, desk.ask(2, 100).await, desk.ask(3, 100).await];
    let settings = Changes { payout_enabled: Some(false), ..Changes::default() };
    let mut tx = stage.tx().await;
    creators::change_settings(&mut tx, creator(1), settings).await.expect("settings");
    tx.commit(payday::boundary::Boundary::Outside).await.expect("a commit");
    stage.run(format!("update stripe_accounts set destination_changed_at = now() where payee_id = '{}'", creator(2))).await;
    // Gone before there is an item: the batch creator says so.
    stage.run(format!("delete from stripe_accounts where payee_id = '{}'", creator(3))).await;
    for id in ids {
        desk.batch(id).await.expect("a batch");
    }
    stage.finish().await;
    for (n, code) in [(1, "payouts_disabled"), (2, "destination_cooloff"), (3, "account_not_ready")] {
        let request = &withdrawals::store::page(&mut stage.tx().await, creator(n), None, 10).await.expect("a page")[0];
        assert_eq!((request.status.as_str(), request.failure_code.as_deref()), ("failed", Some(code)));
        assert_eq!(stage.balance(n, "usd").await, "available_platform=10000000");
    }
    assert_eq!(stage.rows("select kind from outbox").await, ["withdrawal_failed"]);
    assert_eq!(stage.double.transfers().len(), 0);
    stage.audit().await;
}

#[tokio::test]
async fn a_withdrawal_waits_for_an_earlier_payment_and_for_the_end_of_a_pause() {
    let desk = Desk::of(1).await;
    let stage = &desk.stage;
    let first = desk.ask(1, 100).await;
    desk.batch(first).await.expect("a batch");
    let second = desk.ask(1, 100).await;
    desk.batch(second).await.expect("not yet");
    assert_eq!((desk.statuses(1).await, desk.sweep().await), (vec!["batched".to_owned(), "pending".to_owned()], 0));
    let waiting = withdrawals::store::of_creator(&mut stage.tx().await, creator(1), second).await.expect("read").expect("there");
    assert!(waiting.has_to_wait);
    stage.world.audit().await;
    stage.finish().await;
    // Accepted by Stripe, the first stands in nobody's way any more.
    control(&stage.db, "paused", true).await;
    desk.batch(second).await.expect("not while paused");
    assert_eq!((desk.statuses(1).await[1].as_str(), desk.sweep().await), ("pending", 0));
    control(&stage.db, "paused", false).await;
    assert_eq!((desk.sweep().await, desk.sweep().await), (1, 0));
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(desk.statuses(1).await, ["paid", "paid"]);
    assert_eq!(stage.count("payout_batches").await, 2);
    stage.audit().await;
}

#[tokio::test]
async fn with_the_next_cycle_it_goes_out_right_after_the_cycle_of_its_schedule() {
    let desk = Desk::of(3).await;
    let stage = &desk.stage;
    for (n, schedule) in [(2, "weekly"), (3, "manual")] {
        stage
            .run(format!("update creator_payout_settings set schedule = '{schedule}' where creator_id = '{}'", creator(n)))
            .await;
    }
    for n in 1..=3 {
        desk.ask_by(&stage.db, n, 100, Withdrawals::NextCycle, None).await.expect("a request");
    }
    assert_eq!(desk.queues.taken("create-batch"), [""; 0]);
    assert_eq!(desk.sweep().await, 0);
    stage.run("update withdrawal_requests set created_at = '2026-11-10T00:00:00Z'").await;
    stage.cycle(Schedule::Semimonthly, CYCLE, 25).await;
    // The first has an item of the cycle, which goes before; the second waits for Monday.
    assert_eq!(desk.sweep().await, 1);
    assert_eq!((desk.statuses(2).await[0].as_str(), desk.statuses(3).await[0].as_str()), ("pending", "batched"));
    stage.finish().await;
    assert_eq!(desk.sweep().await, 1);
    stage.finish().await;
    stage.cycle(Schedule::Weekly, "2026-11-16", 25).await;
    stage.finish().await;
    assert_eq!(desk.sweep().await, 1);
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    for n in 1..=3 {
        assert_eq!(desk.statuses(n).await, ["paid"], "{n}");
    }
    let paid = "select creator_id, string_agg(amount_minor::text, ' ' order by id) from payout_items group by 1 order by 1";
    let [one, two, three] = [creator(1), creator(2), creator(3)];
    assert_eq!(stage.rows(paid).await, [format!("{one} 550 450"), format!("{two} 550 450"), format!("{three} 450")]);
    stage.audit().await;
}

#[tokio::test]
async fn a_run_for_one_payee_is_nobody_elses_next_cycle() {
    let desk = Desk::of(2).await;
    let stage = &desk.stage;
    stage.run(format!("update creator_payout_settings set schedule = 'manual' where creator_id = '{}'", creator(2))).await;
    desk.ask_by(&stage.db, 2, 100, Withdrawals::NextCycle, None).await.expect("a request");
    stage.run("update withdrawal_requests set created_at = '2026-11-10T00:00:00Z'").await;
    let mut tx = stage.tx().await;
    let run = resume::start(&mut tx, creator(1), day(CYCLE), cutoff()).await.expect("started").expect("a new one");
    tx.commit(Boundary::Outside).await.expect("a commit");
    assert_eq!(create_batches(&stage.world.database, &stage.policy, run, 25).await.items, 1);
    assert_eq!((desk.sweep().await, desk.statuses(2).await), (0, vec!["pending".to_owned()]));
    stage.finish().await;
    stage.cycle(Schedule::Semimonthly, CYCLE, 25).await;
    assert_eq!(desk.sweep().await, 1);
}

#[tokio::test]
async fn money_that_is_connected_goes_first_and_both_parts_come_back() {
    let desk = Desk::of(1).await;
    let stage = &desk.stage;
    let sale = payday::earnings::NewEarning { place: payday::earnings::Place::Connected, ..earning("sale", 1, 300) };
    stage.record(vec![sale]).await;
    let id = desk.ask(1, 100).await;
    assert_eq!(stage.balance(1, "usd").await, "available_platform=8500000 reserved_platform=1500000 reserved_connected=3000000");
    stage.world.audit().await;
    withdrawals::cancel(&stage.db, creator(1), id).await.expect("canceled");
    assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000 available_connected=3000000");
    stage.world.audit().await;
}

/// Whoever takes an account over asks for many small sums before the bank becomes another one.
#[tokio::test]
async fn a_large_sum_to_an_unconfirmed_bank_does_not_become_small_by_being_asked_for_in_parts() {
    let mut desk = Desk::of(1).await;
    desk.stage.world.policy.two_person_above_cents = 500;
    desk.stage.payer.policy = desk.stage.world.policy.clone();
    let stage = &desk.stage;
    let ids = [desk.ask(1, 100).await, desk.ask(1, 100).await];
    stage.run("update stripe_accounts set destination = 'another', destination_changed_at = now() - interval '80 hours'").await;
    desk.batch(ids[0]).await.expect("a batch");
    stage.finish().await;
    let request = withdrawals::store::of_creator(&mut stage.tx().await, creator(1), ids[0]).await.expect("read").expect("there");
    assert_eq!((request.status.as_str(), request.failure_code.as_deref()), ("failed", Some("destination_cooloff")));
    assert_eq!(stage.double.transfers().len(), 0);
    stage.run("update stripe_accounts set confirmed_destination = destination").await;
    desk.batch(ids[1]).await.expect("a batch");
    stage.finish().await;
    assert_eq!(stage.double.transfers().len(), 1, "an operator has looked");
    stage.audit().await;
}
