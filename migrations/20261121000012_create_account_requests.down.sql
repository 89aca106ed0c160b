alter table stripe_accounts drop column requirements;
drop table account_requests;
