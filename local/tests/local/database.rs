//! The private cluster: made, killed, brought back, cloned and removed.

use std::time::Duration;

use payday_local::postgres::{Postgres, PostgresError};
use sqlx::Executor;

use crate::{PATIENCE, is_alive, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_private_postgres_keeps_what_was_committed_through_kills_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("private");
    let postgres = Postgres::start(&home).await.expect("Postgres starts");
    postgres.create_database("first").await.expect("created");
    let mut connection = postgres.connect("first").await.expect("connected");
    connection.execute("create table facts (fact text)").await.expect("a table");
    connection.execute("insert into facts values ('kept')").await.expect("a row");

    let again = Postgres::start(&home).await.err().expect("refused");
    assert!(matches!(again, PostgresError::InUse { .. }), "{again}");

    let killed = postgres.kill().expect("it ran");
    until("the keeper sees the death", || postgres.pid() != Some(killed)).await;
    postgres.ready(PATIENCE).await.expect("it came back");
    let mut connection = postgres.connect("first").await.expect("connected");
    let found: Vec<(String,)> = sqlx::query_as("select fact from facts").fetch_all(&mut connection).await.expect("facts");
    assert_eq!(found, [("kept".to_owned(),)]);
    drop(connection);

    postgres.down().await;
    assert!(postgres.connect("first").await.is_err());
    postgres.up().await.expect("up again");
    postgres.clone_database("first", "second").await.expect("cloned");
    assert!(postgres.has_database("second").await.expect("asked"));
    postgres.drop_database("first").await.expect("dropped");
    assert!(!postgres.has_database("first").await.expect("asked"));

    let pid = postgres.pid().expect("it runs");
    postgres.stop().await;
    assert!(!is_alive(pid));
    let postgres = Postgres::start(&home).await.expect("it starts on the same folder");
    assert!(postgres.has_database("second").await.expect("asked"));
    let pid = postgres.pid().expect("it runs");
    drop(postgres);
    assert!(!is_alive(pid), "dropping stops it too");
    Postgres::remove(&home).expect("removed");
    assert!(!home.join("postgres").exists());
    assert!(!home.join("postgres-folder").exists());
}

/// Started by the test below as a process of its own, which is then killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test of its own"]
async fn helper_that_runs_postgres_until_it_is_killed() {
    let home = std::env::var("HOME_OF_POSTGRES").expect("a folder");
    let postgres = Postgres::start(std::path::Path::new(&home)).await.expect("Postgres starts");
    let report = std::env::var("REPORT").expect("the path for the report");
    std::fs::write(report, postgres.pid().expect("it runs").to_string()).expect("a report");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_whose_runtime_is_killed_ends_and_the_next_run_finds_its_folder_free() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("private");
    let report = folder.path().join("report");
    let mut runtime = tokio::process::Command::new(std::env::current_exe().expect("the test knows its own path"))
        .args(["--ignored", "--exact", "database::helper_that_runs_postgres_until_it_is_killed"])
        .env("HOME_OF_POSTGRES", &home)
        .env("REPORT", &report)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a process");
    let pid = || std::fs::read_to_string(&report).ok().and_then(|pid| pid.parse::<u32>().ok());
    until("Postgres runs", || pid().is_some()).await;
    let pid = pid().expect("a pid");
    runtime.kill().await.expect("killed");
    let postgres = Postgres::start(&home).await.expect("the folder is free");
    assert!(!is_alive(pid));
    postgres.ready(Duration::from_secs(1)).await.expect("it answers");
    postgres.stop().await;
    Postgres::remove(&home).expect("removed");
}
