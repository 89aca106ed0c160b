-- Every event Stripe sent, stored once by its id and applied in the same transaction. One for an object we do not know yet waits and is tried again.
create table stripe_events (
    id text primary key,
    type text not null,
    account text,
    object_id text,
    livemode boolean not null,
    occurred_at timestamptz not null,
    payload jsonb not null,
    state text not null constraint stripe_events_state_is_known check (state in ('applied', 'ignored', 'waiting', 'given_up')),
    effect text,
    tries integer not null default 1,
    due_at timestamptz,
    received_at timestamptz not null default now(),
    applied_at timestamptz
);
comment on table stripe_events is 'Every event Stripe sent, stored once by its id and applied in the same transaction. One for an object we do not know yet waits and is tried again.';
create index stripe_events_due on stripe_events (due_at) where due_at is not null;
create index stripe_events_by_object on stripe_events (object_id);

-- Messages to people, written in the transaction that caused them and sent afterwards. dedupe_key makes each fact one message.
create table outbox (
    id bigint generated always as identity primary key,
    dedupe_key text not null constraint outbox_dedupe_key_key unique,
    kind text not null,
    payload jsonb not null,
    queued_at timestamptz,
    sent_at timestamptz,
    created_at timestamptz not null default now()
);
comment on table outbox is 'Messages to people, written in the transaction that caused them and sent afterwards. dedupe_key makes each fact one message.';
create index outbox_unsent on outbox (id) where sent_at is null;
