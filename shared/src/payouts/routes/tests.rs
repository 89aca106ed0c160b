//! What the routes answer before the database is asked, and without one.

use serde_json::json;

use super::*;
use crate::http::testing;

fn day(text: &str) -> NaiveDate {
    clock::parse_date(text).expect("a date")
}

/// Every route about payouts and withdrawals, with a caller that may.
fn routes() -> [(&'static str, &'static str, &'static str); 13] {
    [
        ("POST", "/api/cron/payouts", "cron"),
        ("POST", "/internal/payouts/run", "either"),
        ("GET", "/internal/payouts/status/1", "either"),
        ("GET", "/internal/payouts/health", "either"),
        ("GET", "/api/tokens/earnings", "creator"),
        ("GET", "/api/payouts", "creator"),
        ("GET", "/api/payouts/1", "creator"),
        ("GET", "/api/statements?year=2026", "creator"),
        ("GET", "/api/payout-settings", "creator"),
        ("PATCH", "/api/payout-settings", "creator"),
        ("POST", "/api/tokens/request-withdrawal", "creator"),
        ("GET", "/api/tokens/withdrawal-requests", "creator"),
        ("POST", "/api/tokens/withdrawal-requests/7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001/cancel", "creator"),
    ]
}

#[tokio::test]
async fn strangers_get_401_and_those_who_may_not_403() {
    let cron = ("x-cron-secret", testing::CRON_SECRET.to_owned());
    let creator = ("authorization", testing::bearer(&[]));
    let wrong = ("authorization", "Bearer wrong".to_owned());
    for (method, path, who) in routes() {
        let mut refused = vec![(("x-nothing", String::new()), 401), (wrong.clone(), 401)];
        match who {
            "cron" => refused.extend([(creator.clone(), 401), (("authorization", testing::bearer(&["operator"])), 401)]),
            "either" => refused.push((creator.clone(), 403)),
            _ => refused.push((cron.clone(), 401)),
        }
        for ((name, value), expected) in refused {
            let request = http::Request::builder().method(method).uri(path).header(name, &value).body("{".into());
            let (status, body) = testing::call(request.expect("a request")).await;
            let code = if expected == 401 { "UNAUTHENTICATED" } else { "FORBIDDEN" };
            assert_eq!(
                (status, body["ok"].as_bool(), body["code"].as_str()),
                (expected, Some(false), Some(code)),
                "{method} {path} {value}"
            );
        }
    }
}

async fn post(path: &str, kind: &str, body: &str) -> (u16, serde_json::Value) {
    let request = http::Request::post(path).header("x-cron-secret", testing::CRON_SECRET).header("content-type", kind);
    testing::call(request.body(body.to_owned().into()).expect("a request")).await
}

#[tokio::test]
async fn a_date_that_cannot_be_run_is_refused_with_the_reason() {
    for (body, status, code) in [
        (r#"{"cycleDate":"2026-11-31"}"#, 422, "VALIDATION_FAILED"),
        (r#"{"cycleDate":"15.11.2026"}"#, 422, "VALIDATION_FAILED"),
        (r#"{"cycleDate":15}"#, 422, "VALIDATION_FAILED"),
        (r#"{"cycleDate":"2025-11-18"}"#, 422, "NOT_A_PAY_DAY"),
        (r#"{"cycleDate":"9999-12-01"}"#, 422, "CYCLE_IN_FUTURE"),
        (r#"{"cycleDate":"2025-11-15","status":"paid"}"#, 422, "VALIDATION_FAILED"),
        ("{", 400, "MALFORMED_JSON"),
    ] {
        let (answered, json) = post("/internal/payouts/run", "text/plain", body).await;
        assert_eq!((answered, json["code"].as_str()), (status, Some(code)), "{body}");
    }
    let (_, json) = post("/internal/payouts/run", "application/json", r#"{"cycleDate":"2025-11-18"}"#).await;
    assert_eq!(json["error"], "2025-11-18 is not a pay day; the next one is 2025-11-24.");
    let (_, json) = post("/internal/payouts/run", "application/json", r#"{"cycleDate":"not to be told"}"#).await;
    assert_eq!(
        json["details"],
        json!([{ "field": "cycleDate", "error": "must be a date of the calendar, written like 2026-11-15" }])
    );
}

#[tokio::test]
async fn a_scheduler_is_told_that_nothing_was_to_do() {
    for (kind, body, day) in [
        ("application/json", r#"{"cycleDate":"2025-11-18"}"#, 18),
        ("application/x-www-form-urlencoded", r#"{"cycleDate":"2025-11-18","source":"cron"}"#, 18),
        ("text/plain", r#"{"cycleDate":" 9999-12-01 "}"#, 1),
    ] {
        let (status, json) = post("/api/cron/payouts", kind, body).await;
        assert_eq!(
            (status, &json["success"], &json["skipped"], &json["dayOfMonth"]),
            (200, &json!(true), &json!(true), &json!(day)),
            "{body}"
        );
        assert!(json["reason"].as_str().is_some_and(|reason| reason.ends_with('.')), "{json}");
    }
}

#[tokio::test]
async fn health_tells_what_it_knows_without_a_database() {
    let request = http::Request::get("/internal/payouts/health").header("x-cron-secret", testing::CRON_SECRET);
    let (status, json) = testing::call(request.body(String::new().into()).expect("a request")).await;
    assert_eq!(
        (status, &json["ok"], &json["status"], &json["code"]),
        (503, &json!(false), &json!("down"), &json!("DATABASE_UNAVAILABLE"))
    );
    for part in ["database", "queues", "stripe", "schedule", "lastRun", "stuckRuns", "unknownOutcomes", "ledger", "haltedBatches"]
    {
        assert_eq!(json["checks"][part]["ok"], json!(false), "{part}");
    }
    assert!(!json.to_string().contains("127.0.0.1"), "{json}");
}

#[test]
fn today_is_the_payout_zones_and_an_empty_date_is_none() {
    let now = "2026-11-14T23:30:00Z".parse().expect("an instant");
    let berlin = Calendar { zone: "Europe/Berlin".parse().expect("a zone"), hour: 6 };
    for text in [None, Some(""), Some("  ")] {
        assert_eq!(cycle_date(text, berlin, now).expect("a date"), day("2026-11-15"), "{text:?}");
    }
    assert_eq!(cycle_date(Some("2026-11-01"), berlin, now).expect("a date"), day("2026-11-01"));
    assert!(too_early(day("2026-11-15"), berlin).contains("2026-11-15T06:00:00+01:00 (Europe/Berlin)"));
}

#[test]
fn the_next_pay_day_is_any_schedules() {
    for (after, next) in
        [("2026-11-01", "2026-11-02"), ("2026-11-10", "2026-11-15"), ("2026-11-15", "2026-11-16"), ("2026-11-24", "2026-11-30")]
    {
        assert_eq!(next_pay_day(day(after)), format!("; the next one is {next}"), "{after}");
    }
}
