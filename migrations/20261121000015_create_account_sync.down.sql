drop table account_sync;
