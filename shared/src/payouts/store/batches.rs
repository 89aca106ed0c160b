//! The SQL of runs and batches. A batch is created by a fixed number of set-based statements in one transaction, however many
//! payees it has.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::clock::Schedule;
use crate::config::Policy;
use crate::db::{FORGET_PLANS, ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::{BatchId, ChunkId, RunId, batch_hash};

/// This database's id.
pub async fn instance(tx: &mut Tx) -> Result<String> {
    let (id,): (String,) = tx.one(query_as("select id from instance")).await?;
    Ok(id)
}

/// Whether a pause or the kill switch is on.
pub async fn is_stopped(tx: &mut Tx) -> Result<bool> {
    let (stopped,): (bool,) = tx.one(query_as("select paused or killed from payout_controls")).await?;
    Ok(stopped)
}

/// The run of a schedule's cycle: the one there is, else a new one. `true`: it is new.
pub async fn start_run(
    tx: &mut Tx,
    schedule: Schedule,
    cycle_on: NaiveDate,
    cutoff_at: DateTime<Utc>,
    requested_by: &str,
) -> Result<(RunId, bool)> {
    let insert = query_as(
        "insert into payout_runs (kind, schedule, cycle_on, cutoff_at, requested_by, queued_at) values ('scheduled', $1, $2, $3, $4, now())
         on conflict (kind, schedule, cycle_on) do nothing returning id",
    );
    let made: Option<(RunId,)> =
        tx.optional(insert.bind(schedule.as_str()).bind(cycle_on).bind(cutoff_at).bind(requested_by.to_owned())).await?;
    if let Some((id,)) = made {
        return Ok((id, true));
    }
    let there = query_as("select id from payout_runs where kind = 'scheduled' and schedule = $1 and cycle_on = $2");
    let (id,): (RunId,) = tx.one(there.bind(schedule.as_str()).bind(cycle_on)).await?;
    Ok((id, false))
}

/// Keeps the run from being made until somebody asks for it again; not if somebody just has, for other facts.
pub async fn facts_changed(tx: &mut Tx, run: &Run, now: DateTime<Utc>) -> Result<()> {
    let statement =
        query("update payout_runs set facts_changed_at = $3 where id = $1 and preview_hash = $2 and batches_created_at is null");
    tx.run(statement.bind(run.id).bind(run.preview_hash.clone()).bind(now)).await?;
    Ok(())
}

/// When this database was made: no cycle before it can have been missed.
pub async fn born_at(tx: &mut Tx) -> Result<DateTime<Utc>> {
    let (at,): (DateTime<Utc>,) = tx.one(query_as("select created_at from instance")).await?;
    Ok(at)
}

/// The schedules that have a run of the date.
pub async fn schedules_run_on(tx: &mut Tx, cycle_on: NaiveDate) -> Result<Vec<String>> {
    let statement = query_as("select schedule from payout_runs where kind = 'scheduled' and cycle_on = $1");
    let rows: Vec<(String,)> = tx.all(statement.bind(cycle_on)).await?;
    Ok(rows.into_iter().map(|(schedule,)| schedule).collect())
}

/// A run as the batch creator needs it.
#[derive(Debug, Clone, FromRow)]
pub struct Run {
    pub id: RunId,
    pub kind: String,
    pub schedule: String,
    pub cycle_on: NaiveDate,
    pub cutoff_at: DateTime<Utc>,
    pub status: String,
    pub batches_created_at: Option<DateTime<Utc>>,
    /// The facts that it must be made of; none: whatever they are.
    pub preview_hash: Option<String>,
}

impl Run {
    /// Whom a run of kind `resume` is for: its schedule is the payee's id. `None`: everybody.
    fn only_payee(&self) -> Result<Option<Uuid>> {
        if self.kind != "resume" {
            return Ok(None);
        }
        let payee = self.schedule.parse();
        payee.map(Some).map_err(|error| Error::internal("A resumed run does not say for whom it is.").with_source(error))
    }
}

/// The run under its lock.
pub async fn lock_run(tx: &mut Tx, id: RunId) -> Result<Option<Run>> {
    tx.optional(query_as("select id, kind, schedule, cycle_on, cutoff_at, status, batches_created_at, preview_hash from payout_runs where id = $1 for no key update").bind(id)).await
}

/// What creating a run's batches made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    pub batches: u64,
    pub items: u64,
    pub excluded: u64,
}

/// Selects the eligible, nets debts, creates batches, chunks and items, reserves their money and records why everyone else is
/// not paid. The caller holds the run's lock and has seen that it has no batches yet. `FACTS_CHANGED`: the run was agreed to by
/// a preview that showed others; nothing may be committed then.
pub async fn create_batches(tx: &mut Tx, run: &Run, policy: &Policy, chunk_size: i64, now: DateTime<Utc>) -> Result<Created> {
    let due = Schedule::due_on(run.cycle_on);
    let others: Vec<String> = due.iter().map(|it| it.as_str().to_owned()).filter(|it| *it != run.schedule).collect();
    // Whoever's schedule is not due at all is told so by one of the date's runs, the first.
    let tells_not_due = due.first().is_some_and(|first| first.as_str() == run.schedule);
    let policy_json =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    let instance = instance(tx).await?;
    let only = run.only_payee()?;
    let schedules = only.is_none().then(|| vec![run.schedule.clone()]);

    tx.run(query(ROOM_FOR_MANY)).await?;
    // Money is locked before it is looked at, in the order in which everyone locks it.
    let lock = query(
        "select from payee_balances where held_platform + held_connected + available_platform + available_connected > 0 and ($1 is null or payee_id = $1)
         order by payee_id, currency for no key update",
    );
    tx.run(lock.bind(only)).await?;
    // A utility statement takes no parameters, so the table is made first and filled second.
    tx.run(query(
        "create temp table candidates (
            creator_id uuid, currency char(3), account text, destination text, balance_micros bigint, net_platform_micros bigint, net_connected_micros bigint,
            payable_minor bigint, transfer_minor bigint, connected_minor bigint, payout_minor bigint, reason text, minor_micros bigint, ordinal bigint)
         on commit drop",
    ))
    .await?;
    let fill = query(
        "insert into candidates
         select creator_id, currency, account, destination, balance_micros, net_platform_micros, net_connected_micros, payable_minor, transfer_minor, connected_minor,
                case when automatic then 0 else payable_minor end, reason, minor_micros,
                case when reason is null then row_number() over (partition by currency, reason is null order by creator_id) - 1 end
         from payout_candidates($1, $2, $3, $4, $5, $7)
         where $6 or reason is distinct from 'schedule_not_due'",
    );
    let fill = fill.bind(schedules).bind(others).bind(run.cutoff_at).bind(policy_json.clone()).bind(now).bind(tells_not_due);
    tx.run(fill.bind(only)).await?;
    tx.run(query("analyze candidates")).await?;
    if let Some(agreed) = &run.preview_hash {
        let facts = query_as(
            "select coalesce(encode(sha256(convert_to(string_agg(
                        payout_fact(creator_id, currency::text, account, destination, payable_minor, transfer_minor, payout_minor, reason),
                        chr(10) order by creator_id, currency), 'UTF8')), 'hex'), '') from candidates",
        );
        let (facts,): (String,) = tx.one(facts).await?;
        if facts != *agreed {
            return Err(Error::conflict(
                "FACTS_CHANGED",
                "The facts have changed since the preview; the run waits to be asked for again.",
            ));
        }
    }

    let net = query(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'run:' || $1, n.leg || ':' || creator_id || ':' || currency, creator_id, currency, n.account, 'debt', n.micros
         from candidates cross join lateral (values
            ('net_platform', 'available_platform', net_platform_micros), ('net_connected', 'available_connected', net_connected_micros)) as n (leg, account, micros)
         where n.micros > 0 order by creator_id, currency",
    );
    tx.run(net.bind(run.id.to_string())).await?;

    let currencies: Vec<(String, i64, i64)> = tx
        .all(query_as("select currency::text, count(*), sum(payable_minor)::bigint from candidates where reason is null group by currency order by currency"))
        .await?;
    let hashes: Vec<String> = currencies
        .iter()
        .map(|(currency, _, _)| batch_hash(&instance, &run.kind, &run.schedule, &run.cycle_on.to_string(), currency))
        .collect();
    let batches = query(
        "insert into payout_batches (run_id, currency, batch_hash, items, amount_minor)
         select $1, * from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[])",
    )
    .bind(run.id)
    .bind(currencies.iter().map(|(currency, _, _)| currency.clone()).collect::<Vec<_>>())
    .bind(hashes)
    .bind(currencies.iter().map(|(_, items, _)| *items).collect::<Vec<_>>())
    .bind(currencies.iter().map(|(_, _, amount)| *amount).collect::<Vec<_>>());
    tx.run(batches).await?;

    let chunks = query(
        "insert into payout_chunks (batch_id, ordinal)
         select b.id, o.ordinal from payout_batches b, lateral generate_series(0, (b.items - 1) / $2) as o (ordinal) where b.run_id = $1
         order by b.id, o.ordinal",
    );
    tx.run(chunks.bind(run.id).bind(chunk_size)).await?;

    let items = query(
        "insert into payout_items (batch_id, chunk_id, creator_id, currency, idempotency_key, amount_minor, transfer_minor, connected_minor, payout_minor, account, destination, due_at)
         select b.id, k.id, c.creator_id, c.currency, 'payday:' || $2 || ':' || b.batch_hash || ':' || c.creator_id,
                c.payable_minor, c.transfer_minor, c.connected_minor, c.payout_minor, c.account, c.destination, $4
         from candidates c join payout_batches b on b.run_id = $1 and b.currency = c.currency
         join payout_chunks k on k.batch_id = b.id and k.ordinal = c.ordinal / $3
         where c.reason is null order by b.id, c.creator_id",
    );
    let made = tx.run(items.bind(run.id).bind(instance).bind(chunk_size).bind(now)).await?.rows_affected();

    let reserve = query(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'item:' || i.id, r.leg, i.creator_id, i.currency, r.source, r.target, r.minor * m.micros_per_minor
         from payout_items i join payout_batches b on b.id = i.batch_id join currencies m on m.code = i.currency
         cross join lateral (values
            ('reserve_platform', 'available_platform', 'reserved_platform', i.transfer_minor),
            ('reserve_connected', 'available_connected', 'reserved_connected', i.connected_minor)) as r (leg, source, target, minor)
         where b.run_id = $1 and r.minor > 0",
    );
    tx.run(reserve.bind(run.id)).await?;

    let excluded = query(
        "insert into payout_exclusions (run_id, creator_id, currency, reason, code, balance_micros, payable_minor)
         select $1, creator_id, currency, reason, case when reason = 'destination_cooloff' then destination_code(creator_id, $2, $3) end,
                balance_micros, payable_minor
         from candidates where reason is not null",
    );
    let excluded = tx.run(excluded.bind(run.id).bind(policy_json.clone()).bind(now)).await?.rows_affected();
    // Withdrawals that wait for this cycle go out right after it, also of those whom no schedule pays.
    let done = query(
        "with due as (
            update withdrawal_requests w set due_at = $2 from payee_facts f
            where $6 = 'scheduled' and w.status = 'pending' and w.due_at is null and w.created_at <= $4 and f.payee_id = w.creator_id
                and f.schedule in ($5, 'manual')
         )
         update payout_runs set batches_created_at = $2, policy = $3 where id = $1",
    );
    let done = done.bind(run.id).bind(now).bind(policy_json).bind(run.cutoff_at).bind(run.schedule.clone());
    tx.run(done.bind(run.kind.clone())).await?;
    tx.run(query(FORGET_PLANS)).await?;
    Ok(Created { batches: currencies.len() as u64, items: made, excluded })
}

/// Keeps the policy for the functions that support calls by name.
pub async fn remember_policy(tx: &mut Tx, policy: &Policy) -> Result<()> {
    let policy =
        serde_json::to_value(policy).map_err(|error| Error::internal("The policy cannot be written.").with_source(error))?;
    tx.run(query("update payout_policies set policy = $1, changed_at = now() where policy <> $1").bind(policy)).await?;
    Ok(())
}

/// The run's chunks that nobody has worked on yet, marked as queued.
pub async fn chunks_to_queue(tx: &mut Tx, run: RunId) -> Result<Vec<ChunkId>> {
    let statement = query_as(
        "with due as (
            select k.id from payout_chunks k join payout_batches b on b.id = k.batch_id
            where b.run_id = $1 and exists (select from payout_items i where i.chunk_id = k.id and i.due_at is not null))
         update payout_chunks k set queued_at = now() from due where k.id = due.id returning k.id",
    );
    let mut rows: Vec<(ChunkId,)> = tx.all(statement.bind(run)).await?;
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Completes a batch in which nothing is pending or being sent any more. What waits (for funds, for a bank, for a person) does
/// not hold it open. Returns its run if it was completed now.
pub async fn complete_batch(tx: &mut Tx, batch: BatchId) -> Result<Option<RunId>> {
    let statement = query_as(
        "update payout_batches b set status = 'completed', halt_reason = null, completed_at = now()
         where b.id = $1 and (b.status = 'processing' or b.halt_reason = 'awaiting_funds')
           and not exists (select from payout_batch_counts c where c.batch_id = b.id and c.items > 0 and c.status in ('pending', 'transferring', 'transferred', 'paying_out'))
         returning b.run_id",
    );
    let row: Option<(RunId,)> = tx.optional(statement.bind(batch)).await?;
    Ok(row.map(|(run,)| run))
}

/// Completes a run whose batches are all completed. Returns its kind and how many milliseconds it took, if it was completed now.
pub async fn complete_run(tx: &mut Tx, run: RunId) -> Result<Option<(String, i64)>> {
    // Two batches of a run may be completed at the same time; the lock lets the later one see the earlier.
    tx.run(query("select from payout_runs where id = $1 for no key update").bind(run)).await?;
    let statement = query_as(
        "update payout_runs set status = 'completed', completed_at = now()
         where id = $1 and status = 'running' and batches_created_at is not null
           and not exists (select from payout_batches where run_id = $1 and status <> 'completed')
         returning kind, (extract(epoch from now() - started_at) * 1000)::bigint",
    );
    tx.optional(statement.bind(run)).await
}
