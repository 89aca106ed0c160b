//! A database of its own for each test: a clone of a migrated template in one private cluster, which all tests of a process
//! share and which survives between runs, so that a warm run neither creates a cluster nor migrates.
//!
//! Two test processes at once take two clusters. What an interrupted run left behind is dropped by the next one.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use payday::db::{Db, MIGRATIONS, Tx};
use payday_local::postgres::{Postgres, PostgresError};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, PgConnection};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// Test processes that may have a cluster at the same time.
const CLUSTERS: usize = 8;
const TEMPLATE: &str = "payday_template_";
const CLONE: &str = "payday_test_";

/// The cluster of this process. It lives as long as the process, on a runtime of its own: each test has another one.
struct Cluster {
    postgres: Postgres,
    runtime: Runtime,
    creating: Mutex<PgConnection>,
    /// Apart from the one above: dropping waits, in steps of 100 ms, for connections to end.
    dropping: Mutex<PgConnection>,
    template: String,
    clones: AtomicU64,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    // A runtime cannot be entered from within another, hence the thread.
    CLUSTER.get_or_init(|| std::thread::spawn(start).join().expect("the tests' Postgres starts"))
}

fn start() -> Cluster {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (postgres, creating, dropping, template) = runtime.block_on(async {
        let postgres = start_cluster().await.unwrap_or_else(|error| panic!("{error}"));
        let mut admin = postgres.connect("postgres").await.expect("the new cluster answers");
        let template = prepare(&postgres, &mut admin).await;
        let dropping = postgres.connect("postgres").await.expect("the new cluster answers");
        (postgres, admin, dropping, template)
    });
    Cluster {
        postgres,
        runtime,
        creating: Mutex::new(creating),
        dropping: Mutex::new(dropping),
        template,
        clones: AtomicU64::new(0),
    }
}

async fn start_cluster() -> Result<Postgres, PostgresError> {
    // `cargo payday test` says where there is memory for it.
    let in_memory = std::env::var_os("PAYDAY_TEST_POSTGRES").map(PathBuf::from);
    let folder = in_memory.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test-postgres"));
    let mut place = 0;
    loop {
        place += 1;
        match Postgres::start(&folder.join(place.to_string())).await {
            Err(PostgresError::InUse { .. }) if place < CLUSTERS => {}
            other => return other,
        }
    }
}

/// Drops what earlier runs left and sees to it that the template has today's schema.
async fn prepare(postgres: &Postgres, admin: &mut PgConnection) -> String {
    // Where Postgres came without its contributions, the one test that counts statements says so.
    for sql in [
        "alter system set pg_stat_statements.track = 'none'",
        "select pg_reload_conf()",
        "create extension if not exists pg_stat_statements",
        "select pg_stat_statements_reset()",
    ] {
        let _ = admin.execute(sql).await;
    }
    let mut schema = Sha256::new();
    for migration in MIGRATIONS.iter() {
        schema.update(&migration.checksum);
    }
    let template = format!("{TEMPLATE}{}", hex::encode(&schema.finalize()[..8]));
    let names: Vec<(String,)> =
        sqlx::query_as("select datname::text from pg_database").fetch_all(&mut *admin).await.expect("the databases");
    let mut there = false;
    for (name,) in names {
        if name == template {
            there = true;
        } else if name.starts_with(TEMPLATE) || name.starts_with(CLONE) {
            execute(admin, format!("drop database \"{name}\" with (force)")).await;
        }
    }
    if !there {
        let making = format!("{CLONE}template");
        execute(admin, format!("create database {making}")).await;
        payday::db::migrate(&postgres.url(&making)).await.expect("the migrations run");
        // The first connection to a database writes its catalog cache, 100 ms of work; the clones get it with the files.
        let first = postgres.connect(&making).await.expect("the template answers");
        first.close().await.expect("the template is left alone");
        execute(admin, format!("alter database {making} rename to {template}")).await;
    }
    template
}

async fn execute(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

/// A test's own database, with today's schema and nothing in it. Dropped with this.
pub struct Database {
    pub db: Db,
    pub name: String,
    url: String,
    port: u16,
    /// Whether it is one of the shared cluster.
    shared: bool,
    direct: Mutex<PgConnection>,
}

impl Database {
    pub async fn new() -> Self {
        Self::create(Some(&cluster().template)).await
    }

    /// One without a schema.
    pub async fn empty() -> Self {
        Self::create(None).await
    }

    async fn create(template: Option<&str>) -> Self {
        let cluster = cluster();
        let number = cluster.clones.fetch_add(1, Ordering::Relaxed);
        let name = format!("{CLONE}{number}");
        let sql = match template {
            Some(template) => format!("create database {name} template {template} strategy file_copy"),
            None => format!("create database {name}"),
        };
        let created = cluster.runtime.spawn(async move { execute(&mut *cluster.creating.lock().await, sql).await });
        created.await.expect("a database");
        Self::open(&cluster.postgres, name, true).await
    }

    /// One of a cluster that a test has for itself, to kill it. It has to be there.
    pub async fn in_cluster(postgres: &Postgres, name: &str) -> Self {
        Self::open(postgres, name.to_owned(), false).await
    }

    async fn open(postgres: &Postgres, name: String, shared: bool) -> Self {
        let url = postgres.url(&name);
        let direct = Mutex::new(PgConnection::connect(&url).await.expect("a connection"));
        Self { db: Db::connect(&url, 8).expect("an address"), name, url, port: postgres.port(), shared, direct }
    }

    /// Makes it as it was when this was first called: for many short cases in a row, much cheaper than a clone for each.
    pub async fn renew(&self) {
        self.run(include_str!("renew.sql")).await;
    }

    /// Ends all other connections to it, and waits until they are gone.
    pub async fn disconnect_others(&self) {
        let others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
        while self.value::<i64>(format!("select count(pg_terminate_backend(pid)) {others}")).await > 0 {}
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn tx(&self) -> Tx {
        self.db.begin().await.expect("a transaction")
    }

    /// Runs statements outside of the library. Returns how many rows the last one changed.
    pub async fn run(&self, sql: impl Into<String>) -> u64 {
        let sql = sql.into();
        let done = self.direct.lock().await.execute(AssertSqlSafe(sql.clone())).await;
        done.unwrap_or_else(|error| panic!("{sql}\n{error}")).rows_affected()
    }

    /// From now on Postgres counts the statements of new connections, and only of this database: its statistics hold so many
    /// and no more, which all tests together exceed.
    pub async fn count_statements(&self) {
        self.run(format!("alter database {} set pg_stat_statements.track = 'top'", self.name)).await;
    }

    /// The statements counted in this database.
    pub async fn statements_run(&self) -> Vec<String> {
        let sql = format!(
            "select s.query from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = '{}' and s.query is not null",
            self.name
        );
        let cluster = cluster();
        let asked = cluster.runtime.spawn(async move {
            let mut admin = cluster.creating.lock().await;
            sqlx::query_as::<_, (String,)>(AssertSqlSafe(sql)).fetch_all(&mut *admin).await.expect("the statistics")
        });
        asked.await.expect("the statistics").into_iter().map(|(text,)| text).collect()
    }

    /// What the database refuses a statement with: the constraint's name, else its message.
    pub async fn refusal(&self, sql: impl Into<String>) -> String {
        let sql = sql.into();
        match self.direct.lock().await.execute(AssertSqlSafe(sql.clone())).await {
            Ok(_) => panic!("not refused: {sql}"),
            Err(sqlx::Error::Database(error)) => error.constraint().unwrap_or(error.message()).to_owned(),
            Err(error) => panic!("{sql}\n{error}"),
        }
    }

    pub async fn all<T>(&self, sql: impl Into<String>) -> Vec<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        let sql = sql.into();
        let rows = sqlx::query_as(AssertSqlSafe(sql.clone())).persistent(false).fetch_all(&mut *self.direct.lock().await).await;
        rows.unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    /// The only value of the only row.
    pub async fn value<T>(&self, sql: impl Into<String>) -> T
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        let sql = sql.into();
        let rows: Vec<(T,)> = self.all(sql.clone()).await;
        assert_eq!(rows.len(), 1, "one row of {sql}");
        rows.into_iter().next().expect("one row").0
    }

    pub async fn count(&self, of: &str) -> i64 {
        self.value(format!("select count(*) from {of}")).await
    }

    /// Rows as text, their columns with a space between, `-` for null: for comparing with a table in a test.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows: Vec<(Option<String>,)> = self
            .all(format!(
                "select (select string_agg(coalesce(v.value, '-'), ' ' order by v.ordinality)
                         from json_each_text(to_json(t)) with ordinality as v)
                 from ({sql}) as t"
            ))
            .await;
        rows.into_iter().map(|(row,)| row.unwrap_or_default()).collect()
    }

    /// The same for a single row.
    pub async fn row(&self, sql: &str) -> String {
        let mut rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "one row of {sql}: {rows:?}");
        rows.remove(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.shared {
            return;
        }
        let cluster = cluster();
        let sql = format!("drop database if exists {} with (force)", self.name);
        // Nobody waits for it; what is not dropped when the process ends, the next run drops.
        cluster.runtime.spawn(async move { cluster.dropping.lock().await.execute(AssertSqlSafe(sql)).await });
    }
}
