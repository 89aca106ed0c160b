-- A dispute may be won, and lost again after that: what it claims is what Stripe said last, so the instant of saying belongs to the claim.
alter table earning_reversals add column said_at timestamptz;
alter table earning_reversals drop constraint earning_reversals_once;
alter table earning_reversals add constraint earning_reversals_once unique nulls not distinct (earning_id, source, cumulative_gross_micros, said_at);
comment on table earning_reversals is 'What disputes and refunds claim of an earning, each row one saying: cumulative_gross_micros is all that the source claims since, gross_micros and net_micros what that changed (below zero: given back). The newest row of a source counts.';
comment on column earning_reversals.said_at is 'when Stripe said so; null for a running total, which only grows';
