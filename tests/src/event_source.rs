//! The local event source: delivers a Kinesis or DynamoDB stream to a function as Lambda's event source mapping does.
//!
//! It polls the shards of the stream, parents before children, and invokes the real program, one batch at a time per shard, or per
//! key with a parallelization factor. The decisions are pure and made in [`lane`] (batches, retries, expiry),
//! [`shard`] (keys, checkpoint) and [`lineage`] (which shards); [`run`], [`poller`], [`stream`] and [`environments`] act. Checkpoints
//! are in memory: a run continues where the last one of the same [`EventSource`] ended.
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
use crate::system::SystemResult;

/// A mapping between a stream and a function.
pub struct EventSource<'a> {
    aws: &'a LocalAws,
    mapping: Arc<Mapping>,
    kind: SourceKind,
    environments: Environments,
    clock: Clock,
    lineage: Mutex<Lineage>,
}

/// The result of a run.
#[derive(Clone, Default, Debug)]
pub struct Delivered {
    /// All invocations, in the order in which they ended.
    pub invocations: Vec<Invoked>,
    /// The discarded batches, as they were reported to the on-failure destination, if there is one.
    pub discarded: Vec<OnFailure>,
    /// The function's logs.
    pub log: String,
}

/// One invocation, as seen from outside.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The shard.
    pub shard: String,
    /// The lane within the shard.
    pub lane: usize,
    /// The first record of the batch.
    pub first: SequenceNumber,
    /// The last record of the batch.
    pub last: SequenceNumber,
    /// Records in the batch.
    pub records: usize,
    /// When it started.
    pub began: Instant,
    /// How long it took.
    pub time: Duration,
    /// Its outcome.
    pub response: Response,
}

/// Reports the progress of runs, and stops them once they have read everything.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    finish: Arc<AtomicBool>,
}

impl Progress {
    /// Delivers what is on the stream and waits for nothing more.
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

    /// Invocations that failed or never started so far.
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

/// Delivers everything on the stream: when this returns, every record was processed by the function or discarded, and the
/// discarded ones were reported to the on-failure destination.
///
/// # Errors
/// Returns an error if Lambda would reject the mapping or a part fails.
pub async fn deliver_or_discard(
    aws: &LocalAws,
    mapping: Mapping,
    environments: Environments,
) -> SystemResult<Delivered> {
    EventSource::new(aws, mapping, environments)?.run(&Progress::finished()).await
}

impl<'a> EventSource<'a> {
    /// A mapping that has delivered nothing yet.
    ///
    /// # Errors
    /// Returns an error if Lambda would reject the mapping.
    pub fn new(aws: &'a LocalAws, mapping: Mapping, environments: Environments) -> Result<Self, MappingError> {
        mapping.check()?;
        let lineage = Mutex::new(Lineage::new(mapping.starting_position));
        let (kind, mapping) = (mapping.kind()?, Arc::new(mapping));
        Ok(Self { aws, mapping, kind, environments, clock: Clock::default(), lineage })
    }

    /// Replaces the clock.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Delivers until it is asked to finish, everything is read, and all of it is processed or discarded.
    ///
    /// # Errors
    /// Returns an error if a part fails. Failed invocations are not errors.
    pub async fn run(&self, progress: &Progress) -> SystemResult<Delivered> {
        let delivered = Run::new(self, progress).to_the_end().await?;
        Ok(Delivered { log: self.environments.end()?, ..delivered })
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
