//! Stripe against the books: silent where both say the same, makes good what no webhook told, and finds each way in which the two can
//! differ. Interrupted anywhere it goes on where it stopped.

use std::time::Duration;

use chrono::Duration as Span;
use payday::rails::stripe::{Marks, request_body};
use payday::rails::{Asked, Leg};
use payday::reconciliation::{Pace, Reconciler};
use payday_local::stripe_double::{ClockMode, DestinationCharge, Fault, FaultRule, StripeDoubleOptions, When};
use payday_tests::stage::{Stage, double_options, event_body};
use payday_tests::world::{World, creator, earning};

fn reconciler(stage: &Stage) -> Reconciler {
    let (db, stripe) = (stage.db.clone(), stage.payer.stripe.clone());
    Reconciler { db, stripe, policy: stage.policy.clone(), pace: Pace::per_second(0) }
}

async fn reconcile(stage: &Stage) {
    reconciler(stage).run().await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
}

/// The reconciliation of the next day, after the days on which payouts should arrive.
async fn next_day(stage: &Stage) {
    stage.later(Span::days(1)).await;
    reconcile(stage).await;
}

/// As if all payouts should have arrived long ago.
async fn arrival_is_over(stage: &Stage) {
    stage.run("update payout_items set arrival_on = arrival_on - 5").await;
}

/// Creators with ten dollars each, whose payouts are on their way; nothing has been heard yet.
async fn sent(count: u128) -> Stage {
    let stage = Stage::new().await;
    stage.crowd(count, 1_000).await;
    stage.finish().await;
    stage
}

/// `kind subject state`, open ones first.
async fn found(stage: &Stage) -> Vec<String> {
    stage.rows("select kind, state from discrepancies order by state, kind, subject").await
}

async fn newest(stage: &Stage) -> String {
    stage.row("select stage, reads, events_missed, mended from reconciliations order by id desc limit 1").await
}

async fn sums(stage: &Stage) -> Vec<String> {
    stage
        .rows(
            "select leg, currency, objects, stripe_minor, ledger_minor from reconciliation_sums
             where reconciliation_id = (select max(id) from reconciliations) order by leg, currency",
        )
        .await
}

/// Something made at Stripe with the marks of an item of ours, by whoever has our key.
async fn make(stage: &Stage, leg: Leg, account: &str, item: i64, attempt: i32, minor: i64) {
    let instance: String = stage.value("select id from instance").await;
    let asked = Asked { leg, amount_minor: minor, currency: "usd".to_owned(), account: account.to_owned() };
    let (operation, item) = (format!("{instance}-{item}-{}-{attempt}", leg.as_str()), format!("{instance}-{item}"));
    let body = request_body(&asked, &Marks { operation: &operation, item: &item });
    let reply = stage.payer.stripe.send(&asked, &format!("by hand {operation}"), &body, false).await;
    assert_eq!(reply.http_status, Some(200), "{reply:?}");
}

#[tokio::test]
async fn where_both_say_the_same_nothing_is_found_and_the_sums_are_equal() {
    let stage = sent(30).await;
    // Another system's transfer, and a charge that brings its own.
    stage
        .double
        .create_destination_charge(&DestinationCharge {
            amount: 500,
            destination: "acct_1".to_owned(),
            ..DestinationCharge::default()
        })
        .expect("charged");
    let foreign = Asked { leg: Leg::Transfer, amount_minor: 77, currency: "usd".to_owned(), account: "acct_2".to_owned() };
    let body = request_body(&foreign, &Marks { operation: "0123456789abcdef-1-transfer-1", item: "0123456789abcdef-1" });
    stage.payer.stripe.send(&foreign, "another instance", &body, false).await;
    stage.double.settle_payouts();
    stage.hear().await;
    reconcile(&stage).await;
    assert_eq!(found(&stage).await, [""; 0]);
    // A page of events and one of transfers; no account is asked, since each payout's news came.
    assert_eq!(newest(&stage).await, "done 2 0 0");
    assert_eq!(sums(&stage).await, ["transfer usd 30 30000 30000"]);
    assert_eq!(stage.count("payout_operations where leg = 'transfer' and reconciled_at is not null").await, 30);
    // Nothing more on the same day, however often the schedule fires.
    reconcile(&stage).await;
    assert_eq!(stage.count("reconciliations").await, 1);
    // Ten days after they were sent each account is looked at for the last time, once.
    stage.later(Span::days(11)).await;
    reconcile(&stage).await;
    assert_eq!(newest(&stage).await, "done 32 0 0");
    assert_eq!(sums(&stage).await, ["payout usd 30 30000 30000", "transfer usd 30 30000 30000"]);
    next_day(&stage).await;
    assert_eq!(newest(&stage).await, "done 2 0 0");
    assert_eq!(found(&stage).await, [""; 0]);
    stage.world.audit().await;
}

#[tokio::test]
async fn what_no_webhook_told_is_made_good_and_the_webhooks_change_nothing_when_they_come_after_all() {
    let stage = sent(5).await;
    let payouts = stage.double.payouts();
    for payout in &payouts[..3] {
        stage.double.settle_payout(&payout.id);
    }
    stage.double.fail_payout(&payouts[2].id, "account_closed");
    stage.double.fail_payout(&payouts[3].id, "no_account");
    let transfers = stage.double.transfers();
    stage.double.reverse_transfer(&transfers[4].id, 300).expect("reversed");
    stage
        .double
        .create_destination_charge(&DestinationCharge {
            amount: 500,
            destination: "acct_1".to_owned(),
            ..DestinationCharge::default()
        })
        .expect("charged");
    // Not yet: a bank has its time.
    reconcile(&stage).await;
    assert_eq!(newest(&stage).await, "done 2 2 0", "the reversal and the charge are the platform's own events");
    assert_eq!(stage.statuses().await, "in_transit=5");
    arrival_is_over(&stage).await;
    next_day(&stage).await;
    assert_eq!(stage.statuses().await, "in_transit=1 paid=2 payout_blocked=2");
    assert_eq!(newest(&stage).await, "done 7 0 4");
    assert_eq!(found(&stage).await, [""; 0]);
    let reasons = stage.rows("select failure_code from payout_items where status = 'payout_blocked' order by id").await;
    assert_eq!(reasons, ["account_closed", "no_account"]);
    let end = stage.rows("select * from payee_balances order by payee_id, currency").await;
    stage.hear().await;
    // That it was paid before it failed is the one thing that only the events know.
    assert_eq!(stage.statuses().await, "in_transit=1 paid=2 payout_blocked=1 returned=1");
    assert_eq!(stage.rows("select * from payee_balances order by payee_id, currency").await, end);
    stage.world.audit().await;
}

#[tokio::test]
async fn a_payment_that_the_bank_sends_back_after_it_was_paid_is_found_by_the_last_look() {
    let stage = sent(2).await;
    stage.double.settle_payouts();
    stage.hear().await;
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    reconcile(&stage).await;
    assert_eq!(stage.statuses().await, "paid=2");
    stage.later(Span::days(11)).await;
    reconcile(&stage).await;
    assert_eq!(stage.statuses().await, "paid=1 returned=1");
    assert_eq!(sums(&stage).await, ["payout usd 2 1000 1000", "transfer usd 2 2000 2000"]);
    stage.audit().await;
}

#[tokio::test]
async fn a_transfer_that_nobody_knew_the_end_of_is_found_in_stripe_s_pages() {
    let stage = Stage::new().await;
    stage.crowd(2, 1_000).await;
    // Executed, never answered, and lookups find nothing: a person would have to decide.
    stage.double.fault(FaultRule::post("/v1/transfers", When::Always, Fault::ExecuteThen500).for_account("acct_1"));
    let blind = stage.double.fault(FaultRule::get("/v1/transfers", When::Always, Fault::Html { status: 502 }));
    stage.work().await;
    stage.run("update payout_operations set state = 'unresolved' where state = 'unknown'; update payout_items set due_at = null, status = 'needs_review' where status = 'transferring'").await;
    stage.double.remove_fault(blind);
    stage.double.clear_faults();
    let before = stage.operations("select id from payout_items where account = 'acct_1'").await;
    assert_eq!(before, ["transfer.1 unresolved 1"]);
    reconcile(&stage).await;
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=2");
    assert_eq!(found(&stage).await, [""; 0]);
    stage.audit().await;
}

#[tokio::test]
async fn each_way_in_which_the_two_can_differ_is_found_told_once_and_resolved_when_it_is_over() {
    let aside = "alter table payout_items disable trigger user; ";
    for (plant, undo, expected) in [
        (
            "update payout_operations set amount_minor = 999 where id = 1",
            "update payout_operations set amount_minor = 1000 where id = 1",
            "object_differs",
        ),
        (
            "update payout_operations set account = 'acct_9' where id = 1",
            "update payout_operations set account = 'acct_1' where id = 1",
            "object_differs",
        ),
        (
            "update payout_operations set state = 'rejected' where id = 1",
            "update payout_operations set state = 'accepted' where id = 1",
            "refused_but_there",
        ),
        ("update payout_operations set stripe_id = 'tr_elsewhere' where id = 1", "", "second_object"),
        (
            "update payout_operations set reversed_minor = 1 where id = 1",
            "update payout_operations set reversed_minor = 0 where id = 1",
            "reversal_differs",
        ),
    ] {
        let stage = sent(2).await;
        stage.double.settle_payouts();
        stage.hear().await;
        stage.run(format!("{aside}{plant}")).await;
        reconcile(&stage).await;
        let open: Vec<String> = found(&stage)
            .await
            .into_iter()
            .filter(|line| !line.starts_with("sums_differ") && !line.starts_with("missing"))
            .collect();
        assert_eq!(open, [format!("{expected} open")], "{plant}");
        let told = if expected == "reversal_differs" { 0 } else { 1 };
        let of_kind = format!("outbox where kind = 'discrepancies_found' and payload::text like '%{expected}%'");
        assert_eq!(stage.count(&of_kind).await, told, "{plant}");
        // Found again the next day, it is the same one, and people are not told again; one that news may explain, only now.
        next_day(&stage).await;
        assert_eq!(stage.count(&of_kind).await, 1, "{plant}");
        let seen =
            stage.row(&format!("select times_seen, told_at is not null from discrepancies where kind = '{expected}'")).await;
        assert_eq!(seen, "2 true", "{plant}");
        if undo.is_empty() {
            continue;
        }
        stage.run(format!("{aside}{undo}")).await;
        next_day(&stage).await;
        let open = stage.rows("select kind from discrepancies where state <> 'resolved'").await;
        assert_eq!(open, [""; 0], "{plant}: resolved by itself");
    }
}

#[tokio::test]
async fn an_object_with_our_mark_that_nobody_here_made_is_told_at_once() {
    let stage = sent(2).await;
    stage.double.settle_payouts();
    stage.hear().await;
    make(&stage, Leg::Transfer, "acct_1", 77, 1, 500).await;
    reconcile(&stage).await;
    assert_eq!(found(&stage).await, ["sums_differ open", "unknown_object open"]);
    let told = stage.row("select payload->>'count' || ' ' || (payload->'rows'->>0) from outbox where kind = 'discrepancies_found' order by id limit 1").await;
    assert!(
        told.starts_with("1 unknown_object tr_") && told.ends_with("expected no such object, found 500 usd for acct_1"),
        "{told}"
    );
    // Taken back at Stripe, there is nothing left to explain.
    let id = stage.double.transfers().last().expect("a transfer").id.clone();
    stage.double.reverse_transfer(&id, 500).expect("reversed");
    next_day(&stage).await;
    assert_eq!(found(&stage).await, ["sums_differ resolved", "unknown_object resolved"]);

    // A second payout of an attempt, on the account where the first is.
    stage.double.fund_account(Some("acct_2"), "usd", 500);
    make(
        &stage,
        Leg::Payout,
        "acct_2",
        stage.value("select item_id from payout_operations where account = 'acct_2' limit 1").await,
        1,
        500,
    )
    .await;
    stage.later(Span::days(11)).await;
    reconcile(&stage).await;
    let open = stage.rows("select kind, account from discrepancies where state = 'open'").await;
    assert_eq!(open, ["second_object acct_2", "sums_differ -"]);
}

#[tokio::test]
async fn what_is_here_and_not_there_is_found_for_both_legs() {
    let stage = sent(2).await;
    stage.double.settle_payouts();
    stage.hear().await;
    // Sent an hour ago, so that no edge is near; then Stripe is another one, which has none of it.
    stage.run("update payout_operations set settled_at = settled_at - interval '1 hour'").await;
    let empty = Stage::on(World::new().await, double_options()).await;
    for n in 1..=2 {
        empty.accounts(n..=n);
    }
    let other = Reconciler { stripe: empty.payer.stripe.clone(), ..reconciler(&stage) };
    other.run().await.expect("reconciled");
    assert_eq!(found(&stage).await, ["missing_at_stripe open", "missing_at_stripe open"]);
    stage.later(Span::days(11)).await;
    let other = Reconciler { stripe: empty.payer.stripe.clone(), ..reconciler(&stage) };
    other.run().await.expect("reconciled");
    assert_eq!(found(&stage).await.len(), 4, "the payouts too");
    // Back at the right one.
    stage.run("update reconciliations set since = since - interval '20 days'").await;
    stage.later(Span::days(1)).await;
    stage
        .run("insert into reconciliations (stage, since, started_at) values ('transfers', now() - interval '30 days', now())")
        .await;
    reconcile(&stage).await;
    assert_eq!(stage.rows("select kind from discrepancies where state <> 'resolved'").await, [""; 0]);
}

#[tokio::test]
async fn a_bank_that_says_nothing_an_account_that_left_and_money_that_waits_are_found() {
    // Stripe's clock is twelve days behind, so what it says would arrive is long overdue.
    let behind = chrono::Utc::now() - Span::days(12);
    let clock = ClockMode::Manual { start_ms: behind.timestamp_millis() };
    let stage = Stage::with(StripeDoubleOptions { clock, ..double_options() }).await;
    stage.crowd(3, 1_000).await;
    stage.finish().await;
    stage
        .run("update payout_operations set first_dispatched_at = first_dispatched_at - interval '12 days' where leg = 'payout'")
        .await;
    stage.double.deauthorize("acct_3");
    reconcile(&stage).await;
    assert_eq!(found(&stage).await, ["account_gone open", "payout_overdue open", "payout_overdue open"]);
    stage.double.settle_payouts();
    stage.hear().await;
    next_day(&stage).await;
    assert_eq!(stage.rows("select kind from discrepancies where kind = 'payout_overdue' and state <> 'resolved'").await, [""; 0]);

    // Refused long ago, in a country where Stripe holds money for 90 days; and a charge that nobody has paid out, in the US.
    let stage = sent(3).await;
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    stage.double.fail_payout(&stage.double.payouts()[1].id, "account_closed");
    let charge = DestinationCharge { amount: 500, destination: "acct_3".to_owned(), ..DestinationCharge::default() };
    stage.double.create_destination_charge(&charge).expect("charged");
    stage.hear().await;
    stage.run("update stripe_accounts set country = 'DE' where account = 'acct_1'").await;
    stage.run("update payout_operations set settled_at = settled_at - interval '72 days' where leg = 'transfer'").await;
    stage.run("update creator_earnings set occurred_at = occurred_at - interval '600 days' where place = 'connected'").await;
    reconcile(&stage).await;
    let held =
        stage.rows("select account, expected, found from discrepancies where kind = 'held_too_long' order by account").await;
    assert_eq!(
        held,
        [
            "acct_1 paid out within 90 days 10000000 micros of usd, for 72 days",
            "acct_3 paid out within 730 days 5000000 micros of usd, for 600 days"
        ]
    );
}

#[tokio::test]
async fn interrupted_anywhere_it_goes_on_where_it_stopped_and_two_at_once_are_one() {
    let stage = sent(205).await;
    stage.double.settle_payouts();
    arrival_is_over(&stage).await;
    let calls = |path: &str| stage.calls("GET", path).len();
    let broken = stage.double.fault(FaultRule::get("/v1/transfers", When::Nth(3), Fault::Html { status: 503 }));
    reconcile(&stage).await;
    let stands = "select stage, cursor is not null, finished_at is null, leased_until = '-infinity' from reconciliations";
    assert_eq!(stage.row(stands).await, "transfers true true true");
    stage.double.remove_fault(broken);
    stage.double.fault(FaultRule::get(
        "/v1/payouts",
        When::Nth(60),
        Fault::RateLimited { reason: "global-rate".to_owned(), retry_after: None },
    ));
    reconcile(&stage).await;
    assert_eq!(stage.row(stands).await, "payouts true true true");
    assert_eq!(calls("/v1/transfers"), 4, "two pages, one refused, and the last");
    let (one, two) = (reconciler(&stage), reconciler(&stage));
    let (one, two) = tokio::join!(one.run(), two.run());
    one.and(two).expect("reconciled");
    assert_eq!(stage.row(stands).await, "done false false true");
    // 75 accounts were asked in the second run, of which the last 25 were asked again.
    assert!(calls("/v1/payouts") <= 205 + 25, "{}", calls("/v1/payouts"));
    assert_eq!(stage.statuses().await, "paid=205");
    assert_eq!(sums(&stage).await, ["payout usd 205 205000 205000", "transfer usd 205 205000 205000"], "each page counts once");
    assert_eq!(found(&stage).await, [""; 0]);
    stage.audit().await;
}

#[tokio::test]
async fn a_process_that_lost_its_lease_writes_nothing_more() {
    let stage = sent(3).await;
    stage.double.set_latency(200);
    let slow = reconciler(&stage);
    let steal = async {
        // While it waits for its first answer, its lease is over and another has begun.
        while stage.count("reconciliations where leased_until > now()").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.run("update reconciliations set lease = gen_random_uuid()").await;
    };
    let (slow, ()) = tokio::join!(slow.run(), steal);
    slow.expect("it stops quietly");
    assert_eq!(stage.row("select stage, reads from reconciliations").await, "events 0");
    stage.run("update reconciliations set leased_until = '-infinity'").await;
    reconcile(&stage).await;
    assert_eq!(newest(&stage).await, "done 2 0 0");
}

#[tokio::test]
async fn what_a_person_ignores_stays_ignored_until_it_is_another() {
    let stage = sent(1).await;
    make(&stage, Leg::Transfer, "acct_1", 77, 1, 500).await;
    reconcile(&stage).await;
    stage.run("update discrepancies set state = 'ignored'").await;
    let told = stage.count("outbox").await;
    next_day(&stage).await;
    assert_eq!(found(&stage).await, ["sums_differ ignored", "unknown_object ignored"]);
    assert_eq!(stage.count("outbox").await, told);
    stage.double.reverse_transfer(&stage.double.transfers()[1].id, 100).expect("reversed");
    next_day(&stage).await;
    // Its amount is what was found; the sum is another now.
    assert_eq!(found(&stage).await, ["unknown_object ignored", "sums_differ open"]);
    // Events that came twice by then, by list and by webhook, did nothing twice.
    for event in stage.double.events() {
        stage.take_in(&event_body(&event)).await;
    }
    stage.record(vec![earning("again", 1, 100)]).await;
    assert_eq!(stage.count(&format!("creator_earnings where creator_id = '{}'", creator(1))).await, 2);
}

/// What `reconciliation/mod.rs` says it costs, counted; `cargo payday bench --only reconciliation` counts it for a hundred thousand.
#[tokio::test]
async fn the_reads_of_a_cycle_are_a_page_for_a_hundred_transfers_and_one_for_each_account() {
    let stage = sent(250).await;
    stage.double.settle_payouts();
    stage.hear().await;
    for (what, reads) in [("the day after", 3 + 1), ("the last look", 3 + 1 + 250)] {
        reconcile(&stage).await;
        assert_eq!(newest(&stage).await, format!("done {reads} 0 0"), "{what}");
        assert_eq!(found(&stage).await, [""; 0]);
        stage.later(Span::days(11)).await;
    }
}
