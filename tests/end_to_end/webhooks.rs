//! Events in any order, twice, under two ids, late or never: the same final state.

use std::time::Duration;

use payday_local::stripe_double::{
    DeliveryAction, DeliveryOptions, DeliveryRule, Fault, FaultRule, PayoutOutcome, Settlement, When,
};
use payday_tests::gate::{At, Gate};
use payday_tests::system::{Setup, System};
use payday_tests::world::account_of;

fn rule(event: &str, action: DeliveryAction) -> DeliveryRule {
    DeliveryRule { event: event.to_owned(), account: None, when: When::Always, action }
}

/// What happens to the events of one group of creators: event type and how it is mistreated.
fn mistreated() -> Vec<Vec<(&'static str, DeliveryAction)>> {
    let after = |event: &str| DeliveryAction::After(event.to_owned());
    vec![
        vec![],
        vec![("payout.*", DeliveryAction::Copies(3))],
        vec![("payout.created", DeliveryAction::Hold)],
        vec![("payout.paid", DeliveryAction::SecondId), ("payout.failed", DeliveryAction::SecondId)],
        vec![("payout.paid", after("payout.failed"))],
        vec![("payout.updated", after("payout.paid"))],
        vec![("payout.*", DeliveryAction::Hold)],
        vec![("payout.updated", DeliveryAction::Drop), ("payout.created", DeliveryAction::Drop)],
        vec![("payout.*", DeliveryAction::DelayMs(100))],
    ]
}

/// What a bank makes of the payouts of the n-th creator: of each group of four two are paid, one is refused, and one is paid
/// and sent back.
fn outcome(n: u128) -> PayoutOutcome {
    match n % 4 {
        3 => PayoutOutcome::Failed("account_closed".to_owned()),
        0 => PayoutOutcome::PaidThenFailed { code: "account_closed".to_owned(), after_ms: 30 },
        _ => PayoutOutcome::Paid,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_events_and_how_often_they_come_change_nothing() {
    for options in [
        DeliveryOptions { parallel: 1, ..DeliveryOptions::default() },
        DeliveryOptions { shuffle_seed: Some(7), delay_ms: 40, copies: 2, ..DeliveryOptions::default() },
    ] {
        let groups = mistreated();
        let creators = groups.len() * 4;
        let system = Setup::of(u128::try_from(creators).expect("a number"))
            .double(|double| double.settlement = Settlement::Automatic { in_transit_after_ms: 5, paid_after_ms: 20 })
            .accounts(|n, account| account.banks[0].outcome = outcome(n))
            .start()
            .await;
        for (n, group) in (1..).zip(groups.iter().flat_map(|group| [group; 4])) {
            for (event, action) in group {
                let (event, account) = ((*event).to_owned(), Some(account_of(n)));
                system.double.delivery_rule(DeliveryRule { event, account, when: When::Always, action: action.clone() });
            }
        }
        system.double.set_delivery(options.clone());
        system.fire().await;
        let happened = |status: &str| system.double.payouts().iter().filter(|payout| payout.status == status).count();
        system
            .see("everything has happened at Stripe", || happened("paid") == creators / 2 && happened("failed") == creators / 2)
            .await;
        system.idle().await;
        system.double.clear_delivery_rules();
        system.double.release_held_webhooks();
        system.drain().await;
        let states = "select account, status from payout_items order by length(account), account";
        let of = |n: usize| match n % 4 {
            3 => "payout_blocked",
            0 => "returned",
            _ => "paid",
        };
        let right: Vec<String> = (1..=creators).map(|n| format!("acct_{n} {}", of(n))).collect();
        let ours = system.database.rows(states).await;
        assert_eq!(ours, right, "{options:?}");
        let quarter = creators / 4;
        system.ends(&format!("paid={} payout_blocked={quarter} returned={quarter}", creators / 2)).await;
    }
}

/// The event that a payout was paid, while our answer to the send is not there yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_payout_that_is_paid_before_we_have_the_answer_is_paid_once() {
    let system = Setup::of(3)
        .setting("STRIPE_TIMEOUT_MS", 1_000)
        .double(|double| double.settlement = Settlement::Automatic { in_transit_after_ms: 0, paid_after_ms: 0 })
        .fault(FaultRule::post("/v1/payouts", When::First(3), Fault::ExecuteThenHang))
        .start()
        .await;
    system.fire().await;
    system.until("all are paid by the events alone", "select count(*) = 3 from payout_items where status = 'paid'").await;
    system.idle().await;
    assert_eq!(system.called("POST /v1/payouts"), 3, "nothing had to be asked again");
    system.ends("paid=3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_comes_leaves_the_payment_in_transit_and_the_run_complete() {
    let system = Setup::of(2).start().await;
    system.double.delivery_rule(rule("payout.paid", DeliveryAction::Drop));
    system.fire().await;
    system.drain().await;
    system.double.settle_payouts();
    system.drain().await;
    assert_eq!(system.statuses().await, "in_transit=2");
    assert_eq!(system.database.value::<String>("select status from payout_runs").await, "completed");
    // A day late.
    system.later(Duration::from_secs(86_400)).await;
    let paid: Vec<String> =
        system.double.events().iter().filter(|event| event.kind == "payout.paid").map(|event| event.id.clone()).collect();
    system.double.clear_delivery_rules();
    assert!(paid.iter().all(|id| system.double.resend_event(id)));
    system.ends("paid=2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_effect_was_not_committed_comes_again() {
    let system: System = Setup::of(2).start().await;
    system.fire().await;
    system.drain().await;
    let mut gate = Gate::close(&system.database, At::CommitOfInsert, "stripe_events").await;
    system.double.settle_payouts();
    gate.reached().await;
    gate.cut().await;
    gate.open().await;
    system.idle().await;
    assert!(system.double.deliveries().iter().any(|delivery| delivery.status >= 500), "told to come again");
    system.ends("paid=2").await;
}
