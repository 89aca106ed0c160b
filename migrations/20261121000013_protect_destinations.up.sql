-- Whoever takes over a creator's account changes the bank first. So a change waits (the cool-off), and a large sum to a changed destination waits until
-- an operator has confirmed that very destination.
alter table stripe_accounts add column confirmed_destination text, add column confirmed_at timestamptz, add column confirmed_by text;
comment on column stripe_accounts.confirmed_destination is 'the destination that an operator has looked at; another one than the present counts for nothing';
create index stripe_accounts_by_destination on stripe_accounts (destination) where destination is not null;

-- The address before the last change, which hears of a changed destination too.
alter table payees add column former_email text, add column email_changed_at timestamptz;

create function needs_second_look(policy jsonb, amount_micros bigint, changed_at timestamptz, destination text, confirmed text) returns boolean
language sql immutable as $$
    select changed_at is not null and destination is distinct from confirmed
        and coalesce((policy ->> 'two_person_above_cents')::bigint, 0) > 0
        and amount_micros > (policy ->> 'two_person_above_cents')::bigint * 10000
$$;
comment on function needs_second_look is 'Whether an amount waits for an operator to confirm a changed destination. The limit is in hundredths of the currency''s unit; 0: none waits.';

-- Why a destination is not paid yet, for those who see destination_cooloff: null, the cool-off; destination_unconfirmed, an operator.
create function destination_code(creator uuid, policy jsonb, at timestamptz) returns text language sql stable as $$
    select case when a.destination_changed_at + make_interval(hours => (policy ->> 'destination_cooloff_hours')::int) <= at then 'destination_unconfirmed' end
    from stripe_accounts a where a.payee_id = creator
$$;
comment on function destination_code is 'Why a destination is not paid yet, for those who see destination_cooloff: null, the cool-off; destination_unconfirmed, an operator.';

-- As before, and a large amount to an unconfirmed destination is in its cool-off.
create or replace function payout_candidates(
    schedules text[], others_due text[], cutoff timestamptz, policy jsonb, at timestamptz, only_creator uuid default null, foresee boolean default false)
returns table (
    creator_id uuid, currency char(3), account text, destination text, automatic boolean, balance_micros bigint, held_micros bigint, available_micros bigint, debt_micros bigint,
    net_platform_micros bigint, net_connected_micros bigint, payable_minor bigint, transfer_minor bigint, connected_minor bigint,
    minor_micros bigint, minimum_minor bigint, reason text)
language plpgsql stable as $$
#variable_conflict use_column
declare
    keep_ppm constant bigint := 1000000 - (policy ->> 'reserve')::bigint;
    beta_only constant boolean := (policy ->> 'beta_only')::boolean;
    cooloff constant interval := make_interval(hours => (policy ->> 'destination_cooloff_hours')::int);
    matured_through constant timestamptz := (select through from maturity);
    later_from constant timestamptz := least(cutoff, matured_through);
    later_through constant timestamptz := case when foresee then greatest(cutoff, matured_through) else matured_through end;
    later_sign constant int := case when cutoff < matured_through then 1 else -1 end;
begin
    return query
    with later as materialized (
        -- Matured since the cut-off: counted as available, and not payable at this cut-off. If foreseen, with the opposite sign: matured
        -- by the cut-off and not yet counted.
        select e.creator_id, e.currency,
               later_sign * sum(e.net_micros - e.taken_back_net_micros) filter (where e.place = 'platform') as platform,
               later_sign * sum(e.net_micros - e.taken_back_net_micros) filter (where e.place = 'connected') as connected
        from creator_earnings e
        where e.available_at > later_from and e.available_at <= later_through and (only_creator is null or e.creator_id = only_creator)
        group by e.creator_id, e.currency
    ), unsettled as materialized (
        select distinct i.creator_id, i.currency from payout_items i
        where is_unsettled(i.status) and (only_creator is null or i.creator_id = only_creator)
    ), money as (
        select b.payee_id, b.currency, f.account, a.destination, f.automatic, f.payout_enabled, f.beta_enabled, f.schedule, f.ready,
               f.blocked or b.at_stripe < 0 as blocked, f.destination_changed_at, a.confirmed_destination,
               u.creator_id is not null as unsettled,
               (b.held_platform + b.held_connected + b.available_platform + b.available_connected)::bigint as balance,
               greatest(b.available_platform - coalesce(l.platform, 0), 0)::bigint as platform,
               case when f.automatic then 0 else greatest(b.available_connected - coalesce(l.connected, 0), 0) end::bigint as connected,
               (b.held_platform + b.held_connected)::bigint as held,
               -b.debt as debt, c.micros_per_minor as minor_micros,
               c.micros_per_minor * c.transfer_multiple as transfer_unit,
               c.micros_per_minor * case when f.automatic then c.transfer_multiple else c.payout_multiple end as payout_unit,
               minimum_payout_minor(policy, b.currency::text, least_at_stripe.minimum_minor, f.minimum_payout_amount, c.micros_per_minor, c.payout_multiple) as minimum_minor
        from payee_balances b
        join payee_facts f on f.payee_id = b.payee_id
        join currencies c on c.code = b.currency
        left join stripe_accounts a on a.payee_id = b.payee_id
        left join stripe_payout_minimums least_at_stripe on least_at_stripe.country = f.country and least_at_stripe.currency = b.currency
        left join later l on l.creator_id = b.payee_id and l.currency = b.currency
        left join unsettled u on u.creator_id = b.payee_id and u.currency = b.currency
        where b.held_platform + b.held_connected + b.available_platform + b.available_connected > 0
          and f.kind = 'creator' and (only_creator is null or b.payee_id = only_creator)
          and (schedules is null or f.schedule = any (schedules) or not f.schedule = any (others_due))
        -- Here and below: each step is computed once. Without the fence Postgres puts the steps into one another and computes
        -- every expression again wherever it is used, which took seven times as long.
        offset 0
    ), netted as (
        select m.*, least(m.platform, m.debt) as net_platform, least(m.connected, m.debt - least(m.platform, m.debt)) as net_connected from money m offset 0
    ), kept as (
        select n.*, n.platform - n.net_platform as p, n.connected - n.net_connected as c,
               floor((n.platform - n.net_platform + n.connected - n.net_connected)::numeric * keep_ppm / 1000000)::bigint as allowed
        from netted n offset 0
    ), split as (
        -- Connected money first, then the platform's; each in units that Stripe takes.
        select k.*, least(k.c, k.allowed) / k.transfer_unit * k.transfer_unit as use_c from kept k offset 0
    ), legs as (
        select s.*, least(s.p, s.allowed - s.use_c) / s.transfer_unit * s.transfer_unit as use_p from split s offset 0
    ), whole as (
        select g.*, (g.use_c + g.use_p) / g.payout_unit * g.payout_unit as amount from legs g offset 0
    ), final as (
        select w.*, greatest(w.use_p - (w.use_c + w.use_p - w.amount), 0) as transfer from whole w offset 0
    )
    select z.payee_id, z.currency, z.account, z.destination, z.automatic, z.balance, z.held, z.platform + z.connected, z.debt,
           z.net_platform, z.net_connected,
           z.amount / z.minor_micros, z.transfer / z.minor_micros, (z.amount - z.transfer) / z.minor_micros,
           z.minor_micros, z.minimum_minor,
           first_exclusion(
               z.payout_enabled, not beta_only or z.beta_enabled, schedules is null or z.schedule = any (schedules), z.account is not null, z.ready, z.blocked,
               z.unsettled,
               coalesce(z.destination_changed_at + cooloff > at, false)
                   or needs_second_look(policy, z.amount, z.destination_changed_at, z.destination, z.confirmed_destination),
               z.platform + z.connected = 0,
               z.debt > 0 and z.amount / z.minor_micros < z.minimum_minor
                   and (z.debt >= z.platform + z.connected
                        or floor((z.platform + z.connected)::numeric * keep_ppm / 1000000) / z.minor_micros >= z.minimum_minor),
               z.amount / z.minor_micros < z.minimum_minor)
    from final z;
end $$;

-- A sum does not become small by being asked for in parts: with an item counts all else that is set aside for the same payee.
create or replace function payout_recheck(item_ids bigint[], policy jsonb, at timestamptz)
returns table (item_id bigint, account text, destination text, automatic boolean, reason text)
language sql stable as $$
    select i.id, f.account, a.destination, f.automatic,
           first_exclusion(
               f.payout_enabled, not (policy ->> 'beta_only')::boolean or f.beta_enabled, true, f.account is not null, f.ready, f.blocked or b.at_stripe < 0, false,
               coalesce(f.destination_changed_at + make_interval(hours => (policy ->> 'destination_cooloff_hours')::int) > at, false)
                   or needs_second_look(policy, greatest(i.amount_minor * c.micros_per_minor, b.reserved_platform + b.reserved_connected + b.in_flight),
                                        f.destination_changed_at, a.destination, a.confirmed_destination), false,
               b.debt < 0 and b.available_platform + b.available_connected + b.debt < 0,
               i.amount_minor < minimum_payout_minor(policy, i.currency::text, least_at_stripe.minimum_minor, f.minimum_payout_amount, c.micros_per_minor, c.payout_multiple))
    from payout_items i
    join payee_facts f on f.payee_id = i.creator_id
    join payee_balances b on b.payee_id = i.creator_id and b.currency = i.currency
    join currencies c on c.code = i.currency
    left join stripe_accounts a on a.payee_id = i.creator_id
    left join stripe_payout_minimums least_at_stripe on least_at_stripe.country = f.country and least_at_stripe.currency = i.currency
    where i.id = any (item_ids)
$$;
