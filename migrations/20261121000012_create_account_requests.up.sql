-- A connected account that a payee asked for. Its key and bytes are committed before they are sent, so that asking again, also after an answer
-- was lost, finds the same account.
create table account_requests (
    payee_id uuid primary key references payees,
    attempt integer not null default 1,
    idempotency_key text not null constraint account_requests_key_key unique,
    request_body text not null,
    country char(2) not null,
    state text not null default 'open' constraint account_requests_state_is_known check (state in ('open', 'created', 'refused')),
    look_up boolean not null default false,
    first_sent_at timestamptz not null,
    code text,
    message text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table account_requests is 'A connected account that a payee asked for. Its key and bytes are committed before they are sent, so that asking again, also after an answer was lost, finds the same account.';
comment on column account_requests.attempt is 'rises only after Stripe refused, or after the account left the platform';
comment on column account_requests.look_up is 'sending again would not tell: ask Stripe for the account';

-- What Stripe wants of the account's owner, as it last said.
alter table stripe_accounts add column requirements jsonb not null default '{}';
comment on column stripe_accounts.requirements is 'what Stripe wants of the owner: currently_due, past_due, pending_verification, disabled_reason, current_deadline';
