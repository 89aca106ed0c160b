//! The operators' buttons over HTTP, and what the audit log has of them afterwards.

use std::time::Duration;

use payday::boundary::Boundary;
use payday::payouts::controls;
use payday::payouts::store::controls as store;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::harness::{Api, Who, amount};
use crate::pick;

const CREATOR: Uuid = Uuid::from_u128(1);
const OPERATOR: Uuid = Uuid::from_u128(7);

async fn press(api: &Api, path: &str, reason: &str) -> Json {
    api.fine(Who::Operator, "POST", path, Some(json!({ "reason": reason }))).await
}

#[tokio::test]
async fn pause_and_kill_switch_are_mirrored_by_the_scheduler_and_resume_restores_exactly_what_was_armed() {
    let api = Api::start().await;
    api.aws.schedules.set_state("payout-weekly", "DISABLED");
    let before = api.aws.schedules.all().clone();
    let health = async || api.fine(Who::Cron, "GET", "/internal/payouts/health", None).await["checks"]["schedule"].clone();
    let paused = press(&api, "/internal/payouts/pause", "the bank called").await;
    assert_eq!(pick(&paused, &["paused", "killed", "mirrored"]), [&json!(true), &json!(false), &json!(true)]);
    assert_eq!(paused["suspendedSchedules"], json!(["payout-monthly", "payout-semimonthly"]));
    assert_eq!(api.aws.schedules.disabled(), ["payout-monthly", "payout-semimonthly", "payout-weekly"]);
    assert_eq!(pick(&health().await, &["armed", "paused", "reason"]), [&json!(false), &json!(true), &json!("the bank called")]);
    let killed = press(&api, "/internal/payouts/kill", "at once").await;
    assert_eq!(pick(&killed, &["paused", "killed"]), [&json!(true), &json!(true)]);
    // Whoever looks for it while it is on.
    let body = Some(json!({ "cycleDate": "2025-11-15" }));
    assert_eq!(api.call(Who::Operator, "POST", "/internal/payouts/run", body).await.0, 409);
    for _ in 0..2 {
        let resumed = press(&api, "/internal/payouts/resume", "all is well").await;
        assert_eq!(pick(&resumed, &["paused", "killed", "suspendedSchedules"]), [&json!(false), &json!(false), &json!([])]);
        assert_eq!(*api.aws.schedules.all(), before, "every other field was sent again as it was");
    }
    let log = api.fine(Who::Operator, "GET", "/internal/audit?subject=payouts", None).await;
    let rows = log["rows"].as_array().expect("rows");
    let actions: Vec<&Json> = rows.iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["payouts.resume", "payouts.resume", "payouts.kill", "payouts.pause"]);
    assert_eq!(pick(&rows[3], &["actor", "outcome"]), [&json!(OPERATOR), &json!("done")]);
    assert_eq!(rows[3]["requestId"], paused["requestId"]);
    assert_eq!(pick(&rows[3]["after"], &["paused", "reason"]), [&json!(true), &json!("the bank called")]);
}

#[tokio::test]
async fn two_who_mirror_a_pause_at_once_forget_no_schedule() {
    let api = Api::start().await;
    api.sql("update payout_controls set paused = true").await;
    // Another has written down the weekly schedule and switched it off; the commit comes while this one waits for the row.
    api.aws.schedules.set_state("payout-weekly", "DISABLED");
    let mut other = api.database.tx().await;
    store::suspend(&mut other, &["payout-weekly".to_owned()]).await.expect("kept");
    let waits = "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let another = async {
        while api.database.count(waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.commit(Boundary::Outside).await.expect("a commit");
    };
    let (mirrored, ()) = tokio::join!(controls::mirror(&api.db, &api.state.scheduler), another);
    mirrored.expect("mirrored");
    assert_eq!(
        controls::suspended(&api.db).await.expect("names"),
        ["payout-monthly", "payout-semimonthly", "payout-weekly"],
        "what resume switches on again"
    );
}

#[tokio::test]
async fn a_scheduler_that_does_not_know_a_schedule_hinders_no_stop() {
    let api = Api::start().await;
    press(&api, "/internal/payouts/pause", "first").await;
    api.aws.schedules.all().remove("payout-monthly");
    let resumed = press(&api, "/internal/payouts/resume", "second").await;
    assert_eq!(pick(&resumed, &["paused", "mirrored"]), [&json!(false), &json!(false)], "said, and tried again by the sweep");
    assert_eq!(resumed["suspendedSchedules"], json!(["payout-monthly", "payout-semimonthly", "payout-weekly"]));
}

#[tokio::test]
async fn a_button_without_a_reason_does_nothing() {
    let api = Api::start().await;
    for path in [
        "/internal/payouts/pause",
        "/internal/payouts/kill",
        "/internal/payouts/resume",
        "/internal/payouts/batches/1/resume",
        "/internal/payouts/items/1/retry",
        "/internal/payouts/retry",
        "/internal/payouts/items/1/adopt",
        "/internal/payouts/operations/1/resolve",
        "/internal/payees/00000000-0000-0000-0000-000000000001/block",
        "/internal/payees/00000000-0000-0000-0000-000000000001/unblock",
    ] {
        let full = if path.ends_with("adopt") {
            json!({ "reference": "r" })
        } else if path.ends_with("resolve") {
            json!({ "outcome": "rejected" })
        } else {
            json!({})
        };
        let field = if path.ends_with("adopt") || path.ends_with("resolve") { "evidence" } else { "reason" };
        for text in
            [None, Some(json!("")), Some(json!(" \n")), Some(json!("x".repeat(2001))), Some(json!("a\u{7}b")), Some(json!(7))]
        {
            let mut body = full.clone();
            if let Some(text) = text {
                body[field] = text;
            }
            let (status, json) = api.call(Who::Operator, "POST", path, Some(body.clone())).await;
            assert_eq!((status, &json["details"][0]["field"]), (422, &json!(field)), "{path} {body}: {json}");
        }
        let mut more = full.clone();
        (more[field], more["status"]) = ("seen".into(), "paid".into());
        assert_eq!(api.call(Who::Operator, "POST", path, Some(more)).await.0, 422, "{path}: an unknown field");
    }
    assert_eq!(api.database.count("audit_log").await, 0);
    assert_eq!(api.database.row("select paused, killed from payout_controls").await, "false false");
}

#[tokio::test]
async fn what_is_wrong_with_a_decision_is_said_before_anything_changes() {
    let api = Api::start().await;
    let resolve = "/internal/payouts/operations/1/resolve";
    for (path, body, status, what) in [
        (resolve, json!({ "outcome": "accepted", "evidence": "seen" }), 422, "stripeId"),
        (resolve, json!({ "outcome": "accepted", "stripeId": "tr_1; drop table", "evidence": "seen" }), 422, "stripeId"),
        (resolve, json!({ "outcome": "rejected", "stripeId": "tr_1", "evidence": "seen" }), 422, "stripeId"),
        (resolve, json!({ "outcome": "paid", "evidence": "seen" }), 422, "outcome"),
        (resolve, json!({ "outcome": "rejected", "evidence": "seen" }), 404, ""),
        ("/internal/payouts/items/1/adopt", json!({ "reference": "", "evidence": "seen" }), 422, "reference"),
        ("/internal/payouts/items/1/adopt", json!({ "reference": "wire", "evidence": "seen" }), 404, ""),
        ("/internal/payouts/items/1/retry", json!({ "reason": "cured" }), 404, ""),
        ("/internal/payouts/items/1/retry", json!({ "reason": "cured", "at": "2020-01-01T00:00:00Z" }), 422, "at"),
        ("/internal/payouts/items/1/retry", json!({ "reason": "cured", "at": "tomorrow" }), 422, "at"),
        ("/internal/payouts/items/seven/retry", json!({ "reason": "cured" }), 404, ""),
        ("/internal/payouts/batches/1/resume", json!({ "reason": "cured" }), 404, ""),
        ("/internal/payouts/retry", json!({ "reason": "cured", "cursor": "forged" }), 400, ""),
        ("/internal/payees/00000000-0000-0000-0000-000000000001/block", json!({ "reason": "odd" }), 404, ""),
    ] {
        let (got, json) = api.call(Who::Operator, "POST", path, Some(body.clone())).await;
        assert_eq!(got, status, "{path} {body}: {json}");
        if status == 422 {
            assert_eq!(json["details"][0]["field"], what, "{path} {body}: {json}");
        }
    }
    assert_eq!(api.database.count("audit_log").await, 0);
}

/// Three creators whose payments failed.
async fn failed() -> Api {
    let api = Api::start().await;
    for number in 1..=3 {
        let creator = Uuid::from_u128(number);
        api.connect(creator, "manual").await;
        api.earn(creator, [amount(2_000, "usd", 0).on("2025-10-01".parse().expect("a date"))]).await;
    }
    let run = api.fine(Who::Operator, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": "2025-11-15" }))).await;
    api.create_batches(run["runId"].as_i64().expect("an id")).await;
    // As their transfers' refusals leave them.
    api.sql(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'item:' || id, 'release_platform', creator_id, currency, 'reserved_platform', 'available_platform', amount_minor * 10000 from payout_items;
         update payout_items set status = 'failed', due_at = null, failure_code = 'transfers_not_allowed'",
    )
    .await;
    api
}

#[tokio::test]
async fn all_that_failed_is_tried_again_and_what_cannot_be_is_counted_by_its_reason() {
    let api = failed().await;
    api.sql(&format!("update payees set blocked_reason = 'odd' where id = '{}'", Uuid::from_u128(2))).await;
    let body = Some(json!({ "reason": "Stripe is back", "runId": 1 }));
    let all = api.fine(Who::Operator, "POST", "/internal/payouts/retry", body.clone()).await;
    assert_eq!(pick(&all, &["retried", "notRetried", "nextCursor"]), [&json!(2), &json!({ "NOT_ELIGIBLE": 1 }), &json!(null)]);
    let again = api.fine(Who::Operator, "POST", "/internal/payouts/retry", body).await;
    assert_eq!(pick(&again, &["retried", "notRetried"]), [&json!(0), &json!({ "NOT_ELIGIBLE": 1 })], "pressed twice: once");
    assert_eq!(
        api.database.rows("select status, retries from payout_items order by id").await,
        ["pending 1", "failed 0", "pending 1"]
    );
    assert_eq!(api.database.count("audit_log where action = 'item.retry'").await, 2);
}

#[tokio::test]
async fn a_retry_at_a_time_is_a_schedule_that_fires_once() {
    let api = failed().await;
    let at = payday::clock::now() + chrono::Duration::hours(5);
    let body = json!({ "reason": "their bank opens then", "at": at });
    let (status, json) = api.call(Who::Operator, "POST", "/internal/payouts/items/1/retry", Some(body.clone())).await;
    assert_eq!((status, &json["changed"], &json["status"]), (202, &json!(false), &json!("failed")), "{json}");
    let schedule = api.aws.schedules.all()["retry-item-1"].clone();
    let daily = api.aws.schedules.all()["job-retry"].clone();
    assert_eq!(schedule["ScheduleExpression"], format!("at({})", at.format("%Y-%m-%dT%H:%M:%S")));
    assert_eq!(pick(&schedule, &["ScheduleExpressionTimezone", "ActionAfterCompletion"]), [&json!("UTC"), &json!("DELETE")]);
    for part in ["Arn", "RoleArn", "RetryPolicy", "DeadLetterConfig"] {
        assert_eq!(schedule["Target"][part], daily["Target"][part], "{part}");
    }
    let input: Json = serde_json::from_str(schedule["Target"]["Input"].as_str().expect("an input")).expect("JSON");
    assert_eq!(pick(&input, &["job", "item"]), [&json!("retry"), &json!(1)]);
    let (status, json) = api.call(Who::Operator, "POST", "/internal/payouts/items/1/retry", Some(body.clone())).await;
    assert_eq!((status, &json["code"]), (409, &json!("ALREADY_SCHEDULED")));
    api.aws.schedules.all().remove("job-retry");
    let (status, json) = api.call(Who::Operator, "POST", "/internal/payouts/items/2/retry", Some(body.clone())).await;
    assert_eq!((status, &json["code"]), (409, &json!("NO_SUCH_SCHEDULE")));
    api.sql("update payout_items set status = 'paid' where id = 3").await;
    let (status, json) = api.call(Who::Operator, "POST", "/internal/payouts/items/3/retry", Some(body)).await;
    assert_eq!((status, &json["code"]), (409, &json!("NOT_RETRYABLE")));
}

#[tokio::test]
async fn large_sums_are_adopted_by_two_operators_and_nobody_confirms_their_own() {
    let mut api = failed().await;
    api.state.two_person_above_cents = 1999;
    let body = Some(json!({ "reference": "wire 7", "evidence": "on the bank statement of the 20th" }));
    let path = "/internal/payouts/items/1/adopt";
    let (status, json) = api.call(Who::Operator, "POST", path, body.clone()).await;
    assert_eq!((status, &json["proposed"], &json["status"]), (202, &json!(true), &json!(null)), "{json}");
    let (status, json) = api.call(Who::Operator, "POST", path, body.clone()).await;
    assert_eq!((status, &json["code"]), (403, &json!("OWN_PROPOSAL")), "{json}");
    assert_eq!(api.database.value::<String>("select status from payout_items where id = 1").await, "failed");
    let (status, json) = api.call(Who::Second, "POST", path, body.clone()).await;
    assert_eq!((status, &json["changed"], &json["status"]), (200, &json!(true), &json!("paid")), "{json}");
    let (status, json) = api.call(Who::Operator, "POST", path, body).await;
    assert_eq!((status, &json["changed"]), (200, &json!(false)), "{json}");
    let log = api.fine(Who::Operator, "GET", "/internal/audit?subject=item:1", None).await;
    let told: Vec<String> =
        log["rows"].as_array().expect("rows").iter().map(|row| format!("{} {}", row["action"], row["outcome"])).collect();
    assert_eq!(told, [r#""item.adopt" "done""#, r#""item.adopt" "refused""#, r#""decision.propose" "done""#]);
}

#[tokio::test]
async fn only_a_batch_that_waits_for_a_person_is_resumed_by_one() {
    let api = failed().await;
    for (reason, status) in
        [("standing_check", 200), ("frozen_operation", 200), ("awaiting_funds", 409), ("stripe_key_rejected", 409)]
    {
        api.sql(&format!("update payout_batches set status = 'halted', halt_reason = '{reason}', halted_at = now()")).await;
        let body = Some(json!({ "reason": "understood" }));
        let (got, json) = api.call(Who::Operator, "POST", "/internal/payouts/batches/1/resume", body).await;
        assert_eq!(got, status, "{reason}: {json}");
        let expected = if status == 200 { "processing -".to_owned() } else { format!("halted {reason}") };
        assert_eq!(api.database.row("select status, halt_reason from payout_batches").await, expected);
    }
    api.sql("update payout_batches set status = 'processing', halt_reason = null").await;
    let again = press(&api, "/internal/payouts/batches/1/resume", "again").await;
    assert_eq!(again["changed"], false);
    assert_eq!(api.database.count("audit_log where action = 'batch.resume'").await, 2);
}

#[tokio::test]
async fn payees_are_found_by_how_their_id_email_or_account_begins() {
    let api = Api::start().await;
    for (number, email) in [(0x10_u128, "ann@example.org"), (0x11, "Anna_50%@example.org"), (0x20, "bob@example.org")] {
        api.connect(Uuid::from_u128(number << 96), "manual").await;
        api.sql(&format!("update payees set email = '{email}' where id = '{}'", Uuid::from_u128(number << 96))).await;
    }
    let found = async |search: &str| {
        let page = api.fine(Who::Operator, "GET", &format!("/internal/payees?search={search}"), None).await;
        page["payees"]
            .as_array()
            .expect("payees")
            .iter()
            .map(|it| it["email"].as_str().unwrap_or_default()[..3].to_owned())
            .collect::<Vec<_>>()
    };
    for (search, expected) in [
        ("", vec!["ann", "Ann", "bob"]),
        ("ANN", vec!["ann", "Ann"]),
        ("anna_50%25", vec!["Ann"]),
        ("%25", vec![]),
        ("_nn", vec![]),
        ("0000001", vec!["ann", "Ann"]),
        ("00000011-0", vec!["Ann"]),
        ("acct_000000200000", vec!["bob"]),
        ("nobody", vec![]),
        ("'%20or%20true", vec![]),
    ] {
        assert_eq!(found(search).await, expected, "{search}");
    }
    let first = api.fine(Who::Operator, "GET", "/internal/payees?limit=2", None).await;
    let next = first["nextCursor"].as_str().expect("more");
    let rest = api.fine(Who::Operator, "GET", &format!("/internal/payees?cursor={next}"), None).await;
    assert_eq!((first["payees"].as_array().map(Vec::len), rest["payees"].as_array().map(Vec::len)), (Some(2), Some(1)));
    for (path, status) in [
        ("/internal/payees?limit=1e9".to_owned(), 400),
        (format!("/internal/payees?search=ann&cursor={next}"), 400),
        (format!("/internal/payees?search={}", "a".repeat(201)), 422),
        ("/internal/payees?search=%00".to_owned(), 422),
        ("/internal/payees?sort=email".to_owned(), 400),
    ] {
        assert_eq!(api.call(Who::Operator, "GET", &path, None).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn a_blocked_payee_is_in_no_batch_until_somebody_lifts_the_block() {
    let api = Api::start().await;
    api.connect(CREATOR, "manual").await;
    api.earn(CREATOR, [amount(5_000, "usd", 8)]).await;
    let path = |verb: &str| format!("/internal/payees/{CREATOR}/{verb}");
    for changed in [true, false] {
        assert_eq!(press(&api, &path("block"), "a stolen account").await["changed"], changed);
    }
    assert_eq!(api.earnings(CREATOR).await["reason"], "blocked");
    let shown = api.fine(Who::Operator, "GET", "/internal/payees", None).await;
    assert_eq!(shown["payees"][0]["blockedReason"], "a stolen account");
    for changed in [true, false] {
        assert_eq!(press(&api, &path("unblock"), "it was not").await["changed"], changed);
    }
    assert_eq!(api.earnings(CREATOR).await["canWithdraw"], true);
    assert_eq!(api.database.rows("select action from audit_log order by id").await, ["payee.block", "payee.unblock"]);
}

#[tokio::test]
async fn the_beta_list_is_changed_in_bulk_all_of_it_or_nothing() {
    let api = Api::with(|policy| policy.beta_only = true).await;
    for number in 1..=4 {
        api.connect(Uuid::from_u128(number), "manual").await;
    }
    let ids = |numbers: &[u128]| json!(numbers.iter().map(|number| Uuid::from_u128(*number)).collect::<Vec<_>>());
    let change = async |body: Json| api.call(Who::Operator, "POST", "/internal/payees/beta", Some(body)).await;
    let (status, json) = change(json!({ "add": ids(&[1, 2, 3, 2]) })).await;
    assert_eq!((status, &json["added"], &json["removed"]), (200, &json!(3), &json!(0)), "{json}");
    let (_, json) = change(json!({ "add": ids(&[3, 4]), "remove": ids(&[1, 2]) })).await;
    assert_eq!((&json["added"], &json["removed"]), (&json!(1), &json!(2)));
    for (body, status, field) in [
        (json!({}), 422, "add"),
        (json!({ "add": ids(&[1, 99]) }), 422, "add[1]"),
        (json!({ "add": ["nobody"] }), 422, "add[0]"),
        (json!({ "add": ids(&[1]), "remove": ids(&[2, 1]) }), 422, "remove[1]"),
        (json!({ "add": vec![Uuid::from_u128(1); 1001] }), 413, ""),
    ] {
        let (got, json) = change(body).await;
        assert_eq!(got, status, "{json}");
        if status == 422 {
            assert_eq!(json["details"][0]["field"], field, "{json}");
        }
    }
    let listed = api.fine(Who::Operator, "GET", "/internal/payees/beta", None).await;
    assert_eq!(listed["creatorIds"], ids(&[3, 4]));
    let first = api.fine(Who::Operator, "GET", "/internal/payees/beta?limit=1", None).await;
    assert_eq!(first["creatorIds"], ids(&[3]));
    let (status, json) = change(json!({ "remove": ids(&[1, 2, 77]) })).await;
    assert_eq!((status, &json["removed"]), (200, &json!(0)), "who is not in it is not removed");
    assert_eq!(api.database.count("audit_log").await, 2);
    assert_eq!(api.earnings(Uuid::from_u128(1)).await["reason"], "not_in_beta");
}

#[tokio::test]
async fn the_audit_log_is_read_in_pages_and_tells_whether_it_is_whole() {
    let api = Api::start().await;
    for n in 1..=5 {
        press(&api, "/internal/payouts/pause", &format!("reason {n}")).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.fine(Who::Second, "GET", &format!("/internal/audit?limit=2{cursor}"), None).await;
        seen.extend(page["rows"].as_array().expect("rows").iter().map(|row| row["id"].clone()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    for (path, rows) in [(format!("/internal/audit?actor={OPERATOR}"), 5), ("/internal/audit?action=nothing".to_owned(), 0)] {
        let page = api.fine(Who::Operator, "GET", &path, None).await;
        assert_eq!(page["rows"].as_array().map(Vec::len), Some(rows), "{path}");
    }
    assert_eq!(
        api.call(Who::Operator, "GET", &format!("/internal/audit?action=x{cursor}"), None).await.0,
        400,
        "another list's cursor"
    );
    let whole = api.fine(Who::Operator, "GET", "/internal/audit/verify", None).await;
    assert_eq!(pick(&whole, &["whole", "rows", "breaches"]), [&json!(true), &json!(5), &json!([])]);
    assert_eq!(whole["head"].as_str().map(str::len), Some(64));
    api.sql("set session_replication_role = replica; update audit_log set actor = 'nobody' where id = 3").await;
    let broken = api.fine(Who::Operator, "GET", "/internal/audit/verify", None).await;
    assert_eq!(broken["whole"], false);
    assert_eq!(broken["breaches"], json!([{ "id": 3, "problem": "its content is not what was written" }]));
}

#[tokio::test]
async fn earnings_that_a_person_enters_are_in_the_audit_log_and_a_machine_s_are_not() {
    let api = Api::start().await;
    let row = |id: &str| json!({ "sourceId": id, "creatorId": CREATOR, "kind": "tip", "tokens": 5, "occurredAt": "2025-10-01T00:00:00Z" });
    for (who, rows) in
        [(Who::Cron, json!([row("a")])), (Who::Operator, json!([row("b"), row("a")])), (Who::Operator, json!([row("b")]))]
    {
        api.fine(who, "POST", "/internal/earnings", Some(json!({ "earnings": rows }))).await;
    }
    assert_eq!(
        api.database.rows("select actor, after ->> 'recorded', after ->> 'alreadyThere', after ->> 'firstSourceId' from audit_log order by id").await,
        [format!("{OPERATOR} 1 1 b"), format!("{OPERATOR} 0 1 b")]
    );
}
