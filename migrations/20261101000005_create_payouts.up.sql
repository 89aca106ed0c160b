-- One execution of a cycle (or of a request). It has one batch per currency.
create table payout_runs (
    id bigint generated always as identity primary key,
    kind text not null default 'scheduled' constraint payout_runs_kind_is_known check (kind in ('scheduled', 'withdrawal', 'resume', 'partner')),
    schedule text not null,
    cycle_on date not null,
    cutoff_at timestamptz not null,
    status text not null default 'running' constraint payout_runs_status_is_known check (status in ('running', 'completed')),
    requested_by text not null,
    policy jsonb,
    batches_created_at timestamptz,
    queued_at timestamptz,
    started_at timestamptz not null default now(),
    completed_at timestamptz,
    constraint payout_runs_one_per_occasion unique (kind, schedule, cycle_on)
);
comment on table payout_runs is 'One execution of a cycle (or of a request). It has one batch per currency. Money is selected as of cutoff_at, whenever the run is executed.';

-- A request to pay many in one currency. The hash makes it unique for its occasion.
create table payout_batches (
    id bigint generated always as identity primary key,
    run_id bigint not null references payout_runs,
    currency char(3) not null references currencies,
    batch_hash text not null constraint payout_batches_hash_key unique,
    status text not null default 'processing' constraint payout_batches_status_is_known check (status in ('processing', 'halted', 'completed')),
    halt_reason text constraint payout_batches_halt_reason_is_known check (halt_reason in ('awaiting_funds', 'stripe_key_rejected', 'frozen_operation', 'standing_check')),
    halted_at timestamptz,
    funding_checked_at timestamptz,
    items bigint not null default 0,
    amount_minor bigint not null default 0,
    created_at timestamptz not null default now(),
    completed_at timestamptz,
    constraint payout_batches_one_per_currency unique (run_id, currency),
    constraint payout_batches_halted_has_a_reason check ((status = 'halted') = (halt_reason is not null))
);
comment on table payout_batches is 'A request to pay many in one currency. The hash makes it unique for its occasion. items and amount_minor are its totals at creation.';

-- How many items of a batch are in which status and what they are worth, kept by a trigger at every commit.
create table payout_batch_counts (
    batch_id bigint not null references payout_batches,
    status text not null,
    items bigint not null,
    amount_minor bigint not null,
    primary key (batch_id, status)
);
comment on table payout_batch_counts is 'How many items of a batch are in which status and what they are worth, kept by a trigger at every commit.';

-- Items handed to a worker together. The lease keeps two workers from the same chunk; a dead worker's lease runs out.
create table payout_chunks (
    id bigint generated always as identity primary key,
    batch_id bigint not null references payout_batches,
    ordinal bigint not null,
    lease uuid,
    leased_until timestamptz not null default '-infinity',
    queued_at timestamptz,
    sql_statements bigint not null default 0,
    constraint payout_chunks_ordinal_key unique (batch_id, ordinal),
    constraint payout_chunks_of_batch_key unique (id, batch_id)
);
comment on table payout_chunks is 'Items handed to a worker together. The lease keeps two workers from the same chunk; a dead worker''s lease runs out. sql_statements is what processing it has cost.';

-- One payee's payment in a batch. shared/src/payouts/item.rs owns its transitions.
create table payout_items (
    id bigint generated always as identity primary key,
    batch_id bigint not null,
    chunk_id bigint not null,
    creator_id uuid not null,
    currency char(3) not null,
    idempotency_key text not null,
    status text not null default 'pending' constraint payout_items_status_is_known check (status in (
        'pending', 'awaiting_funds', 'transferring', 'transferred', 'awaiting_available', 'paying_out', 'in_transit',
        'paid', 'payout_blocked', 'returned', 'failed', 'needs_review', 'canceled')),
    amount_minor bigint not null constraint payout_items_amount_is_positive check (amount_minor > 0),
    transfer_minor bigint not null,
    connected_minor bigint not null,
    payout_minor bigint not null,
    transfer_attempt integer not null default 0,
    payout_attempt integer not null default 0,
    connected_moved boolean not null default false,
    retries integer not null default 0,
    account text not null,
    destination text,
    failure_code text,
    failure_reason text,
    due_at timestamptz default now(),
    waiting_since timestamptz,
    arrival_on date,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    paid_at timestamptz,
    constraint payout_items_one_per_payee unique (batch_id, creator_id),
    -- The one foreign key: the chunk is of this batch. Payee and currency are those of the reservation posted with the item.
    constraint payout_items_chunk_fkey foreign key (chunk_id, batch_id) references payout_chunks (id, batch_id),
    constraint payout_items_parts_add_up check (
        transfer_minor >= 0 and connected_minor >= 0 and transfer_minor + connected_minor = amount_minor
        and (payout_minor = amount_minor or payout_minor = 0 and connected_minor = 0))
);
comment on table payout_items is 'One payee''s payment in a batch: the part on the platform goes by the transfer leg, all of it by the payout leg (0: Stripe pays the account out by itself). due_at is when a worker should look at it again.';
create index payout_items_by_chunk on payout_items (chunk_id);
create index payout_items_by_creator on payout_items (creator_id, currency);
create index payout_items_due on payout_items (due_at) where due_at is not null;
create index payout_items_not_arrived on payout_items (batch_id, id)
    where status in ('awaiting_funds', 'awaiting_available', 'payout_blocked', 'returned', 'failed', 'needs_review');

-- One attempt of one leg of an item. Its key and the bytes to send are committed before the first send and never change.
create table payout_operations (
    id bigint generated always as identity primary key,
    item_id bigint not null references payout_items,
    leg text not null constraint payout_operations_leg_is_known check (leg in ('transfer', 'payout')),
    attempt integer not null constraint payout_operations_attempt_is_positive check (attempt > 0),
    state text not null constraint payout_operations_state_is_known check (state in (
        'dispatched', 'accepted', 'rejected', 'not_run', 'unknown', 'frozen', 'unresolved', 'returned', 'canceled')),
    idempotency_key text not null constraint payout_operations_key_key unique,
    account text not null,
    amount_minor bigint not null,
    currency char(3) not null,
    request_body text not null,
    first_dispatched_at timestamptz not null,
    dispatched_at timestamptz not null,
    send_deadline timestamptz not null,
    sends integer not null default 1,
    lookups integer not null default 0,
    look_up boolean not null default false,
    cleared boolean not null default false,
    stripe_id text constraint payout_operations_stripe_id_key unique,
    stripe_status text,
    reversed_minor bigint not null default 0,
    http_status integer,
    code text,
    message text,
    request_id text,
    replayed boolean not null default false,
    unknown_since timestamptz,
    settled_at timestamptz,
    created_at timestamptz not null default now(),
    constraint payout_operations_attempt_key unique (item_id, leg, attempt),
    constraint payout_operations_accepted_has_an_id check (state <> 'accepted' or stripe_id is not null)
);
comment on table payout_operations is 'One attempt of one leg of an item. Its key and the bytes to send (request_body) are committed before the first send and never change. A dispatched one without a recorded answer is unknown.';
comment on column payout_operations.look_up is 'sending again would not tell: ask Stripe for the object';
comment on column payout_operations.cleared is 'a lookup found nothing live';
create unique index payout_operations_one_open on payout_operations (item_id) where state in ('dispatched', 'not_run', 'unknown', 'frozen', 'unresolved');
create index payout_operations_unknown on payout_operations (unknown_since) where unknown_since is not null;

-- Why somebody with a balance was not paid in a run.
create table payout_exclusions (
    run_id bigint not null references payout_runs,
    creator_id uuid not null references payees,
    currency char(3) not null references currencies,
    reason text not null constraint payout_exclusions_reason_is_known check (reason in (
        'payouts_disabled', 'not_in_beta', 'schedule_not_due', 'no_account', 'account_not_ready', 'blocked', 'unsettled_item',
        'destination_cooloff', 'held', 'debt', 'below_minimum')),
    code text,
    balance_micros bigint not null,
    payable_minor bigint not null,
    created_at timestamptz not null default now(),
    primary key (run_id, creator_id, currency)
);
comment on table payout_exclusions is 'Why somebody with a balance was not paid in a run: the first reason that applied. Amounts are as of then.';

create function count_payout_items() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into payout_batch_counts as c (batch_id, status, items, amount_minor)
        select batch_id, status, count(*), sum(amount_minor) from now_items group by batch_id, status order by batch_id, status
        on conflict (batch_id, status) do update set items = c.items + excluded.items, amount_minor = c.amount_minor + excluded.amount_minor;
        return null;
    end if;
    if not exists (select from now_items n join was_items w using (id) where n.status <> w.status) then
        return null;
    end if;
    -- The batch's row first, always: then no two workers can wait for each other's count rows in a circle.
    perform from payout_batches b where b.id in (select batch_id from now_items) order by b.id for no key update;
    insert into payout_batch_counts as c (batch_id, status, items, amount_minor)
    select batch_id, status, sum(items), sum(amount)
    from (
        select n.batch_id, n.status, 1 as items, n.amount_minor as amount from now_items n join was_items w using (id) where n.status <> w.status
        union all
        select w.batch_id, w.status, -1, -w.amount_minor from now_items n join was_items w using (id) where n.status <> w.status
    ) as change
    group by batch_id, status
    on conflict (batch_id, status) do update set items = c.items + excluded.items, amount_minor = c.amount_minor + excluded.amount_minor;
    return null;
end $$;

create trigger payout_items_count_new after insert on payout_items
    referencing new table as now_items for each statement execute function count_payout_items();
create trigger payout_items_count_changed after update on payout_items
    referencing old table as was_items new table as now_items for each statement execute function count_payout_items();

-- Money a creator asked for on demand.
create table withdrawal_requests (
    id uuid primary key default gen_random_uuid(),
    creator_id uuid not null references payees,
    token_amount bigint not null constraint withdrawal_requests_tokens_are_positive check (token_amount > 0),
    currency char(3) not null references currencies,
    amount_micros bigint not null constraint withdrawal_requests_amount_is_positive check (amount_micros > 0),
    status text not null default 'pending'
        constraint withdrawal_requests_status_is_known check (status in ('pending', 'batched', 'paid', 'failed', 'canceled')),
    item_id bigint references payout_items,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table withdrawal_requests is 'Money a creator asked for on demand: pending, batched, paid or failed; cancelable while pending.';
create index withdrawal_requests_by_creator on withdrawal_requests (creator_id, created_at);

-- The names that support and finance query.
create view creator_payouts as
select i.id as item_id, i.batch_id, b.run_id, i.creator_id, i.currency,
       i.amount_minor * c.micros_per_minor / 1000000.0 as net_payout_amount,
       i.failure_code, i.failure_reason, i.status, i.arrival_on, i.created_at, i.paid_at
from payout_items i join payout_batches b on b.id = i.batch_id join currencies c on c.code = i.currency;
comment on view creator_payouts is 'Every payout of every creator; net_payout_amount in whole units of its currency.';

create view creator_payout_history as
select batch_id, creator_id, item_id, currency, net_payout_amount, status, failure_reason, created_at, paid_at from creator_payouts;
comment on view creator_payout_history is 'Payouts by batch and creator; amounts in whole units.';

create view payout_batch_summary as
select b.id as batch_id, b.run_id, b.currency, b.status, b.created_at, b.completed_at, b.items as total_count, b.amount_minor as total_minor,
       coalesce(sum(c.items) filter (where c.status = 'paid'), 0)::bigint as paid_count,
       coalesce(sum(c.amount_minor) filter (where c.status = 'paid'), 0)::bigint as paid_minor,
       coalesce(sum(c.items) filter (where c.status = 'in_transit'), 0)::bigint as in_transit_count,
       coalesce(sum(c.amount_minor) filter (where c.status = 'in_transit'), 0)::bigint as in_transit_minor,
       coalesce(sum(c.items) filter (where c.status in ('pending', 'transferring', 'transferred', 'paying_out')), 0)::bigint as sending_count,
       coalesce(sum(c.amount_minor) filter (where c.status in ('pending', 'transferring', 'transferred', 'paying_out')), 0)::bigint as sending_minor,
       coalesce(sum(c.items) filter (where c.status in ('awaiting_funds', 'awaiting_available')), 0)::bigint as waiting_count,
       coalesce(sum(c.amount_minor) filter (where c.status in ('awaiting_funds', 'awaiting_available')), 0)::bigint as waiting_minor,
       coalesce(sum(c.items) filter (where c.status in ('failed', 'payout_blocked', 'returned', 'needs_review')), 0)::bigint as failed_count,
       coalesce(sum(c.amount_minor) filter (where c.status in ('failed', 'payout_blocked', 'returned', 'needs_review')), 0)::bigint as failed_minor,
       coalesce(sum(c.items) filter (where c.status = 'canceled'), 0)::bigint as canceled_count,
       coalesce(sum(c.amount_minor) filter (where c.status = 'canceled'), 0)::bigint as canceled_minor,
       jsonb_object_agg(c.status, jsonb_build_object('items', c.items, 'amount_minor', c.amount_minor)) filter (where c.items > 0) as by_status
from payout_batches b left join payout_batch_counts c on c.batch_id = b.id
group by b.id;
comment on view payout_batch_summary is 'Counts and sums (minor units) of each batch by status.';
