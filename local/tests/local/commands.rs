//! The commands that need no cycle: `up`, `fire`, `reset`, as a person would call them.

use std::path::Path;
use std::process::{Command, Output};

use payday::payouts::checks::Check;
use payday_local::control::{Control, ControlError, Running};
use payday_local::postgres::Postgres;
use serde_json::json;
use sqlx::{Connection, Executor};

use crate::World;

fn payday(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payday"));
    for name in ["STRIPE_SECRET_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRET", "DATABASE_URL"] {
        command.env_remove(name);
    }
    command.arg("--folder").arg(folder).args(arguments).output().expect("payday runs")
}

#[test]
fn wrong_use_ends_with_two_and_a_sentence_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let live = concat!("sk_", "live_1");
    for (arguments, said) in [
        (vec!["fire", "payout-weekly"], "Start one with: cargo payday up"),
        (vec!["fire", "payout-weekly", "--at", "noon"], "--at"),
        (vec!["up", "--stripe-key", live], "--live"),
        (vec!["up", "--stripe-url", "https://api.stripe.com"], "--stripe-key"),
        (vec!["up", "--parameter", "x"], "PayoutTimezone=Europe/Berlin"),
        (vec!["up", "--http-port", "70000"], "--http-port"),
        (vec!["verify"], "--database-url"),
        (vec!["verify", "--database-url", "mysql"], "is not a Postgres address"),
        (vec!["verify", "--database-url", "postgres://payday@127.0.0.1:1/payday"], "does not answer"),
        (vec!["dance"], "dance"),
        (vec![], "Usage"),
    ] {
        let output = payday(folder.path(), &arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(!text.contains(live), "a key is not repeated");
    }
}

#[test]
fn reset_deletes_only_what_is_paydays() {
    let folder = tempfile::tempdir().expect("a folder");
    let foreign = folder.path().join("photos");
    std::fs::create_dir(&foreign).expect("a folder");
    std::fs::write(foreign.join("one.jpg"), "x").expect("a file");
    assert_eq!(payday(&foreign, &["reset"]).status.code(), Some(1));
    assert!(foreign.join("one.jpg").exists());
    assert_eq!(payday(&folder.path().join("nothing"), &["reset"]).status.code(), Some(0));

    let own = folder.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    std::fs::write(own.join("stack.lock"), "").expect("a file");
    assert_eq!(payday(&own, &["reset"]).status.code(), Some(0));
    assert!(!own.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_payday_is_reached_from_elsewhere_and_leaves_no_word_behind() {
    let world = World::start().await;
    let folder = world.folder.path();
    let control = Control::start(folder, &world.stack.http_url, "postgres://nowhere", world.stack.scheduler.clone());
    let control = control.await.expect("a control server");
    let running = Running::find(folder).expect("word of it");
    let at = "2026-11-15T06:00:00Z".parse().expect("an instant");
    let answer = running.fire(folder, "hourly", at).await.expect("fired");
    assert_eq!(answer, json!({ "scheduledTime": "2026-11-15T06:00:00Z" }));
    let refused = running.fire(folder, "never", at).await.expect_err("unknown").to_string();
    assert!(refused.contains("there are failing, hourly"), "{refused}");

    let file = std::fs::read_to_string(folder.join("running.json")).expect("a file");
    let control_url = serde_json::from_str::<serde_json::Value>(&file).expect("json")["control_url"].clone();
    let origin = control_url.as_str().expect("a url");
    assert_eq!(crate::http::post(origin, "/stop", &[], "{}").await.status, 401, "without the token");

    let (stopped, ()) = tokio::join!(running.stop(folder), control.stop_wanted());
    stopped.expect("told");
    drop(control);
    assert!(matches!(Running::find(folder), Err(ControlError::NotRunning { .. })));
    let gone = running.fire(folder, "hourly", at).await.expect_err("gone");
    assert!(matches!(gone, ControlError::NotRunning { .. }), "{gone}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_asks_the_kept_database_or_the_one_it_is_given_and_prints_the_rows_that_disagree() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("demo");
    let postgres = Postgres::start(&home).await.expect("Postgres starts");
    postgres.create_database("payday").await.expect("a database");
    payday::db::migrate(&postgres.url("payday")).await.expect("a schema");
    postgres.stop().await;
    let verify = |arguments: &[&str]| {
        let output = payday(folder.path(), &[&["verify"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = verify(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("all {} standing checks hold", Check::ALL.len())), "{text}");

    let postgres = Postgres::start(&home).await.expect("it starts again");
    let mut connection = postgres.connect("payday").await.expect("connected");
    let planted = "insert into payees (id) values ('00000000-0000-0000-0000-000000000001');
                   insert into payee_balances (payee_id, currency, in_flight) select id, 'usd', 5 from payees";
    connection.execute(planted).await.expect("planted");
    let url = postgres.url("payday");
    let given = verify(&["--database-url", &url]);
    connection.close().await.expect("closed");
    postgres.stop().await;
    let payee = "00000000-0000-0000-0000-000000000001";
    for (code, text) in [given, verify(&[])] {
        assert_eq!(code, Some(1), "{text}");
        for line in [
            "  BREACHED  in_flight_is_open_transfers    What is in flight is what open transfer operations carry.".to_owned(),
            format!("            payee {payee} usd: 5 micros are in flight, open transfers carry 0"),
            format!("            payee {payee} usd: accounts add up to 5 micros, expected 0"),
            format!("            {payee} usd in_flight: 5 micros are kept, the entries sum to 0"),
            "            usd: all accounts sum to 5 micros, expected 0".to_owned(),
            "  ok        one_batch_per_hash             A batch hash has one batch.".to_owned(),
            format!("4 of {} standing checks are breached, by 4 rows", Check::ALL.len()),
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}\n{text}");
        }
    }
}
