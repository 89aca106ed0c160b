//! The SQL of messages: their ways to readers, and the facts that letters tell.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

use super::Channel;
use crate::db::{Tx, query, query_as};
use crate::error::{Error, Result};
use crate::id::ItemId;

/// A message of the outbox that has not come to all its readers.
#[derive(Debug, Clone, FromRow)]
pub struct Message {
    pub id: i64,
    pub kind: String,
    pub payload: Value,
}

/// The message under its lock; `None`: it is done.
pub async fn lock(tx: &mut Tx, id: i64) -> Result<Option<Message>> {
    tx.optional(query_as("select id, kind, payload from outbox where id = $1 and sent_at is null for update").bind(id)).await
}

/// Whether its ways were decided before: they stay, whatever channels there are by now.
pub async fn is_planned(tx: &mut Tx, id: i64) -> Result<bool> {
    let (planned,): (bool,) =
        tx.one(query_as("select exists (select from outbox_deliveries where outbox_id = $1)").bind(id)).await?;
    Ok(planned)
}

pub async fn plan(tx: &mut Tx, id: i64, readers: &[(Channel, String)], now: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "insert into outbox_deliveries (outbox_id, channel, recipient, due_at) select $1, *, $4 from unnest($2::text[], $3::text[]) on conflict do nothing",
    )
    .bind(id)
    .bind(readers.iter().map(|(channel, _)| channel.as_str().to_owned()).collect::<Vec<_>>())
    .bind(readers.iter().map(|(_, to)| to.clone()).collect::<Vec<_>>())
    .bind(now);
    tx.run(statement).await?;
    Ok(())
}

/// A way that is ours to take now.
#[derive(Debug, Clone)]
pub struct Claim {
    pub channel: Channel,
    pub recipient: String,
    pub attempts: i32,
    /// Another claimed it and died: whether it was sent, nobody knows.
    pub is_lost: bool,
}

/// Claims what is due; each counts as being sent until the given instant.
pub async fn claim(tx: &mut Tx, id: i64, now: DateTime<Utc>, until: DateTime<Utc>) -> Result<Vec<Claim>> {
    let statement = query_as::<(String, String, i32, bool)>(
        "update outbox_deliveries d set state = 'sending', attempts = d.attempts + 1, due_at = $3
         from (select channel, recipient, state from outbox_deliveries where outbox_id = $1 and due_at <= $2 for update) as was
         where d.outbox_id = $1 and d.channel = was.channel and d.recipient = was.recipient
         returning d.channel, d.recipient, d.attempts, was.state = 'sending'",
    );
    let rows = tx.all(statement.bind(id).bind(now).bind(until)).await?;
    rows.into_iter()
        .map(|(channel, recipient, attempts, is_lost)| {
            let channel = Channel::parse(&channel)
                .ok_or_else(|| Error::internal(format!("Message {id} goes by a channel that this version does not know.")))?;
            Ok(Claim { channel, recipient, attempts, is_lost })
        })
        .collect()
}

/// What became of a claim.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub channel: Channel,
    pub recipient: String,
    pub state: &'static str,
    pub due_at: Option<DateTime<Utc>>,
    pub why: Option<String>,
}

pub async fn record(tx: &mut Tx, id: i64, outcomes: &[Outcome], now: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "update outbox_deliveries d set state = u.state, due_at = u.due_at, why = u.why, sent_at = case when u.state = 'sent' then $7 end
         from unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[]) as u (channel, recipient, state, due_at, why)
         where d.outbox_id = $1 and d.channel = u.channel and d.recipient = u.recipient and d.state = 'sending'",
    )
    .bind(id)
    .bind(outcomes.iter().map(|it| it.channel.as_str().to_owned()).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|it| it.recipient.clone()).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|it| it.state.to_owned()).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|it| it.due_at).collect::<Vec<_>>())
    .bind(outcomes.iter().map(|it| it.why.clone()).collect::<Vec<_>>())
    .bind(now);
    tx.run(statement).await?;
    Ok(())
}

/// The message is done when none of its ways is open.
pub async fn finish(tx: &mut Tx, id: i64, now: DateTime<Utc>) -> Result<()> {
    let statement = query(
        "update outbox set sent_at = $2
         where id = $1 and sent_at is null and not exists (select from outbox_deliveries where outbox_id = $1 and due_at is not null)",
    );
    tx.run(statement.bind(id).bind(now)).await?;
    Ok(())
}

/// How an item stands, for the creator's letter about it.
#[derive(Debug, Clone, FromRow)]
pub struct ItemFacts {
    pub email: Option<String>,
    pub currency: String,
    pub amount_minor: i64,
    pub arrival_on: Option<NaiveDate>,
    pub failure_reason: Option<String>,
}

pub async fn item(tx: &mut Tx, item: ItemId) -> Result<Option<ItemFacts>> {
    let statement = query_as(
        "select p.email, i.currency::text as currency, i.amount_minor, i.arrival_on, i.failure_reason
         from payout_items i join payees p on p.id = i.creator_id where i.id = $1",
    );
    tx.optional(statement.bind(item)).await
}

pub async fn email_of(tx: &mut Tx, payee: Uuid) -> Result<Option<String>> {
    let row: Option<(Option<String>,)> = tx.optional(query_as("select email from payees where id = $1").bind(payee)).await?;
    Ok(row.and_then(|(email,)| email))
}

/// How a run ended, by currency.
#[derive(Debug, Clone, FromRow)]
pub struct RunFacts {
    pub schedule: String,
    pub cycle_on: NaiveDate,
    pub currency: String,
    pub sent_items: i64,
    pub sent_minor: i64,
    pub waiting_items: i64,
    pub failed_items: i64,
    pub failed_minor: i64,
}

pub async fn run(tx: &mut Tx, run: i64) -> Result<Vec<RunFacts>> {
    let statement = query_as(
        "select r.schedule, r.cycle_on, s.currency::text as currency, s.paid_count + s.in_transit_count as sent_items, s.paid_minor + s.in_transit_minor as sent_minor,
                s.waiting_count + s.sending_count as waiting_items, s.failed_count as failed_items, s.failed_minor
         from payout_runs r join payout_batch_summary s on s.run_id = r.id where r.id = $1 order by s.currency",
    );
    tx.all(statement.bind(run)).await
}

/// A way of a message, as people see it.
#[derive(Debug, Clone, FromRow)]
pub struct Delivery {
    pub outbox_id: i64,
    pub kind: String,
    pub channel: String,
    pub recipient: String,
    pub state: String,
    pub attempts: i32,
    pub due_at: Option<DateTime<Utc>>,
    pub why: Option<String>,
    pub created_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
}

/// Ways in a state (none: those that failed), the newest first, before a position.
pub async fn list(tx: &mut Tx, state: Option<&str>, before: Option<&(i64, String, String)>, limit: i64) -> Result<Vec<Delivery>> {
    let (id, channel, recipient) = before.cloned().unwrap_or((i64::MAX, String::new(), String::new()));
    let statement = query_as(
        "select d.outbox_id, o.kind, d.channel, d.recipient, d.state, d.attempts, d.due_at, d.why, o.created_at, d.sent_at
         from outbox_deliveries d join outbox o on o.id = d.outbox_id
         where (d.outbox_id, d.channel, d.recipient) < ($2, $3, $4) and case when $1::text is null then d.state in ('unsure', 'given_up') else d.state = $1 end
         order by d.outbox_id desc, d.channel desc, d.recipient desc limit $5",
    );
    tx.all(statement.bind(state.map(str::to_owned)).bind(id).bind(channel).bind(recipient).bind(limit)).await
}
