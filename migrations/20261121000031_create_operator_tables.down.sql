drop index creator_payout_settings_beta;
drop index stripe_accounts_by_account;
drop index payees_by_email;
drop function payout_fact;
drop table stripe_balances;
drop table operator_proposals;
alter table payout_items drop column adopted_minor, drop column adopted_reference;
alter table payout_runs drop column facts_changed_at, drop column preview_hash;
alter table payout_controls drop column suspended_schedules;
