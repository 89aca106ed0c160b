drop function missed_cutoff(uuid);
drop index stripe_accounts_cured;
alter table stripe_accounts drop column cured_at;
