//! Disputes from their opening to their end: lost, the money stays taken; won, it comes back to where it was taken from. In
//! whatever order Stripe tells it.

use chrono::{DateTime, Duration, Utc};
use payday::boundary::Boundary;
use payday::earnings::store::{Claim, TakenBack, claim};
use payday::earnings::{NewEarning, Place, Value};
use payday::stripe_events::{Event, retry_waiting, take_in};
use payday_tests::world::{World, account_of, at, creator, cutoff, earning, ready_account};
use serde_json::{Value as Json, json};

const GROSS: i64 = 1_000;
const FEE: i64 = 100;

fn permutations(of: &[&'static str]) -> Vec<Vec<&'static str>> {
    let Some(last) = of.last() else { return vec![Vec::new()] };
    let shorter = permutations(&of[..of.len() - 1]);
    let with = |at: usize, order: &[&'static str]| [&order[..at], &[*last], &order[at..]].concat();
    shorter.iter().flat_map(|order| (0..=order.len()).map(move |at| with(at, order))).collect()
}

/// An event of the n-th creator's sale, which happened at the day of its number in this list.
fn event(n: u128, what: &str) -> Json {
    let dispute = |status: &str| json!({ "id": format!("dp_{n}"), "charge": format!("ch_{n}"), "amount": GROSS, "currency": "usd", "status": status });
    let (day, kind, object) = match what {
        "paid" => (
            1,
            "payment_intent.succeeded",
            json!({ "id": format!("pi_{n}"), "amount_received": GROSS, "application_fee_amount": FEE, "currency": "usd",
                    "latest_charge": format!("ch_{n}"), "transfer_data": { "destination": account_of(n) } }),
        ),
        "refunded" => (2, "charge.refunded", json!({ "id": format!("ch_{n}"), "amount_refunded": 400, "currency": "usd" })),
        "inquired" => (3, "charge.dispute.created", dispute("warning_needs_response")),
        "opened" => (4, "charge.dispute.created", dispute("needs_response")),
        "withdrawn" => (4, "charge.dispute.funds_withdrawn", dispute("needs_response")),
        "reinstated" => (5, "charge.dispute.funds_reinstated", dispute("won")),
        "won" => (5, "charge.dispute.closed", dispute("won")),
        "lost" => (6, "charge.dispute.closed", dispute("lost")),
        other => panic!("{other}"),
    };
    let created = (at("2026-11-01T00:00:00Z") + Duration::days(day)).timestamp();
    json!({ "id": format!("evt_{n}_{what}"), "type": kind, "created": created, "livemode": false, "data": { "object": object } })
}

async fn take(world: &World, body: &Json) {
    let event: Event = serde_json::from_value(body.clone()).expect("an event");
    let taken = take_in(&world.db, &world.policy, &event, body).await;
    taken.unwrap_or_else(|error| panic!("{body}: {error}: {}", error.causes()));
}

#[tokio::test]
async fn whatever_the_order_a_dispute_that_is_won_gives_back_what_it_took_and_one_that_is_lost_nothing() {
    // Events → cents of the creator's 9.00 that are left.
    let stories: [(&[&'static str], i64); 5] = [
        (&["paid", "opened", "withdrawn", "reinstated", "won"], 900),
        (&["paid", "opened", "withdrawn", "lost"], 0),
        (&["paid", "refunded", "opened", "withdrawn", "won"], 540),
        (&["paid", "opened", "reinstated", "won", "lost"], 0),
        (&["paid", "inquired"], 900),
    ];
    let plans: Vec<(Vec<&'static str>, i64)> =
        stories.iter().flat_map(|(facts, left)| permutations(facts).into_iter().map(|order| (order, *left))).collect();
    let world = World::new().await;
    world.creators(1..=plans.len() as u128).await;
    for (n, (order, _)) in (1..).zip(&plans) {
        for what in order {
            let body = event(n, what);
            take(&world, &body).await;
            let mut again = body.clone();
            again["id"] = json!(format!("evt_{n}_{what}_again"));
            take(&world, &again).await;
        }
    }
    while world.count("stripe_events where state = 'waiting'").await > 0 {
        world.run("update stripe_events set due_at = now() where state = 'waiting'").await;
        assert!(retry_waiting(&world.db, &world.policy).await.expect("retried") > 0);
    }
    for (n, (order, left)) in (1..).zip(&plans) {
        let wanted = if *left == 0 { "nothing".to_owned() } else { format!("held_connected={}", left * 10_000) };
        assert_eq!(world.balance(n, "usd").await, wanted, "{order:?}");
    }
    let fees: i64 = world.value("select sum(fees)::bigint from platform_balances").await;
    let left_of_fees: i64 = plans.iter().map(|(_, left)| left / 9 * 10_000).sum();
    assert_eq!(fees, left_of_fees, "the fee's share went and came with it");
    world.audit().await;
}

/// What the dispute of the n-th creator's charge claims, as told at an instant.
async fn says(world: &World, n: u128, minor: i64, said_at: DateTime<Utc>) -> i64 {
    let (source, charge) = (format!("dispute:dp_{n}"), format!("ch_{n}"));
    let mut tx = world.tx().await;
    let told = Claim { source: &source, charge: &charge, minor, currency: "usd", said_at: Some(said_at) };
    let taken = claim(&mut tx, &told).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    tx.commit(Boundary::Outside).await.expect("a commit");
    world.audit_ledger().await;
    match taken {
        TakenBack::Net(micros) => micros,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn money_comes_back_to_where_it_was_taken_from() {
    let disputed = at("2026-11-16T00:00:00Z");
    let won = at("2026-11-20T00:00:00Z");
    // Place, automatic account, matured when disputed, paid out by then, what else happened before it was won → what there is then.
    let cases = [
        (Place::Platform, false, false, false, "", "held_platform=9000000"),
        (Place::Connected, false, false, false, "", "held_connected=9000000"),
        (Place::Connected, false, false, false, "matures", "available_connected=9000000"),
        (Place::Connected, true, false, false, "matures", "paid_out=9000000"),
        (Place::Platform, false, true, false, "", "available_platform=9000000"),
        (Place::Connected, false, true, false, "", "available_connected=9000000"),
        (Place::Platform, false, true, true, "", "paid_out=9000000"),
        // The debt was netted from other earnings meanwhile: those come back.
        (Place::Platform, false, true, true, "nets", "available_platform=20000000 paid_out=9000000"),
    ];
    let world = World::new().await;
    world.creators(1..=8).await;
    for (n, (place, automatic, matured, paid, _, _)) in (1..).zip(cases) {
        if automatic {
            let mut account = ready_account(&account_of(n));
            account["settings"] = json!({});
            world.describe(n, account, "2026-10-01T00:00:00Z").await;
        }
        let sale = NewEarning {
            value: Value::Amount { minor: GROSS, fee_minor: Some(FEE) },
            place,
            charge_id: Some(format!("ch_{n}")),
            occurred_at: if matured { at("2026-10-01T00:00:00Z") } else { at("2026-11-14T00:00:00Z") },
            ..earning(&format!("sale {n}"), n, GROSS)
        };
        world.record(vec![sale]).await;
        world.mature(cutoff()).await;
        if paid {
            world
                .run(format!(
                    "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                     values ('paid {n}', 'test', '{}', 'usd', 'available_platform', 'paid_out', 9000000)",
                    creator(n)
                ))
                .await;
        }
    }
    for (n, _) in (1..).zip(cases) {
        assert_eq!(says(&world, n, GROSS, disputed).await, 9_000_000);
    }
    for (n, case) in (1..).zip(cases) {
        match case.4 {
            "nets" => {
                world.record(vec![earning("other", n, 2_000)]).await;
                world
                    .run(format!(
                        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                         values ('run:1', 'net', '{}', 'usd', 'available_platform', 'debt', 9000000)",
                        creator(n)
                    ))
                    .await;
            }
            "matures" => {}
            _ => {
                assert_eq!(says(&world, n, 0, won).await, -9_000_000, "{case:?}");
                assert_eq!(says(&world, n, 0, won).await, 0, "told again");
                assert_eq!(says(&world, n, GROSS, disputed).await, 0, "told late");
                assert_eq!(world.balance(n, "usd").await, case.5, "{case:?}");
            }
        }
    }
    world.mature(at("2026-12-01T00:00:00Z")).await;
    for (n, case) in (1..).zip(cases).filter(|(_, case)| !case.4.is_empty()) {
        assert_eq!(says(&world, n, 0, won).await, -9_000_000, "{case:?}");
        assert_eq!(world.balance(n, "usd").await, case.5, "{case:?}");
    }
    assert_eq!(world.row("select sum(taken_back_gross_micros), sum(taken_back_net_micros) from creator_earnings").await, "0 0");
    // Lost after all, in a second round at the bank.
    assert_eq!(says(&world, 5, GROSS, won + Duration::days(1)).await, 9_000_000);
    assert_eq!(world.balance(5, "usd").await, "nothing");
}
