alter table payout_operations drop column reconciled_at;
drop table discrepancies;
drop table reconciliation_sums;
drop table reconciliations;
