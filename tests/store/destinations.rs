//! Changed bank accounts: who is told, what waits for an operator, who shares one.

use chrono::Duration as Span;
use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::payees::store::{Confirmed, confirm};
use payday::payees::{self, NewPayee};
use payday_local::stripe_double::BankSpec;
use payday_tests::stage::Stage;
use payday_tests::world::{World, account_of, at, creator, ready_account};
use serde_json::{Value, json};

fn with_bank(n: u128, fingerprint: &str) -> Value {
    let mut account = ready_account(&account_of(n));
    account["external_accounts"]["data"][0]["fingerprint"] = json!(fingerprint);
    account
}

async fn said(world: &World, n: u128, account: Value, when: &str) {
    let account = serde_json::from_value(account).expect("an account");
    let mut tx = world.tx().await;
    payees::describe(&mut tx, creator(n), account, at(when)).await.expect("described");
    tx.commit(Boundary::Outside).await.expect("a commit");
}

async fn told(world: &World) -> Vec<String> {
    world
        .rows(
            "select kind, right(payload->>'creatorId', 1), coalesce(payload->>'to', payload->>'others') from outbox order by id",
        )
        .await
}

async fn email(world: &World, n: u128, email: &str) {
    let payee = NewPayee {
        id: creator(n),
        account: None,
        country: None,
        email: Some(email.to_owned()),
        payout_enabled: true,
        minimum_payout: None,
        schedule: Schedule::Semimonthly,
        beta: false,
    };
    let mut tx = world.tx().await;
    payees::store::import(&mut tx, &[payee]).await.expect("entered");
    tx.commit(Boundary::Outside).await.expect("a commit");
}

#[tokio::test]
async fn a_change_is_told_once_to_the_address_that_was_there_before() {
    let world = World::new().await;
    world.creators(1..=2).await;
    email(&world, 1, "old@example.com").await;
    said(&world, 1, with_bank(1, "bank of acct_1"), "2026-11-01T00:00:00Z").await;
    assert_eq!(told(&world).await, [""; 0], "the same bank");
    // Whoever took the account over has changed the address first.
    email(&world, 1, "new@example.com").await;
    said(&world, 1, with_bank(1, "another"), "2026-11-02T00:00:00Z").await;
    said(&world, 1, with_bank(1, "another"), "2026-11-02T00:00:00Z").await;
    said(&world, 1, with_bank(1, "another"), "2026-11-03T00:00:00Z").await;
    let both = r#"destination_changed 1 ["new@example.com", "old@example.com"]"#;
    assert_eq!(told(&world).await, [both]);
    // A swapped account is a change too, and after a month the former address is nobody's.
    world.run("update payees set email_changed_at = now() - interval '31 days'").await;
    let mut swapped = with_bank(1, "another");
    swapped["id"] = json!("acct_swapped");
    said(&world, 1, swapped, "2026-11-04T00:00:00Z").await;
    assert_eq!(told(&world).await, [both, r#"destination_changed 1 ["new@example.com"]"#]);
    assert_eq!(
        world
            .row("select account, destination_changed_at = '2026-11-04' from stripe_accounts where account = 'acct_swapped'")
            .await,
        "acct_swapped true"
    );
    // The first bank is no change.
    world.run("update stripe_accounts set destination = null where account = 'acct_2'").await;
    said(&world, 2, with_bank(2, "the first"), "2026-11-05T00:00:00Z").await;
    assert_eq!(told(&world).await.len(), 2);
}

#[tokio::test]
async fn a_destination_of_two_payees_is_told_once() {
    let world = World::new().await;
    world.creators(1..=3).await;
    said(&world, 2, with_bank(2, "bank of acct_1"), "2026-11-02T00:00:00Z").await;
    said(&world, 2, with_bank(2, "bank of acct_1"), "2026-11-03T00:00:00Z").await;
    said(&world, 3, with_bank(3, "bank of acct_1"), "2026-11-03T00:00:00Z").await;
    let shared: Vec<String> =
        world.rows("select right(payload->>'creatorId', 1), jsonb_array_length(payload->'others') from outbox where kind = 'destination_shared' order by id").await;
    assert_eq!(shared, ["2 1", "3 2"]);
}

async fn confirms(world: &World, n: u128, destination: &str) -> Confirmed {
    let mut tx = world.tx().await;
    let done = confirm(&mut tx, creator(n), destination, "an operator", chrono::Utc::now()).await.expect("an answer");
    tx.commit(Boundary::Outside).await.expect("a commit");
    done
}

#[tokio::test]
async fn a_large_amount_to_a_changed_bank_waits_for_an_operator_and_a_small_one_only_for_the_cool_off() {
    let mut world = World::new().await;
    world.policy.two_person_above_cents = 50_000;
    world.creators(1..=5).await;
    for (n, minor) in [(1, 50_000), (2, 50_001), (3, 50_001), (4, 50_001), (5, 50_001)] {
        world.earned(n, minor).await;
    }
    for n in 1..=4 {
        // Three days before the cycle; for the fourth, two.
        let when = if n == 4 { "2026-11-13T06:00:01Z" } else { "2026-11-12T05:00:00Z" };
        said(&world, n, with_bank(n, &format!("new {n}")), when).await;
    }
    assert_eq!(confirms(&world, 3, "bank of acct_3").await, Confirmed::Changed);
    assert_eq!(confirms(&world, 3, "new 3").await, Confirmed::Now);
    assert_eq!(confirms(&world, 3, "new 3").await, Confirmed::Before);
    assert_eq!(confirms(&world, 4, "new 4").await, Confirmed::Now);
    assert_eq!(confirms(&world, 9, "new 9").await, Confirmed::Nothing);
    world.batches().await;
    let why = "select right(creator_id::text, 1), reason, code from payout_exclusions order by creator_id";
    assert_eq!(
        world.rows(why).await,
        ["2 destination_cooloff destination_unconfirmed", "4 destination_cooloff -"],
        "confirming does not end the cool-off"
    );
    assert_eq!(world.rows("select right(creator_id::text, 1) from payout_items order by creator_id").await, ["1", "3", "5"]);
    // Confirmed is that one destination, not the next.
    said(&world, 3, with_bank(3, "newer 3"), "2026-11-16T00:00:00Z").await;
    world.earned(3, 60_000).await;
    world.run("update payout_items set status = 'paid', due_at = null").await;
    world.cycle(Schedule::Semimonthly, "2026-12-01", 25).await;
    assert_eq!(
        world.rows("select reason, code from payout_exclusions where run_id = 2 and right(creator_id::text, 1) = '3'").await,
        ["destination_cooloff destination_unconfirmed"]
    );
}

#[tokio::test]
async fn a_destination_that_changes_after_the_batch_is_asked_about_again_before_it_is_sent() {
    let mut stage = Stage::new().await;
    stage.world.policy.two_person_above_cents = 500;
    stage.payer.policy = stage.world.policy.clone();
    let chunk = stage.crowd(2, 1_000).await[0];
    stage.run("update stripe_accounts set destination = 'new', destination_changed_at = now() - interval '80 hours' where account = 'acct_1'").await;
    stage.process(chunk).await.expect("worked");
    assert_eq!(stage.statuses().await, "canceled=1 in_transit=1");
    assert_eq!(stage.rows("select reason, code from payout_exclusions").await, ["destination_cooloff destination_unconfirmed"]);
    assert_eq!(stage.double.transfers().len(), 1);
    stage.world.audit().await;
}

#[tokio::test]
async fn a_refused_payout_of_a_large_amount_goes_to_the_new_bank_only_once_an_operator_has_confirmed_it() {
    for news_first in [true, false] {
        let mut stage = Stage::new().await;
        stage.world.policy.two_person_above_cents = 500;
        stage.payer.policy = stage.world.policy.clone();
        stage.crowd(2, 400).await;
        stage.record(vec![payday_tests::world::earning("large", 1, 600)]).await;
        let payouts = async || stage.double.payouts().len();
        // The first has 4.00 under way and waits with the rest; the large one is made by its own cycle.
        stage.finish().await;
        stage.double.settle_payouts();
        stage.hear().await;
        stage.cycle(Schedule::Semimonthly, "2026-12-01", 25).await;
        let mut tx = stage.tx().await;
        payday::payouts::store::batches::remember_policy(&mut tx, &stage.policy).await.expect("remembered");
        tx.commit(Boundary::Outside).await.expect("a commit");
        stage.finish().await;
        assert_eq!(payouts().await, 3);
        let large = stage.double.payouts().remove(2);
        stage.later(Span::seconds(3)).await;
        let change = || {
            stage.double.update_account("acct_1", |account| {
                account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
            });
        };
        if news_first {
            change();
            stage.double.fail_payout(&large.id, "account_closed");
        } else {
            stage.double.fail_payout(&large.id, "account_closed");
            change();
        }
        stage.hear().await;
        payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
        stage.finish().await;
        assert_eq!(
            (stage.statuses().await.as_str(), payouts().await),
            ("paid=2 payout_blocked=1", 3),
            "news first: {news_first}"
        );
        assert_eq!(confirms(&stage.world, 1, "another bank").await, Confirmed::Now);
        let mut tx = stage.tx().await;
        let retried =
            payees::store::retry_payouts_to_new_bank_of(&mut tx, creator(1), chrono::Utc::now()).await.expect("retried");
        tx.commit(Boundary::Outside).await.expect("a commit");
        assert_eq!(retried, 1);
        stage.finish().await;
        assert_eq!(payouts().await, 4);
        assert_eq!(stage.double.transfers().len(), 3, "never a new transfer");
        stage.audit().await;
    }
}

#[tokio::test]
async fn nobody_who_is_blocked_is_paid_to_another_bank_until_the_block_is_lifted() {
    for change_first in [true, false] {
        let stage = Stage::new().await;
        stage.crowd(1, 1_000).await;
        stage.work().await;
        stage.later(Span::seconds(3)).await;
        let by = payday::audit::By::new("an operator", "a request");
        payees::roster::block(&stage.db, creator(1), true, "odd", &by).await.expect("blocked");
        let change = || {
            stage.double.update_account("acct_1", |account| {
                account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
            });
        };
        if change_first {
            change();
            stage.hear().await;
        }
        stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
        if !change_first {
            change();
        }
        stage.hear().await;
        payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
        stage.finish().await;
        assert_eq!(
            (stage.statuses().await.as_str(), stage.double.payouts().len()),
            ("payout_blocked=1", 1),
            "change first: {change_first}"
        );
        payees::roster::block(&stage.db, creator(1), false, "it was the creator", &by).await.expect("unblocked");
        stage.finish().await;
        assert_eq!((stage.statuses().await.as_str(), stage.double.payouts().len()), ("in_transit=1", 2));
        stage.audit().await;
    }
}

/// Whoever takes an account over on a pay day changes the bank while the money is on its way to it.
#[tokio::test]
async fn a_payout_waits_when_the_bank_changes_or_the_payee_is_blocked_after_the_transfer() {
    for change in ["bank", "block"] {
        let stage = Stage::new().await;
        stage.double.set_transfer_available_after(86_400_000);
        stage.crowd(1, 1_000).await;
        stage.work().await;
        assert_eq!(stage.statuses().await, "awaiting_available=1");
        stage.later(Span::seconds(3)).await;
        if change == "bank" {
            stage.double.update_account("acct_1", |account| {
                account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
            });
            stage.hear().await;
            payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
        } else {
            stage.run("update payees set blocked_reason = 'odd'").await;
        }
        for _ in 0..30 {
            stage.later(Span::hours(1)).await;
            stage.work().await;
        }
        assert_eq!((stage.statuses().await.as_str(), stage.double.payouts().len()), ("awaiting_available=1", 0), "{change}");
        if change == "bank" {
            stage.later(Span::hours(48)).await;
        } else {
            stage.run("update payees set blocked_reason = null").await;
        }
        stage.finish().await;
        assert_eq!((stage.statuses().await.as_str(), stage.double.payouts().len()), ("in_transit=1", 1), "{change}");
        stage.audit().await;
    }
}
