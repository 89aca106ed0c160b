//! No webhook comes for three days, and the daily comparison with Stripe makes it good.

use std::time::Duration;

use payday_local::stripe_double::{DestinationCharge, PayoutOutcome};
use payday_tests::system::Setup;
use payday_tests::world::account_of;
use serde_json::json;

const THREE_DAYS: Duration = Duration::from_secs(3 * 86_400);

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_webhooks_for_three_days_is_made_good_by_reconciliation() {
    let system = Setup::of(6)
        .accounts(|n, account| {
            if n == 6 {
                account.banks[0].outcome = PayoutOutcome::Failed("account_closed".to_owned());
            }
        })
        .start()
        .await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "in_transit=6");

    // What happens at Stripe from now on, nobody is told of, neither now nor later.
    system.double.set_webhooks(None);
    system.double.settle_payouts();
    let charge = DestinationCharge { amount: 900, destination: account_of(1), ..DestinationCharge::default() };
    let charged = system.double.create_destination_charge(&charge).expect("charged");
    system.double.refund(&charged.charge, 900, true, true).expect("refunded");
    let of_two =
        system.double.transfers().into_iter().find(|transfer| transfer.destination == account_of(2)).expect("a transfer");
    system.double.reverse_transfer(&of_two.id, 100).expect("reversed");
    system.later(THREE_DAYS).await;
    system.database.run("update payout_items set arrival_on = arrival_on - 5").await;
    system.sweep().await;
    assert_eq!(system.statuses().await, "in_transit=6", "nothing is known yet");

    system.job("reconcile").await;
    system.drain().await;
    assert_eq!(system.statuses().await, "paid=5 payout_blocked=1");
    let compared = system.get("/internal/discrepancies").await.json();
    let last = &compared["lastReconciliation"];
    // The charge, its refund, and two reversals came by the list of events, the six payouts by their accounts' lists.
    assert_eq!((&last["stage"], &last["eventsMissed"], &last["mended"]), (&json!("done"), &json!(4), &json!(6)), "{compared}");
    assert_eq!(compared["discrepancies"], json!([]));
    for sum in last["sums"].as_array().expect("sums") {
        assert_eq!(sum["stripeMinor"], sum["ledgerMinor"], "{sum}");
    }
    system.listen();
    system.ends("paid=5 payout_blocked=1").await;
}
