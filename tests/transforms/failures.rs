//! A failure names where it is, leaves the target as it was, and is tried again.

use std::time::Duration;

use millstream::task::Deadline;
use millstream::transform::{TransformOptions, run};

use super::{MIRROR, client, database, run_counts, run_error, run_once, tables, transform, try_run};
use crate::support::rows;

const HEADER: &str = "-- target: s.t\n-- key: id\n-- every: 1 day\n";

#[tokio::test]
async fn an_error_names_file_line_column_and_sqlstate() {
    let client = tables().await;
    for (query, expected) in [
        ("SELECT 1 AS id,\n  nothing", "transforms/t.sql:5:3: column \"nothing\" does not exist [SQLSTATE 42703]"),
        (
            "SELECT 'é' AS id, frm\nFROM s.missing",
            "transforms/t.sql:5:6: relation \"s.missing\" does not exist [SQLSTATE 42P01]",
        ),
        ("SELECT id FROM plain", "transforms/t.sql:4:16: relation \"plain\" does not exist [SQLSTATE 42P01]"),
        ("SELECT 1 AS id FRM s.plain", "transforms/t.sql:4:"),
        ("\n  SELECT 1 / (id - id) AS id FROM s.plain", "transforms/t.sql:5:3: division_by_zero [SQLSTATE 22012]"),
        ("SELECT 'hunter2'::int AS id", "transforms/t.sql:4:8: invalid_text_representation [SQLSTATE 22P02]"),
        ("SELECT 1 AS id; SELECT 2 AS id", "transforms/t.sql:4:1: a file holds one query"),
        ("INSERT INTO s.plain VALUES (5, 5) RETURNING id", "[SQLSTATE 42601]"),
        ("DELETE FROM s.plain", "[SQLSTATE 42601]"),
        (
            "WITH d AS (DELETE FROM s.plain RETURNING id) SELECT id FROM d",
            "a query only reads; its WITH holds a statement that writes [SQLSTATE 0A000]",
        ),
        ("SELECT id INTO s.other FROM s.plain", "transforms/t.sql:4:"),
        ("EXECUTE something", "[SQLSTATE 42601]"),
        (
            "SELECT id FROM millstream.changes(NULL::s.plain)",
            "transform t does not declare that it reads the changes of s.plain; add the table to `-- changes:`",
        ),
    ] {
        client.batch_execute("INSERT INTO s.plain VALUES (1, 1) ON CONFLICT DO NOTHING").await.unwrap();
        super::ensured(&client, "plain").await;
        let error = run_error(&client, &transform("t", &format!("{HEADER}{query}"))).await;
        assert!(error.contains(expected), "{query}: {expected} is missing in: {error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(rows(&client, "SELECT id FROM s.plain").await, [r#"{"id":1}"#], "{query}");
    }
    let text = "SELECT id FROM millstream.changes('s.plain')";
    let error = run_error(&client, &transform("t", &format!("{HEADER}-- changes: s.plain\n{text}"))).await;
    assert!(error.contains("transforms/t.sql:5:"), "{error}");
}

#[tokio::test]
async fn a_failure_leaves_the_target_and_what_is_new_as_they_were() {
    let client = tables().await;
    let mirror = transform("mirror", MIRROR);
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 1), (2, 1, 2)").await.unwrap();
    run_once(&client, &mirror).await;
    client.batch_execute("UPDATE s.item SET v = 5 WHERE id = 1; DELETE FROM s.item WHERE id = 2").await.unwrap();
    let failing = transform("mirror", &MIRROR.replace("c.v, false", "c.v / (c.v - c.v), false"));
    let error = run_error(&client, &failing).await;
    assert!(error.contains("22012"), "{error}");
    assert_eq!(
        rows(&client, "SELECT id, v FROM s.mirror ORDER BY id").await,
        [r#"{"id":1,"v":1}"#, r#"{"id":2,"v":2}"#]
    );
    assert_eq!(run_counts(&client, &mirror).await, (1, 1, false));
}

#[tokio::test]
async fn a_query_is_cancelled_when_its_time_is_over() {
    let client = tables().await;
    let slow = transform("t", &format!("{HEADER}-- timeout: 1 hour\nSELECT 1 AS id, pg_sleep(60)::text AS v"));
    let options = TransformOptions { deadline: Deadline::after(Duration::from_secs(2)), is_full: false };
    let error = run(&client, &slow, &[], options).await.unwrap_err().to_string();
    let position = "transforms/t.sql:5:1: not finished within ";
    assert!(error.starts_with(position) && error.contains("run it from a machine without a time limit"), "{error}");
    assert_eq!(rows(&client, "SELECT status FROM millstream.transform").await, [r#"{"status":"new"}"#]);
}

#[tokio::test]
async fn a_killed_run_leaves_nothing_and_the_next_one_reads_the_same() {
    let url = database().await;
    let (owner, victim) = (client(&url).await, client(&url).await);
    owner.batch_execute(super::TABLES).await.unwrap();
    let mirror = transform("mirror", MIRROR);
    run_once(&owner, &mirror).await;
    owner.batch_execute("INSERT INTO s.item VALUES (1, 1, 1)").await.unwrap();
    // It waits for a lock when it writes to its target.
    owner.batch_execute("BEGIN; LOCK TABLE s.mirror IN SHARE MODE").await.unwrap();
    let waiting =
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let observer = client(&url).await;
    let running = tokio::spawn(async move { try_run(&victim, &transform("mirror", MIRROR)).await.map(|_| ()) });
    while rows(&observer, waiting).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    observer.batch_execute(kill).await.unwrap();
    assert!(running.await.unwrap().unwrap_err().is_of_connection());
    owner.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&owner, "SELECT count(*) FROM s.mirror").await, [r#"{"count":0}"#]);
    assert_eq!(run_counts(&owner, &mirror).await, (1, 0, false));
}

#[tokio::test]
async fn two_runs_of_a_transform_take_turns() {
    let url = database().await;
    let (owner, first, second) = (client(&url).await, client(&url).await, client(&url).await);
    owner.batch_execute(super::TABLES).await.unwrap();
    owner.batch_execute("CREATE TABLE s.counted (id bigint PRIMARY KEY, deliveries bigint)").await.unwrap();
    let counted = "-- target: s.counted\n-- key: id\n-- changes: s.plain\n-- every: 1 day\n\
        SELECT p.id, coalesce(c.deliveries, 0) + 1 AS deliveries FROM millstream.changes(NULL::s.plain) p LEFT JOIN s.counted c USING (id)";
    run_once(&owner, &transform("counted", counted)).await;
    owner
        .batch_execute(
            "INSERT INTO s.plain SELECT i, i FROM generate_series(1, 100) i; BEGIN; LOCK TABLE s.counted IN SHARE MODE",
        )
        .await
        .unwrap();
    // Both have begun before either can write; the second one's snapshot is too old when it gets the lock.
    let spawn = |client: tokio_postgres::Client| {
        tokio::spawn(async move { run_counts(&client, &transform("counted", counted)).await })
    };
    let (first, second) = (spawn(first), spawn(second));
    let waiting =
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let observer = client(&url).await;
    while rows(&observer, waiting).await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    owner.batch_execute("COMMIT").await.unwrap();
    let mut counts = [first.await.unwrap(), second.await.unwrap()];
    counts.sort_unstable();
    assert_eq!(counts, [(0, 0, false), (100, 0, false)]);
    assert_eq!(rows(&owner, "SELECT max(deliveries) AS most FROM s.counted").await, [r#"{"most":1}"#]);
}

#[tokio::test]
async fn a_target_that_others_write_is_tried_once_more() {
    let url = database().await;
    let (owner, other, runner) = (client(&url).await, client(&url).await, client(&url).await);
    owner.batch_execute(super::TABLES).await.unwrap();
    let mirror = transform("mirror", MIRROR);
    owner.batch_execute("INSERT INTO s.item VALUES (1, 1, 1)").await.unwrap();
    run_once(&owner, &mirror).await;
    owner.batch_execute("UPDATE s.item SET v = 2").await.unwrap();
    other.batch_execute("BEGIN; UPDATE s.mirror SET v = 99").await.unwrap();
    let running = tokio::spawn(async move { run_counts(&runner, &transform("mirror", MIRROR)).await });
    let waiting =
        "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while rows(&owner, waiting).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The snapshot of the first attempt does not see this update.
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(running.await.unwrap(), (1, 0, false));
    assert_eq!(rows(&owner, "SELECT v FROM s.mirror").await, [r#"{"v":2}"#]);
}
