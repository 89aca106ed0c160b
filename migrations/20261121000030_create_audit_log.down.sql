drop function audit_breaches;
drop function audit_hash;
drop table audit_log;
drop table audit_head;
drop function chain_audit_log;
drop function refuse_audit_change;
