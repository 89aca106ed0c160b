//! How a creator connects to Stripe, over a real database and the Stripe double.

use std::time::Duration;

use payday_local::stripe_double::{Fault, FaultRule, StripeDouble, When};
use payday_tests::stage::{self, double_options, event_body};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::harness::{Api, Who};
use crate::{CREATOR, pick};

const ME: Who = Who::Creator(CREATOR);

async fn api() -> (Api, StripeDouble) {
    let double = StripeDouble::start(double_options()).await.expect("a double");
    (Api::start().await.connecting(&double), double)
}

async fn start(api: &Api, country: &str) -> (u16, Json) {
    api.call(ME, "POST", "/api/connect/account", Some(json!({ "country": country }))).await
}

fn calls(double: &StripeDouble, endpoint: &str) -> usize {
    double.calls().iter().filter(|call| call.endpoint == endpoint).count()
}

fn plain(form: &str) -> String {
    form.replace("%3A", ":").replace("%2F", "/").replace("%5B", "[").replace("%5D", "]")
}

/// The double's news, all of them so far.
async fn hear(api: &Api, double: &StripeDouble) {
    for event in double.events() {
        let body = event_body(&event);
        let event = serde_json::from_value(body.clone()).expect("an event");
        payday::stripe_events::take_in(&api.db, api.policy(), &event, &body).await.expect("taken in");
    }
}

#[tokio::test]
async fn a_creator_connects_once_and_is_told_what_stripe_still_wants_until_it_is_ready() {
    let (api, double) = api().await;
    let status = async || api.fine(ME, "GET", "/api/connect/status", None).await;
    let nobody = status().await;
    assert_eq!(
        pick(&nobody, &["connected", "ready", "accountId", "action"]),
        [&json!(false), &json!(false), &json!(null), &json!("Connect a Stripe account.")]
    );
    assert_eq!(api.call(ME, "POST", "/api/connect/link", None).await.0, 404);

    let body = json!({ "country": "US", "email": "a@example.com", "returnPath": "/payouts", "refreshPath": "/payouts/again" });
    let first = api.fine(ME, "POST", "/api/connect/account", Some(body.clone())).await;
    let account = first["accountId"].as_str().expect("an id").to_owned();
    assert!(
        first["url"].as_str().is_some_and(|url| url.starts_with("https://connect.stripe.com/")) && first["expiresAt"].is_string()
    );
    assert_eq!(first["created"], true);
    let again = api.fine(ME, "POST", "/api/connect/account", Some(body)).await;
    assert_eq!(pick(&again, &["accountId", "created"]), [&json!(account), &json!(false)]);
    assert_eq!(api.fine(ME, "POST", "/api/connect/link", None).await["accountId"], account);
    assert_eq!(calls(&double, "POST /v1/accounts"), 1);
    let link = double.calls().into_iter().find(|call| call.endpoint == "POST /v1/account_links").expect("a link");
    for page in ["return_url=https://app.example.com/payouts", "refresh_url=https://app.example.com/payouts/again"] {
        assert!(plain(&link.params).split('&').any(|param| param == page), "{}", link.params);
    }
    let created = double.account(&account).expect("the account");
    assert_eq!(
        (created.country.as_str(), created.payout_interval.as_deref(), created.email.as_deref()),
        ("US", Some("manual"), Some("a@example.com"))
    );

    let wanting = status().await;
    assert_eq!(
        pick(&wanting, &["connected", "ready", "hasBankAccount", "country"]),
        [&json!(true), &json!(false), &json!(false), &json!("US")]
    );
    assert_eq!(wanting["closedBecause"], "Stripe needs more information before it can pay out.");
    let sentences: Vec<&str> =
        wanting["wants"].as_array().expect("wants").iter().filter_map(|want| want["sentence"].as_str()).collect();
    assert_eq!(
        sentences,
        [
            "Add a bank account for payouts.",
            "Accept Stripe's terms of service.",
            "Give the full name as it is on official papers.",
            "Give the date of birth."
        ]
    );
    assert!(wanting["wants"].as_array().expect("wants").iter().all(|want| want["overdue"] == true));

    double.finish_onboarding(&account);
    // What Stripe tells within the second in which the account was described has to be read again.
    hear(&api, &double).await;
    payday::payees::read_stale(&api.db, &stage::stripe(&double, "rk_test_connect")).await.expect("read");
    let ready = status().await;
    assert_eq!(
        pick(&ready, &["ready", "wants", "closedBecause", "hasBankAccount", "automaticPayouts", "action"]),
        [&json!(true), &json!([]), &json!(null), &json!(true), &json!(false), &json!(null)],
        "{ready}"
    );
    assert_eq!(api.earnings(CREATOR).await["kycVerified"], true);
}

#[tokio::test]
async fn the_agreement_follows_the_country_and_the_country_stays() {
    let (api, double) = api().await;
    let thai = start(&api, "TH").await;
    assert_eq!(thai.0, 200, "{}", thai.1);
    let asked = double.calls().into_iter().find(|call| call.endpoint == "POST /v1/accounts").expect("a call");
    assert!(plain(&asked.params).contains("tos_acceptance[service_agreement]=recipient"), "{}", asked.params);
    assert!(!asked.params.contains("card_payments"), "{}", asked.params);
    let (status, json) = start(&api, "US").await;
    assert_eq!((status, &json["code"]), (409, &json!("COUNTRY_FIXED")));
    assert_eq!(calls(&double, "POST /v1/accounts"), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_or_a_stripe_that_is_down_never_makes_a_second_account() {
    for fault in [
        Fault::ExecuteThenReset,
        Fault::ResetBefore,
        Fault::ExecuteThen500,
        Fault::ExecuteThenHtml { status: 502 },
        Fault::Truncated,
        Fault::Unauthorized,
        Fault::RateLimited { reason: "global-rate".to_owned(), retry_after: None },
    ] {
        let (api, double) = api().await;
        double.fault(FaultRule::post("/v1/accounts", When::Nth(1), fault.clone()));
        let (status, json) = start(&api, "US").await;
        assert!(matches!(status, 503 | 429), "{fault:?}: {status} {json}");
        assert_ne!(json["code"], "STRIPE_KEY_REFUSED", "not the creator's affair");
        let fine = start(&api, "US").await;
        assert_eq!(fine.0, 200, "{fault:?}: {}", fine.1);
        assert_eq!(double.accounts().len(), 1, "{fault:?}");
        let keys: Vec<_> = double
            .calls()
            .into_iter()
            .filter(|call| call.endpoint == "POST /v1/accounts")
            .map(|call| (call.idempotency_key, call.params))
            .collect();
        assert!(keys.iter().all(|sent| *sent == keys[0]), "{fault:?}: the same key and bytes");
        assert!(
            keys[0].0.as_deref().is_some_and(|key| key.starts_with("payday:") && key.ends_with(&format!(":account:{CREATOR}")))
        );
    }
}

#[tokio::test]
async fn after_a_day_the_account_is_looked_for_before_it_is_asked_for_again() {
    for executed in [true, false] {
        let (api, double) = api().await;
        double.fault(FaultRule::post(
            "/v1/accounts",
            When::Nth(1),
            if executed { Fault::ExecuteThenReset } else { Fault::ResetBefore },
        ));
        assert_eq!(start(&api, "US").await.0, 503);
        api.sql("update account_requests set first_sent_at = first_sent_at - interval '25 hours', look_up = false").await;
        double.advance(Duration::from_secs(25 * 3_600));
        double.expire_keys();
        assert_eq!(start(&api, "US").await.0, 200);
        assert_eq!(double.accounts().len(), 1, "executed: {executed}");
        assert_eq!(calls(&double, "POST /v1/accounts"), if executed { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_account_whose_answer_never_came_is_the_creators_as_soon_as_stripe_tells_of_it() {
    let (api, double) = api().await;
    double.fault(FaultRule::post("/v1/accounts", When::Nth(1), Fault::ExecuteThenReset));
    assert_eq!(start(&api, "US").await.0, 503);
    let id = double.accounts().remove(0).id;
    double.finish_onboarding(&id);
    hear(&api, &double).await;
    let status = api.fine(ME, "GET", "/api/connect/status", None).await;
    assert_eq!(pick(&status, &["accountId", "ready"]), [&json!(id), &json!(true)]);
    assert_eq!(start(&api, "US").await.1["accountId"], json!(id));
    assert_eq!(calls(&double, "POST /v1/accounts"), 1);
    // A mark of another payee or another instance gives nobody an account.
    for mark in [format!("0123456789abcdef-{CREATOR}"), "x".to_owned(), format!("{}-{}", "no", Uuid::from_u128(9))] {
        let body = json!({ "id": format!("evt_{mark}"), "type": "account.updated", "account": "acct_x", "created": 1_900_000_000, "livemode": false,
            "data": { "object": { "id": "acct_x", "metadata": { "payday_payee": mark } } } });
        let event = serde_json::from_value(body.clone()).expect("an event");
        payday::stripe_events::take_in(&api.db, api.policy(), &event, &body).await.expect("taken in");
    }
    assert_eq!(api.fine(ME, "GET", "/api/connect/status", None).await["accountId"], json!(id));
}

#[tokio::test]
async fn what_stripe_refuses_is_said_and_may_be_asked_for_differently() {
    let (api, double) = api().await;
    let (status, json) = start(&api, "ZZ").await;
    assert_eq!((status, &json["code"]), (422, &json!("STRIPE_REFUSED")));
    assert!(json["error"].as_str().is_some_and(|error| error.contains("'ZZ'")), "{json}");
    // Not under the key that has the refusal.
    let (status, json) = start(&api, "US").await;
    assert_eq!(status, 200, "{json}");
    let keys: Vec<String> = double
        .calls()
        .into_iter()
        .filter(|call| call.endpoint == "POST /v1/accounts")
        .filter_map(|call| call.idempotency_key)
        .collect();
    assert_eq!(keys[1], format!("{}:2", keys[0]));
}

#[tokio::test]
async fn ten_requests_at_once_make_one_account() {
    let (api, double) = api().await;
    let answers = futures::future::join_all((0..10).map(|_| start(&api, "US"))).await;
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 503)), "{answers:?}");
    assert_eq!(start(&api, "US").await.0, 200);
    assert_eq!(double.accounts().len(), 1);
}

#[tokio::test]
async fn wrong_bodies_are_refused_with_the_fields_name_and_stripe_is_not_asked() {
    let (api, double) = api().await;
    for (body, field) in [
        (json!({ "country": "us" }), "country"),
        (json!({ "country": "USA" }), "country"),
        (json!({ "country": "" }), "country"),
        (json!({ "country": "US", "email": "nobody" }), "email"),
        (json!({ "country": "US", "email": "a@example.com\nBcc: b@example.com" }), "email"),
        (json!({ "country": "US", "returnPath": "//evil.example" }), "returnPath"),
        (json!({ "country": "US", "refreshPath": "https://evil.example" }), "refreshPath"),
        (json!({ "country": "US", "accountId": "acct_1" }), "accountId"),
        (json!({ "country": "US", "creatorId": Uuid::from_u128(2) }), "creatorId"),
        (json!({}), "country"),
    ] {
        let (status, json) = api.call(ME, "POST", "/api/connect/account", Some(body.clone())).await;
        assert_eq!((status, &json["details"][0]["field"]), (422, &json!(field)), "{body}: {json}");
    }
    assert_eq!(double.calls().len(), 0);
    // Where people are connected elsewhere, there is nothing to ask for.
    let elsewhere = Api::start().await;
    let (status, json) = start(&elsewhere, "US").await;
    assert_eq!((status, &json["code"]), (403, &json!("FEATURE_DISABLED")));
    assert_eq!(elsewhere.fine(ME, "GET", "/api/connect/status", None).await["connected"], false);
}
