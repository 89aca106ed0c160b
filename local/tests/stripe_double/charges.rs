//! Destination charges, refunds and disputes: whose money moves.

use payday_local::stripe_double::{AccountSpec, DestinationCharge};

use crate::harness::{DAY, Stripe, options};

/// <https://docs.stripe.com/connect/destination-charges>, <https://docs.stripe.com/payouts#payout-schedule>
#[tokio::test]
async fn a_destination_charge_is_pending_first_and_its_fee_stays_with_the_platform() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    let charged = stripe
        .double
        .create_destination_charge(&DestinationCharge {
            amount: 10_000,
            destination: "acct_a".to_owned(),
            application_fee_amount: 1_000,
            stripe_fee: 320,
            pending_ms: 2 * 86_400_000,
            ..DestinationCharge::default()
        })
        .expect("a charge");
    let funds = stripe.double.funds(Some("acct_a"), "usd");
    assert_eq!((funds.available, funds.pending), (0, 9_000));
    assert_eq!(stripe.payout("acct_a", "amount=9000&currency=usd", "k").await.code(), "balance_insufficient");
    stripe.double.advance(2 * DAY);
    assert_eq!(stripe.payout("acct_a", "amount=9000&currency=usd", "k2").await.status, 200);
    assert_eq!(stripe.available(None, "usd"), 680);
    let transfer = stripe.get(&format!("/v1/transfers/{}", charged.transfer), "").await;
    assert_eq!(transfer.str("/source_transaction"), charged.charge);
    let kinds: Vec<String> = stripe.double.events().iter().take(3).map(|e| e.kind.clone()).collect();
    assert_eq!(kinds, ["transfer.created", "charge.succeeded", "payment_intent.succeeded"]);
}

/// `amount_refunded` is a running total. <https://docs.stripe.com/api/charges/object>
#[tokio::test]
async fn refunds_add_up_and_reverse_the_transfer_when_asked() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    let charge = DestinationCharge { amount: 10_000, destination: "acct_a".to_owned(), ..DestinationCharge::default() };
    let charged = stripe.double.create_destination_charge(&charge).expect("a charge");
    stripe.double.refund(&charged.charge, 4_000, true, false).expect("a refund");
    stripe.double.refund(&charged.charge, 1_000, false, false).expect("a refund");
    let totals: Vec<i64> = stripe
        .double
        .events()
        .iter()
        .filter(|e| e.kind == "charge.refunded")
        .filter_map(|e| serde_json::from_slice::<serde_json::Value>(&e.object).ok()?["amount_refunded"].as_i64())
        .collect();
    assert_eq!(totals, [4_000, 5_000]);
    assert_eq!(stripe.available(Some("acct_a"), "usd"), 6_000);
    assert!(stripe.double.refund(&charged.charge, 5_001, false, false).is_err());
    // The platform stands in for the rest, so its balance may fall below zero.
    assert_eq!(stripe.available(None, "usd"), -1_000);
    assert!(stripe.double.audit().broken_books.is_empty());
}

/// "disputed amount and fee are withdrawn from the platform" <https://docs.stripe.com/connect/disputes>
#[tokio::test]
async fn a_dispute_is_taken_from_the_platform_and_returned_when_won() {
    let stripe = Stripe::funded().await;
    let charge = DestinationCharge { amount: 10_000, destination: "acct_a".to_owned(), ..DestinationCharge::default() };
    let charged = stripe.double.create_destination_charge(&charge).expect("a charge");
    let dispute = stripe.double.dispute(&charged.charge, 10_000, "fraudulent").expect("a dispute");
    assert_eq!(stripe.available(None, "usd"), 100_000 - 10_000 - 1_500);
    stripe.double.close_dispute(&dispute, true).expect("an open dispute");
    assert_eq!(stripe.available(None, "usd"), 100_000 - 1_500);
    let kinds: Vec<String> = stripe.double.events().iter().map(|e| e.kind.clone()).filter(|k| k.contains("dispute")).collect();
    let expected = ["created", "funds_withdrawn", "funds_reinstated", "closed"].map(|k| format!("charge.dispute.{k}"));
    assert_eq!(kinds, expected);
}
