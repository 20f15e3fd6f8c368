//! What batches, schema changes and maintenance leave in `millstream.minute` and `millstream.event`.

use std::time::Duration;

use millstream_tests::kinesis::{ShardRecord, event};
use tokio_postgres::Client;

use crate::maintain::run_maintain_with;
use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\n\
    partition = { by = \"at\", every = \"day\", ahead = 2, keep = \"10 days\" }\n\
    columns = { amount = { path = \"amount\", type = \"smallint\" } }\nschema_mode = \"strict\"\n";

fn entry(id: u32, more: &str) -> String {
    format!(r#"{{"id":"{id}","at":"{}"{more}}}"#, millstream::clock::now())
}

const COUNTERS: &str = "SELECT source, sum(records) AS records, sum(rows) AS rows, sum(rejected) AS rejected, \
    max(lag_micros) >= 0 AS has_lag, max(committed_at) <= clock_timestamp() AS committed FROM millstream.minute GROUP BY 1";

#[tokio::test]
async fn a_batch_adds_to_the_minute_of_its_source() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &[entry(1, ""), entry(2, ""), entry(2, "")]).await.unwrap();
    // Rejections are written at once, with what was counted since the last time.
    let report = batch(&mut ingest, 4, &["{", "[", &entry(3, r#","secret":"hunter2""#), &entry(4, "")]).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (1, 3), "{report}");
    let client = client(&url).await;
    let expected = r#"{"source":"log","records":7,"rows":3,"rejected":3,"has_lag":true,"committed":true}"#;
    assert_eq!(rows(&client, COUNTERS).await, [expected]);
    let reasons = "SELECT key, sum(value::bigint) AS records FROM millstream.minute, jsonb_each_text(rejections) GROUP BY 1 ORDER BY 1";
    assert_eq!(
        rows(&client, reasons).await,
        [r#"{"key":"malformed","records":2}"#, r#"{"key":"unknown_field","records":1}"#]
    );
}

#[tokio::test]
async fn counters_of_several_shards_and_batches_add_up() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    for number in 0..40 {
        let document = if number % 2 == 0 { entry(number, "") } else { "{".to_owned() };
        let shard = format!("shardId-{number:012}");
        let record = ShardRecord::numbered(u64::from(number), document.as_bytes());
        ingest.process_event(&event("s", &shard, &[record]), Duration::from_secs(60)).await.unwrap();
    }
    let client = client(&url).await;
    let sums = "SELECT sum(records) AS records, sum(rejected) AS rejected, sum((rejections ->> 'malformed')::bigint) AS malformed, \
        count(DISTINCT slot) BETWEEN 2 AND 32 AS spread FROM millstream.minute";
    assert_eq!(rows(&client, sums).await, [r#"{"records":40,"rejected":20,"malformed":20,"spread":true}"#]);
}

#[tokio::test]
async fn events_describe_rejections_without_a_value_and_schema_changes() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let documents = [entry(1, ""), entry(2, r#","amount":123456789"#), entry(3, r#","amount":987654321"#)];
    let report = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (1, 2), "{report}");
    let client = client(&url).await;
    let rejections = "SELECT source, relation, reason, records, detail LIKE '%amount%' AS names_the_column, position LIKE '%shardId%' AS has_position \
        FROM millstream.event WHERE kind = 'rejection'";
    let expected = r#"{"source":"log","relation":"log.entry","reason":"does_not_fit","records":2,"names_the_column":true,"has_position":true}"#;
    assert_eq!(rows(&client, rejections).await, [expected]);
    let leaked = "SELECT detail FROM millstream.event WHERE event::text ~ '123456789|987654321|hunter2'";
    assert_eq!(rows(&client, leaked).await, [""; 0]);
    let changes = "SELECT DISTINCT relation, split_part(detail, ' ', 1) || ' ' || split_part(detail, ' ', 2) AS statement \
        FROM millstream.event WHERE kind = 'schema_change' AND detail LIKE 'CREATE %' ORDER BY 2";
    let changes = rows(&client, changes).await;
    assert!(changes.contains(&r#"{"relation":"log.entry","statement":"CREATE SCHEMA"}"#.to_owned()), "{changes:?}");
    assert!(changes.contains(&r#"{"relation":"log.entry","statement":"CREATE TABLE"}"#.to_owned()), "{changes:?}");
}

#[tokio::test]
async fn maintenance_records_partitions_and_prunes_what_is_old() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, "")]).await.unwrap();
    let client = client(&url).await;
    let old = "INSERT INTO millstream.minute SELECT 'log', now() - n * interval '1 day', 0, 1, 1, 0, '{}', 0, now() FROM generate_series(7, 12) n; \
        INSERT INTO millstream.event (at, kind, records, detail) SELECT now() - n * interval '1 day', 'drop', 0, 'old' FROM generate_series(28, 33) n; \
        INSERT INTO millstream.event (at, kind, records, detail) SELECT now(), 'rejection', 1, n::text FROM generate_series(1, 100500) n";
    client.batch_execute(old).await.unwrap();
    let report = run_maintain_with(CONFIG, &url).await;
    assert_eq!((report.made.len(), report.postponed.len()), (2, 0), "{report:?}");
    let left = "SELECT (SELECT count(*) FROM millstream.minute WHERE minute < now() - interval '1 h') AS minutes, \
        (SELECT count(*) FROM millstream.event WHERE detail = 'old') AS events, \
        (SELECT count(*) FROM millstream.event WHERE kind = 'rejection') AS rejections, \
        (SELECT max(detail::int) FROM millstream.event WHERE kind = 'rejection') AS newest, \
        (SELECT count(*) FROM millstream.event WHERE detail = 'partition created ahead of time') AS created";
    assert_eq!(
        rows(&client, left).await,
        [r#"{"minutes":1,"events":2,"rejections":100000,"newest":100500,"created":2}"#]
    );
}

/// A role that may not write the tables stops trying, and its batches succeed.
#[tokio::test]
async fn a_writer_without_the_permission_loads_all_the_same() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, "")]).await.unwrap();
    let owner = client(&url).await;
    revoke(&owner).await;
    let role = url.replace("postgres@", "activity_writer@");
    let mut limited = ingest(CONFIG, &role);
    for number in 2..5 {
        let report = batch(&mut limited, number, &[entry(number as u32, "")]).await.unwrap();
        assert_eq!(report.counts.applied, 1, "{report}");
    }
    let records = "SELECT sum(records) AS records FROM millstream.minute";
    assert_eq!(rows(&owner, records).await, [r#"{"records":1}"#]);
}

async fn revoke(owner: &Client) {
    let role = "DO $$ BEGIN CREATE ROLE activity_writer LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
        GRANT USAGE ON SCHEMA log, millstream TO activity_writer; \
        GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA log, millstream TO activity_writer; \
        REVOKE INSERT, UPDATE ON millstream.minute, millstream.event FROM activity_writer";
    owner.batch_execute(role).await.unwrap();
}
