-- A payee whom the last cycle left out, or whose payment was refused, for something that is mended now: the next sweep looks at what they missed.
alter table stripe_accounts add column cured_at timestamptz;
comment on column stripe_accounts.cured_at is 'since when something that kept the payee from being paid is mended; null: nothing, or the sweep has looked at it';
create index stripe_accounts_cured on stripe_accounts (cured_at) where cured_at is not null;

create function missed_cutoff(payee uuid) returns timestamptz language sql stable as $$
    select last.cutoff_at
    from (select r.id, r.cutoff_at from payee_facts f join payout_runs r on r.kind = 'scheduled' and r.schedule = f.schedule
          where f.payee_id = payee and r.batches_created_at is not null order by r.cycle_on desc limit 1) last
    where exists (
        select from payout_exclusions x
        where x.run_id = last.id and x.creator_id = payee
          and (x.reason in ('no_account', 'account_not_ready', 'blocked') or x.reason = 'destination_cooloff' and x.code = 'destination_unconfirmed'))
$$;
comment on function missed_cutoff is 'The cut-off of the last cycle of a payee''s schedule, if they were left out of it for something that can be mended.';
