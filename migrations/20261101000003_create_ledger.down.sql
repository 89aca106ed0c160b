drop function ledger_differences;
drop table ledger_transfers;
drop function refuse_change;
drop function post_to_balances;
drop table platform_balances;
drop table payee_balances;
drop function refuse_removal;
