-- How far the daily reading of all connected accounts is: after which account it goes on, should it be interrupted.
create table account_sync (
    singleton boolean primary key default true constraint account_sync_is_one check (singleton),
    started_at timestamptz,
    after_account text,
    finished_at timestamptz
);
comment on table account_sync is 'How far the daily reading of all connected accounts is: after which account it goes on, should it be interrupted. finished_at null: under way since started_at.';
insert into account_sync default values;
