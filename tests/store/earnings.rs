//! What creators earn: recorded once, held to the instant, matured by one watermark whoever records meanwhile.

use chrono::Duration;
use payday::boundary::Boundary;
use payday::earnings::store::{mature, record};
use payday::earnings::{Kind, NewEarning, Place, Value};
use payday::money::Ppm;
use payday_tests::world::{World, at, currency, cutoff, earning, ready_account};
use serde_json::json;

#[tokio::test]
async fn the_same_source_id_is_recorded_once() {
    let world = World::new().await;
    let first = world.record(vec![earning("a", 1, 100), earning("b", 1, 200)]).await;
    assert_eq!((first.recorded, first.already_there), (2, 0));
    let second = world.record(vec![earning("b", 1, 200), earning("c", 2, 300), earning("c", 2, 300)]).await;
    assert_eq!((second.recorded, second.already_there), (1, 2), "twice in one request is once");
    assert_eq!(world.count("creator_earnings").await, 3);
    assert_eq!(world.balance(1, "usd").await, "held_platform=3000000");
    world.audit().await;
}

#[tokio::test]
async fn other_content_under_a_known_source_id_is_refused_and_nothing_is_recorded() {
    let world = World::new().await;
    world.record(vec![earning("a", 1, 100)]).await;
    let base = earning("a", 1, 100);
    let contradictions: Vec<(&str, NewEarning)> = vec![
        ("amount", earning("a", 1, 101)),
        ("creator", earning("a", 2, 100)),
        ("kind", NewEarning { kind: Kind::Tip, ..base.clone() }),
        ("currency", NewEarning { currency: currency("eur"), ..base.clone() }),
        ("place", NewEarning { place: Place::Connected, ..base.clone() }),
        ("charge", NewEarning { charge_id: Some("ch_1".to_owned()), ..base.clone() }),
        ("instant", NewEarning { occurred_at: base.occurred_at + Duration::microseconds(1), ..base.clone() }),
        ("fee", NewEarning { value: Value::Amount { minor: 100, fee_minor: None }, ..base.clone() }),
        ("tokens", NewEarning { value: Value::Tokens(100), ..base }),
    ];
    for (what, contradiction) in contradictions {
        let new = earning(&format!("new with another {what}"), 3, 500);
        let error = payday::earnings::record(&world.db, &world.policy, vec![new, contradiction]).await.expect_err(what);
        assert_eq!((error.code, error.details.len()), ("SOURCE_ID_CONFLICT", 1), "{what}");
        assert!(error.details[0].error.starts_with("a "), "{:?}", error.details);
    }
    let twice = vec![earning("d", 1, 1), earning("d", 1, 2)];
    assert!(payday::earnings::record(&world.db, &world.policy, twice).await.is_err(), "a request that contradicts itself");
    assert_eq!((world.count("creator_earnings").await, world.count("payees").await), (1, 1));
    world.audit().await;
}

#[tokio::test]
async fn a_repetition_is_one_also_after_the_policy_changed() {
    let mut world = World::new().await;
    let tip = NewEarning { value: Value::Tokens(100), ..earning("tip", 1, 1) };
    world.record(vec![tip.clone()]).await;
    world.policy.platform_fee = Ppm(200_000);
    world.policy.token_rate_micros = 60_000;
    assert_eq!(world.record(vec![tip]).await.already_there, 1);
    assert_eq!(
        world.row("select tokens, token_rate_micros, fee_ppm, gross_micros, fee_micros, net_micros from creator_earnings").await,
        "100 50000 100000 5000000 500000 4500000",
        "rate and fee stay as they were when it was recorded"
    );
}

#[tokio::test]
async fn each_kind_of_value_is_worth_what_the_contract_says() {
    let world = World::new().await;
    let fee = |fee_minor| Value::Amount { minor: 999, fee_minor };
    for (name, value, code, wanted) in [
        ("tokens", Value::Tokens(1), "usd", "50000 5000 45000"),
        ("given fee", fee(Some(100)), "usd", "9990000 1000000 8990000"),
        ("no fee", fee(Some(0)), "usd", "9990000 0 9990000"),
        ("all fee", fee(Some(999)), "usd", "9990000 9990000 0"),
        ("percentage", fee(None), "usd", "9990000 999000 8991000"),
        ("yen", fee(None), "jpy", "999000000 99900000 899100000"),
        ("dinar", fee(None), "kwd", "999000 99900 899100"),
    ] {
        world.record(vec![NewEarning { value, currency: currency(code), ..earning(name, 1, 1) }]).await;
        let row = format!("select gross_micros, fee_micros, net_micros from creator_earnings where source_id = '{name}'");
        assert_eq!(world.row(&row).await, wanted, "{name}");
    }
    let tips: Vec<NewEarning> =
        (0..100).map(|n| NewEarning { value: Value::Tokens(1), ..earning(&format!("tip {n}"), 2, 1) }).collect();
    world.record(tips).await;
    assert_eq!(world.balance(2, "usd").await, "held_platform=4500000", "a hundred one-token tips are exactly 4.50");
    world.audit().await;
}

#[tokio::test]
async fn a_hold_ends_at_its_instant_and_not_a_microsecond_before() {
    let world = World::new().await;
    let occurred_at = at("2026-11-01T12:34:56.789012Z");
    world.record(vec![NewEarning { occurred_at, ..earning("a", 1, 100) }]).await;
    let available_at = occurred_at + Duration::days(7);
    assert_eq!(world.mature(available_at - Duration::microseconds(1)).await, 0);
    assert_eq!(world.balance(1, "usd").await, "held_platform=1000000");
    assert_eq!(world.mature(available_at).await, 1);
    assert_eq!(world.balance(1, "usd").await, "available_platform=1000000");
    assert_eq!(world.mature(available_at).await, 0, "once");
    assert_eq!(world.mature(available_at - Duration::days(1)).await, 0, "never back");
    world.audit().await;
}

#[tokio::test]
async fn what_is_recorded_after_its_hold_is_available_at_once() {
    let world = World::new().await;
    world.mature(cutoff()).await;
    let ends_at_watermark = NewEarning { occurred_at: cutoff() - Duration::days(7), ..earning("at", 1, 100) };
    let just_after =
        NewEarning { occurred_at: cutoff() - Duration::days(7) + Duration::microseconds(1), ..earning("after", 1, 200) };
    world.record(vec![ends_at_watermark, just_after]).await;
    assert_eq!(world.balance(1, "usd").await, "held_platform=2000000 available_platform=1000000");
    world.mature(cutoff() + Duration::hours(1)).await;
    assert_eq!(world.balance(1, "usd").await, "available_platform=3000000");
    world.audit().await;
}

#[tokio::test]
async fn maturing_is_one_posting_for_each_payee_currency_and_place_however_many_earnings() {
    let world = World::new().await;
    world.creators(1..=2).await;
    let mut all = Vec::new();
    for n in 0..40 {
        let place = if n % 2 == 0 { Place::Platform } else { Place::Connected };
        all.push(NewEarning { place, ..earning(&format!("u{n}"), 1, 100) });
        all.push(NewEarning { currency: currency("eur"), ..earning(&format!("e{n}"), 2, 100) });
    }
    world.record(all).await;
    assert_eq!(world.mature(cutoff()).await, 3);
    assert_eq!(world.balance(1, "usd").await, "available_platform=20000000 available_connected=20000000");
    assert_eq!(world.balance(2, "eur").await, "available_platform=40000000");
    world.audit().await;
}

/// Recording shares the watermark's lock and maturing takes it alone: whoever comes second sees what the first did.
#[tokio::test]
async fn an_earning_recorded_while_others_mature_is_counted_once_on_the_right_side() {
    let world = World::new().await;
    world.creators(1..=1).await;

    // Recording first: maturing waits, then moves that earning too.
    let mut recording = world.tx().await;
    record(&mut recording, &world.policy, &[earning("first", 1, 100)]).await.expect("recorded");
    let maturing = world.mature(cutoff());
    futures::pin_mut!(maturing);
    wait_for_lock(&world, maturing.as_mut()).await;
    recording.commit(Boundary::Outside).await.expect("a commit");
    assert_eq!(maturing.await, 1);
    assert_eq!(world.balance(1, "usd").await, "available_platform=1000000");

    // Maturing first: recording waits, then books it as available.
    let mut maturing = world.tx().await;
    mature(&mut maturing, cutoff() + Duration::days(1)).await.expect("matured");
    let recording = world.record(vec![NewEarning { occurred_at: cutoff() - Duration::days(7), ..earning("second", 1, 200) }]);
    futures::pin_mut!(recording);
    wait_for_lock(&world, recording.as_mut()).await;
    maturing.commit(Boundary::Outside).await.expect("a commit");
    recording.await;
    assert_eq!(world.balance(1, "usd").await, "available_platform=3000000");
    world.audit().await;
}

/// Drives the future until the database says that it waits for a lock.
async fn wait_for_lock<F: Future>(world: &World, mut waiting: std::pin::Pin<&mut F>) {
    let asked = async {
        while world.count("pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    futures::pin_mut!(asked);
    let first = futures::future::select(asked, waiting.as_mut()).await;
    assert!(matches!(first, futures::future::Either::Left(_)), "it did not wait");
}

#[tokio::test]
async fn many_recordings_and_maturings_at_once_lose_and_double_nothing() {
    let world = World::new().await;
    world.creators(1..=5).await;
    let recordings = (0..8_u128).map(|worker| {
        let world = &world;
        async move {
            for round in 0..10_u128 {
                let minutes = i64::try_from(worker * 10 + round).expect("small");
                let occurred_at = cutoff() - Duration::days(7) + Duration::minutes(minutes - 40);
                let new = |n| NewEarning { occurred_at, ..earning(&format!("{worker}:{round}:{n}"), n, 100) };
                world.record((1..=5).map(new).collect()).await;
            }
        }
    });
    let maturing = async {
        for minutes in -40..=40 {
            world.mature(cutoff() + Duration::minutes(minutes)).await;
        }
    };
    futures::join!(futures::future::join_all(recordings), maturing);
    world.mature(cutoff() + Duration::hours(2)).await;
    for n in 1..=5 {
        assert_eq!(world.balance(n, "usd").await, "available_platform=80000000");
    }
    world.audit().await;
}

#[tokio::test]
async fn connected_money_of_an_automatic_account_is_paid_out_when_it_matures() {
    let world = World::new().await;
    world.creators(1..=2).await;
    let mut automatic = ready_account("acct_2");
    automatic["settings"] = json!({});
    world.describe(2, automatic, "2026-10-01T00:00:00Z").await;
    for n in 1..=2 {
        world.record(vec![NewEarning { place: Place::Connected, ..earning(&format!("early {n}"), n, 100) }]).await;
        assert_eq!(world.balance(n, "usd").await, "held_connected=1000000");
    }
    world.mature(cutoff()).await;
    for n in 1..=2 {
        world.record(vec![NewEarning { place: Place::Connected, ..earning(&format!("late {n}"), n, 200) }]).await;
        world.record(vec![earning(&format!("platform {n}"), n, 300)]).await;
    }
    assert_eq!(world.balance(1, "usd").await, "available_platform=3000000 available_connected=3000000");
    assert_eq!(world.balance(2, "usd").await, "available_platform=3000000 paid_out=3000000", "it does not block the rest");
    world.audit().await;
}

#[tokio::test]
async fn wrong_values_are_refused_with_the_earning_s_place_in_the_list() {
    let world = World::new().await;
    for (value, code, problem) in [
        (Value::Tokens(0), "usd", "above zero"),
        (Value::Tokens(-1), "usd", "above zero"),
        (Value::Tokens(1), "eur", "default currency"),
        (Value::Tokens(i64::MAX), "usd", "more than the ledger can hold"),
        (Value::Amount { minor: 0, fee_minor: None }, "usd", "above zero"),
        (Value::Amount { minor: i64::MAX, fee_minor: None }, "usd", "more than the ledger can hold"),
        (Value::Amount { minor: 10, fee_minor: Some(11) }, "usd", "between zero and the amount"),
        (Value::Amount { minor: 10, fee_minor: Some(-1) }, "usd", "between zero and the amount"),
    ] {
        let wrong = NewEarning { value, currency: currency(code), ..earning("wrong", 1, 1) };
        let error = payday::earnings::record(&world.db, &world.policy, vec![earning("right", 1, 1), wrong]).await;
        let error = error.expect_err(problem);
        assert_eq!(error.details[0].field, "earnings[1]");
        assert!(error.details[0].error.contains(problem), "{:?}", error.details);
    }
    assert_eq!(world.count("creator_earnings").await, 0);
    // Each fits by itself; together they are more than a balance can hold.
    let huge = |id| NewEarning { value: Value::Amount { minor: i64::MAX / 10_000, fee_minor: Some(0) }, ..earning(id, 1, 1) };
    assert!(payday::earnings::record(&world.db, &world.policy, vec![huge("one"), huge("two")]).await.is_err());
    assert_eq!(world.count("creator_earnings").await, 0, "no wrap, nothing recorded");
    world.audit().await;
}

#[tokio::test]
async fn more_rows_than_one_statement_takes_are_recorded_all_or_none() {
    let world = World::new().await;
    let many = |from: u128| (from..from + 5_001).map(|n| earning(&format!("e{n}"), 1 + n % 7, 1)).collect::<Vec<_>>();
    let before = world.db.statements();
    assert_eq!(world.record(many(0)).await.recorded, 5_001);
    assert!(world.db.statements() - before <= 8, "{} statements", world.db.statements() - before);
    let mut contradicting = many(10_000);
    contradicting.push(earning("e0", 1, 2));
    assert!(payday::earnings::record(&world.db, &world.policy, contradicting).await.is_err());
    assert_eq!(world.count("creator_earnings").await, 5_001);
    world.audit().await;
}
