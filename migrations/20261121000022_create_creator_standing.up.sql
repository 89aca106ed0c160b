-- What one creator has, can withdraw and why not, per currency: payout_candidates for one creator, as of now. It exists because creators ask
-- all day: payout_candidates is planned anew for each of them, which costs ten times what looking up one creator does. Here every
-- statement finds its rows by the creator's key, so one plan serves all. tests/store/eligibility.rs holds the two together.
-- Three things differ: money whose hold is over counts as available even where maturing has not booked it yet, an earlier
-- item that is not settled is no reason (the money asked about is beside it), and a creator without money has a row too.
create function creator_standing(creator uuid, policy jsonb, at timestamptz)
returns table (
    schedule text, timezone text, ready boolean, automatic boolean, currency char(3), held_micros bigint, available_micros bigint,
    under_way_micros bigint, paid_out_micros bigint, debt_micros bigint, payable_minor bigint, transfer_minor bigint, connected_minor bigint,
    minimum_minor bigint, reason text)
language plpgsql stable as $$
#variable_conflict use_column
declare
    keep_ppm constant bigint := 1000000 - (policy ->> 'reserve')::bigint;
    beta_only constant boolean := (policy ->> 'beta_only')::boolean;
    cooloff constant interval := make_interval(hours => (policy ->> 'destination_cooloff_hours')::int);
    matured_through constant timestamptz := (select through from maturity);
    f record;
    platform bigint;
    connected bigint;
    debt bigint;
    net_platform bigint;
    net_connected bigint;
    allowed bigint;
    withdrawn bigint := 0;
    use_connected bigint;
    use_platform bigint;
    amount bigint;
    transfer bigint;
    transfer_unit bigint;
    payout_unit bigint;
begin
    for f in
        select p.payout_enabled, p.beta_enabled, p.schedule, p.account, p.automatic, p.ready, p.blocked, p.destination_changed_at, a.destination,
               a.confirmed_destination, s.timezone,
               b.currency, coalesce(b.held_platform + b.held_connected, 0) as held,
               coalesce(b.available_platform, 0) as available_platform, coalesce(b.available_connected, 0) as available_connected,
               coalesce(b.reserved_platform + b.reserved_connected + b.in_flight + b.at_stripe, 0) as under_way,
               coalesce(b.at_stripe, 0) < 0 as reversed_behind, coalesce(b.paid_out, 0) as paid_out, coalesce(-b.debt, 0) as debt,
               d.platform as due_platform, d.connected as due_connected, c.micros_per_minor, c.transfer_multiple, c.payout_multiple,
               case when b.currency is not null then
                   minimum_payout_minor(policy, b.currency::text, l.minimum_minor, p.minimum_payout_amount, c.micros_per_minor, c.payout_multiple)
               end as minimum
        from payee_facts p
        left join creator_payout_settings s on s.creator_id = p.payee_id
        left join stripe_accounts a on a.payee_id = p.payee_id
        left join payee_balances b on b.payee_id = p.payee_id
        left join currencies c on c.code = b.currency
        left join stripe_payout_minimums l on l.country = p.country and l.currency = b.currency
        cross join lateral (
            select coalesce(sum(e.net_micros - e.taken_back_net_micros) filter (where e.place = 'platform'), 0)::bigint as platform,
                   coalesce(sum(e.net_micros - e.taken_back_net_micros) filter (where e.place = 'connected'), 0)::bigint as connected
            from creator_earnings e
            where e.creator_id = creator and e.currency = b.currency and e.available_at > matured_through and e.available_at <= at) d
        where p.payee_id = creator and p.kind = 'creator'
        order by b.currency
    loop
        -- Step by step as in payout_candidates.
        platform := greatest(f.available_platform + f.due_platform, 0);
        connected := case when f.automatic then 0 else greatest(f.available_connected + f.due_connected, 0) end;
        debt := f.debt;
        net_platform := least(platform, debt);
        net_connected := least(connected, debt - net_platform);
        -- The part that stays behind is of all that there was since the last cycle: many withdrawals take no more of it than one.
        if keep_ppm < 1000000 then
            withdrawn := coalesce((
                select sum((w.transfer_minor + w.connected_minor) * f.micros_per_minor) from withdrawal_requests w
                where w.creator_id = creator and w.currency = f.currency and w.status in ('pending', 'batched', 'paid')
                  and w.created_at > coalesce((select max(r.cutoff_at) from payout_runs r
                                               where r.kind = 'scheduled' and f.schedule in (r.schedule, 'manual') and r.batches_created_at is not null), '-infinity')), 0);
        end if;
        allowed := platform - net_platform + connected - net_connected;
        allowed := greatest(floor((allowed + withdrawn)::numeric * keep_ppm / 1000000) - withdrawn, 0);
        transfer_unit := coalesce(f.micros_per_minor * f.transfer_multiple, 1);
        payout_unit := coalesce(f.micros_per_minor * case when f.automatic then f.transfer_multiple else f.payout_multiple end, 1);
        use_connected := least(connected - net_connected, allowed) / transfer_unit * transfer_unit;
        use_platform := least(platform - net_platform, allowed - use_connected) / transfer_unit * transfer_unit;
        amount := (use_connected + use_platform) / payout_unit * payout_unit;
        transfer := greatest(use_platform - (use_connected + use_platform - amount), 0);

        schedule := f.schedule;
        timezone := f.timezone;
        ready := f.ready;
        automatic := f.automatic;
        currency := f.currency;
        held_micros := f.held - f.due_platform - f.due_connected;
        -- What Stripe pays out by itself is paid out when it matures.
        available_micros := f.available_platform + f.available_connected + f.due_platform + case when f.automatic then 0 else f.due_connected end;
        paid_out_micros := f.paid_out + case when f.automatic then f.due_connected else 0 end;
        under_way_micros := f.under_way;
        debt_micros := -debt;
        payable_minor := amount / coalesce(f.micros_per_minor, 1);
        transfer_minor := transfer / coalesce(f.micros_per_minor, 1);
        connected_minor := payable_minor - transfer_minor;
        minimum_minor := f.minimum;
        reason := first_exclusion(
            f.payout_enabled, not beta_only or f.beta_enabled, true, f.account is not null, f.ready, f.blocked or f.reversed_behind, false,
            coalesce(f.destination_changed_at + cooloff > at, false)
                or coalesce(needs_second_look(policy, amount, f.destination_changed_at, f.destination, f.confirmed_destination), false),
            f.held + f.available_platform + f.available_connected > 0 and platform + connected = 0,
            debt > 0 and payable_minor < coalesce(minimum_minor, 1)
                and (debt >= platform + connected
                     or floor((platform + connected)::numeric * keep_ppm / 1000000) / coalesce(f.micros_per_minor, 1) >= coalesce(minimum_minor, 1)),
            payable_minor < coalesce(minimum_minor, 1));
        return next;
    end loop;
end $$;
comment on function creator_standing is 'What one creator has, can withdraw and why not, per currency, as of now: payout_candidates for one creator, from one plan.';
