//! The SQL of connecting a payee to Stripe.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::db::{Tx, query, query_as};
use crate::error::Result;
use crate::payees::onboarding::Request;
use crate::rails::stripe::Requirements;

/// This database's id.
pub async fn instance(tx: &mut Tx) -> Result<String> {
    let (id,): (String,) = tx.one(query_as("select id from instance")).await?;
    Ok(id)
}

/// The payee is there from now on, under the lock that two requests of theirs meet at.
pub async fn make_payee(tx: &mut Tx, payee: Uuid, email: Option<&str>) -> Result<()> {
    let insert = query("insert into payees (id, email) values ($1, $2) on conflict do nothing");
    tx.run(insert.bind(payee).bind(email.map(str::to_owned))).await?;
    let lock = query("update payees set email = coalesce(email, $2) where id = $1");
    tx.run(lock.bind(payee).bind(email.map(str::to_owned))).await?;
    Ok(())
}

/// The same lock, of a payee who is there.
pub async fn lock_payee(tx: &mut Tx, payee: Uuid) -> Result<()> {
    tx.run(query("select from payees where id = $1 for no key update").bind(payee)).await?;
    Ok(())
}

/// The payee's account and its country, unless it has left the platform.
pub async fn connected(tx: &mut Tx, payee: Uuid) -> Result<Option<(String, Option<String>)>> {
    let statement =
        query_as("select account, country::text from stripe_accounts where payee_id = $1 and deauthorized_at is null");
    tx.optional(statement.bind(payee)).await
}

/// The payee's last request for an account.
pub async fn account_request(tx: &mut Tx, payee: Uuid) -> Result<Option<Request>> {
    let statement = query_as(
        "select attempt, idempotency_key, request_body, country::text as country, state, look_up, first_sent_at
         from account_requests where payee_id = $1 for no key update",
    );
    tx.optional(statement.bind(payee)).await
}

/// Keeps what is about to be sent, in place of what was refused before.
pub async fn save_account_request(tx: &mut Tx, payee: Uuid, request: &Request) -> Result<()> {
    let statement = query(
        "insert into account_requests (payee_id, attempt, idempotency_key, request_body, country, state, look_up, first_sent_at) values ($1, $2, $3, $4, $5, 'open', false, $6)
         on conflict (payee_id) do update set attempt = excluded.attempt, idempotency_key = excluded.idempotency_key, request_body = excluded.request_body,
            country = excluded.country, state = 'open', look_up = false, first_sent_at = excluded.first_sent_at, code = null, message = null, updated_at = now()",
    );
    let statement =
        statement.bind(payee).bind(request.attempt).bind(request.idempotency_key.clone()).bind(request.request_body.clone());
    tx.run(statement.bind(request.country.clone()).bind(request.first_sent_at)).await?;
    Ok(())
}

/// It was looked for and not found: it may be sent, as first sent at that time.
pub async fn sends_again(tx: &mut Tx, payee: Uuid, first_sent_at: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "update account_requests set look_up = false, first_sent_at = $2, updated_at = now() where payee_id = $1 and state = 'open'",
    );
    tx.run(statement.bind(payee).bind(first_sent_at)).await?;
    Ok(())
}

/// What became of it is not known.
pub async fn look_up_account(tx: &mut Tx, payee: Uuid) -> Result<()> {
    let statement =
        query("update account_requests set look_up = true, updated_at = now() where payee_id = $1 and state = 'open'");
    tx.run(statement.bind(payee)).await?;
    Ok(())
}

/// Stripe said no to this attempt.
pub async fn account_refused(tx: &mut Tx, payee: Uuid, attempt: i32, code: Option<&str>, message: &str) -> Result<()> {
    let statement = query(
        "update account_requests set state = 'refused', code = $3, message = $4, updated_at = now()
         where payee_id = $1 and attempt = $2 and state = 'open'",
    );
    let statement = statement.bind(payee).bind(attempt).bind(code.map(str::to_owned)).bind(message.to_owned());
    tx.run(statement).await?;
    Ok(())
}

/// The account is there. `true`: that was not known.
pub async fn account_created(tx: &mut Tx, payee: Uuid) -> Result<bool> {
    let statement =
        query("update account_requests set state = 'created', updated_at = now() where payee_id = $1 and state = 'open'");
    Ok(tx.run(statement.bind(payee)).await?.rows_affected() > 0)
}

/// What is known of a payee's connection to Stripe.
#[derive(Debug, Clone, FromRow)]
pub struct Connection {
    pub account: Option<String>,
    pub country: Option<String>,
    pub ready: bool,
    pub transfers_active: bool,
    pub payouts_enabled: bool,
    pub charges_enabled: bool,
    /// Stripe pays the account out by itself.
    pub automatic: bool,
    pub requirements: Json<Requirements>,
    pub has_destination: bool,
    pub destination_changed_at: Option<DateTime<Utc>>,
    pub deauthorized_at: Option<DateTime<Utc>>,
    pub described_at: Option<DateTime<Utc>>,
}

/// `None`: nobody knows the payee.
pub async fn connection(tx: &mut Tx, payee: Uuid) -> Result<Option<Connection>> {
    let statement = query_as(
        "select f.account, f.country::text as country, f.ready, coalesce(a.transfers_active, false) as transfers_active,
                coalesce(a.payouts_enabled, false) as payouts_enabled, coalesce(a.charges_enabled, false) as charges_enabled, f.automatic,
                coalesce(a.requirements, '{}') as requirements, a.destination is not null as has_destination, f.destination_changed_at, a.deauthorized_at,
                nullif(a.state_at, '-infinity') as described_at
         from payee_facts f left join stripe_accounts a on a.payee_id = f.payee_id where f.payee_id = $1",
    );
    tx.optional(statement.bind(payee)).await
}
