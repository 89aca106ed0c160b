-- Creators who are ready to be paid, with earnings that are all still held: what a cycle finds. The names and accounts come from
-- `samples::big` in the table bench_creators (number, id, account); bench.earnings says how many earnings each has. Written set-wise
-- on the server and without triggers, foreign keys among them; so the balances that the ledger's own trigger would keep are written at
-- the end. (`ledger_differences()` finds none.)
set session_replication_role = replica;

insert into payees (id, email)
select id, 'creator' || number || '@example.com' from bench_creators order by id;

insert into stripe_accounts (payee_id, account, country, transfers_active, payouts_enabled, charges_enabled, payout_interval, destination, state_at)
select id, account, 'US', true, true, true, 'manual', 'fp_' || number, '2026-10-01' from bench_creators order by id;

-- One tip of 400 to 1,399 tokens, then smaller ones, over ten days of October, in the order in which they happened.
insert into creator_earnings (source_id, content_hash, creator_id, kind, place, currency, tokens, token_rate_micros, fee_ppm,
                              gross_micros, fee_micros, occurred_at, available_at)
select 'bench-' || number || '-' || nth, hash, id, 'tip', 'platform', 'usd', tokens, 50000, 100000, tokens * 50000, tokens * 5000, at, at + interval '7 days'
from (
    select c.number, c.id, nth, hash, case when nth = 0 then 400 + hash % 1000 else 1 + hash % 200 end as tokens,
           timestamptz '2026-10-20' + hash % 864000 * interval '1 second' as at
    from bench_creators c
    cross join generate_series(0, current_setting('bench.earnings')::int - 1) as nth
    cross join lateral (select abs(hashtextextended(c.number || '-' || nth, 20261115)) as hash) as h
) as earned order by at;

insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
select 'earning:' || e.id, p.leg, e.creator_id, e.currency, 'earnings', p.account, p.micros
from creator_earnings e
cross join lateral (values ('net', 'held_platform', e.net_micros), ('fee', 'fees', e.fee_micros)) as p (leg, account, micros);

insert into payee_balances (payee_id, currency, held_platform)
select creator_id, currency, sum(net_micros) from creator_earnings group by creator_id, currency;

insert into platform_balances (currency, shard, earnings, fees)
select currency, 0, -sum(gross_micros), sum(fee_micros) from creator_earnings group by currency;

set session_replication_role = origin;
drop table bench_creators;
