-- For the operators' list of events: the last received first, of a type, of an account, in a state that somebody should look at.
create index stripe_events_by_receipt on stripe_events (received_at, id);
create index stripe_events_by_type on stripe_events (type, received_at, id);
create index stripe_events_by_account on stripe_events (account, received_at, id) where account is not null;
create index stripe_events_unapplied on stripe_events (state, received_at, id) where state in ('waiting', 'given_up');
