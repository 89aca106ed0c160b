-- What was said twice of the same amount cannot be told apart any more; the first saying stays.
delete from earning_reversals r using earning_reversals s
where s.earning_id = r.earning_id and s.source = r.source and s.cumulative_gross_micros = r.cumulative_gross_micros and s.id < r.id and r.gross_micros = 0 and r.net_micros = 0;
alter table earning_reversals drop constraint earning_reversals_once;
alter table earning_reversals add constraint earning_reversals_once unique (earning_id, source, cumulative_gross_micros);
alter table earning_reversals drop column said_at;
comment on table earning_reversals is 'What a dispute or refund took back of an earning. cumulative_gross_micros is the source''s running total, so that a repeated or late event adds nothing.';
