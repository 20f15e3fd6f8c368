//! Names of tables and partitions that something else has: another table, a partition, a view, a type. The rows go to a table
//! with another name, which stays the same; nothing is written into what Millstream did not create.

use millstream::ingest::DryRun;
use millstream_tests::kinesis::{ShardRecord, event};
use tokio_postgres::Client;

use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.s]\nstream = \"s\"\n";

/// What can have the name of a table, with the statements that create it.
const KINDS: [(&str, &str); 12] = [
    ("table", "CREATE TABLE s.limits (user_id text, max_stake numeric)"),
    ("table without columns", "CREATE TABLE s.limits ()"),
    ("partitioned table", "CREATE TABLE s.limits (received_at timestamptz) PARTITION BY RANGE (received_at)"),
    ("partition", "CREATE TABLE s.p (a text) PARTITION BY LIST (a); CREATE TABLE s.limits PARTITION OF s.p DEFAULT"),
    ("view", "CREATE VIEW s.limits AS SELECT 'x' AS user_id"),
    ("materialized view", "CREATE MATERIALIZED VIEW s.limits AS SELECT 1 AS one"),
    ("sequence", "CREATE SEQUENCE s.limits"),
    ("index", "CREATE TABLE s.of_index (a text); CREATE INDEX limits ON s.of_index (a)"),
    ("composite type", "CREATE TYPE s.limits AS (a text)"),
    ("enum", "CREATE TYPE s.limits AS ENUM ('a')"),
    ("domain", "CREATE DOMAIN s.limits AS text"),
    (
        "foreign table",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE s.limits (user_id text) SERVER f",
    ),
];

fn track(event: &str, id: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"{id}","userId":"u","receivedAt":"2026-02-08T10:00:00Z","properties":{{"max_stake":5}}}}"#
    )
}

/// The table of an event, by the note in its comment, and its rows.
async fn table_of(client: &Client, event: &str) -> (String, i64) {
    let find = format!(
        "SELECT c.oid::regclass::text FROM pg_class c \
         WHERE obj_description(c.oid, 'pg_class') = 'Millstream: source s, track event {event}'"
    );
    let tables = client.query(&find, &[]).await.unwrap();
    assert_eq!(tables.len(), 1, "{event} has one table");
    let table: String = tables[0].get(0);
    let count = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
    (table, count.get(0))
}

#[tokio::test]
async fn an_event_whose_table_s_name_is_taken_gets_another_table() {
    for (kind, create) in KINDS {
        let url = database().await;
        let client = client(&url).await;
        client.batch_execute(&format!("CREATE SCHEMA s; {create}")).await.unwrap();
        let events = [track("Good", "1"), track("Limits", "2"), track("Good", "3")];
        let report =
            batch(&mut ingest(CONFIG, &url), 1, &events).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(report.counts.applied, 3, "{kind}: {report}");
        let (table, count) = table_of(&client, "Limits").await;
        assert!(table.starts_with("s.limits_") && count == 1, "{kind}: {table}");
        assert_eq!(table_of(&client, "Good").await, ("s.good".to_owned(), 2), "{kind}");
        // Another process, and another event with the same table: no second table.
        let report = batch(&mut ingest(CONFIG, &url), 4, &[track("LIMITS", "4"), track("Limits", "5")]).await.unwrap();
        assert_eq!((report.counts.applied, report.ddl), (2, 0), "{kind}: {report}");
        assert_eq!(table_of(&client, "Limits").await, (table, 3), "{kind}");
        if kind == "table" {
            assert_eq!(rows(&client, "SELECT count(*) FROM s.limits").await, [r#"{"count":0}"#]);
        }
    }
}

#[tokio::test]
async fn a_table_keeps_its_name_after_its_own_has_become_free() {
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute("CREATE SCHEMA s; CREATE VIEW s.limits AS SELECT 1 AS one").await.unwrap();
    batch(&mut ingest(CONFIG, &url), 1, &[track("Limits", "1")]).await.unwrap();
    let (table, _) = table_of(&client, "Limits").await;
    client.batch_execute("DROP VIEW s.limits").await.unwrap();
    batch(&mut ingest(CONFIG, &url), 2, &[track("Limits", "2")]).await.unwrap();
    assert_eq!(table_of(&client, "Limits").await, (table, 2));
}

#[tokio::test]
async fn an_event_with_the_name_of_a_partition_never_gets_its_rows_into_it() {
    let named = "Bet p20260208";
    for batches in [vec![vec!["Bet"], vec![named]], vec![vec![named], vec!["Bet"]], vec![vec!["Bet", named, "Bet"]]] {
        let url = database().await;
        let client = client(&url).await;
        let mut number = 0;
        for events in &batches {
            let mut documents = Vec::new();
            for event in events {
                number += 1;
                documents.push(track(event, &format!("m{number}")));
            }
            let report = batch(&mut ingest(CONFIG, &url), number, &documents).await;
            let report = report.unwrap_or_else(|error| panic!("{batches:?}: {error}"));
            assert_eq!(report.counts.applied, events.len() as u64, "{batches:?}: {report}");
        }
        let bets = batches.concat().iter().filter(|event| **event == "Bet").count() as i64;
        assert_eq!(table_of(&client, "Bet").await.1, bets, "{batches:?}");
        let (table, count) = table_of(&client, named).await;
        assert_eq!(count, 1, "{batches:?}");
        let is_inside = format!("SELECT count(*) FROM s.bet WHERE tableoid = '{table}'::regclass");
        assert_eq!(rows(&client, &is_inside).await, [r#"{"count":0}"#], "{batches:?}");
    }
}

#[tokio::test]
async fn a_partition_whose_name_is_taken_gets_another_name() {
    for taken in
        ["VIEW s.good_p20260208 AS SELECT 1 AS one", "TYPE s.good_p20260208 AS ENUM ('a')", "SEQUENCE s.good_p20260208"]
    {
        let url = database().await;
        let client = client(&url).await;
        client.batch_execute(&format!("CREATE SCHEMA s; CREATE {taken}")).await.unwrap();
        let events = [track("Good", "1"), track("Other", "2")];
        let report =
            batch(&mut ingest(CONFIG, &url), 1, &events).await.unwrap_or_else(|error| panic!("{taken}: {error}"));
        assert_eq!(report.counts.applied, 2, "{taken}: {report}");
        assert_eq!(rows(&client, "SELECT count(*) FROM s.good").await, [r#"{"count":1}"#], "{taken}");
    }
}

#[tokio::test]
async fn late_events_of_a_day_whose_partition_its_owner_detached_are_written() {
    let url = database().await;
    let client = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &[track("Click", "1"), track("Other", "2")]).await.unwrap();
    // Twice, so that the second partition's name is taken, too.
    for (number, detached) in [(10, "s.click_p20260208".to_owned()), (20, String::new())] {
        let partition = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 's.click'::regclass";
        let partition: String = client.query_one(partition, &[]).await.unwrap().get(0);
        assert!(detached.is_empty() || partition == detached, "{partition}");
        client.batch_execute(&format!("ALTER TABLE s.click DETACH PARTITION {partition}")).await.unwrap();
        let late = [track("Other", &format!("o{number}")), track("Click", &format!("c{number}"))];
        let report = batch(&mut ingest, number, &late).await.unwrap();
        assert_eq!(report.counts.applied, 2, "{report}");
        let counts =
            format!("SELECT (SELECT count(*) FROM s.click) AS live, (SELECT count(*) FROM {partition}) AS detached");
        assert_eq!(rows(&client, &counts).await, [r#"{"live":1,"detached":1}"#]);
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM s.other").await, [r#"{"count":3}"#]);
}

#[tokio::test]
async fn a_declared_table_whose_name_a_view_has_and_a_replica_beside_an_owner_s_table_get_others() {
    let url = database().await;
    let client = client(&url).await;
    client
        .batch_execute("CREATE SCHEMA log; CREATE VIEW log.entry AS SELECT 1 AS id; CREATE SCHEMA shop; CREATE TABLE shop.t (id text PRIMARY KEY)")
        .await
        .unwrap();
    let declared = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\n";
    let report = batch(&mut ingest(declared, &url), 1, &[r#"{"id":"1"}"#]).await.unwrap();
    assert_eq!(report.counts.applied, 1, "{report}");
    let replica = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\n";
    let change = r#"{"Records":[{"eventID":"e","eventName":"INSERT","eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/T/stream/x",
        "dynamodb":{"Keys":{"id":{"S":"a"}},"NewImage":{"id":{"S":"a"}},"SequenceNumber":"100000000000000000001"}}]}"#;
    let report =
        ingest(replica, &url).process_event(change.as_bytes(), std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(report.counts.applied, 1, "{report}");
    let others = "SELECT obj_description(oid, 'pg_class') AS note FROM pg_class \
                  WHERE relkind = 'r' AND relname ~ '^(entry|t)_[0-9a-f]{8}$' ORDER BY relname";
    let wanted = ["source log", "DynamoDB table T"].map(|label| format!(r#"{{"note":"Millstream: {label}"}}"#));
    assert_eq!(rows(&client, others).await, wanted);
    assert_eq!(rows(&client, "SELECT count(*) FROM shop.t").await, [r#"{"count":0}"#]);
}

#[tokio::test]
async fn a_plan_says_how_to_adopt_a_table_and_a_column() {
    let url = database().await;
    let client = client(&url).await;
    batch(&mut ingest(CONFIG, &url), 1, &[track("Good", "1").replace("max_stake", "a")]).await.unwrap();
    client.batch_execute("CREATE TABLE s.limits (id text); ALTER TABLE s.good ADD max_stake numeric").await.unwrap();
    let mut ingest = ingest(CONFIG, &url);
    let records: Vec<_> = (2..)
        .zip([track("Good", "2"), track("Limits", "3")])
        .map(|(number, document)| ShardRecord::numbered(number, document.as_bytes()))
        .collect();
    let event = event("s", "shardId-000000000000", &records);
    let planned = DryRun::new(&mut ingest).plan_event(&event).await.unwrap().plan.to_string();
    for adopt in [
        "COMMENT ON TABLE \"s\".\"limits\" IS 'Millstream: source s, track event Limits'",
        "COMMENT ON COLUMN \"s\".\"good\".\"max_stake\" IS 'Millstream: properties.max_stake'",
    ] {
        assert!(planned.contains(adopt), "{planned}");
    }
}
