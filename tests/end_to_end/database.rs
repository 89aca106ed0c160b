//! Postgres dies, is away, or loses its answer to a commit.

use payday_local::job::root;
use payday_local::postgres::Postgres;
use payday_tests::database::Database;
use payday_tests::gate::{At, Gate};
use payday_tests::proxy::Proxy;
use payday_tests::system::{Expected, PATIENCE, Setup};
use payday_tests::world::cutoff;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_killed_in_the_middle_of_a_run_comes_back_and_the_run_finishes() {
    let home = root().join("target/test-stacks/own-postgres");
    let postgres = Postgres::start(&home).await.unwrap_or_else(|error| panic!("{error}"));
    postgres.drop_database("killed").await.expect("gone");
    postgres.create_database("killed").await.expect("created");
    payday::db::migrate(&postgres.url("killed")).await.expect("migrated");
    let database = Database::in_cluster(&postgres, "killed").await;
    let mut system = Setup::of(30).database(database).start().await;
    system.double.hold();
    system.fire().await;
    // The money is on its way when the database dies.
    system.double.held_requests(10).await;
    let killed = postgres.kill().expect("it ran");
    system.double.release();
    system.see("another postmaster runs", || postgres.pid().is_some_and(|pid| pid != killed)).await;
    postgres.ready(PATIENCE).await.expect("it came back");
    system.database = Database::in_cluster(&postgres, "killed").await;
    system
        .until("transfers are saved", "select count(*) > 5 from payout_operations where leg = 'transfer' and state = 'accepted'")
        .await;
    // Once more, and this time away for a while.
    postgres.down().await;
    let before = system.double.counts().calls;
    system.stack.queues.reveal("ProcessChunkQueue").expect("a queue");
    tokio::time::timeout(PATIENCE, postgres.up()).await.expect("in time").expect("it came back");
    system.database = Database::in_cluster(&postgres, "killed").await;
    assert!(before <= system.double.counts().calls);
    system.drain().await;
    // A pooler says at once that there is no database, so messages may use up their deliveries. The sweep has sent them anew.
    let dead_letters = if system.pooler.is_some() { system.dead_letters().len() } else { 0 };
    system.ends_with("paid=30", &Expected { dead_letters, ..Expected::default() }).await;
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_nothing_is_sent() {
    let system = Setup::of(6).start().await;
    // Every commit of a dispatch fails as often as it is tried, until it may happen.
    let mut gate = Gate::close(&system.database, At::CommitOfInsert, "payout_operations").await;
    system.fire().await;
    for _ in 0..3 {
        gate.reached().await;
        gate.cut().await;
    }
    assert_eq!(system.double.counts().calls, 6, "nothing but the accounts was asked of Stripe");
    gate.open().await;
    system.ends("paid=6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_read_again_and_never_redone() {
    let database = Database::new().await;
    let proxy = Proxy::start(database.port()).await;
    let url = database.url().replace(&database.port().to_string(), &proxy.address.port().to_string());
    let system = Setup::of(8).setting("CHUNK_SIZE", 2).database(database).database_url(url).start().await;
    // The run's, the batches', the dispatches', the replies', the events': whichever it is.
    proxy.lose_every(5);
    system.fire().await;
    system.see("answers are lost", || proxy.lost() >= 5).await;
    proxy.lose_every(0);
    system.drain().await;
    assert_eq!((system.database.count("payout_runs").await, system.database.count("payout_batches").await), (1, 1));
    assert_eq!((system.executed("POST /v1/transfers"), system.executed("POST /v1/payouts")), (8, 8));
    system.ends("paid=8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_whose_commit_was_not_answered_fires_again_and_finds_its_run() {
    let database = Database::new().await;
    let proxy = Proxy::start(database.port()).await;
    let url = database.url().replace(&database.port().to_string(), &proxy.address.port().to_string());
    let system = Setup::of(2).database(database).database_url(url).start().await;
    proxy.lose_commits(1);
    let fired = system.stack.fire("payout-semimonthly", cutoff()).await;
    assert!(fired.is_err(), "the first attempt fails, and the Scheduler's second does not");
    system.idle().await;
    // The run had been made, so the second attempt told nobody of it: the sweep does.
    system.ends("paid=2").await;
    assert_eq!(proxy.lost(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_of_a_payment_may_lose_its_answer() {
    let database = Database::new().await;
    let proxy = Proxy::start(database.port()).await;
    let url = database.url().replace(&database.port().to_string(), &proxy.address.port().to_string());
    let system = Setup::of(3).database(database).database_url(url).double(|double| double.latency_ms = 5).start().await;
    system.double.hold();
    system.fire().await;
    system.double.held_requests(3).await;
    // From here on each worker's commit is lost once: the transfers' replies, the payouts' dispatch and replies, the events.
    proxy.lose_commits(3);
    system.double.release();
    system.see("three answers are lost", || proxy.lost() >= 3).await;
    system.drain().await;
    assert_eq!((system.executed("POST /v1/transfers"), system.executed("POST /v1/payouts")), (3, 3));
    proxy.lose_commits(2);
    system.double.settle_payouts();
    system.see("two answers to webhooks are lost", || proxy.lost() >= 5).await;
    system.ends("paid=3").await;
}
