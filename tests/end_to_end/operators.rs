//! Operators at work through the real functions: a preview, a run that is agreed to, a payment that failed.

use chrono::{Duration, Utc};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::http::{Answer, request};
use payday_tests::system::{Setup, System};
use payday_tests::world::CYCLE;
use serde_json::{Value as Json, json};

use crate::abuse;

async fn ask(system: &System, method: &str, path: &str, body: &Json) -> Answer {
    let bearer = abuse::operator();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if method == "GET" { String::new() } else { body.to_string() };
    request(&system.stack.http_url, method, path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_is_previewed_refused_with_other_facts_and_run_as_agreed() {
    let system = Setup::of(3).start().await;
    system.job("forecast").await;
    let preview = async || {
        let answer = ask(&system, "GET", &format!("/internal/payouts/preview?cycleDate={CYCLE}"), &json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let run = async |shown: &Json| {
        ask(&system, "POST", "/internal/payouts/run", &json!({ "cycleDate": CYCLE, "previewHash": shown["hash"] })).await
    };
    let shown = preview().await;
    assert_eq!(shown["currencies"][0]["amountMinor"], 2_001 + 2_002 + 2_003);
    assert!(shown["currencies"][0]["funding"]["availableMinor"].as_i64() > Some(0), "{shown}");
    system.earn("second", 1..=1).await;
    let refused = run(&shown).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("PREVIEW_STALE")), "{refused:?}");
    assert_eq!(system.database.count("payout_runs").await, 0);
    let agreed = run(&preview().await).await;
    assert_eq!(agreed.status, 200, "{agreed:?}");
    system.drain().await;
    assert_eq!(
        system.database.value::<i64>("select sum(amount_minor)::bigint from payout_items").await,
        2 * 2_001 + 2_002 + 2_003
    );
    system.ends("paid=3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_payment_is_tried_again_at_the_time_that_an_operator_names() {
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    let system = Setup::of(2).fault(FaultRule::post("/v1/transfers", When::Nth(1), refusal).for_account("acct_1")).start().await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "failed=1 in_transit=1");
    let item: i64 = system.database.value("select id from payout_items where status = 'failed'").await;
    let at = Utc::now() + Duration::hours(3);
    let path = format!("/internal/payouts/items/{item}/retry");
    let asked = ask(&system, "POST", &path, &json!({ "reason": "their bank opens then", "at": at })).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let name = format!("retry-item-{item}");
    let due = system.stack.scheduler.schedules().into_iter().find(|(known, _)| *known == name).expect("the schedule").1;
    assert_eq!(due.map(|due| due.timestamp()), Some(at.timestamp()));
    let again = ask(&system, "POST", &path, &json!({ "reason": "once more", "at": at })).await;
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("ALREADY_SCHEDULED")));
    system.stack.fire(&name, at).await.unwrap_or_else(|error| panic!("{error}"));
    system.drain().await;
    assert_eq!(system.database.value::<i32>(format!("select retries from payout_items where id = {item}")).await, 1);
    system.ends("paid=2").await;
}
