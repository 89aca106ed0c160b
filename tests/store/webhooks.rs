//! What Stripe tells: in any order, twice, under two ids, before we know the object or before its answer is saved. The final
//! state is the same.

use std::time::Duration;

use chrono::Duration as Span;
use payday::boundary::Boundary;
use payday::stripe_events::{Received, remember_mode, retry_waiting};
use payday_local::stripe_double::{BankSpec, DestinationCharge, Fault, FaultRule, StripeDoubleOptions, When};
use payday_tests::stage::{KEY, Stage, event_body, impatient};
use payday_tests::world::{World, account_of, at, creator, ready_account};
use serde_json::{Value, json};

fn permutations<'a>(of: &[&'a str]) -> Vec<Vec<&'a str>> {
    if of.len() <= 1 {
        return vec![of.to_vec()];
    }
    let mut all = Vec::new();
    for (index, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(index);
        all.extend(permutations(&rest).into_iter().map(|mut order| {
            order.insert(0, first);
            order
        }));
    }
    all
}

/// The double's events about payouts to an account, by type.
fn events_of(stage: &Stage, account: &str, kind: &str) -> Value {
    let events = stage.double.events();
    let found = events.iter().find(|it| it.account.as_deref() == Some(account) && it.kind == kind);
    event_body(found.unwrap_or_else(|| panic!("{kind} of {account}")))
}

/// The same fact under another id.
fn again(event: &Value) -> Value {
    let mut copy = event.clone();
    copy["id"] = json!(format!("{}_again", event["id"].as_str().unwrap_or_default()));
    copy
}

#[tokio::test]
async fn news_of_a_payout_in_every_order_and_doubled_end_in_the_same_state_whether_its_answer_was_saved_or_not() {
    let mut plans: Vec<(Vec<&str>, bool, &str)> = Vec::new();
    for (facts, wanted) in [
        (
            vec!["payout.created", "payout.updated", "payout.paid", "payout.failed"],
            "returned returned at_stripe=10000000 account_closed",
        ),
        (vec!["payout.created", "payout.updated", "payout.paid"], "paid accepted paid_out=10000000 -"),
        (vec!["payout.created", "payout.updated", "payout.failed"], "payout_blocked returned at_stripe=10000000 account_closed"),
    ] {
        for order in permutations(&facts) {
            for answered in [true, false] {
                plans.push((order.clone(), answered, wanted));
            }
        }
    }
    let mut stage = Stage::new().await;
    stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(500));
    for (n, _) in (1..).zip(&plans).filter(|(_, (_, answered, _))| !answered) {
        stage.double.fault(FaultRule::post("/v1/payouts", When::Always, Fault::ExecuteThenHang).for_account(&account_of(n)));
    }
    let count = u128::try_from(plans.len()).expect("small");
    stage.crowd_in_chunks(count, 1_000, 100).await;
    stage.work().await;
    for (n, (facts, _, _)) in (1..).zip(&plans) {
        let payouts = stage.double.payouts();
        let payout = payouts.iter().find(|it| it.account == account_of(n)).expect("a payout");
        stage.double.send_payout(&payout.id);
        if facts.contains(&"payout.paid") {
            stage.double.settle_payout(&payout.id);
        }
        if facts.contains(&"payout.failed") {
            stage.double.fail_payout(&payout.id, "account_closed");
        }
    }
    for (n, (order, answered, wanted)) in (1..).zip(&plans) {
        for kind in order {
            let event = events_of(&stage, &account_of(n), kind);
            assert_eq!(stage.take_in(&event).await, Received::New);
            assert_eq!(stage.take_in(&again(&event)).await, Received::New, "one fact, two events");
        }
        let row = stage
            .row(&format!(
                "select i.status, o.state, i.failure_code from payout_items i
                 join payout_operations o on o.item_id = i.id and o.leg = 'payout' where i.creator_id = '{}'",
                creator(n)
            ))
            .await;
        let mut words = wanted.split(' ');
        let (status, state, balance, code) = (words.next(), words.next(), words.next(), words.next());
        let found: Vec<&str> = row.split(' ').collect();
        assert_eq!((Some(found[0]), Some(found[1]), Some(found[2])), (status, state, code), "{order:?}, answered: {answered}");
        assert_eq!(Some(stage.balance(n, "usd").await.as_str()), balance, "{order:?}, answered: {answered}");
    }
    stage.work().await;
    let sends: i64 = stage.value("select max(sends)::bigint from payout_operations").await;
    assert_eq!(sends, 1, "what a webhook has told is not asked again");
    stage.audit().await;
}

/// A Stripe that answers a payout 400 ms after it made it.
async fn slow_to_answer() -> Stage {
    let latency_by_endpoint = vec![("POST /v1/payouts".to_owned(), 800)];
    Stage::with(StripeDoubleOptions { latency_by_endpoint, ..StripeDoubleOptions::default() }).await
}

#[tokio::test]
async fn news_that_overtake_the_answer_and_the_answer_agree() {
    let stage = slow_to_answer().await;
    let chunk = stage.crowd(8, 1_000).await[0];
    let news = async {
        let mut paid = 0;
        while paid < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            paid += stage.double.settle_payouts();
            stage.hear().await;
        }
    };
    let (worked, ()) = tokio::join!(stage.process(chunk), news);
    worked.expect("the late answers say nothing new");
    assert_eq!(stage.statuses().await, "paid=8");
    assert_eq!(stage.row("select max(sends) from payout_operations").await, "1");
    stage.audit().await;
}

/// The object that a lookup found is the one that a webhook told of while Stripe was asked: no second one.
#[tokio::test]
async fn a_lookup_that_a_webhook_overtakes_contradicts_nothing() {
    let latency_by_endpoint = vec![("GET /v1/payouts".to_owned(), 800)];
    let stage = Stage::with(StripeDoubleOptions { latency_by_endpoint, ..StripeDoubleOptions::default() }).await;
    stage.double.fault(FaultRule::post("/v1/payouts", When::Nth(1), Fault::ExecuteThen500));
    let chunk = stage.crowd(1, 1_000).await[0];
    stage.process(chunk).await.expect("worked");
    assert_eq!(stage.statuses().await, "paying_out=1");
    stage.later(Span::seconds(2)).await;
    let lookups = || stage.calls("GET", "/v1/payouts").len();
    let before = lookups();
    let news = async {
        while lookups() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.hear().await;
    };
    let (worked, ()) = tokio::join!(stage.process(chunk), news);
    worked.expect("worked");
    assert_eq!(stage.statuses().await, "in_transit=1");
    assert_eq!(stage.row("select status, halt_reason from payout_batches").await, "completed -");
    stage.audit().await;
}

/// The worker has to wait for the item because a webhook has it, and must then see what the webhook did.
#[tokio::test]
async fn an_answer_that_waited_for_a_webhook_s_lock_is_settled_by_what_the_webhook_left() {
    let stage = slow_to_answer().await;
    let chunk = stage.crowd(1, 1_000).await[0];
    let webhook = async {
        while stage.double.payouts().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let body = events_of(&stage, "acct_1", "payout.created");
        let event = serde_json::from_value(body.clone()).expect("an event");
        // Taken in as the receiver does, but the commit waits until the worker waits for us.
        let mut tx = stage.tx().await;
        assert!(payday::stripe_events::store::insert(&mut tx, &event, &body).await.expect("stored"));
        let loaded =
            payday::payouts::store::chunks::load(&mut tx, payday::id::ItemId(1)).await.expect("loaded").expect("the item");
        assert_eq!(loaded.item.status.as_str(), "paying_out");
        tx.run(
            payday::db::query("update payout_operations set state = 'accepted', stripe_id = $1 where leg = 'payout'")
                .bind(stage.double.payouts()[0].id.clone()),
        )
        .await
        .expect("a change");
        tx.run(payday::db::query("update payout_items set status = 'in_transit', due_at = null")).await.expect("a change");
        while stage.count("pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tx.commit(Boundary::Outside).await.expect("a commit");
    };
    let (worked, ()) = tokio::join!(stage.process(chunk), webhook);
    worked.expect("no transition is missing");
    assert_eq!(stage.statuses().await, "in_transit=1");
    stage.audit().await;
}

async fn reversal(stage: &Stage, minor: i64) -> Value {
    let transfer = stage.double.transfers().remove(0);
    stage.double.reverse_transfer(&transfer.id, minor).expect("reversed");
    event_body(stage.double.events().iter().rfind(|it| it.kind == "transfer.reversed").expect("the event"))
}

#[tokio::test]
async fn a_transfer_that_is_reversed_in_parts_and_then_in_full_comes_back_once_in_whatever_order_that_is_told() {
    for order in [vec![0, 1], vec![1, 0], vec![0, 0, 1, 1], vec![1, 0, 1], vec![1]] {
        let stage = Stage::new().await;
        stage.double.set_transfer_available_after(86_400_000);
        stage.crowd(1, 1_000).await;
        stage.work().await;
        assert_eq!(stage.statuses().await, "awaiting_available=1");
        let events = [reversal(&stage, 300).await, reversal(&stage, 700).await];
        for (turn, index) in order.iter().enumerate() {
            let mut event = events[*index].clone();
            event["id"] = json!(format!("evt_{turn}"));
            stage.take_in(&event).await;
            if order == [0, 1] && turn == 0 {
                assert_eq!(stage.balance(1, "usd").await, "available_platform=3000000 at_stripe=7000000");
                assert_eq!(stage.statuses().await, "awaiting_available=1", "a part of it ends nothing");
            }
        }
        assert_eq!(stage.row("select status, failure_code from payout_items").await, "canceled transfer_reversed", "{order:?}");
        assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000", "{order:?}");
        stage.finish().await;
        assert_eq!(stage.double.transfers().len(), 1, "a reversal never opens an attempt");
        stage.audit().await;
    }
}

/// Somebody who finds a second transfer of one attempt at Stripe takes that one back.
#[tokio::test]
async fn a_second_transfer_of_an_attempt_that_is_reversed_is_no_money_of_the_payee() {
    let stage = Stage::new().await;
    stage.double.set_transfer_available_after(86_400_000);
    stage.crowd(1, 1_000).await;
    stage.work().await;
    let mut event = reversal(&stage, 1_000).await;
    event["data"]["object"]["id"] = json!("tr_second");
    stage.take_in(&event).await;
    assert_eq!(stage.statuses().await, "awaiting_available=1");
    assert_eq!(stage.balance(1, "usd").await, "at_stripe=10000000");
    assert_eq!(stage.row("select reversed_minor from payout_operations where leg = 'transfer'").await, "0");
    stage.world.audit().await;
}

#[tokio::test]
async fn a_reversal_told_before_the_answer_to_the_transfer_ends_the_item() {
    let mut stage = Stage::new().await;
    stage.payer.stripe = impatient(&stage.double, KEY, Duration::from_millis(300));
    stage.double.fault(FaultRule::post("/v1/transfers", When::Always, Fault::ExecuteThenHang));
    stage.crowd(1, 1_000).await;
    stage.work().await;
    let event = reversal(&stage, 1_000).await;
    stage.take_in(&event).await;
    assert_eq!(stage.statuses().await, "canceled=1");
    assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000");
    stage.finish().await;
    stage.audit().await;
}

#[tokio::test]
async fn a_reversal_while_the_payout_is_in_doubt_does_not_make_it_forgotten() {
    let stage = Stage::new().await;
    stage.double.fault(FaultRule::post("/v1/payouts", When::Nth(1), Fault::ResetBefore));
    stage.double.fund_account(Some("acct_1"), "usd", 0);
    stage.crowd(1, 1_000).await;
    stage.work().await;
    assert_eq!(stage.statuses().await, "paying_out=1");
    let due = stage.row("select due_at from payout_items").await;
    stage.double.fund_account(Some("acct_1"), "usd", 500);
    let event = reversal(&stage, 400).await;
    stage.take_in(&event).await;
    assert_eq!(stage.row("select due_at from payout_items").await, due, "it is still to be asked about");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=1");
    assert_eq!(stage.balance(1, "usd").await, "available_platform=4000000 at_stripe=6000000");
    stage.audit().await;
}

#[tokio::test]
async fn a_reversal_behind_our_back_makes_at_stripe_negative_and_blocks_the_payee() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    stage.double.settle_payouts();
    stage.hear().await;
    stage.double.fund_account(Some("acct_1"), "usd", 1_000);
    reversal(&stage, 1_000).await;
    stage.hear().await;
    assert_eq!(stage.balance(1, "usd").await, "available_platform=10000000 at_stripe=-10000000 paid_out=10000000");
    stage.cycle(payday::clock::Schedule::Semimonthly, "2026-12-01", 25).await;
    assert_eq!(stage.rows("select reason from payout_exclusions").await, ["blocked"]);
    stage.audit().await;
}

#[tokio::test]
async fn a_refused_payout_goes_out_again_by_a_new_payout_once_the_bank_account_is_another() {
    for paid_first in [true, false] {
        let stage = Stage::new().await;
        stage.crowd(1, 1_000).await;
        stage.work().await;
        let payout = stage.double.payouts().remove(0);
        if paid_first {
            stage.double.settle_payout(&payout.id);
        }
        stage.later(Span::days(3)).await;
        stage.double.fail_payout(&payout.id, "account_closed");
        stage.hear().await;
        assert_eq!(stage.statuses().await, if paid_first { "returned=1" } else { "payout_blocked=1" });
        stage.finish().await;
        assert_eq!(stage.double.payouts().len(), 1, "the same bank account is not tried again");
        stage.double.update_account("acct_1", |account| {
            account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
        });
        stage.hear().await;
        stage.finish().await;
        assert_eq!(stage.statuses().await, "in_transit=1");
        stage.double.settle_payouts();
        stage.hear().await;
        assert_eq!(stage.statuses().await, "paid=1");
        assert_eq!(stage.operations("1").await, ["transfer.1 accepted 1", "payout.1 returned 1", "payout.2 accepted 1"]);
        assert_eq!(stage.double.transfers().len(), 1, "never a new transfer");
        // Old news, again: they are of an attempt that another one followed.
        for kind in ["payout.failed", "payout.created"] {
            stage.take_in(&again(&events_of(&stage, "acct_1", kind))).await;
        }
        assert_eq!(stage.statuses().await, "paid=1");
        stage.audit().await;
    }
}

#[tokio::test]
async fn a_bank_account_that_is_another_before_the_refusal_of_the_first_is_told_is_paid_all_the_same() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    let payout = stage.double.payouts().remove(0);
    stage.later(Span::days(3)).await;
    stage.double.fail_payout(&payout.id, "account_closed");
    stage.double.update_account("acct_1", |account| {
        account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
    });
    for kind in ["account.updated", "payout.failed"] {
        stage.take_in(&events_of(&stage, "acct_1", kind)).await;
    }
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=1");
    assert_eq!(stage.operations("1").await, ["transfer.1 accepted 1", "payout.1 returned 1", "payout.2 accepted 1"]);
    stage.audit().await;
}

#[tokio::test]
async fn old_news_of_a_payment_that_came_back_do_not_keep_it_from_the_other_bank_account() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    let payout = stage.double.payouts().remove(0);
    stage.double.settle_payout(&payout.id);
    stage.later(Span::days(3)).await;
    stage.double.fail_payout(&payout.id, "account_closed");
    stage.double.update_account("acct_1", |account| {
        account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
    });
    for kind in ["payout.failed", "account.updated", "payout.paid"] {
        stage.take_in(&events_of(&stage, "acct_1", kind)).await;
    }
    assert_eq!(stage.statuses().await, "returned=1");
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=1");
    assert_eq!(stage.operations("1").await, ["transfer.1 accepted 1", "payout.1 returned 1", "payout.2 accepted 1"]);
    stage.audit().await;
}

type Change = fn(&mut Value);

#[tokio::test]
async fn what_is_not_ours_is_kept_and_changes_nothing() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    let ours = events_of(&stage, "acct_1", "payout.created");
    let before = stage.rows("select * from payout_items").await;
    let changed = |change: Change| {
        let mut event = ours.clone();
        event["type"] = json!("payout.failed");
        event["data"]["object"]["id"] = json!("po_other");
        change(&mut event);
        event
    };
    let cases: [(&str, Change, &str); 7] = [
        (
            "another instance",
            |it| it["data"]["object"]["metadata"]["operation_id"] = json!("0123456789abcdef-1-payout-1"),
            "ignored",
        ),
        ("no mark", |it| it["data"]["object"]["metadata"] = json!({}), "ignored"),
        (
            "a mark that is none",
            |it| it["data"]["object"]["metadata"]["operation_id"] = json!("x-99999999999999999999-payout-1"),
            "ignored",
        ),
        ("the platform's own payout", |it| drop(it.as_object_mut().map(|it| it.remove("account"))), "ignored"),
        ("not a payout", |it| it["data"]["object"] = json!({}), "ignored"),
        ("a type we do not know", |it| it["type"] = json!("payout.reconsidered"), "ignored"),
        ("another amount", |it| it["data"]["object"]["amount"] = json!(999), "waiting"),
    ];
    for (number, (name, change, state)) in cases.into_iter().enumerate() {
        let mut event = changed(change);
        event["id"] = json!(format!("evt_{number}"));
        stage.take_in(&event).await;
        let row = stage.row(&format!("select state, payload->>'id' from stripe_events where id = 'evt_{number}'")).await;
        assert_eq!(row, format!("{state} evt_{number}"), "{name}");
        assert_eq!(stage.rows("select * from payout_items").await, before, "{name}");
    }
    stage.audit().await;
}

#[tokio::test]
async fn live_and_test_events_are_kept_apart_and_an_event_is_taken_once() {
    let world = World::new().await;
    world.creator(1).await;
    let event = |id: &str, livemode: bool| {
        json!({ "id": id, "type": "account.application.deauthorized", "account": "acct_1", "created": 1_800_000_000, "livemode": livemode,
                "data": { "object": { "id": "ca_1", "object": "application" } } })
    };
    let take = async |body: Value| {
        let event = serde_json::from_value(body.clone()).expect("an event");
        payday::stripe_events::take_in(&world.db, &world.policy, &event, &body).await.expect("taken in")
    };
    remember_mode(&world.db, false).await.expect("remembered");
    remember_mode(&world.db, false).await.expect("twice");
    assert_eq!(take(event("evt_live", true)).await, Received::New);
    assert_eq!(world.row("select deauthorized_at from stripe_accounts").await, "-");
    assert_eq!(take(event("evt_test", false)).await, Received::New);
    assert_ne!(world.row("select deauthorized_at from stripe_accounts").await, "-");
    world.run("update stripe_accounts set deauthorized_at = null").await;
    assert_eq!(take(event("evt_test", false)).await, Received::Repeated);
    assert_eq!(world.row("select deauthorized_at from stripe_accounts").await, "-", "no second effect");
    assert_eq!(
        world.rows("select id, state, livemode from stripe_events order by id").await,
        ["evt_live ignored true", "evt_test applied false"]
    );
}

#[tokio::test]
async fn the_same_event_delivered_at_once_has_one_effect() {
    let stage = Stage::new().await;
    stage.crowd(1, 1_000).await;
    stage.work().await;
    stage.double.settle_payouts();
    let event = events_of(&stage, "acct_1", "payout.paid");
    let twin = again(&event);
    let taken = futures::future::join_all([&event, &event, &event, &event, &twin, &twin].map(|it| stage.take_in(it))).await;
    assert_eq!(taken.iter().filter(|it| **it == Received::New).count(), 2);
    assert_eq!(stage.balance(1, "usd").await, "paid_out=10000000");
    stage.audit().await;
}

#[tokio::test]
async fn events_of_what_we_do_not_know_yet_wait_and_are_applied_when_we_do() {
    let stage = Stage::new().await;
    stage.accounts(1..=1);
    let charge = DestinationCharge {
        amount: 1_000,
        application_fee_amount: 100,
        destination: "acct_1".to_owned(),
        ..DestinationCharge::default()
    };
    let charged = stage.double.create_destination_charge(&charge).expect("charged");
    stage.double.refund(&charged.charge, 400, true, true).expect("refunded");
    stage.double.dispute(&charged.charge, 300, "fraudulent").expect("disputed");
    // All of them arrive before anyone has told us of the account, the last first.
    let mut events: Vec<Value> = stage.double.events().iter().map(|event| event_body(event)).collect();
    events.reverse();
    for event in &events {
        stage.take_in(event).await;
    }
    let waiting = "select type from stripe_events where state = 'waiting' order by type";
    assert_eq!(
        stage.rows(waiting).await,
        ["charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.refunded", "payment_intent.succeeded"]
    );
    assert_eq!(retry_waiting(&stage.db, &stage.policy).await.expect("retried"), 0, "not due yet");
    stage.creator(1).await;
    for _ in 0..3 {
        stage.later(Span::hours(1)).await;
        retry_waiting(&stage.db, &stage.policy).await.expect("retried");
    }
    assert_eq!(stage.rows(waiting).await, [""; 0]);
    // 10.00 less 1.00; then 4.00 and 3.00 of the 10.00 taken back.
    assert_eq!(
        stage
            .row("select gross_micros, net_micros, taken_back_gross_micros, taken_back_net_micros, place from creator_earnings")
            .await,
        "10000000 9000000 7000000 6300000 connected"
    );
    assert_eq!(stage.balance(1, "usd").await, "held_connected=2700000");
    stage.world.audit().await;
}

#[tokio::test]
async fn an_event_that_never_finds_its_object_is_given_up_and_a_person_told() {
    let world = World::new().await;
    let body = json!({ "id": "evt_1", "type": "charge.refunded", "created": 1_800_000_000, "livemode": false,
                       "data": { "object": { "id": "ch_unknown", "amount_refunded": 5, "currency": "usd" } } });
    let event = serde_json::from_value(body.clone()).expect("an event");
    payday::stripe_events::take_in(&world.db, &world.policy, &event, &body).await.expect("taken in");
    world.run("update stripe_events set tries = 78").await;
    for state in ["waiting", "given_up", "given_up"] {
        world.run("update stripe_events set due_at = now() where due_at is not null").await;
        retry_waiting(&world.db, &world.policy).await.expect("retried");
        assert_eq!(world.row("select state from stripe_events").await, state);
    }
    assert_eq!(world.rows("select kind, payload->>'eventId' from outbox").await, ["event_given_up evt_1"]);
}

#[tokio::test]
async fn descriptions_of_an_account_in_any_order_leave_the_newest() {
    let stage = Stage::new().await;
    stage.accounts(1..=1);
    stage.creator(1).await;
    let described = |id: &str, created: &str, ready: bool| {
        let mut account = ready_account("acct_1");
        account["payouts_enabled"] = json!(ready);
        json!({ "id": id, "type": "account.updated", "account": "acct_1", "created": at(created).timestamp(), "livemode": false, "data": { "object": account } })
    };
    let enabled = async || stage.row("select payouts_enabled, stale from stripe_accounts").await;
    stage.take_in(&described("evt_2", "2026-11-02T00:00:00Z", false)).await;
    assert_eq!(enabled().await, "false false");
    stage.take_in(&described("evt_1", "2026-11-01T00:00:00Z", true)).await;
    assert_eq!(enabled().await, "false false", "an older description");
    stage.take_in(&described("evt_3", "2026-11-03T00:00:00Z", true)).await;
    assert_eq!(enabled().await, "true false");
    // That it is to be read again is not forgotten over a description from before.
    stage.double.update_account("acct_1", |account| account.past_due = vec!["x".to_owned()]);
    let other_bank = json!({ "id": "evt_bank", "type": "account.external_account.updated", "account": "acct_1", "created": at("2026-11-05T00:00:00Z").timestamp(), "livemode": false, "data": { "object": {} } });
    stage.take_in(&other_bank).await;
    stage.take_in(&described("evt_late", "2026-11-03T00:00:00Z", true)).await;
    stage.take_in(&described("evt_later", "2026-11-04T00:00:00Z", true)).await;
    assert_eq!(enabled().await, "true true");
    payday::payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
    assert_eq!(stage.row("select past_due, stale from stripe_accounts").await, "true false");
    stage.run("update stripe_accounts set state_at = '2026-11-03T00:00:00Z'").await;
    // Two of one second cannot be ordered: the account is read again, and what it says counts.
    stage.double.update_account("acct_1", |account| account.past_due = vec!["x".to_owned()]);
    stage.take_in(&described("evt_4", "2026-11-03T00:00:00Z", false)).await;
    assert_eq!(enabled().await, "true true");
    payday::payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
    assert_eq!(stage.row("select payouts_enabled, past_due, stale from stripe_accounts").await, "true true false");
    // Described by an event of the very second in which it was read: not older, and asked about.
    let now =
        stage.row("select to_char(state_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from stripe_accounts").await;
    stage.take_in(&described("evt_5", &now, false)).await;
    assert_eq!(stage.row("select stale from stripe_accounts").await, "true");
    // One that Stripe does not know any more.
    stage.run("update stripe_accounts set account = 'acct_gone', stale = true").await;
    payday::payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
    assert_eq!(stage.row("select stale, deauthorized_at is not null from stripe_accounts").await, "false true");
    for kind in ["capability.updated", "account.external_account.created"] {
        let body = json!({ "id": kind, "type": kind, "account": "acct_gone", "created": 1_800_000_000, "livemode": false, "data": { "object": {} } });
        stage.take_in(&body).await;
    }
    assert_eq!(stage.row("select stale from stripe_accounts").await, "true");
}
