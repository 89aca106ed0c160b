drop index stripe_events_by_receipt;
drop index stripe_events_by_type;
drop index stripe_events_by_account;
drop index stripe_events_unapplied;
