-- The baseline of a batch: a bare insert … select of every row that maturing and the batch's transaction write or rewrite. What a
-- balance is rewritten twice for (held to available, available to reserved) is inserted twice.
insert into baseline_ledger_transfers overriding system value select * from rows_matured;
insert into baseline_payee_balances_1 select * from rows_balances;
insert into baseline_payout_batches overriding system value select * from rows_batches;
insert into baseline_payout_batch_counts select * from rows_counts;
insert into baseline_payout_chunks overriding system value select * from rows_chunks;
insert into baseline_payout_items overriding system value select * from rows_items;
insert into baseline_ledger_transfers overriding system value select * from rows_reserved;
insert into baseline_payee_balances_2 select * from rows_reserved_balances;
insert into baseline_payout_exclusions select * from rows_exclusions;
