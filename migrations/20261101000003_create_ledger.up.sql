-- Double entry: each row moves one positive amount from one account to another, so the books balance by construction.
-- Inserted only. (event, leg, attempt) makes each posting happen once.
-- No foreign keys of its own: each posting needs its row in payee_balances, which has them, so an unknown payee or currency is refused
-- there, once per payee instead of twice per posting (a third of a batch's time, and all workers locking the row of one currency).
create table ledger_transfers (
    id bigint generated always as identity primary key,
    event text not null,
    leg text not null,
    attempt integer not null default 1,
    payee_id uuid not null,
    currency char(3) not null,
    from_account text not null,
    to_account text not null,
    amount_micros bigint not null constraint ledger_transfers_amount_is_positive check (amount_micros > 0),
    posted_at timestamptz not null default now(),
    constraint ledger_transfers_once unique (event, leg, attempt),
    constraint ledger_transfers_accounts_are_known check (
        from_account in ('held_platform', 'held_connected', 'available_platform', 'available_connected', 'reserved_platform', 'reserved_connected', 'in_flight', 'at_stripe', 'paid_out', 'debt', 'earnings', 'fees', 'stripe_fees', 'losses')
        and to_account in ('held_platform', 'held_connected', 'available_platform', 'available_connected', 'reserved_platform', 'reserved_connected', 'in_flight', 'at_stripe', 'paid_out', 'debt', 'earnings', 'fees', 'stripe_fees', 'losses')
        and from_account <> to_account)
);
comment on table ledger_transfers is 'Double entry: each row moves one positive amount (micros) from one account to another. Inserted only; (event, leg, attempt) makes each posting happen once.';
create index ledger_transfers_by_payee on ledger_transfers (payee_id, currency);

-- What each payee has where, in micros: the projection of the ledger, kept in the same transaction by a trigger.
create table payee_balances (
    payee_id uuid not null references payees,
    currency char(3) not null references currencies,
    held_platform bigint not null default 0 constraint payee_balances_held_platform_is_not_negative check (held_platform >= 0),
    held_connected bigint not null default 0 constraint payee_balances_held_connected_is_not_negative check (held_connected >= 0),
    available_platform bigint not null default 0 constraint payee_balances_available_platform_is_not_negative check (available_platform >= 0),
    available_connected bigint not null default 0 constraint payee_balances_available_connected_is_not_negative check (available_connected >= 0),
    reserved_platform bigint not null default 0 constraint payee_balances_reserved_platform_is_not_negative check (reserved_platform >= 0),
    reserved_connected bigint not null default 0 constraint payee_balances_reserved_connected_is_not_negative check (reserved_connected >= 0),
    in_flight bigint not null default 0 constraint payee_balances_in_flight_is_not_negative check (in_flight >= 0),
    at_stripe bigint not null default 0,
    paid_out bigint not null default 0 constraint payee_balances_paid_out_is_not_negative check (paid_out >= 0),
    debt bigint not null default 0 constraint payee_balances_debt_is_never_above_zero check (debt <= 0),
    primary key (payee_id, currency)
) with (fillfactor = 50);  -- room for a balance's next version on its own page: then no index is written
comment on table payee_balances is 'What each payee has where, in micros: the projection of the ledger, kept in the same transaction by a trigger. The row is also the lock for the payee''s money.';

-- The platform's side, in shards so that concurrent postings do not wait for one row; the sum over the shards is the balance.
create table platform_balances (
    currency char(3) not null references currencies,
    shard integer not null,
    earnings bigint not null default 0,
    fees bigint not null default 0,
    stripe_fees bigint not null default 0,
    losses bigint not null default 0,
    primary key (currency, shard)
);
comment on table platform_balances is 'The platform''s side of the ledger in micros, in shards so that concurrent postings do not wait for one row; the sum over the shards is the balance.';

create function post_to_balances() returns trigger language plpgsql as $$
begin
    insert into payee_balances (payee_id, currency)
    select distinct payee_id, currency from posted p
    where not exists (select from payee_balances b where b.payee_id = p.payee_id and b.currency = p.currency)
    order by payee_id, currency
    on conflict do nothing;

    -- Always locked in this order, so that two postings never wait for each other in a circle. Arrays, because they need no join; of
    -- these currencies only, because two workers that pay the same payee in two currencies hold one balance each.
    perform from payee_balances
    where payee_id = any (array(select payee_id from posted)) and currency = any (array(select distinct currency from posted))
    order by payee_id, currency for no key update;

    update payee_balances b set
        held_platform = b.held_platform + d.held_platform,
        held_connected = b.held_connected + d.held_connected,
        available_platform = b.available_platform + d.available_platform,
        available_connected = b.available_connected + d.available_connected,
        reserved_platform = b.reserved_platform + d.reserved_platform,
        reserved_connected = b.reserved_connected + d.reserved_connected,
        in_flight = b.in_flight + d.in_flight,
        at_stripe = b.at_stripe + d.at_stripe,
        paid_out = b.paid_out + d.paid_out,
        debt = b.debt + d.debt
    from (
        select payee_id, currency,
            total(case 'held_platform' when to_account then amount_micros when from_account then -amount_micros else 0 end) as held_platform,
            total(case 'held_connected' when to_account then amount_micros when from_account then -amount_micros else 0 end) as held_connected,
            total(case 'available_platform' when to_account then amount_micros when from_account then -amount_micros else 0 end) as available_platform,
            total(case 'available_connected' when to_account then amount_micros when from_account then -amount_micros else 0 end) as available_connected,
            total(case 'reserved_platform' when to_account then amount_micros when from_account then -amount_micros else 0 end) as reserved_platform,
            total(case 'reserved_connected' when to_account then amount_micros when from_account then -amount_micros else 0 end) as reserved_connected,
            total(case 'in_flight' when to_account then amount_micros when from_account then -amount_micros else 0 end) as in_flight,
            total(case 'at_stripe' when to_account then amount_micros when from_account then -amount_micros else 0 end) as at_stripe,
            total(case 'paid_out' when to_account then amount_micros when from_account then -amount_micros else 0 end) as paid_out,
            total(case 'debt' when to_account then amount_micros when from_account then -amount_micros else 0 end) as debt
        from posted group by payee_id, currency) d
    where b.payee_id = d.payee_id and b.currency = d.currency;

    insert into platform_balances as b (currency, shard, earnings, fees, stripe_fees, losses)
    select currency, pg_backend_pid() % 16,
            total(case 'earnings' when to_account then amount_micros when from_account then -amount_micros else 0 end) as earnings,
            total(case 'fees' when to_account then amount_micros when from_account then -amount_micros else 0 end) as fees,
            total(case 'stripe_fees' when to_account then amount_micros when from_account then -amount_micros else 0 end) as stripe_fees,
            total(case 'losses' when to_account then amount_micros when from_account then -amount_micros else 0 end) as losses
    from posted
    where from_account in ('earnings', 'fees', 'stripe_fees', 'losses') or to_account in ('earnings', 'fees', 'stripe_fees', 'losses')
    group by currency order by currency
    on conflict (currency, shard) do update set
        earnings = b.earnings + excluded.earnings, fees = b.fees + excluded.fees,
        stripe_fees = b.stripe_fees + excluded.stripe_fees, losses = b.losses + excluded.losses;
    return null;
end $$;

create trigger ledger_transfers_post after insert on ledger_transfers
    referencing new table as posted for each statement execute function post_to_balances();

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are inserted, never changed: post a reversing transfer', tg_table_name using errcode = 'restrict_violation';
end $$;

create trigger ledger_transfers_stay before update or delete or truncate on ledger_transfers
    for each statement execute function refuse_change();
revoke update, delete, truncate on ledger_transfers from public, current_user;

-- A balance's row is also what tells that a posting's payee and currency exist, so it stays, and so does the payee.
create function refuse_removal() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are inserted, never changed by hand or removed: post a reversing transfer', tg_table_name using errcode = 'restrict_violation';
end $$;

create trigger payee_balances_stay before delete or truncate on payee_balances
    for each statement execute function refuse_removal();

-- The balances recomputed from the entries, where they differ from the projection. Expected: no row.
create function ledger_differences() returns table (holder text, currency char(3), account text, from_entries bigint, kept bigint)
language sql stable as $$
    with entries as (
        select payee_id, currency, to_account as account, amount_micros as amount from ledger_transfers
        union all
        select payee_id, currency, from_account, -amount_micros from ledger_transfers
    ), sums as (
        select case when account in ('earnings', 'fees', 'stripe_fees', 'losses') then 'platform' else payee_id::text end as holder,
               currency, account, sum(amount)::bigint as amount
        from entries group by 1, 2, 3
    ), kept as (
        select b.payee_id::text as holder, b.currency, k.account, k.amount
        from payee_balances b cross join lateral (values
            ('held_platform', b.held_platform),
            ('held_connected', b.held_connected),
            ('available_platform', b.available_platform),
            ('available_connected', b.available_connected),
            ('reserved_platform', b.reserved_platform),
            ('reserved_connected', b.reserved_connected),
            ('in_flight', b.in_flight),
            ('at_stripe', b.at_stripe),
            ('paid_out', b.paid_out),
            ('debt', b.debt)) as k (account, amount)
        union all
        select 'platform', currency, k.account, sum(k.amount)::bigint
        from platform_balances b cross join lateral (values
            ('earnings', b.earnings), ('fees', b.fees), ('stripe_fees', b.stripe_fees), ('losses', b.losses)) as k (account, amount)
        group by currency, k.account
    )
    select coalesce(s.holder, k.holder), coalesce(s.currency, k.currency), coalesce(s.account, k.account), coalesce(s.amount, 0), coalesce(k.amount, 0)
    from sums s full join kept k on k.holder = s.holder and k.currency = s.currency and k.account = s.account
    where coalesce(s.amount, 0) <> coalesce(k.amount, 0)
$$;
comment on function ledger_differences is 'The balances recomputed from the entries, where they differ from the projection. Expected: no row.';
