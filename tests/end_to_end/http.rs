//! Bad input and abuse over HTTP: the right status and an error of the one form, nothing written, nothing given away.

use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use payday_local::stripe_double::signature;
use payday_tests::http::{Answer, request};
use payday_tests::system::{CONNECT_SECRET, CRON_SECRET, JWT_SECRET, PLATFORM_SECRET, STRIPE_KEY, Setup, System};
use payday_tests::world::creator;
use serde_json::{Value as Json, json};

/// The one form of errors, without what nobody outside may see.
pub fn is_an_error(answer: &Answer, what: &str) {
    let json = answer.json();
    assert_eq!((&json["ok"], &json["success"]), (&json!(false), &json!(false)), "{what}: {json}");
    for field in ["code", "error", "timestamp", "requestId"] {
        assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {field} in {json}");
    }
    for secret in [CRON_SECRET, JWT_SECRET, STRIPE_KEY, PLATFORM_SECRET, "select ", "insert ", "panicked", ".rs:", "postgres://"]
    {
        assert!(!answer.body.contains(secret), "{what}: {secret} in {json}");
    }
}

fn earning(change: impl FnOnce(&mut Json)) -> String {
    let mut row = json!({
        "sourceId": "one", "creatorId": creator(1), "kind": "tip", "amount": 500, "currency": "usd", "occurredAt": "2026-11-01T00:00:00Z",
    });
    change(&mut row);
    json!({ "earnings": [row] }).to_string()
}

/// An earning with one field as it was written, however wrong.
fn raw(field: &str, value: &str) -> String {
    let placed = earning(|row| row[field] = json!("PLACE"));
    placed.replace("\"PLACE\"", value)
}

async fn nothing_written(system: &System) {
    for table in ["payout_runs", "stripe_events"] {
        assert_eq!(system.database.count(table).await, 0, "{table}");
    }
    assert_eq!(system.database.count("creator_earnings").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_refused_with_the_fields_name_and_nothing_is_written() {
    let system = Setup::of(1).start().await;
    let json_type = "application/json";
    let row: Json = serde_json::from_str(&earning(|_| {})).expect("json");
    let many = vec![&row["earnings"][0]; 1_001];
    // Each fits into the ledger, and the first with the third does not.
    let large = |source: &str, currency: &str| json!({ "sourceId": source, "creatorId": creator(1), "kind": "tip", "amount": 900_000_000_000_000_i64, "currency": currency, "occurredAt": "2026-11-01T00:00:00Z" });
    let wrapping = json!({ "earnings": [large("a", "usd"), large("b", "eur"), large("c", "usd")] }).to_string();
    for (kind, body, status, named) in [
        (json_type, "not json".to_owned(), 400, ""),
        (json_type, r#"{"earnings":[{"sourceId":"#.to_owned(), 400, ""),
        (json_type, String::new(), 400, ""),
        ("text/plain", earning(|_| {}), 415, ""),
        (json_type, format!("{{\"earnings\":[],\"filler\":\"{}\"}}", "x".repeat(5_500_000)), 413, ""),
        (json_type, json!({ "earnings": many }).to_string(), 413, ""),
        (json_type, json!({ "earnings": [] }).to_string(), 422, "earnings"),
        (json_type, earning(|row| row["status"] = json!("paid")), 422, "earnings[0].status"),
        (json_type, earning(|row| row["organizationId"] = json!("x")), 422, "earnings[0].organizationId"),
        (json_type, earning(|row| row["approvedBy"] = json!("x")), 422, "earnings[0].approvedBy"),
        (json_type, raw("amount", "0"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "-5"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "1.5"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "1e3"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "\"100\""), 422, "earnings[0].amount"),
        (json_type, raw("amount", "9223372036854775808"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "9223372036854775807"), 422, "earnings[0].amount"),
        (json_type, raw("amount", "NaN"), 400, ""),
        (json_type, wrapping, 422, "earnings[2].amount"),
        (json_type, raw("currency", "\"xxx\""), 422, "earnings[0].currency"),
        (json_type, earning(|row| row["currency"] = json!("isk")).replace("500", "550"), 422, "earnings[0].amount"),
        (json_type, raw("creatorId", "\"somebody\""), 422, "earnings[0].creatorId"),
        (json_type, raw("sourceId", "\"a\\u0000b\""), 422, "earnings[0].sourceId"),
        (json_type, raw("sourceId", "\"a\\tb\""), 422, "earnings[0].sourceId"),
        (json_type, raw("sourceId", "\"a\\u001b[2Jb\""), 422, "earnings[0].sourceId"),
        (json_type, raw("occurredAt", "\"yesterday\""), 422, "earnings[0].occurredAt"),
    ] {
        let what: String = format!("{kind} {status} {}", body.chars().take(200).collect::<String>());
        let headers = [("x-cron-secret", CRON_SECRET), ("content-type", kind)];
        let answer = request(&system.stack.http_url, "POST", "/internal/earnings", &headers, &body).await;
        assert_eq!(answer.status, status, "{what}\n{answer:?}");
        is_an_error(&answer, &what);
        let field = answer.json()["details"][0]["field"].as_str().unwrap_or_default().to_owned();
        assert_eq!(field, named, "{what}: {}", answer.body);
        assert!(!answer.body.contains("xxxxxxxx"), "{what}: the body is not told back");
    }
    nothing_written(&system).await;
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_is_turned_away_and_unknown_ways_lead_nowhere() {
    let system = Setup::of(1).start().await;
    let now = Utc::now().timestamp();
    let token = |key: &str, claims: Json| {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(key.as_bytes())).expect("a token")
    };
    let good = json!({ "sub": creator(1), "aud": "authenticated", "exp": now + 600 });
    let with = |field: &str, value: Json| {
        let mut claims = good.clone();
        claims[field] = value;
        claims
    };
    let without = |field: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").remove(field);
        claims
    };
    let unsigned = {
        let good = token(JWT_SECRET, good.clone());
        let claims = good.split('.').nth(1).expect("claims");
        // {"alg":"none","typ":"JWT"}
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")
    };
    let other = encode(&Header::new(Algorithm::HS512), &good, &EncodingKey::from_secret(JWT_SECRET.as_bytes())).expect("a token");
    for (what, token) in [
        ("another key", token("another-secret-of-thirty-two-characters", good.clone())),
        ("expired", token(JWT_SECRET, with("exp", json!(now - 600)))),
        ("another audience", token(JWT_SECRET, with("aud", json!("anon")))),
        ("without exp", token(JWT_SECRET, without("exp"))),
        ("without sub", token(JWT_SECRET, without("sub"))),
        ("alg none", unsigned),
        ("another algorithm", other),
        ("no token at all", "x".to_owned()),
    ] {
        let headers = [("authorization", format!("Bearer {token}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = request(&system.stack.http_url, "GET", "/api/tokens/earnings", &headers, "").await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        is_an_error(&answer, what);
    }
    let creators = format!("Bearer {}", token(JWT_SECRET, good.clone()));
    let operators = with("app_metadata", json!({ "roles": ["operator"] }));
    let users_own = with("user_metadata", json!({ "roles": ["operator"] }));
    let operator = format!("Bearer {}", token(JWT_SECRET, operators));
    let pretender = format!("Bearer {}", token(JWT_SECRET, users_own));
    for (method, path, authorization, status) in [
        ("GET", "/health", "", 200),
        ("GET", "/api/tokens/earnings", creators.as_str(), 200),
        ("GET", "/api/tokens/earnings", "", 401),
        ("POST", "/internal/payouts/run", "", 401),
        ("POST", "/internal/payouts/run", creators.as_str(), 403),
        ("POST", "/internal/payouts/run", pretender.as_str(), 403),
        ("POST", "/internal/earnings", creators.as_str(), 403),
        ("GET", "/internal/payouts/health", "", 401),
        ("GET", "/internal/payouts/health", operator.as_str(), 200),
        ("GET", "/internal/payouts/status/1", operator.as_str(), 404),
        ("GET", "/internal/payouts/status/x", operator.as_str(), 404),
        ("GET", "/internal/payouts/status/99999999999999999999", operator.as_str(), 404),
        ("GET", "/internal/payouts/status/1?limit=1000000000", operator.as_str(), 400),
        ("GET", "/internal/payouts/status/1?cursor=forged", operator.as_str(), 400),
        ("GET", "/nowhere", "", 404),
        ("GET", "/internal/payouts/run", operator.as_str(), 405),
        ("DELETE", "/health", "", 405),
        ("POST", "/webhooks/stripe/more", "", 404),
    ] {
        let answer = request(&system.stack.http_url, method, path, &[("authorization", authorization)], "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.head.contains("x-request-id:"), "{method} {path}: {answer:?}");
        if status >= 400 {
            is_an_error(&answer, path);
        }
    }
    for (date, status, code) in [
        ("2026-11-14", 422, "NOT_A_PAY_DAY"),
        ("2999-11-15", 422, "CYCLE_IN_FUTURE"),
        ("2026-02-30", 422, "VALIDATION_FAILED"),
        ("'; drop table payees; --", 422, "VALIDATION_FAILED"),
    ] {
        let answer = system.post("/internal/payouts/run", &json!({ "cycleDate": date })).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{date}: {answer:?}");
        is_an_error(&answer, date);
    }
    nothing_written(&system).await;
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_taken_only_as_it_was_signed_and_only_once() {
    let system = Setup::of(1).start().await;
    let now = Utc::now().timestamp();
    let event = |id: &str| {
        json!({
            "id": id, "object": "event", "type": "customer.created", "created": now, "livemode": false, "data": { "object": { "id": "cus_1" } },
        })
        .to_string()
    };
    let post = async |signature: &str, body: &str| {
        let headers = [("stripe-signature", signature), ("content-type", "application/json")];
        request(&system.stack.http_url, "POST", "/webhooks/stripe", &headers, body).await
    };
    let body = event("evt_1");
    let signed = signature(PLATFORM_SECRET, now, body.as_bytes());
    let reserialised = serde_json::to_string_pretty(&serde_json::from_str::<Json>(&body).expect("json")).expect("json");
    for (what, header, body) in [
        ("unsigned", String::new(), body.clone()),
        ("nonsense", "t=1,v1=00".to_owned(), body.clone()),
        ("another secret", signature("whsec_other", now, body.as_bytes()), body.clone()),
        ("altered by a byte", signed.clone(), body.replace("cus_1", "cus_2")),
        ("serialised again", signed.clone(), reserialised),
        ("six minutes old", signature(PLATFORM_SECRET, now - 360, body.as_bytes()), body.clone()),
        ("only the test scheme", signed.replace("v1=", "v9="), body.clone()),
        ("six minutes ahead", signature(PLATFORM_SECRET, now + 360, body.as_bytes()), body.clone()),
        ("signed, not an event", signature(PLATFORM_SECRET, now, b"[1]"), "[1]".to_owned()),
    ] {
        let answer = post(&header, &body).await;
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        is_an_error(&answer, what);
    }
    nothing_written(&system).await;
    for signed in [signed.clone(), signature(CONNECT_SECRET, now, body.as_bytes()), format!("{signed},v1=00")] {
        assert_eq!(post(&signed, &body).await.status, 200);
    }
    assert_eq!(system.database.rows("select id, state from stripe_events").await, ["evt_1 ignored"]);
    // A signed event that Postgres could not keep as it is must not come back for three days and then be lost.
    let body = event("evt_2").replace("cus_1", "cus\\u0000");
    assert_eq!(post(&signature(PLATFORM_SECRET, now, body.as_bytes()), &body).await.status, 200);
    let kept = system.database.rows("select id, payload #>> '{data,object,id}' from stripe_events where id = 'evt_2'").await;
    assert_eq!(kept, ["evt_2 cus\u{fffd}"]);
    let large = format!("{body}{}", " ".repeat(1 << 20));
    assert_eq!(post(&signature(PLATFORM_SECRET, now, large.as_bytes()), &large).await.status, 413);
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_sent_twice_are_there_once_and_another_content_is_refused() {
    let system = Setup::of(1).start().await;
    let headers = [("x-cron-secret", CRON_SECRET), ("content-type", "application/json; charset=utf-8")];
    let post = async |body: String| request(&system.stack.http_url, "POST", "/internal/earnings", &headers, body).await;
    let first = post(earning(|_| {})).await;
    assert_eq!((first.status, &first.json()["recorded"]), (200, &json!(1)), "{first:?}");
    let again = post(earning(|_| {})).await;
    assert_eq!((again.status, &again.json()["alreadyThere"]), (200, &json!(1)), "{again:?}");
    let other = post(earning(|row| row["amount"] = json!(501))).await;
    assert_eq!((other.status, &other.json()["code"]), (409, &json!("SOURCE_ID_CONFLICT")), "{other:?}");
    let texts =
        ["=HYPERLINK(\"x\")", "+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", "'; drop table payees; --", "\u{202e}gnp.exe"];
    for text in texts {
        let answer = post(earning(|row| row["sourceId"] = json!(text))).await;
        assert_eq!(answer.status, 200, "{text} is stored as it is: {answer:?}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{answer:?}");
    }
    let kept = "select source_id from creator_earnings where source_id not in ('first:1', 'one') order by id";
    assert_eq!(system.database.rows(kept).await, texts);
    system.ends("no items").await;
}
