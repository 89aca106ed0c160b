-- What the standing checks last found, one row per check. The checks themselves are in the library (payouts/checks.rs).
create table standing_checks (
    name text primary key,
    verified_at timestamptz,
    breached_at timestamptz,
    disagreeing text[] not null default '{}'
);
comment on table standing_checks is 'What the standing checks last found, one row per check: when all of the database was last verified, when the check was last seen breached (null: not since), and the first rows that disagreed then.';
