//! All rows of Postgres as text, in the way of the model's `tables/rows.rs`.

use payday_tests::database::Database;

/// A table's rows in the order of their keys.
pub async fn of(database: &Database, table: &str) -> Vec<String> {
    database.rows(&sql(table)).await
}

/// An instant in microseconds.
fn micros(column: &str) -> String {
    format!(
        "case when isfinite({column}) then (extract(epoch from {column}) * 1000000)::bigint end as {}",
        column.replace('.', "_")
    )
}

fn sql(table: &str) -> String {
    match table {
        "items" => format!(
            "select id, batch_id, creator_id, currency::text, status, idempotency_key, amount_minor, transfer_minor, connected_minor, payout_minor,
                    transfer_attempt, payout_attempt, connected_moved, retries, account, failure_code, failure_reason, {}, {} from payout_items order by id",
            micros("due_at"),
            micros("waiting_since")
        ),
        "operations" => format!(
            "select id, item_id, leg, attempt, state, idempotency_key, account, amount_minor, currency::text, request_body, {}, {}, sends, lookups,
                    look_up, cleared, stripe_id, reversed_minor, {} from payout_operations order by id",
            micros("first_dispatched_at"),
            micros("dispatched_at"),
            micros("unknown_since")
        ),
        "balances" => "select payee_id, currency::text, held_platform, held_connected, available_platform, available_connected, reserved_platform,
                              reserved_connected, in_flight, at_stripe, paid_out, debt
                       from payee_balances
                       where (held_platform, held_connected, available_platform, available_connected, reserved_platform, reserved_connected, in_flight,
                              at_stripe, paid_out, debt) <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
                       order by payee_id, currency"
            .to_owned(),
        "runs" => format!(
            "select id, schedule, cycle_on, {}, status, batches_created_at is not null as batches_created, {} from payout_runs order by id",
            micros("cutoff_at"),
            micros("queued_at")
        ),
        "batches" => {
            "select id, run_id, currency::text, batch_hash, status, halt_reason, items, amount_minor from payout_batches order by id".to_owned()
        }
        "chunks" => format!(
            "select k.id, k.batch_id, (select string_agg(i.id::text, ',' order by i.id) from payout_items i where i.chunk_id = k.id) as items, k.lease,
                    {}, {} from payout_chunks k order by k.id",
            micros("k.leased_until"),
            micros("k.queued_at")
        ),
        "exclusions" => "select run_id, creator_id, currency::text, reason from payout_exclusions order by run_id, creator_id, currency".to_owned(),
        "earnings" => format!(
            "select creator_id, currency::text, place, gross_micros, net_micros, taken_back_gross_micros, taken_back_net_micros, charge_id, {}
             from creator_earnings order by id",
            micros("available_at")
        ),
        "accounts" => format!(
            "select payee_id, account, transfers_active, payouts_enabled, past_due, payout_interval = 'manual' as manual, destination, {}, {}, {}, stale
             from stripe_accounts order by payee_id",
            micros("destination_changed_at"),
            micros("deauthorized_at"),
            micros("state_at")
        ),
        "blocked" => "select id, blocked_reason from payees where blocked_reason is not null order by id".to_owned(),
        "events" => format!("select id, state, tries, {} from stripe_events order by id", micros("due_at")),
        "ledger" => "select count(*) from ledger_transfers".to_owned(),
        other => panic!("the model has a table {other:?}: say here how to read it"),
    }
}
