//! Scheduled maintenance: partitions ahead of time, retention, concurrent writers, and interrupted runs.

use millstream::aws::Aws;
use millstream::clock::now;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::maintain::{MaintenanceReport, maintain};
use millstream::timestamp::Timestamp;
use tokio_postgres::Client;

use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n\
    [table.entry]\nsource = \"log\"\nid = \"id\"\npartition = { by = \"at\", every = \"day\", ahead = 2, keep = \"10 days\" }\n";

const DAY: i64 = 24 * 3_600_000_000;

fn entry(id: usize, days: i64) -> String {
    format!(r#"{{"id":"{id}","at":"{}"}}"#, Timestamp(now().0 + days * DAY))
}

async fn run_maintain(url: &str) -> MaintenanceReport {
    run_maintain_with(CONFIG, url).await
}

pub async fn run_maintain_with(config: &str, url: &str) -> MaintenanceReport {
    let database = Database::new(&DatabaseAddress::from_url(url), Aws::default()).unwrap();
    maintain(&Config::parse("test.toml", config).unwrap(), &database).await.unwrap()
}

async fn partitions(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'log.entry'::regclass AND NOT inhdetachpending";
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// A partition as it was ten days ago and earlier.
async fn old_partition(client: &Client, days: i64) -> String {
    let (from, to) = (day(-days), day(1 - days));
    let name = format!("entry_old_{days}");
    let make = format!(
        "CREATE TABLE log.{name} (LIKE log.entry); ALTER TABLE log.{name} ADD PRIMARY KEY (id); \
         COMMENT ON TABLE log.{name} IS 'Millstream: partition of log.entry [{from}, {to})'; \
         ALTER TABLE log.entry ATTACH PARTITION log.{name} FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    client.batch_execute(&make).await.unwrap();
    format!("log.{name}")
}

fn day(days: i64) -> Timestamp {
    let (today, _) = now().day_and_micros();
    Timestamp::from_days(today + days)
}

#[tokio::test]
async fn partitions_are_created_ahead_and_dropped_by_retention() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let report = batch(&mut ingest, 1, &[entry(1, 0), entry(2, -11), entry(3, 400)]).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.expired, report.counts.retry), (1, 1, 1), "{report}");
    assert_eq!(report.reasons.get("too_far_ahead"), Some(&1));
    let client = client(&url).await;
    let old = old_partition(&client, 12).await;
    let upkeep = run_maintain(&url).await;
    assert_eq!((upkeep.made.len(), &upkeep.dropped, upkeep.postponed.len()), (2, &vec![old], 0), "{upkeep:?}");
    assert_eq!(partitions(&client).await, 3);
    assert_eq!(run_maintain(&url).await, MaintenanceReport::default(), "a second run has nothing to do");
    // The partitions created ahead are those that a writer needs.
    let report = batch(&mut ingest, 10, &[entry(4, 1), entry(4, 1)]).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.duplicate, report.ddl), (1, 1, 0), "{report}");
}

#[tokio::test]
async fn what_was_interrupted_is_taken_up_again() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let client = client(&url).await;
    let detached = old_partition(&client, 12).await;
    client.batch_execute(&format!("ALTER TABLE log.entry DETACH PARTITION {detached}")).await.unwrap();
    // Detached by its owner and kept, because it is younger than the retention.
    let kept = old_partition(&client, 5).await;
    client.batch_execute(&format!("ALTER TABLE log.entry DETACH PARTITION {kept}")).await.unwrap();
    let upkeep = run_maintain(&url).await;
    assert_eq!(upkeep.dropped, [detached], "{upkeep:?}");
    assert_eq!(rows(&client, &format!("SELECT count(*) FROM {kept}")).await, [r#"{"count":0}"#]);
}

#[tokio::test]
async fn a_blocking_reader_postpones_maintenance_without_blocking_others() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &[entry(1, 0)]).await.unwrap();
    let (owner, reader) = (client(&url).await, client(&url).await);
    let old = old_partition(&owner, 12).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM log.entry").await.unwrap();
    let upkeep = run_maintain(&url).await;
    assert_eq!(upkeep.dropped, [""; 0]);
    assert_eq!(upkeep.postponed, [format!("detaching {old}: timed out waiting for other transactions")]);
    let report = batch(&mut ingest, 5, &[entry(2, 0)]).await.unwrap();
    assert_eq!(report.counts.applied, 1);
    // The reader also blocks the step that the first run left unfinished.
    let upkeep = run_maintain(&url).await;
    assert_eq!((upkeep.dropped.len(), upkeep.postponed.len()), (0, 1), "{upkeep:?}");
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run_maintain(&url).await.dropped, [old]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_and_writers_do_not_fail_each_other() {
    let url = database().await;
    let writing = tokio::spawn({
        let url = url.clone();
        async move {
            let mut ingest = ingest(CONFIG, &url);
            for round in 0..30 {
                let documents: Vec<String> =
                    (0..20).map(|number| entry(round * 20 + number, number as i64 % 4 - 2)).collect();
                batch(&mut ingest, 1, &documents).await.unwrap();
            }
        }
    });
    while !writing.is_finished() {
        run_maintain(&url).await;
    }
    writing.await.unwrap();
    assert_eq!(rows(&client(&url).await, "SELECT count(*) FROM log.entry").await, [r#"{"count":600}"#]);
}

#[tokio::test]
async fn deletes_are_forgotten_when_nothing_older_can_arrive_any_more() {
    const CONFIG: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\nremember_deletes = \"3 days\"\n";
    let url = database().await;
    let change = |event: &str, number: u64| {
        format!(
            r#"{{"eventID":"e","eventName":"{event}","eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/T/stream/x","dynamodb":{{
            "Keys":{{"id":{{"S":"{number}"}}}},"NewImage":{{"id":{{"S":"{number}"}}}},"SequenceNumber":"10000000000000000000{number}"}}}}"#
        )
    };
    let event = format!(r#"{{"Records":[{},{}]}}"#, change("REMOVE", 1), change("REMOVE", 2));
    ingest(CONFIG, &url).process_event(event.as_bytes(), std::time::Duration::from_secs(60)).await.unwrap();
    let client = client(&url).await;
    let age = "UPDATE millstream.tombstone SET deleted_at = now() - interval '4 days' \
               WHERE key = (SELECT key FROM millstream.tombstone LIMIT 1);\
               INSERT INTO millstream.tombstone VALUES ('elsewhere.t', '\\x00', '1', now() - interval '4 days')";
    client.batch_execute(age).await.unwrap();
    assert_eq!(run_maintain_with(CONFIG, &url).await.forgotten, 1);
    assert_eq!(rows(&client, "SELECT count(*) FROM millstream.tombstone").await, [r#"{"count":2}"#]);
}
