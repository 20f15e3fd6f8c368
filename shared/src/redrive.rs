//! Reprocesses dead letters after the cause of their rejection is fixed.
//!
//! A run drains each queue: it leases a message, which hides it from other consumers, and checks whether the message is
//! selected. The records of a selected message take the same path as any batch. The message is deleted once its records are
//! durable: written, or rejected again and queued as a new dead letter with an incremented attempt count. Messages that stay
//! on the queue are released at the end. A crash at any point leaves every record on the queue, in the database, or both, and
//! applying a record twice has the same effect as applying it once. A run skips messages rejected since it began, so it cannot
//! loop.

mod message;
mod payload;
mod queue_drain;
mod run_tally;
mod selection;
mod stream;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::ingest::{Ingest, IngestError};
use crate::object_store::ObjectStore;
use crate::outcome::OutcomeCounts;
use crate::queue::{Queue, QueueError};
use crate::task::{Resumable, TaskCall};
use crate::timestamp::Timestamp;
use queue_drain::QueueDrain;
use run_tally::RunTally;
use selection::MessageFilter;
pub use selection::Selection;
pub use stream::StreamReader;

/// A redrive task: what to redrive, and the progress so far.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct RedriveTask {
    /// Queue URL. The default is the environment's queues: the dead-letter queue and the queue for Lambda's on-failure records.
    pub queue: Option<String>,
    /// Which messages to redrive.
    pub only: Selection,
    /// Maximum number of messages.
    pub limit: Option<u64>,
    /// Only report what would be redriven.
    pub dry_run: bool,
    /// Progress of the earlier calls.
    pub progress: RedriveProgress,
}

impl Resumable for RedriveTask {
    fn is_done(&self) -> bool {
        self.progress.done
    }
}

/// Progress of a run.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct RedriveProgress {
    /// The queues have been drained to their ends.
    pub done: bool,
    /// When the run began. Messages rejected later are skipped.
    pub started: Option<String>,
    /// Messages selected, by source, table and reason. Selected messages left on the queue count only for the last call.
    pub selected: BTreeMap<String, u64>,
    /// Messages deleted because all their records are durable.
    pub redriven: u64,
    /// Records written, by outcome, including what remained of a message that stays on the queue. Dead-lettered records are
    /// on the queue again.
    pub records: OutcomeCounts,
    /// Messages that the last call left on the queue, by reason. Messages rejected since the run began are not counted.
    pub kept: BTreeMap<String, u64>,
}

/// Why a run failed. Every record is in the database or still on the queue.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// No dead-letter queue is configured.
    #[error("DEAD_LETTER_QUEUE_URL is not set; redrive needs it for records that are rejected again")]
    NoQueue,
    /// Invalid timestamp.
    #[error("invalid timestamp `{0}`; expected e.g. 2026-02-08T00:00:00Z")]
    Time(String),
    /// The skipped messages approach the number that SQS allows in flight.
    #[error(
        "{max} messages of {0} were skipped and SQS allows 120,000 in flight; redrive or delete some first",
        max = queue_drain::LEASED_MAX
    )]
    TooManySkipped(String),
    /// SQS failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Writing the records failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl RedriveError {
    /// Whether operator action is required before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::NoQueue | Self::Time(_) | Self::TooManySkipped(_) => true,
            Self::Ingest(error) => error.needs_operator(),
            Self::Queue(error) => error.needs_operator(),
        }
    }
}

/// The queues that may be redriven.
#[derive(Clone, Debug)]
pub struct Queues {
    aws: Aws,
    /// The environment's queue URLs.
    urls: Vec<String>,
}

impl Queues {
    /// Creates the list of the environment's queues.
    pub fn new(aws: Aws, urls: impl IntoIterator<Item = String>) -> Self {
        // Both variables may name the same queue.
        let urls: BTreeSet<String> = urls.into_iter().collect();
        Self { aws, urls: urls.into_iter().collect() }
    }

    /// Returns the named queue, or the environment's queues.
    fn urls(&self, named: Option<&str>) -> Vec<String> {
        named.map_or_else(|| self.urls.clone(), |url| vec![url.to_owned()])
    }
}

/// The resources of a run.
pub struct Redrive<'r> {
    /// Writes the records; its dead letters return to their queue.
    pub ingest: &'r mut Ingest,
    /// Holds large payloads.
    pub object_store: ObjectStore,
    /// Reads back records that the message does not contain.
    pub streams: StreamReader,
    /// The queues to drain.
    pub queues: Queues,
    /// This call of the task. It exceeds its deadline only if it has not redriven anything yet.
    pub call: TaskCall<'r, RedriveProgress>,
}

/// Redrives until the queues have been drained or the deadline has passed. To continue, call it again with the task and the
/// returned progress.
///
/// # Errors
/// Fails if this call cannot make progress. Messages that cannot be redriven stay on the queue and are not errors.
pub async fn run(redrive: &mut Redrive<'_>, task: &RedriveTask) -> Result<RedriveProgress, RedriveError> {
    if !redrive.ingest.has_dead_letter_queue() {
        return Err(RedriveError::NoQueue);
    }
    let mut tally = RunTally::new(&task.progress);
    let started = tally.progress.started.as_deref().unwrap_or_default();
    let filter = MessageFilter::new(&task.only, parse_time(started)?)?;
    let mut all_drained = true;
    for url in redrive.queues.urls(task.queue.as_deref()) {
        let queue = Queue::open(&redrive.queues.aws, &url).await;
        let mut drain = QueueDrain::new(redrive, queue, task, &filter, &mut tally);
        let drained = drain.run().await;
        // Also after an error: otherwise the leased messages stay invisible until their lease expires.
        let released = drain.release().await;
        all_drained &= drained?;
        released?;
    }
    let progress = tally.finish(all_drained);
    redrive.call.report(&progress);
    Ok(progress)
}

fn parse_time(text: &str) -> Result<Timestamp, RedriveError> {
    Timestamp::parse(text).ok_or_else(|| RedriveError::Time(text.to_owned()))
}
