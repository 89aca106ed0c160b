//! A gate in the database at which a function stops in the middle of its work, so that a test can kill it exactly there.
//!
//! A statement trigger on one table waits for an advisory lock that the test holds. Whoever is killed at the gate has done
//! everything before that statement and nothing after it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::database::Database;

/// Where a gate stands.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// Before the first row is written.
    Insert,
    Update,
    /// After a row was inserted for which the condition holds, as in `new.leg = 'arrive'`.
    InsertOf(&'static str),
    /// After a row was updated so that the condition holds.
    UpdateTo(&'static str),
    /// In the commit of a transaction that has inserted. Whoever is killed here is committed: the server finishes what it began.
    CommitOfInsert,
    /// In the commit of a transaction that has updated.
    CommitOfUpdate,
}

/// A closed gate. It opens with [`Gate::open`], or when this is dropped.
pub struct Gate {
    connection: PgConnection,
    name: String,
    table: String,
}

impl Gate {
    /// Closes a gate on the table. Whoever is past it already is not stopped.
    pub async fn close(database: &Database, at: At, table: &str) -> Self {
        let mut connection = PgConnection::connect(&database.url()).await.expect("a connection");
        let name = format!("gate_{:x}", fastrand::u32(..));
        let trigger = match at {
            At::Insert => format!("create trigger {name} before insert on {table} for each statement"),
            At::Update => format!("create trigger {name} before update on {table} for each statement"),
            At::InsertOf(row) => format!("create trigger {name} after insert on {table} for each row when ({row})"),
            At::UpdateTo(row) => format!("create trigger {name} after update on {table} for each row when ({row})"),
            At::CommitOfInsert => {
                format!("create constraint trigger {name} after insert on {table} deferrable initially deferred for each row")
            }
            At::CommitOfUpdate => {
                format!("create constraint trigger {name} after update on {table} deferrable initially deferred for each row")
            }
        };
        let sql = format!(
            "select pg_advisory_lock(hashtext('{name}'));
             create function {name}() returns trigger language plpgsql as $$
             begin perform pg_advisory_xact_lock_shared(hashtext('{name}')); return null; end $$;
             {trigger} execute function {name}()"
        );
        connection.execute(AssertSqlSafe(sql)).await.expect("a gate");
        Self { connection, name, table: table.to_owned() }
    }

    /// How many stand at the gate now.
    pub async fn waiting(&mut self) -> i64 {
        let sql = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                   where l.locktype = 'advisory' and not l.granted and d.datname = current_database()";
        let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&mut self.connection).await.expect("the locks");
        count
    }

    /// Waits until somebody stands at the gate.
    pub async fn reached(&mut self) {
        let until = tokio::time::Instant::now() + crate::system::PATIENCE;
        while self.waiting().await == 0 {
            assert!(tokio::time::Instant::now() < until, "nobody came to {}", self.table);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the connections of those who stand at the gate, as a failing server or network would.
    pub async fn cut(&mut self) {
        let sql = "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
                   where l.locktype = 'advisory' and not l.granted and d.datname = current_database()";
        self.connection.execute(sql).await.expect("cut");
    }

    /// Lets everybody through and takes the gate away.
    pub async fn open(mut self) {
        let Self { name, table, .. } = &self;
        let sql =
            format!("select pg_advisory_unlock(hashtext('{name}')); drop trigger {name} on {table}; drop function {name}()");
        self.connection.execute(AssertSqlSafe(sql)).await.expect("opened");
    }
}
