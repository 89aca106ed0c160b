-- Who did what to what, when, and what it was before and after. Inserted only; each row's hash covers its content and the hash of the
-- row before, so that a row that is changed, left out or put in later breaks the chain from there on.
create table audit_log (
    id bigint primary key,
    at timestamptz not null,
    actor text not null,
    action text not null,
    subject text not null,
    outcome text not null default 'done' constraint audit_log_outcome_is_known check (outcome in ('done', 'refused')),
    before jsonb not null default '{}',
    after jsonb not null default '{}',
    request_id text not null,
    previous_hash bytea not null,
    hash bytea not null
);
comment on table audit_log is 'Who did what to what, when, and what it was before and after. Inserted only. Each row''s hash covers its content and the hash of the row before.';
create index audit_log_by_subject on audit_log (subject, id);
create index audit_log_by_actor on audit_log (actor, id);

-- The newest row. Its lock makes writers wait for each other, so that ids have no gaps and the chain no branches.
create table audit_head (
    singleton boolean primary key default true constraint audit_head_is_one check (singleton),
    id bigint not null default 0,
    hash bytea not null default ''
);
comment on table audit_head is 'The newest row of audit_log. Its lock makes writers wait for each other: ids have no gaps and the chain no branches.';
insert into audit_head default values;

-- An array of JSON is the same text for the same values, and no two different rows have the same.
create function audit_hash(entry audit_log) returns bytea language sql stable as $$
    select sha256(entry.previous_hash || convert_to(jsonb_build_array(
        entry.id, (extract(epoch from entry.at) * 1000000)::bigint, entry.actor, entry.action, entry.subject, entry.outcome,
        entry.before, entry.after, entry.request_id)::text, 'UTF8'))
$$;
comment on function audit_hash is 'The hash that a row of audit_log must have, from its content and previous_hash.';

create function chain_audit_log() returns trigger language plpgsql as $$
begin
    select id + 1, hash into new.id, new.previous_hash from audit_head for no key update;
    new.at := clock_timestamp();
    new.hash := audit_hash(new);
    update audit_head set id = new.id, hash = new.hash;
    return new;
end $$;
create trigger audit_log_chain before insert on audit_log for each row execute function chain_audit_log();

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are inserted, never changed or removed', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger audit_log_stay before update or delete or truncate on audit_log
    for each statement execute function refuse_audit_change();
revoke update, delete, truncate on audit_log from public, current_user;
create trigger audit_head_stay before delete or truncate on audit_head
    for each statement execute function refuse_audit_change();

-- Where the chain is broken. Expected: no row.
create function audit_breaches() returns table (id bigint, problem text) language sql stable as $$
    with chained as (
        select l.id, l.previous_hash, l.hash, audit_hash(l) as expected, lag(l.id, 1, 0::bigint) over w as before, lag(l.hash, 1, ''::bytea) over w as hash_before
        from audit_log l window w as (order by l.id)
    )
    select c.id, 'its content is not what was written' from chained c where c.hash <> c.expected
    union all
    select c.id, format('it follows row %s', c.before) from chained c where c.id <> c.before + 1
    union all
    select c.id, 'the row before it is another than when it was written' from chained c where c.previous_hash <> c.hash_before
    union all
    select h.id, 'it is the newest row, and is missing or another'
    from audit_head h left join (select l.id, l.hash from audit_log l order by l.id desc limit 1) l on true
    where h.id <> coalesce(l.id, 0) or h.hash <> coalesce(l.hash, '')
    order by 1, 2
$$;
comment on function audit_breaches is 'Where the chain of audit_log is broken. Expected: no row.';
