//! Rows are copied straight into partitions, unless somebody would notice.

use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.log]\nsource = \"s\"\nid = \"id\"\n\
    partition = { by = \"at\", every = \"day\" }\ncolumns = { at = { path = \"at\", type = \"timestamptz\" } }\n";

/// Counts what its trigger sees, by table.
const COUNTING: &str = "CREATE TABLE s.seen (relation text, rows bigint); \
    CREATE FUNCTION s.count() RETURNS trigger LANGUAGE plpgsql AS $$ \
    BEGIN INSERT INTO s.seen SELECT TG_TABLE_NAME, count(*) FROM new_rows; RETURN NULL; END $$";

fn events(first: u64, count: u64) -> Vec<String> {
    (first..first + count).map(|id| format!(r#"{{"id":"{id}","at":"2026-02-08T10:00:00Z"}}"#)).collect()
}

fn trigger(table: &str) -> String {
    format!(
        "CREATE TRIGGER counting AFTER INSERT ON s.{table} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION s.count()"
    )
}

#[tokio::test]
async fn statement_triggers_of_the_owner_see_what_they_saw_before() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &events(1, 1)).await.unwrap();
    owner.batch_execute(COUNTING).await.unwrap();
    owner.batch_execute(&trigger("log_p20260208")).await.unwrap();
    batch(&mut ingest, 2, &events(2, 3)).await.unwrap();
    assert_eq!(rows(&owner, "SELECT * FROM s.seen").await, [r#"{"relation":"log_p20260208","rows":3}"#]);
    // From now on, the rows go through the table, as its trigger expects.
    owner.batch_execute(&format!("TRUNCATE s.seen; {}", trigger("log"))).await.unwrap();
    batch(&mut ingest, 5, &events(5, 4)).await.unwrap();
    assert_eq!(rows(&owner, "SELECT * FROM s.seen").await, [r#"{"relation":"log","rows":4}"#]);
    owner.batch_execute("TRUNCATE s.seen; DROP TRIGGER counting ON s.log").await.unwrap();
    batch(&mut ingest, 9, &events(9, 2)).await.unwrap();
    assert_eq!(rows(&owner, "SELECT * FROM s.seen").await, [r#"{"relation":"log_p20260208","rows":2}"#]);
}

#[tokio::test]
async fn a_partition_that_was_detached_meanwhile_receives_nothing() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &events(1, 2)).await.unwrap();
    owner.batch_execute("ALTER TABLE s.log DETACH PARTITION s.log_p20260208").await.unwrap();
    let report = batch(&mut ingest, 3, &events(3, 5)).await.unwrap();
    assert_eq!(report.counts.applied, 5, "{report}");
    let count = "SELECT (SELECT count(*) FROM s.log) AS log, (SELECT count(*) FROM s.log_p20260208) AS detached";
    assert_eq!(rows(&owner, count).await, [r#"{"log":5,"detached":2}"#]);
}

#[tokio::test]
async fn a_rejected_row_is_found_in_a_copy_into_several_partitions() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &events(1, 1)).await.unwrap();
    let next_day = |text: &String| text.replace("02-08", "02-09");
    let mut documents = events(10, 200);
    documents.extend(events(300, 200).iter().map(next_day));
    batch(&mut ingest, 2, &documents).await.unwrap();
    owner.batch_execute("ALTER TABLE s.log ADD CHECK (id NOT LIKE '%777')").await.unwrap();
    let mut documents = events(1000, 200);
    documents.extend(events(1700, 200).iter().map(next_day));
    let report = batch(&mut ingest, 1000, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (399, 1), "{report}");
}
