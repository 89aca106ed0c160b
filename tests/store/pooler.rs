//! PgBouncer in transaction mode in front of the database, 8 clients on 3 backends, each statement with a text of its own. Our
//! way (unnamed, inside begin … commit) is right; the usual ways are not, which proves that the experiment can fail.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use payday::boundary::Boundary;
use payday::db::{Db, query_as};
use payday_local::reaper::Reaper;
use payday_tests::stage::{Stage, sending};
use payday_tests::world::{World, creator, earning};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

const CLIENTS: u32 = 8;
const BACKENDS: u32 = 3;
const STATEMENTS: i64 = 100;

/// A running PgBouncer. It ends when this is dropped, or when this process does, however that ends.
struct Pooler {
    port: u16,
    child: std::process::Child,
    _reaper: Reaper,
    folder: PathBuf,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Pooler {
    async fn start(world: &World) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
            .map(|folder| folder.join("pgbouncer"))
            .find(|program| program.is_file())
            .expect("PgBouncer is not installed on this machine. Install it with: apt-get install -y pgbouncer");
        let target: PgConnectOptions = world.url().parse().expect("an address");
        let url = target.to_url_lossy();
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
        // Where also another user can walk to.
        let folder = std::env::temp_dir().join(format!("payday-pooler-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).expect("a folder");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {BACKENDS}\nmax_client_conn = 100\nignore_startup_parameters = extra_float_digits\n",
            world.port(),
            url.username(),
            url.password().unwrap_or_default(),
        );
        let file = folder.join("pgbouncer.ini");
        let mut opened = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&file).expect("a file");
        opened.write_all(settings.as_bytes()).expect("written");
        let mut command = Command::new(program);
        command
            .arg("-q")
            .arg(&file)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // It refuses to run as root, as Postgres does.
        if Uid::effective().is_root() {
            let user = ["postgres", "_postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
            let user = user.expect("a user to run PgBouncer as");
            for path in [&folder, &file] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("given away");
            }
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let child = command.spawn().expect("PgBouncer starts");
        let reaper = Reaper::of_process(child.id(), "KILL").expect("a reaper");
        let pooler = Self { port, child, _reaper: reaper, folder };
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(error) = PgConnection::connect(&pooler.url(&world.name)).await {
            assert!(Instant::now() < until, "PgBouncer does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pooler
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://anyone@127.0.0.1:{}/{database}", self.port)
    }
}

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
    let url = pooler.url(&world.name);
    assert_eq!(our_way(&url).await, Wrong::default());
    // The control. Which of the two goes wrong, and how, is up to the version of the pooler.
    let named = the_usual_way(&url, true).await;
    let unnamed = the_usual_way(&url, false).await;
    assert!(unnamed.results > 0, "unnamed without a transaction: another client's statement runs in place of ours: {unnamed:?}");
    assert!(named != Wrong::default() || unnamed != Wrong::default(), "{named:?} {unnamed:?}");
    // Right again afterwards: it was not luck with a fresh pooler.
    assert_eq!(our_way(&url).await, Wrong::default());
}

#[tokio::test]
async fn a_whole_cycle_runs_behind_a_transaction_mode_pooler() {
    let mut stage = Stage::new().await;
    let pooler = Pooler::start(&stage.world).await;
    let db = Db::connect(&pooler.url(&stage.name), 6).expect("an address");
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
