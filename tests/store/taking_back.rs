//! Disputes and refunds: by their own id and the amount new since the last, from the hold, from what is available, else as debt.

use payday::boundary::Boundary;
use payday::earnings::store::{TakenBack, take_back};
use payday::earnings::{NewEarning, Place, Value};
use payday::ledger::store::post;
use payday::ledger::{Account, Posting};
use payday_tests::world::{World, at, creator, currency, cutoff, earning};

/// The n-th creator's sale of so many cents with a fee, paid by charge `ch_n`.
fn sale(n: u128, minor: i64, fee: i64) -> NewEarning {
    NewEarning {
        value: Value::Amount { minor, fee_minor: Some(fee) },
        charge_id: Some(format!("ch_{n}")),
        ..earning(&format!("sale {n}"), n, minor)
    }
}

async fn take(world: &World, n: u128, source: &str, cumulative_minor: i64) -> TakenBack {
    let mut tx = world.tx().await;
    let taken = take_back(&mut tx, source, &format!("ch_{n}"), cumulative_minor, "usd").await;
    let taken = taken.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    tx.commit(Boundary::Outside).await.expect("a commit");
    world.audit_ledger().await;
    taken
}

/// Micros of the creator's share, of a charge that has an earning.
async fn taken(world: &World, n: u128, source: &str, cumulative_minor: i64) -> i64 {
    match take(world, n, source, cumulative_minor).await {
        TakenBack::Net(micros) => micros,
        other => panic!("{other:?}"),
    }
}

/// So much of the creator's money leaves.
async fn paid_out(world: &World, n: u128, micros: i64) {
    let (from, to) = (Account::AvailablePlatform, Account::PaidOut);
    let posting = Posting {
        event: format!("paid {n}"),
        leg: "test",
        attempt: 1,
        payee: creator(n),
        currency: "usd".to_owned(),
        from,
        to,
        micros,
    };
    let mut tx = world.tx().await;
    post(&mut tx, &[posting]).await.expect("a posting");
    tx.commit(Boundary::Outside).await.expect("a commit");
}

#[tokio::test]
async fn it_comes_from_where_the_money_is() {
    // Place, matured, what else there is → what is left after 10.00 with a fee of 1.00 was disputed in full.
    let cases = [
        (Place::Platform, false, "", "nothing"),
        (Place::Connected, false, "", "nothing"),
        (Place::Platform, true, "", "nothing"),
        (Place::Connected, true, "", "nothing"),
        // Another earning is held: its money is not this one's.
        (Place::Platform, true, "paid, another held", "held_platform=5000000 paid_out=9000000 debt=-9000000"),
        // Gone, but there is money of another earning at the other place.
        (Place::Platform, true, "paid, another connected", "paid_out=9000000 debt=-4000000"),
    ];
    let world = World::new().await;
    world.creators(1..=6).await;
    for (n, (place, matured, also, _)) in (1..).zip(cases) {
        // Held: earned a day before the cut-off.
        let occurred_at = if matured { at("2026-10-01T00:00:00Z") } else { at("2026-11-14T00:00:00Z") };
        let mut all = vec![NewEarning { place, occurred_at, ..sale(n, 1_000, 100) }];
        let other = earning(&format!("other {n}"), n, 500);
        if also.contains("held") {
            all.push(NewEarning { occurred_at: at("2026-11-14T00:00:00Z"), ..other.clone() });
        }
        if also.contains("connected") {
            all.push(NewEarning { place: Place::Connected, ..other });
        }
        world.record(all).await;
    }
    world.mature(cutoff()).await;
    for (n, (place, matured, also, wanted)) in (1..).zip(cases) {
        if also.contains("paid") {
            paid_out(&world, n, 9_000_000).await;
        }
        assert_eq!(taken(&world, n, "dispute:dp_1", 1_000).await, 9_000_000, "{place:?} {matured} {also}");
        assert_eq!(world.balance(n, "usd").await, wanted, "{place:?} {matured} {also}");
    }
    let platform = "select sum(fees), sum(earnings) + (select sum(net_micros - taken_back_net_micros) from creator_earnings) from platform_balances";
    assert_eq!(world.row(platform).await, "0 0", "the fees went back with it");
}

#[tokio::test]
async fn a_hundred_earned_sixty_paid_out_then_fifty_disputed_is_a_debt_of_ten() {
    let world = World::new().await;
    world.creator(1).await;
    world.record(vec![sale(1, 10_000, 0)]).await;
    world.mature(cutoff()).await;
    paid_out(&world, 1, 60_000_000).await;
    assert_eq!(taken(&world, 1, "dispute:dp_1", 5_000).await, 50_000_000);
    assert_eq!(world.balance(1, "usd").await, "paid_out=60000000 debt=-10000000");
    assert_eq!(world.row("select net_micros - taken_back_net_micros from creator_earnings").await, "50000000", "earned 50");
}

#[tokio::test]
async fn parts_add_up_to_exactly_the_net_however_they_are_cut() {
    // 10.01 less 1.001: a rate at which each part rounds, and the sum does not.
    let world = World::new().await;
    let cuts = [vec![1_001], vec![333, 666, 1_001], vec![1, 2, 3, 1_001], (1..=1_001).step_by(100).chain([1_001]).collect()];
    for (n, cuts) in (1..).zip(&cuts) {
        world.record(vec![NewEarning { value: Value::Amount { minor: 1_001, fee_minor: None }, ..sale(n, 1_001, 0) }]).await;
        let mut sum = 0;
        for cumulative in cuts {
            sum += taken(&world, n, "refund", *cumulative).await;
        }
        assert_eq!(sum, 9_009_000, "{cuts:?}");
        assert_eq!(world.balance(n, "usd").await, "nothing");
    }
    let left =
        "select sum(gross_micros - taken_back_gross_micros), sum(net_micros - taken_back_net_micros) from creator_earnings";
    assert_eq!(world.row(left).await, "0 0");
}

#[tokio::test]
async fn only_the_growth_of_a_refund_s_total_counts_in_whatever_order_the_totals_come() {
    let world = World::new().await;
    // Totals as they arrive → cents taken in the end.
    let cases = [
        (vec![300, 300, 300], 300),
        (vec![300, 500], 500),
        (vec![500, 300], 500),
        (vec![300, 500, 300, 500, 400], 500),
        (vec![1_000, 1_000], 1_000),
        (vec![2_000], 1_000),
        (vec![0], 0),
    ];
    for (n, (totals, wanted)) in (1..).zip(cases) {
        world.record(vec![sale(n, 1_000, 0)]).await;
        let mut sum = 0;
        for total in &totals {
            sum += taken(&world, n, "refund", *total).await;
        }
        assert_eq!(sum, wanted * 10_000, "{totals:?}");
    }
}

#[tokio::test]
async fn a_dispute_and_a_refund_of_one_charge_take_back_no_more_than_the_net() {
    let world = World::new().await;
    for (n, (first, second, both)) in (1..).zip([
        (("refund", 400), ("dispute:dp_1", 1_000), 900),
        (("dispute:dp_1", 1_000), ("refund", 400), 900),
        (("dispute:dp_1", 300), ("refund", 300), 540),
        (("dispute:dp_1", 300), ("dispute:dp_2", 300), 540),
    ]) {
        world.record(vec![sale(n, 1_000, 100)]).await;
        let mut sum = 0;
        for (source, total) in [first, second, first, second] {
            sum += taken(&world, n, source, total).await;
        }
        assert_eq!(sum, both * 10_000, "{first:?} {second:?}, each twice");
    }
}

#[tokio::test]
async fn a_charge_with_several_earnings_gives_back_in_their_order() {
    let world = World::new().await;
    world
        .record(vec![
            sale(1, 1_000, 0),
            NewEarning { source_id: "second".to_owned(), creator_id: creator(2), ..sale(1, 1_000, 0) },
        ])
        .await;
    assert_eq!(taken(&world, 1, "refund", 1_400).await, 14_000_000);
    assert_eq!(world.balance(1, "usd").await, "nothing");
    assert_eq!(world.balance(2, "usd").await, "held_platform=6000000");
    assert_eq!(taken(&world, 1, "refund", 2_000).await, 6_000_000);
    assert_eq!(world.balance(2, "usd").await, "nothing");
}

#[tokio::test]
async fn what_a_claim_does_not_fit_takes_nothing() {
    let world = World::new().await;
    assert_eq!(take(&world, 1, "refund", 100).await, TakenBack::NoEarning);
    world.record(vec![NewEarning { currency: currency("eur"), ..sale(1, 1_000, 0) }]).await;
    assert_eq!(take(&world, 1, "refund", 100).await, TakenBack::OtherCurrency);
    assert_eq!(world.balance(1, "eur").await, "held_platform=10000000");
    assert_eq!(world.count("earning_reversals").await, 0);
}

#[tokio::test]
async fn money_that_is_on_its_way_stays_there_and_the_claim_becomes_a_debt() {
    let world = World::new().await;
    world.creator(1).await;
    world.record(vec![sale(1, 10_000, 0)]).await;
    world.batches().await;
    assert_eq!(world.balance(1, "usd").await, "reserved_platform=100000000");
    take(&world, 1, "dispute:dp_1", 4_000).await;
    assert_eq!(world.balance(1, "usd").await, "reserved_platform=100000000 debt=-40000000");
    world.audit().await;
}

#[tokio::test]
async fn claims_that_come_at_once_take_together_what_each_claims() {
    let world = World::new().await;
    world.record(vec![sale(1, 1_000, 0)]).await;
    let claims = (0..9).map(|n| {
        let world = &world;
        async move {
            let mut tx = world.tx().await;
            let (source, total) = [("refund:ch_1", 300), ("dispute:dp_1", 200), ("refund:ch_1", 500)][n % 3];
            take_back(&mut tx, source, "ch_1", total, "usd").await.expect("taken back");
            tx.commit(Boundary::Outside).await.expect("a commit");
        }
    });
    futures::future::join_all(claims).await;
    assert_eq!(world.row("select taken_back_net_micros from creator_earnings").await, "7000000");
    assert_eq!(world.balance(1, "usd").await, "held_platform=3000000");
    world.audit().await;
}
