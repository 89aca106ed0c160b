drop aggregate total(bigint);
drop table rate_budgets;
drop table stripe_payout_minimums;
drop table currencies;
drop table payout_policies;
drop table payout_controls;
drop table instance;
