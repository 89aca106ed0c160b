-- Everyone who is paid: a creator or a partner. The id is the uuid of the user.
create table payees (
    id uuid primary key,
    kind text not null default 'creator' constraint payees_kind_is_known check (kind in ('creator', 'partner')),
    email text,
    blocked_reason text,
    blocked_at timestamptz,
    created_at timestamptz not null default now()
);
comment on table payees is 'Everyone who is paid: a creator or a partner. The id is the uuid of the user. A blocked payee waits for a person.';

-- What a creator or the platform has chosen: paid at all, from which amount (whole units), how often, in the beta. No row means the defaults.
create table creator_payout_settings (
    creator_id uuid primary key references payees,
    payout_enabled boolean not null default true,
    minimum_payout_amount numeric constraint creator_payout_settings_minimum_is_not_negative check (minimum_payout_amount >= 0),
    schedule text not null default 'semimonthly'
        constraint creator_payout_settings_schedule_is_known check (schedule in ('semimonthly', 'monthly', 'weekly', 'manual')),
    beta_enabled boolean not null default false,
    updated_at timestamptz not null default now()
);
comment on table creator_payout_settings is 'What a creator or the platform has chosen: paid at all, from which amount (whole units), how often, in the beta. No row means the defaults.';

-- A payee's connected account as Stripe last described it. state_at is Stripe's own time of that description.
create table stripe_accounts (
    payee_id uuid primary key references payees,
    account text not null constraint stripe_accounts_account_key unique,
    country char(2),
    transfers_active boolean not null default false,
    payouts_enabled boolean not null default false,
    charges_enabled boolean not null default false,
    past_due boolean not null default false,
    disabled_reason text,
    payout_interval text,
    destination text,
    destination_changed_at timestamptz,
    deauthorized_at timestamptz,
    state_at timestamptz not null default '-infinity',
    stale boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table stripe_accounts is 'A payee''s connected account as Stripe last described it. state_at is Stripe''s own time of that description; stale asks a sweep to read it again.';
comment on column stripe_accounts.payout_interval is 'manual, daily, weekly or monthly; null when Stripe does not say, which counts as automatic';
comment on column stripe_accounts.destination is 'fingerprint (else id) of the default bank account or card';
create index stripe_accounts_stale on stripe_accounts (payee_id) where stale;

-- The name that support knows.
create view creator_stripe_accounts as
select payee_id as creator_id, account as stripe_connect_account_id, payouts_enabled, charges_enabled, transfers_active, past_due, disabled_reason,
       country, payout_interval, destination_changed_at, deauthorized_at, updated_at
from stripe_accounts;
comment on view creator_stripe_accounts is 'Connected accounts by creator, under the names that support and finance query.';

-- One line per payee with what eligibility asks of them, defaults filled in.
create view payee_facts as
select p.id as payee_id, p.kind, p.blocked_reason is not null as blocked,
       coalesce(s.payout_enabled, true) as payout_enabled, coalesce(s.beta_enabled, false) as beta_enabled,
       coalesce(s.schedule, 'semimonthly') as schedule, s.minimum_payout_amount,
       a.account, a.country, a.payout_interval is distinct from 'manual' as automatic, a.destination_changed_at,
       coalesce(a.transfers_active and a.payouts_enabled and not a.past_due and a.deauthorized_at is null, false) as ready
from payees p
left join creator_payout_settings s on s.creator_id = p.id
left join stripe_accounts a on a.payee_id = p.id;
comment on view payee_facts is 'One line per payee with what eligibility asks of them, defaults filled in.';
