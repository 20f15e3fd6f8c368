//! No batch exhausts a function's memory, whatever it unpacks to, and what can be written of it is committed.

use std::time::Duration;

use millstream::dead_letter::DeadLetter;
use millstream_tests::bench::process::peak_megabytes;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::LocalAws;
use millstream_tests::packed::aggregate_under;
use millstream_tests::shapes::{self, MEGABYTES_MAX, Shape};
use millstream_tests::system::reported;

use crate::support::{Files, client, database, rows};

const SEGMENT: &str = "[source.s]\nstream = \"s\"\n";

const BUCKET: &str = "letters";

/// Starts a function for each batch, with its own database and queue.
struct Writer {
    aws: LocalAws,
    files: Files,
}

/// What a function has done with a batch.
struct Written {
    applied: u64,
    dead_lettered: u64,
    letters: Vec<DeadLetter>,
}

impl Writer {
    async fn start(name: &str) -> Self {
        let aws = LocalAws::start().await.unwrap();
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(BUCKET).send().await.unwrap();
        Self { aws, files: Files::new(name) }
    }

    /// Sends the records and a good one in one batch. The good one must be committed.
    async fn write(&self, config: &str, records: &[Vec<u8>], good: &str, table: &str) -> Written {
        let url = database().await;
        let bytes: usize = records.iter().map(Vec::len).sum();
        let queue = self.aws.queue(&format!("letters-{bytes}-{}", config.len())).await.unwrap();
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
        let mut records: Vec<ShardRecord> =
            (1..).zip(records).map(|(number, data)| ShardRecord::numbered(number, data.clone())).collect();
        records.push(ShardRecord::numbered(records.len() as u64 + 1, good));
        let answer = function.invoke(event("s", "shardId-000000000000", &records)).await.unwrap();
        assert_eq!(&*answer, br#"{"batchItemFailures":[]}"#);
        let peak = peak_megabytes(function.pid()).unwrap();
        assert!(peak <= MEGABYTES_MAX as f64, "{peak} MB");
        let count = rows(&client(&url).await, &format!("SELECT count(*) AS n FROM {table}")).await;
        assert_eq!(count, [r#"{"n":1}"#]);
        let log = reported(&std::fs::read_to_string(function.log()).unwrap());
        let bodies = self.aws.drain(&queue).await.unwrap();
        let letters = bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        Written { applied: log.applied, dead_lettered: log.dead_lettered, letters }
    }

    async fn write_shape(&self, shape: &Shape) {
        let good = "coalesce(_overflow ->> 'good', to_jsonb(t) ->> 'good') = 'yes'";
        let written =
            self.write(shape.config, &shape.records, r#"{"good":"yes"}"#, &format!("s.s t WHERE {good}")).await;
        let found = (written.applied, written.dead_lettered);
        assert_eq!(found, (shape.applied + 1, shape.rejected), "{}", shape.what);
        if shape.config == shapes::CONFIG {
            let classes: Vec<&str> = written.letters.iter().map(|letter| &*letter.error.class).collect();
            assert_eq!(classes, vec!["limit_exceeded"; shape.rejected as usize], "{}", shape.what);
        }
    }
}

#[tokio::test]
async fn no_batch_exhausts_the_memory_and_its_good_records_are_committed() {
    let writer = Writer::start("memory-of-shapes").await;
    for shape in shapes::all() {
        writer.write_shape(&shape).await;
    }
}

#[tokio::test]
async fn no_dead_letters_exhaust_the_memory() {
    let writer = Writer::start("memory-of-letters").await;
    let call = r#"{"type":"page","messageId":"m","receivedAt":"2026-02-08T23:30:00Z","name":"p"}"#;
    let call = call.replace("2026-02-08T23:30:00Z", &millstream::clock::now().to_string());
    // Each record's dead letter carries the key. The local queue is slow: 1,000 copies would be enough.
    let aggregate = aggregate_under(&"k".repeat(200_000), &vec![b"{}" as &[u8]; 1_000]);
    let written = writer.write(SEGMENT, &[aggregate], &call, "s.pages").await;
    assert_eq!((written.applied, written.dead_lettered), (1, 1_000));
}
