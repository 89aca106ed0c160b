-- The zone in which a creator reads dates. Pay days themselves are in the platform's.
alter table creator_payout_settings add column timezone text;
comment on column creator_payout_settings.timezone is 'IANA name of the zone in which the creator reads dates; null: the platform''s';
