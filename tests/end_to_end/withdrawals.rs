//! A withdrawal from the request to the bank, and what its creator is told on the way.

use payday_tests::http::{Answer, request};
use payday_tests::system::{JWT_SECRET, Setup, System};
use serde_json::{Value as Json, json};

use crate::abuse::token;

async fn call(system: &System, method: &str, path: &str, body: &str) -> Answer {
    let bearer = token(JWT_SECRET, 1, json!({}));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", "one")];
    request(&system.stack.http_url, method, path, &headers, body).await
}

async fn fine(system: &System, method: &str, path: &str, body: &str) -> Json {
    let answer = call(system, method, path, body).await;
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_goes_from_the_request_to_the_bank_and_its_creator_can_follow_it() {
    // 20.01 dollars; 300 tokens at 4.5 cents are 13.50.
    let system = Setup::of(1).start().await;
    let asked = r#"{"tokenAmount":300}"#;
    let first = fine(&system, "POST", "/api/tokens/request-withdrawal", asked).await["request"].clone();
    let again = fine(&system, "POST", "/api/tokens/request-withdrawal", asked).await["request"].clone();
    assert_eq!((&first["requestId"], first["amountMinor"].as_i64()), (&again["requestId"], Some(1_350)));
    system.drain().await;
    let requests = fine(&system, "GET", "/api/tokens/withdrawal-requests", "").await["requests"].clone();
    assert_eq!((requests.as_array().map(Vec::len), &requests[0]["status"]), (Some(1), &json!("batched")));
    let payout = format!("/api/payouts/{}", requests[0]["payoutId"]);
    let on_its_way = fine(&system, "GET", &payout, "").await;
    assert_eq!(on_its_way["payout"]["status"], "in_transit");
    let arrival = on_its_way["timeline"].as_array().expect("steps").iter().find(|step| step["step"] == "expected_arrival");
    assert!(arrival.is_some_and(|step| step["state"] == "waiting" && step["on"].is_string()), "{on_its_way}");
    let cancel = format!("/api/tokens/withdrawal-requests/{}/cancel", first["requestId"].as_str().unwrap_or_default());
    assert_eq!(call(&system, "POST", &cancel, "").await.status, 409);

    system.double.settle_payouts();
    system.drain().await;
    let paid = fine(&system, "GET", &payout, "").await;
    let steps: Vec<&str> = paid["timeline"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["earned", "held_until", "reserved", "transferred", "expected_arrival", "paid"]);
    assert!(paid["timeline"].as_array().is_some_and(|steps| steps.iter().all(|step| step["state"] == "done")), "{paid}");
    assert_eq!(fine(&system, "GET", "/api/tokens/withdrawal-requests", "").await["requests"][0]["status"], "paid");
    let statement = fine(&system, "GET", "/api/statements?year=2026", "").await;
    assert_eq!((&statement["totals"][0]["gross"], &statement["totals"][0]["paidOut"]), (&json!("20.01"), &json!("13.50")));
    let file = call(&system, "GET", "/api/statements?year=2026&format=csv", "").await;
    assert!(file.head.contains("text/csv") && file.body.contains("payout,"), "{file:?}");
    // What is left is below the minimum.
    let refused = call(&system, "POST", "/api/tokens/request-withdrawal", r#"{"tokenAmount":301}"#).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    system.ends("paid=1").await;
}
