//! The SQL of the standing checks. Each answers with lines of a check's name and a row that disagrees with it.

use chrono::{DateTime, Utc};

use crate::db::{ROOM_FOR_MANY, Tx, query, query_as};
use crate::error::Result;
use crate::id::{BatchId, ChunkId};

/// The checks that go by items, over one chunk or over all. One statement: it sees one instant, beside which others may go on.
/// The condition on the chunk is known when it is planned, so that one chunk is found by indexes.
pub async fn of_items(tx: &mut Tx, chunk: Option<ChunkId>) -> Result<Vec<(String, String)>> {
    let statement = query_as(
        "with attempts as materialized (
            select o.id, o.item_id, o.leg, o.attempt, o.state, o.stripe_id, o.sends, o.first_dispatched_at, o.dispatched_at, o.send_deadline,
                   o.unknown_since, i.status, i.due_at, o.amount_minor * c.micros_per_minor as micros,
                   -- Found out to be different from what was asked for, it is live all the same.
                   o.state = 'accepted' and (o.leg = 'payout' or o.reversed_minor < o.amount_minor)
                       or o.state = 'frozen' and o.stripe_id is not null as is_live,
                   lag(o.state) over legs as state_before, coalesce(lag(o.attempt) over legs, 0) as attempt_before,
                   min(o.id) filter (where o.leg = 'payout') over (partition by o.item_id) as first_payout
            from payout_items i join payout_operations o on o.item_id = i.id join currencies c on c.code = o.currency
            -- Said of both, so that also a planner without statistics finds the operations by their index.
            where $1::bigint is null or i.chunk_id = $1 and o.item_id = any (array(select id from payout_items where chunk_id = $1))
            window legs as (partition by o.item_id, o.leg order by o.attempt)
         ), numbers as (
            select item_id, count(*) filter (where leg = 'transfer') as transfers, count(*) filter (where leg = 'payout') as payouts,
                   count(*) filter (where leg = 'transfer' and is_live) as live_transfers, count(*) filter (where leg = 'payout' and is_live) as live_payouts,
                   string_agg(format('%s.%s %s', leg, attempt, stripe_id), ', ' order by id) filter (where is_live) as live
            from attempts group by item_id
         ), kept as (
            select i.creator_id, i.currency,
                   sum(i.transfer_minor * c.micros_per_minor) filter (where i.status in ('pending', 'awaiting_funds') or w.is_back) as platform,
                   sum(i.connected_minor * c.micros_per_minor) filter (where not i.connected_moved) as connected,
                   sum(o.amount_minor * c.micros_per_minor) filter (where o.leg = 'transfer') as in_flight
            from payout_items i join currencies c on c.code = i.currency
            left join payout_operations o on o.item_id = i.id and o.state in ('dispatched', 'not_run', 'unknown', 'frozen', 'unresolved')
            -- Waits for a person because Stripe has an object of an attempt that was refused, whose money had gone back.
            cross join lateral (select case when i.status = 'needs_review' then not exists (
                select from payout_operations t where t.item_id = i.id and t.leg = 'transfer' and t.state not in ('rejected', 'canceled')) end as is_back) w
            where is_unsettled(i.status) and ($1::bigint is null or i.creator_id = any (array(select creator_id from payout_items where chunk_id = $1)))
            group by i.creator_id, i.currency
         ), asked as (
            select w.creator_id, w.currency, sum(w.transfer_minor * c.micros_per_minor) as platform, sum(w.connected_minor * c.micros_per_minor) as connected
            from withdrawal_requests w join currencies c on c.code = w.currency
            where w.status = 'pending' and ($1::bigint is null or w.creator_id = any (array(select creator_id from payout_items where chunk_id = $1)))
            group by w.creator_id, w.currency
         )
         select v.name, v.line
         from attempts a
         cross join lateral (
            select coalesce(sum(l.amount_micros) filter (where l.leg = 'dispatch'), 0) as dispatched,
                   coalesce(sum(l.amount_micros) filter (where l.leg = 'undispatch'), 0) as back,
                   coalesce(sum(l.amount_micros) filter (where l.leg = 'arrive'), 0) as arrived
            from ledger_transfers l
            where a.leg = 'transfer' and l.event = 'item:' || a.item_id and l.leg in ('dispatch', 'undispatch', 'arrive') and l.attempt = a.attempt) p
         cross join lateral (values
            ('attempts_follow_closed_ones', case when a.attempt_before = a.attempt - 1 and a.state_before not in ('rejected', 'returned') then
                format('item %s: %s attempt %s is %s, and attempt %s before it is %s, expected rejected or returned',
                       a.item_id, a.leg, a.attempt, a.state, a.attempt_before, a.state_before) end),
            ('attempts_are_all_there', case when a.attempt_before <> a.attempt - 1 then
                format('item %s: %s attempt %s comes after %s, expected %s', a.item_id, a.leg, a.attempt, a.attempt_before, a.attempt_before + 1) end),
            ('sends_were_dispatched', case when a.sends < 1 or a.send_deadline < a.dispatched_at then
                format('operation %s of item %s: %s sends, the last dispatched at %s, to be sent until %s',
                       a.id, a.item_id, a.sends, a.dispatched_at, a.send_deadline) end),
            ('sends_were_dispatched', case when a.leg = 'transfer' and p.dispatched <> a.micros then
                format('operation %s of item %s: %s micros were dispatched in the ledger, expected %s', a.id, a.item_id, p.dispatched, a.micros) end),
            ('postings_follow_outcomes', case when a.leg = 'transfer' and (
                    p.arrived <> case when a.state in ('accepted', 'returned') then a.micros else 0 end
                    or p.back <> case when a.state in ('rejected', 'canceled') then a.micros else 0 end) then
                format('operation %s of item %s: %s, and in the ledger %s micros arrived and %s went back, of %s',
                       a.id, a.item_id, a.state, p.arrived, p.back, a.micros) end),
            ('no_replay_after_the_window', case when a.sends > 1 and a.dispatched_at - a.first_dispatched_at >= interval '23 hours' then
                format('operation %s of item %s: sent for the time %s at %s, first at %s',
                       a.id, a.item_id, a.sends, a.dispatched_at, a.first_dispatched_at) end),
            ('no_transfer_after_a_payout', case when a.leg = 'transfer' and a.id > a.first_payout then
                format('item %s: transfer attempt %s is operation %s, after the payout that is operation %s',
                       a.item_id, a.attempt, a.id, a.first_payout) end),
            ('unknown_has_age_and_owner', case when a.state in ('unknown', 'frozen', 'unresolved') and a.unknown_since is null then
                format('operation %s of item %s: %s, and nobody knows since when', a.id, a.item_id, a.state) end),
            ('unknown_has_age_and_owner', case when a.status <> 'needs_review'
                    and (a.state in ('frozen', 'unresolved') or a.state in ('dispatched', 'not_run', 'unknown') and a.due_at is null) then
                format('operation %s of item %s: %s, while the item is %s and nobody looks at it', a.id, a.item_id, a.state, a.status) end)
         ) as v (name, line)
         where v.line is not null
         union all
         select v.name, v.line
         from payout_items i left join numbers n on n.item_id = i.id
         cross join lateral (values
            ('one_live_object_per_leg', case when n.live_transfers > 1 or n.live_payouts > 1 then
                format('item %s of payee %s: %s transfers and %s payouts are live (%s), expected one',
                       i.id, i.creator_id, n.live_transfers, n.live_payouts, n.live) end),
            ('attempts_are_all_there', case when i.transfer_attempt <> coalesce(n.transfers, 0) or i.payout_attempt <> coalesce(n.payouts, 0) then
                format('item %s: knows of %s transfer and %s payout attempts, there are %s and %s',
                       i.id, i.transfer_attempt, i.payout_attempt, coalesce(n.transfers, 0), coalesce(n.payouts, 0)) end),
            ('nothing_is_forgotten', case when i.due_at is null
                    and i.status in ('pending', 'transferring', 'transferred', 'paying_out', 'awaiting_available') then
                format('item %s of payee %s: %s, and nobody will look at it again', i.id, i.creator_id, i.status) end)
         ) as v (name, line)
         where ($1::bigint is null or i.chunk_id = $1) and v.line is not null
         union all
         select v.name, v.line
         from payee_balances b left join kept k on k.creator_id = b.payee_id and k.currency = b.currency
         left join asked a on a.creator_id = b.payee_id and a.currency = b.currency
         cross join lateral (select coalesce(k.platform, 0) + coalesce(a.platform, 0) as platform, coalesce(k.connected, 0) + coalesce(a.connected, 0) as connected) r
         cross join lateral (values
            ('accounts_are_not_negative', case when least(b.held_platform, b.held_connected, b.available_platform, b.available_connected,
                                                          b.reserved_platform, b.reserved_connected, b.in_flight, b.paid_out, -b.debt) < 0 then
                format('payee %s: an account is below zero, or the debt above: %s', b.payee_id, to_json(b)) end),
            ('accounts_are_not_negative', case when b.at_stripe < 0 and not exists (
                    select from payout_items i join payout_operations o on o.item_id = i.id
                    where i.creator_id = b.payee_id and i.currency = b.currency and o.reversed_minor > 0) then
                format('payee %s %s: %s micros are at Stripe, and no transfer was reversed', b.payee_id, b.currency, b.at_stripe) end),
            ('in_flight_is_open_transfers', case when b.in_flight <> coalesce(k.in_flight, 0) then
                format('payee %s %s: %s micros are in flight, open transfers carry %s', b.payee_id, b.currency, b.in_flight, coalesce(k.in_flight, 0)) end),
            ('reserved_is_what_items_keep', case when b.reserved_platform <> r.platform or b.reserved_connected <> r.connected then
                format('payee %s %s: %s and %s micros are reserved on the platform and connected, items and pending withdrawals keep %s and %s',
                       b.payee_id, b.currency, b.reserved_platform, b.reserved_connected, r.platform, r.connected) end)
         ) as v (name, line)
         where ($1::bigint is null or b.payee_id = any (array(select creator_id from payout_items where chunk_id = $1))) and v.line is not null
         union all
         select 'batch_total_is_its_items',
                format('batch %s: %s items of %s minor units, its counts add up to %s of %s', b.id, b.items, b.amount_minor, c.items, c.amount_minor)
         from payout_batches b
         cross join lateral (
            select coalesce(sum(items), 0) as items, coalesce(sum(amount_minor), 0) as amount_minor from payout_batch_counts where batch_id = b.id) c
         where ($1::bigint is null or b.id = (select batch_id from payout_chunks where id = $1))
           and (b.items <> c.items or b.amount_minor <> c.amount_minor)",
    );
    tx.all(statement.bind(chunk)).await
}

/// The checks that have to read everything.
pub async fn of_everything(tx: &mut Tx) -> Result<Vec<(String, String)>> {
    tx.all(query_as(
        "with items as (
            select i.creator_id, i.currency,
                   sum(c.micros_per_minor * (case when i.connected_moved then i.connected_minor else 0 end - case when i.status = 'paid' then i.amount_minor - i.adopted_minor else 0 end)) as micros
            from payout_items i join currencies c on c.code = i.currency group by 1, 2
         ), transfers as (
            select i.creator_id, i.currency,
                   sum(c.micros_per_minor * (case when o.state in ('accepted', 'returned') then o.amount_minor else 0 end - o.reversed_minor)) as micros,
                   sum(c.micros_per_minor * o.reversed_minor) as reversed
            from payout_operations o join payout_items i on i.id = o.item_id join currencies c on c.code = i.currency where o.leg = 'transfer' group by 1, 2
         )
         select 'at_stripe_is_what_arrived',
                format('payee %s %s: %s micros are at Stripe, expected %s', b.payee_id, b.currency, b.at_stripe, coalesce(i.micros, 0) + coalesce(t.micros, 0))
         from payee_balances b
         left join items i on i.creator_id = b.payee_id and i.currency = b.currency
         left join transfers t on t.creator_id = b.payee_id and t.currency = b.currency
         where b.at_stripe <> coalesce(i.micros, 0) + coalesce(t.micros, 0)
         union all
         select 'webhooks_have_one_effect',
                format('payee %s %s: transfers of %s micros were reversed, the ledger has %s', coalesce(t.creator_id, l.payee_id), coalesce(t.currency, l.currency),
                       coalesce(t.reversed, 0), coalesce(l.micros, 0))
         from transfers t
         full join (select payee_id, currency, sum(amount_micros) as micros from ledger_transfers where leg = 'reversed' group by 1, 2) l
              on l.payee_id = t.creator_id and l.currency = t.currency
         where coalesce(t.reversed, 0) <> coalesce(l.micros, 0)
         union all
         select 'webhooks_have_one_effect',
                format('earning %s of payee %s: %s gross and %s net micros are taken back, its reversals are %s and %s', e.id, e.creator_id,
                       e.taken_back_gross_micros, e.taken_back_net_micros, coalesce(r.gross, 0), coalesce(r.net, 0))
         from creator_earnings e
         left join (select earning_id, sum(gross_micros) as gross, sum(net_micros) as net from earning_reversals group by 1) r on r.earning_id = e.id
         where e.taken_back_gross_micros <> coalesce(r.gross, 0) or e.taken_back_net_micros <> coalesce(r.net, 0)
         union all
         select 'webhooks_have_one_effect',
                format('earning %s: %s took back %s gross micros, and never told of more than %s', earning_id, source, sum(gross_micros), max(cumulative_gross_micros))
         from earning_reversals group by earning_id, source having sum(gross_micros) > max(cumulative_gross_micros)
         union all
         select 'counts_are_the_items',
                format('batch %s: counts %s items of %s minor units as %s, there are %s of %s', coalesce(a.batch_id, c.batch_id), coalesce(c.items, 0),
                       coalesce(c.amount_minor, 0), coalesce(a.status, c.status), coalesce(a.items, 0), coalesce(a.amount_minor, 0))
         from (select batch_id, status, count(*) as items, sum(amount_minor) as amount_minor from payout_items group by 1, 2) a
         full join (select * from payout_batch_counts where items <> 0 or amount_minor <> 0) c on c.batch_id = a.batch_id and c.status = a.status
         where a.items is distinct from c.items or a.amount_minor is distinct from c.amount_minor
         union all
         select 'runs_are_their_batches', format('run %s: completed, and its batches are %s', r.id,
                coalesce((select string_agg(format('%s %s', b.id, b.status), ', ' order by b.id) from payout_batches b where b.run_id = r.id), 'not made'))
         from payout_runs r
         where r.status = 'completed'
           and (r.batches_created_at is null or exists (select from payout_batches b where b.run_id = r.id and b.completed_at is null))
         union all
         select 'withdrawals_follow_their_items',
                format('withdrawal %s of payee %s: %s, of %s minor units, its item %s is %s, of %s', w.id, w.creator_id, w.status, w.transfer_minor + w.connected_minor,
                       i.id, i.status, i.amount_minor)
         from withdrawal_requests w left join payout_items i on i.id = w.item_id
         where i.amount_minor <> w.transfer_minor + w.connected_minor
            or i.id is not null and w.status <> case i.status when 'paid' then 'paid' when 'failed' then 'failed' when 'canceled' then 'failed' else 'batched' end
            or i.id is null and w.status not in ('pending', 'canceled', 'failed')
         union all
         select 'one_batch_per_hash', format('hash %s: batches %s, expected one', batch_hash, string_agg(id::text, ' and ' order by id))
         from payout_batches group by batch_hash having count(*) > 1
         union all
         select 'objects_at_stripe_are_ours', format('event %s (%s): bears the mark %s, and no such attempt was dispatched', e.id, e.type, m.mark)
         from stripe_events e cross join instance n
         cross join lateral (select e.payload #>> '{data,object,metadata,operation_id}' as mark) m
         where (e.type like 'transfer.%' or e.type like 'payout.%') and m.mark like n.id || '-%'
           and not exists (
                select from payout_operations o where o.item_id = substring(m.mark from '^[0-9a-f]+-(\\d{1,18})-')::bigint
                and o.leg = substring(m.mark from '-(transfer|payout)-') and o.attempt = substring(m.mark from '-(\\d{1,9})$')::int)",
    ))
    .await
}

/// Before reading everybody.
pub async fn make_room(tx: &mut Tx) -> Result<()> {
    tx.run(query(ROOM_FOR_MANY)).await?;
    Ok(())
}

/// Halts a batch for a check, also one that is halted for something that ends by itself, and one that was completed and has
/// something due again. Returns when it was halted for a check first.
pub async fn halt(tx: &mut Tx, batch: BatchId) -> Result<DateTime<Utc>> {
    let statement = query_as(
        "update payout_batches set status = 'halted', halt_reason = 'standing_check',
                halted_at = case when halt_reason = 'standing_check' then halted_at else now() end
         where id = $1 returning halted_at",
    );
    let (halted_at,): (DateTime<Utc>,) = tx.one(statement.bind(batch)).await?;
    Ok(halted_at)
}

/// Everything was verified just now, and nothing is known to disagree.
pub async fn verified(tx: &mut Tx, names: &[&'static str]) -> Result<()> {
    let statement = query(
        "insert into standing_checks (name, verified_at) select name, now() from unnest($1::text[]) as u (name) order by name
         on conflict (name) do update set verified_at = excluded.verified_at, breached_at = null, disagreeing = '{}'",
    );
    tx.run(statement.bind(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())).await?;
    Ok(())
}

/// A check is breached by these rows.
pub async fn breached(tx: &mut Tx, name: &'static str, rows: &[String]) -> Result<()> {
    let statement = query(
        "insert into standing_checks (name, breached_at, disagreeing) values ($1, now(), $2)
         on conflict (name) do update set breached_at = excluded.breached_at, disagreeing = excluded.disagreeing",
    );
    tx.run(statement.bind(name).bind(rows.to_vec())).await?;
    Ok(())
}

/// What the checks last found.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Verdict {
    pub name: String,
    pub verified_at: Option<DateTime<Utc>>,
    pub breached_at: Option<DateTime<Utc>>,
    pub disagreeing: Vec<String>,
}

pub async fn verdicts(tx: &mut Tx) -> Result<Vec<Verdict>> {
    tx.all(query_as("select name, verified_at, breached_at, disagreeing from standing_checks order by name")).await
}
