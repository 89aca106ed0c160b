drop table earning_reversals;
drop table maturity;
drop table creator_earnings;
