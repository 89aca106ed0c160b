//! <https://docs.stripe.com/webhooks>, <https://docs.stripe.com/connect/webhooks>

use payday_local::stripe_double::{AccountSpec, DeliveryAction, DeliveryOptions, DeliveryRule, When, signature};

use crate::harness::{CONNECT_SECRET, PLATFORM_SECRET, Received, Stripe, TEN_TO_A, with_receiver};

async fn pay_out(stripe: &Stripe, key: &str) -> String {
    stripe.double.fund_account(Some("acct_a"), "usd", 1_000);
    stripe.payout("acct_a", "amount=1000&currency=usd", key).await.id()
}

fn rule(event: &str, action: DeliveryAction) -> DeliveryRule {
    DeliveryRule { event: event.to_owned(), account: None, when: When::Always, action }
}

fn signed_with(received: &Received, secret: &str) -> bool {
    let at = received.signature.split(',').find_map(|part| part.strip_prefix("t=")).and_then(|t| t.parse().ok());
    at.is_some_and(|at| signature(secret, at, received.body.as_bytes()) == received.signature)
}

/// "Each event for a connected account contains a top-level account property", and the two endpoints have
/// their own secrets.
#[tokio::test]
async fn events_are_signed_with_the_secret_of_the_endpoint_they_belong_to() {
    let (stripe, receiver) = with_receiver().await;
    let transfer = stripe.transfer(TEN_TO_A, "k").await;
    stripe.payout("acct_a", "amount=1000&currency=usd", "p").await;
    stripe.double.all_delivered().await;
    let got = receiver.got();
    assert_eq!(receiver.kinds(), ["transfer.created", "payout.created"]);
    assert!(signed_with(&got[0], PLATFORM_SECRET) && !signed_with(&got[0], CONNECT_SECRET));
    assert!(signed_with(&got[1], CONNECT_SECRET) && !signed_with(&got[1], PLATFORM_SECRET));
    assert_eq!((got[0].json.get("account"), got[1].json["account"].as_str()), (None, Some("acct_a")));
    assert_eq!(got[0].json["data"]["object"], transfer.json);
    assert_eq!(got[0].json["request"]["idempotency_key"], "k");
    assert_eq!(got[0].json["livemode"], false);
    let read = stripe.get(&format!("/v1/events/{}", got[0].json["id"].as_str().unwrap_or_default()), "").await;
    assert_eq!(read.json, got[0].json);
}

/// A known value: HMAC-SHA256 of `t.body`. <https://docs.stripe.com/webhooks#verify-manually>
#[test]
fn a_signature_is_hmac_sha256_over_time_and_body() {
    let signed = signature("whsec_test", 1_700_000_000, b"{}");
    let v1 = signed.split(',').find_map(|part| part.strip_prefix("v1=")).unwrap_or_default();
    // printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test
    assert_eq!(v1, "35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91");
}

/// "Stripe attempts to deliver events … with an exponential back off" until a 2xx.
#[tokio::test]
async fn an_event_is_sent_again_until_it_is_taken() {
    let (stripe, receiver) = with_receiver().await;
    receiver.answer_next(&[500, 404, 302]);
    stripe.transfer(TEN_TO_A, "k").await;
    stripe.double.all_delivered().await;
    let statuses: Vec<u16> = stripe.double.deliveries().iter().map(|d| d.status).collect();
    assert_eq!(statuses, [500, 404, 302, 200]);
    let ids: std::collections::HashSet<String> = receiver.got().iter().map(|r| r.json["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn after_its_last_attempt_an_event_is_given_up_but_can_be_listed_and_resent() {
    let (stripe, receiver) = with_receiver().await;
    stripe.double.set_delivery(DeliveryOptions { parallel: 1, retry_ms: vec![1], max_attempts: 3, ..DeliveryOptions::default() });
    receiver.answer_next(&[500, 500, 500]);
    stripe.transfer(TEN_TO_A, "k").await;
    stripe.double.all_delivered().await;
    assert_eq!(stripe.double.delivery_state().given_up, 1);
    let listed = stripe.get("/v1/events", "type=transfer.created").await;
    assert!(stripe.double.resend_event(&listed.ids()[0]));
    stripe.double.all_delivered().await;
    assert_eq!(stripe.double.deliveries().last().map(|d| d.status), Some(200));
}

/// "Webhook endpoints might occasionally receive the same event more than once", and "in some cases, two
/// separate Event objects are generated and sent."
#[tokio::test]
async fn events_can_come_twice_under_one_id_or_two() {
    let (stripe, receiver) = with_receiver().await;
    stripe.double.delivery_rule(rule("transfer.created", DeliveryAction::Copies(2)));
    stripe.double.delivery_rule(rule("payout.created", DeliveryAction::SecondId));
    stripe.transfer(TEN_TO_A, "k").await;
    pay_out(&stripe, "p").await;
    stripe.double.all_delivered().await;
    let got = receiver.got();
    assert_eq!(receiver.kinds(), ["transfer.created", "transfer.created", "payout.created", "payout.created"]);
    assert_eq!(got[0].json["id"], got[1].json["id"]);
    assert_ne!(got[2].json["id"], got[3].json["id"]);
    assert_eq!(got[2].json["data"], got[3].json["data"]);
}

/// "Stripe doesn't guarantee the delivery of events in the order that they're generated."
#[tokio::test]
async fn paid_can_come_before_created() {
    let (stripe, receiver) = with_receiver().await;
    stripe.double.delivery_rule(rule("payout.created", DeliveryAction::After("payout.paid".to_owned())));
    pay_out(&stripe, "p").await;
    stripe.double.settle_payouts();
    stripe.double.all_delivered().await;
    assert_eq!(receiver.kinds(), ["payout.updated", "payout.paid", "payout.created"]);
}

#[tokio::test]
async fn events_can_be_dropped_held_back_or_put_off() {
    let (stripe, receiver) = with_receiver().await;
    stripe.double.delivery_rule(rule("payout.updated", DeliveryAction::Drop));
    stripe.double.delivery_rule(rule("payout.paid", DeliveryAction::Hold));
    stripe.double.delivery_rule(rule("payout.created", DeliveryAction::DelayMs(5)));
    pay_out(&stripe, "p").await;
    stripe.double.settle_payouts();
    stripe.double.all_delivered().await;
    assert_eq!(receiver.kinds(), ["payout.created"]);
    assert_eq!((stripe.double.delivery_state().held, stripe.double.delivery_state().dropped), (1, 1));
    stripe.double.release_held_webhooks();
    stripe.double.all_delivered().await;
    assert_eq!(receiver.kinds(), ["payout.created", "payout.paid"]);
}

#[tokio::test]
async fn a_paused_delivery_keeps_everything_and_shuffles_by_its_seed() {
    let mut orders = Vec::new();
    for _ in 0..2 {
        let (stripe, receiver) = with_receiver().await;
        stripe.double.pause_webhooks();
        let shuffled = DeliveryOptions { parallel: 1, shuffle_seed: Some(3), ..DeliveryOptions::default() };
        stripe.double.set_delivery(shuffled);
        for n in 0..8 {
            stripe.transfer(&TEN_TO_A.replace("item_1", &format!("item_{n}")), &format!("k{n}")).await;
        }
        stripe.double.all_delivered().await;
        assert_eq!(receiver.got().len(), 0);
        stripe.double.resume_webhooks();
        stripe.double.all_delivered().await;
        let groups = |r: &Received| r.json["data"]["object"]["transfer_group"].to_string();
        orders.push(receiver.got().iter().map(groups).collect::<Vec<_>>());
    }
    let mut sorted = orders[0].clone();
    sorted.sort();
    assert_eq!(sorted.len(), 8);
    assert_ne!(orders[0], sorted, "shuffled");
    assert_eq!(orders[0], orders[1], "the same seed, the same order");
}

/// <https://docs.stripe.com/connect/handling-api-verification>
#[tokio::test]
async fn a_change_of_account_or_bank_is_told_in_the_accounts_name() {
    let (stripe, receiver) = with_receiver().await;
    stripe.double.update_account("acct_a", |a| {
        a.payouts_enabled = false;
        a.past_due = vec!["individual.verification.document".to_owned()];
        a.disabled_reason = Some("requirements.past_due".to_owned());
    });
    stripe.double.update_account("acct_a", |a| a.banks[0] = payday_local::stripe_double::BankSpec::default());
    stripe.double.all_delivered().await;
    let expected = ["account.updated", "account.external_account.created", "account.external_account.deleted", "account.updated"];
    assert_eq!(receiver.kinds(), expected);
    let first = &receiver.got()[0].json;
    assert_eq!(
        (first["account"].as_str(), first["data"]["previous_attributes"]["payouts_enabled"].as_bool()),
        (Some("acct_a"), Some(true))
    );
    assert_eq!(first["data"]["object"]["requirements"]["past_due"][0], "individual.verification.document");
    let quiet = stripe.double.events().len();
    stripe.double.add_account(AccountSpec::ready("acct_z", "US", "usd"));
    stripe.double.update_account("acct_z", |_| ());
    assert_eq!(stripe.double.events().len(), quiet);
}
