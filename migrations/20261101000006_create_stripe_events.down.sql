drop table outbox;
drop table stripe_events;
