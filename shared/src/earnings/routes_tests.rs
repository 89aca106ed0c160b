//! What `POST /internal/earnings` takes and refuses, before any of it reaches the database.

use serde_json::{Value as Json, json};

use super::*;
use crate::http::testing;

const CREATOR: &str = "6f1f6c1e-7a0d-4a55-9a4c-2f6f1f1f0001";

fn row(changes: Json) -> Json {
    let mut row = json!({ "sourceId": "s1", "creatorId": CREATOR, "kind": "tip", "amount": 1000, "currency": "usd", "occurredAt": "2026-11-01T10:00:00Z" });
    if let (Json::Object(row), Json::Object(changes)) = (&mut row, changes) {
        for (name, value) in changes {
            // A change to null takes the field away.
            if value.is_null() { drop(row.remove(&name)) } else { drop(row.insert(name, value)) }
        }
    }
    row
}

fn checked_rows(rows: Vec<Json>) -> Result<Vec<NewEarning>> {
    let body = serde_json::from_value(json!({ "earnings": rows })).expect("a body");
    checked(body, &testing::policy(), "2026-11-15T06:00:00Z".parse().expect("an instant"))
}

#[test]
fn a_row_that_breaks_a_rule_is_named_with_its_field() {
    for (changes, field) in [
        (json!({ "sourceId": "" }), "sourceId"),
        (json!({ "sourceId": "x".repeat(201) }), "sourceId"),
        (json!({ "sourceId": "a\nb" }), "sourceId"),
        (json!({ "chargeId": "" }), "chargeId"),
        (json!({ "creatorId": "me" }), "creatorId"),
        (json!({ "kind": "gift" }), "kind"),
        (json!({ "place": "elsewhere" }), "place"),
        (json!({ "amount": 0 }), "amount"),
        (json!({ "amount": -5 }), "amount"),
        (json!({ "amount": i64::MAX }), "amount"),
        (json!({ "amount": null }), "amount"),
        (json!({ "tokens": 5 }), "amount"),
        (json!({ "amount": null, "tokens": 0 }), "tokens"),
        (json!({ "amount": null, "tokens": -1 }), "tokens"),
        (json!({ "amount": null, "tokens": i64::MAX }), "tokens"),
        (json!({ "amount": null, "tokens": 5, "currency": "eur" }), "currency"),
        (json!({ "amount": null, "tokens": 5, "fee": 1 }), "fee"),
        (json!({ "amount": null, "tokens": 5, "place": "connected" }), "place"),
        (json!({ "currency": "zzz" }), "currency"),
        (json!({ "currency": null }), "currency"),
        (json!({ "currency": "isk", "amount": 150 }), "amount"),
        (json!({ "fee": -1 }), "fee"),
        (json!({ "fee": 1001 }), "fee"),
        (json!({ "occurredAt": "yesterday" }), "occurredAt"),
        (json!({ "occurredAt": "2026-11-15" }), "occurredAt"),
        (json!({ "occurredAt": "2026-11-16T06:00:01Z" }), "occurredAt"),
    ] {
        let error = checked_rows(vec![row(json!({})), row(changes.clone())]).expect_err("refused");
        let fields: Vec<_> = error.details.iter().map(|detail| detail.field.clone()).collect();
        assert_eq!((error.kind, fields), (ErrorKind::Invalid, vec![format!("earnings[1].{field}")]), "{changes}");
    }
}

#[test]
fn a_row_becomes_the_earning_that_it_says() {
    let earnings = checked_rows(vec![
        row(json!({ "amount": null, "currency": null, "tokens": 3, "kind": "call" })),
        row(json!({ "sourceId": "é".repeat(200), "currency": "JPY", "fee": 1000, "chargeId": "ch_1", "place": "connected", "occurredAt": "2026-11-16T07:00:00+01:00" })),
    ])
    .expect("earnings");
    let tokens = NewEarning {
        source_id: "s1".to_owned(),
        creator_id: CREATOR.parse().expect("a uuid"),
        kind: Kind::Call,
        value: Value::Tokens(3),
        currency: Currency::USD,
        place: Place::Platform,
        charge_id: None,
        occurred_at: "2026-11-01T10:00:00Z".parse().expect("an instant"),
    };
    assert_eq!(earnings[0], tokens);
    let amount = &earnings[1];
    assert_eq!(
        (amount.value, amount.place, amount.currency.code()),
        (Value::Amount { minor: 1000, fee_minor: Some(1000) }, Place::Connected, "jpy".to_owned())
    );
    assert_eq!(
        (amount.charge_id.as_deref(), amount.occurred_at.to_rfc3339()),
        (Some("ch_1"), "2026-11-16T06:00:00+00:00".to_owned())
    );
}

#[test]
fn a_request_holds_one_to_a_thousand_rows_and_names_a_hundred_wrong_fields() {
    assert_eq!(checked_rows(vec![]).expect_err("refused").kind, ErrorKind::Invalid);
    assert_eq!(checked_rows(vec![row(json!({})); 1001]).expect_err("refused").kind, ErrorKind::TooLarge);
    assert_eq!(checked_rows(vec![row(json!({})); 1000]).expect("earnings").len(), 1000);
    assert_eq!(checked_rows(vec![row(json!({ "amount": 0 })); 1000]).expect_err("refused").details.len(), 100);
}

#[tokio::test]
async fn the_route_asks_who_calls_before_it_reads_a_body() {
    let good = json!({ "earnings": [row(json!({ "amount": 0 }))] }).to_string();
    let cron = ("x-cron-secret", testing::CRON_SECRET.to_owned());
    let operator = ("authorization", testing::bearer(&["operator"]));
    let creator = ("authorization", testing::bearer(&[]));
    for (header, kind, body, status, code) in [
        (("x-nothing", String::new()), "application/json", good.as_str(), 401, "UNAUTHENTICATED"),
        (("x-nothing", String::new()), "text/plain", "{", 401, "UNAUTHENTICATED"),
        (creator, "application/json", good.as_str(), 403, "FORBIDDEN"),
        (operator, "application/json", good.as_str(), 422, "VALIDATION_FAILED"),
        (cron.clone(), "application/json", good.as_str(), 422, "VALIDATION_FAILED"),
        (cron.clone(), "text/plain", good.as_str(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (cron.clone(), "application/json", "{\"earnings\":[", 400, "MALFORMED_JSON"),
        (cron.clone(), "application/json", "{\"earnings\":[],\"status\":\"paid\"}", 422, "VALIDATION_FAILED"),
        (cron, "application/json", "{\"earnings\":[]}", 422, "VALIDATION_FAILED"),
    ] {
        let request = http::Request::post("/internal/earnings")
            .header(header.0, &header.1)
            .header("content-type", kind)
            .body(body.to_owned().into());
        let (answered, json) = testing::call(request.expect("a request")).await;
        assert_eq!((answered, json["code"].as_str()), (status, Some(code)), "{} {kind} {body}", header.0);
    }
    let many = json!({ "earnings": vec![row(json!({})); 1001] }).to_string();
    let request = http::Request::post("/internal/earnings")
        .header("x-cron-secret", testing::CRON_SECRET)
        .header("content-type", "application/json");
    assert_eq!(testing::call(request.body(many.into()).expect("a request")).await.0, 413);
}

#[test]
fn the_row_at_which_a_sum_is_too_large_for_the_ledger_is_named() {
    let large = |id: &str| row(json!({ "sourceId": id, "amount": 900_000_000_000_000_i64 }));
    let other = row(json!({ "sourceId": "b", "amount": 900_000_000_000_000_i64, "currency": "eur" }));
    let error = checked_rows(vec![large("a"), other, large("c")]).expect_err("refused");
    assert_eq!(error.details.iter().map(|detail| detail.field.as_str()).collect::<Vec<_>>(), ["earnings[2].amount"]);
}
