//! One record cannot exhaust a function's memory, whatever it holds, and its neighbour is committed with the same batch.

use std::time::Duration;

use millstream::dead_letter::DeadLetter;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::LocalAws;
use millstream_tests::system::reported;

use crate::support::packed::aggregate_under;
use crate::support::{Files, client, database, rows};

/// The smallest function that Lambda offers.
const MEGABYTES_MAX: u64 = 128;

const JSON: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\nmax_columns = 100\n";
const SEGMENT: &str = "[source.s]\nstream = \"s\"\n";

const BUCKET: &str = "letters";

/// An object of so many members under a path of these steps.
fn members(steps: &[usize], count: usize) -> Vec<u8> {
    let mut json = String::new();
    for length in steps {
        json.push_str(&format!("{{\"{}\":", "p".repeat(*length)));
    }
    let members: Vec<String> = (0..count).map(|number| format!("\"k{number}\":1")).collect();
    json.push_str(&format!("{{{}}}{}", members.join(","), "}".repeat(steps.len())));
    json.into_bytes()
}

/// So many records in one aggregate, under a key of 200 KB.
fn aggregate_of(document: &[u8], count: usize) -> Vec<u8> {
    aggregate_under(&"k".repeat(200_000), &vec![document; count])
}

/// Starts a function for each record, with its own database and queue.
struct Writer {
    aws: LocalAws,
    files: Files,
}

impl Writer {
    async fn start() -> Self {
        let aws = LocalAws::start().await.unwrap();
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(BUCKET).send().await.unwrap();
        Self { aws, files: Files::new("memory") }
    }

    /// Sends the record and a good one in one batch. The counts of applied and of dead-lettered records, the classes of the
    /// first dead letters, and the rows of the good record.
    async fn write(&self, config: &str, record: Vec<u8>, good: &str, table: &str) -> (u64, u64, Vec<String>) {
        let url = database().await;
        let queue = self.aws.queue(&format!("letters-{}", record.len())).await.unwrap();
        let mut environment = self.aws.environment();
        environment.extend([
            ("DATABASE_URL".to_owned(), url.clone()),
            ("DEAD_LETTER_QUEUE_URL".to_owned(), queue.clone()),
            // Large payloads of dead letters are stored there.
            ("ARCHIVE_BUCKET".to_owned(), BUCKET.to_owned()),
            ("MILLSTREAM_CONFIG".to_owned(), self.files.write("millstream.toml", config)),
        ]);
        let settings =
            Settings { binary: binary("kinesis-ingest").unwrap(), environment, timeout: Duration::from_secs(300) };
        let mut function = Function::start(settings).await.unwrap();
        let records = [ShardRecord::numbered(1, record), ShardRecord::numbered(2, good)];
        let answer = function.invoke(event("s", "shardId-000000000000", &records)).await.unwrap();
        assert_eq!(&*answer, br#"{"batchItemFailures":[]}"#);
        let peak = peak_megabytes(function.pid());
        assert!(peak <= MEGABYTES_MAX, "{peak} MB");
        let count = rows(&client(&url).await, &format!("SELECT count(*) AS n FROM {table}")).await;
        assert_eq!(count, [r#"{"n":1}"#]);
        let log = reported(&std::fs::read_to_string(function.log()).unwrap());
        let mut classes = Vec::new();
        if log.dead_lettered == 1 {
            let bodies = self.aws.drain(&queue).await.unwrap();
            classes.extend(bodies.iter().map(|body| serde_json::from_str::<DeadLetter>(body).unwrap().error.class));
        }
        (log.applied, log.dead_lettered, classes)
    }
}

/// The most memory that a process has held.
fn peak_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn no_single_record_exhausts_the_memory_and_its_neighbour_is_committed() {
    let writer = Writer::start().await;
    let good = r#"{"good":"yes"}"#;
    let rejected = (1, 1, vec!["limit_exceeded".to_owned()]);
    // A name of 10,000 bytes, and of 100,000 with a megabyte of members.
    for record in [members(&[10_000], 20_000), members(&[100_000], 60_000), members(&[5], 60_000)] {
        assert_eq!(writer.write(JSON, record, good, "s.s WHERE good = 'yes'").await, rejected);
    }
    // As much as the limits allow: the first members become all columns, and every other value goes to the overflow.
    let largest = members(&[1_020, 1_020], 9_900);
    let overflowing = "s.s WHERE _overflow ->> 'good' = 'yes'";
    assert_eq!(writer.write(JSON, largest, good, overflowing).await, (2, 0, Vec::new()));
    let call = r#"{"type":"page","messageId":"m","receivedAt":"2026-02-08T23:30:00Z","name":"p"}"#;
    let call = call.replace("2026-02-08T23:30:00Z", &millstream::clock::now().to_string());
    let applied = writer.write(JSON, aggregate_of(br#"{"n":1}"#, 5_000), good, "s.s WHERE good = 'yes'").await;
    assert_eq!(applied, (5_001, 0, Vec::new()));
    // Each record's dead letter carries the key. The local queue is slow: 1,000 copies would be enough.
    let rejected = writer.write(SEGMENT, aggregate_of(b"{}", 1_000), &call, "s.pages").await;
    assert_eq!(rejected, (1, 1_000, Vec::new()));
}
