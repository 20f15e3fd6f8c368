//! Redrive on real parts: with any messages on the queue, and with faults at any time.

mod backups;
mod faults;
mod killed;
mod letters;
mod payloads;
mod pieces;
mod private;
mod rejected_by_sqs;
mod selection;
mod undelivered;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::{DeadLetter, DeadLetters};
use millstream::ingest::Ingest;
use millstream::object_store::{ListMode, ObjectStore};
use millstream::redrive::{Queues, Redrive, RedriveError, RedriveProgress, RedriveTask, StreamReader, run};
use millstream::report::Report;
use millstream::task::{Deadline, TaskCall};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::{LocalAws, REGION};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::support::{client, database, rows};

/// Longer than any run of these tests takes.
const PLENTY: Duration = Duration::from_secs(20);

/// A table of single digits: all other values become dead letters.
const NARROW: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.log]\nsource = \"log\"\n\
    columns = { n = { path = \"n\", type = \"numeric(1)\" } }\n";

/// The same table, fixed.
fn widened() -> String {
    NARROW.replace("numeric(1)", "numeric")
}

/// The local AWS that these tests share; each uses its own names.
async fn local_aws() -> LocalAws {
    static SERVER: OnceCell<LocalAws> = OnceCell::const_new();
    let server = SERVER.get_or_init(async || LocalAws::start().await.expect("moto starts")).await;
    server.for_this_runtime().await
}

/// A database, with a queue and a bucket of the same name.
struct Desk {
    aws: LocalAws,
    /// The environment that the functions see.
    sdk: Aws,
    url: String,
    /// The queue's URL.
    queue: String,
    /// The bucket's name, unlike any other test's.
    bucket: String,
}

impl Desk {
    async fn open() -> Self {
        static DESKS: AtomicU32 = AtomicU32::new(0);
        let (aws, url) = (local_aws().await, database().await);
        let sdk = Aws::local(aws.endpoint(), REGION).await;
        let bucket = format!("desk-{}", DESKS.fetch_add(1, Ordering::Relaxed));
        let queue = aws.queue(&bucket).await.unwrap();
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(&bucket).send().await.unwrap();
        Self { aws, sdk, url, queue, bucket }
    }

    async fn client(&self) -> Client {
        client(&self.url).await
    }

    fn archive(&self) -> ObjectStore {
        ObjectStore::new(self.sdk.clone(), Some(self.bucket.clone()))
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(self.aws.config())
    }

    /// A newly started function, with empty caches.
    fn ingest(&self, config: &str) -> Ingest {
        self.ingest_into(config, &self.url, &self.queue)
    }

    fn ingest_into(&self, config: &str, url: &str, queue: &str) -> Ingest {
        let aws = self.sdk.clone();
        let database = Database::new(&DatabaseAddress::from_url(url), aws.clone()).unwrap();
        let config = Config::parse("test.toml", config).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let queue = Some(queue.to_owned());
        Ingest::new(config, database, DeadLetters::new(aws, queue, Some(self.bucket.clone()), "test".to_owned()))
    }

    /// Redrives this desk's queue with plenty of time.
    async fn redrive(&self, config: &str, task: Value) -> Result<RedriveProgress, RedriveError> {
        let ingest = self.ingest(config);
        self.redrive_with(ingest, task, PLENTY).await
    }

    async fn redrive_with(&self, ingest: Ingest, task: Value, time: Duration) -> Result<RedriveProgress, RedriveError> {
        let queues = Queues::new(self.sdk.clone(), [self.queue.clone()]);
        self.redrive_from(queues, ingest, task, time).await
    }

    async fn redrive_from(
        &self,
        queues: Queues,
        mut ingest: Ingest,
        task: Value,
        time: Duration,
    ) -> Result<RedriveProgress, RedriveError> {
        let redrive = &mut Redrive {
            ingest: &mut ingest,
            object_store: self.archive(),
            streams: StreamReader::new(self.sdk.clone()),
            queues,
            call: TaskCall::unwatched(Deadline::after(time)),
        };
        let task: RedriveTask = serde_json::from_value(task).expect("a task");
        run(redrive, &task).await
    }

    /// Puts messages on the queue.
    async fn put(&self, bodies: &[String]) {
        for part in bodies.chunks(10) {
            let entry = |(number, body): (usize, &String)| {
                SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body).build().unwrap()
            };
            let entries = part.iter().enumerate().map(entry).collect();
            let sent = self.sqs().send_message_batch().queue_url(&self.queue).set_entries(Some(entries)).send().await;
            assert_eq!(sent.unwrap().failed(), []);
        }
    }

    /// The visible messages, which stay on the queue.
    async fn bodies(&self) -> Vec<String> {
        let bodies = self.aws.drain(&self.queue).await.unwrap();
        self.put(&bodies).await;
        bodies
    }

    /// The visible dead letters, which stay on the queue, in the order of their positions.
    async fn letters(&self) -> Vec<DeadLetter> {
        let mut letters: Vec<DeadLetter> =
            self.bodies().await.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        letters.sort_by_key(|letter| (letter.position.sequence_number.clone(), letter.position.sub_sequence_number));
        letters
    }

    /// The number of dead letters by class and number of attempts.
    async fn account(&self) -> BTreeMap<String, u32> {
        let mut account = BTreeMap::new();
        for letter in self.letters().await {
            *account.entry(format!("{} {}", letter.error.class, letter.attempts)).or_default() += 1;
        }
        account
    }

    /// The bucket's objects and their contents.
    async fn objects(&self, prefix: &str) -> BTreeMap<String, String> {
        let archive = self.archive();
        let mut objects = BTreeMap::new();
        for key in archive.list(prefix, "", ListMode::Objects).await.unwrap().keys {
            let text = archive.read_text(&archive.address(&key).unwrap()).await.unwrap();
            objects.insert(key, text);
        }
        objects
    }

    /// Changes the table of [`NARROW`] to accept any number.
    async fn fix_cause(&self) {
        self.client().await.batch_execute("ALTER TABLE log.log ALTER n TYPE numeric").await.unwrap();
    }

    /// The numbers of visible and of leased messages.
    async fn counts(&self) -> (u32, u32) {
        self.counts_of(&self.queue).await
    }

    async fn counts_of(&self, queue: &str) -> (u32, u32) {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Seen, ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let request = self.sqs().get_queue_attributes().queue_url(queue);
        let answer = request.attribute_names(Seen).attribute_names(Hidden).send().await.unwrap();
        let count = |name| answer.attributes().and_then(|all| all.get(&name)?.parse().ok()).unwrap_or_default();
        (count(Seen), count(Hidden))
    }
}

/// One batch of the stream `s`.
async fn ingest_event(ingest: &mut Ingest, event: &[u8]) -> Report {
    ingest.process_event(event, PLENTY).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Documents as one batch of the stream `s`, numbered from `first`.
fn documents(first: u64, documents: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let numbered = (first..).zip(documents).map(|(number, data)| ShardRecord::numbered(number, data.as_ref()));
    event("s", "shardId-000000000000", &numbered.collect::<Vec<_>>())
}

/// The one shard that each of the local AWS's DynamoDB streams has.
const DYNAMODB_SHARD: &str = "shardId-00000001541626099285-f35f62ef";

/// The number of a change of such a stream, from 1.
fn dynamodb_sequence(number: u64) -> String {
    (1_100_000_000_017_454_423_008 + u128::from(number)).to_string()
}

/// A table's change, as Lambda delivers it.
fn dynamodb_change(stream: &str, event: &str, sequence: &str, images: &str) -> String {
    format!(
        r#"{{"eventID":"e{sequence}","eventName":"{event}","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-east-1",
        "eventSourceARN":"{stream}","dynamodb":{{"ApproximateCreationDateTime":1770593461,"SizeBytes":1,
        "StreamViewType":"NEW_AND_OLD_IMAGES","SequenceNumber":"{sequence}",{images}}}}}"#
    )
}

/// The stream of a table that does not have to exist.
fn dynamodb_stream(table: &str) -> String {
    format!("arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/2026-02-01T00:00:00.000")
}

/// Changes as one batch.
fn dynamodb_event(changes: &[String]) -> Vec<u8> {
    format!("{{\"Records\":[{}]}}", changes.join(",")).into_bytes()
}

/// Every row of every table, and every tombstone.
async fn everything(url: &str) -> Vec<String> {
    let client = client(url).await;
    let tables = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
                  AND (n.nspname, c.relname) NOT IN (('millstream', 'freshness'), ('millstream', 'minute'), ('millstream', 'event'), ('millstream', 'schema_lock'))";
    let mut everything = Vec::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // The time at which a tombstone was recorded varies.
        let found = rows(&client, &format!("SELECT to_jsonb(t) - 'deleted_at' AS row FROM {table} t")).await;
        everything.extend(found.iter().map(|row| format!("{table} {row}")));
    }
    everything.sort_unstable();
    everything
}

/// A map of counts, for comparisons.
fn counted(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}
