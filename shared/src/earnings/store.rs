//! The SQL of earnings.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::taking_back::{self, Parts};
use super::{NewEarning, Place, Recorded, Value};
use crate::config::Policy;
use crate::db::{FORGET_PLANS, ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::{Error, FieldError, Result};
use crate::ledger::store::{lock_balance, post};
use crate::ledger::{Account, Posting};

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

#[derive(FromRow)]
struct Charged {
    id: i64,
    creator_id: Uuid,
    place: String,
    currency: String,
    gross_micros: i64,
    net_micros: i64,
    taken_back_gross_micros: i64,
    taken_back_net_micros: i64,
    held: bool,
    by_source_micros: i64,
}

/// What taking back did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// Micros of the creators' share.
    Net(i64),
    /// No earning has that charge (yet).
    NoEarning,
    /// The earnings are in another currency than the claim: a person must look.
    OtherCurrency,
}

/// Takes back what a dispute or refund claims of a charge. `source` is the dispute's or charge's own id, `cumulative_minor` its
/// running total: only what is new since the last time is taken, so a repeated, late or doubled event takes nothing twice.
/// From the hold if that very earning is still held, else from what is available, else as debt.
pub async fn take_back(tx: &mut Tx, source: &str, charge: &str, cumulative_minor: i64, currency: &str) -> Result<TakenBack> {
    tx.run(query("select from maturity for share")).await?;
    // Locked by a statement of its own: one that waited for the lock would still see the other tables as they were before.
    let lock = query("select from creator_earnings where charge_id = $1 order by id for no key update");
    tx.run(lock.bind(charge.to_owned())).await?;
    let statement = query_as(
        "select e.id, e.creator_id, e.place, e.currency::text as currency, e.gross_micros, e.net_micros, e.taken_back_gross_micros, e.taken_back_net_micros,
                e.available_at > m.through as held,
                coalesce((select sum(r.gross_micros) from earning_reversals r where r.earning_id = e.id and r.source = $2), 0)::bigint as by_source_micros
         from creator_earnings e, maturity m where e.charge_id = $1 order by e.id",
    );
    let earnings: Vec<Charged> = tx.all(statement.bind(charge.to_owned()).bind(source.to_owned())).await?;
    if earnings.is_empty() {
        return Ok(TakenBack::NoEarning);
    }
    if earnings.iter().any(|earning| earning.currency != currency) {
        return Ok(TakenBack::OtherCurrency);
    }
    let currency_rules: crate::money::Currency = currency.parse()?;
    let mut claimed = cumulative_minor.saturating_mul(currency_rules.micros_per_minor());
    let mut taken = 0_i64;
    for earning in earnings {
        // A charge may have several earnings; the claim fills them in their order.
        let of_this = claimed.min(earning.gross_micros);
        claimed -= of_this;
        let parts = Parts {
            gross_micros: earning.gross_micros,
            net_micros: earning.net_micros,
            taken_back_gross_micros: earning.taken_back_gross_micros,
            taken_back_net_micros: earning.taken_back_net_micros,
            by_source_micros: earning.by_source_micros,
        };
        if let Some((gross, net)) = taking_back::newly(&parts, of_this) {
            taken += net;
            write_reversal(tx, &earning, source, of_this, gross, net).await?;
        }
    }
    Ok(TakenBack::Net(taken))
}

async fn write_reversal(tx: &mut Tx, earning: &Charged, source: &str, cumulative: i64, gross: i64, net: i64) -> Result<()> {
    let insert = query(
        "insert into earning_reversals (earning_id, source, cumulative_gross_micros, gross_micros, net_micros) values ($1, $2, $3, $4, $5)",
    );
    tx.run(insert.bind(earning.id).bind(source.to_owned()).bind(cumulative).bind(gross).bind(net)).await?;
    let update = query(
        "update creator_earnings set taken_back_gross_micros = taken_back_gross_micros + $2, taken_back_net_micros = taken_back_net_micros + $3 where id = $1",
    );
    tx.run(update.bind(earning.id).bind(gross).bind(net)).await?;

    let balance = lock_balance(tx, earning.creator_id, &earning.currency).await?;
    let place = Place::parse(&earning.place).unwrap_or(Place::Platform);
    let available = (balance.available_platform, balance.available_connected);
    let sources = taking_back::sources(earning.held, place, net, available);
    let event = format!("reversal:{}:{source}:{cumulative}", earning.id);
    let posting = |leg: &'static str, from: Account, micros: i64| Posting {
        event: event.clone(),
        leg,
        attempt: 1,
        payee: earning.creator_id,
        currency: earning.currency.clone(),
        from,
        to: Account::Earnings,
        micros,
    };
    let mut postings: Vec<Posting> = sources.into_iter().map(|(leg, from, micros)| posting(leg, from, micros)).collect();
    postings.push(posting("fee", Account::Fees, gross - net));
    post(tx, &postings).await
}
