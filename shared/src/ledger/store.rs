//! The ledger's SQL.

use sqlx::FromRow;
use uuid::Uuid;

use super::Posting;
use crate::db::{Tx, query, query_as};
use crate::error::Result;

/// Posts in one statement. A posting that was made before is refused by its key: who may run twice reads first, under a lock,
/// whether its work is done.
pub async fn post(tx: &mut Tx, postings: &[Posting]) -> Result<()> {
    let postings: Vec<&Posting> = postings.iter().filter(|posting| posting.micros != 0).collect();
    if postings.is_empty() {
        return Ok(());
    }
    let statement = query(
        "insert into ledger_transfers (event, leg, attempt, payee_id, currency, from_account, to_account, amount_micros)
         select * from unnest($1::text[], $2::text[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::bigint[])",
    )
    .bind(postings.iter().map(|it| it.event.clone()).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.leg.to_owned()).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.attempt).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.payee).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.currency.clone()).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.from.as_str().to_owned()).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.to.as_str().to_owned()).collect::<Vec<_>>())
    .bind(postings.iter().map(|it| it.micros).collect::<Vec<_>>());
    tx.run(statement).await?;
    Ok(())
}

/// A payee's money in one currency, micros.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Balance {
    pub held_platform: i64,
    pub held_connected: i64,
    pub available_platform: i64,
    pub available_connected: i64,
    pub reserved_platform: i64,
    pub reserved_connected: i64,
    pub in_flight: i64,
    pub at_stripe: i64,
    pub paid_out: i64,
    pub debt: i64,
}

/// The balance under its row lock, which is the lock for the payee's money in that currency. Zero if there is none yet.
pub async fn lock_balance(tx: &mut Tx, payee: Uuid, currency: &str) -> Result<Balance> {
    let statement = query_as(
        "select held_platform, held_connected, available_platform, available_connected, reserved_platform, reserved_connected,
                in_flight, at_stripe, paid_out, debt
         from payee_balances where payee_id = $1 and currency = $2 for no key update",
    );
    Ok(tx.optional(statement.bind(payee).bind(currency.to_owned())).await?.unwrap_or_default())
}

/// A place where the kept balance differs from the entries' sum.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Difference {
    /// The payee's id, or `platform`.
    pub holder: String,
    pub currency: String,
    pub account: String,
    pub from_entries: i64,
    pub kept: i64,
}

/// Recomputes every balance from its entries and returns where they differ. Expected: nothing. Reads the whole ledger.
pub async fn differences(tx: &mut Tx) -> Result<Vec<Difference>> {
    tx.all(query_as("select holder, currency::text as currency, account, from_entries, kept from ledger_differences()")).await
}

/// Per currency: whether the payees' and the platform's accounts sum to zero; returns the currencies that do not, with the sum.
pub async fn unbalanced(tx: &mut Tx) -> Result<Vec<(String, i64)>> {
    tx.all(query_as(
        "select currency::text, sum(micros)::bigint from (
            select currency, held_platform + held_connected + available_platform + available_connected + reserved_platform + reserved_connected
                   + in_flight + at_stripe + paid_out + debt as micros from payee_balances
            union all
            select currency, earnings + fees + stripe_fees + losses from platform_balances) as everything
         group by currency having sum(micros) <> 0",
    ))
    .await
}

/// Payees whose accounts do not add up to what they earned, net of what was taken back. Expected: nobody.
/// Write-offs are postings from `losses` and count as earned.
pub async fn payees_out_of_balance(tx: &mut Tx) -> Result<Vec<(Uuid, String, i64, i64)>> {
    tx.all(query_as(
        "select b.payee_id, b.currency::text,
                (held_platform + held_connected + available_platform + available_connected + reserved_platform + reserved_connected
                 + in_flight + at_stripe + paid_out + debt) as has,
                (coalesce(e.net, 0) + coalesce(w.micros, 0))::bigint as earned
         from payee_balances b
         left join (select creator_id, currency, sum(net_micros - taken_back_net_micros)::bigint as net from creator_earnings group by 1, 2) e
           on e.creator_id = b.payee_id and e.currency = b.currency
         left join (select payee_id, currency, sum(amount_micros)::bigint as micros from ledger_transfers where from_account = 'losses' group by 1, 2) w
           on w.payee_id = b.payee_id and w.currency = b.currency
         where held_platform + held_connected + available_platform + available_connected + reserved_platform + reserved_connected
               + in_flight + at_stripe + paid_out + debt <> coalesce(e.net, 0) + coalesce(w.micros, 0)",
    ))
    .await
}
