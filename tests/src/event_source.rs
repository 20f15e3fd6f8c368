//! The local event source: brings a Kinesis or a DynamoDB stream to a function as Lambda's event source mapping does.
//!
//! It polls the shards of the stream, parents before children, and invokes the real program, one batch at a time a shard, or a
//! key where there is a parallelization factor. What it decides is pure and stands in [`lane`] (batches, retries, expiry),
//! [`shard`] (keys, checkpoint) and [`lineage`] (which shards); [`run`], [`poller`], [`stream`] and [`environments`] do it. Checkpoints
//! are in memory: a run goes on where the last one of the same [`EventSource`] has ended.
//!
//! The rules: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>, <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>.

pub mod clock;
pub mod environments;
pub mod lane;
pub mod lineage;
pub mod mapping;
pub mod on_failure;
mod poller;
pub mod record;
pub mod response;
mod run;
pub mod shard;
mod stream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::record::SequenceNumber;

pub use self::clock::Clock;
pub use self::environments::Environments;
pub use self::mapping::{Mapping, MappingError, SourceKind, StartingPosition};
pub use self::on_failure::OnFailure;
pub use self::record::{StreamRecord, event_of};

use self::lineage::Lineage;
use self::response::Response;
use self::run::Run;
use crate::local_aws::LocalAws;
use crate::system::Outcome;

/// A mapping between a stream and a function.
pub struct EventSource<'a> {
    aws: &'a LocalAws,
    mapping: Arc<Mapping>,
    kind: SourceKind,
    environments: Environments,
    clock: Clock,
    lineage: Mutex<Lineage>,
}

/// What a run has done.
#[derive(Clone, Default, Debug)]
pub struct Delivered {
    /// Every invocation, in the order in which they ended.
    pub invocations: Vec<Invoked>,
    /// What was given up, as the on-failure destination was told, if there is one.
    pub discarded: Vec<OnFailure>,
    /// What the function has written to its logs.
    pub log: String,
}

/// One invocation, as seen from outside.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The shard.
    pub shard: String,
    /// Which of its lanes.
    pub lane: usize,
    /// The first record of the batch.
    pub first: SequenceNumber,
    /// The last record of the batch.
    pub last: SequenceNumber,
    /// Records in the batch.
    pub records: usize,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub time: Duration,
    /// What came of it.
    pub response: Response,
}

/// Tells how far runs have come, and tells them to stop once they have read everything.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    finish: Arc<AtomicBool>,
}

impl Progress {
    /// What is there is to be delivered, and nothing more is awaited.
    pub fn finished() -> Self {
        let progress = Self::default();
        progress.finish();
        progress
    }

    /// From now on, a shard without further records is done.
    pub fn finish(&self) {
        self.finish.store(true, Ordering::SeqCst);
    }

    /// Whether a shard without further records is done.
    pub fn is_finishing(&self) -> bool {
        self.finish.load(Ordering::SeqCst)
    }

    /// Records read from the streams so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    /// Invocations that failed or never began so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    fn add(&self, records: usize) {
        self.read.fetch_add(records as u64, Ordering::SeqCst);
    }

    fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Delivers all that is on the stream: when this returns, every record was taken by the function or given up, and the
/// on-failure destination knows of it.
///
/// # Errors
/// What Lambda would say of the mapping, and what any part ends with.
pub async fn deliver_or_discard(aws: &LocalAws, mapping: Mapping, environments: Environments) -> Outcome<Delivered> {
    EventSource::new(aws, mapping, environments)?.run(&Progress::finished()).await
}

impl<'a> EventSource<'a> {
    /// A mapping that has delivered nothing yet.
    ///
    /// # Errors
    /// What Lambda would say of the mapping.
    pub fn new(aws: &'a LocalAws, mapping: Mapping, environments: Environments) -> Result<Self, MappingError> {
        mapping.check()?;
        let lineage = Mutex::new(Lineage::new(mapping.starting_position));
        let (kind, mapping) = (mapping.kind()?, Arc::new(mapping));
        Ok(Self { aws, mapping, kind, environments, clock: Clock::default(), lineage })
    }

    /// The same by another clock.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Delivers until it is told to finish, everything is read, and all of it is taken or given up.
    ///
    /// # Errors
    /// Whatever a part ends with. Failed invocations are no errors.
    pub async fn run(&self, progress: &Progress) -> Outcome<Delivered> {
        let delivered = Run::new(self, progress).to_the_end().await?;
        Ok(Delivered { log: self.environments.end()?, ..delivered })
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
