//! One way through a queue: messages are held, judged, their records written, and only then are they deleted.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::message::{self, Kept, Letter, OnFailure};
use super::queue::{Held, Queue, QueueError};
use super::{Criteria, Progress, Redrive, RedriveError, Task};
use crate::dead_letter::{DeadLetter, Payload};
use crate::ingest::IngestError;
use crate::record::{Batch, Envelope, unpack};

/// A batch is written when it holds so many records, or so many bytes.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// SQS hands out at most 120,000 messages of a queue at once:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const HELD_MAX: usize = 100_000;

/// A message whose records wait to be written with others.
struct Waiting {
    held: Held,
    batch: Batch,
}

/// Why a message is not done with.
enum Obstacle {
    /// It stays on the queue, and the sweep goes on.
    Keep(Kept),
    /// The sweep cannot go on.
    Fail(RedriveError),
}

impl From<Kept> for Obstacle {
    fn from(kept: Kept) -> Self {
        Self::Keep(kept)
    }
}

impl From<IngestError> for Obstacle {
    fn from(error: IngestError) -> Self {
        // Other records may fare better: what waits for a person, or for another shard, concerns these.
        if error.needs_a_person() || matches!(error, IngestError::NotKnownYet(_)) {
            Self::Keep(Kept::Failed(error.to_string()))
        } else {
            Self::Fail(error.into())
        }
    }
}

/// What a message's records need.
enum Taken {
    /// To be written with others of their source.
    Waits(usize, Batch),
    /// Nothing any more.
    Written,
}

/// A sweep of one queue.
pub struct Sweep<'s, 'r> {
    redrive: &'s mut Redrive<'r>,
    queue: Queue,
    task: &'s Task,
    criteria: &'s Criteria<'s>,
    progress: &'s mut Progress,
    /// By source.
    waiting: BTreeMap<usize, Vec<Waiting>>,
    kept: Vec<Held>,
    /// The ids of the messages met: one that is held for too long comes again.
    met: HashSet<String>,
}

impl<'s, 'r> Sweep<'s, 'r> {
    /// A sweep that has not begun.
    pub fn new(
        redrive: &'s mut Redrive<'r>,
        queue: Queue,
        task: &'s Task,
        criteria: &'s Criteria<'s>,
        progress: &'s mut Progress,
    ) -> Self {
        let (waiting, kept, met) = (BTreeMap::new(), Vec::new(), HashSet::new());
        Self { redrive, queue, task, criteria, progress, waiting, kept, met }
    }

    /// Whether the queue has been swept to its end, or as far as was asked for.
    ///
    /// # Errors
    /// Whatever keeps the sweep from going on.
    pub async fn run(&mut self) -> Result<bool, RedriveError> {
        while !self.is_enough() {
            if self.time_left().is_zero() {
                self.write_waiting().await?;
                return Ok(false);
            }
            let messages = self.queue.receive(self.time_left()).await?;
            if messages.is_empty() {
                break;
            }
            for held in messages {
                if self.met.insert(held.id.clone()) {
                    self.message(held).await?;
                }
            }
            if self.kept.len() >= HELD_MAX {
                return Err(RedriveError::TooManyKept(self.queue.url().to_owned()));
            }
            if self.waiting.values().any(|waiting| is_full(waiting)) {
                self.write_waiting().await?;
            }
        }
        self.write_waiting().await?;
        Ok(true)
    }

    /// Lets go of what stays on the queue.
    ///
    /// # Errors
    /// SQS's.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten().map(|waiting| waiting.held);
        let held: Vec<Held> = self.kept.drain(..).chain(waiting).collect();
        self.queue.release(&held).await
    }

    fn time_left(&self) -> Duration {
        self.redrive.until.saturating_duration_since(Instant::now())
    }

    fn is_enough(&self) -> bool {
        let selected: u64 = self.progress.selected.values().sum();
        self.task.limit.is_some_and(|limit| selected >= limit)
    }

    async fn message(&mut self, held: Held) -> Result<(), RedriveError> {
        match self.take(&held.body).await {
            Ok(Taken::Waits(source, batch)) => self.waiting.entry(source).or_default().push(Waiting { held, batch }),
            Ok(Taken::Written) => self.delete(&[held]).await?,
            Err(Obstacle::Keep(kept)) => self.keep(held, &kept),
            Err(Obstacle::Fail(error)) => {
                self.kept.push(held);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take(&mut self, body: &str) -> Result<Taken, Obstacle> {
        let letter = Letter::read(body)?;
        let source = self.source_of(&letter).ok_or(Kept::UnknownSource)?;
        let name = self.redrive.ingest.source_name(source).to_owned();
        if self.is_enough() {
            return Err(Kept::NotSelected.into());
        }
        self.criteria.select(&letter, &name)?;
        let told = format!("{name} {} {}", letter.table().unwrap_or("-"), letter.reason());
        *self.progress.selected.entry(told).or_default() += 1;
        if self.task.dry_run {
            return Err(Kept::DryRun.into());
        }
        match letter {
            Letter::Ours(letter) => Ok(Taken::Waits(source, self.records_of(&letter).await?)),
            Letter::OfLambda(letter) => self.read_back(&letter, source).await,
        }
    }

    /// By its name, or, where the configuration has changed since, by its stream.
    fn source_of(&self, letter: &Letter) -> Option<usize> {
        let ingest = &self.redrive.ingest;
        let named = letter.source().and_then(|name| ingest.source_called(name));
        named.or_else(|| ingest.source_reading(letter.stream()))
    }

    fn keep(&mut self, held: Held, kept: &Kept) {
        if let Some(detail) = kept.detail() {
            tracing::warn!(message = held.id, kept = kept.class(), detail, "dead letter kept");
        }
        *self.progress.kept.entry(kept.class().to_owned()).or_default() += 1;
        self.kept.push(held);
    }

    async fn records_of(&self, letter: &DeadLetter) -> Result<Batch, Kept> {
        let mut batch = match &letter.payload {
            Payload::Base64(text) => message::records(letter, message::decode(text)?)?,
            Payload::S3(address) => {
                let payload = self.redrive.archive.read(address).await;
                message::records(letter, payload.map_err(|error| Kept::Unavailable(error.to_string()))?)?
            }
            Payload::Withheld { .. } => self.withheld(letter).await?,
        };
        batch.records.iter_mut().for_each(|record| record.attempts = letter.attempts);
        Ok(batch)
    }

    /// What a letter does not hold is still in the stream, for as long as that keeps it.
    async fn withheld(&self, letter: &DeadLetter) -> Result<Batch, Kept> {
        let place = &letter.place;
        let elements = self.redrive.streams.record(&place.stream, &place.shard, &place.sequence_number).await?;
        let mut batch = unpack(&Envelope(elements));
        batch.records.retain(|record| record.place.sub_sequence == place.sub_sequence_number);
        if batch.records.is_empty() { Err(Kept::Gone("the record".to_owned())) } else { Ok(batch) }
    }

    /// Lambda's own message names a range of a shard: its records are read back and written, a page at a time.
    async fn read_back(&mut self, letter: &OnFailure, source: usize) -> Result<Taken, Obstacle> {
        let OnFailure { stream, shard, first, last, records, .. } = letter;
        let mut pages = self.redrive.streams.range(stream, shard, first, last).await?;
        let mut found = 0;
        while let Some(page) = pages.next().await? {
            found += page.len() as u64;
            let mut batch = unpack(&Envelope(page));
            batch.records.iter_mut().for_each(|record| record.attempts = 1);
            self.write(source, &batch).await?;
        }
        if found < *records {
            return Err(Kept::Gone(format!("{} of {records} records", records - found)).into());
        }
        Ok(Taken::Written)
    }

    /// Writes what waits, a source at a time.
    async fn write_waiting(&mut self) -> Result<(), RedriveError> {
        while let Some((source, waiting)) = self.waiting.pop_first() {
            let mut whole = Batch::default();
            waiting.iter().for_each(|waiting| whole.append(&waiting.batch));
            match self.write(source, &whole).await.map_err(Obstacle::from) {
                Ok(()) => {
                    let written: Vec<Held> = waiting.into_iter().map(|waiting| waiting.held).collect();
                    self.delete(&written).await?;
                }
                Err(Obstacle::Keep(_)) => self.write_apart(source, waiting).await?,
                Err(Obstacle::Fail(error)) => {
                    self.waiting.insert(source, waiting);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One message after the other: what fails for its own records' sake stays on the queue.
    async fn write_apart(&mut self, source: usize, waiting: Vec<Waiting>) -> Result<(), RedriveError> {
        let mut rest = waiting.into_iter();
        while let Some(Waiting { held, batch }) = rest.next() {
            match self.write(source, &batch).await.map_err(Obstacle::from) {
                Ok(()) => self.delete(&[held]).await?,
                Err(Obstacle::Keep(kept)) => self.keep(held, &kept),
                Err(Obstacle::Fail(error)) => {
                    self.kept.push(held);
                    self.waiting.insert(source, rest.collect());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, source: usize, batch: &Batch) -> Result<(), IngestError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        // A batch that has begun is brought to its end.
        let time_left = self.time_left().max(Duration::from_secs(30));
        let report = self.redrive.ingest.redriven(source, batch, time_left).await?;
        self.progress.records += report.counts;
        Ok(())
    }

    async fn delete(&mut self, written: &[Held]) -> Result<(), RedriveError> {
        self.queue.delete(written).await?;
        self.progress.redriven += written.len() as u64;
        (self.redrive.watch)(self.progress);
        Ok(())
    }
}

fn is_full(waiting: &[Waiting]) -> bool {
    let bytes: usize = waiting.iter().map(|waiting| waiting.batch.bytes.len()).sum();
    waiting.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES
}
