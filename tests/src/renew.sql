-- Keeps a copy of all rows and sequences at the first time, and brings them back at every other.
do $$
declare
    it record;
    filled boolean;
begin
    set local session_replication_role = replica; -- no trigger refuses to delete, no foreign key asks for an order
    if to_regnamespace('as_new') is null then
        create schema as_new;
        create table as_new.sequences as select sequencename, start_value, last_value from pg_sequences where schemaname = 'public';
        for it in select tablename from pg_tables where schemaname = 'public' loop
            execute format('select exists (select from public.%I)', it.tablename) into filled;
            if filled then
                execute format('create table as_new.%1$I as table public.%1$I', it.tablename);
            end if;
        end loop;
        return;
    end if;
    for it in select tablename from pg_tables where schemaname = 'public' loop
        execute format('delete from public.%I', it.tablename);
        if to_regclass(format('as_new.%I', it.tablename)) is not null then
            execute format('insert into public.%1$I overriding system value select * from as_new.%1$I', it.tablename);
        end if;
    end loop;
    for it in select * from as_new.sequences loop
        perform setval(format('public.%I', it.sequencename), coalesce(it.last_value, it.start_value), it.last_value is not null);
    end loop;
end $$;
