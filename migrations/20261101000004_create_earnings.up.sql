-- What creators earned, each with the rate and fee frozen when it was recorded. Held until available_at (inclusive).
create table creator_earnings (
    id bigint generated always as identity primary key,
    source_id text not null constraint creator_earnings_source_id_key unique,
    content_hash bigint not null,
    creator_id uuid not null references payees,
    kind text not null constraint creator_earnings_kind_is_known check (kind in ('tip', 'call', 'message', 'sale', 'other')),
    place text not null constraint creator_earnings_place_is_known check (place in ('platform', 'connected')),
    currency char(3) not null references currencies,
    tokens bigint constraint creator_earnings_tokens_are_positive check (tokens > 0),
    token_rate_micros bigint,
    fee_ppm bigint,
    gross_micros bigint not null constraint creator_earnings_gross_is_positive check (gross_micros > 0),
    fee_micros bigint not null constraint creator_earnings_fee_is_a_part check (fee_micros between 0 and gross_micros),
    net_micros bigint generated always as (gross_micros - fee_micros) stored,
    taken_back_gross_micros bigint not null default 0,
    taken_back_net_micros bigint not null default 0,
    charge_id text,
    occurred_at timestamptz not null,
    available_at timestamptz not null,
    created_at timestamptz not null default now(),
    constraint creator_earnings_taken_back_is_a_part check (
        taken_back_net_micros between 0 and gross_micros - fee_micros and taken_back_gross_micros between 0 and gross_micros)
);
comment on table creator_earnings is 'What creators earned, each with the rate and fee frozen when it was recorded. Held until available_at (inclusive). content_hash is of what the caller said, to tell a repetition from a contradiction.';
create index creator_earnings_by_maturity on creator_earnings (available_at);
create index creator_earnings_by_creator on creator_earnings (creator_id, available_at);
create index creator_earnings_by_charge on creator_earnings (charge_id) where charge_id is not null;

-- How far earnings have matured: every earning available at or before this instant is counted as available, every later one as held.
create table maturity (
    singleton boolean primary key default true constraint maturity_is_one check (singleton),
    through timestamptz not null default '-infinity'
);
comment on table maturity is 'How far earnings have matured: every earning available at or before this instant is counted as available, every later one as held. Recording locks it shared, maturing exclusively.';
insert into maturity default values;

-- What a dispute or refund took back of an earning. cumulative_gross_micros is the source's running total after it, so that a repeated or late event adds nothing.
create table earning_reversals (
    id bigint generated always as identity primary key,
    earning_id bigint not null references creator_earnings,
    source text not null,
    cumulative_gross_micros bigint not null,
    gross_micros bigint not null,
    net_micros bigint not null,
    created_at timestamptz not null default now(),
    constraint earning_reversals_once unique (earning_id, source, cumulative_gross_micros)
);
comment on table earning_reversals is 'What a dispute or refund took back of an earning. cumulative_gross_micros is the source''s running total, so that a repeated or late event adds nothing.';
