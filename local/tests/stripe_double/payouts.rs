//! Payouts: what is refused, how they end, and who sees them.

use payday_local::stripe_double::{AccountSpec, BankSpec, PayoutOutcome, Settlement, StripeDoubleOptions};

use crate::harness::{DAY, HOUR, Stripe, TEN_TO_A, for_account, options};

/// <https://docs.stripe.com/api/payouts/create>
#[tokio::test]
async fn a_payout_is_refused_for_the_account_the_bank_the_amount_or_the_balance() {
    let stripe = Stripe::start(options()).await;
    let accounts = [
        ("acct_off", "US", "usd"),
        ("acct_hu", "HU", "huf"),
        ("acct_is", "IS", "isk"),
        ("acct_kw", "KW", "kwd"),
        ("acct_jp", "JP", "jpy"),
        ("acct_tw", "TW", "twd"),
        ("acct_al", "AL", "all"),
        ("acct_us", "US", "usd"),
    ];
    for (id, country, currency) in accounts {
        stripe.double.add_account(AccountSpec::ready(id, country, currency));
        stripe.double.fund_account(Some(id), currency, 1_000_000);
    }
    stripe.double.update_account("acct_off", |a| a.payouts_enabled = false);
    let cases = [
        ("acct_off", "amount=100&currency=usd", "payouts_not_allowed"),
        ("acct_us", "amount=100&currency=eur", ""),
        ("acct_us", "amount=1000001&currency=usd", "balance_insufficient"),
        ("acct_us", "amount=100&currency=usd&method=instant", "instant_payouts_unsupported"),
        ("acct_us", "amount=100&currency=usd&destination=ba_none", "resource_missing"),
        // HUF and TWD: "only integer amounts evenly divisible by 100 are allowed" for payouts
        ("acct_hu", "amount=10050&currency=huf", ""),
        ("acct_tw", "amount=10001&currency=twd", ""),
        // ISK: two decimals that are always 00
        ("acct_is", "amount=10001&currency=isk", ""),
        // three decimals: the last digit is 0
        ("acct_kw", "amount=10005&currency=kwd", ""),
        // minimum payouts by country
        ("acct_al", "amount=299999&currency=all", "amount_too_small"),
    ];
    for (account, form, code) in cases {
        let answer = stripe.payout(account, form, form).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{account} {form}: {}", answer.text);
    }
    let fine = [
        ("acct_hu", "amount=10100&currency=huf"),
        ("acct_tw", "amount=10000&currency=twd"),
        ("acct_is", "amount=10100&currency=isk"),
        ("acct_kw", "amount=10010&currency=kwd"),
        ("acct_jp", "amount=1&currency=jpy"),
        ("acct_al", "amount=300000&currency=all"),
        ("acct_us", "amount=1&currency=usd"),
    ];
    for (account, form) in fine {
        let answer = stripe.payout(account, form, form).await;
        assert_eq!((answer.status, answer.str("/status").as_str()), (200, "pending"), "{form}: {}", answer.text);
    }
}

/// "A payout is pending until it's submitted to the bank, when it becomes in_transit. The status changes
/// to paid if the transaction succeeds, or to failed or canceled." <https://docs.stripe.com/api/payouts/object>
#[tokio::test]
async fn a_payout_goes_from_pending_to_paid_by_the_clock() {
    let stripe = Stripe::start(StripeDoubleOptions {
        settlement: Settlement::Automatic { in_transit_after_ms: 3_600_000, paid_after_ms: 2 * 86_400_000 },
        ..options()
    })
    .await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    stripe.double.fund_account(Some("acct_a"), "usd", 5_000);
    let payout = stripe.payout("acct_a", "amount=5000&currency=usd", "k").await.id();
    assert_eq!(stripe.available(Some("acct_a"), "usd"), 0);
    let path = format!("/v1/payouts/{payout}");
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(stripe.get_as(&path, "", for_account("acct_a")).await.str("/status"));
        stripe.double.advance(DAY);
    }
    assert_eq!(seen, ["pending", "in_transit", "paid"]);
    let kinds: Vec<String> = stripe.double.events().iter().map(|e| e.kind.clone()).collect();
    assert_eq!(kinds, ["payout.created", "payout.updated", "payout.paid"]);
}

/// "Some payouts that fail might initially show as paid, then change to failed."
/// <https://docs.stripe.com/api/payouts/object#payout_object-status>
#[tokio::test]
async fn a_paid_payout_may_fail_days_later_and_the_money_returns() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(AccountSpec {
        banks: vec![BankSpec {
            outcome: PayoutOutcome::PaidThenFailed { code: "account_closed".to_owned(), after_ms: 3 * 86_400_000 },
            ..BankSpec::default()
        }],
        ..AccountSpec::ready("acct_a", "US", "usd")
    });
    stripe.double.fund_account(Some("acct_a"), "usd", 5_000);
    let payout = stripe.payout("acct_a", "amount=5000&currency=usd", "k").await.id();
    stripe.double.settle_payouts();
    assert_eq!(stripe.double.payouts()[0].status, "paid");
    stripe.double.advance(3 * DAY);
    let failed = stripe.get_as(&format!("/v1/payouts/{payout}"), "", for_account("acct_a")).await;
    assert_eq!((failed.str("/status").as_str(), failed.str("/failure_code").as_str()), ("failed", "account_closed"));
    assert!(failed.str("/failure_balance_transaction").starts_with("txn_"));
    assert_eq!(stripe.available(Some("acct_a"), "usd"), 5_000);
    // "the external account involved is disabled" <https://docs.stripe.com/connect/payouts-connected-accounts>
    assert_eq!(stripe.payout("acct_a", "amount=5000&currency=usd", "k2").await.code(), "bank_account_unusable");
    stripe.double.update_account("acct_a", |a| a.banks = vec![BankSpec::default()]);
    assert_eq!(stripe.payout("acct_a", "amount=5000&currency=usd", "k3").await.status, 200);
}

/// "You can only cancel a payout if its status is pending." <https://docs.stripe.com/api/payouts/cancel>
#[tokio::test]
async fn only_a_pending_payout_can_be_canceled() {
    let stripe = Stripe::start(options()).await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    stripe.double.fund_account(Some("acct_a"), "usd", 5_000);
    let one = stripe.payout("acct_a", "amount=2000&currency=usd", "k1").await.id();
    let two = stripe.payout("acct_a", "amount=2000&currency=usd", "k2").await.id();
    stripe.double.send_payout(&two);
    let canceled = stripe.post(&format!("/v1/payouts/{one}/cancel"), "", for_account("acct_a")).await;
    assert_eq!(canceled.str("/status"), "canceled");
    assert_eq!(stripe.post(&format!("/v1/payouts/{two}/cancel"), "", for_account("acct_a")).await.status, 400);
    assert_eq!(stripe.available(Some("acct_a"), "usd"), 3_000);
}

/// Without the header a payout is the platform's own; a connected account's is not found there.
/// <https://docs.stripe.com/connect/authentication>
#[tokio::test]
async fn payouts_of_an_account_are_seen_only_in_its_name() {
    let stripe = Stripe::start(options()).await;
    for id in ["acct_a", "acct_b"] {
        stripe.double.add_account(AccountSpec::ready(id, "US", "usd"));
        stripe.double.fund_account(Some(id), "usd", 5_000);
    }
    let payout = stripe.payout("acct_a", "amount=2000&currency=usd", "k1").await.id();
    assert_eq!(stripe.get(&format!("/v1/payouts/{payout}"), "").await.status, 404);
    assert_eq!(stripe.get_as("/v1/payouts", "", for_account("acct_b")).await.ids().len(), 0);
    assert_eq!(stripe.get_as("/v1/payouts", "status=pending", for_account("acct_a")).await.ids(), [payout]);
}

/// Daily is the default schedule; such an account is paid out by Stripe itself, with `automatic: true`.
/// <https://docs.stripe.com/connect/manage-payout-schedule>
#[tokio::test]
async fn an_account_on_an_automatic_schedule_is_paid_out_by_itself() {
    let stripe = Stripe::funded().await;
    stripe.double.update_account("acct_a", |a| a.payout_interval = None);
    let account = stripe.get("/v1/accounts/acct_a", "").await;
    assert!(account.json["settings"].get("payouts").is_none());
    stripe.transfer(TEN_TO_A, "k").await;
    stripe.double.advance(DAY);
    let payouts = stripe.double.payouts();
    assert_eq!((payouts.len(), payouts[0].automatic, payouts[0].amount), (1, true, 1_000));
    let taken = stripe.get_as("/v1/balance_transactions", &format!("payout={}", payouts[0].id), for_account("acct_a")).await;
    assert_eq!(taken.ids().len(), 2);
    // A manual payout has no such list.
    stripe.double.fund_account(Some("acct_a"), "usd", 500);
    let manual = stripe.payout("acct_a", "amount=500&currency=usd", "m").await.id();
    let none = stripe.get_as("/v1/balance_transactions", &format!("payout={manual}"), for_account("acct_a")).await;
    assert_eq!(none.status, 400);
}

/// Transferred money that is still pending cannot be paid out. <https://docs.stripe.com/connect/account-balances>
#[tokio::test]
async fn transferred_money_may_be_pending_for_a_while() {
    let stripe = Stripe::funded().await;
    stripe.double.set_transfer_available_after(3_600_000);
    stripe.transfer(TEN_TO_A, "k").await;
    assert_eq!(stripe.payout("acct_a", "amount=1000&currency=usd", "p1").await.code(), "balance_insufficient");
    stripe.double.advance(HOUR);
    assert_eq!(stripe.payout("acct_a", "amount=1000&currency=usd", "p2").await.status, 200);
}
