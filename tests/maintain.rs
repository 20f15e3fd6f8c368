//! Scheduled maintenance: partitions ahead of time, retention, concurrent writers, and interrupted runs.

use millstream::aws::Aws;
use millstream::clock::now;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::maintain::{MaintenanceReport, maintain};
use millstream::timestamp::Timestamp;
use tokio_postgres::Client;

use crate::support::{batch, batch_of, client, database, ingest, rows};

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
async fn an_interrupted_drop_is_completed_by_the_next_run() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let client = client(&url).await;
    let old = old_partition(&client, 12).await;
    // The drop fails after the detach.
    client.batch_execute(&format!("CREATE VIEW log.seen AS SELECT * FROM {old}")).await.unwrap();
    let upkeep = run_maintain(&url).await;
    assert_eq!((upkeep.dropped.len(), upkeep.postponed.len()), (0, 1), "{upkeep:?}");
    assert!(upkeep.postponed[0].starts_with(&format!("dropping {old}: ")), "{upkeep:?}");
    client.batch_execute("DROP VIEW log.seen").await.unwrap();
    assert_eq!(run_maintain(&url).await.dropped, [old]);
}

#[tokio::test]
async fn a_partition_that_its_owner_detached_is_kept_under_any_name() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let client = client(&url).await;
    let (kept, renamed) = (old_partition(&client, 12).await, old_partition(&client, 13).await);
    client
        .batch_execute(&format!(
            "ALTER TABLE log.entry DETACH PARTITION {kept}; ALTER TABLE log.entry DETACH PARTITION {renamed}; \
             ALTER TABLE {renamed} RENAME TO archive"
        ))
        .await
        .unwrap();
    let old = old_partition(&client, 14).await;
    assert_eq!(run_maintain(&url).await.dropped, [old]);
    assert_eq!(run_maintain(&url).await, MaintenanceReport::default());
    for table in [&kept, "log.archive"] {
        assert_eq!(rows(&client, &format!("SELECT count(*) FROM {table}")).await, [r#"{"count":0}"#]);
    }
}

#[tokio::test]
async fn a_mark_without_a_detach_proves_nothing_later() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let client = client(&url).await;
    let marked = old_partition(&client, 12).await;
    let comment = format!("SELECT obj_description('{marked}'::regclass, 'pg_class') AS comment");
    let before = rows(&client, &comment).await;
    // As if a run had ended between the mark and the detach, and `keep` had been raised since.
    let mark = format!(
        "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE {marked} IS %L', \
         obj_description('{marked}'::regclass, 'pg_class') || '; detached by maintain'); END $$"
    );
    client.batch_execute(&mark).await.unwrap();
    run_maintain_with(&CONFIG.replace("10 days", "20 days"), &url).await;
    assert_eq!(rows(&client, &comment).await, before);
    client.batch_execute(&format!("ALTER TABLE log.entry DETACH PARTITION {marked}")).await.unwrap();
    assert_eq!(run_maintain(&url).await.dropped, [""; 0]);
}

#[tokio::test]
async fn a_run_that_could_not_detach_leaves_no_mark() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let (owner, reader) = (client(&url).await, client(&url).await);
    let old = old_partition(&owner, 12).await;
    owner.batch_execute(&format!("COMMENT ON TABLE {old} IS 'From the archive.'")).await.unwrap();
    // Keeps even the detach's first step from its lock on the table.
    reader.batch_execute("BEGIN; LOCK TABLE ONLY log.entry IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    let upkeep = run_maintain(&url).await;
    assert!(upkeep.dropped.is_empty() && !upkeep.postponed.is_empty(), "{upkeep:?}");
    reader.batch_execute("COMMIT").await.unwrap();
    let comment = rows(&owner, &format!("SELECT obj_description('{old}'::regclass, 'pg_class') AS comment")).await;
    assert!(
        comment[0].starts_with(r#"{"comment":"From the archive.\nMillstream: partition of log.entry ["#),
        "{comment:?}"
    );
    assert!(!comment[0].contains("detached"), "{comment:?}");
    assert_eq!(run_maintain(&url).await.dropped, [old]);
}

/// Two Segment sources in one schema; only the first drops partitions.
const SAME_SCHEMA: &str = "[source.clicks]\nstream = \"clicks\"\nschema = \"app\"\n\
    partition = { by = \"received_at\", every = \"day\", keep = \"30 days\" }\n\
    [source.payments]\nstream = \"payments\"\nschema = \"app\"\n";

#[tokio::test]
async fn partitions_of_another_source_and_of_the_owner_are_kept() {
    let url = database().await;
    let (mut ingest, client) = (ingest(SAME_SCHEMA, &url), client(&url).await);
    let track = |event: &str, days: i64| {
        let at = Timestamp(now().0 + days * DAY);
        format!(r#"{{"type":"track","event":"{event}","messageId":"{event}{days}","receivedAt":"{at}"}}"#)
    };
    batch_of(&mut ingest, "payments", 1, &[track("Payment", -100), track("Payment", 0)]).await.unwrap();
    batch_of(&mut ingest, "clicks", 1, &[track("Click", 0)]).await.unwrap();
    let (from, to) = (day(-60), day(-59));
    let owner_s = |table: &str, column: &str, comment: &str| {
        format!(
            "CREATE TABLE app.{table} (id text, {column} timestamptz) PARTITION BY RANGE ({column}); {comment} \
             CREATE TABLE app.{table}_old PARTITION OF app.{table} FOR VALUES FROM ('{from}') TO ('{to}');"
        )
    };
    let mine = owner_s("mine", "received_at", "");
    // The note names the source, but the table is partitioned by another time than the one that `keep` is about.
    let other =
        owner_s("other", "paid_at", "COMMENT ON TABLE app.other IS 'Millstream: source clicks, track event Other';");
    let old = format!("CREATE TABLE app.click_old PARTITION OF app.click FOR VALUES FROM ('{from}') TO ('{to}')");
    client.batch_execute(&(mine + &other + &old)).await.unwrap();
    let upkeep = run_maintain_with(SAME_SCHEMA, &url).await;
    assert_eq!((&upkeep.dropped[..], upkeep.postponed.len()), (&["app.click_old".to_owned()][..], 0), "{upkeep:?}");
    let made = |table: &str| upkeep.made.iter().filter(|name| name.starts_with(table)).count();
    assert_eq!(
        (made("app.payment_p"), made("app.click_p"), made("app.mine"), made("app.other")),
        (3, 3, 0, 0),
        "{upkeep:?}"
    );
    let kept = "SELECT count(*) FROM pg_inherits \
                WHERE inhparent IN ('app.mine'::regclass, 'app.other'::regclass) OR inhrelid::regclass::text LIKE 'app.payment_p%'";
    assert_eq!(rows(&client, kept).await, [r#"{"count":7}"#]);
}

#[tokio::test]
async fn a_foreign_table_among_the_partitions_is_kept() {
    let url = database().await;
    batch(&mut ingest(CONFIG, &url), 1, &[entry(1, 0)]).await.unwrap();
    let client = client(&url).await;
    let old = old_partition(&client, 12).await;
    let (from, to) = (day(-20), day(-19));
    let foreign = format!(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w; \
         CREATE FOREIGN TABLE log.cold PARTITION OF log.entry FOR VALUES FROM ('{from}') TO ('{to}') SERVER f"
    );
    client.batch_execute(&foreign).await.unwrap();
    let upkeep = run_maintain(&url).await;
    assert_eq!(upkeep.dropped, [old], "{upkeep:?}");
    assert_eq!(upkeep.postponed, ["dropping log.cold: not an ordinary table; detach and drop it yourself"]);
    assert_eq!(partitions(&client).await, 4);
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
