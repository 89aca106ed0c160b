//! <https://docs.stripe.com/api/idempotent_requests> and <https://docs.stripe.com/error-low-level>

use payday_local::stripe_double::{Fault, FaultRule, Rates, When};

use crate::harness::{DAY, HOUR, Stripe, TEN_TO_A, With, keyed, options};

/// "Subsequent requests with the same key return the same result."
#[tokio::test]
async fn a_key_sent_again_answers_the_same_and_moves_nothing() {
    let stripe = Stripe::funded().await;
    let first = stripe.transfer(TEN_TO_A, "k").await;
    let again = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.text, again.text);
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("original-request"), first.header("request-id"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    assert_eq!(stripe.double.transfers().len(), 1);
    assert_eq!(stripe.available(None, "usd"), 99_000);
}

/// "The idempotency layer compares incoming parameters to those of the original request and errors if
/// they're not the same."
#[tokio::test]
async fn a_key_with_other_parameters_is_an_idempotency_error() {
    let stripe = Stripe::funded().await;
    stripe.transfer(TEN_TO_A, "k").await;
    let other = stripe.transfer(&TEN_TO_A.replace("1000", "1001"), "k").await;
    assert_eq!((other.status, other.str("/error/type").as_str()), (400, "idempotency_error"));
    let elsewhere = stripe.post("/v1/payouts", TEN_TO_A, keyed("k")).await;
    assert_eq!(elsewhere.str("/error/type"), "idempotency_error");
    // In another order they are the same parameters.
    let reordered = stripe.transfer("transfer_group=item_1&destination=acct_a&currency=usd&amount=1000", "k").await;
    assert_eq!(reordered.header("idempotent-replayed"), Some("true"));
    assert_eq!(stripe.double.audit().keys_reused.len(), 1);
}

/// Keys belong to the account that the request is made for.
#[tokio::test]
async fn the_same_key_for_two_accounts_is_two_keys() {
    let stripe = Stripe::funded().await;
    stripe.double.fund_account(Some("acct_a"), "usd", 5_000);
    let platform = stripe.transfer(TEN_TO_A, "k").await;
    let connected = stripe.payout("acct_a", "amount=1000&currency=usd", "k").await;
    assert_eq!((platform.status, connected.status), (200, 200));
}

/// "as long as an API method began execution, Stripe's API servers will cache the results of the request
/// regardless of what they were": a shortage of funds poisons its key.
#[tokio::test]
async fn a_stored_error_comes_back_even_when_its_cause_is_gone() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(payday_local::stripe_double::AccountSpec::ready("acct_a", "US", "usd"));
    let short = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((short.status, short.code().as_str()), (400, "balance_insufficient"));
    stripe.double.fund("usd", 100_000);
    let again = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!(again.code(), "balance_insufficient");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(stripe.transfer(TEN_TO_A, "k2").await.status, 200);
}

/// "… including 500 errors."
#[tokio::test]
async fn a_stored_500_comes_back_as_a_500() {
    let stripe = Stripe::funded().await;
    stripe.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::Error500Stored));
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 500);
    let again = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (500, Some("true")));
    assert_eq!(stripe.double.transfers().len(), 0);
}

/// A 500 says nothing: this one paid first, and its key will say 500 for as long as it lives.
#[tokio::test]
async fn a_500_may_have_moved_the_money() {
    let stripe = Stripe::funded().await;
    stripe.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::ExecuteThen500));
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 500);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 500);
    let found = stripe.get("/v1/transfers", "transfer_group=item_1").await;
    assert_eq!(found.ids().len(), 1);
}

/// "We save results only after the execution of an endpoint begins. If incoming parameters fail
/// validation …, we don't save the idempotent result."
#[tokio::test]
async fn bad_parameters_leave_the_key_free() {
    let stripe = Stripe::funded().await;
    assert_eq!(stripe.transfer("currency=usd&destination=acct_a", "k").await.code(), "parameter_missing");
    let good = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((good.status, good.header("idempotent-replayed")), (200, None));
}

/// "a request that's rate limited with a 429 can produce a different result with the same idempotency
/// key because rate limiters run before the API's idempotency layer. The same goes for a 401"
#[tokio::test]
async fn a_429_and_a_401_leave_the_key_free() {
    let stripe = Stripe::funded().await;
    stripe.double.set_rates(Rates { global: Some(1), ..Rates::unlimited() });
    assert_eq!(stripe.get("/v1/balance", "").await.status, 200);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 429);
    stripe.double.set_rates(Rates::unlimited());
    let revoked = With { key: Some("k"), api_key: Some("sk_test_old"), account: None };
    stripe.double.revoke_key("sk_test_old");
    assert_eq!(stripe.post("/v1/transfers", TEN_TO_A, revoked).await.status, 401);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 200);
}

/// Even a replay can meet the rate limit: the answer then says nothing of the first request.
#[tokio::test]
async fn a_replay_counts_against_the_rate_too() {
    let stripe = Stripe::funded().await;
    stripe.transfer(TEN_TO_A, "k").await;
    stripe.double.set_rates(Rates { global: Some(1), ..Rates::unlimited() });
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 200);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 429);
}

/// "if … the request conflicts with another request that's executing concurrently, we don't save the
/// idempotent result because no API endpoint initiates the execution. You can retry these requests."
#[tokio::test]
async fn a_key_in_use_is_a_409_and_one_of_the_two_pays() {
    let stripe = Stripe::funded().await;
    stripe.double.hold();
    let first = stripe.transfer(TEN_TO_A, "k");
    let second = async {
        stripe.double.held_requests(1).await;
        let second = stripe.transfer(TEN_TO_A, "k").await;
        stripe.double.release();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status, second.status), (200, 409));
    assert_eq!(second.code(), "idempotency_key_in_use");
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 200);
    assert_eq!(stripe.double.transfers().len(), 1);
}

/// "You can remove keys from the system automatically after they're at least 24 hours old. We generate a
/// new request if a key is reused after the original is pruned."
#[tokio::test]
async fn after_a_day_a_key_pays_again() {
    let stripe = Stripe::funded().await;
    stripe.transfer(TEN_TO_A, "k").await;
    stripe.double.advance(DAY - HOUR / 60);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(stripe.double.transfers().len(), 1);
    stripe.double.advance(HOUR);
    let third = stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!((third.status, third.header("idempotent-replayed")), (200, None));
    let audit = stripe.double.audit();
    assert_eq!(audit.double_transfers.len(), 1);
    assert_eq!(audit.double_transfers[0].live_minor, 2_000);
    assert_eq!((audit.executed_twice.len(), audit.late_replays.len()), (1, 1));
    assert!(!audit.is_clean());
}

/// "Idempotency keys are up to 255 characters long."
#[tokio::test]
async fn a_key_is_at_most_255_characters() {
    let stripe = Stripe::funded().await;
    assert_eq!(stripe.transfer(TEN_TO_A, &"k".repeat(256)).await.status, 400);
    assert_eq!(stripe.transfer(TEN_TO_A, &"k".repeat(255)).await.status, 200);
}

/// "Don't send idempotency keys in GET and DELETE requests because it has no effect."
#[tokio::test]
async fn a_key_on_a_get_has_no_effect() {
    let stripe = Stripe::funded().await;
    let before = stripe.get_as("/v1/balance", "", keyed("k")).await;
    stripe.double.fund("usd", 1);
    let after = stripe.get_as("/v1/balance", "", keyed("k")).await;
    assert_eq!(after.int("/available/0/amount").zip(before.int("/available/0/amount")), Some((100_001, 100_000)));
}
