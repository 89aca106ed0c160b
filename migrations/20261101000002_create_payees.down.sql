drop view payee_facts;
drop view creator_stripe_accounts;
drop table stripe_accounts;
drop table creator_payout_settings;
drop table payees;
