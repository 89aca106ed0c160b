//! The eight smoke tests of the product, by their names.

use chrono::{Datelike, Utc};
use payday::clock::Schedule;
use payday_local::stripe_double::{DestinationCharge, PayoutOutcome};
use payday_tests::http::request;
use payday_tests::system::{CRON_SECRET, JWT_SECRET, PATIENCE, Setup};
use payday_tests::world::{account_of, at, creator};
use serde_json::json;

use crate::abuse::token;

#[tokio::test(flavor = "multi_thread")]
async fn onboarding() {
    let system = Setup::of(0).start().await;
    system.earn("first", 1..=1).await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.database.rows("select reason from payout_exclusions").await, ["no_account"]);
    // The creator connects, and Stripe still wants something of them.
    let token = token(JWT_SECRET, 1, json!({}));
    let credentials = [("authorization", token.as_str()), ("content-type", "application/json")];
    let ask = async |method: &str, path: &str, body: &str| {
        let answer = request(&system.stack.http_url, method, path, &credentials, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    };
    let connected = ask("POST", "/api/connect/account", r#"{"country":"US","email":"one@example.com"}"#).await;
    assert_eq!(ask("POST", "/api/connect/account", r#"{"country":"US"}"#).await["accountId"], connected["accountId"]);
    assert!(connected["url"].as_str().is_some_and(|url| url.starts_with("https://")), "{connected}");
    let waiting = ask("GET", "/api/connect/status", "").await;
    assert_eq!((&waiting["connected"], &waiting["ready"]), (&json!(true), &json!(false)));
    assert!(waiting["wants"].as_array().is_some_and(|wants| !wants.is_empty()), "{waiting}");
    // The creator finishes; Stripe says so.
    let account = connected["accountId"].as_str().expect("an id").to_owned();
    system.double.finish_onboarding(&account);
    system.drain().await;
    let ready = ask("GET", "/api/connect/status", "").await;
    assert_eq!((&ready["ready"], &ready["wants"]), (&json!(true), &json!([])), "{ready}");
    let view = "select stripe_connect_account_id, payouts_enabled, charges_enabled from creator_stripe_accounts";
    assert_eq!(system.database.rows(view).await, [format!("{account} true true")]);
    // And is paid what the cycle would have paid, without anybody's doing.
    system.drain().await;
    assert_eq!(
        system.database.rows("select kind, status from payout_runs order by id").await,
        ["scheduled completed", "resume completed"]
    );
    assert_eq!((system.executed("POST /v1/accounts"), system.executed("POST /v1/transfers")), (1, 1));
    system.ends("paid=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_charge_creates_balance() {
    let system = Setup::of(1).setting("HOLD_DAYS", 0).start().await;
    let charge = DestinationCharge {
        amount: 10_000,
        application_fee_amount: 1_500,
        destination: account_of(1),
        ..DestinationCharge::default()
    };
    system.double.create_destination_charge(&charge).expect("a charge");
    system.until("the event is in", "select count(*) = 1 from creator_earnings where place = 'connected'").await;
    let earned =
        "select gross_micros / 10000, fee_micros / 10000, net_micros / 10000 from creator_earnings where place = 'connected'";
    assert_eq!(system.database.rows(earned).await, ["10000 1500 8500"]);
    system.job("mature").await;
    let available = "select available_connected / 10000, available_platform / 10000 from payee_balances";
    assert_eq!(system.database.rows(available).await, ["8500 2001"]);
    // Earned after the cut-off of a cycle that is over: it waits for the next one.
    system.fire().await;
    system.drain().await;
    assert_eq!(
        system.database.rows("select transfer_minor, connected_minor, payout_minor from payout_items").await,
        ["2001 0 2001"]
    );
    system.ends("paid=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_trigger_pays() {
    let system = Setup::of(12).start().await;
    let answer = system.post("/internal/payouts/run", &json!({ "cycleDate": "2026-11-15" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let run = answer.json();
    assert_eq!((&run["alreadyExisted"], &run["status"]), (&json!(false), &json!("running")));
    system.drain().await;
    let status = system.get(&format!("/internal/payouts/status/{}", run["runId"])).await;
    assert_eq!(status.status, 200, "{status:?}");
    let status = status.json();
    assert_eq!(
        (&status["status"], &status["progress"]["items"], &status["progress"]["done"]),
        (&json!("completed"), &json!(12), &json!(12))
    );
    let health = system.get("/internal/payouts/health").await;
    assert_eq!((health.status, &health.json()["checks"]["ledger"]["ok"]), (200, &json!(true)), "{health:?}");
    system.ends("paid=12").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_threshold_is_skipped() {
    let system = Setup::of(3).setting("PAYOUT_MIN_THRESHOLD_CENTS", 2_002).start().await;
    system
        .database
        .run(format!("update creator_payout_settings set minimum_payout_amount = 20.04 where creator_id = '{}'", creator(3)))
        .await;
    system.fire().await;
    system.drain().await;
    let why = "select creator_id, reason, payable_minor from payout_exclusions order by creator_id";
    let skipped = [format!("{} below_minimum 2001", creator(1)), format!("{} below_minimum 2003", creator(3))];
    assert_eq!(system.database.rows(why).await, skipped);
    system.ends("paid=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_payout_is_handled() {
    let system = Setup::of(2)
        .accounts(|n, account| {
            if n == 1 {
                account.banks[0].outcome = PayoutOutcome::Failed("account_closed".to_owned());
            }
        })
        .start()
        .await;
    system.fire().await;
    system.drain().await;
    system.double.settle_payouts();
    system.drain().await;
    assert_eq!(system.statuses().await, "paid=1 payout_blocked=1");
    let seen = "select trim_scale(net_payout_amount), status, failure_code from creator_payouts where status <> 'paid'";
    assert_eq!(system.database.rows(seen).await, ["20.01 payout_blocked account_closed"]);
    // The money is still the creator's: at Stripe, and not owed again by the next cycle.
    system.fire_at(at("2026-11-01T06:00:00Z")).await;
    system.drain().await;
    assert_eq!(system.executed("POST /v1/transfers"), 2);
    system.double.update_account(&account_of(1), |account| {
        account.banks[0].id = "ba_open".to_owned();
        account.banks[0].fingerprint = "an open account".to_owned();
        account.banks[0].status = "new".to_owned();
        account.banks[0].outcome = PayoutOutcome::Paid;
    });
    system.drain().await;
    assert_eq!((system.executed("POST /v1/transfers"), system.executed("POST /v1/payouts")), (2, 3));
    system.ends("paid=2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_update_the_database() {
    let system = Setup::of(3).start().await;
    system.fire().await;
    system.drain().await;
    assert_eq!(system.statuses().await, "in_transit=3");
    system.double.settle_payouts();
    system
        .until("the events have come", "select count(*) = 3 from payout_items where status = 'paid' and paid_at is not null")
        .await;
    let kinds = system.database.rows("select distinct type, state from stripe_events order by 1").await;
    assert!(kinds.contains(&"payout.paid applied".to_owned()), "{kinds:?}");
    system.ends("paid=3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_runs_are_prevented() {
    let system = Setup::of(5).start().await;
    let cycle = json!({ "cycleDate": "2026-11-15" });
    // The schedule and three people at once, and again when it is over.
    let posts = (0..3).map(|_| system.post("/internal/payouts/run", &cycle));
    let (answers, ()) = futures::future::join(futures::future::join_all(posts), system.fire()).await;
    system.drain().await;
    let again = system.post("/internal/payouts/run", &cycle).await;
    let runs: Vec<_> = answers.iter().chain([&again]).map(|answer| (answer.status, answer.json()["runId"].clone())).collect();
    assert!(runs.iter().all(|run| *run == (200, runs[0].1.clone())), "{runs:?}");
    assert_eq!(again.json()["alreadyExisted"], true);
    assert_eq!((system.database.count("payout_runs").await, system.database.count("payout_batches").await), (1, 1));
    assert_eq!(system.double.transfers().len(), 5);
    system.ends("paid=5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cron_endpoint_is_protected() {
    let system = Setup::of(2).start().await;
    let origin = system.stack.http_url.clone();
    let post = async |headers: &[(&str, &str)], body: &str| request(&origin, "POST", "/api/cron/payouts", headers, body).await;
    let bearer = format!("Bearer {CRON_SECRET}");
    for headers in [
        vec![],
        vec![("x-cron-secret", "")],
        vec![("x-cron-secret", "wrong")],
        vec![("x-cron-secret", "cron-secret-of-the-testS")],
        vec![("authorization", "Bearer wrong")],
        vec![("authorization", CRON_SECRET)],
    ] {
        let answer = post(&headers, r#"{"cycleDate":"2026-11-15"}"#).await;
        assert_eq!(answer.status, 401, "{headers:?} {answer:?}");
        assert_eq!(answer.json()["ok"], false);
        assert!(!answer.body.contains(CRON_SECRET));
    }
    system.idle().await;
    assert_eq!(system.database.count("payout_runs").await, 0);
    // What schedulers send: any content type, an empty body, an empty date. What day that is depends on today.
    for (headers, body) in [
        (vec![("x-cron-secret", CRON_SECRET)], ""),
        (vec![("authorization", bearer.as_str()), ("content-type", "text/plain")], "{}"),
        (vec![("x-cron-secret", CRON_SECRET), ("content-type", "application/x-www-form-urlencoded")], r#"{"cycleDate":""}"#),
    ] {
        let today = Utc::now().date_naive();
        let answer = post(&headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        // The day may have changed between the two.
        if json["dayOfMonth"] == today.day() && Schedule::due_on(today).is_empty() {
            assert_eq!(json["skipped"], true, "{json}");
        }
    }
    system.idle().await;
    let before = system.database.count("payout_runs").await;
    let answer = post(&[("x-cron-secret", CRON_SECRET)], r#"{"cycleDate":"2026-11-15"}"#).await;
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{answer:?}");
    assert_eq!(answer.json()["eventId"], "cycle:2026-11-15");
    system.stack.wait_idle(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(system.database.count("payout_runs where cycle_on = '2026-11-15'").await == 1 && before <= 3);
    system.ends("paid=2").await;
}
