//! What the API answers over a real database. Each test has its own.

#[path = "api/connect.rs"]
mod connect;
#[path = "api/creators.rs"]
mod creators;
#[path = "api/destinations.rs"]
mod destinations;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/inspector.rs"]
mod inspector;
#[path = "api/operators.rs"]
mod operators;
#[path = "api/preview.rs"]
mod preview;

use harness::{Api, Who, amount, tokens};
use payday::boundary::Boundary;
use payday::config::Policy;
use payday::id::{BatchId, ChunkId};
use payday::money::Ppm;
use payday::payouts::checks;
use serde_json::{Value as Json, json};
use uuid::Uuid;

const CREATOR: Uuid = Uuid::from_u128(1);
/// A Saturday long ago, on which only the semimonthly schedule is due.
const PAY_DAY: &str = "2025-11-15";

fn pick<'j>(json: &'j Json, fields: &[&str]) -> Vec<&'j Json> {
    fields.iter().map(|field| &json[*field]).collect()
}

#[tokio::test]
async fn a_user_whom_nobody_knows_has_zeros() {
    let api = Api::start().await;
    let earnings = api.earnings(CREATOR).await;
    for field in ["totalEarned", "availableBalance", "bufferedEarnings", "inFlight", "reserve", "paidOut"] {
        assert_eq!(earnings[field], 0, "{field}");
    }
    assert_eq!(
        pick(&earnings, &["kycVerified", "canWithdraw", "reason", "action"]),
        [&json!(false), &json!(false), &json!("no_account"), &json!("Connect a Stripe account.")]
    );
    assert!(earnings["nextPayoutDate"].as_str().is_some_and(|date| date.ends_with("-01") || date.ends_with("-15")));
    assert_eq!(earnings["money"].as_array().map(Vec::len), Some(1));
    assert_eq!(pick(&earnings["money"][0], &["currency", "totalEarnedMinor"]), [&json!("usd"), &json!(0)]);
}

#[tokio::test]
async fn a_hundred_tips_of_one_token_are_a_hundred_tokens_and_four_fifty() {
    let api = Api::start().await;
    api.connect(CREATOR, "manual").await;
    api.earn(CREATOR, (0..100).map(|_| tokens(1, 8))).await;
    api.earn(CREATOR, [tokens(30, 1)]).await;
    let earnings = api.earnings(CREATOR).await;
    // Nothing has booked the maturing yet, and what is no longer held counts all the same.
    let tokens =
        pick(&earnings, &["totalEarned", "availableBalance", "bufferedEarnings", "kycVerified", "canWithdraw", "reason"]);
    assert_eq!(tokens, [&json!(130), &json!(100), &json!(30), &json!(true), &json!(false), &json!("below_minimum")]);
    let fields = ["currency", "totalEarnedMinor", "availableMinor", "heldMinor", "payableMinor", "minimumMinor", "reason"];
    let money = pick(&earnings["money"][0], &fields);
    assert_eq!(money, [&json!("usd"), &json!(585), &json!(450), &json!(135), &json!(450), &json!(1000), &json!("below_minimum")]);
    // Booked, it is the same.
    payday::earnings::mature(&api.db, chrono::Utc::now()).await.expect("matured");
    assert_eq!(api.earnings(CREATOR).await, earnings);
}

#[tokio::test]
async fn whether_and_why_not_follows_the_creator_through_their_first_weeks() {
    let api = Api::start().await;
    let why = async || api.earnings(CREATOR).await["reason"].clone();
    api.earn(CREATOR, [tokens(1000, 1)]).await;
    assert_eq!(why().await, "no_account");
    api.connect(CREATOR, "manual").await;
    assert_eq!(why().await, "held");
    api.earn(CREATOR, [tokens(1000, 8)]).await;
    let earnings = api.earnings(CREATOR).await;
    assert_eq!(pick(&earnings, &["canWithdraw", "reason", "action"]), [&json!(true), &json!(null), &json!(null)]);
    assert_eq!(earnings["money"][0]["payableMinor"], 4500);
    for (change, reason) in [
        ("update stripe_accounts set destination_changed_at = now() - interval '1 hour'", "destination_cooloff"),
        ("update payees set blocked_reason = 'fraud'", "blocked"),
        ("update stripe_accounts set payouts_enabled = false", "account_not_ready"),
        (
            "insert into creator_payout_settings (creator_id, payout_enabled, schedule) select id, false, 'manual' from payees",
            "payouts_disabled",
        ),
    ] {
        api.sql(change).await;
        assert_eq!(why().await, reason, "{change}");
    }
    assert_eq!(pick(&api.earnings(CREATOR).await, &["nextPayoutDate", "schedule"]), [&json!(null), &json!("manual")]);
}

#[tokio::test]
async fn the_reserve_stays_behind_and_currencies_stay_apart() {
    let api = Api::with(|policy: &mut Policy| policy.reserve = Ppm(100_000)).await;
    api.connect(CREATOR, "manual").await;
    api.earn(CREATOR, [amount(10_000, "usd", 8), amount(5_000, "jpy", 8), amount(700, "usd", 8).connected()]).await;
    let earnings = api.earnings(CREATOR).await;
    let fields = ["currency", "availableMinor", "reserveMinor", "payableMinor", "canWithdraw"];
    assert_eq!(pick(&earnings["money"][0], &fields), [&json!("jpy"), &json!(5000), &json!(500), &json!(4500), &json!(true)]);
    assert_eq!(pick(&earnings["money"][1], &fields), [&json!("usd"), &json!(10_700), &json!(1070), &json!(9630), &json!(true)]);
    // 107 dollars ÷ 4.5 cents, rounded down.
    assert_eq!(pick(&earnings, &["availableBalance", "reserve"]), [&json!(2377), &json!(237)]);
}

#[tokio::test]
async fn what_stripe_pays_out_by_itself_is_paid_out_when_it_matures() {
    let api = Api::start().await;
    api.connect(CREATOR, "daily").await;
    api.earn(CREATOR, [amount(2_000, "usd", 8).connected(), amount(300, "usd", 1).connected()]).await;
    let before = api.earnings(CREATOR).await;
    let fields = ["paidOutMinor", "heldMinor", "availableMinor", "totalEarnedMinor", "reason"];
    assert_eq!(pick(&before["money"][0], &fields), [&json!(2000), &json!(300), &json!(0), &json!(2300), &json!("held")]);
    payday::earnings::mature(&api.db, chrono::Utc::now()).await.expect("matured");
    assert_eq!(api.earnings(CREATOR).await, before);
}

#[tokio::test]
async fn a_creator_is_answered_in_one_statement_and_sees_only_their_own() {
    let api = Api::start().await;
    let other = Uuid::from_u128(2);
    api.earn(CREATOR, [tokens(10, 8)]).await;
    api.earn(other, [tokens(77, 8)]).await;
    let before = api.db.statements();
    assert_eq!(api.earnings(CREATOR).await["totalEarned"], 10);
    assert_eq!(api.db.statements() - before, 1);
}

#[tokio::test]
async fn what_does_not_fit_together_with_what_is_there_is_refused_and_nothing_wraps() {
    let api = Api::start().await;
    api.earn(CREATOR, [amount(900_000_000_000_000, "usd", 1)]).await;
    let row = json!({ "sourceId": "more", "creatorId": CREATOR, "kind": "tip", "amount": 900_000_000_000_000_i64, "currency": "usd", "fee": 0, "occurredAt": "2026-01-01T00:00:00Z" });
    let earnings = Some(json!({ "earnings": [row] }));
    for _ in 0..2 {
        let (status, json) = api.call(Who::Cron, "POST", "/internal/earnings", earnings.clone()).await;
        assert_eq!((status, &json["details"][0]["field"]), (422, &json!("earnings")), "{json}");
    }
    assert_eq!(api.earnings(CREATOR).await["money"][0]["totalEarnedMinor"], json!(900_000_000_000_000_i64));
}

async fn run(api: &Api) -> Json {
    api.fine(Who::Operator, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": PAY_DAY }))).await
}

#[tokio::test]
async fn a_cycle_has_one_run_however_often_it_is_asked_for() {
    let api = Api::start().await;
    let first = run(&api).await;
    assert_eq!(pick(&first, &["alreadyExisted", "status", "cycleDate"]), [&json!(false), &json!("running"), &json!(PAY_DAY)]);
    assert_eq!(first["runIds"], json!([first["runId"]]));
    let second = run(&api).await;
    assert_eq!(pick(&second, &["runId", "alreadyExisted"]), [&first["runId"], &json!(true)]);
    let cron = api.fine(Who::Cron, "POST", "/api/cron/payouts", Some(json!({ "cycleDate": PAY_DAY }))).await;
    let fields = ["runIds", "eventId", "dayOfMonth"];
    assert_eq!(pick(&cron, &fields), [&first["runIds"], &json!("cycle:2025-11-15"), &json!(15)]);
    for field in ["message", "note", "timestamp"] {
        assert!(cron[field].is_string(), "{field}");
    }
    // Only a new run is queued; the sweep brings back what was lost.
    let queued = json!([{ "type": "payout.create-batch", "runId": first["runId"] }]);
    assert_eq!(json!(*api.aws.messages.lock().expect("a lock")), queued);
    // A batch-less run completes at once, and the run says so.
    api.create_batches(first["runId"].as_i64().expect("an id")).await;
    assert_eq!(run(&api).await["status"], "completed");
    // The first of a month that is a Monday has three.
    let many = api.fine(Who::Cron, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": "2025-09-01" }))).await;
    assert_eq!(many["runIds"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn nothing_is_started_while_payouts_are_paused() {
    let api = Api::start().await;
    for stop in ["paused", "killed"] {
        api.sql(&format!("update payout_controls set paused = false, killed = false; update payout_controls set {stop} = true"))
            .await;
        let (status, json) = api.call(Who::Cron, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": PAY_DAY }))).await;
        assert_eq!((status, &json["code"]), (409, &json!("PAUSED")));
        let cron = api.fine(Who::Cron, "POST", "/api/cron/payouts", Some(json!({ "cycleDate": PAY_DAY }))).await;
        assert_eq!(cron["skipped"], true);
        assert!(cron["reason"].as_str().is_some_and(|reason| reason.contains("paused")));
    }
    assert!(api.aws.messages.lock().expect("a lock").is_empty());
    assert_eq!(api.call(Who::Cron, "GET", "/internal/payouts/status/1", None).await.0, 404);
}

#[tokio::test]
async fn a_status_tells_counts_sums_and_failures_in_pages() {
    let api = Api::start().await;
    let date = payday::clock::parse_date("2025-11-01").expect("a date");
    for number in 1..=5 {
        let creator = Uuid::from_u128(number);
        api.connect(creator, "manual").await;
        api.earn(creator, [amount(2_000, "usd", 0).on(date), amount(1_500, "eur", 0).on(date)]).await;
    }
    api.earn(Uuid::from_u128(6), [amount(900, "usd", 0).on(date)]).await;
    let id = run(&api).await["runId"].as_i64().expect("an id");
    api.create_batches(id).await;
    api.sql(
        "update payout_items set status = 'paid' where creator_id::text like '%1';
         update payout_items set status = 'failed', failure_code = 'account_invalid', failure_reason = 'No such account.' where creator_id::text like '%2';
         update payout_items set status = 'needs_review' where creator_id::text like '%3';
         update payout_batches set status = 'halted', halt_reason = 'awaiting_funds', halted_at = now() where currency = 'eur'",
    )
    .await;
    let path = format!("/internal/payouts/status/{id}");
    let all = api.fine(Who::Operator, "GET", &path, None).await;
    assert_eq!(all["counts"], json!({ "failed": 2, "needs_review": 2, "paid": 2, "pending": 4 }));
    assert_eq!(all["progress"], json!({ "items": 10, "done": 2, "sending": 4, "waiting": 0, "failed": 4, "percent": 60 }));
    let eur = &all["batches"][0];
    assert_eq!(
        pick(eur, &["currency", "items", "amountMinor", "haltReason"]),
        [&json!("eur"), &json!(5), &json!(7_500), &json!("awaiting_funds")]
    );
    assert_eq!(all["batches"][1]["byStatus"]["pending"], json!({ "items": 2, "amountMinor": 4_000 }));
    let excluded = json!([{ "reason": "no_account", "count": 1, "cause": "No Stripe account is connected that could be paid.",
                            "whoActs": "creator", "action": "Connect a Stripe account." }]);
    assert_eq!(all["exclusions"], excluded);
    let failures = all["failures"].as_array().expect("failures").clone();
    assert_eq!((failures.len(), &all["nextCursor"]), (4, &json!(null)));
    assert_eq!(
        pick(&failures[0], &["reason", "code", "message"]),
        [&json!("failed"), &json!("account_invalid"), &json!("No such account.")]
    );
    assert!(failures.iter().all(|failure| failure["action"].is_string()));

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.fine(Who::Cron, "GET", &format!("{path}?limit=3{cursor}"), None).await;
        seen.extend(page["failures"].as_array().expect("failures").clone());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, failures);
    for (path, status) in [
        (format!("/internal/payouts/status/{id}?limit=1000000000"), 400),
        (format!("/internal/payouts/status/{}?limit=1{cursor}", id + 1), 400),
        (format!("/internal/payouts/status/{id}?sort=drop"), 400),
        (format!("/internal/payouts/status/{}", id + 1), 404),
        ("/internal/payouts/status/-1".to_owned(), 404),
        ("/internal/payouts/status/latest".to_owned(), 404),
    ] {
        assert_eq!(api.call(Who::Cron, "GET", &path, None).await.0, status, "{path}");
    }
    // What is on its way is told to its creator as such.
    let earnings = api.earnings(Uuid::from_u128(4)).await;
    assert_eq!(
        pick(&earnings["money"][1], &["inFlightMinor", "availableMinor", "totalEarnedMinor"]),
        [&json!(2000), &json!(0), &json!(2000)]
    );
}

#[tokio::test]
async fn health_is_ok_until_something_is_not() {
    let api = Api::start().await;
    let health = async || api.fine(Who::Cron, "GET", "/internal/payouts/health", None).await;
    let well = health().await;
    assert_eq!(well["status"], "ok", "{well}");
    let checks = &well["checks"];
    assert_eq!(checks["queues"]["processChunk"], json!({ "ok": true, "waiting": 3, "inFlight": 2, "delayed": 1, "error": null }));
    assert_eq!(pick(&checks["schedule"], &["armed", "paused"]), [&json!(true), &json!(false)]);
    assert_eq!((&checks["lastRun"]["run"], &checks["ledger"]["balanced"]), (&json!(null), &json!(true)));

    let id = run(&api).await["runId"].clone();
    assert_eq!(health().await["checks"]["lastRun"]["run"]["runId"], id);
    api.connect(CREATOR, "manual").await;
    for (change, part, back) in [
        ("update payout_controls set paused = true", "schedule", "update payout_controls set paused = false"),
        ("update payout_runs set started_at = now() - interval '61 minutes'", "stuckRuns", "update payout_runs set started_at = now()"),
        (
            "insert into payout_batches (run_id, currency, batch_hash, status, halt_reason) select id, 'usd', 'h', 'halted', 'stripe_key_rejected' from payout_runs",
            "haltedBatches",
            "update payout_batches set status = 'processing', halt_reason = null",
        ),
        (
            "insert into payee_balances (payee_id, currency, held_platform) select id, 'usd', 5 from payees",
            "ledger",
            "update payee_balances set held_platform = 0",
        ),
        (
            "with k as (insert into payout_chunks (batch_id, ordinal) select id, 0 from payout_batches returning id, batch_id),
             i as (insert into payout_items (batch_id, chunk_id, creator_id, currency, idempotency_key, amount_minor, transfer_minor, connected_minor, payout_minor, account)
                   select k.batch_id, k.id, p.id, 'usd', 'k', 1, 1, 0, 1, 'a' from k, payees p returning id)
             insert into payout_operations (item_id, leg, attempt, state, idempotency_key, account, amount_minor, currency, request_body, first_dispatched_at, dispatched_at, send_deadline, unknown_since)
             select id, 'transfer', 1, 'unknown', 'k', 'a', 1, 'usd', '', now(), now(), now(), now() - interval '2 hours' from i",
            "unknownOutcomes",
            "update payout_operations set state = 'rejected', unknown_since = null",
        ),
        (
            "insert into standing_checks (name, breached_at, disagreeing) values ('counts_are_the_items', now(), '{a row}')",
            "standingChecks",
            "update standing_checks set breached_at = null, verified_at = now()",
        ),
    ] {
        api.sql(change).await;
        let ill = health().await;
        let bad: Vec<&String> = ill["checks"].as_object().expect("checks").iter().filter(|(_, check)| check["ok"] == false).map(|(name, _)| name).collect();
        assert_eq!((&ill["status"], bad), (&json!("degraded"), vec![&part.to_owned()]), "{change}");
        api.sql(back).await;
    }
    assert_eq!(health().await["status"], "ok");
    api.aws.schedules.set_state("payout-weekly", "DISABLED");
    assert_eq!(health().await["checks"]["schedule"]["schedules"]["payout-weekly"], "disabled");
}

#[tokio::test]
async fn health_names_the_check_that_stopped_a_batch_and_the_rows_that_disagree() {
    let api = Api::start().await;
    api.connect(CREATOR, "manual").await;
    api.earn(CREATOR, [amount(5_000, "usd", 0).on("2025-10-01".parse().expect("a date"))]).await;
    let id = run(&api).await["runId"].as_i64().expect("an id");
    api.create_batches(id).await;
    api.sql(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'planted', 'x', creator_id, 'usd', 'earnings', 'in_flight', 7 from payout_items",
    )
    .await;
    let mut tx = api.db.begin().await.expect("a transaction");
    let breaches = checks::of_chunk(&mut tx, ChunkId(1)).await.expect("an answer");
    checks::stop_batch(&mut tx, BatchId(1), &breaches).await.expect("stopped");
    tx.commit(Boundary::Outside).await.expect("a commit");
    let health = api.fine(Who::Cron, "GET", "/internal/payouts/health", None).await;
    assert_eq!(health["status"], "degraded");
    let told = &health["checks"]["standingChecks"]["breached"][0];
    assert_eq!(told["check"], "in_flight_is_open_transfers", "{health}");
    assert_eq!(told["rows"], json!([format!("payee {CREATOR} usd: 7 micros are in flight, open transfers carry 0")]));
    assert_eq!(
        pick(&health["checks"]["haltedBatches"]["batches"][0], &["batchId", "reason"]),
        [&json!(1), &json!("standing_check")]
    );
}

#[tokio::test]
async fn discrepancies_are_listed_in_pages_by_state_and_kind_and_taken_over_by_people() {
    let api = Api::start().await;
    api.connect(CREATOR, "manual").await;
    let empty = api.fine(Who::Operator, "GET", "/internal/discrepancies", None).await;
    assert_eq!(pick(&empty, &["discrepancies", "nextCursor", "lastReconciliation"]), [&json!([]), &json!(null), &json!(null)]);
    api.sql(&format!(
        "insert into discrepancies (kind, subject, payee_id, expected, found, state) values
            ('unknown_object', 'tr_1', null, 'no such object', '500 usd', 'open'), ('held_too_long', '{CREATOR} usd', '{CREATOR}', 'x', 'y', 'open'),
            ('second_object', 'tr_2', null, 'a', 'b', 'ignored'), ('sums_differ', 'transfers usd', null, 'a', 'b', 'resolved');
         insert into reconciliations (stage, since, started_at, finished_at, reads) values ('done', now(), now(), now(), 7);
         insert into reconciliation_sums values (1, 'transfer', 'usd', 3, 300, 300)"
    ))
    .await;
    let subjects = async |query: &str| {
        let answer = api.fine(Who::Cron, "GET", &format!("/internal/discrepancies{query}"), None).await;
        let rows = answer["discrepancies"].as_array().expect("rows").clone();
        (rows.iter().map(|row| row["subject"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(), answer)
    };
    let (all, answer) = subjects("").await;
    assert_eq!(all, ["tr_2".to_owned(), format!("{CREATOR} usd"), "tr_1".to_owned()], "what is not resolved, newest first");
    assert_eq!(
        pick(&answer["lastReconciliation"], &["stage", "reads", "sums"]),
        [
            &json!("done"),
            &json!(7),
            &json!([{ "leg": "transfer", "currency": "usd", "objects": 3, "stripeMinor": 300, "ledgerMinor": 300 }])
        ]
    );
    assert_eq!(subjects("?state=resolved").await.0, ["transfers usd"]);
    assert_eq!(subjects("?kind=unknown_object&state=open").await.0, ["tr_1"]);
    let (first, answer) = subjects("?limit=2").await;
    assert_eq!(first.len(), 2);
    let cursor = answer["nextCursor"].as_str().expect("a cursor");
    assert_eq!(subjects(&format!("?limit=2&cursor={cursor}")).await.0, ["tr_1"]);
    for wrong in ["?state=closed", "?kind=nothing", "?sort=id", &format!("?state=open&cursor={cursor}")] {
        assert_eq!(api.call(Who::Cron, "GET", &format!("/internal/discrepancies{wrong}"), None).await.0, 400, "{wrong}");
    }

    let path = "/internal/discrepancies/1";
    let change = json!({ "owner": "finance@example.com", "note": "asked Stripe" });
    let row = api.fine(Who::Operator, "PATCH", path, Some(change)).await["discrepancy"].clone();
    let operator = Uuid::from_u128(7).to_string();
    assert_eq!(
        pick(&row, &["state", "owner", "note", "changedBy", "resolvedAt"]),
        [&json!("open"), &json!("finance@example.com"), &json!("asked Stripe"), &json!(operator), &json!(null)]
    );
    let logged = api.fine(Who::Operator, "GET", "/internal/audit?subject=discrepancy:1", None).await;
    assert_eq!(
        pick(&logged["rows"][0], &["actor", "action", "before", "after"]),
        [
            &json!(operator),
            &json!("discrepancy.change"),
            &json!({ "state": "open", "owner": null, "note": null }),
            &json!({ "state": "open", "owner": "finance@example.com", "note": "asked Stripe" })
        ]
    );
    let row = api.fine(Who::Cron, "PATCH", path, Some(json!({ "state": "resolved", "owner": "" }))).await["discrepancy"].clone();
    assert_eq!(
        pick(&row, &["state", "owner", "note", "changedBy"]),
        [&json!("resolved"), &json!(null), &json!("asked Stripe"), &json!("cron")]
    );
    assert!(row["resolvedAt"].is_string());
    let row = api.fine(Who::Cron, "PATCH", path, Some(json!({ "state": "open" }))).await["discrepancy"].clone();
    assert_eq!(row["resolvedAt"], json!(null));
    for (body, status) in [
        (json!({}), 422),
        (json!({ "state": "closed" }), 422),
        (json!({ "kind": "unknown_object" }), 422),
        (json!({ "note": "x".repeat(2_001) }), 422),
        (json!({ "owner": 7 }), 422),
        (json!({ "note": "a\u{0}b" }), 422),
    ] {
        assert_eq!(api.call(Who::Operator, "PATCH", path, Some(body.clone())).await.0, status, "{body}");
    }
    for missing in ["/internal/discrepancies/99", "/internal/discrepancies/x"] {
        assert_eq!(api.call(Who::Operator, "PATCH", missing, Some(json!({ "state": "open" }))).await.0, 404, "{missing}");
    }
    assert_eq!(api.call(Who::Creator(CREATOR), "GET", "/internal/discrepancies", None).await.0, 403);
}

#[tokio::test]
async fn messages_that_did_not_arrive_are_listed_in_pages() {
    let api = Api::start().await;
    api.sql(
        "insert into outbox (dedupe_key, kind, payload) values ('a', 'run_completed', '{}'), ('b', 'batch_halted', '{}');
         insert into outbox_deliveries (outbox_id, channel, recipient, state, due_at, why) values
            (1, 'slack', 'operators', 'unsure', null, 'timed out'), (1, 'email', 'ops@example.com', 'sent', null, null),
            (2, 'slack', 'operators', 'given_up', null, '404'), (2, 'email', 'ops@example.com', 'waiting', now(), '429')",
    )
    .await;
    let listed = async |query: &str| {
        let answer = api.fine(Who::Operator, "GET", &format!("/internal/notifications{query}"), None).await;
        let rows = answer["deliveries"].as_array().expect("rows").clone();
        let told = rows
            .iter()
            .map(|row| format!("{} {} {}", row["messageId"], row["kind"], row["state"]).replace('"', ""))
            .collect::<Vec<_>>();
        (told, answer["nextCursor"].as_str().map(str::to_owned))
    };
    assert_eq!(listed("").await.0, ["2 batch_halted given_up", "1 run_completed unsure"]);
    let (first, cursor) = listed("?limit=1").await;
    assert_eq!(first, ["2 batch_halted given_up"]);
    assert_eq!(
        listed(&format!("?limit=1&cursor={}", cursor.expect("a cursor"))).await,
        (vec!["1 run_completed unsure".to_owned()], None)
    );
    assert_eq!(listed("?state=waiting").await.0, ["2 batch_halted waiting"]);
    assert_eq!(api.call(Who::Operator, "GET", "/internal/notifications?state=lost", None).await.0, 400);
    assert_eq!(api.call(Who::Creator(CREATOR), "GET", "/internal/notifications", None).await.0, 403);
}

#[tokio::test]
async fn the_figures_are_those_of_the_payments_by_currency() {
    let api = Api::start().await;
    let empty = api.fine(Who::Operator, "GET", "/internal/payouts/kpis", None).await;
    assert_eq!(pick(&empty, &["payments", "totalPaid", "failedOver24Hours"]), [&json!([]), &json!([]), &json!(0)], "{empty}");
    assert_eq!(pick(&empty["successRate"], &["percent", "onTarget"]), [&json!(null), &json!(true)]);
    // Seven creators: five paid in dollars of whom one is refused, two in euros; one has no account; of two batches one is long ago.
    for n in 1..=7 {
        let creator = Uuid::from_u128(n);
        api.connect(creator, "manual").await;
        api.earn(
            creator,
            [amount(1_000 * i64::try_from(n).expect("small"), if n < 6 { "usd" } else { "eur" }, 8)
                .on(PAY_DAY.parse::<chrono::NaiveDate>().expect("a date") - chrono::Days::new(30))],
        )
        .await;
    }
    api.earn(Uuid::from_u128(8), [tokens(1, 8)]).await;
    let run = api.fine(Who::Cron, "POST", "/internal/payouts/run", Some(json!({ "cycleDate": PAY_DAY }))).await;
    api.create_batches(run["runId"].as_i64().expect("a run")).await;
    api.sql(
        "update payout_items set status = 'paid' where currency = 'usd';
         update payout_items set status = 'payout_blocked', updated_at = now() - interval '25 hours' where amount_minor = 5000 and currency = 'usd';
         update payout_items set status = 'in_transit' where currency = 'eur' and amount_minor = 6000;
         update payout_items set status = 'returned', updated_at = now() where currency = 'eur' and amount_minor = 7000;
         update payout_runs set status = 'completed', started_at = now() - interval '90 seconds', completed_at = now();
         update stripe_accounts set payouts_enabled = false where payee_id = '00000000-0000-0000-0000-000000000001'",
    )
    .await;
    let it = api.fine(Who::Cron, "GET", "/internal/payouts/kpis", None).await;
    assert_eq!(it["successRate"], json!({ "percent": "71.42", "targetPercent": "98.00", "onTarget": false }));
    let payments = json!([
        { "currency": "eur", "arrived": 1, "arrivedMinor": 6000, "failed": 1, "failedMinor": 7000 },
        { "currency": "usd", "arrived": 4, "arrivedMinor": 10_000, "failed": 1, "failedMinor": 5000 },
    ]);
    assert_eq!(it["payments"], payments);
    assert_eq!(it["totalPaid"], json!([{ "currency": "eur", "paidMinor": 0 }, { "currency": "usd", "paidMinor": 10_000 }]));
    assert_eq!(it["failedOver24Hours"], 1);
    assert_eq!(pick(&it["runTime"], &["slowestSeconds", "averageSeconds"]), [&json!(90), &json!(90)]);
    assert_eq!(pick(&it["runTime"]["runs"][0], &["cycleDate", "items", "seconds"]), [&json!(PAY_DAY), &json!(7), &json!(90)]);
    assert_eq!(it["onboarding"], json!({ "creators": 8, "withAccount": 7, "ready": 6, "percent": "75.00" }));
    // Two months later it is of no month's rate, and still paid.
    api.sql("update payout_batches set created_at = created_at - interval '60 days'; update payout_runs set completed_at = completed_at - interval '60 days', started_at = started_at - interval '60 days'").await;
    let it = api.fine(Who::Cron, "GET", "/internal/payouts/kpis", None).await;
    assert_eq!(pick(&it, &["payments", "successRate"])[0], &json!([]));
    assert_eq!(it["totalPaid"][1]["paidMinor"], 10_000);
    assert_eq!(api.call(Who::Creator(CREATOR), "GET", "/internal/payouts/kpis", None).await.0, 403);
}
