drop trigger payout_exclusions_tell_creators on payout_exclusions;
drop function tell_creators_of_exclusions();
drop trigger payout_items_tell_creators on payout_items;
drop function tell_creators_of_items();
drop table outbox_deliveries;
