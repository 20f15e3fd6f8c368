//! Locks that are not obtained in time: transient, and the message says who holds them.

use std::time::Duration;

use tokio_postgres::Client;

use super::{SEGMENT, documents, process};
use crate::support::{client, database, ingest, ingest as ingest_with, rows, sample};

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Six seconds: a schema change tries to get its lock twice.
const SHORT: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_reader_in_the_way_of_a_schema_change_is_named() {
    let url = database().await;
    let mut ingest = ingest(SEGMENT, &url);
    process(&mut ingest, &sample("foreign-partition-1.json")).await;
    let reader = client(&url).await;
    reader.batch_execute("SET application_name = 'pg_dump'; BEGIN; LOCK TABLE s.e IN ACCESS SHARE MODE").await.unwrap();
    let error = ingest.process_event(&sample("ddl-guard.json"), SHORT).await.unwrap_err();
    assert!(!error.needs_operator(), "{error}");
    let message = error.to_string();
    let waited = r#"a lock on s.e to run `ALTER TABLE "s"."e" ADD COLUMN "newone" numeric` [SQLSTATE 55P03]"#;
    let held = format!("held by pid {} (pg_dump): AccessShareLock on s.e since 20", pid(&reader).await);
    assert!(message.contains(waited) && message.contains(&held), "{message}");
    assert!(message.contains("idle in transaction"), "{message}");
    reader.batch_execute("COMMIT").await.unwrap();
    let report = process(&mut ingest, &sample("ddl-guard.json")).await;
    assert_eq!(report.counts.applied, 2, "{report}");
}

#[tokio::test]
async fn a_session_in_the_way_of_a_write_is_named() {
    let url = database().await;
    let mut ingest = ingest(SEGMENT, &url);
    process(&mut ingest, &sample("foreign-partition-1.json")).await;
    let owner = client(&url).await;
    owner.batch_execute("SET application_name = 'migration'; BEGIN").await.unwrap();
    let again = sample("foreign-partition-1.json");
    for (lock, mode, statement) in [
        ("LOCK TABLE s.e IN ACCESS EXCLUSIVE MODE", "AccessExclusiveLock on s.e", "LOCK TABLE ONLY \"s\".\"e\""),
        ("LOCK TABLE ONLY s.e IN SHARE MODE", "ShareLock on s.e", "LOCK TABLE ONLY \"s\".\"e\""),
        (
            "LOCK TABLE s.e_p20260325 IN SHARE MODE",
            "ShareLock on s.e_p20260325",
            "LOCK TABLE ONLY \"s\".\"e_p20260325\"",
        ),
    ] {
        owner.batch_execute(lock).await.unwrap();
        let error = ingest.process_event(&again, Duration::from_millis(600)).await.unwrap_err();
        let message = error.to_string();
        let held = format!("held by pid {} (migration): {mode} since 20", pid(&owner).await);
        assert!(!error.needs_operator() && message.contains(statement) && message.contains(&held), "{message}");
        owner.batch_execute("COMMIT; BEGIN").await.unwrap();
    }
    assert_eq!(process(&mut ingest, &again).await.counts.duplicate, 1);
    // A new process reads the definition first.
    owner.batch_execute("LOCK TABLE s.e IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let error = ingest_with(SEGMENT, &url).process_event(&again, Duration::from_millis(600)).await.unwrap_err();
    let held = format!("held by pid {} (migration): AccessExclusiveLock on s.e since 20", pid(&owner).await);
    assert!(!error.needs_operator() && error.to_string().contains(&held), "{error}");
}

/// A lock timeout never costs a record, also beside a table that cannot be written.
#[tokio::test]
async fn nothing_is_rejected_while_a_lock_is_held() {
    let url = database().await;
    let owner = client(&url).await;
    let config = "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
        [table.item]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"item\" }\nkey = [\"id\"]\nversion = \"v\"\n\
        [table.note]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"note\" }\nid = \"id\"\n";
    owner.batch_execute("CREATE SCHEMA s; CREATE TABLE s.item (id text, v numeric)").await.unwrap();
    let event = documents(&[r#"{"kind":"item","id":"1","v":1}"#, r#"{"kind":"note","id":"1"}"#]);
    let mut ingest = ingest(config, &url);
    process(&mut ingest, &event).await;
    owner.batch_execute("BEGIN; LOCK TABLE s.note IN SHARE MODE").await.unwrap();
    let error = ingest.process_event(&event, Duration::from_millis(600)).await.unwrap_err();
    assert!(!error.needs_operator() && error.to_string().contains("lock on s.note"), "{error}");
    owner.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&owner, "SELECT count(*) FROM s.note").await, [r#"{"count":1}"#]);
}
