//! The SQL of earnings.

mod reversals;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use reversals::{Claim, TakenBack, claim, take_back};

use super::{NewEarning, Recorded, Value};
use crate::config::Policy;
use crate::db::{FORGET_PLANS, ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::{Error, FieldError, Result};

/// Rows written by one statement.
const ROWS_AT_ONCE: usize = 5_000;

/// Records earnings in the caller's transaction: payees they name come into being, held or available is told by the watermark.
pub async fn record(tx: &mut Tx, policy: &Policy, earnings: &[NewEarning]) -> Result<Recorded> {
    let mut frozen = Vec::with_capacity(earnings.len());
    for (index, earning) in earnings.iter().enumerate() {
        frozen.push(earning.freeze(policy).map_err(|problem| {
            Error::fields(vec![FieldError { field: format!("earnings[{index}]"), error: problem.to_owned() }])
        })?);
    }
    // Shared, so that maturing waits until these rows are there, and they for it.
    tx.run(query("select from maturity for share")).await?;
    let mut recorded = Recorded::default();
    let mut said: HashMap<&str, i64> = HashMap::with_capacity(earnings.len());
    let mut contradictions = Vec::new();
    for earning in earnings {
        let hash = earning.content_hash();
        if said.insert(&earning.source_id, hash).is_some_and(|before| before != hash) {
            contradictions.push(earning.source_id.clone());
        }
    }
    for (rows, frozen) in earnings.chunks(ROWS_AT_ONCE).zip(frozen.chunks(ROWS_AT_ONCE)) {
        let mut creators: Vec<Uuid> = rows.iter().map(|row| row.creator_id).collect();
        creators.sort_unstable();
        creators.dedup();
        tx.run(query("insert into payees (id) select * from unnest($1::uuid[]) on conflict do nothing").bind(creators)).await?;
        let insert = query_as(
            "insert into creator_earnings (source_id, content_hash, creator_id, kind, place, currency, tokens, token_rate_micros, fee_ppm,
                                           gross_micros, fee_micros, charge_id, occurred_at, available_at)
             select * from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
                                  $10::bigint[], $11::bigint[], $12::text[], $13::timestamptz[], $14::timestamptz[])
             on conflict (source_id) do nothing returning id",
        )
        .bind(rows.iter().map(|it| it.source_id.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(NewEarning::content_hash).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.creator_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.kind.as_str().to_owned()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.place.as_str().to_owned()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.currency.code()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| if let Value::Tokens(tokens) = it.value { Some(tokens) } else { None }).collect::<Vec<_>>())
        .bind(frozen.iter().map(|it| it.token_rate_micros).collect::<Vec<_>>())
        .bind(frozen.iter().map(|it| it.fee_ppm).collect::<Vec<_>>())
        .bind(frozen.iter().map(|it| it.gross_micros).collect::<Vec<_>>())
        .bind(frozen.iter().map(|it| it.fee_micros).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.charge_id.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.occurred_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|it| it.available_at(policy)).collect::<Vec<_>>());
        let new: Vec<(i64,)> = tx.all(insert).await?;
        let new: Vec<i64> = new.into_iter().map(|(id,)| id).collect();
        recorded.recorded += new.len() as u64;
        recorded.already_there += (rows.len() - new.len()) as u64;
        if new.len() < rows.len() {
            let there: Vec<(String, i64)> = tx
                .all(
                    query_as("select source_id, content_hash from creator_earnings where source_id = any($1)")
                        .bind(rows.iter().map(|it| it.source_id.clone()).collect::<Vec<_>>()),
                )
                .await?;
            contradictions.extend(there.into_iter().filter(|(id, hash)| said.get(id.as_str()) != Some(hash)).map(|(id, _)| id));
        }
        post_earned(tx, new).await?;
    }
    if contradictions.is_empty() { Ok(recorded) } else { Err(super::conflict(contradictions)) }
}

async fn post_earned(tx: &mut Tx, ids: Vec<i64>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let statement = query(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'earning:' || e.id, p.leg, e.creator_id, e.currency, 'earnings', p.target, p.micros
         from creator_earnings e
         left join stripe_accounts a on a.payee_id = e.creator_id
         cross join maturity m
         cross join lateral (values
            ('net', case when e.available_at > m.through then 'held_' || e.place
                         when e.place = 'connected' and a.payout_interval is distinct from 'manual' then 'paid_out'
                         else 'available_' || e.place end, e.net_micros),
            ('fee', 'fees', e.fee_micros)) as p (leg, target, micros)
         where e.id = any($1) and p.micros > 0",
    );
    tx.run(statement.bind(ids)).await?;
    Ok(())
}

/// Moves the watermark and the money of all that matured since: one posting per payee, currency and place. Money that Stripe
/// pays out by itself is not ours to pay: it is booked as paid out.
pub async fn mature(tx: &mut Tx, through: DateTime<Utc>) -> Result<u64> {
    let moved: Option<(Option<DateTime<Utc>>,)> = tx
        .optional(
            query_as(
                "with was as (select through from maturity for update)
                 update maturity m set through = $1 from was where was.through < $1
                 returning case when was.through = '-infinity' then null else was.through end",
            )
            .bind(through),
        )
        .await?;
    let Some((since,)) = moved else { return Ok(0) };
    tx.run(query(ROOM_FOR_MANY)).await?;
    let statement = query(
        "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
         select 'mature:' || $3, m.place || ':' || m.creator_id || ':' || m.currency, m.creator_id, m.currency, 'held_' || m.place,
                case when m.place = 'connected' and a.payout_interval is distinct from 'manual' then 'paid_out' else 'available_' || m.place end,
                m.micros
         from (select creator_id, currency, place, total(net_micros - taken_back_net_micros) as micros from creator_earnings
               where available_at > coalesce($1, '-infinity') and available_at <= $2 group by creator_id, currency, place) m
         left join stripe_accounts a on a.payee_id = m.creator_id
         where m.micros > 0
         order by m.creator_id, m.currency",
    );
    let statement = statement.bind(since).bind(through).bind(through.timestamp_micros().to_string());
    let postings = tx.run(statement).await?.rows_affected();
    tx.run(query(FORGET_PLANS)).await?;
    Ok(postings)
}
