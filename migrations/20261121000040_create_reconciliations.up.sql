-- One comparison with Stripe, begun once a day. Where it stands is kept after each page, so that whoever runs the job next goes on there.
create table reconciliations (
    id bigint generated always as identity primary key,
    stage text not null default 'events' constraint reconciliations_stage_is_known check (stage in ('events', 'transfers', 'payouts', 'closing', 'done')),
    cursor text,
    since timestamptz not null,
    lease uuid,
    leased_until timestamptz not null default '-infinity',
    reads bigint not null default 0,
    events_missed bigint not null default 0,
    mended bigint not null default 0,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint reconciliations_done_is_finished check ((stage = 'done') = (finished_at is not null))
);
comment on table reconciliations is 'One comparison with Stripe, begun once a day. Where it stands (stage, cursor) is kept after each page, so that whoever runs the job next goes on there.';
comment on column reconciliations.since is 'events and transfers made at Stripe before this were compared by an earlier one';
comment on column reconciliations.events_missed is 'events that no webhook had brought';
comment on column reconciliations.mended is 'operations that learned from the comparison what no webhook had told';
create unique index reconciliations_one_open on reconciliations ((true)) where finished_at is null;

-- What one reconciliation added up: Stripe's amounts and the ledger's, of the same objects.
create table reconciliation_sums (
    reconciliation_id bigint not null references reconciliations,
    leg text not null constraint reconciliation_sums_leg_is_known check (leg in ('transfer', 'payout')),
    currency char(3) not null references currencies,
    objects bigint not null,
    stripe_minor bigint not null,
    ledger_minor bigint not null,
    primary key (reconciliation_id, leg, currency)
);
comment on table reconciliation_sums is 'What one reconciliation added up: Stripe''s amounts and the ledger''s of the same objects, minor units. Transfers less what was reversed; payouts that are paid.';

-- A place where Stripe and these books do not say the same. Resolved by itself once they do.
create table discrepancies (
    id bigint generated always as identity primary key,
    kind text not null constraint discrepancies_kind_is_known check (kind in (
        'unknown_object', 'second_object', 'object_differs', 'refused_but_there', 'missing_at_stripe', 'reversal_differs',
        'status_differs', 'payout_overdue', 'account_gone', 'held_too_long', 'sums_differ')),
    subject text not null,
    payee_id uuid references payees,
    item_id bigint references payout_items,
    account text,
    expected text not null,
    found text not null,
    state text not null default 'open' constraint discrepancies_state_is_known check (state in ('open', 'resolved', 'ignored')),
    owner text,
    note text,
    changed_by text,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    times_seen bigint not null default 1,
    resolved_at timestamptz,
    told_at timestamptz,
    constraint discrepancies_one_per_subject unique (kind, subject)
);
comment on table discrepancies is 'A place where Stripe and these books do not say the same. Resolved by itself once they do; ignored by a person as long as it stays as it is.';
comment on column discrepancies.subject is 'Stripe''s id of the object, else what it is about: operation 12, or a payee and a currency';
comment on column discrepancies.times_seen is 'by how many reconciliations since it was opened';
create index discrepancies_not_resolved on discrepancies (id) where state <> 'resolved';

alter table payout_operations add column reconciled_at timestamptz;
comment on column payout_operations.reconciled_at is 'when reconciliation found its object at Stripe and had nothing more to ask of it';
