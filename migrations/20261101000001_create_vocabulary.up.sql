-- Who this database is. The id is part of every idempotency key, so two databases can never share a key.
create table instance (
    singleton boolean primary key default true constraint instance_is_one check (singleton),
    id text not null default substr(replace(gen_random_uuid()::text, '-', ''), 1, 16),
    livemode boolean,
    created_at timestamptz not null default now()
);
comment on table instance is 'Who this database is. The id is part of every idempotency key, so two databases can never share a key.';
insert into instance default values;

-- Pause and kill switch: the truth that every worker obeys within a second.
create table payout_controls (
    singleton boolean primary key default true constraint payout_controls_is_one check (singleton),
    paused boolean not null default false,
    killed boolean not null default false,
    reason text,
    changed_by text,
    changed_at timestamptz not null default now()
);
comment on table payout_controls is 'Pause and kill switch: the truth that every worker obeys within a second.';
insert into payout_controls default values;

-- The policy in force, as the batch creator last saw it; the functions that support calls by name read it.
create table payout_policies (
    singleton boolean primary key default true constraint payout_policies_is_one check (singleton),
    policy jsonb not null,
    changed_at timestamptz not null default now()
);
comment on table payout_policies is 'The policy in force, as the batch creator last saw it; the functions that support calls by name read it.';
insert into payout_policies (policy) values
    ('{"token_rate_micros": 50000, "platform_fee": 100000, "default_currency": "usd", "hold_days": 7, "thresholds_minor": {"usd": 1000},
       "reserve": 0, "beta_only": false, "destination_cooloff_hours": 72, "calendar": {"zone": "UTC", "hour": 6}}');

-- Stripe's rules per currency: how many micros one minor unit is, and what transfers and payouts must be multiples of.
create table currencies (
    code char(3) primary key,
    micros_per_minor bigint not null default 10000 constraint currencies_minor_is_known check (micros_per_minor in (1000, 10000, 1000000)),
    transfer_multiple bigint not null default 1,
    payout_multiple bigint not null default 1
);
comment on table currencies is 'Stripe''s rules per currency: how many micros one minor unit is, and what transfers and payouts must be multiples of (in minor units).';
insert into currencies (code)
select unnest(string_to_array('aed afn all amd aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg idr ils inr jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd szl thb tjs top try ttd tzs uah usd uyu uzs wst xcd yer zar zmw', ' '));
insert into currencies (code, micros_per_minor)
select unnest(string_to_array('bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf', ' ')), 1000000;
insert into currencies (code, transfer_multiple, payout_multiple) values ('isk', 100, 100), ('ugx', 100, 100);
insert into currencies (code, payout_multiple) values ('huf', 100), ('twd', 100);
insert into currencies (code, micros_per_minor, transfer_multiple, payout_multiple)
select unnest(string_to_array('bhd jod kwd omr tnd', ' ')), 1000, 10, 10;

-- The least that Stripe pays out to a bank, where it is not one unit of the currency.
create table stripe_payout_minimums (
    country char(2) not null,
    currency char(3) not null references currencies,
    minimum_minor bigint not null constraint stripe_payout_minimums_is_positive check (minimum_minor > 0),
    primary key (country, currency)
);
comment on table stripe_payout_minimums is 'The least that Stripe pays out to a bank, by country and currency, where it is not one unit of the currency. Source: docs.stripe.com/connect/cross-border-payouts/special-requirements';
insert into stripe_payout_minimums (country, currency, minimum_minor) values
    ('AL', 'all', 300000), ('DZ', 'dzd', 100), ('AO', 'aoa', 2300000), ('AG', 'xcd', 100), ('AR', 'ars', 460000), ('AM', 'amd', 1210000),
    ('AT', 'eur', 100), ('AZ', 'azn', 5000), ('BS', 'bsd', 100), ('BH', 'bhd', 1000), ('BD', 'bdt', 2000), ('BE', 'eur', 100), ('BJ', 'xof', 1),
    ('BO', 'bob', 20000), ('BA', 'bam', 5000), ('BW', 'bwp', 100), ('SV', 'usd', 3000), ('PH', 'php', 2000),
    ('MX', 'mxn', 1000), ('KR', 'krw', 40000), ('CL', 'clp', 23000), ('CO', 'cop', 14000000), ('KH', 'khr', 12300000),
    ('US', 'usd', 1), ('AU', 'aud', 1), ('CA', 'cad', 1);

-- The rate budget of each Stripe endpoint, shared by all workers: the next free slot, and how far it is slowed after a 429.
create table rate_budgets (
    endpoint text primary key constraint rate_budgets_endpoint_is_known check (endpoint in ('transfers', 'payouts')),
    next_at timestamptz not null default '-infinity',
    slowed_by bigint not null default 1 constraint rate_budgets_slowed_is_bounded check (slowed_by between 1 and 32),
    slowed_at timestamptz not null default 'epoch'
);
comment on table rate_budgets is 'The rate budget of each Stripe endpoint, shared by all workers: the next free slot, and how far it is slowed after a 429.';
insert into rate_budgets (endpoint) values ('transfers'), ('payouts');

-- Adds up micros without leaving bigint: an overflow is an error, as everywhere, and a sum over many payees costs half of what sum() does,
-- which goes through numeric.
create aggregate total(bigint) (sfunc = int8pl, stype = bigint, initcond = '0', combinefunc = int8pl, parallel = safe);
comment on aggregate total(bigint) is 'Adds up micros without leaving bigint; an overflow is an error. Nothing adds up to 0.';
