-- Tables like the real ones, with their indexes and checks and without triggers (foreign keys are triggers), and beside them the rows
-- of run 1 to put there, read beforehand so that the baseline pays for writing only.
create table baseline_ledger_transfers (like ledger_transfers including all);
create table baseline_payee_balances_1 (like payee_balances including all) with (fillfactor = 50);
create table baseline_payee_balances_2 (like payee_balances including all) with (fillfactor = 50);
create table baseline_payout_batches (like payout_batches including all);
create table baseline_payout_batch_counts (like payout_batch_counts including all);
create table baseline_payout_chunks (like payout_chunks including all);
create table baseline_payout_items (like payout_items including all);
create table baseline_payout_exclusions (like payout_exclusions including all);

create table rows_matured as select * from ledger_transfers where event like 'mature:%';
create table rows_reserved as select * from ledger_transfers where event like 'item:%' or event like 'run:%';
create table rows_balances as select b.* from payee_balances b where exists (select from rows_matured m where m.payee_id = b.payee_id);
create table rows_reserved_balances as select b.* from payee_balances b where exists (select from rows_reserved m where m.payee_id = b.payee_id);
create table rows_batches as select * from payout_batches;
create table rows_counts as select * from payout_batch_counts;
create table rows_chunks as select * from payout_chunks;
create table rows_items as select * from payout_items;
create table rows_exclusions as select * from payout_exclusions;
