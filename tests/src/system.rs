//! A whole system on one machine: a stream, its functions and their event source, a database, a queue.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream::dead_letter::DeadLetter;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::event_source::response::Response;
use crate::event_source::{Delivered, Environments, EventSource, Mapping, Progress, deliver_or_discard};
use crate::function::{Settings, binary};
use crate::kinesis::{arn, create_stream, put};
use crate::local_aws::LocalAws;
use crate::postgresql::connect;

/// The result of any part of a system.
pub type SystemResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A system of Kinesis streams.
pub struct System {
    /// The local AWS.
    pub aws: LocalAws,
    /// The database's URL.
    pub url: String,
    /// The dead-letter queue's URL.
    pub queue: String,
    streams: Vec<String>,
    settings: Settings,
}

/// The records that are put on a stream, with their partition keys.
pub type StreamInput<'a> = (&'a str, &'a [(String, Vec<u8>)]);

/// Several streams are filled in turns of at most this many records each, so that none runs ahead of the others.
const TURN_RECORDS_MAX: usize = 5_000;

/// The outcome of everything that was put on the stream.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Account {
    /// Records put on the stream.
    pub put: u64,
    /// Records by outcome, as the functions reported.
    pub reported: Reported,
    /// Dead letters on the queue, by class of error.
    pub dead_letters: BTreeMap<String, u64>,
    /// How long it took, from the first put to the last commit.
    pub time: Duration,
    /// The time of each invocation, sorted.
    pub invocations: Vec<Duration>,
    /// Invocations that failed and were tried again.
    pub failed: u64,
}

/// The sums of the functions' report lines.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Deserialize)]
pub struct Reported {
    /// In the database.
    pub applied: u64,
    /// Already stored.
    pub duplicate: u64,
    /// Older than what is stored.
    pub superseded: u64,
    /// Older than the tables keep.
    pub expired: u64,
    /// On the queue.
    pub dead_lettered: u64,
    /// About the stream, not about a row.
    pub control: u64,
    /// Rows inserted and updated.
    pub rows: u64,
}

impl Reported {
    /// The number of records reported.
    pub fn records(&self) -> u64 {
        let Self { applied, duplicate, superseded, expired, dead_lettered, control, rows: _ } = *self;
        applied + duplicate + superseded + expired + dead_lettered + control
    }
}

impl Account {
    /// What does not add up; `None` if everything does.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let letters: u64 = self.dead_letters.values().sum();
        if self.put != self.reported.records() {
            mistakes.push(format!("{} records were sent, {} were reported", self.put, self.reported.records()));
        }
        if letters != self.reported.dead_lettered {
            mistakes.push(format!(
                "{letters} dead letters are on the queue, {} were reported",
                self.reported.dead_lettered
            ));
        }
        mistakes
    }

    /// The percentile of the invocations' times.
    pub fn percentile(&self, percent: usize) -> Duration {
        let index = (self.invocations.len() * percent / 100).min(self.invocations.len().saturating_sub(1));
        self.invocations.get(index).copied().unwrap_or_default()
    }
}

impl System {
    /// Creates a stream with this many shards, read by `kinesis-ingest`, and a queue. `folder` is the system's under `events/`.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub async fn start(folder: &Path, stream: &str, shards: usize, url: String) -> SystemResult<Self> {
        Self::start_all(folder, &[(stream, shards)], url).await
    }

    /// Creates several streams, each with its number of shards.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub async fn start_all(folder: &Path, streams: &[(&str, usize)], url: String) -> SystemResult<Self> {
        let aws = LocalAws::start().await?;
        for (stream, shards) in streams {
            create_stream(&aws, stream, i32::try_from(*shards)?).await?;
        }
        let queue = aws.queue("dead-letters").await?;
        let mut environment = aws.environment();
        environment.extend([
            ("DATABASE_URL".to_owned(), url.clone()),
            ("DEAD_LETTER_QUEUE_URL".to_owned(), queue.clone()),
            ("MILLSTREAM_CONFIG".to_owned(), folder.join("millstream.toml").to_string_lossy().into_owned()),
        ]);
        let settings = Settings { binary: binary("kinesis-ingest")?, environment, timeout: Duration::from_secs(60) };
        let streams = streams.iter().map(|(stream, _)| (*stream).to_owned()).collect();
        Ok(Self { aws, url, queue, streams, settings })
    }

    /// A client of the database.
    ///
    /// # Errors
    /// Returns PostgreSQL's error.
    pub async fn client(&self) -> SystemResult<Client> {
        Ok(connect(&self.url).await?)
    }

    /// Puts the records on the first stream while the functions consume it, and returns the account. `progress` reports how far
    /// the functions have read.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn run(&self, records: &[(String, Vec<u8>)], progress: &Progress) -> SystemResult<Account> {
        self.run_all(&[(self.first_stream(), records)], progress).await
    }

    /// Puts records on several streams, in turns, while the functions consume them, and returns the account.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn run_all(&self, inputs: &[StreamInput<'_>], progress: &Progress) -> SystemResult<Account> {
        let since = Instant::now();
        let putting = async {
            self.put_in_turns(inputs).await?;
            progress.finish();
            SystemResult::Ok(())
        };
        let consuming = inputs.iter().map(|(stream, _)| self.consume(mapping_of(stream), progress));
        let consuming = futures_util::future::try_join_all(consuming);
        let ((), delivered) = futures_util::future::try_join(putting, consuming).await?;
        let put = inputs.iter().map(|(_, records)| records.len() as u64).sum();
        self.account(put, &delivered, since.elapsed()).await
    }

    /// Puts the same part of each stream's records in each turn.
    async fn put_in_turns(&self, inputs: &[StreamInput<'_>]) -> SystemResult<()> {
        let turns = inputs.iter().map(|(_, records)| records.len().div_ceil(TURN_RECORDS_MAX)).max().unwrap_or(0);
        for turn in 0..turns {
            for (stream, records) in inputs {
                let part = &records[records.len() * turn / turns..records.len() * (turn + 1) / turns];
                put(&self.aws, stream, part).await?;
            }
        }
        Ok(())
    }

    fn first_stream(&self) -> &str {
        self.streams.first().map_or("", String::as_str)
    }

    /// Consumes what is on the first stream, and leaves the dead letters on their queue.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn consume_only(&self) -> SystemResult<Delivered> {
        deliver_or_discard(&self.aws, self.mapping(), self.environments()).await
    }

    /// Consumes the stream through a mapping until it is asked to finish and nothing is left.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn consume(&self, mapping: Mapping, progress: &Progress) -> SystemResult<Delivered> {
        EventSource::new(&self.aws, mapping, self.environments())?.run(progress).await
    }

    /// The first stream's mapping as it should be deployed: a failed batch is retried until it succeeds.
    pub fn mapping(&self) -> Mapping {
        mapping_of(self.first_stream())
    }

    /// The function that reads the streams.
    pub fn environments(&self) -> Environments {
        Environments::new(self.settings.clone())
    }

    /// The account of what was put and delivered; removes the dead letters from their queue.
    ///
    /// # Errors
    /// Returns an error if the queue cannot be read.
    pub async fn account(&self, put: u64, delivered: &[Delivered], time: Duration) -> SystemResult<Account> {
        let all_invocations = || delivered.iter().flat_map(|one| &one.invocations);
        let mut invocations: Vec<Duration> = all_invocations().map(|one| one.time).collect();
        invocations.sort_unstable();
        let mut dead_letters = BTreeMap::new();
        for body in self.aws.drain(&self.queue).await? {
            let letter: DeadLetter = serde_json::from_str(&body)?;
            match letter.documents {
                Some(documents) => {
                    documents.reasons.into_iter().for_each(|(class, n)| *dead_letters.entry(class).or_insert(0) += n);
                }
                None => *dead_letters.entry(letter.error.class).or_insert(0) += 1,
            }
        }
        let failed = all_invocations().filter(|one| !matches!(one.response, Response::Answered(_))).count() as u64;
        let logs: Vec<&str> = delivered.iter().map(|one| &*one.log).collect();
        Ok(Account { put, reported: reported(&logs.concat()), dead_letters, time, invocations, failed })
    }
}

/// A stream's mapping as it should be deployed.
fn mapping_of(stream: &str) -> Mapping {
    Mapping {
        batch_size: 4_000,
        bisect_batch_on_function_error: true,
        report_batch_item_failures: true,
        ..Mapping::new(arn(stream))
    }
}

/// Adds up the report lines of a log.
pub fn reported(log: &str) -> Reported {
    let mut sum = Reported::default();
    for line in log.lines().filter(|line| line.contains("\"message\":\"batch\"")) {
        let Ok(one) = serde_json::from_str::<Reported>(line) else { continue };
        sum.applied += one.applied;
        sum.duplicate += one.duplicate;
        sum.superseded += one.superseded;
        sum.expired += one.expired;
        sum.dead_lettered += one.dead_lettered;
        sum.control += one.control;
        sum.rows += one.rows;
    }
    sum
}
