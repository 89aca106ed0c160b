alter table creator_payout_settings drop column timezone;
