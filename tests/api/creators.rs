//! What creators are told of their payouts and may choose: withdrawals, history, timelines, statements, settings.

use chrono::Utc;
use payday::config::Policy;
use payday::money::Ppm;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::harness::{Api, Who, amount, tokens};

const ONE: Who = Who::Creator(Uuid::from_u128(1));
const OTHER: Who = Who::Creator(Uuid::from_u128(2));
const REQUEST: &str = "/api/tokens/request-withdrawal";
const REQUESTS: &str = "/api/tokens/withdrawal-requests";

fn id(who: Who) -> Uuid {
    match who {
        Who::Creator(id) => id,
        Who::Cron | Who::Operator | Who::Second => Uuid::nil(),
    }
}

/// Ready to be paid, with so many tokens matured.
async fn creator(api: &Api, who: Who, matured: i64) {
    api.connect(id(who), "manual").await;
    api.earn(id(who), [tokens(matured, 8)]).await;
}

async fn code(api: &Api, who: Who, method: &str, path: &str, body: Option<Json>) -> (u16, String) {
    let (status, json) = api.call(who, method, path, body).await;
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_withdrawal_is_asked_for_listed_in_pages_and_taken_back() {
    let api = Api::start().await;
    creator(&api, ONE, 1_000).await;
    let mut made = Vec::new();
    for tokens in [250, 251, 252] {
        let request = api.fine(ONE, "POST", REQUEST, Some(json!({ "tokenAmount": tokens }))).await["request"].clone();
        assert_eq!((&request["status"], &request["currency"], &request["why"]), (&json!("pending"), &json!("usd"), &json!(null)));
        made.insert(0, request);
    }
    // 251 tokens are 11.295.
    assert_eq!(made[1]["amountMinor"], 1_129);
    let messages = api.aws.messages.lock().expect("a lock").clone();
    assert_eq!(messages[0], json!({ "type": "payout.withdraw", "requestId": made[2]["requestId"] }));
    let all = api.fine(ONE, "GET", REQUESTS, None).await;
    assert_eq!((&all["requests"], &all["nextCursor"]), (&json!(made), &json!(null)));
    let page = api.fine(ONE, "GET", &format!("{REQUESTS}?limit=2"), None).await;
    let next = page["nextCursor"].as_str().expect("a cursor").to_owned();
    let rest = api.fine(ONE, "GET", &format!("{REQUESTS}?limit=2&cursor={next}"), None).await;
    assert_eq!(
        (page["requests"].as_array().map(Vec::len), &rest["requests"][0], &rest["nextCursor"]),
        (Some(2), &made[2], &json!(null))
    );
    assert_eq!(code(&api, ONE, "GET", &format!("/api/payouts?cursor={next}"), None).await.0, 400);

    // What is asked for is not available any more; it is under way.
    let earnings = api.earnings(id(ONE)).await;
    assert_eq!((&earnings["availableBalance"], &earnings["inFlight"]), (&json!(247), &json!(752)));
    let cancel = format!("{REQUESTS}/{}/cancel", made[0]["requestId"].as_str().unwrap_or_default());
    assert_eq!(code(&api, OTHER, "POST", &cancel, None).await, (404, "NOT_FOUND".to_owned()));
    for _ in 0..2 {
        assert_eq!(api.fine(ONE, "POST", &cancel, None).await["request"]["status"], "canceled");
    }
    assert_eq!(api.fine(OTHER, "GET", REQUESTS, None).await["requests"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_withdrawn_is_refused_by_name_and_nothing_is_kept() {
    let api = Api::start().await;
    let ask = async |body: Json| code(&api, ONE, "POST", REQUEST, Some(body)).await;
    assert_eq!(ask(json!({ "tokenAmount": 300 })).await, (409, "NO_ACCOUNT".to_owned()));
    creator(&api, ONE, 300).await;
    api.earn(id(ONE), [tokens(1_000, 1)]).await;
    for (amount, status, expected) in [
        (301, 422, "INSUFFICIENT_BALANCE"),
        (222, 422, "BELOW_MINIMUM"),
        (0, 422, "VALIDATION_FAILED"),
        (-5, 422, "VALIDATION_FAILED"),
        (i64::MAX, 422, "VALIDATION_FAILED"),
    ] {
        assert_eq!(ask(json!({ "tokenAmount": amount })).await, (status, expected.to_owned()), "{amount}");
    }
    for body in [
        json!({ "tokenAmount": "300" }),
        json!({ "tokenAmount": 1.5 }),
        json!({}),
        json!({ "tokenAmount": 300, "status": "paid" }),
        json!([]),
    ] {
        assert_eq!(ask(body.clone()).await, (422, "VALIDATION_FAILED".to_owned()), "{body}");
    }
    let state = |sql: &'static str| api.sql(sql);
    for (change, expected) in [
        ("update stripe_accounts set destination_changed_at = now()", "DESTINATION_COOLOFF"),
        ("update payees set blocked_reason = 'fraud'", "BLOCKED"),
        ("update stripe_accounts set payouts_enabled = false", "ACCOUNT_NOT_READY"),
        ("insert into creator_payout_settings (creator_id, payout_enabled) select id, false from payees", "PAYOUTS_DISABLED"),
    ] {
        state(change).await;
        assert_eq!(ask(json!({ "tokenAmount": 300 })).await, (409, expected.to_owned()), "{change}");
    }
    assert_eq!(api.fine(ONE, "GET", REQUESTS, None).await["requests"], json!([]));
    assert!(api.aws.messages.lock().expect("a lock").is_empty());
}

#[tokio::test]
async fn the_reserve_stays_behind_also_when_all_is_withdrawn() {
    let api = Api::with(|policy: &mut Policy| policy.reserve = Ppm(100_000)).await;
    creator(&api, ONE, 1_000).await;
    assert_eq!(code(&api, ONE, "POST", REQUEST, Some(json!({ "tokenAmount": 901 }))).await.1, "INSUFFICIENT_BALANCE");
    let request = api.fine(ONE, "POST", REQUEST, Some(json!({ "tokenAmount": 900 }))).await;
    assert_eq!(request["request"]["amountMinor"], 4_050);
}

#[tokio::test]
async fn many_withdrawals_take_no_more_of_the_reserve_than_one() {
    let api = Api::with(|policy: &mut Policy| policy.reserve = Ppm(100_000)).await;
    creator(&api, ONE, 100_000).await;
    for tokens in [50_000, 40_000] {
        api.fine(ONE, "POST", REQUEST, Some(json!({ "tokenAmount": tokens }))).await;
    }
    assert_eq!(code(&api, ONE, "POST", REQUEST, Some(json!({ "tokenAmount": 1_000 }))).await.1, "INSUFFICIENT_BALANCE");
}

#[tokio::test]
async fn a_payout_is_told_with_its_way_its_reason_and_only_to_its_creator() {
    let api = Api::start().await;
    for who in [ONE, OTHER] {
        api.connect(id(who), "manual").await;
        api.earn(id(who), [amount(2_000, "usd", 30), amount(5_000, "eur", 30)]).await;
    }
    let due =
        Utc::now().date_naive().iter_days().rev().skip(1).find(|date| payday::clock::Schedule::Semimonthly.is_due_on(*date));
    let cycle = json!({ "cycleDate": due.expect("a pay day") });
    let run = api.fine(Who::Cron, "POST", "/internal/payouts/run", Some(cycle)).await["runIds"].as_array().expect("runs").clone();
    for id in run {
        api.create_batches(id.as_i64().expect("an id")).await;
    }
    api.sql(
        "update payout_items set status = 'payout_blocked', failure_code = 'account_closed', due_at = null where currency = 'eur';
         update payout_items set status = 'paid', paid_at = now(), arrival_on = current_date where currency = 'usd'",
    )
    .await;
    let list = api.fine(ONE, "GET", "/api/payouts", None).await["payouts"].clone();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    let of = |currency: &str| {
        list.as_array().and_then(|all| all.iter().find(|it| it["currency"] == currency)).cloned().expect("a payout")
    };
    let (eur, usd) = (of("eur"), of("usd"));
    assert_eq!((&usd["amountMinor"], &usd["status"], &usd["why"]), (&json!(2_000), &json!("paid"), &json!(null)));
    assert_eq!(
        eur["why"],
        json!({ "reason": "payout_blocked", "code": "account_closed", "cause": "The bank account has been closed.", "whoActs": "creator",
                "action": "Update the bank account at Stripe; the payout is then made anew, without a second transfer." })
    );
    let path = format!("/api/payouts/{}", eur["payoutId"]);
    let one = api.fine(ONE, "GET", &path, None).await;
    assert_eq!(one["payout"], eur);
    let steps: Vec<String> =
        one["timeline"].as_array().expect("steps").iter().map(|it| format!("{} {}", it["step"], it["state"])).collect();
    assert_eq!(steps[..3], [r#""earned" "done""#, r#""held_until" "done""#, r#""reserved" "done""#]);
    assert_eq!(steps.last().map(String::as_str), Some(r#""paid" "stopped""#));
    assert_eq!(code(&api, OTHER, "GET", &path, None).await, (404, "NOT_FOUND".to_owned()));
    // Of a cycle, a refused transfer is tried again daily; of a withdrawal, its creator asks again.
    api.sql("update payout_items set status = 'failed', failure_code = 'a_new_code' where currency = 'eur'").await;
    for (kind, acts) in [("scheduled", "operator"), ("withdrawal", "creator")] {
        api.sql(if kind == "withdrawal" { "update payout_runs set kind = 'withdrawal'" } else { "select 1" }).await;
        assert_eq!(api.fine(ONE, "GET", &path, None).await["payout"]["why"]["whoActs"], acts, "{kind}");
    }
    for (path, status) in
        [("/api/payouts/0", 404), ("/api/payouts/x", 404), ("/api/payouts?limit=0", 400), ("/api/payouts?sort=id", 400)]
    {
        assert_eq!(code(&api, ONE, "GET", path, None).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn a_statement_has_the_same_lines_as_json_and_as_a_file() {
    let api = Api::start().await;
    api.connect(id(ONE), "manual").await;
    let year = Utc::now().format("%Y").to_string();
    api.earn(id(ONE), [tokens(100, 9), tokens(1, 9), amount(5_000, "jpy", 9), amount(700, "usd", 9)]).await;
    api.earn(id(OTHER), [tokens(5_000, 9)]).await;
    api.sql(
        "insert into earning_reversals (earning_id, source, cumulative_gross_micros, gross_micros, net_micros)
         select id, 'dp_1', 1000000, 1000000, 900000 from creator_earnings where tokens = 100",
    )
    .await;
    let path = format!("/api/statements?year={year}");
    let json = api.fine(ONE, "GET", &path, None).await;
    let usd = json["totals"].as_array().and_then(|all| all.iter().find(|it| it["currency"] == "usd")).cloned().expect("dollars");
    // The days before New Year's belong to the year before.
    if usd["earnings"] == 3 {
        assert_eq!((&usd["gross"], &usd["fees"], &usd["net"]), (&json!("12.05"), &json!("0.505"), &json!("11.545")));
    }
    assert_eq!((&usd["takenBack"], &usd["takenBackGross"], &usd["takenBackNet"]), (&json!(1), &json!("1.00"), &json!("0.90")));
    let file = api.text(ONE, &format!("{path}&format=csv")).await;
    let mut lines = file.split("\r\n").filter(|line| !line.is_empty());
    assert_eq!(lines.next(), Some("entry,period,currency,kind,payout_id,status,count,gross,fees,net"));
    let cell = |value: &Json| {
        value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
    };
    let columns = ["entry", "period", "currency", "kind", "payoutId", "status", "count", "gross", "fees", "net"];
    let expected: Vec<String> =
        json["lines"].as_array().expect("lines").iter().map(|line| columns.map(|column| cell(&line[column])).join(",")).collect();
    assert_eq!(lines.collect::<Vec<_>>(), expected);

    for (query, status, field) in [
        ("", 422, "cycle"),
        ("?cycle=2025-11-15", 200, ""),
        ("?cycle=2025-11-14", 422, "cycle"),
        ("?cycle=9999-12-01", 422, "cycle"),
        ("?cycle=yesterday", 422, "cycle"),
        ("?year=9999", 422, "year"),
        ("?year=26", 422, "year"),
        ("?year=%2B202", 422, "year"),
        ("?year=2025&cycle=2025-11-15", 422, "year"),
        ("?year=2025&format=pdf", 422, "format"),
        ("?year=2025&creatorId=x", 400, ""),
    ] {
        let (answered, json) = api.call(ONE, "GET", &format!("/api/statements{query}"), None).await;
        assert_eq!((answered, json["details"][0]["field"].as_str().unwrap_or_default()), (status, field), "{query}: {json}");
    }
}

#[tokio::test]
async fn settings_are_read_changed_one_by_one_and_taken_back() {
    let api = Api::start().await;
    let path = "/api/payout-settings";
    let defaults = json!({ "payoutEnabled": true, "minimumPayoutAmount": null, "schedule": "semimonthly", "timezone": "UTC", "betaEnabled": false });
    assert_eq!(api.fine(ONE, "GET", path, None).await["settings"], defaults);
    let patch = async |body: Json| api.fine(ONE, "PATCH", path, Some(body)).await["settings"].clone();
    assert_eq!(patch(json!({})).await, defaults);
    let mut expected = defaults.clone();
    for (field, value) in [
        ("minimumPayoutAmount", json!("25.5")),
        ("schedule", json!("weekly")),
        ("payoutEnabled", json!(false)),
        ("timezone", json!("America/Los_Angeles")),
        ("minimumPayoutAmount", json!(null)),
        ("payoutEnabled", json!(true)),
    ] {
        expected[field] = value.clone();
        assert_eq!(patch(json!({ field: value })).await, expected, "{field}");
    }
    assert_eq!(api.fine(ONE, "GET", path, None).await["settings"], expected);
    assert_eq!(api.fine(OTHER, "GET", path, None).await["settings"], defaults);
    for (body, field) in [
        (json!({ "betaEnabled": true }), "betaEnabled"),
        (json!({ "creatorId": id(OTHER) }), "creatorId"),
        (json!({ "schedule": "daily" }), "schedule"),
        (json!({ "minimumPayoutAmount": "-1" }), "minimumPayoutAmount"),
        (json!({ "minimumPayoutAmount": "1e3" }), "minimumPayoutAmount"),
        (json!({ "minimumPayoutAmount": "1000000001" }), "minimumPayoutAmount"),
        (json!({ "minimumPayoutAmount": 5 }), "minimumPayoutAmount"),
        (json!({ "timezone": "Mars/Olympus" }), "timezone"),
        (json!({ "payoutEnabled": "yes" }), "payoutEnabled"),
    ] {
        let (status, json) = api.call(ONE, "PATCH", path, Some(body.clone())).await;
        assert_eq!((status, json["details"][0]["field"].as_str()), (422, Some(field)), "{body}: {json}");
    }
    assert_eq!(api.fine(ONE, "GET", path, None).await["settings"], expected);
}

#[tokio::test]
async fn the_next_payout_is_told_in_the_creator_s_zone_and_schedule() {
    let api = Api::start().await;
    let path = "/api/payout-settings";
    let next = async |body: Json| {
        api.fine(ONE, "PATCH", path, Some(body)).await;
        let date = api.earnings(id(ONE)).await["nextPayoutDate"].clone();
        date.as_str().map(|date| payday::clock::parse_date(date).expect("a date"))
    };
    let there = next(json!({ "schedule": "monthly" })).await.expect("a date");
    assert_eq!(there.format("%d").to_string(), "01");
    // 06:00 in UTC is the evening before on the other side.
    let evening = next(json!({ "timezone": "America/Los_Angeles" })).await;
    assert_eq!(evening, there.pred_opt());
    assert_eq!(next(json!({ "schedule": "manual" })).await, None);
    let monday = next(json!({ "schedule": "weekly", "timezone": null })).await.expect("a date");
    assert_eq!(monday.format("%a").to_string(), "Mon");
}
