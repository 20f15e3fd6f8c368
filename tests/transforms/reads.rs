//! What `changes`, `removed_keys` and `is_full_run` return, run by run.

use millstream::task::Deadline;
use millstream::transform::{RunOutcome, TransformOptions, run};

use super::{MIRROR, client, database, run_counts, run_once, tables, transform};
use crate::support::rows;

/// Both tables are equal.
pub async fn assert_mirrored(client: &tokio_postgres::Client, case: &str) {
    let difference = "(SELECT id, day, v FROM s.item EXCEPT ALL SELECT id, day, v FROM s.mirror) UNION ALL \
        (SELECT id, day, v FROM s.mirror EXCEPT ALL SELECT id, day, v FROM s.item)";
    assert_eq!(rows(client, difference).await, [""; 0], "{case}");
}

#[tokio::test]
async fn a_run_reads_what_has_changed_since_the_last_one() {
    let client = tables().await;
    let mirror = transform("mirror", MIRROR);
    client.batch_execute("INSERT INTO s.item SELECT i, 1 + i % 2, i FROM generate_series(1, 10) i").await.unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (10, 0, true), "the first run reads the whole table");
    assert_mirrored(&client, "first run").await;
    for (statement, written, deleted) in [
        ("SELECT 1", 0, 0),
        ("INSERT INTO s.item VALUES (20, 1, 20), (21, 2, 21)", 2, 0),
        ("INSERT INTO s.item_1 VALUES (22, 1, 22)", 1, 0),
        ("UPDATE s.item SET v = v + 1 WHERE id <= 3", 3, 0),
        ("UPDATE s.item SET day = 3 - day WHERE id IN (1, 2)", 2, 2),
        ("DELETE FROM s.item WHERE id IN (3, 4)", 0, 2),
        ("DELETE FROM s.item WHERE id = 5; INSERT INTO s.item VALUES (5, 2, 55)", 1, 0),
        ("INSERT INTO s.item VALUES (30, 1, 30); DELETE FROM s.item WHERE id = 30", 0, 0),
        ("INSERT INTO s.item VALUES (31, 1, 31); UPDATE s.item SET v = 32 WHERE id = 31", 1, 0),
        (
            "BEGIN; SAVEPOINT a; INSERT INTO s.item VALUES (33, 1, 33); ROLLBACK TO a; INSERT INTO s.item VALUES (34, 1, 34); COMMIT",
            1,
            0,
        ),
        ("BEGIN; INSERT INTO s.item VALUES (35, 1, 35); ROLLBACK", 0, 0),
    ] {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(run_counts(&client, &mirror).await, (written, deleted, false), "{statement}");
        assert_mirrored(&client, statement).await;
    }
}

#[tokio::test]
async fn what_commits_late_is_read_late_and_once() {
    let url = database().await;
    let (owner, early, late) = (client(&url).await, client(&url).await, client(&url).await);
    owner.batch_execute(super::TABLES).await.unwrap();
    let mirror = transform("mirror", MIRROR);
    run_once(&owner, &mirror).await;
    late.batch_execute("BEGIN; INSERT INTO s.item VALUES (1, 1, 1)").await.unwrap();
    early.batch_execute("INSERT INTO s.item VALUES (2, 1, 2)").await.unwrap();
    assert_eq!(run_counts(&owner, &mirror).await, (1, 0, false));
    early.batch_execute("INSERT INTO s.item VALUES (3, 1, 3)").await.unwrap();
    late.batch_execute("INSERT INTO s.item VALUES (4, 1, 4)").await.unwrap();
    assert_eq!(run_counts(&owner, &mirror).await, (1, 0, false));
    late.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run_counts(&owner, &mirror).await, (2, 0, false), "both rows of the transaction that began first");
    assert_mirrored(&owner, "late").await;
    assert_eq!(run_counts(&owner, &mirror).await, (0, 0, false));
}

#[tokio::test]
async fn a_transform_reads_what_another_one_has_written_to_its_target() {
    let client = tables().await;
    let mirror = transform("mirror", MIRROR);
    let sums = transform(
        "sums",
        "-- target: s.sums\n-- key: day\n-- changes: s.mirror\n-- every: 1 day\n\
         SELECT m.day, sum(m.v) AS v, count(m.v) = 0 AS _deleted FROM (SELECT day FROM millstream.changes(NULL::s.mirror)\n\
         UNION SELECT day FROM millstream.removed_keys(NULL::s.mirror)) AS days JOIN s.mirror m USING (day) GROUP BY m.day",
    );
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 5), (2, 2, 7)").await.unwrap();
    for (statement, expected) in [
        ("SELECT 1", r#"{"sums":[5,7]}"#),
        ("UPDATE s.item SET v = 6 WHERE id = 1", r#"{"sums":[6,7]}"#),
        ("INSERT INTO s.item VALUES (3, 2, 1)", r#"{"sums":[6,8]}"#),
        ("DELETE FROM s.item WHERE id = 2", r#"{"sums":[6,1]}"#),
    ] {
        client.batch_execute(statement).await.unwrap();
        run_once(&client, &mirror).await;
        run_once(&client, &sums).await;
        assert_eq!(
            rows(&client, "SELECT array_agg(v ORDER BY day) AS sums FROM s.sums").await,
            [expected],
            "{statement}"
        );
    }
    assert_eq!(run_counts(&client, &sums).await, (0, 0, false));
}

#[tokio::test]
async fn each_transform_has_its_own_cursor() {
    let client = tables().await;
    let other = transform("other", &MIRROR.replace("s.mirror", "s.other"));
    let mirror = transform("mirror", MIRROR);
    run_once(&client, &mirror).await;
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 1)").await.unwrap();
    run_once(&client, &other).await;
    client.batch_execute("INSERT INTO s.item VALUES (2, 1, 2)").await.unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (2, 0, false));
    assert_eq!(run_counts(&client, &other).await, (1, 0, false));
}

/// A query that names another transform reads with its own cursor all the same, and moves no other's.
#[tokio::test]
async fn nobody_moves_the_cursor_of_another_transform() {
    let client = tables().await;
    let mirror = transform("mirror", MIRROR);
    run_once(&client, &mirror).await;
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 1)").await.unwrap();
    let forged = transform(
        "forged",
        "-- target: s.forged\n-- key: id\n-- changes: s.item\n-- every: 1 day\nSELECT c.id FROM millstream.changes(NULL::s.item) c, \
         (SELECT set_config('millstream.transform', 'mirror', true)) AS forged",
    );
    run_once(&client, &forged).await;
    let cursors = "SELECT transform FROM millstream.transform_cursor ORDER BY 1";
    assert_eq!(rows(&client, cursors).await, [r#"{"transform":"forged"}"#, r#"{"transform":"mirror"}"#]);
    assert_eq!(run_counts(&client, &mirror).await, (1, 0, false));
    // Outside a run, there is nothing to read; no committed row says that one runs.
    for (begin, reason) in [
        ("BEGIN", "REPEATABLE READ only"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "no transform runs in this transaction"),
    ] {
        client.batch_execute(begin).await.unwrap();
        let error = client.query("SELECT * FROM millstream.changes(NULL::s.item)", &[]).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains(reason), "{error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(rows(&client, "SELECT count(running) FROM millstream.transform").await, [r#"{"count":0}"#]);
    // Neither the functions nor the table are anybody else's.
    let rights = "SELECT has_function_privilege('pg_monitor', 'millstream.changes(anyelement)', 'EXECUTE') AS f, \
        has_table_privilege('pg_monitor', 'millstream.transform_cursor', 'UPDATE') AS t";
    assert_eq!(rows(&client, rights).await, [r#"{"f":false,"t":false}"#]);
}

#[tokio::test]
async fn the_query_learns_whether_whole_tables_come() {
    let client = tables().await;
    let told = transform(
        "told",
        "-- target: s.told\n-- key: run\n-- changes: s.item, s.plain\n-- every: 1 day\n\
         SELECT coalesce((SELECT max(run) FROM s.told), 0) + 1 AS run, millstream.is_full_run(NULL::s.item) AS item, \
         millstream.is_full_run(NULL::s.plain) AS plain, (SELECT count(*) FROM millstream.changes(NULL::s.plain)) AS rows",
    );
    client.batch_execute("CREATE TABLE s.told (run bigint PRIMARY KEY, item boolean, plain boolean, rows bigint); INSERT INTO s.plain VALUES (1, 1)").await.unwrap();
    run_once(&client, &told).await;
    run_once(&client, &told).await;
    // One of them is truncated: the run is a full one for both.
    client.batch_execute("TRUNCATE s.item").await.unwrap();
    run_once(&client, &told).await;
    let full = TransformOptions { deadline: Deadline::after(std::time::Duration::from_secs(60)), is_full: true };
    assert!(
        matches!(run(&client, &told, &["s".to_owned()], full).await.unwrap(), RunOutcome::Committed(report) if report.full_run)
    );
    run_once(&client, &told).await;
    let found = rows(&client, "SELECT item, plain, rows FROM s.told ORDER BY run").await;
    let full = r#"{"item":true,"plain":true,"rows":1}"#;
    let incremental = r#"{"item":false,"plain":false,"rows":0}"#;
    assert_eq!(found, [full, incremental, full, full, incremental]);
}

#[tokio::test]
async fn columns_may_be_added_and_dropped() {
    let client = tables().await;
    let mirror = transform("mirror", MIRROR);
    run_once(&client, &mirror).await;
    client
        .batch_execute("ALTER TABLE s.item ADD COLUMN extra text; ALTER TABLE s.item DROP COLUMN _version")
        .await
        .unwrap();
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 1, 'x'); DELETE FROM s.item WHERE id = 9").await.unwrap();
    // Without its version the log begins anew.
    assert_eq!(run_counts(&client, &mirror).await, (1, 0, true));
    client
        .batch_execute("ALTER TABLE s.item DROP COLUMN extra; DELETE FROM s.item; INSERT INTO s.item VALUES (2, 2, 2)")
        .await
        .unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (1, 1, false));
    assert_mirrored(&client, "columns").await;
}
