//! PgBouncer in transaction mode in front of the database, 8 clients on 3 backends, each statement with a text of its own. Our
//! way (unnamed, inside begin … commit) is right; the usual ways are not, which proves that the experiment can fail.

use payday::boundary::Boundary;
use payday::db::{Db, query_as};
use payday_tests::pooler::Pooler;
use payday_tests::stage::{Stage, sending};
use payday_tests::world::{World, creator, earning};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const CLIENTS: u32 = 8;
const STATEMENTS: i64 = 100;

/// Errors, and answers that belong to another statement.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    errors: u32,
    results: u32,
}

/// Client and number of the statement are in its text and in its answer.
fn text(client: u32, number: i64) -> String {
    format!("select {client}::bigint * 1000000 + {number} * 1000 + $1")
}

impl Wrong {
    fn note(&mut self, client: u32, number: i64, answer: Result<(i64,), String>) {
        match answer {
            Ok((value,)) if value == i64::from(client) * 1_000_000 + number * 1_000 + 7 => {}
            Ok(_) => self.results += 1,
            Err(_) => self.errors += 1,
        }
    }

    fn add(self, other: Self) -> Self {
        Self { errors: self.errors + other.errors, results: self.results + other.results }
    }
}

async fn together<F: Future<Output = Wrong>>(clients: impl Iterator<Item = F>) -> Wrong {
    futures::future::join_all(clients).await.into_iter().fold(Wrong::default(), Wrong::add)
}

async fn our_way(url: &str) -> Wrong {
    together((0..CLIENTS).map(async |client| {
        let db = Db::connect(url, 1).expect("an address");
        let mut wrong = Wrong::default();
        for number in 0..STATEMENTS {
            // The library's statements are literals; these live as long as the test process.
            let sql: &'static str = Box::leak(text(client, number).into_boxed_str());
            let asked = async {
                let mut tx = db.begin().await?;
                let answer = tx.one(query_as::<(i64,)>(sql).bind(7_i64)).await?;
                tx.commit(Boundary::Outside).await?;
                Ok::<_, payday::error::Error>(answer)
            };
            wrong.note(client, number, asked.await.map_err(|error| error.causes()));
        }
        wrong
    }))
    .await
}

/// Straight on a connection, each statement by itself: named and cached, or unnamed.
async fn the_usual_way(url: &str, persistent: bool) -> Wrong {
    together((0..CLIENTS).map(async |client| {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        let mut wrong = Wrong::default();
        for number in 0..STATEMENTS {
            let query = sqlx::query_as::<_, (i64,)>(AssertSqlSafe(text(client, number))).bind(7_i64).persistent(persistent);
            wrong.note(client, number, query.fetch_one(&mut connection).await.map_err(|error| error.to_string()));
        }
        wrong
    }))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_transaction_mode_pooler_our_way_is_right_and_the_usual_ways_are_not() {
    let world = World::new().await;
    let pooler = Pooler::start(&world).await;
    let url = &pooler.url;
    assert_eq!(our_way(url).await, Wrong::default());
    // The control. Which of the two goes wrong, and how, is up to the version of the pooler.
    let named = the_usual_way(url, true).await;
    let unnamed = the_usual_way(url, false).await;
    assert!(unnamed.results > 0, "unnamed without a transaction: another client's statement runs in place of ours: {unnamed:?}");
    assert!(named != Wrong::default() || unnamed != Wrong::default(), "{named:?} {unnamed:?}");
    // Right again afterwards: it was not luck with a fresh pooler.
    assert_eq!(our_way(url).await, Wrong::default());
}

#[tokio::test]
async fn a_whole_cycle_runs_behind_a_transaction_mode_pooler() {
    let mut stage = Stage::new().await;
    let pooler = Pooler::start(&stage.world).await;
    let db = Db::connect(&pooler.url, 6).expect("an address");
    stage.payer.db = db.clone();
    stage.payer.sending = sending();
    stage.accounts(1..=40);
    stage.creators(1..=40).await;
    let recording = (1..=40).map(|n| payday::earnings::record(&db, &stage.policy, vec![earning(&format!("e{n}"), n, 1_000)]));
    for recorded in futures::future::join_all(recording).await {
        assert_eq!(recorded.expect("recorded").recorded, 1);
    }
    let direct = std::mem::replace(&mut stage.world.database.db, db);
    let (_, created) = stage.cycle(payday::clock::Schedule::Semimonthly, payday_tests::world::CYCLE, 10).await;
    assert_eq!(created.items, 40);
    let chunks = stage.chunks().await;
    for worked in futures::future::join_all(chunks.iter().map(|chunk| stage.process(*chunk))).await {
        worked.expect("paid");
    }
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=40");
    assert_eq!(stage.balance(7, "usd").await, "paid_out=10000000");
    assert!(stage.value::<bool>(format!("select can_creator_receive_payouts('{}')", creator(7))).await);
    stage.world.database.db = direct;
    stage.audit().await;
}
