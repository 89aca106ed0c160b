alter table payout_controls add column suspended_schedules text[] not null default '{}';
comment on column payout_controls.suspended_schedules is 'schedules of EventBridge Scheduler that were switched off because payouts are stopped, and go on again with them';

alter table payout_runs add column preview_hash text, add column facts_changed_at timestamptz;
comment on column payout_runs.preview_hash is 'the preview that was agreed to: batches are made only of the same facts';
comment on column payout_runs.facts_changed_at is 'the facts were others than those agreed to: nothing was made, and somebody must ask for the run again';

alter table payout_items add column adopted_reference text,
    add column adopted_minor bigint not null default 0 constraint payout_items_adopted_is_a_part check (adopted_minor between 0 and amount_minor);
comment on column payout_items.adopted_reference is 'how it was paid outside of Payday';
comment on column payout_items.adopted_minor is 'what of the amount was paid outside, so that it never was at Stripe';

-- What one operator wants to be done and another has to confirm. The audit log has the history, this what is open.
create table operator_proposals (
    subject text primary key,
    action text not null,
    decision jsonb not null,
    evidence text not null,
    proposed_by text not null,
    proposed_at timestamptz not null default now()
);
comment on table operator_proposals is 'What one operator wants to be done and another has to confirm: at most one per subject. The audit log has the history.';

-- What the platform had at Stripe when it was last asked. The API has no key to ask with.
create table stripe_balances (
    currency text primary key,
    available_minor bigint not null,
    read_at timestamptz not null
);
comment on table stripe_balances is 'What the platform had available at Stripe when it was last asked, by currency. The API has no key to ask with.';

-- What would happen to somebody in a run, as text: the same text, the same facts.
create function payout_fact(
    creator_id uuid, currency text, account text, destination text, payable_minor bigint, transfer_minor bigint, payout_minor bigint, reason text) returns text
language sql immutable as $$
    select concat_ws(' ', creator_id, currency, coalesce(reason, concat_ws(' ', 'pays', payable_minor, transfer_minor, payout_minor, account, destination)))
$$;
comment on function payout_fact is 'What would happen to somebody in a run, as text: the same text, the same facts.';

-- Operators look for payees by the beginning of an email or of an account.
create index payees_by_email on payees (lower(email) text_pattern_ops);
create index stripe_accounts_by_account on stripe_accounts (account text_pattern_ops);
create index creator_payout_settings_beta on creator_payout_settings (creator_id) where beta_enabled;
