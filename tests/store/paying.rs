//! Chunks are paid: both legs, once, in few statements, and by one worker however many try.

use std::time::{Duration, Instant};

use chrono::Duration as Span;
use payday::earnings::{NewEarning, Place};
use payday_local::stripe_double::Rates;
use payday_tests::stage::{Stage, control};
use payday_tests::world::{CYCLE, World, creator, currency, cutoff, earning, ready_account};
use serde_json::json;

#[tokio::test]
async fn a_crowd_is_transferred_and_paid_out_and_the_bank_s_word_makes_it_paid() {
    let stage = Stage::new().await;
    let chunks = stage.crowd(30, 1_234).await;
    assert_eq!(chunks.len(), 2);
    stage.work().await;
    assert_eq!(stage.statuses().await, "in_transit=30");
    assert_eq!(stage.row("select status, halt_reason from payout_batches").await, "completed -");
    assert_eq!(stage.row("select status from payout_runs").await, "completed");
    assert_eq!(stage.rows("select kind from outbox").await, ["run_completed"]);
    assert_eq!(stage.balance(7, "usd").await, "at_stripe=12340000");
    stage.audit().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=30");
    assert_eq!(stage.balance(7, "usd").await, "paid_out=12340000");
    assert_eq!(stage.count("payout_items where paid_at is not null and arrival_on is not null and due_at is null").await, 30);
    stage.work().await;
    assert_eq!((stage.calls("POST", "/v1/transfers").len(), stage.calls("POST", "/v1/payouts").len()), (30, 30));
    stage.audit().await;
}

#[tokio::test]
async fn each_item_goes_by_the_legs_that_its_money_needs() {
    let stage = Stage::new().await;
    stage.double.fund("huf", 10_000_000);
    stage.accounts(1..=4);
    stage.creators(1..=4).await;
    let connected = |n: u128, minor| NewEarning { place: Place::Connected, ..earning(&format!("c{n}"), n, minor) };
    let forint = |source: &str, n, minor| NewEarning { currency: currency("huf"), ..earning(source, n, minor) };
    stage
        .record(vec![
            earning("p1", 1, 1_000),
            connected(2, 500),
            earning("p3", 3, 1_000),
            connected(3, 500),
            earning("p4", 4, 1_000),
            forint("h1", 1, 12_345),
        ])
        .await;
    for n in 2..=3 {
        stage.double.fund_account(Some(&format!("acct_{n}")), "usd", 500);
    }
    let mut automatic = ready_account("acct_4");
    automatic["settings"] = json!({});
    stage.describe(4, automatic, "2026-10-01T00:00:00Z").await;
    stage.double.update_account("acct_4", |account| account.payout_interval = None);
    stage.double.update_account("acct_1", |account| {
        let mut bank = account.banks[0].clone();
        (bank.id, bank.currency) = ("ba_huf".to_owned(), "huf".to_owned());
        account.banks.push(bank);
    });
    stage.batches().await;
    stage.work().await;
    assert_eq!(
        stage.rows("select i.creator_id, i.currency, i.status, o.leg, o.amount_minor, o.account from payout_items i join payout_operations o on o.item_id = i.id order by 2 desc, 1, o.id").await,
        [
            format!("{} usd in_transit transfer 1000 acct_1", creator(1)),
            format!("{} usd in_transit payout 1000 acct_1", creator(1)),
            format!("{} usd in_transit payout 500 acct_2", creator(2)),
            format!("{} usd in_transit transfer 1000 acct_3", creator(3)),
            format!("{} usd in_transit payout 1500 acct_3", creator(3)),
            format!("{} usd paid transfer 1000 acct_4", creator(4)),
            format!("{} huf in_transit transfer 12300 acct_1", creator(1)),
            format!("{} huf in_transit payout 12300 acct_1", creator(1)),
        ]
    );
    assert_eq!(stage.balance(2, "usd").await, "at_stripe=5000000");
    assert_eq!(stage.balance(4, "usd").await, "paid_out=10000000", "an automatic account: the transfer is the end of our way");
    stage.audit().await;
}

#[tokio::test]
async fn what_is_sent_carries_key_marks_and_group() {
    let stage = Stage::new().await;
    stage.crowd(1, 500).await;
    stage.work().await;
    let instance = stage.row("select id from instance").await;
    let item = stage.row("select id from payout_items").await;
    let stem = stage.row("select idempotency_key from payout_items").await;
    let transfer = stage.double.transfers().remove(0);
    assert_eq!(transfer.transfer_group.as_deref(), Some(format!("{instance}-{item}").as_str()));
    let marks = |leg| {
        vec![
            ("item_id".to_owned(), format!("{instance}-{item}")),
            ("operation_id".to_owned(), format!("{instance}-{item}-{leg}-1")),
        ]
    };
    for (leg, mut metadata) in [("transfer", transfer.metadata), ("payout", stage.double.payouts().remove(0).metadata)] {
        metadata.sort();
        assert_eq!(metadata, marks(leg));
        let call = stage.calls("POST", &format!("/v1/{leg}s")).remove(0);
        assert_eq!(call.idempotency_key, Some(format!("{stem}:{leg}:1")));
        assert_eq!(
            stage
                .row(&format!(
                    "select idempotency_key, state, sends, http_status, request_id from payout_operations where leg = '{leg}'"
                ))
                .await,
            format!("{stem}:{leg}:1 accepted 1 200 {}", call.request_id)
        );
    }
}

#[tokio::test]
async fn at_most_one_statement_is_run_for_each_item_and_leg_and_no_more_in_larger_chunks() {
    let mut spent = Vec::new();
    for (items, chunk_size) in [(50, 25), (100, 100)] {
        let stage = Stage::new().await;
        stage.crowd_in_chunks(items, 500, chunk_size).await;
        stage.work().await;
        assert_eq!(stage.statuses().await, format!("in_transit={items}"));
        let statements: i64 = stage.value("select sum(sql_statements)::bigint from payout_chunks").await;
        let legs = i64::try_from(items).expect("small") * 2;
        assert!(statements <= legs, "{statements} statements for {legs} legs in chunks of {chunk_size}");
        spent.push(1_000 * statements / legs);
        stage.audit().await;
    }
    assert!(spent[1] <= spent[0], "thousandths of a statement for each leg: {spent:?}");
}

#[tokio::test]
async fn a_chunk_that_a_worker_has_is_left_alone_by_all_others() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(5, 500).await[0];
    stage.double.hold();
    let second = async {
        stage.double.held_requests(5).await;
        for _ in 0..3 {
            stage.process(chunk).await.expect("nothing to do");
        }
        assert_eq!(stage.statuses().await, "transferring=5");
        stage.double.release();
    };
    let (first, ()) = tokio::join!(stage.process(chunk), second);
    first.expect("paid");
    assert_eq!(stage.statuses().await, "in_transit=5");
    assert_eq!((stage.calls("POST", "/v1/transfers").len(), stage.calls("POST", "/v1/payouts").len()), (5, 5));
    assert_eq!(
        stage.operations("select id from payout_items where id = 1").await,
        ["transfer.1 accepted 1", "payout.1 accepted 1"]
    );
    stage.audit().await;
}

#[tokio::test]
async fn many_workers_on_the_same_chunk_at_the_same_moment_send_once() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(10, 500).await[0];
    let workers = (0..5).map(|_| stage.process(chunk));
    for worked in futures::future::join_all(workers).await {
        worked.expect("paid, or left alone");
    }
    assert_eq!(stage.statuses().await, "in_transit=10");
    assert_eq!((stage.calls("POST", "/v1/transfers").len(), stage.calls("POST", "/v1/payouts").len()), (10, 10));
    stage.audit().await;
}

/// A worker that froze while it sent, and thaws after another one has taken its chunk.
#[tokio::test]
async fn a_worker_whose_lease_ran_out_and_its_successor_pay_once_between_them() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(5, 500).await[0];
    stage.double.hold();
    let successor = async {
        stage.double.held_requests(5).await;
        stage.run("update payout_chunks set leased_until = '-infinity'").await;
        // Its replays meet the keys of the requests that are still under way.
        stage.process(chunk).await.expect("it learns nothing");
        assert_eq!(
            stage.rows("select distinct state, sends, code from payout_operations").await,
            ["unknown 2 idempotency_key_in_use"]
        );
        stage.double.release();
    };
    let (frozen, ()) = tokio::join!(stage.process(chunk), successor);
    frozen.expect("its answers are still worth knowing");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=5");
    assert_eq!(stage.double.transfers().len(), 5);
    stage.audit().await;
}

#[tokio::test]
async fn the_kill_switch_stops_new_sends_within_a_second_and_resuming_continues() {
    let mut stage = Stage::new().await;
    stage.payer.sending.rate_transfers = 10;
    let chunk = stage.crowd(25, 500).await[0];
    let killer = async {
        while stage.calls("POST", "/v1/transfers").len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        control(&stage.db, "killed", true).await;
        stage.double.now_ms()
    };
    let (worked, killed_ms) = tokio::join!(stage.process(chunk), killer);
    worked.expect("stopped in good order");
    let sent = stage.calls("POST", "/v1/");
    let late: Vec<i64> = sent.iter().map(|call| call.at_ms - killed_ms).filter(|after| *after > 1_000).collect();
    assert_eq!(late, [0; 0], "nothing starts a second after the switch");
    assert!(sent.len() < 20, "{} sends", sent.len());
    assert!(stage.double.now_ms() - killed_ms < 2_000, "the worker went home");
    stage.world.audit().await;

    // As long as it is off, nothing is sent; what was not run stays reserved or in flight.
    stage.process(chunk).await.expect("nothing to do");
    assert_eq!(stage.calls("POST", "/v1/").len(), sent.len());
    control(&stage.db, "killed", false).await;
    stage.payer.sending.rate_transfers = 0;
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=25");
    assert_eq!(stage.count("payout_operations where leg = 'transfer' and attempt = 1 and state = 'accepted'").await, 25);
    stage.audit().await;
}

#[tokio::test]
async fn nothing_is_sent_while_paused_or_when_too_little_time_is_left() {
    let stage = Stage::new().await;
    let chunk = stage.crowd(3, 500).await[0];
    for switch in ["paused", "killed"] {
        control(&stage.db, switch, true).await;
        stage.process(chunk).await.expect("nothing to do");
        control(&stage.db, switch, false).await;
    }
    stage.payer.process_chunk(chunk, Instant::now() + Duration::from_secs(20)).await.expect("too late to begin");
    assert_eq!((stage.calls("POST", "/v1/").len(), stage.statuses().await.as_str()), (0, "pending=3"));
    assert_eq!(stage.row("select status from payout_batches").await, "processing");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=3");
    stage.audit().await;
}

#[tokio::test]
async fn who_no_longer_qualifies_when_it_is_sent_is_canceled_released_and_told_why() {
    let stage = Stage::new().await;
    stage.crowd(7, 5_000).await;
    for (n, change) in [
        (2, "update creator_payout_settings set payout_enabled = false where creator_id = $me"),
        (3, "update stripe_accounts set payouts_enabled = false where payee_id = $me"),
        (4, "update payees set blocked_reason = 'odd' where id = $me"),
        (5, "update stripe_accounts set account = 'acct_other' where payee_id = $me"),
        (6, "update stripe_accounts set payout_interval = 'daily' where payee_id = $me"),
        (7, "update stripe_accounts set destination_changed_at = now() where payee_id = $me"),
    ] {
        stage.run(change.replace("$me", &format!("'{}'", creator(n)))).await;
    }
    stage.work().await;
    assert_eq!(stage.statuses().await, "canceled=6 in_transit=1");
    assert_eq!(
        stage
            .rows("select right(creator_id::text, 1), reason, balance_micros, payable_minor from payout_exclusions order by 1")
            .await,
        [
            "2 payouts_disabled 50000000 5000",
            "3 account_not_ready 50000000 5000",
            "4 blocked 50000000 5000",
            "5 account_not_ready 50000000 5000",
            "6 account_not_ready 50000000 5000",
            "7 destination_cooloff 50000000 5000",
        ]
    );
    assert_eq!(stage.balance(2, "usd").await, "available_platform=50000000");
    assert_eq!(stage.row("select status from payout_batches").await, "completed");
    assert_eq!(stage.calls("POST", "/v1/transfers").len(), 1);
    stage.audit().await;
}

#[tokio::test]
async fn a_payout_waits_for_the_connected_balance_and_after_two_days_for_a_person() {
    let stage = Stage::new().await;
    stage.double.set_transfer_available_after(3_600_000);
    stage.crowd(1, 500).await;
    stage.work().await;
    assert_eq!(stage.statuses().await, "awaiting_available=1");
    assert_eq!(stage.row("select status from payout_batches").await, "completed", "it does not hold the batch open");
    stage.work().await;
    assert_eq!(stage.calls("POST", "/v1/payouts").len(), 1, "not before the cooling time");
    stage.finish().await;
    assert_eq!(stage.statuses().await, "in_transit=1");
    let attempts: i64 = stage.value("select max(attempt)::bigint from payout_operations where leg = 'payout'").await;
    assert!((2..=5).contains(&attempts), "{attempts} attempts in an hour");
    stage.audit().await;

    // On another account it never comes.
    let stage = Stage::new().await;
    stage.double.set_transfer_available_after(30 * 86_400_000);
    stage.crowd(1, 500).await;
    stage.finish().await;
    assert_eq!(stage.statuses().await, "needs_review=1");
    let age: i64 =
        stage.value("select extract(epoch from now() - min(first_dispatched_at))::bigint from payout_operations").await;
    assert!((2 * 86_400..4 * 86_400).contains(&age), "{age} seconds");
    assert_eq!(stage.double.transfers().len(), 1);
    stage.audit().await;
}

#[tokio::test]
async fn a_rate_budget_is_shared_by_the_workers_and_kept() {
    let mut stage = Stage::new().await;
    (stage.payer.sending.rate_transfers, stage.payer.sending.rate_payouts) = (50, 50);
    stage.double.set_rates(Rates::each(50));
    let chunks = stage.crowd_in_chunks(60, 500, 20).await;
    let began = Instant::now();
    let workers = chunks.iter().map(|chunk| stage.process(*chunk));
    for worked in futures::future::join_all(workers).await {
        worked.expect("paid");
    }
    assert_eq!(stage.statuses().await, "in_transit=60");
    assert_eq!(stage.double.counts().limited, 0, "no call meets a 429");
    assert!(began.elapsed() > Duration::from_millis(1_100), "60 transfers at 50 a second take more than a second");
    stage.audit().await;
}

#[tokio::test]
async fn the_next_cycle_pays_only_what_is_new() {
    let stage = Stage::new().await;
    stage.crowd(2, 1_000).await;
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    stage.earned(1, 700).await;
    stage.cycle(payday::clock::Schedule::Semimonthly, "2026-12-01", 25).await;
    stage.finish().await;
    assert_eq!(stage.rows("select i.amount_minor from payout_items i order by i.id").await, ["1000", "1000", "700"]);
    // And the one before, run again, nothing.
    stage.cycle(payday::clock::Schedule::Semimonthly, CYCLE, 25).await;
    stage.finish().await;
    assert_eq!(stage.double.transfers().len(), 3);
    assert_eq!(stage.statuses().await, "in_transit=1 paid=2");
    stage.later(Span::days(3)).await;
    stage.audit().await;
}

#[tokio::test]
async fn eligibility_is_asked_again_of_items_about_to_be_sent_with_their_own_reservation_counted() {
    let world = World::new().await;
    let changes = [
        ("", "-"),
        ("update creator_payout_settings set payout_enabled = false where creator_id = $me", "payouts_disabled"),
        ("update creator_payout_settings set schedule = 'manual' where creator_id = $me", "-"),
        ("update creator_payout_settings set minimum_payout_amount = 100 where creator_id = $me", "-"),
        ("update creator_payout_settings set minimum_payout_amount = 100.01 where creator_id = $me", "below_minimum"),
        ("delete from stripe_accounts where payee_id = $me", "no_account"),
        ("update stripe_accounts set payouts_enabled = false where payee_id = $me", "account_not_ready"),
        ("update payees set blocked_reason = 'x' where id = $me", "blocked"),
        (
            "update stripe_accounts set destination_changed_at = '2026-11-15T05:00:00Z' where payee_id = $me",
            "destination_cooloff",
        ),
        (
            "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros) values ('d', 'x', $me, 'usd', 'debt', 'paid_out', 1)",
            "debt",
        ),
    ];
    let count = u128::try_from(changes.len()).expect("small");
    world.creators(1..=count).await;
    for n in 1..=count {
        world.earned(n, 10_000).await;
    }
    world.batches().await;
    for (n, (change, _)) in (1..).zip(changes) {
        if !change.is_empty() {
            world.run(change.replace("$me", &format!("'{}'", creator(n)))).await;
        }
    }
    let policy = serde_json::to_string(&world.policy).expect("json");
    let found = world
        .rows(&format!(
            "select coalesce(r.reason, '-') from payout_recheck((select array_agg(id) from payout_items), '{policy}', '{}') r
             join payout_items i on i.id = r.item_id order by i.creator_id",
            cutoff().to_rfc3339()
        ))
        .await;
    assert_eq!(found, changes.map(|(_, wanted)| wanted.to_owned()));
}
