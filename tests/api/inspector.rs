//! Operators look at what Stripe sent.

use payday::stripe_events::{Event, take_in};
use serde_json::{Value as Json, json};

use crate::harness::{Api, Who, tokens};
use crate::{CREATOR, pick};

async fn sent(api: &Api, id: &str, kind: &str, account: Option<&str>, object: Json) {
    let mut body = json!({ "id": id, "type": kind, "created": 1_790_000_000, "livemode": false, "data": { "object": object } });
    if let Some(account) = account {
        body["account"] = json!(account);
    }
    let event: Event = serde_json::from_value(body.clone()).expect("an event");
    take_in(&api.db, api.policy(), &event, &body).await.expect("taken in");
}

#[tokio::test]
async fn events_are_listed_in_pages_by_type_state_and_account() {
    let api = Api::start().await;
    for number in 0..5 {
        sent(&api, &format!("evt_c{number}"), "customer.created", None, json!({})).await;
    }
    sent(&api, "evt_w1", "charge.refunded", None, json!({ "id": "ch_1", "amount_refunded": 5, "currency": "usd" })).await;
    sent(&api, "evt_a1", "capability.updated", Some("acct_1"), json!({})).await;
    let ids = async |query: &str| {
        let answer = api.fine(Who::Operator, "GET", &format!("/internal/stripe-events{query}"), None).await;
        let rows = answer["events"].as_array().expect("events").clone();
        (
            rows.iter().map(|row| row["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
            answer["nextCursor"].clone(),
        )
    };
    assert_eq!(ids("?type=charge.refunded").await.0, ["evt_w1"]);
    assert_eq!(ids("?account=acct_1").await.0, ["evt_a1"]);
    assert_eq!(ids("?state=waiting").await.0, ["evt_a1", "evt_w1"]);
    assert_eq!(ids("?state=waiting&type=capability.updated&account=acct_1").await.0, ["evt_a1"]);
    assert_eq!(ids("?state=given_up").await.0, [""; 0]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (page, next) = ids(&format!("?limit=2{cursor}")).await;
        assert!(page.len() <= 2);
        seen.extend(page);
        let Some(next) = next.as_str() else { break };
        cursor = format!("&cursor={next}");
        let other = api.call(Who::Operator, "GET", &format!("/internal/stripe-events?state=ignored{cursor}"), None).await;
        assert_eq!(other.0, 400, "a cursor of another list");
    }
    assert_eq!(seen, ["evt_a1", "evt_w1", "evt_c4", "evt_c3", "evt_c2", "evt_c1", "evt_c0"]);
    for query in ["?state=applied%00", "?state=lost", "?type=", "?account=%00", "?sort=id", "?limit=1e9", "?limit=0"] {
        let (status, json) = api.call(Who::Operator, "GET", &format!("/internal/stripe-events{query}"), None).await;
        assert_eq!(status, 400, "{query}: {json}");
    }
}

#[tokio::test]
async fn an_event_says_what_came_and_what_it_did_and_is_tried_again_without_a_second_effect() {
    let api = Api::start().await;
    api.connect(CREATOR, "manual").await;
    sent(&api, "evt_1", "charge.refunded", None, json!({ "id": "ch_1", "amount_refunded": 50, "currency": "usd" })).await;
    let path = "/internal/stripe-events/evt_1";
    let answer = api.fine(Who::Operator, "GET", path, None).await;
    let fields = ["id", "type", "state", "effect", "tries", "account"];
    assert_eq!(
        pick(&answer["event"], &fields),
        [&json!("evt_1"), &json!("charge.refunded"), &json!("waiting"), &json!("waits for ch_1"), &json!(1), &json!(null)]
    );
    assert_eq!(answer["payload"]["data"]["object"]["amount_refunded"], 50);
    assert!(answer["event"]["nextTryAt"].is_string());

    let replay = async || api.fine(Who::Operator, "POST", "/internal/stripe-events/evt_1/replay", None).await;
    let waits = replay().await;
    assert_eq!(
        (&waits["tried"], &waits["event"]["state"], &waits["event"]["tries"]),
        (&json!(true), &json!("waiting"), &json!(2))
    );
    // Given up, and then the earning comes after all.
    api.sql("update stripe_events set state = 'given_up', due_at = null").await;
    api.earn(CREATOR, [tokens(100, 1)]).await;
    api.sql("update creator_earnings set charge_id = 'ch_1'").await;
    let applied = replay().await;
    assert_eq!(
        pick(&applied["event"], &["state", "effect"]),
        [&json!("applied"), &json!("took back 450000 micros of ch_1")],
        "{applied}"
    );
    let before = api.earnings(CREATOR).await;
    let again = replay().await;
    assert_eq!((&again["tried"], &again["event"]), (&json!(false), &applied["event"]));
    assert_eq!(api.earnings(CREATOR).await, before, "no second effect");
    let logged = api.fine(Who::Operator, "GET", "/internal/audit?subject=event:evt_1", None).await;
    assert_eq!(logged["rows"].as_array().map(Vec::len), Some(2), "who has tried it again is in the log: {logged}");
    for (method, path) in [
        ("GET", "/internal/stripe-events/evt_2"),
        ("POST", "/internal/stripe-events/evt_2/replay"),
        ("GET", "/internal/stripe-events/%00"),
        ("POST", "/internal/stripe-events/evt_1%00/replay"),
    ] {
        assert_eq!(api.call(Who::Operator, method, path, None).await.0, 404, "{path}");
    }
    for who in [Who::Creator(CREATOR), Who::Cron] {
        let status = api.call(who, "POST", "/internal/stripe-events/evt_1/replay", None).await.0;
        assert!(matches!(status, 401 | 403), "{status}");
    }
}
