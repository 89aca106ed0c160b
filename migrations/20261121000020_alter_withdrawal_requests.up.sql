-- A request reserves its money at once, so it says how much lies where, until an item takes that over. item_id is unique, for
-- `store::chunks::save` finds the request of an item by it.
alter table withdrawal_requests
    add column transfer_minor bigint not null default 0,
    add column connected_minor bigint not null default 0,
    add column idempotency_key text,
    add column failure_code text,
    add column due_at timestamptz,
    add column queued_at timestamptz,
    add constraint withdrawal_requests_parts_are_not_negative check (transfer_minor >= 0 and connected_minor >= 0),
    add constraint withdrawal_requests_key_key unique (creator_id, idempotency_key),
    add constraint withdrawal_requests_item_id_key unique (item_id);
comment on column withdrawal_requests.amount_micros is 'what the tokens are worth; transfer_minor and connected_minor of it are set aside, rounded down';
comment on column withdrawal_requests.due_at is 'from when on it may be batched; null: with the next cycle, which sets it';
comment on column withdrawal_requests.failure_code is 'why it failed before there was an item';
create index withdrawal_requests_pending on withdrawal_requests (creator_id, currency) where status = 'pending';
comment on column payout_runs.schedule is 'the schedule whose cycle it is; of a withdrawal, the id of the request';
