//! What every section stands on: a private Postgres with databases of ready creators, the binaries, and a stack over one of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use payday::db::Db;
use serde_json::{Value as Json, json};
use sqlx::{Connection, Executor};
use tokio::sync::Mutex;

use super::figures;
use crate::console::note;
use crate::job::Failure;
use crate::postgres::Postgres;
use crate::samples::{self, Big};
use crate::stack::{Stack, StackOptions};
use crate::stripe_double::StripeDouble;

/// The cycle that is measured, and its cut-off: after all that `load.sql` writes has left its hold.
pub const CYCLE_ON: &str = "2026-11-15";
const CUTOFF: &str = "2026-11-15T06:00:00Z";
pub const WEBHOOK_SECRET: &str = "whsec_bench";
pub const JWT_SECRET: &str = "bench-jwt-secret-of-at-least-32-characters";
/// The migrated database that all others are copies of.
const CLEAN: &str = "clean";
const SEED: u64 = 20_261_115;

pub fn cutoff() -> DateTime<Utc> {
    CUTOFF.parse().unwrap_or_default()
}

pub struct Rig {
    pub folder: PathBuf,
    pub bin_dir: PathBuf,
    pub repository: PathBuf,
    pub postgres: Postgres,
    /// Databases with creators and earnings in them, by name: made once, then copied.
    loaded: Mutex<Vec<String>>,
}

/// A database of creators, with Stripe's side of them.
pub struct Loaded {
    pub name: String,
    pub url: String,
    pub big: Big,
}

pub fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("The benchmark broke: {error}."))
}

impl Rig {
    pub async fn start(folder: PathBuf, bin_dir: PathBuf, repository: PathBuf) -> Result<Self, Failure> {
        note("Starting Postgres");
        let postgres = Postgres::start(&folder.join("database")).await?;
        postgres.create_database(CLEAN).await?;
        payday::db::migrate(&postgres.url(CLEAN)).await?;
        Ok(Self { folder, bin_dir, repository, postgres, loaded: Mutex::default() })
    }

    /// A private copy of a database with so many creators, all of whose earnings are still held.
    pub async fn database(&self, name: &str, creators: u64, earnings: u64) -> Result<Loaded, Failure> {
        let big = samples::big(creators, earnings, SEED);
        let source = format!("loaded_{creators}_{earnings}");
        let mut loaded = self.loaded.lock().await;
        if !loaded.contains(&source) {
            self.load(&source, &big, creators, earnings).await?;
            loaded.push(source.clone());
        }
        drop(loaded);
        self.postgres.drop_database(name).await?;
        self.postgres.clone_database(&source, name).await?;
        Ok(Loaded { name: name.to_owned(), url: self.postgres.url(name), big })
    }

    async fn load(&self, name: &str, big: &Big, creators: u64, earnings: u64) -> Result<(), Failure> {
        note(&format!("Loading {creators} creators with {earnings} earnings each"));
        let began = Instant::now();
        self.postgres.clone_database(CLEAN, name).await?;
        let mut connection = self.postgres.connect(name).await?;
        connection.execute("create table bench_creators (number bigint, id uuid, account text)").await.map_err(broken)?;
        let mut copy = connection.copy_in_raw("copy bench_creators from stdin").await.map_err(broken)?;
        let mut rows = String::new();
        for number in 0..creators {
            let _ = writeln!(rows, "{number}\t{}\t{}", big.creator_id(number), big.account_id(number));
            if rows.len() > 1 << 20 || number + 1 == creators {
                copy.send(rows.as_bytes()).await.map_err(broken)?;
                rows.clear();
            }
        }
        copy.finish().await.map_err(broken)?;
        sqlx::query("select set_config('bench.earnings', $1, false)")
            .bind(earnings.to_string())
            .execute(&mut connection)
            .await
            .map_err(broken)?;
        connection.execute(include_str!("load.sql")).await.map_err(broken)?;
        // As a database is that autovacuum has had time for.
        connection.execute("vacuum analyze").await.map_err(broken)?;
        connection.execute("checkpoint").await.map_err(broken)?;
        connection.close().await.map_err(broken)?;
        note(&format!("  took {:?}", began.elapsed()));
        Ok(())
    }

    /// The functions over a database, with settings on top of the template's.
    pub async fn stack(&self, url: &str, double: &StripeDouble, settings: &[(&str, &str)]) -> Result<Stack, Failure> {
        let template = self.repository.join("template.yaml");
        let mut options = StackOptions::new(self.folder.join("stack"), template, &self.bin_dir, url);
        options.environment = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        options.environment.insert("STRIPE_API_BASE".to_owned(), double.base_url());
        options.secrets = BTreeMap::from([
            ("STRIPE_SECRET_KEY".to_owned(), "sk_test_payday_bench".to_owned()),
            ("STRIPE_WEBHOOK_SECRET".to_owned(), WEBHOOK_SECRET.to_owned()),
            ("CRON_SECRET".to_owned(), "bench-cron-secret".to_owned()),
            ("JWT_SECRET".to_owned(), JWT_SECRET.to_owned()),
        ]);
        options.retry_after = Some(Duration::from_secs(2));
        Ok(Stack::start(options).await?)
    }

    pub fn db(&self, url: &str) -> Result<Db, Failure> {
        Ok(Db::connect(url, 2)?)
    }

    /// What the figures were measured on.
    pub async fn machine(&self) -> Result<Json, Failure> {
        let mut connection = self.postgres.connect(CLEAN).await?;
        let (version,): (String,) =
            sqlx::query_as("select current_setting('server_version')").fetch_one(&mut connection).await.map_err(broken)?;
        connection.close().await.map_err(broken)?;
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        Ok(json!({
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "cpu": model,
            "load_before": load.split(' ').next(),
            "postgres": version,
            "profile": self.bin_dir.file_name().map(|name| name.to_string_lossy()),
            "functions_mb": figures::megabytes(self.sizes()?.values().sum()),
        }))
    }

    /// Bytes of each function's binary.
    pub fn sizes(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let names = crate::command::build::functions(&self.repository).map_err(broken)?;
        let size = |name: String| Ok((name.clone(), std::fs::metadata(self.bin_dir.join(name)).map_err(broken)?.len()));
        names.into_iter().map(size).collect()
    }

    pub async fn stop(self) {
        self.postgres.stop().await;
        let _ = Postgres::remove(&self.folder.join("database"));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
