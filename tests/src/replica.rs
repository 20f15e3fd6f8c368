//! The reporting replica on one machine: tables and their streams, the functions that read them, a bucket, a queue.

use std::path::Path;
use std::time::Duration;

use millstream::backfill::BackfillTask;

use crate::dynamodb::{self, delete_item, put_item};
use crate::event_source::{Environments, EventSource, Mapping, Progress, SourceKind};
use crate::function::{Settings, binary};
use crate::kinesis::{self, create_stream};
use crate::local_aws::LocalAws;
use crate::program::{Ran, millstream};
use crate::shop::{Change, TABLES};
use crate::system::{Reported, SystemResult, reported};

/// The bucket of backups and exports.
pub const BUCKET: &str = "archive";
/// The stream of the relational source.
pub const BANK: &str = "bank";

/// The replica and its sources.
pub struct Replica {
    /// The local AWS.
    pub aws: LocalAws,
    /// The database's URL.
    pub url: String,
    /// The dead-letter queue's URL.
    pub queue: String,
    environment: Vec<(String, String)>,
    /// The streams of the shop's tables.
    streams: Vec<String>,
}

impl Replica {
    /// Creates the tables, the stream, the bucket and the queue. `folder` is the system's under `events/`.
    ///
    /// # Errors
    /// Returns an error if a part does not start.
    pub async fn start(folder: &Path, url: String) -> SystemResult<Self> {
        let aws = LocalAws::start().await?;
        create_stream(&aws, BANK, 1).await?;
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(BUCKET).send().await?;
        let queue = aws.queue("dead-letters").await?;
        let mut streams = Vec::new();
        for (table, key) in TABLES {
            streams.push(dynamodb::create_table(&aws, table, key).await?);
        }
        let mut environment = aws.environment();
        environment.extend([
            ("DATABASE_URL".to_owned(), url.clone()),
            ("DEAD_LETTER_QUEUE_URL".to_owned(), queue.clone()),
            ("ARCHIVE_BUCKET".to_owned(), BUCKET.to_owned()),
            ("MILLSTREAM_CONFIG".to_owned(), folder.join("millstream.toml").to_string_lossy().into_owned()),
        ]);
        Ok(Self { aws, url, queue, environment, streams })
    }

    /// Makes a change in the shop.
    ///
    /// # Errors
    /// Returns an error if the API call fails.
    pub async fn change(&self, change: Change) -> SystemResult<()> {
        match change {
            Change::Put(table, item) => put_item(&self.aws, table, &item).await,
            Change::Delete(table, key) => delete_item(&self.aws, table, &key).await,
        }
    }

    /// Consumes all streams until it is asked to finish and nothing is left; returns the functions' reports.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn consume(&self, progress: &Progress) -> SystemResult<Reported> {
        let streams = self.streams.iter().cloned().chain([kinesis::arn(BANK)]);
        let consuming = streams.map(|stream| async {
            let source = self.source(Mapping {
                batch_size: 1_000,
                bisect_batch_on_function_error: true,
                report_batch_item_failures: true,
                ..Mapping::new(stream)
            })?;
            SystemResult::Ok(source.run(progress).await?.log)
        });
        let logs = futures_util::future::try_join_all(consuming).await?;
        Ok(reported(&logs.concat()))
    }

    /// The streams of the shop's tables, in the order of [`TABLES`].
    pub fn streams(&self) -> &[String] {
        &self.streams
    }

    /// A mapping from one of the streams to the function that is for it.
    ///
    /// # Errors
    /// Returns an error if Lambda would reject the mapping, or the program is not built.
    pub fn source(&self, mapping: Mapping) -> SystemResult<EventSource<'_>> {
        let name = match mapping.kind()? {
            SourceKind::Kinesis => "kinesis-ingest",
            SourceKind::Dynamodb => "dynamodb-sync",
        };
        let environment = self.environment.clone();
        let settings = Settings { binary: binary(name)?, environment, timeout: Duration::from_secs(60) };
        Ok(EventSource::new(&self.aws, mapping, Environments::new(settings))?)
    }

    /// Adds a variable to the environment of its functions and its operator.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs an operator's command.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub async fn run(&self, arguments: &[&str]) -> std::io::Result<Ran> {
        millstream(&self.environment, arguments).await
    }

    /// Runs `millstream backfill`; returns the completed task.
    ///
    /// # Errors
    /// Returns the program's error output.
    pub async fn backfill(&self, task: &serde_json::Value) -> SystemResult<BackfillTask> {
        let ran = self.run(&["backfill", "--json", &task.to_string()]).await?;
        // The exit code for differences is not an error here.
        if ![0, 3].contains(&ran.code) {
            return Err(ran.err.into());
        }
        Ok(serde_json::from_str(&ran.out)?)
    }
}
