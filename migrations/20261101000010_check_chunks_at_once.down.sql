drop trigger payout_chunks_stay on payout_chunks;
drop function refuse_chunk_removal;

create or replace function count_payout_items() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into payout_batch_counts as c (batch_id, status, items, amount_minor)
        select batch_id, status, count(*), sum(amount_minor) from now_items group by batch_id, status order by batch_id, status
        on conflict (batch_id, status) do update set items = c.items + excluded.items, amount_minor = c.amount_minor + excluded.amount_minor;
        return null;
    end if;
    if not exists (select from now_items n join was_items w using (id) where n.status <> w.status) then
        return null;
    end if;
    -- The batch's row first, always: then no two workers can wait for each other's count rows in a circle.
    perform from payout_batches b where b.id in (select batch_id from now_items) order by b.id for no key update;
    insert into payout_batch_counts as c (batch_id, status, items, amount_minor)
    select batch_id, status, sum(items), sum(amount)
    from (
        select n.batch_id, n.status, 1 as items, n.amount_minor as amount from now_items n join was_items w using (id) where n.status <> w.status
        union all
        select w.batch_id, w.status, -1, -w.amount_minor from now_items n join was_items w using (id) where n.status <> w.status
    ) as change
    group by batch_id, status
    on conflict (batch_id, status) do update set items = c.items + excluded.items, amount_minor = c.amount_minor + excluded.amount_minor;
    return null;
end $$;

alter table payout_items
    add constraint payout_items_chunk_fkey foreign key (chunk_id, batch_id) references payout_chunks (id, batch_id);
