//! The SQL of what operators decide about single payments.

use serde_json::Value;
use sqlx::FromRow;

use crate::db::{Tx, query, query_as};
use crate::error::Result;
use crate::id::{ItemId, OperationId, RunId};

/// The item that an operation belongs to.
pub async fn item_of(tx: &mut Tx, operation: OperationId) -> Result<Option<ItemId>> {
    let row: Option<(ItemId,)> =
        tx.optional(query_as("select item_id from payout_operations where id = $1").bind(operation)).await?;
    Ok(row.map(|(item,)| item))
}

/// What an item's transfers left at Stripe, minor units, and whether one came back in full.
pub async fn at_stripe(tx: &mut Tx, item: ItemId) -> Result<(i64, bool)> {
    let statement = query_as(
        "select coalesce(sum(amount_minor - reversed_minor), 0)::bigint, coalesce(bool_or(reversed_minor >= amount_minor), false)
         from payout_operations where item_id = $1 and leg = 'transfer' and state in ('accepted', 'returned')",
    );
    tx.one(statement.bind(item)).await
}

/// Whether an operation could be known by this id of Stripe's: no other one is, and it is by none or this.
pub async fn can_be(tx: &mut Tx, operation: OperationId, stripe_id: &str) -> Result<bool> {
    let statement = query_as(
        "select not exists (select from payout_operations where stripe_id = $1 and id <> $2 or id = $2 and stripe_id <> $1)",
    );
    let (can_be,): (bool,) = tx.one(statement.bind(stripe_id.to_owned()).bind(operation)).await?;
    Ok(can_be)
}

/// Says how an item was paid outside, and how much of it never was at Stripe. Its status is written by `chunks::save`.
pub async fn adopted(tx: &mut Tx, item: ItemId, reference: &str, minor: i64) -> Result<()> {
    let statement = query("update payout_items set adopted_reference = $2, adopted_minor = $3 where id = $1");
    tx.run(statement.bind(item).bind(reference.to_owned()).bind(minor)).await?;
    Ok(())
}

/// How an item was paid outside; `None`: it was not.
pub async fn adopted_by(tx: &mut Tx, item: ItemId) -> Result<Option<String>> {
    let statement = query_as("select adopted_reference from payout_items where id = $1");
    let (reference,): (Option<String>,) = tx.one(statement.bind(item)).await?;
    Ok(reference)
}

/// Failed items after an id, of one run or of all; no withdrawal, which is over for its creator, who has the money back and asks anew.
pub async fn failed_after(tx: &mut Tx, run: Option<RunId>, after: ItemId, limit: i64) -> Result<Vec<ItemId>> {
    let statement = query_as(
        "select i.id from payout_items i join payout_batches b on b.id = i.batch_id
         where i.status = 'failed' and i.id > $2 and ($1::bigint is null or b.run_id = $1)
           and not exists (select from withdrawal_requests w where w.item_id = i.id)
         order by i.id limit $3",
    );
    let rows: Vec<(ItemId,)> = tx.all(statement.bind(run).bind(after).bind(limit)).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// What somebody wants to be done and another has to confirm.
#[derive(Debug, Clone, FromRow)]
pub struct Proposal {
    pub action: String,
    pub decision: Value,
    pub evidence: String,
    pub proposed_by: String,
}

/// The open proposal about a subject, under its lock.
pub async fn lock_proposal(tx: &mut Tx, subject: &str) -> Result<Option<Proposal>> {
    let statement =
        query_as("select action, decision, evidence, proposed_by from operator_proposals where subject = $1 for update");
    tx.optional(statement.bind(subject.to_owned())).await
}

/// Puts a proposal in the place of the one there is.
pub async fn propose(tx: &mut Tx, subject: &str, proposal: &Proposal) -> Result<()> {
    let statement = query(
        "insert into operator_proposals (subject, action, decision, evidence, proposed_by) values ($1, $2, $3, $4, $5)
         on conflict (subject) do update set action = excluded.action, decision = excluded.decision, evidence = excluded.evidence,
            proposed_by = excluded.proposed_by, proposed_at = now()",
    )
    .bind(subject.to_owned())
    .bind(proposal.action.clone())
    .bind(proposal.decision.clone())
    .bind(proposal.evidence.clone())
    .bind(proposal.proposed_by.clone());
    tx.run(statement).await?;
    Ok(())
}

pub async fn forget_proposal(tx: &mut Tx, subject: &str) -> Result<()> {
    tx.run(query("delete from operator_proposals where subject = $1").bind(subject.to_owned())).await?;
    Ok(())
}
