//! Looking ahead: a preview shows exactly what the batch creator then makes, and its hash tells whether it still would.

use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::payouts::cycle;
use payday::payouts::preview::{self, hash, occasion, still_agrees};
use payday::payouts::store::batches;
use payday::payouts::store::preview::{self as store, Foreseen};
use payday_tests::queues::QueueServer;
use payday_tests::stage::Stage;
use payday_tests::world::{CYCLE, World, creator, currency, cutoff, day, earning};

async fn foreseen(world: &World, cycle_on: &str) -> (Foreseen, String) {
    let occasion = occasion(day(cycle_on), None, world.policy.calendar, cutoff()).expect("an occasion");
    let mut tx = world.tx().await;
    let foreseen = store::foresee(&mut tx, &occasion, &world.policy, None, 1000).await;
    let foreseen = foreseen.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    let hash = hash(&occasion, &foreseen.hashes);
    (foreseen, hash)
}

/// Everything that keeps somebody from being paid, money on both places, a debt, two currencies, a hold that ends before the cut-off.
async fn many(world: &World) {
    world.creators(1..=12).await;
    world.record((1..=9).map(|n| earning(&format!("e{n}"), n, 1_000 + i64::try_from(n).expect("small"))).collect()).await;
    let mut euros = earning("eur", 2, 700);
    euros.currency = currency("eur");
    let connected = payday::earnings::NewEarning { place: payday::earnings::Place::Connected, ..earning("c3", 3, 400) };
    let held = payday::earnings::NewEarning { occurred_at: cutoff() - chrono::Duration::days(3), ..earning("held", 10, 900) };
    let just = payday::earnings::NewEarning { occurred_at: cutoff() - chrono::Duration::days(7), ..earning("just", 11, 900) };
    world.record(vec![euros, connected, held, just]).await;
    world
        .run(format!(
            "update payees set blocked_reason = 'odd' where id = '{}';
             update stripe_accounts set payouts_enabled = false where payee_id = '{}';
             delete from stripe_accounts where payee_id = '{}';
             update creator_payout_settings set schedule = 'monthly' where creator_id = '{}';
             update creator_payout_settings set payout_enabled = false where creator_id = '{}';
             update creator_payout_settings set minimum_payout_amount = 20 where creator_id = '{}'",
            creator(4),
            creator(5),
            creator(6),
            creator(7),
            creator(8),
            creator(9)
        ))
        .await;
}

#[tokio::test]
async fn what_a_preview_shows_is_what_the_batch_creator_makes() {
    for cycle_on in [CYCLE, "2026-12-01"] {
        let world = World::new().await;
        many(&world).await;
        let (foreseen, before) = foreseen(&world, cycle_on).await;
        assert_eq!(foreseen.page.len(), 12, "each payee and currency once");
        for schedule in Schedule::due_on(day(cycle_on)) {
            let mut tx = world.tx().await;
            let cutoff_at = world.policy.calendar.cutoff(day(cycle_on));
            let (run, _) = batches::start_run(&mut tx, schedule, day(cycle_on), cutoff_at, "test").await.expect("a run");
            let of_it = foreseen.hashes.iter().find(|(name, _)| name == schedule.as_str()).map_or("", |(_, hash)| hash);
            assert!(!store::agree(&mut tx, run, Some(of_it)).await.expect("agreed"), "it did not wait");
            tx.commit(Boundary::Outside).await.expect("a commit");
            world.mature(cutoff_at).await;
            // Refuses by itself if the facts are others.
            payday_tests::world::create_batches(&world.database, &world.policy, run, 25).await;
        }
        let made = "select i.creator_id, i.currency, null as reason, i.amount_minor, i.transfer_minor, i.connected_minor from payout_items i
                    union all select creator_id, currency, reason, payable_minor, null, null from payout_exclusions";
        let made = world.rows(&format!("select * from ({made}) as m order by 1, 2")).await;
        let shown: Vec<String> = foreseen
            .page
            .iter()
            .map(|it| {
                let parts = match &it.reason {
                    None => format!("- {} {} {}", it.payable_minor, it.transfer_minor, it.connected_minor),
                    Some(reason) => format!("{reason} {} - -", it.payable_minor),
                };
                format!("{} {} {parts}", it.creator_id, it.currency)
            })
            .collect();
        assert_eq!(shown, made, "{cycle_on}");
        let occasion = occasion(day(cycle_on), None, world.policy.calendar, cutoff()).expect("an occasion");
        // The run was made by this preview: asking again with it finds it, though by now everything is reserved.
        still_agrees(&world.db, &world.policy, &occasion, &before).await.expect("agreed for ever");
        world.audit().await;
    }
}

#[tokio::test]
async fn a_hash_changes_with_the_facts_and_with_nothing_else() {
    let world = World::new().await;
    many(&world).await;
    let hash = async || foreseen(&world, CYCLE).await.1;
    let first = hash().await;
    assert_eq!(first, hash().await);
    assert_ne!(first, foreseen(&world, "2026-12-15").await.1, "another cycle is another preview");
    // What was held is booked as available: the same facts.
    world.mature(cutoff()).await;
    assert_eq!(first, hash().await);
    // More money for somebody who is not paid anyway.
    world.record(vec![earning("more for the blocked", 4, 10)]).await;
    assert_eq!(first, hash().await);
    let mut before = first;
    for change in [
        format!("update stripe_accounts set account = 'acct_new' where payee_id = '{}'", creator(1)),
        format!("update stripe_accounts set destination = 'another bank' where payee_id = '{}'", creator(1)),
        format!("update payees set blocked_reason = 'odd' where id = '{}'", creator(1)),
        format!("update payees set blocked_reason = null where id = '{}'", creator(4)),
        format!("delete from stripe_accounts where payee_id = '{}'", creator(5)),
    ] {
        world.run(&change).await;
        let after = hash().await;
        assert_ne!(before, after, "{change}");
        before = after;
    }
}

#[tokio::test]
async fn a_run_whose_facts_have_changed_waits_until_somebody_asks_for_it_again() {
    let stage = Stage::new().await;
    stage.accounts(1..=2);
    stage.creators(1..=2).await;
    stage.record(vec![earning("e1", 1, 1_000)]).await;
    let queues = QueueServer::start(&["runs", "chunks"]).await;
    let by = payday::audit::By::new("one", "r");
    let ask = async |previewed: &str| {
        let occasion = occasion(day(CYCLE), None, stage.policy.calendar, payday::clock::now()).expect("an occasion");
        let agreed = still_agrees(&stage.db, &stage.policy, &occasion, previewed).await?;
        let why = cycle::Why::Person { by: &by, agreed: Some(&agreed) };
        let queue = queues.client("runs");
        cycle::asked(&stage.db, &queue, day(CYCLE), stage.policy.calendar, why).await?;
        let queued = queues.taken("runs").len();
        for _ in 0..2 {
            let chunks = queues.client("chunks");
            cycle::create_batches(&stage.db, &chunks, &stage.policy, 25, payday::id::RunId(1)).await?;
        }
        Ok::<_, payday::error::Error>(queued)
    };
    let hash_now = async || {
        let occasion = occasion(day(CYCLE), None, stage.policy.calendar, payday::clock::now()).expect("an occasion");
        let mut tx = stage.tx().await;
        let foreseen = store::foresee(&mut tx, &occasion, &stage.policy, None, 0).await.expect("foreseen");
        preview::hash(&occasion, &foreseen.hashes)
    };
    let stale = hash_now().await;
    stage.record(vec![earning("e2", 2, 500)]).await;
    assert_eq!(ask(&stale).await.expect_err("changed").code, "PREVIEW_STALE");
    assert_eq!(stage.count("payout_runs").await, 0, "nothing was started");

    // They change after the question and before the batches are made.
    let good = hash_now().await;
    let occasion_now = occasion(day(CYCLE), None, stage.policy.calendar, payday::clock::now()).expect("an occasion");
    let agreed = still_agrees(&stage.db, &stage.policy, &occasion_now, &good).await.expect("agreed");
    let why = cycle::Why::Person { by: &by, agreed: Some(&agreed) };
    cycle::asked(&stage.db, &queues.client("runs"), day(CYCLE), stage.policy.calendar, why).await.expect("started");
    stage.record(vec![earning("e3", 2, 500)]).await;
    for _ in 0..2 {
        let made = cycle::create_batches(&stage.db, &queues.client("chunks"), &stage.policy, 25, payday::id::RunId(1)).await;
        made.expect("it waits");
    }
    assert_eq!(
        stage.row("select status, batches_created_at is null, facts_changed_at is null from payout_runs").await,
        "running true false"
    );
    assert_eq!(stage.rows("select kind from outbox").await, ["facts_changed"], "told once");
    let sweeping = stage.sweeper().await;
    stage.later(chrono::Duration::hours(1)).await;
    assert_eq!(sweeping.sweep().await.0, [""; 0], "no sweep brings it back");

    queues.taken("runs");
    assert_eq!(ask(&hash_now().await).await.expect("asked again"), 1, "its message is sent again");
    assert_eq!(
        stage.rows("select right(creator_id::text, 1), amount_minor from payout_items order by id").await,
        ["1 1000", "2 1000"]
    );
    assert_eq!(stage.rows("select action, outcome from audit_log").await, ["cycle.run done", "cycle.run done"]);
    stage.world.audit().await;
}

#[tokio::test]
async fn a_forecast_tells_once_two_days_before_a_cycle_what_is_missing() {
    let stage = Stage::new().await;
    stage.double.fund("usd", 5_000 - 100_000_000);
    stage.accounts(1..=3);
    stage.creators(1..=3).await;
    stage.record((1..=3).map(|n| earning(&format!("e{n}"), n, 2_000)).collect()).await;
    let mut euros = earning("eur", 1, 700);
    euros.currency = currency("eur");
    stage.record(vec![euros]).await;
    let forecast = async |hours_before: i64| {
        let now = cutoff() - chrono::Duration::hours(hours_before);
        payday::payouts::forecast::forecast(&stage.db, &stage.payer.stripe, &stage.policy, now).await.expect("a forecast");
    };
    forecast(49).await;
    assert_eq!(stage.count("outbox").await, 0, "not yet");
    assert_eq!(stage.rows("select currency, available_minor from stripe_balances").await, ["usd 5000"]);
    for hours in [48, 47, 1] {
        forecast(hours).await;
    }
    assert_eq!(
        stage.rows("select kind, payload ->> 'currency', payload ->> 'neededMinor', payload ->> 'availableMinor', payload ->> 'shortMinor' from outbox order by id").await,
        ["funding_short eur 700 0 700", "funding_short usd 6000 5000 1000"],
        "once for each currency"
    );
    let stage = Stage::new().await;
    stage.accounts(1..=1);
    stage.creators(1..=1).await;
    stage.record(vec![earning("e1", 1, 2_000)]).await;
    payday::payouts::forecast::forecast(&stage.db, &stage.payer.stripe, &stage.policy, cutoff() - chrono::Duration::hours(10))
        .await
        .expect("a forecast");
    assert_eq!(stage.count("outbox").await, 0, "it suffices");
}
