//! The ledger: the database itself keeps it whole, and its projection equals what the entries say.

use std::collections::BTreeMap;

use payday::boundary::Boundary;
use payday::ledger::store::{differences, lock_balance, payees_out_of_balance, post, unbalanced};
use payday::ledger::{Account, Posting};
use payday_tests::world::{World, creator, cutoff, earning};

fn posting(event: &str, n: u128, from: Account, to: Account, micros: i64) -> Posting {
    Posting { event: event.to_owned(), leg: "test", attempt: 1, payee: creator(n), currency: "usd".to_owned(), from, to, micros }
}

async fn try_post(world: &World, postings: &[Posting]) -> Result<(), String> {
    let mut tx = world.tx().await;
    match post(&mut tx, postings).await {
        Ok(()) => tx.commit(Boundary::Outside).await.map_err(|error| error.causes()),
        Err(error) => Err(error.causes()),
    }
}

#[tokio::test]
async fn rows_of_the_ledger_are_never_changed_or_removed_not_even_by_their_owner() {
    let world = World::new().await;
    world.earned(1, 1_000).await;
    // A role that owns the table and is no superuser, as on a managed database.
    // Roles belong to the whole cluster, which outlives a test that fails.
    let owner = format!("owner_{}", uuid::Uuid::new_v4().simple());
    world
        .run(format!(
            "create role {owner}; alter table ledger_transfers owner to {owner}; grant usage on schema public to {owner}"
        ))
        .await;
    for role in ["none", owner.as_str()] {
        for statement in [
            "update ledger_transfers set amount_micros = 1",
            "update ledger_transfers set event = event where false",
            "delete from ledger_transfers",
            "truncate ledger_transfers",
            "truncate ledger_transfers cascade",
            "truncate payees cascade",
        ] {
            world.run(format!("set role {role}")).await;
            let refusal = world.refusal(statement).await;
            world.run("reset role").await;
            assert!(
                refusal.contains("inserted, never changed") || refusal.contains("permission denied"),
                "{statement} as {role}: {refusal}"
            );
        }
    }
    world.run(format!("reassign owned by {owner} to current_user; drop owned by {owner}; drop role {owner}")).await;
    world.audit_ledger().await;
}

#[tokio::test]
async fn the_same_posting_is_made_once() {
    let world = World::new().await;
    world.earned(1, 1_000).await;
    let reserve = posting("item:1", 1, Account::AvailablePlatform, Account::ReservedPlatform, 1_000);
    try_post(&world, std::slice::from_ref(&reserve)).await.expect("the first");
    let again = try_post(&world, std::slice::from_ref(&reserve)).await.expect_err("the second");
    assert!(again.contains("ledger_transfers_once"), "{again}");
    assert_eq!(world.balance(1, "usd").await, "available_platform=9999000 reserved_platform=1000");
    try_post(&world, &[Posting { attempt: 2, ..reserve }]).await.expect("another attempt is another posting");
    world.audit_ledger().await;
}

#[tokio::test]
async fn a_posting_of_nothing_is_left_out_and_one_below_zero_refused() {
    let world = World::new().await;
    world.earned(1, 1_000).await;
    try_post(&world, &[posting("nothing", 1, Account::AvailablePlatform, Account::Debt, 0)]).await.expect("nothing to do");
    assert_eq!(world.count("ledger_transfers where event = 'nothing'").await, 0);
    let below = try_post(&world, &[posting("below", 1, Account::AvailablePlatform, Account::PaidOut, -1)]).await;
    assert!(below.expect_err("refused").contains("ledger_transfers_amount_is_positive"));
    let circle = try_post(&world, &[posting("circle", 1, Account::PaidOut, Account::PaidOut, 1)]).await;
    assert!(circle.expect_err("refused").contains("ledger_transfers_accounts_are_known"));
    world.audit_ledger().await;
}

#[tokio::test]
async fn each_balance_that_may_not_be_negative_is_kept_so_by_a_constraint_of_its_name() {
    let world = World::new().await;
    world.earned(1, 1_000).await;
    for (from, name) in [
        (Account::HeldPlatform, "held_platform"),
        (Account::HeldConnected, "held_connected"),
        (Account::AvailableConnected, "available_connected"),
        (Account::ReservedPlatform, "reserved_platform"),
        (Account::ReservedConnected, "reserved_connected"),
        (Account::InFlight, "in_flight"),
        (Account::PaidOut, "paid_out"),
    ] {
        let refused = try_post(&world, &[posting(name, 1, from, Account::Earnings, 1)]).await.expect_err("refused");
        assert!(refused.contains(&format!("payee_balances_{name}_is_not_negative")), "{name}: {refused}");
    }
    let over = try_post(&world, &[posting("over", 1, Account::AvailablePlatform, Account::Earnings, 10_000_001)]).await;
    assert!(over.expect_err("refused").contains("payee_balances_available_platform_is_not_negative"));
    let credit = try_post(&world, &[posting("credit", 1, Account::AvailablePlatform, Account::Debt, 1)]).await;
    assert!(credit.expect_err("refused").contains("payee_balances_debt_is_never_above_zero"));
    // A reversal that Stripe made behind us.
    try_post(&world, &[posting("behind", 1, Account::AtStripe, Account::AvailablePlatform, 1)]).await.expect("at_stripe may");
    try_post(&world, &[posting("debt", 1, Account::Debt, Account::PaidOut, 1)]).await.expect("debt may");
    world.audit_ledger().await;
}

/// The projection against a model that knows only that a posting moves an amount from one account to another.
#[tokio::test]
async fn after_random_postings_the_projection_equals_the_entries_and_a_model() {
    use Account::{
        AtStripe, AvailableConnected, AvailablePlatform, Debt, Earnings, Fees, HeldConnected, HeldPlatform, InFlight, Losses,
        PaidOut, ReservedConnected, ReservedPlatform, StripeFees,
    };
    const SEED: u64 = 20_261_115;
    let all = [
        HeldPlatform,
        HeldConnected,
        AvailablePlatform,
        AvailableConnected,
        ReservedPlatform,
        ReservedConnected,
        InFlight,
        AtStripe,
        PaidOut,
        Debt,
        Earnings,
        Fees,
        StripeFees,
        Losses,
    ];
    let free = |account: Account| matches!(account, AtStripe | Earnings | Fees | StripeFees | Losses);
    let of_payee = |account: Account| !matches!(account, Earnings | Fees | StripeFees | Losses);
    let world = World::new().await;
    world.creators(1..=4).await;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut model: BTreeMap<(u128, &str, &str), i64> = BTreeMap::new();
    let mut accepted = 0;
    for step in 0..400 {
        let mut next = model.clone();
        let postings: Vec<Posting> = (0..random.i32(1..=6))
            .map(|index| {
                let (from, to) = loop {
                    let pair = (all[random.usize(..all.len())], all[random.usize(..all.len())]);
                    if pair.0 != pair.1 {
                        break pair;
                    }
                };
                let (n, code) = (random.u128(1..=4), ["usd", "jpy"][random.usize(..2)]);
                let micros = random.i64(1..=1_000);
                for (account, change) in [(from, -micros), (to, micros)] {
                    let holder = if of_payee(account) { n } else { 0 };
                    *next.entry((holder, code, account.as_str())).or_default() += change;
                }
                Posting { attempt: index, currency: code.to_owned(), ..posting(&format!("step:{step}"), n, from, to, micros) }
            })
            .collect();
        let allowed = next.iter().all(|((_, _, name), balance)| {
            let account = all.into_iter().find(|it| it.as_str() == *name).expect("an account");
            free(account) || if account == Debt { *balance <= 0 } else { *balance >= 0 }
        });
        let posted = try_post(&world, &postings).await;
        assert_eq!(posted.is_ok(), allowed, "seed {SEED}, step {step}: {posted:?}");
        if allowed {
            model = next;
            accepted += 1;
        }
    }
    assert!((40..400).contains(&accepted), "{accepted} of 400 were accepted: both ways are tried");
    let mut tx = world.tx().await;
    assert_eq!(differences(&mut tx).await.expect("an answer"), []);
    assert_eq!(unbalanced(&mut tx).await.expect("an answer"), []);
    for n in 1..=4 {
        for code in ["usd", "jpy"] {
            let kept = lock_balance(&mut tx, creator(n), code).await.expect("a balance");
            let of = |account: Account| model.get(&(n, code, account.as_str())).copied().unwrap_or(0);
            let kept = [
                kept.held_platform,
                kept.held_connected,
                kept.available_platform,
                kept.available_connected,
                kept.reserved_platform,
                kept.reserved_connected,
                kept.in_flight,
                kept.at_stripe,
                kept.paid_out,
                kept.debt,
            ];
            let wanted: Vec<i64> = all[..10].iter().map(|account| of(*account)).collect();
            assert_eq!(kept.as_slice(), wanted, "{n} {code}");
        }
    }
    drop(tx);
    for account in [Earnings, Fees, StripeFees, Losses] {
        for code in ["usd", "jpy"] {
            let name = account.as_str();
            let kept: i64 = world
                .value(format!("select coalesce(sum({name}), 0)::bigint from platform_balances where currency = '{code}'"))
                .await;
            assert_eq!(kept, model.get(&(0, code, name)).copied().unwrap_or(0), "{name} {code}");
        }
    }
}

#[tokio::test]
async fn a_projection_that_was_tampered_with_is_found() {
    let world = World::new().await;
    world.earned(1, 1_000).await;
    world.run("update payee_balances set available_platform = available_platform + 1").await;
    let mut tx = world.tx().await;
    let found = differences(&mut tx).await.expect("an answer");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].account.as_str(), found[0].from_entries, found[0].kept), ("available_platform", 10_000_000, 10_000_001));
    assert_eq!(found[0].holder, creator(1).to_string());
    assert_eq!(unbalanced(&mut tx).await.expect("an answer"), [("usd".to_owned(), 1)]);
    assert_eq!(
        payees_out_of_balance(&mut tx).await.expect("an answer"),
        [(creator(1), "usd".to_owned(), 10_000_001, 10_000_000)]
    );
}

#[tokio::test]
async fn what_is_written_off_counts_as_earned() {
    let world = World::new().await;
    let mut sale = earning("sale", 1, 10_000);
    sale.charge_id = Some("ch_1".to_owned());
    world.record(vec![sale]).await;
    world.mature(cutoff()).await;
    // All of it was paid out, then the charge is disputed: a debt, which somebody writes off.
    try_post(&world, &[posting("paid", 1, Account::AvailablePlatform, Account::PaidOut, 100_000_000)]).await.expect("paid");
    let mut tx = world.tx().await;
    payday::earnings::store::take_back(&mut tx, "dispute:dp_1", "ch_1", 10_000, "usd").await.expect("taken back");
    tx.commit(Boundary::Outside).await.expect("a commit");
    assert_eq!(world.balance(1, "usd").await, "paid_out=100000000 debt=-100000000");
    try_post(&world, &[posting("off", 1, Account::Losses, Account::Debt, 100_000_000)]).await.expect("written off");
    assert_eq!(world.balance(1, "usd").await, "paid_out=100000000");
    world.audit_ledger().await;
}

#[tokio::test]
async fn two_postings_for_the_same_people_in_opposite_order_do_not_wait_for_each_other_in_a_circle() {
    let world = World::new().await;
    for n in 1..=20 {
        world.earned(n, 1_000).await;
    }
    let rounds = |start: u128| {
        let world = &world;
        async move {
            for round in 0..20 {
                let mut people: Vec<u128> = (1..=20).collect();
                if start == 1 {
                    people.reverse();
                }
                let postings: Vec<Posting> = people
                    .into_iter()
                    .map(|n| {
                        posting(&format!("{start}:{round}:{n}"), n, Account::AvailablePlatform, Account::ReservedPlatform, 1)
                    })
                    .collect();
                try_post(world, &postings).await?;
            }
            Ok::<_, String>(())
        }
    };
    let (one, two) = futures::join!(rounds(0), rounds(1));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(world.balance(7, "usd").await, "available_platform=9999960 reserved_platform=40");
    world.audit_ledger().await;
}
