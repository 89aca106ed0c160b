//! Transfers, their reversals and the parameters Stripe refuses.

use payday_local::stripe_double::{AccountSpec, Exchange, StripeDoubleOptions};

use crate::harness::{Stripe, TEN_TO_A, for_account, keyed, options, with_receiver};

/// <https://docs.stripe.com/connect/separate-charges-and-transfers>
#[tokio::test]
async fn a_transfer_moves_the_platforms_money_to_the_account() {
    let stripe = Stripe::funded().await;
    let transfer = stripe.transfer(&format!("{TEN_TO_A}&metadata[item_id]=9"), "k").await;
    assert_eq!(transfer.str("/object"), "transfer");
    assert_eq!(transfer.str("/metadata/item_id"), "9");
    assert_eq!((stripe.available(None, "usd"), stripe.available(Some("acct_a"), "usd")), (99_000, 1_000));
    let read = stripe.get(&format!("/v1/transfers/{}", transfer.id()), "").await;
    assert_eq!(read.json, transfer.json);
    let books = stripe.get_as("/v1/balance_transactions", "type=payment", for_account("acct_a")).await;
    assert_eq!(books.str("/data/0/source"), transfer.str("/destination_payment"));
    assert!(stripe.double.audit().is_clean());
}

/// <https://docs.stripe.com/error-codes#balance-insufficient>
#[tokio::test]
async fn no_more_than_is_available_is_transferred() {
    let stripe = Stripe::funded().await;
    let all = stripe.transfer("amount=100000&currency=usd&destination=acct_a", "k").await;
    assert_eq!(all.status, 200);
    let more = stripe.transfer("amount=1&currency=usd&destination=acct_a", "k2").await;
    assert_eq!((more.status, more.code().as_str()), (400, "balance_insufficient"));
    let other = stripe.transfer("amount=1&currency=eur&destination=acct_a", "k3").await;
    assert_eq!(other.code(), "balance_insufficient");
}

/// <https://docs.stripe.com/connect/account-capabilities#transfers>
#[tokio::test]
async fn an_account_without_the_transfers_capability_gets_nothing() {
    let stripe = Stripe::funded().await;
    stripe.double.update_account("acct_a", |a| a.transfers = "inactive".to_owned());
    let refused = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "insufficient_capabilities_for_transfer"));
}

/// An unknown id in a parameter is a 400, not a 404. <https://docs.stripe.com/error-codes#resource-missing>
#[tokio::test]
async fn an_unknown_destination_is_a_400_that_names_the_parameter() {
    let stripe = Stripe::funded().await;
    let refused = stripe.transfer("amount=1&currency=usd&destination=acct_nobody", "k").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "resource_missing"));
    assert_eq!(refused.str("/error/param"), "destination");
    assert_eq!(stripe.get("/v1/transfers/tr_none", "").await.status, 404);
}

/// <https://docs.stripe.com/api/errors>
#[tokio::test]
async fn malformed_parameters_are_refused_by_name() {
    let stripe = Stripe::funded().await;
    let cases = [
        ("amount=0", "parameter_invalid_integer", "amount"),
        ("amount=-5", "parameter_invalid_integer", "amount"),
        ("amount=1.5", "parameter_invalid_integer", "amount"),
        ("amount=1e3", "parameter_invalid_integer", "amount"),
        ("amount=", "parameter_invalid_empty", "amount"),
        ("amount=99999999999999999999", "parameter_invalid_integer", "amount"),
        ("amount=9999999999999", "amount_too_large", "amount"),
        ("amount=1&status=paid", "parameter_unknown", "status"),
        ("x=1", "parameter_unknown", "x"),
    ];
    for (form, code, param) in cases {
        let form = format!("{form}&currency=usd&destination=acct_a");
        let answer = stripe.post("/v1/transfers", &form, keyed(&form)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{form}");
        assert_eq!(answer.str("/error/param"), param, "{form}");
    }
    let currency = stripe.transfer("amount=1&currency=xyz&destination=acct_a", "c").await;
    assert_eq!((currency.status, currency.str("/error/param").as_str()), (400, "currency"));
}

/// <https://docs.stripe.com/api/transfer_reversals>
#[tokio::test]
async fn a_reversal_takes_back_at_most_what_is_left_and_what_is_there() {
    let (stripe, receiver) = with_receiver().await;
    let transfer = stripe.transfer(TEN_TO_A, "k").await.id();
    let path = format!("/v1/transfers/{transfer}/reversals");
    let some = stripe.post(&path, "amount=400", keyed("r1")).await;
    assert_eq!((some.status, some.int("/amount")), (200, Some(400)));
    assert_eq!(stripe.post(&path, "amount=601", keyed("r2")).await.status, 400);
    let rest = stripe.post(&path, "", keyed("r3")).await;
    assert_eq!(rest.int("/amount"), Some(600));
    assert_eq!((stripe.available(None, "usd"), stripe.available(Some("acct_a"), "usd")), (100_000, 0));
    let read = stripe.get(&format!("/v1/transfers/{transfer}"), "").await;
    assert_eq!((read.int("/amount_reversed"), read.json["reversed"].as_bool()), (Some(1_000), Some(true)));
    stripe.double.all_delivered().await;
    let reversed: Vec<_> = receiver.got().into_iter().filter(|r| r.kind() == "transfer.reversed").collect();
    let totals: Vec<_> = reversed.iter().map(|r| r.json["data"]["object"]["amount_reversed"].as_i64()).collect();
    assert_eq!(totals, [Some(400), Some(1_000)]);
    // What was paid out in the meantime cannot be taken back.
    let second = stripe.transfer(&TEN_TO_A.replace("item_1", "item_2"), "k2").await.id();
    stripe.payout("acct_a", "amount=1000&currency=usd", "p").await;
    let gone = stripe.post(&format!("/v1/transfers/{second}/reversals"), "", keyed("r4")).await;
    assert_eq!(gone.code(), "balance_insufficient");
}

/// ISK and UGX carry two zero decimals everywhere. <https://docs.stripe.com/currencies#special-cases>
#[tokio::test]
async fn a_transfer_in_kronur_has_no_cents() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(AccountSpec::ready("acct_is", "IS", "isk"));
    stripe.double.fund("isk", 1_000_000);
    assert_eq!(stripe.transfer("amount=10050&currency=isk&destination=acct_is", "k").await.status, 400);
    assert_eq!(stripe.transfer("amount=10100&currency=isk&destination=acct_is", "k2").await.status, 200);
}

/// <https://docs.stripe.com/connect/currencies>
#[tokio::test]
async fn a_transfer_is_converted_for_an_account_that_has_no_bank_in_its_currency() {
    let stripe = Stripe::start(StripeDoubleOptions {
        exchange: vec![Exchange { from: "usd".to_owned(), to: "eur".to_owned(), numerator: 9, denominator: 10 }],
        ..options()
    })
    .await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "DE", "eur"));
    stripe.double.fund("usd", 10_000);
    let transfer = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((transfer.int("/amount"), transfer.str("/currency").as_str()), (Some(1_000), "usd"));
    assert_eq!(stripe.available(Some("acct_a"), "eur"), 900);
    let booked = stripe.get_as("/v1/balance_transactions", "", for_account("acct_a")).await;
    assert!(booked.text.contains("\"exchange_rate\":0.900000"), "{}", booked.text);
}
