comment on column payout_runs.schedule is null;
drop index withdrawal_requests_pending;
comment on column withdrawal_requests.amount_micros is null;
alter table withdrawal_requests
    drop constraint withdrawal_requests_item_id_key,
    drop constraint withdrawal_requests_key_key,
    drop constraint withdrawal_requests_parts_are_not_negative,
    drop column queued_at,
    drop column due_at,
    drop column failure_code,
    drop column idempotency_key,
    drop column connected_minor,
    drop column transfer_minor;
