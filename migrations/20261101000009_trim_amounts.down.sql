create or replace view creator_payouts as
select i.id as item_id, i.batch_id, b.run_id, i.creator_id, i.currency,
       i.amount_minor * c.micros_per_minor / 1000000.0 as net_payout_amount,
       i.failure_code, i.failure_reason, i.status, i.arrival_on, i.created_at, i.paid_at
from payout_items i join payout_batches b on b.id = i.batch_id join currencies c on c.code = i.currency;

create or replace function get_eligible_creators_for_payout(cutoff timestamptz default now(), schedules text[] default null)
returns table (creator_id uuid, currency char(3), payable_amount numeric, stripe_connect_account_id text)
language sql stable as $$
    select c.creator_id, c.currency, c.payable_minor * c.minor_micros / 1000000.0, c.account
    from payout_policies p, payout_candidates(schedules, '{}', cutoff, p.policy, now(), foresee => true) c
    where c.reason is null
    order by 1, 2
$$;

create or replace function get_creator_pending_balance(creator uuid) returns table (currency char(3), pending_amount numeric) language sql stable as $$
    select b.currency, (b.held_platform + b.held_connected) / 1000000.0 from payee_balances b where b.payee_id = creator order by 1
$$;

create or replace function get_creator_earnings_summary(creator uuid)
returns table (currency char(3), total_earned numeric, held numeric, available numeric, reserved numeric, in_flight numeric, at_stripe numeric, paid_out numeric, debt numeric)
language sql stable as $$
    select b.currency,
           (b.held_platform + b.held_connected + b.available_platform + b.available_connected + b.reserved_platform + b.reserved_connected
            + b.in_flight + b.at_stripe + b.paid_out + b.debt) / 1000000.0,
           (b.held_platform + b.held_connected) / 1000000.0, (b.available_platform + b.available_connected) / 1000000.0,
           (b.reserved_platform + b.reserved_connected) / 1000000.0, b.in_flight / 1000000.0, b.at_stripe / 1000000.0, b.paid_out / 1000000.0, b.debt / 1000000.0
    from payee_balances b where b.payee_id = creator order by 1
$$;
