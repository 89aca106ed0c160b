//! The audit log: appended to and never changed, whoever writes at once.

use payday::audit::{self, Act, By};
use payday::boundary::Boundary;
use payday::db::Db;
use payday_tests::database::Database;
use serde_json::json;

async fn write(db: &Db, subject: &str) {
    let mut tx = db.begin().await.expect("a transaction");
    let act = Act { action: "test", subject: subject.to_owned(), before: json!({ "a": 1 }), after: json!({ "a": "é\"\n" }) };
    audit::record(&mut tx, &By::new("somebody", "r1"), &act).await.expect("recorded");
    tx.commit(Boundary::Outside).await.expect("a commit");
}

async fn breaches(database: &Database) -> Vec<String> {
    let mut tx = database.tx().await;
    let found = audit::store::breaches(&mut tx).await.expect("an answer");
    found.into_iter().map(|(id, problem)| format!("{id}: {problem}")).collect()
}

#[tokio::test]
async fn rows_that_are_written_at_once_make_one_chain_without_gaps() {
    let database = Database::new().await;
    assert_eq!(breaches(&database).await, [""; 0], "an empty log is whole");
    futures::future::join_all((0..40).map(|n| {
        let db = database.db.clone();
        async move { write(&db, &format!("item:{n}")).await }
    }))
    .await;
    // One that is rolled back leaves no gap.
    let mut tx = database.tx().await;
    let act = Act { action: "test", subject: "never".to_owned(), before: json!({}), after: json!({}) };
    audit::record(&mut tx, &By::new("somebody", "r2"), &act).await.expect("recorded");
    drop(tx);
    write(&database.db, "last").await;
    assert_eq!(database.row("select count(*), min(id), max(id), count(distinct hash) from audit_log").await, "41 1 41 41");
    assert_eq!(
        database.count("audit_log l join audit_log p on p.id = l.id - 1 where l.previous_hash <> p.hash or l.at < p.at").await,
        0
    );
    assert_eq!(breaches(&database).await, [""; 0]);
}

#[tokio::test]
async fn the_database_refuses_to_change_or_remove_a_row() {
    let database = Database::new().await;
    write(&database.db, "item:1").await;
    for refused in [
        "update audit_log set actor = 'nobody'",
        "delete from audit_log",
        "truncate audit_log",
        "delete from audit_head",
        "truncate audit_head",
    ] {
        let said = database.refusal(refused).await;
        assert!(said.contains("inserted, never changed or removed") || said.contains("permission denied"), "{refused}: {said}");
    }
}

#[tokio::test]
async fn whoever_gets_past_that_is_found_out() {
    for (planted, found) in [
        ("update audit_log set actor = 'nobody' where id = 2", vec!["2: its content is not what was written"]),
        ("update audit_log set after = '{}' where id = 4", vec!["4: its content is not what was written"]),
        (
            "delete from audit_log where id = 2",
            vec!["3: it follows row 1", "3: the row before it is another than when it was written"],
        ),
        ("delete from audit_log where id = 4", vec!["4: it is the newest row, and is missing or another"]),
        (
            "update audit_log set actor = 'nobody', hash = audit_hash(row(id, at, 'nobody', action, subject, outcome, before, after, request_id, previous_hash, hash)::audit_log) where id = 3",
            vec!["4: the row before it is another than when it was written"],
        ),
    ] {
        let database = Database::new().await;
        for n in 1..=4 {
            write(&database.db, &format!("item:{n}")).await;
        }
        database.run(format!("set session_replication_role = replica; {planted}; set session_replication_role = origin")).await;
        assert_eq!(breaches(&database).await, found, "{planted}");
    }
}
