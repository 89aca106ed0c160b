//! Batches: made in one set-based transaction, or not at all, however often and by however many at once.

use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config::Policy;
use payday::earnings::{NewEarning, Place};
use payday::id::RunId;
use payday::money::Ppm;
use payday::payouts::store::batches::{self, Created, chunks_to_queue, start_run};
use payday_tests::world::{CYCLE, World, create_batches, creator, currency, cutoff, day, earning, ready_account};
use serde_json::json;

/// So many creators with 1.00, 2.00 … on the platform, matured.
async fn crowd(world: &World, count: u128) {
    world.creators(1..=count).await;
    let cents = |n: u128| i64::try_from(n).expect("small") * 100;
    world.record((1..=count).map(|n| earning(&format!("e{n}"), n, cents(n))).collect()).await;
    world.mature(cutoff()).await;
}

async fn run(world: &World, schedule: Schedule, cycle: &str) -> RunId {
    let mut tx = world.tx().await;
    let cutoff_at = world.policy.calendar.cutoff(day(cycle));
    let (run, _) = start_run(&mut tx, schedule, day(cycle), cutoff_at, "test").await.expect("a run");
    tx.commit(Boundary::Outside).await.expect("a commit");
    run
}

const BATCHES: &str = "select currency, items, amount_minor, status from payout_batches order by currency";

#[tokio::test]
async fn a_batch_for_each_currency_has_its_totals_its_items_and_their_money_reserved() {
    let world = World::new().await;
    crowd(&world, 60).await;
    let euros = |n: u128| NewEarning { currency: currency("eur"), ..earning(&format!("eur{n}"), n, 700) };
    world.record((1..=3).map(euros).collect()).await;
    let connected = NewEarning { place: Place::Connected, ..earning("connected", 1, 50) };
    world.record(vec![connected]).await;
    let (run, created) = world.batches().await;
    assert_eq!(created, Created { batches: 2, items: 63, excluded: 0 });
    assert_eq!(world.rows(BATCHES).await, ["eur 3 2100 processing", "usd 60 183050 processing"]);
    assert_eq!(
        world.rows("select b.currency, k.ordinal, count(*) from payout_items i join payout_chunks k on k.id = i.chunk_id join payout_batches b on b.id = k.batch_id group by 1, 2 order by 1, 2").await,
        ["eur 0 3", "usd 0 25", "usd 1 25", "usd 2 10"]
    );
    assert_eq!(
        world.row(&format!("select amount_minor, transfer_minor, connected_minor, payout_minor, status, account, destination, due_at is not null from payout_items where creator_id = '{}' and currency = 'usd'", creator(1))).await,
        "150 100 50 150 pending acct_1 bank of acct_1 true"
    );
    assert_eq!(world.balance(1, "usd").await, "reserved_platform=1000000 reserved_connected=500000");
    assert_eq!(world.count("payout_items i join payout_batches b on b.id = i.batch_id join instance n on true where i.idempotency_key = 'payday:' || n.id || ':' || b.batch_hash || ':' || i.creator_id").await, 63);
    assert_eq!(
        world
            .row(&format!(
                "select status, batches_created_at is not null, policy->>'hold_days' from payout_runs where id = {run}"
            ))
            .await,
        "running true 7"
    );
    world.audit().await;
}

#[tokio::test]
async fn the_key_of_an_item_is_the_one_that_the_library_names() {
    let world = World::new().await;
    crowd(&world, 1).await;
    world.batches().await;
    let (instance,): (String,) = world.all("select id from instance").await.remove(0);
    let hash = payday::id::batch_hash(&instance, "scheduled", "semimonthly", CYCLE, "usd");
    assert_eq!(world.row("select batch_hash from payout_batches").await, hash);
    assert_eq!(world.row("select idempotency_key from payout_items").await, payday::id::item_key(&instance, &hash, creator(1)));
}

#[tokio::test]
async fn making_the_batches_again_changes_nothing() {
    let world = World::new().await;
    crowd(&world, 3).await;
    let (first, _) = world.batches().await;
    let before = world.rows("select * from payout_items order by id").await;
    // More is earned in between: it belongs to the next cycle.
    world.earned(1, 5_000).await;
    let (second, created) = world.batches().await;
    assert_eq!((first, created), (second, Created::default()), "the same run, nothing made");
    assert_eq!(world.rows("select * from payout_items order by id").await, before);
    assert_eq!((world.count("payout_runs").await, world.count("payout_batches").await), (1, 1));
    world.audit().await;
}

#[tokio::test]
async fn many_who_make_the_same_batches_at_once_make_them_once() {
    let world = World::new().await;
    crowd(&world, 40).await;
    let racing = (0..6).map(|_| async {
        let run = run(&world, Schedule::Semimonthly, CYCLE).await;
        (run, create_batches(&world.database, &world.policy, run, 25).await)
    });
    let made = futures::future::join_all(racing).await;
    assert!(made.iter().all(|(run, _)| *run == made[0].0), "{made:?}");
    assert_eq!(made.iter().filter(|(_, created)| created.items == 40).count(), 1, "{made:?}");
    assert_eq!((world.count("payout_runs").await, world.count("payout_items").await), (1, 40));
    world.audit().await;
}

#[tokio::test]
async fn a_batch_that_was_not_committed_never_was() {
    let world = World::new().await;
    crowd(&world, 3).await;
    let run = run(&world, Schedule::Semimonthly, CYCLE).await;
    let mut tx = world.tx().await;
    let locked = batches::lock_run(&mut tx, run).await.expect("a lock").expect("the run");
    batches::create_batches(&mut tx, &locked, &world.policy, 25, cutoff()).await.expect("batches");
    drop(tx);
    assert_eq!((world.count("payout_batches").await, world.count("payout_exclusions").await), (0, 0));
    assert_eq!(create_batches(&world.database, &world.policy, run, 25).await.items, 3);
    world.audit().await;
}

#[tokio::test]
async fn everyone_with_money_who_is_not_paid_has_a_reason_in_the_run() {
    let mut world = World::new().await;
    world.policy.thresholds_minor.insert("usd".to_owned(), 1_000);
    world.creators(1..=8).await;
    let held = NewEarning { occurred_at: cutoff() - chrono::Duration::days(1), ..earning("held", 3, 5_000) };
    let partly = NewEarning { source_id: "partly".to_owned(), creator_id: creator(4), ..held.clone() };
    let mut all: Vec<NewEarning> = [1, 2, 4, 5, 6, 7].into_iter().map(|n| earning(&format!("e{n}"), n, 5_000)).collect();
    all.extend([held, partly, earning("little", 8, 999)]);
    world.record(all).await;
    world.mature(cutoff()).await;
    world.run(format!("update creator_payout_settings set payout_enabled = false where creator_id = '{}'", creator(2))).await;
    world.run(format!("update creator_payout_settings set schedule = 'manual' where creator_id = '{}'", creator(5))).await;
    world.run(format!("delete from stripe_accounts where payee_id = '{}'", creator(6))).await;
    world.describe(7, json!({ "id": "acct_7" }), "2026-11-01T00:00:00Z").await;
    let (_, created) = world.batches().await;
    assert_eq!(created, Created { batches: 1, items: 2, excluded: 6 });
    let who = |n: u128| creator(n).to_string();
    assert_eq!(
        world
            .rows("select creator_id, currency, reason, balance_micros, payable_minor from payout_exclusions order by creator_id")
            .await,
        [
            format!("{} usd payouts_disabled 50000000 5000", who(2)),
            format!("{} usd held 50000000 0", who(3)),
            format!("{} usd schedule_not_due 50000000 5000", who(5)),
            format!("{} usd no_account 50000000 5000", who(6)),
            format!("{} usd account_not_ready 50000000 5000", who(7)),
            format!("{} usd below_minimum 9990000 999", who(8)),
        ]
    );
    world.audit().await;
}

#[tokio::test]
async fn on_a_date_with_several_cycles_each_creator_is_in_exactly_one_run() {
    let world = World::new().await;
    crowd(&world, 4).await;
    for (n, schedule) in [(1, "semimonthly"), (2, "monthly"), (3, "weekly"), (4, "manual")] {
        world
            .run(format!("update creator_payout_settings set schedule = '{schedule}' where creator_id = '{}'", creator(n)))
            .await;
    }
    // The first of June 2026 is a Monday: three schedules are due. The money was earned before.
    world.run("update creator_earnings set available_at = '2026-05-01', occurred_at = '2026-04-24'").await;
    for schedule in [Schedule::Semimonthly, Schedule::Monthly, Schedule::Weekly] {
        world.cycle(schedule, "2026-06-01", 25).await;
    }
    assert_eq!(
        world.rows("select r.schedule, i.creator_id from payout_items i join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id order by r.id").await,
        [format!("semimonthly {}", creator(1)), format!("monthly {}", creator(2)), format!("weekly {}", creator(3))]
    );
    assert_eq!(
        world
            .rows("select r.schedule, x.creator_id, x.reason from payout_exclusions x join payout_runs r on r.id = x.run_id")
            .await,
        [format!("semimonthly {} schedule_not_due", creator(4))],
        "whoever's schedule is not due is told so once"
    );
    world.audit().await;
}

#[tokio::test]
async fn debts_are_netted_also_of_those_who_are_not_paid() {
    let world = World::new().await;
    crowd(&world, 3).await;
    world.record(vec![NewEarning { place: Place::Connected, ..earning("c3", 3, 400) }]).await;
    for (n, micros) in [(1, 400_000), (2, 5_000_000), (3, 4_000_000)] {
        world
            .run(format!(
                "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                 values ('debt:{n}', 'x', '{}', 'usd', 'debt', 'paid_out', {micros})",
                creator(n)
            ))
            .await;
    }
    let (_, created) = world.batches().await;
    assert_eq!((created.items, created.excluded), (2, 1));
    assert_eq!(world.balance(1, "usd").await, "reserved_platform=600000 paid_out=400000");
    assert_eq!(world.balance(2, "usd").await, "paid_out=5000000 debt=-3000000", "its 2.00 went towards the 5.00");
    assert_eq!(
        world.row("select creator_id, reason, payable_minor from payout_exclusions").await,
        format!("{} debt 0", creator(2))
    );
    assert_eq!(world.balance(3, "usd").await, "reserved_connected=3000000 paid_out=4000000", "3.00 here, then 1.00 there");
    world.audit().await;
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_number_of_payees() {
    let world = World::new().await;
    let mut statements = Vec::new();
    for (count, cycle) in [(1, "2026-11-15"), (500, "2026-12-01")] {
        world.run("update payout_items set status = 'paid', due_at = null").await;
        crowd_of(&world, count).await;
        let run = run(&world, Schedule::Semimonthly, cycle).await;
        let before = world.db.statements();
        assert_eq!(create_batches(&world.database, &world.policy, run, 25).await.items, u64::try_from(count).expect("small"));
        statements.push(world.db.statements() - before);
    }
    assert_eq!(statements[0], statements[1]);
    assert!(statements[0] <= 16, "{statements:?}");
    world.audit_ledger().await;
}

async fn crowd_of(world: &World, count: u128) {
    world.creators(1..=count).await;
    world.record((1..=count).map(|n| earning(&format!("{count}:{n}"), n, 100)).collect()).await;
    world.mature(cutoff()).await;
}

#[tokio::test]
async fn the_counts_of_a_batch_are_right_at_every_commit_whoever_changes_its_items() {
    let world = World::new().await;
    crowd(&world, 30).await;
    world.batches().await;
    let statuses: Vec<&str> = payday::payouts::item::Status::ALL.iter().map(|status| status.as_str()).collect();
    let workers = (0..4_usize).map(|worker| {
        let (world, statuses) = (&world, &statuses);
        async move {
            let mut random = fastrand::Rng::with_seed(worker as u64);
            for _ in 0..25 {
                let mut tx = world.tx().await;
                let status = statuses[random.usize(..statuses.len())].to_owned();
                // Each worker has items of its own, as chunks do; all share the batch.
                let change = payday::db::query("update payout_items set status = $1 where id % 4 = $2 and id % 3 = $3")
                    .bind(status)
                    .bind(i64::try_from(worker).expect("small"))
                    .bind(random.i64(0..3));
                tx.run(change).await.expect("a change");
                tx.commit(Boundary::Outside).await.expect("a commit");
                let wrong = world
                    .rows("select * from (select batch_id, status, count(*) as items, sum(amount_minor) as amount_minor from payout_items group by 1, 2) i
                           full join (select * from payout_batch_counts where items <> 0) c using (batch_id, status)
                           where i.items is distinct from c.items or i.amount_minor is distinct from c.amount_minor")
                    .await;
                assert_eq!(wrong, [""; 0]);
            }
        }
    });
    futures::future::join_all(workers).await;
}

#[tokio::test]
async fn money_that_is_recorded_or_taken_while_a_batch_is_made_is_never_paid_twice() {
    let world = World::new().await;
    crowd(&world, 20).await;
    world.run("update creator_earnings set charge_id = 'ch_' || source_id").await;
    let run = run(&world, Schedule::Semimonthly, CYCLE).await;
    let taking = (1..=20).map(|n| {
        let world = &world;
        async move {
            let mut tx = world.tx().await;
            let charge = format!("ch_e{n}");
            payday::earnings::store::take_back(&mut tx, &format!("dispute:{n}"), &charge, 50, "usd").await.expect("taken back");
            tx.commit(Boundary::Outside).await.expect("a commit");
            world.record(vec![earning(&format!("more{n}"), n, 30)]).await;
        }
    });
    let (created, _) = futures::join!(create_batches(&world.database, &world.policy, run, 25), futures::future::join_all(taking));
    assert_eq!(created.items, 20);
    world.audit().await;
}

#[tokio::test]
async fn a_run_without_anyone_to_pay_is_completed_by_itself() {
    let world = World::new().await;
    let (run, created) = world.batches().await;
    assert_eq!(created, Created::default());
    let mut tx = world.tx().await;
    assert_eq!(chunks_to_queue(&mut tx, run).await.expect("chunks"), []);
    payday::payouts::complete_run(&mut tx, run).await.expect("completed");
    payday::payouts::complete_run(&mut tx, run).await.expect("completed once");
    tx.commit(Boundary::Outside).await.expect("a commit");
    assert_eq!(world.row("select status from payout_runs").await, "completed");
    assert_eq!(world.rows("select kind from outbox").await, ["run_completed"]);
}

#[tokio::test]
async fn every_chunk_is_queued_as_long_as_it_has_something_due() {
    let world = World::new().await;
    crowd(&world, 60).await;
    let (run, _) = world.batches().await;
    let queue = async || {
        let mut tx = world.tx().await;
        let chunks = chunks_to_queue(&mut tx, run).await.expect("chunks");
        tx.commit(Boundary::Outside).await.expect("a commit");
        chunks
    };
    assert_eq!(queue().await, world.chunks().await);
    assert_eq!(queue().await.len(), 3, "killed before sending: all again");
    world.run("update payout_items set due_at = null where chunk_id = (select min(id) from payout_chunks)").await;
    assert_eq!(queue().await, world.chunks().await[1..]);
}

#[tokio::test]
async fn the_policy_of_the_batch_creator_is_the_one_that_support_s_functions_use_and_the_run_keeps() {
    let mut world = World::new().await;
    crowd(&world, 12).await;
    world.policy = Policy { reserve: Ppm(500_000), ..world.policy };
    world.policy.thresholds_minor.insert("usd".to_owned(), 600);
    let mut tx = world.tx().await;
    batches::remember_policy(&mut tx, &world.policy).await.expect("remembered");
    tx.commit(Boundary::Outside).await.expect("a commit");
    let eligible = world
        .rows("select creator_id, round(payable_amount, 2) from get_eligible_creators_for_payout('2026-11-15T06:00:00Z')")
        .await;
    assert_eq!(eligible, [format!("{} 6.00", creator(12))]);
    world.describe(12, ready_account("acct_12"), "2026-11-01T00:00:00Z").await;
    world.batches().await;
    assert_eq!(world.row("select r.policy = p.policy from payout_runs r, payout_policies p").await, "true");
    assert_eq!(world.rows("select amount_minor from payout_items").await, ["600"]);
}

/// A preview is asked for before the holds are booked as over; it must see what the batch creator, which books first, will see.
#[tokio::test]
async fn what_is_foreseen_before_holds_are_booked_is_what_the_batch_then_pays() {
    let mut world = World::new().await;
    world.policy.reserve = Ppm(100_000);
    world.creators(1..=3).await;
    let mut automatic = ready_account("acct_3");
    automatic["settings"] = json!({});
    world.describe(3, automatic, "2026-10-01T00:00:00Z").await;
    let mut all = Vec::new();
    for n in 1..=3 {
        all.push(earning(&format!("old {n}"), n, 1_000));
        all.push(NewEarning { place: Place::Connected, ..earning(&format!("connected {n}"), n, 300) });
        all.push(NewEarning { occurred_at: cutoff(), ..earning(&format!("held {n}"), n, 5_000) });
    }
    world.record(all).await;
    let mut tx = world.tx().await;
    batches::remember_policy(&mut tx, &world.policy).await.expect("remembered");
    tx.commit(Boundary::Outside).await.expect("a commit");
    let eligible = "select creator_id, currency, round(payable_amount, 2) from get_eligible_creators_for_payout('2026-11-15T06:00:00Z', array['semimonthly'])";
    let foreseen = world.rows(eligible).await;
    assert_eq!(foreseen, [(1, "11.70"), (2, "11.70"), (3, "9.00")].map(|(n, amount)| format!("{} usd {amount}", creator(n))));
    world.mature(cutoff()).await;
    assert_eq!(world.rows(eligible).await, foreseen, "booked meanwhile");
    world.batches().await;
    let paid = "select creator_id, currency, round(net_payout_amount, 2) from creator_payouts order by creator_id";
    assert_eq!(world.rows(paid).await, foreseen);
    world.audit().await;
}

#[tokio::test]
async fn an_item_s_chunk_is_one_of_its_batch_and_stays() {
    let world = World::new().await;
    crowd(&world, 1).await;
    world.batches().await;
    let another_in = |chunk: &str| {
        format!(
            "insert into payout_items (batch_id, chunk_id, creator_id, currency, idempotency_key, amount_minor, transfer_minor, connected_minor, payout_minor, account)
             select batch_id, {chunk}, gen_random_uuid(), currency, 'another', 1, 1, 0, 1, account from payout_items"
        )
    };
    let refusal = world.refusal(another_in("chunk_id + 1")).await;
    assert!(refusal.contains("not one of its batch"), "{refusal}");
    world.run(another_in("chunk_id")).await;
    for removal in ["delete from payout_chunks", "truncate payout_chunks"] {
        let refusal = world.refusal(removal).await;
        assert!(refusal.contains("chunks stay"), "{removal}: {refusal}");
    }
}
