//! Every statement of the library has run on real Postgres: a tour calls whatever has SQL behind it, and Postgres's own
//! statistics are compared with the literals in the source. A statement that the tour lacks is named.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::Duration as Span;
use payday::audit::By;
use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config::{Alerts, Withdrawals};
use payday::earnings::store::Claim;
use payday::earnings::{NewEarning, Place};
use payday::id::{BatchId, ChunkId, ItemId, OperationId, RunId};
use payday::messages::{self, Messenger};
use payday::notifications;
use payday::payees::onboarding::Request;
use payday::payees::{roster, store as payees};
use payday::payouts::checks::{self, Breach, Check};
use payday::payouts::controls::Press;
use payday::payouts::statement::Period;
use payday::payouts::store::creators::{self, Changes};
use payday::payouts::store::{self, batches, chunks, jobs, reports};
use payday::payouts::{preview, report};
use payday::rails::Leg;
use payday::reconciliation::{self, Pace, Reconciler};
use payday::stripe_events::store as stripe_events;
use payday::withdrawals::{self, Withdrawal};
use payday_local::post_office::PostOffice;
use payday_local::stripe_double::{DestinationCharge, Fault, FaultRule, When};
use payday_tests::queues::{QueueServer, aws_at};
use payday_tests::stage::Stage;
use payday_tests::world::{CYCLE, creator, cutoff, day, earning};

/// Not in a cycle of the tour: what else has SQL.
async fn the_rest(stage: &Stage) {
    let now = payday::clock::now();
    let mut tx = stage.tx().await;
    let tx = &mut tx;
    reports::run(tx, 1).await.expect("a run").expect("the run");
    reports::last_run(tx).await.expect("a run").expect("the run");
    reports::stuck_runs(tx, now, 10).await.expect("runs");
    reports::are_completed(tx, &[RunId(1)]).await.expect("an answer");
    reports::counts(tx, RunId(1)).await.expect("counts");
    reports::not_arrived(tx, RunId(1), Some((1, 0)), 10).await.expect("items");
    reports::exclusions(tx, RunId(1)).await.expect("reasons");
    reports::controls(tx).await.expect("controls");
    reports::halted(tx, 10).await.expect("batches");
    reports::give_up_after(tx, std::time::Duration::from_secs(5)).await.expect("a setting");
    creators::standing(tx, creator(1), &stage.policy, now).await.expect("a standing");
    let chosen = creators::change_settings(tx, creator(1), Changes::default()).await.expect("settings");
    assert_eq!(creators::settings(tx, creator(1)).await.expect("settings"), Some(chosen));
    creators::payouts(tx, creator(1), Some(1 << 40), 10).await.expect("payouts");
    creators::story(tx, creator(1), 1).await.expect("a story");
    let period = Period::of_year(2026, stage.policy.calendar.zone, cutoff()).expect("a year");
    store::statements::earned(tx, creator(1), &period).await.expect("earnings");
    store::statements::taken_back(tx, creator(1), &period).await.expect("reversals");
    store::statements::paid(tx, creator(1), &period).await.expect("payouts");
    payday::payouts::kpis::Kpis::read(tx, now).await.expect("figures");
    batches::schedules_run_on(tx, day(CYCLE)).await.expect("schedules");
    jobs::running_since_before(tx, now).await.expect("runs");
    jobs::oldest_unknown(tx).await.expect("an age");
    jobs::halt(tx, BatchId(1), "standing_check").await.expect("a halt");
    jobs::halt_all(tx, "standing_check").await.expect("halts");
    chunks::reserve_slots(tx, Leg::Transfer, 5, 20).await.expect("slots");
    chunks::slow_down(tx, Leg::Payout).await.expect("slower");
    chunks::pulse(tx, ChunkId(1), uuid::Uuid::nil(), 5).await.expect("a pulse");
    batches::complete_batch(tx, BatchId(1)).await.expect("an answer");
    payday::ledger::store::lock_balance(tx, creator(1), "usd").await.expect("a balance");
    payday::earnings::store::take_back(tx, "refund:ch_sale", "ch_sale", 100, "usd").await.expect("taken back");
    for (minor, said_at) in [(300, now), (0, now + Span::days(1))] {
        let claim = Claim { source: "dispute:dp_1", charge: "ch_sale", minor, currency: "usd", said_at: Some(said_at) };
        payday::earnings::store::claim(tx, &claim).await.expect("claimed");
    }
    payees::make_payee(tx, creator(9), Some("nine@example.com")).await.expect("the payee");
    payees::lock_payee(tx, creator(9)).await.expect("a lock");
    assert!(payees::connection(tx, creator(9)).await.expect("an answer").is_some_and(|it| it.account.is_none()));
    assert_eq!(payees::connected(tx, creator(9)).await.expect("an answer"), None);
    let request = Request {
        attempt: 1,
        idempotency_key: format!("payday:{}:account", payees::instance(tx).await.expect("an id")),
        request_body: "country=US".to_owned(),
        country: "US".to_owned(),
        state: "open".to_owned(),
        look_up: false,
        first_sent_at: now,
    };
    payees::save_account_request(tx, creator(9), &request).await.expect("kept");
    payees::look_up_account(tx, creator(9)).await.expect("noted");
    payees::sends_again(tx, creator(9), now).await.expect("noted");
    assert!(payees::account_request(tx, creator(9)).await.expect("an answer").is_some_and(|it| !it.look_up));
    payees::account_refused(tx, creator(9), 1, None, "no").await.expect("noted");
    assert!(!payees::account_created(tx, creator(9)).await.expect("an answer"), "it was refused");
    for filter in [payees::Filter::Unconfirmed, payees::Filter::Shared] {
        payees::list_destinations(tx, filter, None, 10).await.expect("destinations");
    }
    payees::mark_cured(tx, vec![creator(1)]).await.expect("marked");
    for (payee, cured_at) in store::resume::cured(tx, 10).await.expect("payees") {
        store::resume::looked_at(tx, payee, cured_at).await.expect("looked at");
    }
    store::resume::looked_at(tx, creator(1), now).await.expect("looked at");
    store::resume::failed_items_of(tx, creator(1), 5).await.expect("items");
    store::resume::retry_refused_payouts_of(tx, creator(1), &stage.policy, now).await.expect("retried");
    store::resume::payable_cutoff(tx, creator(1), &stage.policy, now).await.expect("an answer");
    store::resume::start(tx, creator(1), day(CYCLE), now).await.expect("an answer").expect("a run");
    payees::sync_goes_on(tx, "acct_1").await.expect("noted");
    payees::addresses(tx, vec![creator(1)]).await.expect("addresses");
    let destinations = payees::destinations(tx, vec![creator(1)]).await.expect("destinations");
    payees::confirm(tx, creator(1), &destinations[&creator(1)], "an operator", now).await.expect("confirmed");
    payees::retry_payouts_to_new_bank_of(tx, creator(1), now).await.expect("retried");
    stripe_events::list(tx, &stripe_events::Filter::default(), None, 10).await.expect("events");
    payday::stripe_events::store::attempt(tx, 1).await.expect("an attempt");
    payday::stripe_events::store::reverse(tx, 1, 1).await.expect("reversed");
    chunks::held_back(tx, &[ItemId(1)], &stage.policy, now).await.expect("items");
    jobs::has_newer_item(tx, ItemId(1)).await.expect("an answer");
    let breach = Breach { check: Check::InFlight, row: "a row".to_owned() };
    checks::stop_batch(tx, BatchId(1), &[breach]).await.expect("stopped");
    store::checks::verdicts(tx).await.expect("verdicts");
}

/// A reconciliation that finds something, and what people do with it.
async fn reconciled(stage: &Stage) {
    stage.run("update payout_operations set code = null, stripe_id = 'tr_elsewhere' where id = (select min(id) from payout_operations where state = 'accepted' and leg = 'transfer')").await;
    let (db, stripe) = (stage.db.clone(), stage.payer.stripe.clone());
    let reconciler = Reconciler { db, stripe, policy: stage.policy.clone(), pace: Pace::per_second(0) };
    reconciler.run().await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    let mut tx = stage.tx().await;
    let newest = reconciliation::store::newest(&mut tx).await.expect("an answer").expect("a reconciliation");
    assert_eq!(newest.stage, "done");
    let rows = reconciliation::store::list(&mut tx, None, None, None, 10).await.expect("rows");
    let row = reconciliation::store::lock(&mut tx, rows[0].id).await.expect("an answer").expect("the row");
    reconciliation::store::change(&mut tx, &row, "somebody").await.expect("changed");
}

/// What operators look at and decide.
async fn operators(stage: &Stage) {
    let now = payday::clock::now();
    let by = By::new("one", "r");
    payday::payouts::controls::press(&stage.db, Press::Resume, "as it was", &by).await.expect("pressed");
    payday::payouts::forecast::forecast(&stage.db, &stage.payer.stripe, &stage.policy, cutoff()).await.expect("a forecast");
    let occasion = preview::occasion(day("2026-12-15"), None, stage.policy.calendar, now).expect("an occasion");
    preview::still_agrees(&stage.db, &stage.policy, &occasion, "another").await.expect_err("another");
    let mut tx = stage.tx().await;
    let tx = &mut tx;
    store::preview::last_cycle(tx, &occasion).await.expect("sums");
    store::preview::funds(tx).await.expect("funds");
    store::preview::agree(tx, RunId(1), None).await.expect("an answer");
    batches::born_at(tx).await.expect("an instant");
    let (run, _) = batches::start_run(tx, Schedule::Weekly, day("2026-12-14"), cutoff(), "test").await.expect("a run");
    store::preview::agree(tx, run, Some("other facts")).await.expect("agreed");
    let locked = batches::lock_run(tx, run).await.expect("a lock").expect("the run");
    batches::facts_changed(tx, &locked, now).await.expect("kept");
    batches::create_batches(tx, &locked, &stage.policy, 25, now).await.expect_err("other facts");
    store::controls::read(tx).await.expect("switches");
    store::controls::suspend(tx, &[]).await.expect("kept");
    store::controls::lock_batch(tx, BatchId(1)).await.expect("a lock");
    store::controls::resume_batch(tx, BatchId(1)).await.expect("resumed");
    let by_hand = |action: &str| store::by_hand::Proposal {
        action: action.to_owned(),
        decision: serde_json::json!({}),
        evidence: "seen".to_owned(),
        proposed_by: "one".to_owned(),
    };
    store::by_hand::propose(tx, "item:1", &by_hand("item.adopt")).await.expect("proposed");
    store::by_hand::lock_proposal(tx, "item:1").await.expect("an answer").expect("the proposal");
    store::by_hand::forget_proposal(tx, "item:1").await.expect("forgotten");
    store::by_hand::item_of(tx, OperationId(1)).await.expect("an answer").expect("the item");
    store::by_hand::at_stripe(tx, ItemId(1)).await.expect("a sum");
    store::by_hand::can_be(tx, OperationId(1), "tr_1").await.expect("an answer");
    store::by_hand::adopted(tx, ItemId(1), "wire", 0).await.expect("kept");
    store::by_hand::adopted_by(tx, ItemId(1)).await.expect("an answer");
    store::by_hand::failed_after(tx, None, ItemId(0), 10).await.expect("items");
    roster::store::search(tx, &roster::search_for("a"), None, 10).await.expect("payees");
    roster::store::lock_block(tx, creator(1)).await.expect("an answer");
    roster::store::block(tx, creator(1), None, now).await.expect("unblocked");
    roster::store::beta(tx, None, 10).await.expect("creators");
    roster::store::unknown(tx, &[creator(1)]).await.expect("nobody");
    roster::store::set_beta(tx, &[creator(1)], true).await.expect("changed");
    payday::audit::store::page(tx, &payday::audit::store::Filter::default(), None, 10).await.expect("rows");
}

/// A cycle with a refusal, a short balance, someone canceled, webhooks, a sweep, a retry and its report.
async fn tour(stage: &Stage) {
    let refusal = Fault::Error { status: 400, code: "payouts_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), refusal).for_account("acct_1"));
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::AccountInvalid).for_account("acct_2"));
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::LockTimeout).for_account("acct_3"));
    stage.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::BalanceInsufficient).for_account("acct_4"));
    stage.crowd(8, 1_000).await;
    stage.run(format!("update creator_payout_settings set payout_enabled = false where creator_id = '{}'", creator(6))).await;
    let sale = NewEarning { charge_id: Some("ch_sale".to_owned()), place: Place::Connected, ..earning("sale", 7, 400) };
    stage.record(vec![sale.clone()]).await;
    stage.record(vec![sale]).await;
    let sweeping = stage.sweeper().await;
    sweeping.sweep().await;
    stage.work().await;
    sweeping.sweep().await;
    stage.finish().await;
    stage.double.settle_payouts();
    stage.double.fail_payout(&stage.double.payouts()[0].id, "account_closed");
    let account = stage.double.payouts()[0].account.clone();
    stage.double.update_account(&account, |account| account.banks[0].fingerprint = "another".to_owned());
    stage.hear().await;
    let charge = DestinationCharge { amount: 500, destination: "acct_8".to_owned(), ..DestinationCharge::default() };
    stage.double.create_destination_charge(&charge).expect("charged");
    stage.double.deauthorize("acct_6");
    stage.hear().await;
    let waiting = serde_json::json!({ "id": "evt_w", "type": "charge.refunded", "created": 1_800_000_000, "livemode": false,
        "data": { "object": { "id": "ch_nobody", "amount_refunded": 5, "currency": "usd" } } });
    stage.take_in(&waiting).await;
    stage.later(Span::hours(1)).await;
    payday::stripe_events::remember_mode(&stage.db, false).await.expect("remembered");
    payday::stripe_events::retry_waiting(&stage.db, &stage.policy).await.expect("retried");
    let by = By::new("one", "r");
    payday::stripe_events::replay(&stage.db, &stage.policy, "evt_w", &by).await.expect("replayed").expect("the event");
    stage.run("update stripe_accounts set stale = true").await;
    stage.run("update stripe_accounts set account = 'acct_gone' where account = 'acct_6'").await;
    payday::payees::read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
    payday::payees::sync::sync(&stage.db, &stage.payer.stripe).await.expect("read");
    stage.run("update payout_batches set status = 'halted', halt_reason = 'stripe_key_rejected', completed_at = null").await;
    sweeping.sweep().await;
    stage
        .run("update payout_batches set status = 'processing', completed_at = null; update payout_runs set status = 'running'")
        .await;
    sweeping.sweep().await;
    sweeping.sweeper.retry(60).await.expect("retried");
    stage.finish().await;
    report::of_cycle(&stage.db, day(CYCLE)).await.expect("a report");
    report::progress(&stage.db, day(CYCLE), Span::seconds(910)).await.expect("progress");
    report::all_accepted(&stage.db, day(CYCLE)).await.expect("an answer");
    let ids: Vec<(i64,)> = stage.all("select id from outbox where sent_at is null order by id").await;
    let mut tx = stage.tx().await;
    let now = payday::clock::now();
    notifications::store::claim(&mut tx, now, now, 100).await.expect("claimed");
    tx.commit(Boundary::Outside).await.expect("a commit");
    let post_office = PostOffice::start().await.expect("letter boxes");
    let alerts = Alerts {
        slack_url: Some(post_office.slack_url()),
        email_to: vec![],
        email_from: Some("a@example.com".to_owned()),
        may_be_inside: true,
    };
    let messenger = Messenger::new(stage.db.clone(), &alerts, &aws_at(post_office.url.clone()).await);
    for (id,) in ids {
        messenger.deliver(id).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
        messenger.deliver(id).await.expect("once");
    }
    let mut tx = stage.tx().await;
    messages::store::list(&mut tx, Some("sent"), None, 10).await.expect("deliveries");
    messages::store::email_of(&mut tx, creator(1)).await.expect("an address");
    messages::store::item(&mut tx, ItemId(1)).await.expect("facts");
    drop(tx);
    for _ in 0..2 {
        stage.cycle(Schedule::Monthly, "2026-12-01", 25).await;
    }
    let mut tx = stage.tx().await;
    batches::chunks_to_queue(&mut tx, RunId(1)).await.expect("chunks");
    batches::remember_policy(&mut tx, &stage.policy).await.expect("remembered");
    drop(tx);
    payday::earnings::mature(&stage.db, cutoff()).await.expect("matured");
    withdraw(stage).await;
    checks::verify(&stage.db).await.expect("verified");
    reconciled(stage).await;
    operators(stage).await;
    the_rest(stage).await;
}

/// One withdrawal is paid, one canceled, and a lost one comes back.
async fn withdraw(stage: &Stage) {
    let queues = QueueServer::start(&["create-batch", "process-chunk"]).await;
    let queue = queues.client("create-batch");
    stage.earned(7, 2_000).await;
    let asked = Withdrawal::new(creator(7), 100, &stage.policy).expect("tokens");
    let ask = async |key: &str| {
        withdrawals::request(&stage.db, &queue, &stage.policy, Withdrawals::OnDemand, &asked, Some(key.to_owned())).await
    };
    let paid = ask("a").await.expect("a request");
    assert_eq!(ask("a").await.expect("the same").id, paid.id);
    let canceled = ask("b").await.expect("a request");
    withdrawals::cancel(&stage.db, creator(7), canceled.id).await.expect("canceled");
    withdrawals::sweep(&stage.db, &queue, Span::zero()).await.expect("swept");
    let chunks = queues.client("process-chunk");
    withdrawals::make_batch(&stage.db, &chunks, &stage.policy, paid.id).await.expect("a batch");
    let mut tx = stage.tx().await;
    withdrawals::store::page(&mut tx, creator(7), None, 10).await.expect("a page");
}

#[tokio::test]
async fn every_statement_of_the_library_runs_on_real_postgres() {
    let stage = Stage::new().await;
    stage.count_statements().await;
    tour(&stage).await;
    let run: BTreeSet<String> = stage.statements_run().await.iter().map(|text| plain(text)).collect();
    let mut literals = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src"), &mut literals);
    assert!(literals.len() > 80, "{} statements were found in the source", literals.len());
    let missing: Vec<String> = literals
        .iter()
        .filter(|(_, sql)| !run.contains(&plain(sql)))
        .map(|(place, sql)| {
            format!("{place}: {}", sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect::<String>())
        })
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} statements were not run by the tour:\n{}",
        missing.len(),
        literals.len(),
        missing.join("\n")
    );
}

/// Each webhook asks this, and operations are kept for ever.
#[tokio::test]
async fn an_event_finds_its_attempt_by_an_index() {
    let stage = Stage::new().await;
    stage.crowd(2, 1_000).await;
    stage.work().await;
    let mut literals = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/stripe_events"), &mut literals);
    let asks = |(_, sql): &&(String, String)| sql.contains("substring(") && sql.contains("payout_operations");
    let (_, sql) = literals.iter().find(asks).expect("the statement that finds an attempt");
    let sql = sql.replace("$1", "'po_1'").replace("$2", "'00ff-1-transfer-1'::text");
    // The tables are small: only a plan that cannot do without reads all of one.
    stage.run("set enable_seqscan = off").await;
    let plan: Vec<(String,)> = stage.all(format!("explain {sql}")).await;
    let plan: Vec<String> = plan.into_iter().map(|(line,)| line).collect();
    assert!(!plan.iter().any(|line| line.contains("Seq Scan on payout_operations")), "{plan:#?}");
    assert!(plan.iter().any(|line| line.contains("payout_operations_stripe_id_key")), "{plan:#?}");
}

/// This is asked after every chunk, whatever there is of other payees and former cycles. What counts is that the chunk is known
/// when the statement is planned: with a plan for any chunk, or all, every table would be read whole.
#[tokio::test]
async fn the_checks_of_a_chunk_read_nothing_but_its_own_by_indexes() {
    let stage = Stage::new().await;
    stage.crowd(2, 1_000).await;
    stage.work().await;
    let mut literals = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/payouts/store"), &mut literals);
    let (_, sql) = literals.iter().find(|(_, sql)| sql.starts_with("with attempts")).expect("the statement of the cheap checks");
    stage.run(format!("set enable_seqscan = off; prepare checks (bigint) as {sql}")).await;
    let plan: Vec<(String,)> = stage.all("explain execute checks (1)").await;
    let whole: Vec<&String> = plan.iter().map(|(line,)| line).filter(|line| line.contains("Seq Scan on")).collect();
    assert_eq!(whole, [""; 0]);
    for index in [
        "payout_items_by_chunk",
        "payout_items_by_creator",
        "payout_operations_attempt_key",
        "ledger_transfers_once",
        "payee_balances_pkey",
    ] {
        assert!(plan.iter().any(|(line,)| line.contains(index)), "{index}: {plan:#?}");
    }
}

/// The literals that `query` and `query_as` are called with.
fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        for (at, _) in text.match_indices("query") {
            let rest = text[at + 5..].strip_prefix("_as").unwrap_or(&text[at + 5..]);
            // `query_as::<(i64,)>(`
            let rest = rest
                .strip_prefix("::<")
                .and_then(|rest| rest.split_once(">(").map(|(_, rest)| rest))
                .or_else(|| rest.strip_prefix('('));
            if let Some(sql) = rest.and_then(|rest| rest.trim_start().strip_prefix('"')) {
                found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), literal(sql)));
            }
        }
    }
}

/// A string literal's content, from after its first quote.
fn literal(text: &str) -> String {
    let mut content = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => content.extend(letters.next().filter(|next| *next != '\n')),
            other => content.push(other),
        }
    }
    content
}

/// A statement without what Postgres replaces in its statistics: constants, parameters, the layout.
fn plain(sql: &str) -> String {
    let mut out = String::new();
    let mut letters = sql.chars().peekable();
    let mut word_before = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                while letters.next().is_some_and(|next| next != '\'') {}
                out.push('?');
            }
            '-' if letters.peek() == Some(&'-') => while letters.next().is_some_and(|next| next != '\n') {},
            '$' | '0'..='9' if !word_before => {
                while letters.next_if(|next| next.is_ascii_digit() || *next == '.').is_some() {}
                out.push('?');
            }
            other => out.push(other),
        }
        word_before = letter.is_alphanumeric() || letter == '_';
    }
    let words: Vec<&str> =
        out.split_whitespace().map(|word| if matches!(word, "true" | "false" | "null") { "?" } else { word }).collect();
    words
        .join(" ")
        .replace("true", "?")
        .replace("false", "?")
        .replace("null", "?")
        .replace("extract(epoch", "extract(?")
        .replace("- ?", "?")
        .replace("-?", "?")
}
