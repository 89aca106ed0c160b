//! The schema: it goes down and up again unchanged, says what it is for, and has what support and finance ask by name.

use payday::db::MIGRATIONS;
use payday::money::Currency;
use payday_tests::database::Database;
use payday_tests::world::{World, at, creator, earning};
use sqlx::PgPool;

/// Everything that migrations make, as text.
const CATALOG: &str = "
    select 'table ' || c.relname || ' ' || c.relkind::text || ' ' || coalesce(obj_description(c.oid, 'pg_class'), '') as line
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and c.relname <> '_sqlx_migrations'
    union all
    select 'column ' || c.relname || '.' || row_number() over (partition by c.oid order by a.attnum) || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull
           || ' ' || a.attidentity::text || ' ' || a.attgenerated::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(col_description(c.oid, a.attnum), '')
    from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped and c.relname <> '_sqlx_migrations'
    union all
    select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    from pg_constraint where connamespace = 'public'::regnamespace and conrelid <> 0 and conrelid::regclass::text <> '_sqlx_migrations'
    union all
    select 'index ' || pg_get_indexdef(indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid
    where c.relnamespace = 'public'::regnamespace and c.relname <> '_sqlx_migrations'
    union all
    select 'view ' || c.relname || ' ' || pg_get_viewdef(c.oid) from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'v'
    union all
    select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
    union all
    select 'function ' || pg_get_functiondef(oid) || ' ' || coalesce(obj_description(oid, 'pg_proc'), '') from pg_proc
    where pronamespace = 'public'::regnamespace and prokind <> 'a'
    union all
    select 'aggregate ' || a::text || ' ' || coalesce(obj_description(aggfnoid, 'pg_proc'), '') from pg_aggregate a join pg_proc p on p.oid = a.aggfnoid
    where p.pronamespace = 'public'::regnamespace
    union all
    select 'rights ' || relname || ' ' || coalesce(relacl::text, '') from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
    union all
    select 'currency ' || c::text from currencies c
    union all
    select 'minimum ' || m::text from stripe_payout_minimums m
    order by 1";

#[tokio::test]
async fn the_migrations_go_down_and_up_again_and_the_schema_is_the_same() {
    let database = Database::empty().await;
    payday::db::migrate(&database.url()).await.expect("up");
    let before = database.rows(CATALOG).await;
    assert!(before.len() > 300, "{} lines", before.len());

    let pool = PgPool::connect(&database.url()).await.expect("a connection");
    MIGRATIONS.undo(&pool, 0).await.expect("all of them down");
    let left = database
        .rows(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relname not like '\\_sqlx\\_migrations%'
             union all select proname from pg_proc where pronamespace = 'public'::regnamespace",
        )
        .await;
    assert_eq!(left, [""; 0], "nothing is left");

    MIGRATIONS.run(&pool).await.expect("up again");
    pool.close().await;
    assert_eq!(database.rows(CATALOG).await, before);
}

#[tokio::test]
async fn each_migration_goes_down_and_up_on_its_own() {
    let database = Database::empty().await;
    payday::db::migrate(&database.url()).await.expect("up");
    let before = database.rows(CATALOG).await;
    let pool = PgPool::connect(&database.url()).await.expect("a connection");
    let versions: Vec<i64> = MIGRATIONS.iter().filter(|it| it.migration_type.is_up_migration()).map(|it| it.version).collect();
    for target in versions.iter().rev().skip(1) {
        MIGRATIONS.undo(&pool, *target).await.unwrap_or_else(|error| panic!("down to {target}: {error}"));
    }
    MIGRATIONS.run(&pool).await.expect("up again");
    pool.close().await;
    assert_eq!(database.rows(CATALOG).await, before);
}

#[tokio::test]
async fn every_table_view_and_named_function_says_what_it_is_for() {
    let database = Database::new().await;
    let silent = database
        .rows(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')
                and relname <> '_sqlx_migrations' and obj_description(oid, 'pg_class') is null
             union all
             select proname from pg_proc where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype
                and obj_description(oid, 'pg_proc') is null",
        )
        .await;
    assert_eq!(silent, [""; 0]);
}

#[tokio::test]
async fn the_currencies_are_those_of_the_library_with_the_same_rules() {
    let database = Database::new().await;
    let mut known: Vec<String> = Currency::all()
        .map(|it| format!("{} {} {} {}", it.code(), it.micros_per_minor(), it.transfer_multiple(), it.payout_multiple()))
        .collect();
    known.sort();
    assert_eq!(database.rows("select * from currencies order by code").await, known);
    let unknown = database.rows("select country, currency from stripe_payout_minimums m join currencies c on c.code = m.currency where minimum_minor % payout_multiple <> 0").await;
    assert_eq!(unknown, [""; 0], "a minimum that cannot be paid out exactly");
}

/// Columns of what is queried by name, in the words of the product's contract.
#[tokio::test]
async fn tables_and_views_that_support_queries_by_name_have_the_columns_of_the_contract() {
    let database = Database::new().await;
    for (object, columns) in [
        ("payout_runs", "id bigint, status text, started_at timestamp with time zone"),
        ("payout_batches", "id bigint, batch_hash text, status text"),
        ("payout_items", "batch_id bigint, creator_id uuid, status text, idempotency_key text"),
        ("withdrawal_requests", "id uuid, creator_id uuid, status text"),
        ("creator_earnings", "creator_id uuid, source_id text"),
        (
            "creator_payout_settings",
            "creator_id uuid, payout_enabled boolean, minimum_payout_amount numeric, beta_enabled boolean",
        ),
        (
            "creator_stripe_accounts",
            "creator_id uuid, stripe_connect_account_id text, payouts_enabled boolean, charges_enabled boolean",
        ),
        (
            "creator_payouts",
            "creator_id uuid, net_payout_amount numeric, failure_reason text, status text, created_at timestamp with time zone",
        ),
        (
            "payout_batch_summary",
            "created_at timestamp with time zone, paid_count bigint, paid_minor bigint, failed_count bigint",
        ),
        ("creator_payout_history", "batch_id bigint, creator_id uuid"),
    ] {
        let has = database
            .rows(&format!(
                "select attname || ' ' || format_type(atttypid, null) from pg_attribute where attrelid = '{object}'::regclass and attnum > 0"
            ))
            .await;
        for column in columns.split(", ") {
            assert!(has.iter().any(|it| it == column), "{object} lacks {column}, has {has:?}");
        }
    }
    let key = database
        .row("select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'creator_payout_settings'::regclass and contype = 'p'")
        .await;
    assert_eq!(key, "PRIMARY KEY (creator_id)");
}

#[tokio::test]
async fn what_support_and_finance_ask_by_name_is_answered_in_whole_units() {
    let world = World::new().await;
    world.creators(1..=3).await;
    world.earned(1, 12_345).await;
    world.earned(2, 500).await;
    // Held: earned after the cut-off less the hold.
    let mut late = earning("late", 1, 100);
    late.occurred_at = at("2026-11-14T00:00:00Z");
    world.record(vec![late]).await;
    world.run("update payout_policies set policy = policy || '{\"thresholds_minor\": {\"usd\": 1000}}'").await;
    let (one, two, three) = (creator(1), creator(2), creator(3));

    assert_eq!(
        world.rows("select * from get_eligible_creators_for_payout('2026-11-15T06:00:00Z', array['semimonthly'])").await,
        [format!("{one} usd 123.45 acct_1")]
    );
    assert_eq!(world.rows(&format!("select * from get_creator_pending_balance('{one}')")).await, ["usd 1"]);
    for (who, can) in [(one, true), (two, true), (three, true), (creator(9), false)] {
        assert_eq!(world.value::<bool>(format!("select can_creator_receive_payouts('{who}')")).await, can, "{who}");
    }
    world.describe(3, serde_json::json!({ "id": "acct_3" }), "2026-11-01T00:00:00Z").await;
    assert!(!world.value::<bool>(format!("select can_creator_receive_payouts('{three}')")).await, "the account is not ready");

    let (run, _) = world.batches().await;
    let summary = |who| format!("select * from get_creator_earnings_summary('{who}')");
    assert_eq!(world.rows(&summary(one)).await, ["usd 124.45 1 0 123.45 0 0 0 0"]);
    assert_eq!(
        world.rows(&format!("select creator_id, net_payout_amount, status, failure_reason, run_id from creator_payouts where creator_id = '{one}'")).await,
        [format!("{one} 123.45 pending - {run}")]
    );
    assert_eq!(
        world.rows("select h.creator_id, h.net_payout_amount, h.status from creator_payout_history h join payout_batches b on b.id = h.batch_id order by 1").await,
        [format!("{one} 123.45 pending"), format!("{two} 5 pending")]
    );
    assert_eq!(
        world.rows("select currency, status, total_count, total_minor, sending_count, paid_count, failed_count, canceled_count, by_status->'pending'->>'items' from payout_batch_summary").await,
        ["usd processing 2 12845 2 0 0 0 2"]
    );
    assert_eq!(
        world.rows("select creator_id, stripe_connect_account_id, payouts_enabled, charges_enabled from creator_stripe_accounts order by 1 limit 1").await,
        [format!("{one} acct_1 true true")]
    );
    world.audit().await;
}

#[tokio::test]
async fn states_outside_of_their_sets_are_refused_by_named_constraints() {
    let world = World::new().await;
    world.creator(1).await;
    world.earned(1, 5_000).await;
    world.batches().await;
    for (statement, constraint) in [
        ("update payout_items set status = 'sent'", "payout_items_status_is_known"),
        ("update payout_items set amount_minor = 0", "payout_items_amount_is_positive"),
        ("update payout_items set connected_minor = 1", "payout_items_parts_add_up"),
        ("update payout_batches set status = 'halted'", "payout_batches_halted_has_a_reason"),
        ("update payout_batches set status = 'done'", "payout_batches_status_is_known"),
        ("update payout_runs set status = 'failed'", "payout_runs_status_is_known"),
        ("insert into payees (id, kind) values (gen_random_uuid(), 'fan')", "payees_kind_is_known"),
        (
            "insert into payout_batches (run_id, currency, batch_hash) select run_id, 'eur', batch_hash from payout_batches",
            "payout_batches_hash_key",
        ),
        (
            "insert into payout_batches (run_id, currency, batch_hash) select run_id, currency, 'x' from payout_batches",
            "payout_batches_one_per_currency",
        ),
        ("insert into instance (singleton) values (false)", "instance_is_one"),
        ("update creator_earnings set fee_micros = gross_micros + 1", "creator_earnings_fee_is_a_part"),
        ("update creator_earnings set currency = 'xxx'", "creator_earnings_currency_fkey"),
    ] {
        assert_eq!(world.refusal(statement).await, constraint, "{statement}");
    }
}
