//! The preview of a cycle, and a run that is told which one it was agreed to by.

use payday::clock;
use payday_tests::world::at;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::harness::{Api, Who, amount};
use crate::{PAY_DAY, pick};

const PATH: &str = "/internal/payouts/preview?cycleDate=2025-11-15";

/// Five creators with dollars and euros each, and one without an account.
async fn crowd() -> Api {
    let api = Api::start().await;
    let date = clock::parse_date("2025-10-01").expect("a date");
    for number in 1..=5 {
        let creator = Uuid::from_u128(number);
        api.connect(creator, "manual").await;
        api.earn(creator, [amount(2_000, "usd", 0).on(date), amount(1_500, "eur", 0).on(date)]).await;
    }
    api.earn(Uuid::from_u128(6), [amount(900, "usd", 0).on(date)]).await;
    api
}

async fn preview(api: &Api, path: &str) -> Json {
    api.fine(Who::Operator, "GET", path, None).await
}

async fn everything(api: &Api) -> Vec<String> {
    let tables = api.database.rows("select tablename from pg_tables where schemaname = 'public' order by 1").await;
    let mut all = Vec::new();
    for table in tables {
        all.extend(
            api.database.rows(&format!("select '{table}' as name, x::text as row from public.{table} x order by 2")).await,
        );
    }
    all
}

#[tokio::test]
async fn a_preview_shows_who_gets_what_and_who_not_and_changes_nothing() {
    let api = crowd().await;
    let before = everything(&api).await;
    let shown = preview(&api, PATH).await;
    assert_eq!(everything(&api).await, before, "nothing changed");
    assert_eq!(
        pick(&shown, &["cycleDate", "cutoffAt", "schedules", "nextCursor"]),
        [&json!(PAY_DAY), &json!("2025-11-15T06:00:00Z"), &json!(["semimonthly"]), &json!(null)]
    );
    let usd = &shown["currencies"][1];
    assert_eq!(
        pick(usd, &["currency", "payees", "amountMinor", "lastCycle"]),
        [&json!("usd"), &json!(5), &json!(10_000), &json!(null)]
    );
    let funding = json!({ "neededMinor": 10_000, "claimedMinor": 0, "availableMinor": null, "readAt": null, "shortMinor": 0 });
    assert_eq!(usd["funding"], funding);
    assert_eq!(
        shown["notPaid"],
        json!([{ "reason": "no_account", "currency": "usd", "payees": 1, "balanceMinor": 900, "action": "Connect a Stripe account." }])
    );
    let entries = shown["entries"].as_array().expect("entries").clone();
    assert_eq!(entries.len(), 11);
    assert_eq!(
        pick(&entries[1], &["creatorId", "currency", "schedule", "paid", "amountMinor", "transferMinor", "reason"]),
        [
            &json!(Uuid::from_u128(1)),
            &json!("usd"),
            &json!("semimonthly"),
            &json!(true),
            &json!(2000),
            &json!(2000),
            &json!(null)
        ]
    );
    assert_eq!(pick(&entries[10], &["paid", "reason"]), [&json!(false), &json!("no_account")]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = preview(&api, &format!("{PATH}&limit=4{cursor}")).await;
        assert_eq!(page["hash"], shown["hash"], "the hash is of all of it");
        seen.extend(page["entries"].as_array().expect("entries").clone());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, entries);

    api.sql("insert into stripe_balances values ('usd', 9000, now())").await;
    let shown = preview(&api, PATH).await;
    assert_eq!(pick(&shown["currencies"][1]["funding"], &["availableMinor", "shortMinor"]), [&json!(9000), &json!(1000)]);
    assert_eq!(pick(&shown["currencies"][0]["funding"], &["availableMinor", "shortMinor"]), [&json!(0), &json!(7500)]);
}

#[tokio::test]
async fn a_preview_that_cannot_be_is_refused_and_one_of_the_future_is_not() {
    let api = crowd().await;
    for (path, status, code) in [
        ("?cycleDate=2025-11-18", 422, "NOT_A_PAY_DAY"),
        ("?cycleDate=2025-11-31", 422, "VALIDATION_FAILED"),
        ("?cycleDate=2025-11-15&schedule=weekly", 422, "VALIDATION_FAILED"),
        ("?cycleDate=2025-11-15&schedule=manual", 422, "VALIDATION_FAILED"),
        ("?cycleDate=2025-11-15&schedule=daily", 422, "VALIDATION_FAILED"),
        ("?cycleDate=2025-11-15&limit=1000000000", 400, "BAD_LIMIT"),
        ("?cycleDate=2025-11-15&cursor=forged", 400, "BAD_CURSOR"),
        ("?cycleDate=2025-11-15&sort=amount", 400, "BAD_QUERY"),
    ] {
        let (got, json) = api.call(Who::Operator, "GET", &format!("/internal/payouts/preview{path}"), None).await;
        assert_eq!((got, &json["code"]), (status, &json!(code)), "{path}: {json}");
    }
    // What is still held is paid in a future that is after the hold.
    let tomorrow = at(&clock::now().to_rfc3339()) + chrono::Duration::days(1);
    api.earn(Uuid::from_u128(1), [amount(777, "usd", 0)]).await;
    let soon = tomorrow.date_naive().iter_days().skip(8).find(|date| !payday::clock::Schedule::due_on(*date).is_empty());
    let soon = soon
        .and_then(|date| date.iter_days().find(|date| payday::clock::Schedule::Semimonthly.is_due_on(*date)))
        .expect("a pay day");
    let shown = preview(&api, &format!("/internal/payouts/preview?cycleDate={soon}&schedule=semimonthly")).await;
    assert_eq!(shown["entries"][1]["amountMinor"], 2_777, "{shown}");
    let body = Some(json!({ "cycleDate": soon, "previewHash": shown["hash"] }));
    let (status, json) = api.call(Who::Operator, "POST", "/internal/payouts/run", body).await;
    assert!(status == 422 && json["code"] == "CYCLE_IN_FUTURE" || status == 409, "it can be previewed, not run: {json}");
}

#[tokio::test]
async fn a_run_that_is_told_the_hash_is_made_of_the_same_facts_or_refused() {
    let api = crowd().await;
    let stale = preview(&api, PATH).await["hash"].clone();
    let date = clock::parse_date("2025-10-01").expect("a date");
    api.earn(Uuid::from_u128(2), [amount(5, "usd", 0).on(date)]).await;
    let run = async |hash: &Json| {
        api.call(Who::Operator, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": PAY_DAY, "previewHash": hash }))).await
    };
    let (status, json) = run(&stale).await;
    assert_eq!((status, &json["code"]), (409, &json!("PREVIEW_STALE")), "{json}");
    for (wrong, status) in [(json!(""), 422), (json!("zz"), 422), (json!(7), 422), (json!("0".repeat(64)), 409)] {
        assert_eq!(run(&wrong).await.0, status, "{wrong}");
    }
    assert_eq!(api.database.count("payout_runs").await, 0, "nothing was started");
    assert!(api.aws.messages.lock().expect("a lock").is_empty());

    let shown = preview(&api, PATH).await;
    let (status, json) = run(&shown["hash"]).await;
    assert_eq!((status, &json["alreadyExisted"]), (200, &json!(false)), "{json}");
    api.create_batches(json["runId"].as_i64().expect("an id")).await;
    let of_batch = "select currency, items, amount_minor from payout_batches order by currency";
    assert_eq!(api.database.rows(of_batch).await, ["eur 5 7500", "usd 5 10005"], "as shown");
    let (status, again) = run(&shown["hash"]).await;
    assert_eq!((status, &again["runId"], &again["alreadyExisted"]), (200, &json["runId"], &json!(true)));
    // And the next one compares itself with it.
    let next = preview(&api, "/internal/payouts/preview?cycleDate=2025-12-01&schedule=semimonthly").await;
    assert_eq!(next["notPaid"][0]["reason"], "no_account", "all else is reserved: {next}");
    api.earn(Uuid::from_u128(6), [amount(9_000, "usd", 0).on(date)]).await;
    api.connect(Uuid::from_u128(6), "manual").await;
    let next = preview(&api, "/internal/payouts/preview?cycleDate=2025-12-01&schedule=semimonthly").await;
    let last = json!({ "cycleDate": PAY_DAY, "payees": 5, "amountMinor": 10_005, "payeesDifference": -4, "amountDifferenceMinor": -105 });
    assert_eq!(next["currencies"][0]["lastCycle"], last);
    assert_eq!(next["currencies"][0]["funding"]["claimedMinor"], 10_005, "what is not sent yet has a claim");
    assert_eq!(
        api.database.rows("select action, subject, outcome from audit_log order by id").await,
        [
            "cycle.run cycle:2025-11-15 refused",
            "cycle.run cycle:2025-11-15 refused",
            "cycle.run cycle:2025-11-15 done",
            "cycle.run cycle:2025-11-15 done"
        ]
    );
}
