-- The first reason that applies for not paying somebody now; null: pay. The order is the contract's.
create function first_exclusion(
    payout_enabled boolean, in_beta boolean, schedule_due boolean, has_account boolean, ready boolean, blocked boolean, unsettled boolean,
    cooloff boolean, nothing_matured boolean, in_debt boolean, below_minimum boolean) returns text
language sql immutable as $$
    select case
        when not payout_enabled then 'payouts_disabled'
        when not in_beta then 'not_in_beta'
        when not schedule_due then 'schedule_not_due'
        when not has_account then 'no_account'
        when not ready then 'account_not_ready'
        when blocked then 'blocked'
        when unsettled then 'unsettled_item'
        when cooloff then 'destination_cooloff'
        when nothing_matured then 'held'
        when in_debt then 'debt'
        when below_minimum then 'below_minimum'
    end
$$;
comment on function first_exclusion is 'The first reason that applies for not paying somebody now; null: pay.';

-- Whether an item in this status still stands between a payee and the next one.
create function is_unsettled(status text) returns boolean language sql immutable as $$
    select status in ('pending', 'awaiting_funds', 'transferring', 'transferred', 'awaiting_available', 'paying_out', 'payout_blocked', 'returned', 'needs_review')
$$;
comment on function is_unsettled is 'Whether an item in this status still stands between a payee and the next one. What the bank is asked to pay (in_transit) does not.';

-- The least a payee is paid in a currency, in minor units: the largest of the platform's, the payee's own and Stripe's minimum.
-- Stripe's is the caller's to join: a function with a query inside is not inlined, and then costs more than the batch around it.
create function minimum_payout_minor(policy jsonb, currency text, stripe_minimum bigint, own_minimum numeric, minor_micros bigint, multiple bigint) returns bigint
language sql stable as $$
    select greatest(
        multiple,
        coalesce((policy -> 'thresholds_minor' ->> currency)::bigint, 0),
        ceil(coalesce(own_minimum, 0) * 1000000 / minor_micros)::bigint,
        -- Typically one unit of the currency.
        coalesce(stripe_minimum, 1000000 / minor_micros))
$$;
comment on function minimum_payout_minor is 'The least a payee is paid in a currency, in minor units: the largest of the platform''s, the payee''s own and Stripe''s minimum.';

-- Everyone with money, what of it is payable at the cut-off, and why not, if not. The one definition of eligibility: batches, previews and answers to creators all ask here.
-- schedules: those whose cycle this is (null: the schedule is not asked). others_due: schedules that another run of the same date serves.
-- foresee: count as available what is still booked as held and will have matured by the cut-off. For previews and answers, never for a batch, which books.
create function payout_candidates(
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
               f.blocked or b.at_stripe < 0 as blocked, f.destination_changed_at,
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
               z.unsettled, coalesce(z.destination_changed_at + cooloff > at, false), z.platform + z.connected = 0,
               z.debt > 0 and z.amount / z.minor_micros < z.minimum_minor
                   and (z.debt >= z.platform + z.connected
                        or floor((z.platform + z.connected)::numeric * keep_ppm / 1000000) / z.minor_micros >= z.minimum_minor),
               z.amount / z.minor_micros < z.minimum_minor)
    from final z;
end $$;
comment on function payout_candidates is 'Everyone with money, what of it is payable at the cut-off, and why not, if not. The one definition of eligibility: batches, previews and answers to creators all ask here.';

-- The same question once more, for items about to be sent; the item's own reservation counts as available. Null: still pay.
create function payout_recheck(item_ids bigint[], policy jsonb, at timestamptz)
returns table (item_id bigint, account text, destination text, automatic boolean, reason text)
language sql stable as $$
    select i.id, f.account, a.destination, f.automatic,
           first_exclusion(
               f.payout_enabled, not (policy ->> 'beta_only')::boolean or f.beta_enabled, true, f.account is not null, f.ready, f.blocked or b.at_stripe < 0, false,
               coalesce(f.destination_changed_at + make_interval(hours => (policy ->> 'destination_cooloff_hours')::int) > at, false), false,
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
comment on function payout_recheck is 'Eligibility asked once more for items about to be sent; the item''s own reservation counts as available. reason null: still pay.';

-- By name, for support and finance.
create function get_eligible_creators_for_payout(cutoff timestamptz default now(), schedules text[] default null)
returns table (creator_id uuid, currency char(3), payable_amount numeric, stripe_connect_account_id text)
language sql stable as $$
    select c.creator_id, c.currency, c.payable_minor * c.minor_micros / 1000000.0, c.account
    from payout_policies p, payout_candidates(schedules, '{}', cutoff, p.policy, now(), foresee => true) c
    where c.reason is null
    order by 1, 2
$$;
comment on function get_eligible_creators_for_payout is 'Who would be paid what (whole units) at a cut-off under the policy in force.';

create function can_creator_receive_payouts(creator uuid) returns boolean language sql stable as $$
    select coalesce((
        select first_exclusion(f.payout_enabled, not (p.policy ->> 'beta_only')::boolean or f.beta_enabled, f.schedule <> 'manual', f.account is not null, f.ready, f.blocked, false,
                   coalesce(f.destination_changed_at + make_interval(hours => (p.policy ->> 'destination_cooloff_hours')::int) > now(), false), false, false, false) is null
        from payee_facts f, payout_policies p where f.payee_id = creator), false)
$$;
comment on function can_creator_receive_payouts is 'Whether nothing about the creator (settings, account, blocks) stands against paying, whatever the amount.';

create function get_creator_pending_balance(creator uuid) returns table (currency char(3), pending_amount numeric) language sql stable as $$
    select b.currency, (b.held_platform + b.held_connected) / 1000000.0 from payee_balances b where b.payee_id = creator order by 1
$$;
comment on function get_creator_pending_balance is 'What a creator has earned that is still held, in whole units per currency.';

create function get_creator_earnings_summary(creator uuid)
returns table (currency char(3), total_earned numeric, held numeric, available numeric, reserved numeric, in_flight numeric, at_stripe numeric, paid_out numeric, debt numeric)
language sql stable as $$
    select b.currency,
           (b.held_platform + b.held_connected + b.available_platform + b.available_connected + b.reserved_platform + b.reserved_connected
            + b.in_flight + b.at_stripe + b.paid_out + b.debt) / 1000000.0,
           (b.held_platform + b.held_connected) / 1000000.0, (b.available_platform + b.available_connected) / 1000000.0,
           (b.reserved_platform + b.reserved_connected) / 1000000.0, b.in_flight / 1000000.0, b.at_stripe / 1000000.0, b.paid_out / 1000000.0, b.debt / 1000000.0
    from payee_balances b where b.payee_id = creator order by 1
$$;
comment on function get_creator_earnings_summary is 'A creator''s money by where it is, in whole units per currency.';
