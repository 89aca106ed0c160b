//! Stripe's side of the faults: timeouts, refusals, limits, a revoked key, an empty balance, a day's outage.

use std::time::Duration;

use payday_local::stripe_double::{Fault, FaultRule, PayoutOutcome, Rates, When};
use payday_tests::system::{STRIPE_KEY, Setup};
use payday_tests::world::account_of;

const TRANSFERS: &str = "POST /v1/transfers";
const PAYOUTS: &str = "POST /v1/payouts";

fn answer(status: u16, code: &str) -> Fault {
    Fault::Error { status, code: code.to_owned(), message: "Stripe says so.".to_owned(), stored: status < 500 }
}

fn first(path: &str, n: u128, fault: Fault) -> FaultRule {
    FaultRule::post(path, When::First(1), fault).for_account(&account_of(n))
}

/// Each creator's first send meets a fault of its own.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_send_its_attempt_is_finished_with_the_same_key() {
    let faults = [
        Fault::ExecuteThenHang,
        Fault::TimeoutBefore,
        Fault::ExecuteThenReset,
        Fault::ResetBefore,
        Fault::Html { status: 503 },
        Fault::ExecuteThenHtml { status: 502 },
        Fault::Truncated,
        Fault::Garbage,
        Fault::MissingField { name: "amount".to_owned() },
        Fault::UnknownEnum,
        Fault::Error500Before,
        Fault::ExecuteThen500,
        Fault::KeyInUse,
        Fault::LockTimeout,
        Fault::RateLimited { reason: "global-rate".to_owned(), retry_after: Some(1) },
        answer(503, "api_error"),
    ];
    let mut setup = Setup::of(32).setting("STRIPE_TIMEOUT_MS", 150);
    for (number, fault) in (1..).zip(&faults) {
        setup = setup.fault(first("/v1/transfers", number, fault.clone()));
        setup = setup.fault(first("/v1/payouts", number + 16, fault.clone()));
    }
    let system = setup.start().await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.double.faults().iter().map(|fault| fault.fired).sum::<u64>(), 32);
    let attempts = system.database.rows("select distinct leg, attempt, state from payout_operations order by 1").await;
    assert_eq!(attempts, ["payout 1 accepted", "transfer 1 accepted"]);
    system.ends("paid=32").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_balance_halts_the_batch_and_it_goes_on_by_itself_when_funded() {
    // Enough for two and a half of twenty.
    let system = Setup::of(20).funds(5_000).setting("CHUNK_SIZE", 1).start().await;
    system.fire().await;
    system.idle().await;
    assert_eq!(system.statuses().await, "awaiting_funds=18 in_transit=2");
    assert_eq!(system.database.value::<String>("select status from payout_runs").await, "completed");
    let refused = system.database.count("payout_operations where state = 'rejected'").await;
    assert!((1..18).contains(&refused), "{refused} were sent in vain before the batch halted, the rest never");
    system.sweep().await;
    system.idle().await;
    assert_eq!(system.statuses().await, "awaiting_funds=18 in_transit=2", "a sweep alone does not fund it");
    system.double.fund("usd", 4_100);
    system.sweep().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "awaiting_funds=16 in_transit=4", "as far as the money reaches");
    system.double.fund("usd", 100_000);
    system.sweep().await;
    system.drain().await;
    let attempts = "select count(*) from payout_operations where leg = 'transfer' and state = 'accepted' and attempt = ";
    let (first, second) = (format!("{attempts} 1"), format!("{attempts} 2"));
    assert_eq!(system.database.value::<i64>(second).await, refused, "a new number, and no poisoned key");
    assert_eq!(system.database.value::<i64>(first).await, 20 - refused, "what was never sent is at its first attempt");
    system.ends("paid=20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_stripes_slows_everybody_and_is_nobodys_fault() {
    let rates = Rates { endpoint: Some(10), burst_per_mille: 300, ..Rates::unlimited() };
    let system = Setup::of(10).start().await;
    system.double.set_rates(rates);
    system.fire().await;
    system.drain().await;
    assert!(system.double.counts().limited > 0, "the limit was met");
    assert!(system.database.value::<bool>("select bool_and(slowed_by > 1) from rate_budgets").await, "all workers slow down");
    assert_eq!(system.database.count("payout_operations where attempt > 1").await, 0, "no attempt is used up");
    assert_eq!(system.database.count("payees where blocked_reason is not null").await, 0, "no payee is blamed");
    system.ends("paid=10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_halts_everything_with_one_alert_and_the_next_key_goes_on() {
    let system = Setup::of(20).setting("SENDS_PER_WORKER", 2).double(|double| double.latency_ms = 20).start().await;
    system.fire().await;
    system.see("some have been sent", || system.executed(TRANSFERS) >= 4).await;
    system.double.revoke_key(STRIPE_KEY);
    system.until("everything halts", "select bool_and(halt_reason = 'stripe_key_rejected') from payout_batches").await;
    system.idle().await;
    let sent = system.called(TRANSFERS);
    system.sweep().await;
    system.idle().await;
    assert_eq!(system.called(TRANSFERS), sent, "nothing is sent while the key is refused");
    let alerts = "outbox where kind = 'batch_halted' and payload ->> 'reason' = 'stripe_key_rejected'";
    assert_eq!(system.database.count(alerts).await, 1);
    system.double.allow_key(STRIPE_KEY);
    system.sweep().await;
    system.drain().await;
    assert_eq!(system.database.count("payout_operations where attempt > 1").await, 0);
    system.ends("paid=20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_without_stripe_nothing_of_unknown_outcome_is_sent_again() {
    const DAY: Duration = Duration::from_secs(26 * 3_600);
    let system = Setup::of(6)
        .setting("STRIPE_TIMEOUT_MS", 150)
        .setting("SENDS_PER_WORKER", 1)
        .fault(first("/v1/transfers", 1, Fault::TimeoutBefore))
        .fault(first("/v1/transfers", 2, Fault::ExecuteThenHang))
        .start()
        .await;
    // The third is held until Stripe is gone, so that the rest is never sent.
    system.fire().await;
    system.see("two sends are not answered", || system.executed(TRANSFERS) >= 1).await;
    system.double.go_down();
    system.idle().await;
    system.double.advance(DAY);
    system.double.expire_keys();
    system.later(DAY).await;
    let sent = system.called(TRANSFERS);
    system.double.go_up();
    system.sweep().await;
    system.drain().await;
    let of = |n: u128| {
        format!(
            "select o.state from payout_operations o join payout_items i on i.id = o.item_id where o.leg = 'transfer' and i.account = '{}'",
            account_of(n)
        )
    };
    assert_eq!(system.database.rows(&of(1)).await, ["unresolved"], "not found: a person decides");
    assert_eq!(system.database.rows(&of(2)).await, ["accepted"], "found by looking it up");
    assert_eq!(system.called(TRANSFERS), sent + 4, "the never-sent ones go out normally");
    assert_eq!(system.database.count("outbox where kind = 'item_needs_a_person'").await, 1);
    system.ends("needs_review=1 paid=5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_stripe_does_not_know_blocks_its_payee_and_nobody_else() {
    let system = Setup::of(4).fault(first("/v1/transfers", 2, Fault::AccountInvalid)).start().await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "failed=1 in_transit=3");
    assert_eq!(system.database.count("payees where blocked_reason is not null").await, 1);
    system.job("retry").await;
    system.ends("failed=1 paid=3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_contradicts_the_question_stops_the_batch_for_a_person() {
    for fault in [Fault::WrongAmount, Fault::WrongDestination, Fault::WrongCurrency] {
        let system = Setup::of(3).setting("SENDS_PER_WORKER", 1).fault(first("/v1/transfers", 1, fault)).start().await;
        system.fire().await;
        system.idle().await;
        assert_eq!(system.database.rows("select status, halt_reason from payout_batches").await, ["halted frozen_operation"]);
        assert_eq!(system.database.count("payout_items where status = 'needs_review'").await, 1);
        let sent = system.called(TRANSFERS);
        system.sweep().await;
        system.idle().await;
        assert_eq!(system.called(TRANSFERS), sent, "nothing goes on by itself");
        system.stack.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_payout_after_an_accepted_transfer_stays_at_stripe_and_is_not_owed_again() {
    let system = Setup::of(3).fault(first("/v1/payouts", 1, answer(400, "payouts_not_allowed"))).start().await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "in_transit=2 payout_blocked=1");
    system.job("retry").await;
    system.drain().await;
    assert_eq!((system.called(TRANSFERS), system.called(PAYOUTS)), (3, 3), "neither leg is tried again by itself");
    let balance =
        "select available_platform, at_stripe / 10000 from payee_balances b join payout_items i on i.creator_id = b.payee_id
                   where i.status = 'payout_blocked'";
    assert_eq!(system.database.row(balance).await, "0 2001");
    system.ends("paid=2 payout_blocked=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_the_bank_sent_back_days_later_goes_out_by_a_new_payout_once_the_bank_account_changed() {
    let system = Setup::of(2).start().await;
    system.fire().await;
    system.drain().await;
    system.double.settle_payouts();
    system.drain().await;
    assert_eq!(system.statuses().await, "paid=2");
    // Stripe's clock stays beside ours: of news from our future nobody can say that what was read after them is newer.
    system.later(Duration::from_secs(4 * 86_400)).await;
    let payout = system.double.payouts().into_iter().find(|payout| payout.account == account_of(1)).expect("a payout");
    system.double.fail_payout(&payout.id, "account_closed");
    system.drain().await;
    assert_eq!(system.statuses().await, "paid=1 returned=1");
    assert_eq!((system.called(TRANSFERS), system.called(PAYOUTS)), (2, 2));
    system.double.update_account(&account_of(1), |account| {
        account.banks[0].id = "ba_another".to_owned();
        account.banks[0].fingerprint = "another bank".to_owned();
        account.banks[0].outcome = PayoutOutcome::Paid;
        account.banks[0].status = "new".to_owned();
    });
    system.drain().await;
    assert_eq!((system.executed(TRANSFERS), system.executed(PAYOUTS)), (2, 3), "a new payout leg, no new transfer");
    system.ends("paid=2").await;
}
