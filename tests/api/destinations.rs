//! Operators look at changed and shared bank accounts.

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Api, Who};
use crate::{CREATOR, pick};

#[tokio::test]
async fn an_operator_confirms_the_destination_that_was_looked_at_and_no_other() {
    let api = Api::start().await;
    let other = Uuid::from_u128(2);
    for creator in [CREATOR, other] {
        api.connect(creator, "manual").await;
    }
    api.sql("update stripe_accounts set destination = 'one bank'").await;
    let list = async |query: &str| api.fine(Who::Operator, "GET", &format!("/internal/payees/destinations{query}"), None).await;
    assert_eq!(list("").await["destinations"], json!([]), "a first destination is no change");
    let shared = list("?filter=shared&limit=1").await;
    assert_eq!(
        (&shared["destinations"][0]["payeeId"], &shared["destinations"][0]["sharedWith"]),
        (&json!(CREATOR), &json!([other]))
    );
    let cursor = shared["nextCursor"].as_str().expect("a second page").to_owned();
    assert_eq!(list(&format!("?filter=shared&cursor={cursor}")).await["destinations"][0]["payeeId"], json!(other));

    api.sql("update stripe_accounts set destination = 'two', destination_changed_at = now() - interval '1 day' where payee_id::text like '%1'").await;
    let row = list("?filter=unconfirmed").await["destinations"][0].clone();
    assert_eq!(pick(&row, &["payeeId", "destination", "confirmed"]), [&json!(CREATOR), &json!("two"), &json!(false)]);
    let confirm = async |payee: Uuid, destination: &str| {
        let path = format!("/internal/payees/{payee}/destination/confirm");
        api.call(Who::Operator, "POST", &path, Some(json!({ "destination": destination }))).await
    };
    let (status, json) = confirm(CREATOR, "one bank").await;
    assert_eq!((status, &json["code"]), (409, &json!("DESTINATION_CHANGED")));
    for _ in 0..2 {
        let (status, json) = confirm(CREATOR, "two").await;
        assert_eq!((status, &json["retried"]), (200, &json!(0)), "{json}");
    }
    assert_eq!(list("").await["destinations"], json!([]));
    let logged = api.fine(Who::Operator, "GET", &format!("/internal/audit?subject=payee:{CREATOR}"), None).await;
    let entries = logged["rows"].as_array().expect("rows");
    assert_eq!(entries.len(), 1, "who has confirmed it is in the log, once: {logged}");
    assert_eq!((&entries[0]["action"], &entries[0]["outcome"]), (&json!("destination.confirm"), &json!("done")));
    assert_eq!(confirm(Uuid::from_u128(9), "two").await.0, 404);
    assert_eq!(
        api.call(Who::Operator, "POST", "/internal/payees/9/destination/confirm", Some(json!({ "destination": "x" }))).await.0,
        404
    );
    for query in ["?filter=all", "?limit=0", "?sort=payee", &format!("?cursor={cursor}")] {
        assert_eq!(
            api.call(Who::Operator, "GET", &format!("/internal/payees/destinations{query}"), None).await.0,
            400,
            "{query}"
        );
    }
    for who in [Who::Creator(CREATOR), Who::Cron] {
        let path = format!("/internal/payees/{CREATOR}/destination/confirm");
        let status = api.call(who, "POST", &path, Some(json!({ "destination": "two" }))).await.0;
        assert!(matches!(status, 401 | 403), "{status}");
    }
    let (status, json) = api
        .call(
            Who::Operator,
            "POST",
            &format!("/internal/payees/{CREATOR}/destination/confirm"),
            Some(json!({ "confirmedBy": "me" })),
        )
        .await;
    assert_eq!((status, &json["details"][0]["field"]), (422, &json!("confirmedBy")));
}

#[tokio::test]
async fn nobody_confirms_their_own_bank_account() {
    let api = Api::start().await;
    let operator = Uuid::from_u128(7);
    api.connect(operator, "manual").await;
    api.sql("update stripe_accounts set destination = 'mine', destination_changed_at = now() - interval '5 days'").await;
    let path = format!("/internal/payees/{operator}/destination/confirm");
    let body = || Some(json!({ "destination": "mine" }));
    let (status, json) = api.call(Who::Operator, "POST", &path, body()).await;
    assert_eq!((status, &json["code"]), (403, &json!("OWN_DESTINATION")));
    assert_eq!(api.call(Who::Second, "POST", &path, body()).await.0, 200);
    let logged = api.fine(Who::Second, "GET", &format!("/internal/audit?subject=payee:{operator}"), None).await;
    let outcomes: Vec<_> = logged["rows"].as_array().expect("rows").iter().map(|row| row["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("done"), json!("refused")]);
}
