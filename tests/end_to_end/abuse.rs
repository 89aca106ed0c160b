//! Every route by everybody who may not, every method it does not have, credentials that are almost right, and floods.
//!
//! The routes come from the OpenAPI document and the template: one that has no row here fails the test.

use std::collections::BTreeSet;

use chrono::Utc;
use jsonwebtoken::{EncodingKey, Header, encode};
use payday_local::stripe_double::signature;
use payday_tests::http::{Answer, request};
use payday_tests::system::{CRON_SECRET, JWT_SECRET, PLATFORM_SECRET, Setup, System};
use payday_tests::world::creator;
use serde_json::{Value as Json, json};

use crate::http::is_an_error;

/// Whom a route is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Anybody,
    Creators,
    Cron,
    /// Operators, and the cron secret.
    Operators,
    /// A person who is an operator: the cron secret is none.
    OperatorsOnly,
    /// Whoever signs the body.
    Stripe,
}

/// A route with a harmless request to it, and what that is answered to those who may.
struct Row {
    route: (&'static str, &'static str),
    path: &'static str,
    body: &'static str,
    whom: For,
    fine: u16,
}

const fn row(route: (&'static str, &'static str), path: &'static str, body: &'static str, whom: For, fine: u16) -> Row {
    Row { route, path, body, whom, fine }
}

const CANCEL: &str = "/api/tokens/withdrawal-requests/7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001/cancel";
const REASON: &str = r#"{"reason":"seen"}"#;

const ROWS: [Row; 45] = [
    row(("GET", "/health"), "/health", "", For::Anybody, 200),
    row(("GET", "/openapi.json"), "/openapi.json", "", For::Anybody, 200),
    row(("GET", "/api/tokens/earnings"), "/api/tokens/earnings", "", For::Creators, 200),
    row(("POST", "/api/tokens/request-withdrawal"), "/api/tokens/request-withdrawal", r#"{"tokenAmount":0}"#, For::Creators, 422),
    row(("GET", "/api/tokens/withdrawal-requests"), "/api/tokens/withdrawal-requests", "", For::Creators, 200),
    row(("POST", "/api/tokens/withdrawal-requests/{requestId}/cancel"), CANCEL, "", For::Creators, 404),
    row(("GET", "/api/payouts"), "/api/payouts", "", For::Creators, 200),
    row(("GET", "/api/payouts/{payoutId}"), "/api/payouts/7777", "", For::Creators, 404),
    row(("GET", "/api/statements"), "/api/statements", "", For::Creators, 422),
    row(("GET", "/api/payout-settings"), "/api/payout-settings", "", For::Creators, 200),
    row(("PATCH", "/api/payout-settings"), "/api/payout-settings", r#"{"betaEnabled":true}"#, For::Creators, 422),
    row(("POST", "/api/cron/payouts"), "/api/cron/payouts", r#"{"cycleDate":"2025-11-18"}"#, For::Cron, 200),
    row(("POST", "/internal/earnings"), "/internal/earnings", r#"{"earnings":[]}"#, For::Operators, 422),
    row(("POST", "/internal/payouts/run"), "/internal/payouts/run", r#"{"cycleDate":"2025-11-18"}"#, For::Operators, 422),
    row(("GET", "/internal/payouts/status/{runId}"), "/internal/payouts/status/7777", "", For::Operators, 404),
    row(("GET", "/internal/payouts/health"), "/internal/payouts/health", "", For::Operators, 200),
    row(("POST", "/api/connect/account"), "/api/connect/account", r#"{"country":"Germany"}"#, For::Creators, 422),
    row(("POST", "/api/connect/link"), "/api/connect/link", r#"{"returnPath":"https://elsewhere.example"}"#, For::Creators, 422),
    row(("GET", "/api/connect/status"), "/api/connect/status", "", For::Creators, 200),
    row(("GET", "/internal/payees/destinations"), "/internal/payees/destinations", "", For::OperatorsOnly, 200),
    row(
        ("POST", "/internal/payees/{id}/destination/confirm"),
        "/internal/payees/00000000-0000-4000-8000-000000007777/destination/confirm",
        r#"{"destination":"a bank"}"#,
        For::OperatorsOnly,
        404,
    ),
    row(("GET", "/internal/stripe-events"), "/internal/stripe-events", "", For::OperatorsOnly, 200),
    row(("GET", "/internal/stripe-events/{id}"), "/internal/stripe-events/evt_7777", "", For::OperatorsOnly, 404),
    row(("POST", "/internal/stripe-events/{id}/replay"), "/internal/stripe-events/evt_7777/replay", "", For::OperatorsOnly, 404),
    row(("GET", "/internal/payouts/kpis"), "/internal/payouts/kpis", "", For::Operators, 200),
    row(("GET", "/internal/notifications"), "/internal/notifications", "", For::Operators, 200),
    row(("GET", "/internal/discrepancies"), "/internal/discrepancies", "", For::Operators, 200),
    row(("PATCH", "/internal/discrepancies/{id}"), "/internal/discrepancies/7777", r#"{"state":"open"}"#, For::Operators, 404),
    row(("GET", "/internal/payouts/preview"), "/internal/payouts/preview?cycleDate=2025-11-15", "", For::OperatorsOnly, 200),
    row(("POST", "/internal/payouts/pause"), "/internal/payouts/pause", "{}", For::OperatorsOnly, 422),
    row(("POST", "/internal/payouts/kill"), "/internal/payouts/kill", "{}", For::OperatorsOnly, 422),
    row(("POST", "/internal/payouts/resume"), "/internal/payouts/resume", "{}", For::OperatorsOnly, 422),
    row(
        ("POST", "/internal/payouts/batches/{batchId}/resume"),
        "/internal/payouts/batches/7777/resume",
        REASON,
        For::OperatorsOnly,
        404,
    ),
    row(
        ("POST", "/internal/payouts/items/{itemId}/retry"),
        "/internal/payouts/items/7777/retry",
        REASON,
        For::OperatorsOnly,
        404,
    ),
    row(("POST", "/internal/payouts/retry"), "/internal/payouts/retry", "{}", For::OperatorsOnly, 422),
    row(
        ("POST", "/internal/payouts/items/{itemId}/adopt"),
        "/internal/payouts/items/7777/adopt",
        r#"{"reference":"wire","evidence":"seen"}"#,
        For::OperatorsOnly,
        404,
    ),
    row(
        ("POST", "/internal/payouts/operations/{operationId}/resolve"),
        "/internal/payouts/operations/7777/resolve",
        r#"{"outcome":"rejected","evidence":"seen"}"#,
        For::OperatorsOnly,
        404,
    ),
    row(("GET", "/internal/payees"), "/internal/payees", "", For::OperatorsOnly, 200),
    row(("GET", "/internal/payees/beta"), "/internal/payees/beta", "", For::OperatorsOnly, 200),
    row(("POST", "/internal/payees/beta"), "/internal/payees/beta", "{}", For::OperatorsOnly, 422),
    row(
        ("POST", "/internal/payees/{payeeId}/block"),
        "/internal/payees/00000000-0000-0000-0000-000000007777/block",
        REASON,
        For::OperatorsOnly,
        404,
    ),
    row(
        ("POST", "/internal/payees/{payeeId}/unblock"),
        "/internal/payees/00000000-0000-0000-0000-000000007777/unblock",
        REASON,
        For::OperatorsOnly,
        404,
    ),
    row(("GET", "/internal/audit"), "/internal/audit", "", For::OperatorsOnly, 200),
    row(("GET", "/internal/audit/verify"), "/internal/audit/verify", "", For::OperatorsOnly, 200),
    row(("POST", "/webhooks/stripe"), "/webhooks/stripe", "{}", For::Stripe, 400),
];

/// Every route there is: those of the API's document and those that the template gives to other functions.
fn routes(system: &System) -> BTreeSet<(String, String)> {
    let document: Json = serde_json::from_str(&payday::router::openapi_json()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let documented = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("methods").keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    let wired = system.stack.wiring.routes.iter().filter(|route| route.path != "$default");
    documented.chain(wired.map(|route| (route.method.clone(), route.path.clone()))).collect()
}

/// Whether a path is at a route's address.
fn leads_to(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    let fits = |(part, word): (&&str, &&str)| part == word || part.starts_with('{') && !word.is_empty();
    pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
}

pub fn token(key: &str, user: u128, more: Json) -> String {
    let mut claims = json!({ "sub": creator(user), "aud": "authenticated", "exp": Utc::now().timestamp() + 600 });
    for (name, value) in more.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    format!("Bearer {}", encode(&Header::default(), &claims, &EncodingKey::from_secret(key.as_bytes())).expect("a token"))
}

pub fn operator() -> String {
    token(JWT_SECRET, 9, json!({ "app_metadata": { "roles": ["operator"] } }))
}

async fn call(system: &System, (method, path): (&str, &str), credentials: &[(&str, &str)], body: &str) -> Answer {
    let headers: Vec<(&str, &str)> = credentials.iter().copied().chain([("content-type", "application/json")]).collect();
    let answer = request(&system.stack.http_url, method, path, &headers, body).await;
    assert!(answer.head.contains("x-request-id:"), "{method} {path}: {answer:?}");
    if answer.status >= 400 {
        is_an_error(&answer, path);
    }
    answer
}

/// What functions wrote: JSON lines, without what nobody may read there either.
fn logs_give_nothing_away(system: &System) {
    let mut lines = 0;
    for file in std::fs::read_dir(system.stack.logs()).expect("the logs").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("text");
        for line in text.lines() {
            lines += 1;
            assert!(serde_json::from_str::<Json>(line).is_ok_and(|line| line.is_object()), "not a line of ours: {line}");
            for word in [CRON_SECRET, JWT_SECRET, PLATFORM_SECRET, "eyJ", "postgres://", "panicked", "stack backtrace"] {
                assert!(!line.contains(word), "{word} in {line}");
            }
        }
    }
    assert!(lines > 0, "nothing was logged at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_turns_away_everybody_whom_it_is_not_for() {
    let system = Setup::of(1).setting("RATE_LIMIT_PER_SECOND", 0).start().await;
    let rows: BTreeSet<(String, String)> = ROWS.iter().map(|row| (row.route.0.to_owned(), row.route.1.to_owned())).collect();
    assert_eq!(rows, routes(&system), "a route has no row in tests/end_to_end/abuse.rs, or a row no route");

    let creators = token(JWT_SECRET, 1, json!({}));
    let operators = operator();
    let pretender =
        token(JWT_SECRET, 1, json!({ "user_metadata": { "roles": ["operator"] }, "role": "operator", "roles": ["operator"] }));
    let other_role =
        token(JWT_SECRET, 1, json!({ "app_metadata": { "roles": ["viewer", "Operator", "operator "], "role": "operator" } }));
    let another_platform =
        token("another-platforms-secret-with-32-characters", 1, json!({ "app_metadata": { "roles": ["operator"] } }));
    let expired = token(JWT_SECRET, 9, json!({ "exp": Utc::now().timestamp() - 60, "app_metadata": { "roles": ["operator"] } }));
    let cron = format!("Bearer {CRON_SECRET}");
    let cookie = format!("token={}", &operators[7..]);
    // Whether it is a user, an operator, the cron secret.
    for (who, credentials, user, may_operate, may_fire) in [
        ("nobody", ("x-nothing", ""), false, false, false),
        ("a creator", ("authorization", creators.as_str()), true, false, false),
        ("a creator who says operator", ("authorization", pretender.as_str()), true, false, false),
        ("a creator with roles that are none", ("authorization", other_role.as_str()), true, false, false),
        ("an operator", ("authorization", operators.as_str()), true, true, false),
        ("another platform's operator", ("authorization", another_platform.as_str()), false, false, false),
        ("an operator of yesterday", ("authorization", expired.as_str()), false, false, false),
        ("an operator in a cookie", ("cookie", cookie.as_str()), false, false, false),
        ("a token where the cron secret goes", ("x-cron-secret", &operators[7..]), false, false, false),
        ("the cron secret", ("x-cron-secret", CRON_SECRET), false, true, true),
        ("the cron secret as a token", ("authorization", cron.as_str()), false, true, true),
        ("the cron secret as a password", ("authorization", "Basic Y3Jvbi1zZWNyZXQtb2YtdGhlLXRlc3Rz"), false, false, false),
    ] {
        for row in &ROWS {
            let expected = match row.whom {
                For::Anybody | For::Stripe => row.fine,
                For::Creators if user => row.fine,
                For::Cron if may_fire => row.fine,
                For::Operators if may_operate => row.fine,
                For::OperatorsOnly if may_operate && user => row.fine,
                For::Operators | For::OperatorsOnly if user => 403,
                For::Creators | For::Cron | For::Operators | For::OperatorsOnly => 401,
            };
            let (method, route) = row.route;
            let answer = call(&system, (method, row.path), &[credentials], row.body).await;
            assert_eq!(answer.status, expected, "{method} {route} by {who}: {answer:?}");
            // Whoever may not is told so before anything is read: neither a wrong body nor an id that is none says otherwise.
            if matches!(expected, 401 | 403) {
                let answer = call(&system, (method, row.path), &[credentials], "{").await;
                assert_eq!(answer.status, expected, "{method} {route} by {who} with a wrong body: {answer:?}");
            }
        }
    }
    logs_give_nothing_away(&system);
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_is_anothers_by_naming_it() {
    let system = Setup::of(2).start().await;
    let run = system.post("/internal/payouts/run", &json!({ "cycleDate": "2025-11-15" })).await.json()["runId"].to_string();
    let (one, two) = (token(JWT_SECRET, 1, json!({})), token(JWT_SECRET, 2, json!({})));
    let money = async |path: &str, credentials: &[(&str, &str)]| {
        let answer = call(&system, ("GET", path), credentials, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()["earnings"]["money"].clone()
    };
    let own = money("/api/tokens/earnings", &[("authorization", &one)]).await;
    assert_ne!(own, money("/api/tokens/earnings", &[("authorization", &two)]).await);
    let other = creator(2).to_string();
    for name in ["creatorId", "creator_id", "userId", "sub", "organizationId"] {
        let path = format!("/api/tokens/earnings?{name}={other}");
        assert_eq!(money(&path, &[("authorization", &one)]).await, own, "{path}");
    }
    for header in ["x-user-id", "x-creator-id", "x-forwarded-user", "x-amzn-oidc-identity"] {
        assert_eq!(money("/api/tokens/earnings", &[("authorization", &one), (header, &other)]).await, own, "{header}");
    }
    // Another tenant's organisation in a token gives no more than the user has.
    let claimed = token(JWT_SECRET, 1, json!({ "app_metadata": { "organization_id": other } }));
    assert_eq!(money("/api/tokens/earnings", &[("authorization", &claimed)]).await, own);
    // A run that is there and one that is not look alike to those who may not see either.
    for path in [format!("/internal/payouts/status/{run}"), "/internal/payouts/status/999999".to_owned()] {
        let answer = call(&system, ("GET", &path), &[("authorization", &one)], "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("FORBIDDEN")), "{path}");
    }
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_or_an_address_that_is_none_is_answered_like_any_other_error() {
    let system = Setup::of(0).start().await;
    let operators = operator();
    let credentials = [("authorization", operators.as_str())];
    let all = routes(&system);
    for row in &ROWS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            if all.contains(&(method.to_owned(), row.route.1.to_owned())) {
                continue;
            }
            let answer = call(&system, (method, row.path), &credentials, "").await;
            // The webhook's function has only its one route: any other method there is an address that the API does not have.
            let expected = if row.whom == For::Stripe { 404 } else { 405 };
            assert_eq!(answer.status, expected, "{method} {}: {answer:?}", row.path);
            assert_eq!(answer.head.contains("\r\nallow:"), expected == 405, "{method} {}: {answer:?}", row.path);
        }
        let whole = row.path.split('?').next().unwrap_or_default();
        let (upper, more, less) = (whole.to_uppercase(), format!("{whole}/x"), &whole[..whole.len() - 1]);
        for path in [upper, more, less.replace("/777", "/x"), format!("{whole}%00"), format!("/{whole}")] {
            let answer = call(&system, (row.route.0, &path), &credentials, "").await;
            // A word after a list is one of its rows, which may take other methods.
            let there: Vec<&str> =
                all.iter().filter(|(_, pattern)| leads_to(pattern, &path)).map(|(method, _)| method.as_str()).collect();
            let expected = if there.is_empty() || there.contains(&row.route.0) { 404 } else { 405 };
            assert_eq!(answer.status, expected, "{path}: {answer:?}");
        }
    }
    for query in
        ["limit=1000000000", "limit=1e9", "limit=-1", "cursor=forged", "cursor=", "sort=id;drop%20table%20payees", "sort=amount"]
    {
        let answer = call(&system, ("GET", &format!("/internal/payouts/status/1?{query}")), &credentials, "").await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
    // What is written into an address does not become a line of the log.
    for path in ["/x%0a%7b%22level%22:%22ERROR%22%7d", "/%1b[31mred", "/%00", "/%e2%80%ae"] {
        assert_eq!(call(&system, ("GET", path), &[], "").await.status, 404, "{path}");
    }
    logs_give_nothing_away(&system);
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_cron_secrets_are_taken_while_one_replaces_the_other_and_nothing_near_them() {
    let (new, old) = ("a-new-cron-secret", "the-old-one");
    let system = Setup::of(0).secret("CRON_SECRET", Some(&format!(" {new} , {old} "))).start().await;
    let both = format!("{new},{old}");
    let longer = format!("{new}x");
    for (shown, status) in [
        (new, 200),
        (old, 200),
        ("", 401),
        (&new[..16], 401),
        (&longer, 401),
        ("a-new-cron-secreT", 401),
        ("b-new-cron-secret", 401),
        (&both, 401),
        (",", 401),
        (CRON_SECRET, 401),
    ] {
        let bearer = format!("Bearer {shown}");
        for credentials in [("x-cron-secret", shown), ("authorization", bearer.as_str())] {
            let answer = call(&system, ("POST", "/api/cron/payouts"), &[credentials], r#"{"cycleDate":"2025-11-18"}"#).await;
            assert_eq!(answer.status, status, "{credentials:?}: {answer:?}");
        }
    }
    system.ends("no items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_and_everybody_else_is_served() {
    let system = Setup::of(2).setting("RATE_LIMIT_PER_SECOND", 3).start().await;
    let (one, two, operators) = (token(JWT_SECRET, 1, json!({})), token(JWT_SECRET, 2, json!({})), operator());
    let ask = async |path: &str, credentials: (&str, &str)| call(&system, ("GET", path), &[credentials], "").await;
    let (mine, health) = ("/api/tokens/earnings", "/internal/payouts/health");
    // Each of the two processes takes six at once; a hundred are too many however they are shared out.
    let flood = async |path: &'static str, name: &'static str, value: &str| {
        let answers = futures::future::join_all((0..100).map(|_| ask(path, (name, value)))).await;
        let (refused, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 429);
        assert!(refused.len() >= 50, "{path}: only {} of 100 were refused", refused.len());
        for answer in &refused {
            assert_eq!(answer.json()["code"], "RATE_LIMITED");
            assert!(answer.head.contains("retry-after: 1\r\n"), "{answer:?}");
        }
        others.into_iter().map(|answer| answer.status).collect::<BTreeSet<_>>()
    };
    assert_eq!(flood(mine, "authorization", &one).await, BTreeSet::from([200]));
    assert_eq!(flood(health, "x-cron-secret", "a guess").await, BTreeSet::from([401]));
    for credentials in [("authorization", two.as_str()), ("authorization", operators.as_str())] {
        assert_eq!(ask(mine, credentials).await.status, 200);
    }
    assert_eq!(ask(health, ("x-cron-secret", CRON_SECRET)).await.status, 200);
    // Stripe is not counted, for an event that is turned away comes late.
    let now = Utc::now().timestamp();
    let events = (0..20).map(|number| {
        let body = json!({ "id": format!("evt_{number}"), "type": "customer.created", "created": now, "data": { "object": {} } })
            .to_string();
        (signature(PLATFORM_SECRET, now, body.as_bytes()), body)
    });
    for (signed, body) in events {
        assert_eq!(call(&system, ("POST", "/webhooks/stripe"), &[("stripe-signature", &signed)], &body).await.status, 200);
    }
    // Who waits is served again.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(ask(mine, ("authorization", &one)).await.status, 200);
    system.ends("no items").await;
}
