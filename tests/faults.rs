//! Faults at any time: nothing is lost and nothing is duplicated.

use std::time::Duration;

use millstream::ingest::Ingest;
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::postgresql::{Durability, PostgreSql};
use millstream_tests::proxy::{Fault, Proxy};

use crate::support::{batch, client, cluster, database, ingest, rows, through};

const CONFIG: &str = "[source.book]\nstream = \"s\"\n[table.bet]\nsource = \"book\"\nevents = [\"Bet Placed\"]\n\
    key = [\"bet_id\"]\nversion = \"timestamp\"\nmerge = \"column\"\n[table.bet.columns]\nbet_id = \"properties.bet_id\"\n\
    stake = { path = \"properties.stake\", type = \"numeric(12,2)\", check = \"stake > 0\" }\n";

fn placed(number: usize, properties: &str) -> String {
    format!(
        r#"{{"type":"track","event":"Bet Placed","messageId":"m{number}","receivedAt":"2026-02-08T10:00:00Z",
        "timestamp":"2026-02-08T10:00:00Z","properties":{{"bet_id":"b{number}",{properties}}}}}"#
    )
}

fn good(count: usize) -> Vec<String> {
    (0..count).map(|number| placed(number, r#""stake":10"#)).collect()
}

async fn assert_whole(url: &str, count: usize) {
    let client = client(url).await;
    for table in ["tracks", "bet_placed", "bet"] {
        let found = rows(&client, &format!("SELECT count(*) FROM book.{table}")).await;
        assert_eq!(found, [format!(r#"{{"count":{count}}}"#)], "{table}");
    }
}

/// Delivers a batch as Lambda does: until it succeeds.
async fn deliver(ingest: &mut Ingest, documents: &[String]) -> u32 {
    for failures in 0..50 {
        if batch(ingest, 1, documents).await.is_ok() {
            return failures;
        }
    }
    panic!("the batch never went through");
}

#[tokio::test]
async fn a_connection_cut_anywhere_loses_nothing_and_doubles_nothing() {
    let documents = good(50);
    for (fault, statement) in [
        (Fault::Before, "BEGIN"),
        (Fault::After, "BEGIN"),
        (Fault::Before, "CREATE TABLE"),
        (Fault::After, "CREATE TABLE"),
        (Fault::Before, "COPY \"book\".\"tracks_p"),
        (Fault::After, "COPY \"book\".\"bet\""),
        (Fault::Before, "COMMIT"),
        (Fault::After, "COMMIT"),
    ] {
        let url = database().await;
        let proxy = Proxy::start(cluster().port()).await.unwrap();
        let mut ingest = ingest(CONFIG, &through(&url, &proxy));
        proxy.cut(fault, statement);
        deliver(&mut ingest, &documents).await;
        assert_eq!(proxy.cuts(), 1, "{fault:?} {statement} was never reached");
        // A second cut, at the COMMIT of the rows themselves: the tables exist by now.
        proxy.cut(Fault::After, "COMMIT");
        deliver(&mut ingest, &documents).await;
        assert_whole(&url, 50).await;
    }
}

/// A large batch is written while it is still being decoded; `bet` is written last.
#[tokio::test]
async fn a_connection_cut_anywhere_in_a_large_batch_loses_nothing_and_doubles_nothing() {
    let documents = good(2_500);
    for (fault, statement) in [
        (Fault::Before, "BEGIN"),
        (Fault::After, "BEGIN"),
        (Fault::Before, "COPY \"book\".\"tracks_p"),
        (Fault::After, "COPY \"book\".\"bet_placed_p"),
        (Fault::After, "COPY \"book\".\"bet\""),
        (Fault::Before, "COMMIT"),
        (Fault::After, "COMMIT"),
    ] {
        let url = database().await;
        let proxy = Proxy::start(cluster().port()).await.unwrap();
        let mut ingest = ingest(CONFIG, &through(&url, &proxy));
        // The tables and the first row exist.
        deliver(&mut ingest, &documents[..1]).await;
        proxy.cut(fault, statement);
        deliver(&mut ingest, &documents).await;
        assert_eq!(proxy.cuts(), 1, "{fault:?} {statement} was never reached");
        assert_whole(&url, documents.len()).await;
    }
}

#[tokio::test]
async fn a_dead_connection_is_replaced_without_failing_the_batch() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &good(1)).await.unwrap();
    let client = client(&url).await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'millstream' AND datname = current_database()";
    assert_eq!(rows(&client, kill).await, [r#"{"count":1}"#]);
    batch(&mut ingest, 1, &good(2)).await.unwrap();
    assert_whole(&url, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_in_the_middle_of_batches_has_each_row_once() {
    let mut server =
        tokio::task::spawn_blocking(|| PostgreSql::start("restart", Durability::Full).unwrap()).await.unwrap();
    let url = server.database().await.unwrap();
    let writing = tokio::spawn({
        let url = url.clone();
        async move {
            let mut ingest = ingest(CONFIG, &url);
            let mut failures = 0;
            for round in 1..=40 {
                failures += deliver_patiently(&mut ingest, &good(round * 25)).await;
            }
            failures
        }
    });
    for _ in 0..3 {
        // Restarted as soon as the first rows arrive.
        wait_for_rows(&url).await;
        server = tokio::task::spawn_blocking(move || {
            server.crash_and_restart().unwrap();
            server
        })
        .await
        .unwrap();
    }
    writing.await.unwrap();
    assert_whole(&url, 1_000).await;
}

async fn deliver_patiently(ingest: &mut Ingest, documents: &[String]) -> u32 {
    for failures in 0..600 {
        if batch(ingest, 1, documents).await.is_ok() {
            return failures;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server never came back");
}

async fn wait_for_rows(url: &str) {
    let client = client(url).await;
    let count =
        async || client.query_one("SELECT count(*) FROM book.tracks", &[]).await.map_or(0, |row| row.get::<_, i64>(0));
    let before = count().await;
    while count().await <= before && before < 1_000 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_racing_for_the_same_tables_do_not_fail_each_other() {
    let url = database().await;
    let writers = (0..8).map(|writer: usize| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut ingest = ingest(CONFIG, &url);
            for round in 0..6 {
                // In every round all writers need the same new column and partition at the same time.
                let document = |number: usize| {
                    placed(writer * 1_000 + round * 100 + number, &format!(r#""stake":1,"new{round}":{number}"#))
                        .replace("receivedAt\":\"2026-02-08", &format!("receivedAt\":\"2026-02-{:02}", 8 + round))
                };
                let documents: Vec<String> = (0..20).map(document).collect();
                batch(&mut ingest, 1, &documents).await.unwrap_or_else(|error| panic!("writer {writer}: {error}"));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_whole(&url, 8 * 6 * 20).await;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'book.tracks'::regclass";
    assert_eq!(rows(&client(&url).await, partitions).await, [r#"{"count":6}"#]);
}

#[tokio::test]
async fn tables_changed_by_their_owner_under_a_writer_do_not_fail_the_batch() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let document = |number: usize| placed(number, r#""stake":1,"score":"17","at":"2026-02-08T10:00:00Z""#);
    batch(&mut ingest, 1, &[document(0)]).await.unwrap();
    let client = client(&url).await;
    for (number, change) in [
        "ALTER TABLE book.bet_placed DROP COLUMN score",
        "ALTER TABLE book.bet_placed ALTER score TYPE bigint USING score::bigint",
        // Both types have eight bytes: PostgreSQL would not notice a value in the wrong format.
        "ALTER TABLE book.bet_placed ALTER score TYPE timestamptz USING now(), ALTER at TYPE timestamptz USING at::timestamptz",
        "ALTER TABLE book.bet_placed ALTER score TYPE numeric USING 17",
        "DROP TABLE book.tracks_p20260208",
        "ALTER TABLE book.bet RENAME COLUMN at TO renamed",
        "ALTER TABLE book.bet ALTER score TYPE varchar(10)",
        "DROP TABLE book.bet_placed",
        "DROP SCHEMA book CASCADE",
    ]
    .into_iter()
    .enumerate()
    {
        client.batch_execute(change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        let report = batch(&mut ingest, 1, &[document(number + 1)]).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        assert_eq!(report.counts.applied, 1, "{change}: {report}");
        if change.contains("now()") {
            let found = rows(&client, &format!("SELECT score, at = '2026-02-08T10:00Z' AS at, _overflow FROM book.bet_placed WHERE id = 'm{}'", number + 1)).await;
            assert_eq!(found, [r#"{"score":null,"at":true,"_overflow":{"properties.score": "17"}}"#]);
        }
    }
}

#[tokio::test]
async fn poison_of_any_number_and_position_costs_only_itself() {
    for (poison, expected) in [(0, 0), (1, 1), (500, 500), (10_000, 10_000)] {
        // Half of the bad records are found before PostgreSQL sees them, half only by a check constraint.
        let url = database().await;
        let mut ingest = ingest(CONFIG, &url);
        let every = 10_000usize.checked_div(poison).unwrap_or(usize::MAX);
        let document = |number: usize| match number {
            _ if number % every != every - 1 && every != 1 => placed(number, r#""stake":10"#),
            _ if number.is_multiple_of(2) => placed(number, r#""stake":"ten""#),
            _ => placed(number, r#""stake":-1"#),
        };
        let documents: Vec<String> = (0..10_000).map(document).collect();
        let report = batch(&mut ingest, 1, &documents).await.unwrap();
        assert_eq!((report.counts.retry, report.counts.applied), (expected, 10_000 - expected), "{report}");
        let bets = rows(&client(&url).await, "SELECT count(*) FROM book.bet").await;
        let bets = bets.first().cloned().unwrap_or_default();
        assert_eq!(bets, format!(r#"{{"count":{}}}"#, 10_000 - expected));
    }
}

#[tokio::test]
async fn a_table_that_stays_locked_fails_the_batch_in_time_and_a_later_one_succeeds() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &good(1)).await.unwrap();
    let owner = client(&url).await;
    owner.batch_execute("BEGIN; LOCK TABLE book.bet_placed IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let records: Vec<ShardRecord> =
        (1..).zip(good(5)).map(|(number, data)| ShardRecord::numbered(number, data)).collect();
    let event = event("s", "shardId-000000000000", &records);
    let error = ingest.process_event(&event, Duration::from_millis(300)).await.unwrap_err();
    assert!(!error.needs_operator(), "{error}");
    assert!(error.to_string().contains("55P03") || error.to_string().contains("57014"), "{error}");
    owner.batch_execute("COMMIT").await.unwrap();
    ingest.process_event(&event, Duration::from_secs(60)).await.unwrap();
    assert_whole(&url, 5).await;
}
