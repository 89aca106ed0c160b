//! What disputes and refunds take back of earnings, and give back. What they mean is decided in `earnings::taking_back`.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Tx, query, query_as};
use crate::earnings::Place;
use crate::earnings::taking_back::{self, Home, Known, Parts, TakenFrom};
use crate::error::Result;
use crate::ledger::store::{lock_balance, post};
use crate::ledger::{Account, Posting};

/// What a dispute or refund holds of a charge.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The dispute's or refunded charge's own id, with its kind before it: `dispute:dp_1`.
    pub source: &'a str,
    pub charge: &'a str,
    /// All that it claims, minor units; zero once the dispute is won.
    pub minor: i64,
    /// Lower-case code.
    pub currency: &'a str,
    /// When Stripe said so, in whole seconds; none for a running total, which only grows.
    pub said_at: Option<DateTime<Utc>>,
}

/// What taking back did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// Micros of the creators' share; below zero, they were given back.
    Net(i64),
    /// No earning has that charge (yet).
    NoEarning,
    /// The earnings are in another currency than the claim: a person must look.
    OtherCurrency,
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
    automatic: bool,
    /// What this source is known to claim.
    claimed_micros: Option<i64>,
    said_at: Option<DateTime<Utc>>,
    /// What all the others claim.
    others_micros: i64,
}

/// Takes back what a source claims by its running total, which only grows: a repeated, late or doubled event takes nothing twice.
pub async fn take_back(tx: &mut Tx, source: &str, charge: &str, cumulative_minor: i64, currency: &str) -> Result<TakenBack> {
    claim(tx, &Claim { source, charge, minor: cumulative_minor, currency, said_at: None }).await
}

/// Brings what is taken of a charge's earnings to what its disputes and refunds claim together. Taken from the hold if that very
/// earning is still held, else from what is available, else as debt; given back to where it was taken from.
pub async fn claim(tx: &mut Tx, claim: &Claim<'_>) -> Result<TakenBack> {
    tx.run(query("select from maturity for share")).await?;
    // Locked by a statement of its own: one that waited for the lock would still see the other tables as they were before.
    let lock = query("select from creator_earnings where charge_id = $1 order by id for no key update");
    tx.run(lock.bind(claim.charge.to_owned())).await?;
    let statement = query_as(
        "select e.id, e.creator_id, e.place, e.currency::text as currency, e.gross_micros, e.net_micros, e.taken_back_gross_micros, e.taken_back_net_micros,
                e.available_at > m.through as held, a.payout_interval is distinct from 'manual' as automatic,
                own.cumulative_gross_micros as claimed_micros, own.said_at,
                coalesce((select total(latest.micros) from (
                    select distinct on (r.source) r.cumulative_gross_micros as micros from earning_reversals r
                    where r.earning_id = e.id and r.source <> $2 order by r.source, r.id desc) as latest), 0)::bigint as others_micros
         from creator_earnings e cross join maturity m
         left join stripe_accounts a on a.payee_id = e.creator_id
         left join lateral (
            select r.cumulative_gross_micros, r.said_at from earning_reversals r
            where r.earning_id = e.id and r.source = $2 order by r.id desc limit 1) own on true
         where e.charge_id = $1 order by e.id",
    );
    let earnings: Vec<Charged> = tx.all(statement.bind(claim.charge.to_owned()).bind(claim.source.to_owned())).await?;
    if earnings.is_empty() {
        return Ok(TakenBack::NoEarning);
    }
    if earnings.iter().any(|earning| earning.currency != claim.currency) {
        return Ok(TakenBack::OtherCurrency);
    }
    let currency: crate::money::Currency = claim.currency.parse()?;
    let mut left = claim.minor.saturating_mul(currency.micros_per_minor());
    let mut taken = 0_i64;
    for earning in earnings {
        // A charge may have several earnings; the claim fills them in their order.
        let of_this = left.min(earning.gross_micros);
        left -= of_this;
        let known = earning.claimed_micros.map(|micros| Known { micros, said_at: earning.said_at });
        if let Some(claimed) = taking_back::heard(known, of_this, claim.said_at) {
            taken += write(tx, &earning, claim, claimed).await?;
        }
    }
    Ok(TakenBack::Net(taken))
}

/// Writes what a source claims of an earning now, and moves the money. Returns the change of the creator's share that is taken.
async fn write(tx: &mut Tx, earning: &Charged, claim: &Claim<'_>, claimed_micros: i64) -> Result<i64> {
    let parts = Parts {
        gross_micros: earning.gross_micros,
        net_micros: earning.net_micros,
        taken_back_gross_micros: earning.taken_back_gross_micros,
        taken_back_net_micros: earning.taken_back_net_micros,
    };
    let (gross, net) = taking_back::change(&parts, earning.others_micros.saturating_add(claimed_micros));
    let insert = query(
        "insert into earning_reversals (earning_id, source, cumulative_gross_micros, said_at, gross_micros, net_micros) values ($1, $2, $3, $4, $5, $6)",
    );
    let insert = insert.bind(earning.id).bind(claim.source.to_owned()).bind(claimed_micros).bind(claim.said_at);
    tx.run(insert.bind(gross).bind(net)).await?;
    let update = query(
        "update creator_earnings set taken_back_gross_micros = taken_back_gross_micros + $2, taken_back_net_micros = taken_back_net_micros + $3 where id = $1",
    );
    tx.run(update.bind(earning.id).bind(gross).bind(net)).await?;

    let balance = lock_balance(tx, earning.creator_id, &earning.currency).await?;
    let place = Place::parse(&earning.place).unwrap_or(Place::Platform);
    let told = claim.said_at.map_or_else(String::new, |at| format!(":{}", at.timestamp()));
    let event = format!("reversal:{}:{}:{claimed_micros}{told}", earning.id, claim.source);
    let posting = |leg: &'static str, from: Account, to: Account, micros: i64| Posting {
        event: event.clone(),
        leg,
        attempt: 1,
        payee: earning.creator_id,
        currency: earning.currency.clone(),
        from,
        to,
        micros,
    };
    let mut postings = Vec::new();
    if gross >= 0 {
        let available = (balance.available_platform, balance.available_connected);
        for (leg, from, micros) in taking_back::sources(earning.held, place, net, available) {
            postings.push(posting(leg, from, Account::Earnings, micros));
        }
        postings.push(posting("fee", Account::Fees, Account::Earnings, gross - net));
    } else {
        let home = Home { place, held: earning.held, automatic: earning.automatic, owed_micros: -balance.debt };
        for (leg, to, micros) in taking_back::destinations(-net, taken_from(tx, earning).await?, home) {
            postings.push(posting(leg, Account::Earnings, to, micros));
        }
        postings.push(posting("fee", Account::Earnings, Account::Fees, net - gross));
    }
    post(tx, &postings).await?;
    Ok(net)
}

/// From which accounts an earning's reversals have taken what they have not given back.
async fn taken_from(tx: &mut Tx, earning: &Charged) -> Result<TakenFrom> {
    let statement = query_as(
        "select total(case when account like 'held_%' then micros else 0 end)::bigint as held,
                total(case when account = 'available_platform' then micros else 0 end)::bigint as platform,
                total(case when account = 'available_connected' then micros else 0 end)::bigint as connected,
                total(case when account = 'debt' then micros else 0 end)::bigint as debt
         from (
            select case leg when 'held' then 'held_' when 'debt' then 'debt' when 'netted' then 'debt'
                        when 'own' then 'available_' || $4 else 'available_' || case $4 when 'platform' then 'connected' else 'platform' end end as account,
                   case when to_account = 'earnings' then amount_micros else -amount_micros end as micros
            from ledger_transfers
            where payee_id = $1 and currency = $2 and starts_with(event, 'reversal:' || $3 || ':') and leg in ('held', 'own', 'other', 'debt', 'netted')) as moved",
    );
    let statement = statement.bind(earning.creator_id).bind(earning.currency.clone()).bind(earning.id.to_string());
    tx.one(statement.bind(earning.place.clone())).await
}
