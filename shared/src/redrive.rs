//! Dead letters back in: the same way again, once what refused them has been mended.
//!
//! A queue is swept: each message is held (invisible to others), judged, and, where it is selected, its records take the way
//! of any batch. Its message is deleted when they are durable: written, or refused again and on the queue as a new letter with
//! its attempts counted. What stays is let go at the end. A crash at any moment leaves every record on the queue, in the
//! database, or both, and to apply twice is to apply once. A run never takes what was refused since it began: nothing loops.

mod message;
mod payload;
mod queue_drain;
mod run_tally;
mod selection;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::ingest::{Ingest, IngestError};
use crate::object_store::ObjectStore;
use crate::outcome::OutcomeCounts;
use crate::queue::{Queue, QueueError};
use crate::timestamp::Timestamp;
use queue_drain::QueueDrain;
use run_tally::RunTally;
use selection::MessageFilter;
pub use selection::Selection;
pub use stream::StreamReader;

/// What is to be redriven, and how far it is.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct RedriveTask {
    /// The queue's URL; by default those of the environment: the dead letters, and Lambda's own messages.
    pub queue: Option<String>,
    /// Which of its messages.
    pub only: Selection,
    /// Maximum number of messages.
    pub limit: Option<u64>,
    /// Only tells what would be redriven.
    pub dry_run: bool,
    /// How far earlier pieces came.
    pub progress: RedriveProgress,
}

/// How far a run is.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct RedriveProgress {
    /// The queues have been swept to their ends.
    pub done: bool,
    /// When the run began; letters of a later refusal are not taken.
    pub started: Option<String>,
    /// Messages selected, by source, table and reason; those selected and kept are the last piece's.
    pub selected: BTreeMap<String, u64>,
    /// Messages deleted, because all their records are durable.
    pub redriven: u64,
    /// The records written, by outcome, those that are left of a message that stays among them; those dead-lettered are
    /// on the queue again.
    pub records: OutcomeCounts,
    /// Messages that the last piece left on the queue, and why; without those that were refused since the run began.
    pub kept: BTreeMap<String, u64>,
}

/// Why a run failed. Whatever is not in the database is on the queue.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// Nothing says where dead letters are, or where they would go back.
    #[error("DEAD_LETTER_QUEUE_URL is not set; redrive needs it for records that are rejected again")]
    NoQueue,
    /// Not a moment.
    #[error("invalid timestamp `{0}`; expected e.g. 2026-02-08T00:00:00Z")]
    Time(String),
    /// The messages that stay are more than SQS hands out.
    #[error(
        "{max} messages of {0} were skipped and SQS allows 120,000 in flight; redrive or delete some first",
        max = queue_drain::LEASED_MAX
    )]
    TooManySkipped(String),
    /// SQS.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Writing.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl RedriveError {
    /// Whether operator action required before it can go on.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::NoQueue | Self::Time(_) | Self::TooManySkipped(_) => true,
            Self::Ingest(error) => error.needs_operator(),
            Self::Queue(_) => false,
        }
    }
}

/// The queues that may be redriven.
#[derive(Clone, Debug)]
pub struct Queues {
    aws: Aws,
    /// Of the environment.
    urls: Vec<String>,
}

impl Queues {
    /// The queues of the environment.
    pub fn new(aws: Aws, urls: impl IntoIterator<Item = String>) -> Self {
        // One queue may serve both.
        let urls: BTreeSet<String> = urls.into_iter().collect();
        Self { aws, urls: urls.into_iter().collect() }
    }

    /// The one that is named, else those of the environment.
    fn urls(&self, named: Option<&str>) -> Vec<String> {
        named.map_or_else(|| self.urls.clone(), |url| vec![url.to_owned()])
    }
}

/// What a piece of a run has at hand.
pub struct Redrive<'r> {
    /// What writes; its dead letters go back to their queue.
    pub ingest: &'r mut Ingest,
    /// Where large payloads are.
    pub archive: ObjectStore,
    /// Where records are read back that no message holds.
    pub streams: StreamReader,
    /// Where the messages are.
    pub queues: Queues,
    /// The end of the time for this piece, which goes beyond it only where it has not come any further.
    pub until: Instant,
    /// Is told after each batch how far the run is.
    pub watch: &'r (dyn Fn(&RedriveProgress) + Send + Sync),
}

/// Redrives until the queues have been swept or the time is up. The same task, with the progress that is returned, goes on.
///
/// # Errors
/// Whatever keeps the piece from being done; messages that cannot be redriven do not.
pub async fn run(redrive: &mut Redrive<'_>, task: &RedriveTask) -> Result<RedriveProgress, RedriveError> {
    if !redrive.ingest.has_dead_letter_queue() {
        return Err(RedriveError::NoQueue);
    }
    let mut tally = RunTally::new(&task.progress);
    let began = tally.progress.started.as_deref().unwrap_or_default();
    let criteria = MessageFilter::new(&task.only, parse_time(began)?)?;
    let mut swept = true;
    for url in redrive.queues.urls(task.queue.as_deref()) {
        let queue = Queue::open(&redrive.queues.aws, &url).await;
        let mut sweep = QueueDrain::new(redrive, queue, task, &criteria, &mut tally);
        let ended = sweep.run().await;
        // Also after an error: what is held would else be out of sight for the rest of the time.
        let released = sweep.release().await;
        swept &= ended?;
        released?;
    }
    let progress = tally.finish(swept);
    (redrive.watch)(&progress);
    Ok(progress)
}

fn parse_time(text: &str) -> Result<Timestamp, RedriveError> {
    Timestamp::parse(text).ok_or_else(|| RedriveError::Time(text.to_owned()))
}
