-- One way of one message of the outbox to one reader. Its claim is committed before it is sent, so that nothing is sent twice.
create table outbox_deliveries (
    outbox_id bigint not null references outbox,
    channel text not null constraint outbox_deliveries_channel_is_known check (channel in ('slack', 'email')),
    recipient text not null,
    state text not null default 'waiting'
        constraint outbox_deliveries_state_is_known check (state in ('waiting', 'sending', 'sent', 'unsure', 'given_up')),
    attempts integer not null default 0,
    due_at timestamptz,
    why text,
    sent_at timestamptz,
    primary key (outbox_id, channel, recipient),
    constraint outbox_deliveries_due_while_open check ((state in ('waiting', 'sending')) = (due_at is not null))
);
comment on table outbox_deliveries is 'One way of one message of the outbox to one reader. Its claim is committed before it is sent, so that nothing is sent twice.';
comment on column outbox_deliveries.state is 'waiting; sending since it was claimed; sent; unsure: it may have arrived, and is not sent again; given_up: refused, or in vain for days';
comment on column outbox_deliveries.due_at is 'when it is tried next; of one that is being sent, when its sender counts as dead';
create index outbox_deliveries_due on outbox_deliveries (due_at) where due_at is not null;
create index outbox_deliveries_failed on outbox_deliveries (outbox_id) where state in ('unsure', 'given_up');

-- What a creator is told of an item, in the transaction that changes it: that the money is on its way, or that it did not arrive.
-- Once for each attempt of a payout; only whoever has an address.
create function tell_creators_of_items() returns trigger language plpgsql as $$
begin
    insert into outbox (dedupe_key, kind, payload)
    select 'creator_' || t.what || ':item:' || n.id || ':' || n.payout_attempt || case when t.what = 'not_paid' then ':' || n.status else '' end,
           'creator_' || t.what, jsonb_build_object('creatorId', n.creator_id, 'itemId', n.id, 'status', n.status)
    from now_items n
    join was_items w on w.id = n.id and w.status <> n.status
    cross join lateral (select case
        when n.status = 'in_transit' or n.status = 'paid' and w.status <> 'in_transit' then 'paid'
        when n.status in ('failed', 'payout_blocked', 'returned') then 'not_paid' end as what) t
    join payees p on p.id = n.creator_id
    where t.what is not null and p.email is not null and p.kind = 'creator'
    order by n.id
    on conflict (dedupe_key) do nothing;
    return null;
end $$;
create trigger payout_items_tell_creators after update on payout_items
    referencing old table as was_items new table as now_items for each statement execute function tell_creators_of_items();

-- What a creator is told who has money and is left out of a run, where there is something to say: not of holds, betas and schedules.
create function tell_creators_of_exclusions() returns trigger language plpgsql as $$
begin
    insert into outbox (dedupe_key, kind, payload)
    select 'creator_not_paid:run:' || n.run_id || ':' || n.creator_id || ':' || n.currency, 'creator_not_paid',
           jsonb_build_object('creatorId', n.creator_id, 'runId', n.run_id, 'status', n.reason, 'currency', n.currency, 'balanceMicros', n.balance_micros)
    from now_exclusions n join payees p on p.id = n.creator_id
    where n.reason in ('no_account', 'account_not_ready', 'destination_cooloff', 'debt', 'below_minimum') and p.email is not null and p.kind = 'creator'
    order by n.creator_id, n.currency
    on conflict (dedupe_key) do nothing;
    return null;
end $$;
create trigger payout_exclusions_tell_creators after insert on payout_exclusions
    referencing new table as now_exclusions for each statement execute function tell_creators_of_exclusions();
