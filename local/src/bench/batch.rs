//! Batch creation against its baseline: what the batch creator does (maturing, and the one transaction of the batch) beside a bare
//! `insert … select` of the same rows into the same tables with their indexes and without triggers (`baseline.sql`).
//!
//! The code is the batch creator's own, called in this process so that the clock stands around exactly these two transactions.

use std::time::{Duration, Instant};

use payday::boundary::Boundary;
use payday::config::Policy;
use payday::id::RunId;
use payday::payouts::preview;
use payday::payouts::store::{self, batches};
use payday::{clock, earnings};
use serde_json::{Value as Json, json};
use sqlx::{Connection, Executor};

use super::figures::{micros, per_mille, per_second, seconds};
use super::rig::{CYCLE_ON, Loaded, Rig, broken, cutoff};
use crate::console::note;
use crate::job::Failure;

/// So often, each time in a fresh copy of the database; the middle one counts.
const ROUNDS: usize = 3;

pub async fn measure(rig: &Rig, large: bool) -> Result<Json, Failure> {
    let mut sizes = vec![size(rig, 100_000, 10).await?];
    if large {
        sizes.push(size(rig, 1_000_000, 2).await?);
    }
    let holds = sizes.iter().all(|size| size["holds"] == true);
    Ok(json!({
        "what": "maturing and the batch's one transaction, beside a bare insert … select of all rows they write or rewrite",
        "sizes": sizes,
        "aims": { "at_most_3_times_the_baseline": { "holds": holds } },
    }))
}

struct Round {
    previewed: Duration,
    matured: Duration,
    created: Duration,
    baseline: Duration,
    rows: i64,
    items: u64,
    statements: Vec<Json>,
}

impl Round {
    fn per_mille(&self) -> i64 {
        per_mille(micros(self.matured + self.created), micros(self.baseline))
    }
}

async fn size(rig: &Rig, payees: u64, earnings_each: u64) -> Result<Json, Failure> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let loaded = rig.database("batch", payees, earnings_each).await?;
        let round = round(rig, &loaded).await?;
        note(&format!(
            "batch of {payees}: preview {:?}, maturing {:?}, creating {:?}, baseline {:?}",
            round.previewed, round.matured, round.created, round.baseline
        ));
        rounds.push(round);
    }
    rig.postgres.drop_database("batch").await?;
    rounds.sort_by_key(Round::per_mille);
    let all: Vec<_> = rounds.iter().map(|round| payday::payouts::report::thousandths(round.per_mille())).collect();
    let middle = &rounds[rounds.len() / 2];
    Ok(json!({
        "payees": payees,
        "earnings": payees * earnings_each,
        "items": middle.items,
        "rows_written_or_rewritten": middle.rows,
        "preview_seconds": seconds(middle.previewed),
        "maturing_seconds": seconds(middle.matured),
        "creating_seconds": seconds(middle.created),
        "baseline_seconds": seconds(middle.baseline),
        "times_the_baseline": payday::payouts::report::thousandths(middle.per_mille()),
        "of_each_round": all,
        "payees_per_second": per_second(payees, middle.matured + middle.created),
        "statements": middle.statements,
        "holds": middle.per_mille() <= 3_000,
    }))
}

async fn round(rig: &Rig, loaded: &Loaded) -> Result<Round, Failure> {
    let mut connection = rig.postgres.connect(&loaded.name).await?;
    let has_statistics = connection.execute("create extension if not exists pg_stat_statements").await.is_ok();
    connection.execute("checkpoint").await.map_err(broken)?;
    if has_statistics {
        connection.execute("select pg_stat_statements_reset()").await.map_err(broken)?;
    }
    let db = rig.db(&loaded.url)?;
    let policy = Policy::load()?;
    let cycle_on = CYCLE_ON.parse().map_err(broken)?;
    // While everything is still held: the preview sums up what the batch creator finds matured.
    let began = Instant::now();
    let occasion = preview::occasion(cycle_on, None, policy.calendar, cutoff())?;
    let mut tx = db.begin().await?;
    let _ = store::preview::foresee(&mut tx, &occasion, &policy, None, 50).await?;
    drop(tx);
    let previewed = began.elapsed();
    let mut tx = db.begin().await?;
    let (run, _) = batches::start_run(&mut tx, clock::Schedule::Semimonthly, cycle_on, cutoff(), "bench").await?;
    tx.commit(Boundary::Outside).await?;

    let began = Instant::now();
    earnings::mature(&db, cutoff()).await?;
    let matured = began.elapsed();
    let began = Instant::now();
    let made = create(&db, run, &policy).await?;
    let created = began.elapsed();
    let statements = if has_statistics { statements(&mut connection).await? } else { Vec::new() };

    connection.execute(include_str!("baseline_prepare.sql")).await.map_err(broken)?;
    connection.execute("checkpoint").await.map_err(broken)?;
    let began = Instant::now();
    let mut rows = 0;
    let mut tx = connection.begin().await.map_err(broken)?;
    for statement in include_str!("baseline.sql").split(';').filter(|statement| statement.contains("insert")) {
        rows += tx.execute(statement).await.map_err(broken)?.rows_affected();
    }
    tx.commit().await.map_err(broken)?;
    let baseline = began.elapsed();
    connection.close().await.map_err(broken)?;
    Ok(Round { previewed, matured, created, baseline, rows: i64::try_from(rows).unwrap_or(0), items: made.items, statements })
}

async fn create(db: &payday::db::Db, run: RunId, policy: &Policy) -> Result<batches::Created, Failure> {
    let mut tx = db.begin().await?;
    let locked = batches::lock_run(&mut tx, run).await?.ok_or_else(|| broken("the run is gone"))?;
    batches::remember_policy(&mut tx, policy).await?;
    let made = batches::create_batches(&mut tx, &locked, policy, 25, clock::now()).await?;
    tx.commit(Boundary::Outside).await?;
    Ok(made)
}

/// Where the time went: the statements that took more than a hundredth of a second, longest first.
async fn statements(connection: &mut sqlx::PgConnection) -> Result<Vec<Json>, Failure> {
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(
        "select total_exec_time::bigint, rows, left(regexp_replace(query, '\\s+', ' ', 'g'), 70) from pg_stat_statements
         where dbid = (select oid from pg_database where datname = current_database()) and total_exec_time > 10
         order by total_exec_time desc",
    )
    .fetch_all(connection)
    .await
    .map_err(broken)?;
    Ok(rows.into_iter().map(|(ms, rows, statement)| json!({ "ms": ms, "rows": rows, "statement": statement })).collect())
}
