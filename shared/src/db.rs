//! The one place where SQL meets a connection.
//!
//! sqlx prepares and executes in two round trips that a transaction-mode pooler may send to two different backends, which
//! runs another client's statement in place of ours without an error. A pooler's mode cannot be told reliably from inside,
//! so there is one way here that is right everywhere: **every statement runs unnamed, inside begin … commit**. Hence the
//! pool is private and statements are made by [`query`] and [`query_as`] only.
//!
//! Money rests on commits, so each names the boundary it is (`commit(Boundary::ClaimChunk)`). When the answer to a commit is
//! lost, it may have happened: callers read again by id and never redo blindly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgQueryResult, PgRow};
use sqlx::query::{Query, QueryAs};
use sqlx::{ConnectOptions, FromRow, Postgres, Transaction};

use crate::boundary::{Boundary, cross};
use crate::error::{Error, Kind, Result};

/// A statement without rows, unnamed.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// A statement with rows of type `T`, unnamed.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn query_as<T>(sql: &'static str) -> QueryAs<'static, Postgres, T, PgArguments>
where
    T: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql).persistent(false)
}

/// For a transaction over everybody: sorts and hashes of a hundred thousand payees stay in memory.
pub const ROOM_FOR_MANY: &str = "set local work_mem = '128MB'";
/// At the end of such a transaction: triggers keep the plans they made for many rows, and a pooler gives the backend to someone
/// with a few, for whom those plans read whole tables.
pub const FORGET_PLANS: &str = "discard plans";

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    /// Of this handle, and of those it was made from.
    statements: Vec<Arc<AtomicU64>>,
}

impl Db {
    /// Opens no connection yet: a function that starts while the database restarts must start all the same.
    pub fn connect(url: &str, max_connections: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(|_| {
            Error::config("DATABASE_URL", "is not a Postgres address like postgres://user:password@host:5432/database")
        })?;
        let options = options.application_name("payday").disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            // A pooler may drop an idle connection; the test costs a round trip that `begin` makes anyway.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool, statements: vec![Arc::default()] })
    }

    /// Statements run through this handle and its clones so far (begin and commit not counted).
    pub fn statements(&self) -> u64 {
        self.statements.last().map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The same database with a count of its own, for work that runs beside other work.
    pub fn counting_apart(&self) -> Self {
        let mut statements = self.statements.clone();
        statements.push(Arc::default());
        Self { pool: self.pool.clone(), statements }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    pub async fn begin(&self) -> Result<Tx> {
        // After a restart or a failover every pooled connection can be dead; the first one that answers is taken.
        let mut last = None;
        for _ in 0..=self.pool.options().get_max_connections() {
            match self.pool.begin().await {
                Ok(tx) => return Ok(Tx { tx, statements: self.statements.clone() }),
                Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Database(_) | sqlx::Error::Protocol(_))) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| Error::internal("The database could not be asked."), Error::from))
    }
}

/// An open transaction. Dropped without a commit, it never happened. Never held across a call to Stripe.
pub struct Tx {
    tx: Transaction<'static, Postgres>,
    statements: Vec<Arc<AtomicU64>>,
}

impl Tx {
    fn count(&self) {
        for count in &self.statements {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub async fn run(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<PgQueryResult> {
        self.count();
        Ok(query.execute(&mut *self.tx).await?)
    }

    pub async fn all<T>(&mut self, query: QueryAs<'_, Postgres, T, PgArguments>) -> Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.count();
        Ok(query.fetch_all(&mut *self.tx).await?)
    }

    pub async fn optional<T>(&mut self, query: QueryAs<'_, Postgres, T, PgArguments>) -> Result<Option<T>>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.count();
        Ok(query.fetch_optional(&mut *self.tx).await?)
    }

    pub async fn one<T>(&mut self, query: QueryAs<'_, Postgres, T, PgArguments>) -> Result<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        self.count();
        Ok(query.fetch_one(&mut *self.tx).await?)
    }

    /// Undoes it and gives its locks back before anything else happens. Dropped, it gives them back when the pool gets to it, which
    /// on a frozen Lambda is whenever it thaws: whoever ends without a commit and holds locks that others ask for calls this.
    pub async fn rollback(self) {
        if let Err(error) = self.tx.rollback().await {
            tracing::debug!(%error, "the connection is gone, and the transaction with it");
        }
    }

    /// Makes it so. `boundary` names this point of no return for logs and fault tests.
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    pub async fn commit(self, boundary: Boundary) -> Result<()> {
        let mut tx = Some(self.tx);
        let committed = cross(boundary, || {
            let tx = tx.take();
            async {
                match tx {
                    Some(tx) => Ok(tx.commit().await?),
                    None => Ok(()),
                }
            }
        });
        committed.await.inspect_err(|error: &Error| {
            tracing::warn!(%boundary, error = %error, causes = error.causes(), "commit not answered");
        })
    }
}

/// Turns a database error into ours. The named constraints of the schema are our error codes.
fn explain(error: sqlx::Error) -> Error {
    if let sqlx::Error::RowNotFound = error {
        return Error::not_found("The row");
    }
    if let sqlx::Error::Database(database) = &error {
        let state = database.code().unwrap_or_default().into_owned();
        let transient = matches!(
            state.as_str(),
            "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03" | "53300" | "08006" | "08003" | "08P01"
        );
        if transient {
            return Error::unavailable("DATABASE_BUSY", "The database is busy or restarting; try again.").with_source(error);
        }
        // Its own code for a sum above what a bigint holds: whoever brought in the amount may be told.
        let code = if state == "22003" { "OUT_OF_RANGE" } else { "DATABASE" };
        return Error::new(Kind::Internal, code, "The database refused a statement.").with_source(error);
    }
    if matches!(
        error,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::Encode(_)
    ) {
        return Error::new(Kind::Internal, "DATABASE", "The database answered something unexpected.").with_source(error);
    }
    Error::unavailable("DATABASE_UNAVAILABLE", "The database does not answer; try again in a moment.").with_source(error)
}

/// The migrations, compiled in.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Brings the schema up to date over a session or direct connection. Running it twice at once is safe: sqlx takes an
/// advisory lock. Returns the version the schema has then.
pub async fn migrate(url: &str) -> Result<i64> {
    let failed = |error: sqlx::migrate::MigrateError| {
        Error::unavailable("MIGRATION_FAILED", format!("The migrations did not run: {error}"))
    };
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(20)).connect(url).await?;
    MIGRATIONS.run(&pool).await.map_err(failed)?;
    pool.close().await;
    Ok(MIGRATIONS
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0))
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        explain(error)
    }
}
