//! The standing checks: silent in a sound world, each sees what it is there for, and a breach stops the batch it is in.

use chrono::Duration as Span;
use payday::id::ChunkId;
use payday::payouts::checks::{self, Breach, Check, Cost};
use payday::rails::{Asked, Leg};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::Stage;
use payday_tests::world::{creator, currency, earning};

/// Creators 1 and 2 are paid, the payouts of 3 and 4 in transit.
async fn sound() -> Stage {
    let stage = Stage::new().await;
    stage.crowd(4, 1_000).await;
    stage.work().await;
    for payout in stage.double.payouts().iter().filter(|payout| ["acct_1", "acct_2"].contains(&payout.account.as_str())) {
        stage.double.settle_payout(&payout.id);
    }
    stage.hear().await;
    stage
}

/// What all checks say inside of a transaction that changes something first, and never happened.
async fn with(stage: &Stage, changes: &[&'static str]) -> Vec<Breach> {
    let mut tx = stage.tx().await;
    for change in changes {
        let changed = tx.run(payday::db::query(change)).await;
        changed.unwrap_or_else(|error| panic!("{change}: {error}: {}", error.causes()));
    }
    checks::of_everything(&mut tx).await.unwrap_or_else(|error| panic!("{changes:?}: {error}: {}", error.causes()))
}

/// A posting by hand, from one account of creator 1 to another: the books stay balanced.
macro_rules! post {
    ($from:literal, $to:literal) => {
        concat!(
            "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
             select 'planted', 'x', creator_id, 'usd', '",
            $from,
            "', '",
            $to,
            "', 7 from payout_items where id = 1"
        )
    };
}

/// A second payout of item 1, as a worker that knows nothing of the first would make it.
macro_rules! second_payout {
    ($state:literal) => {
        concat!(
            "insert into payout_operations (item_id, leg, attempt, state, idempotency_key, account, amount_minor, currency,
                                            request_body, first_dispatched_at, dispatched_at, send_deadline, stripe_id)
             values (1, 'payout', 2, '",
            $state,
            "', 'planted', 'acct_1', 1000, 'usd', '', now(), now(), now(), 'planted')"
        )
    };
}

/// A change of one leg's operation of an item.
macro_rules! operation {
    ($item:literal, $leg:literal, $set:literal) => {
        concat!("update payout_operations set ", $set, " where item_id = ", $item, " and leg = '", $leg, "'")
    };
}

/// What to change, and how the lines begin that must be found then, and no others. C1 is creator 1.
type Plant = (&'static [&'static str], &'static [&'static str]);

/// What the books of the ledger contradict.
const OF_THE_LEDGER: &[Plant] = &[
    // The entries balance by construction: whoever makes the sums differ makes them differ from the entries too.
    (
        &["update platform_balances set fees = fees + 1 where shard = (select min(shard) from platform_balances)"],
        &[
            "accounts_sum_to_zero: usd: all accounts sum to 1 micros, expected 0",
            "balances_are_the_entries: platform usd fees: 1 micros are kept, the entries sum to 0",
        ],
    ),
    (
        &["update platform_balances set fees = fees + 1, earnings = earnings - 1
             where shard = (select min(shard) from platform_balances)"],
        &["balances_are_the_entries: platform usd earnings", "balances_are_the_entries: platform usd fees"],
    ),
    (
        &["update creator_earnings set gross_micros = gross_micros + 5 where id = 1"],
        &["payees_have_what_they_earned: payee C1 usd: accounts add up to 10000000 micros, expected 10000005"],
    ),
    (
        &[
            "alter table payee_balances drop constraint payee_balances_held_platform_is_not_negative",
            post!("held_platform", "available_platform"),
        ],
        &["accounts_are_not_negative: payee C1: an account is below zero"],
    ),
    (
        &[post!("at_stripe", "available_platform")],
        &[
            "accounts_are_not_negative: payee C1 usd: -7 micros are at Stripe, and no transfer was reversed",
            "at_stripe_is_what_arrived: payee C1 usd: -7 micros are at Stripe, expected 0",
        ],
    ),
    (&[post!("paid_out", "at_stripe")], &["at_stripe_is_what_arrived: payee C1 usd: 7 micros are at Stripe, expected 0"]),
    (
        &[post!("paid_out", "in_flight")],
        &["in_flight_is_open_transfers: payee C1 usd: 7 micros are in flight, open transfers carry 0"],
    ),
    (
        &[post!("paid_out", "reserved_platform")],
        &[
            "reserved_is_what_items_keep: payee C1 usd: 7 and 0 micros are reserved on the platform and connected, items and pending withdrawals keep",
        ],
    ),
    (
        &["insert into earning_reversals (earning_id, source, cumulative_gross_micros, gross_micros, net_micros)
           values (1, 'refund:ch', 100, 100, 100)"],
        &["webhooks_have_one_effect: earning 1 of payee C1: 0 gross and 0 net micros are taken back, its reversals are 100"],
    ),
    // The same refund of 60 was booked twice.
    (
        &[
            "insert into earning_reversals (earning_id, source, cumulative_gross_micros, gross_micros, net_micros)
             values (1, 'refund:ch', 59, 60, 0), (1, 'refund:ch', 60, 60, 0)",
            "update creator_earnings set taken_back_gross_micros = 120 where id = 1",
        ],
        &["webhooks_have_one_effect: earning 1: refund:ch took back 120 gross micros, and never told of more than 60"],
    ),
    (
        &[operation!(1, "transfer", "reversed_minor = 3")],
        &[
            "at_stripe_is_what_arrived: payee C1 usd: 0 micros are at Stripe, expected -30000",
            "webhooks_have_one_effect: payee C1 usd: transfers of 30000 micros were reversed, the ledger has 0",
        ],
    ),
];

/// What operations and their items contradict.
const OF_OPERATIONS: &[Plant] = &[
    // Two live objects are two attempts of which the first is not closed.
    (
        &[second_payout!("accepted"), "update payout_items set payout_attempt = 2 where id = 1"],
        &[
            "attempts_follow_closed_ones: item 1: payout attempt 2 is accepted, and attempt 1 before it is accepted",
            "one_live_object_per_leg: item 1 of payee C1: 1 transfers and 2 payouts are live",
        ],
    ),
    (
        &[second_payout!("rejected"), "update payout_items set payout_attempt = 2 where id = 1"],
        &["attempts_follow_closed_ones: item 1: payout attempt 2 is rejected, and attempt 1 before it is accepted"],
    ),
    (
        &["delete from stripe_events", operation!(1, "payout", "attempt = 3")],
        &["attempts_are_all_there: item 1: payout attempt 3 comes after 0, expected 1"],
    ),
    (
        &["update payout_items set payout_attempt = 2 where id = 1"],
        &["attempts_are_all_there: item 1: knows of 1 transfer and 2 payout attempts, there are 1 and 1"],
    ),
    (&[operation!(1, "payout", "sends = 0")], &["sends_were_dispatched: operation"]),
    (
        &[
            "set local session_replication_role = replica",
            "delete from ledger_transfers where event = 'item:1' and leg = 'dispatch'",
        ],
        &[
            "balances_are_the_entries: C1 usd in_flight",
            "balances_are_the_entries: C1 usd reserved_platform",
            "sends_were_dispatched: operation",
        ],
    ),
    (
        &[operation!(1, "transfer", "state = 'rejected'")],
        &["at_stripe_is_what_arrived: payee C1 usd", "postings_follow_outcomes: operation"],
    ),
    (
        &[operation!(1, "payout", "sends = 2, first_dispatched_at = dispatched_at - interval '23 hours'")],
        &["no_replay_after_the_window: operation"],
    ),
    (
        &["alter table payout_operations alter column id drop identity", operation!(1, "transfer", "id = id + 1000")],
        &["no_transfer_after_a_payout: item 1: transfer attempt 1"],
    ),
    (
        &[operation!(3, "payout", "state = 'frozen'"), "update payout_items set status = 'needs_review' where id = 3"],
        &["unknown_has_age_and_owner: operation"],
    ),
    (&[operation!(3, "payout", "state = 'frozen', unknown_since = now()")], &["unknown_has_age_and_owner: operation"]),
    (
        &["update payout_items set status = 'paying_out' where id = 3"],
        &["nothing_is_forgotten: item 3 of payee C3: paying_out, and nobody will look at it again"],
    ),
    (
        &["insert into stripe_events (id, type, livemode, occurred_at, payload, state)
           select 'evt_planted', 'payout.paid', false, now(),
                  jsonb_build_object('data', jsonb_build_object('object', jsonb_build_object(
                      'metadata', jsonb_build_object('operation_id', id || '-1-payout-9')))), 'ignored'
           from instance"],
        &["objects_at_stripe_are_ours: event evt_planted (payout.paid): bears the mark"],
    ),
];

/// What batches and runs contradict.
const OF_BATCHES: &[Plant] = &[
    (
        &["update payout_batches set amount_minor = amount_minor + 1"],
        &["batch_total_is_its_items: batch 1: 4 items of 4001 minor units, its counts add up to 4 of 4000"],
    ),
    (
        &["update payout_batch_counts set items = items + case status when 'paid' then 1 else -1 end where items > 0"],
        &["counts_are_the_items: batch 1: counts 1 items", "counts_are_the_items: batch 1: counts 3 items"],
    ),
    (
        &["update payout_batches set completed_at = null, status = 'processing'"],
        &["runs_are_their_batches: run 1: completed, and its batches are 1 processing"],
    ),
    (
        &["insert into withdrawal_requests (creator_id, token_amount, currency, amount_micros, transfer_minor)
           select creator_id, 1, 'usd', 45000, 4 from payout_items where id = 1"],
        &[
            "reserved_is_what_items_keep: payee C1 usd: 0 and 0 micros are reserved on the platform and connected, items and pending withdrawals keep 40000",
        ],
    ),
    (
        &["insert into withdrawal_requests (creator_id, token_amount, currency, amount_micros, transfer_minor, status, item_id)
           select creator_id, 1, 'usd', 45000, amount_minor, 'batched', id from payout_items where id in (1, 3)"],
        &["withdrawals_follow_their_items: withdrawal"],
    ),
    (
        &["insert into withdrawal_requests (creator_id, token_amount, currency, amount_micros, status)
           select creator_id, 1, 'usd', 45000, 'paid' from payout_items where id = 1"],
        &["withdrawals_follow_their_items: withdrawal"],
    ),
    (
        &[
            "alter table payout_batches drop constraint payout_batches_hash_key",
            "insert into payout_batches (run_id, currency, batch_hash, status, completed_at)
             select run_id, 'eur', batch_hash, 'completed', now() from payout_batches",
        ],
        &["one_batch_per_hash: hash"],
    ),
    (
        &[
            "insert into audit_log (actor, action, subject, request_id) values ('somebody', 'test', 'nothing', 'r')",
            "set local session_replication_role = replica",
            "update audit_log set actor = 'nobody'",
            "set local session_replication_role = origin",
        ],
        &["audit_log_is_whole: row 1: its content is not what was written"],
    ),
];

#[tokio::test]
async fn each_check_sees_the_breach_it_is_there_for_and_no_other_one_lies() {
    let stage = sound().await;
    assert_eq!(with(&stage, &[]).await, [], "in a sound world all are silent");
    let mut seen: Vec<Check> = Vec::new();
    for (changes, expected) in [OF_THE_LEDGER, OF_OPERATIONS, OF_BATCHES].concat() {
        let found = with(&stage, changes).await;
        seen.extend(found.iter().map(|breach| breach.check));
        let mut lines: Vec<String> = found.iter().map(|breach| format!("{}: {}", breach.check.name(), breach.row)).collect();
        for n in 1..=4 {
            lines = lines.into_iter().map(|line| line.replace(&creator(n).to_string(), &format!("C{n}"))).collect();
        }
        let matches =
            lines.len() == expected.len() && expected.iter().all(|start| lines.iter().any(|line| line.starts_with(start)));
        assert!(matches, "{changes:#?}\nexpected {expected:#?}\nfound {lines:#?}");
    }
    let unseen: Vec<&Check> = Check::ALL.iter().filter(|check| !seen.contains(check)).collect();
    assert!(unseen.is_empty(), "nothing was planted for {unseen:?}");
    assert_eq!(with(&stage, &[]).await, [], "what was planted never happened");
}

#[tokio::test]
async fn a_chunk_s_cheap_checks_see_its_own_rows_and_nobody_else_s() {
    let stage = Stage::new().await;
    let chunks = stage.crowd_in_chunks(6, 1_000, 3).await;
    stage.work().await;
    for n in [1, 4] {
        stage
            .run(format!(
                "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                 values ('planted:{n}', 'x', '{}', 'usd', 'at_stripe', 'in_flight', 7)",
                creator(n)
            ))
            .await;
    }
    let mut tx = stage.tx().await;
    for (chunk, n) in chunks.iter().zip([1, 4]) {
        let found = checks::of_chunk(&mut tx, *chunk).await.expect("an answer");
        let row = format!("payee {} usd: 7 micros are in flight, open transfers carry 0", creator(n));
        assert_eq!(found, [Breach { check: Check::InFlight, row }]);
    }
    let whole = checks::of_everything(&mut tx).await.expect("an answer");
    let cheap: Vec<&Breach> = whole.iter().filter(|breach| breach.check.cost() == Cost::Cheap).collect();
    assert_eq!(cheap.len(), 2, "over everything the same checks see both: {whole:#?}");
}

/// A refused attempt gave its money back to what is reserved; that Stripe has it all the same makes no book wrong, only open.
#[tokio::test]
async fn a_refused_transfer_that_is_found_live_is_a_contradiction_and_no_breach() {
    let stage = Stage::new().await;
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::BalanceInsufficient));
    let chunk = stage.crowd(1, 1_000).await[0];
    stage.process(chunk).await.expect("refused");
    assert_eq!(stage.statuses().await, "awaiting_funds=1");
    // A sender that was frozen all the time thaws, long after its key was forgotten.
    let body = stage.row("select request_body from payout_operations").await;
    let asked = Asked { leg: Leg::Transfer, amount_minor: 1_000, currency: "usd".to_owned(), account: "acct_1".to_owned() };
    stage.payer.stripe.send(&asked, "forgotten", &body, false).await;
    assert_eq!(stage.double.transfers().len(), 1);
    stage.sweeper().await.sweep().await;
    stage.finish().await;
    let found = stage.row("select i.status, o.state from payout_items i join payout_operations o on o.item_id = i.id").await;
    assert_eq!(found, "needs_review rejected");
    assert_eq!(stage.count("payout_batches where halt_reason = 'standing_check'").await, 0);
    assert_eq!(stage.balance(1, "usd").await, "reserved_platform=10000000");
    stage.world.audit().await;
}

/// Two batches, dollars in two chunks and euros in one; the chunks of dollars first.
async fn two_batches() -> (Stage, Vec<ChunkId>) {
    let stage = Stage::new().await;
    stage.double.fund("eur", 1_000_000);
    stage.accounts(1..=5);
    stage.creators(1..=5).await;
    let euros = payday::earnings::NewEarning { currency: currency("eur"), ..earning("eur", 5, 700) };
    let dollars = (1..=4).map(|n| earning(&format!("e{n}"), n, 1_000));
    stage.record(dollars.chain([euros]).collect()).await;
    stage.double.update_account("acct_5", |account| {
        let mut bank = account.banks[0].clone();
        (bank.id, bank.currency) = ("ba_eur".to_owned(), "eur".to_owned());
        account.banks.push(bank);
    });
    stage.cycle(payday::clock::Schedule::Semimonthly, payday_tests::world::CYCLE, 2).await;
    let chunks = stage.all::<(ChunkId,)>(
        "select k.id from payout_chunks k join payout_batches b on b.id = k.batch_id order by b.currency desc, k.id",
    );
    let chunks = chunks.await.into_iter().map(|(id,)| id).collect();
    (stage, chunks)
}

const PLANTED: &str = "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
    select 'planted', 'x', creator_id, currency, 'earnings', 'in_flight', 7
    from payout_items where currency = 'usd' order by id limit 1";
const MENDED: &str = "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
    select 'mended', 'x', payee_id, currency, 'in_flight', 'earnings', 7 from ledger_transfers where event = 'planted'";
const BATCHES: &str = "select currency, status, halt_reason from payout_batches order by currency desc";

#[tokio::test]
async fn a_breach_stops_its_batch_with_one_alert_keeps_everything_and_waits_for_a_person() {
    let (stage, chunks) = two_batches().await;
    // While the first chunk is being paid, its books go wrong.
    stage.double.hold();
    let planting = async {
        stage.double.held_requests(2).await;
        stage.run(PLANTED).await;
        stage.double.release();
    };
    let (worked, ()) = tokio::join!(stage.process(chunks[0]), planting);
    worked.expect("stopped in good order");
    assert_eq!(stage.rows(BATCHES).await, ["usd halted standing_check", "eur processing -"]);
    assert_eq!(stage.statuses().await, "in_transit=2 pending=3", "what was sent is kept as it is");
    let alert = "select kind, payload ->> 'check', payload ->> 'batchId', payload ->> 'disagreeing' from outbox";
    let batch = stage.row("select id from payout_batches where currency = 'usd'").await;
    assert_eq!(stage.rows(alert).await, [format!("standing_check_breached in_flight_is_open_transfers {batch} 1")]);
    let row = stage.row("select payload -> 'rows' ->> 0 from outbox").await;
    assert_eq!(row, format!("payee {} usd: 7 micros are in flight, open transfers carry 0", creator(1)));
    assert_eq!(
        stage.rows("select name, disagreeing[1], verified_at from standing_checks").await,
        [format!("in_flight_is_open_transfers {row} -")]
    );

    // The other batch goes on; this one does not, by nothing that Payday does by itself.
    let sent = stage.calls("POST", "/v1/transfers").len();
    let sweeping = stage.sweeper().await;
    for _ in 0..3 {
        stage.work().await;
        sweeping.sweep().await;
        sweeping.sweeper.retry(60).await.expect("retried");
        stage.later(Span::hours(25)).await;
    }
    assert_eq!(stage.rows(BATCHES).await, ["usd halted standing_check", "eur completed -"]);
    assert_eq!(stage.statuses().await, "in_transit=3 pending=2");
    assert_eq!(stage.calls("POST", "/v1/transfers").len(), sent + 1, "only the euros");
    assert_eq!(stage.count("outbox where kind = 'standing_check_breached'").await, 1, "one alert, however often it is seen");

    // A person mends the books and resumes.
    stage.run(MENDED).await;
    stage.run("update payout_batches set status = 'processing', halt_reason = null where halt_reason = 'standing_check'").await;
    stage.finish().await;
    sweeping.sweep().await;
    assert_eq!(stage.statuses().await, "in_transit=5");
    assert_eq!(stage.rows(BATCHES).await, ["usd completed -", "eur completed -"]);
    stage.audit().await;
}

/// Halts that end by themselves must not end this one.
#[tokio::test]
async fn a_breach_outlasts_any_other_halt_and_a_second_one_after_a_resume_alerts_again() {
    let (stage, chunks) = two_batches().await;
    stage.run(PLANTED).await;
    for reason in ["awaiting_funds", "stripe_key_rejected", "frozen_operation"] {
        stage.run(format!("update payout_batches set status = 'halted', halt_reason = '{reason}' where currency = 'usd'")).await;
        stage.process(chunks[0]).await.expect("nothing is sent");
        assert_eq!(stage.rows(BATCHES).await[0], "usd halted standing_check", "{reason}");
    }
    assert_eq!(stage.count("outbox where kind = 'standing_check_breached'").await, 3, "each time it was resumed");
    // A completed batch too: something of it was due again.
    stage
        .run("update payout_batches set status = 'completed', halt_reason = null, completed_at = now() where currency = 'usd'")
        .await;
    stage.process(chunks[0]).await.expect("stopped");
    assert_eq!(stage.rows(BATCHES).await[0], "usd halted standing_check");
}

#[tokio::test]
async fn the_daily_job_keeps_its_verdict_and_alerts_once_a_day_for_each_check() {
    let (stage, _) = two_batches().await;
    checks::verify(&stage.db).await.expect("verified");
    let verdicts = "select count(*), count(verified_at), count(breached_at) from standing_checks";
    let all = Check::ALL.len();
    assert_eq!(stage.row(verdicts).await, format!("{all} {all} 0"));
    assert_eq!(stage.count("outbox").await, 0);
    stage.run(PLANTED).await;
    for _ in 0..2 {
        checks::verify(&stage.db).await.expect("verified");
    }
    assert_eq!(stage.row(verdicts).await, format!("{all} {all} 2"));
    assert_eq!(
        stage.rows("select kind, payload ->> 'check' from outbox order by 2").await,
        ["standing_check_breached in_flight_is_open_transfers", "standing_check_breached payees_have_what_they_earned"]
    );
    assert_eq!(
        stage.rows(BATCHES).await,
        ["usd processing -", "eur processing -"],
        "it tells; batches are stopped where they are paid"
    );
    stage.run(MENDED).await;
    checks::verify(&stage.db).await.expect("verified");
    assert_eq!(stage.row(verdicts).await, format!("{all} {all} 0"), "what holds again is no longer told of");
}
