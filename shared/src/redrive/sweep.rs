//! One way through a queue: messages are held, judged, their records written, and only then are they deleted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::message::{Kept, Letter, OnFailure, ReadBack};
use super::payload::records_of;
use super::tally::Tally;
use super::{Criteria, Redrive, RedriveError, Task};
use crate::ingest::{IngestError, now};
use crate::queue::{Held, Queue, QueueError};
use crate::record::Batch;

/// A batch is written when it holds so many records, or so many bytes.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// SQS hands out at most 120,000 messages of a queue at once:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const HELD_MAX: usize = 100_000;

/// A message is held for the time of the piece and for the batch at its end, which is never given longer than the piece
/// itself, nor longer than this. Were it held much longer, a crash would keep it out of everybody's sight.
const LAST_BATCH_MAX: Duration = Duration::from_secs(60);
const LAST_BATCH_MIN: Duration = Duration::from_secs(1);

/// A message that is asked for.
struct Taken {
    held: Held,
    /// As what it is counted.
    label: String,
}

/// A message whose records wait to be written with others.
struct Waiting {
    taken: Taken,
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

/// A sweep of one queue. Whatever is held and not deleted is in one of its lists, so that it can be let go.
pub struct Sweep<'s, 'r> {
    redrive: &'s mut Redrive<'r>,
    queue: Queue,
    task: &'s Task,
    criteria: &'s Criteria<'s>,
    tally: &'s mut Tally,
    last_batch: Duration,
    /// Not looked at yet.
    received: VecDeque<Held>,
    /// By source.
    waiting: BTreeMap<usize, Vec<Waiting>>,
    kept: Vec<Held>,
    /// The ids of all these: a message that is held for too long comes again.
    met: HashSet<String>,
}

impl<'s, 'r> Sweep<'s, 'r> {
    /// A sweep that has not begun.
    pub fn new(
        redrive: &'s mut Redrive<'r>,
        queue: Queue,
        task: &'s Task,
        criteria: &'s Criteria<'s>,
        tally: &'s mut Tally,
    ) -> Self {
        let piece = redrive.until.saturating_duration_since(Instant::now());
        let last_batch = piece.clamp(LAST_BATCH_MIN, LAST_BATCH_MAX);
        let (received, waiting) = (VecDeque::new(), BTreeMap::new());
        let (kept, met) = (Vec::new(), HashSet::new());
        Self { redrive, queue, task, criteria, tally, last_batch, received, waiting, kept, met }
    }

    /// Whether the queue has been swept to its end, or as far as was asked for. However little time there is, it goes on
    /// until something has been redriven: else the next piece would end where this one does.
    ///
    /// # Errors
    /// Whatever keeps the sweep from going on.
    pub async fn run(&mut self) -> Result<bool, RedriveError> {
        let mut swept = self.is_enough();
        while !swept {
            if self.time_left().is_zero() {
                self.write_waiting().await?;
                if self.tally.has_redriven() {
                    break;
                }
            }
            swept = !self.round().await? || self.is_enough();
        }
        self.write_waiting().await?;
        Ok(swept)
    }

    /// Lets go of what stays on the queue.
    ///
    /// # Errors
    /// SQS's.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten().map(|waiting| waiting.taken.held);
        let held: Vec<Held> = self.kept.drain(..).chain(self.received.drain(..)).chain(waiting).collect();
        self.queue.release(&held).await
    }

    fn time_left(&self) -> Duration {
        self.redrive.until.saturating_duration_since(Instant::now())
    }

    fn is_enough(&self) -> bool {
        self.task.limit.is_some_and(|limit| self.tally.selected_messages() >= limit)
    }

    /// Takes up some messages; whether there were any that may be followed by others.
    async fn round(&mut self) -> Result<bool, RedriveError> {
        let messages = self.queue.receive(self.time_left() + self.last_batch).await?;
        // Beyond its time a sweep may meet again what it has kept: then it has been round.
        let any = !messages.is_empty() && !self.time_left().is_zero();
        for held in messages {
            if self.met.insert(held.id.clone()) {
                self.received.push_back(held);
            }
        }
        let any = any || !self.received.is_empty();
        while let Some(held) = self.received.pop_front() {
            self.message(held).await?;
        }
        if self.kept.len() >= HELD_MAX {
            self.write_waiting().await?;
            return Err(RedriveError::TooManyKept(self.queue.url().to_owned()));
        }
        Ok(any)
    }

    async fn message(&mut self, held: Held) -> Result<(), RedriveError> {
        let (letter, source, label) = match self.judge(&held.body) {
            Ok(judged) => judged,
            Err(kept) => {
                self.keep(held, &kept);
                return Ok(());
            }
        };
        self.tally.selected(&label);
        let taken = Taken { held, label };
        match letter {
            _ if self.task.dry_run => self.conclude(vec![taken], Err(Kept::DryRun.into())).await,
            Letter::Ours(letter) => match records_of(&letter, &self.redrive.archive, &self.redrive.streams).await {
                Ok(batch) => self.wait(source, Waiting { taken, batch }).await,
                Err(kept) => self.conclude(vec![taken], Err(kept.into())).await,
            },
            Letter::OfLambda(OnFailure { read_back: Some(ReadBack { lost, .. }), .. }) => {
                self.conclude(vec![taken], Err(Kept::Gone(lost).into())).await
            }
            Letter::OfLambda(letter) => match self.read_back(&letter, source).await {
                Err(Obstacle::Keep(Kept::Gone(lost))) => self.note(taken, lost).await,
                outcome => self.conclude(vec![taken], outcome).await,
            },
        }
    }

    /// Whether a message is asked for; then what it is, whose, and as what it is counted.
    fn judge(&self, body: &str) -> Result<(Letter, usize, String), Kept> {
        let letter = Letter::read(body)?;
        let source = self.source_of(&letter).ok_or_else(|| Kept::UnknownSource(letter.origin()))?;
        let name = self.redrive.ingest.source_name(source);
        if self.is_enough() {
            return Err(Kept::NotSelected);
        }
        self.criteria.select(&letter, name)?;
        let label = format!("{name} {} {}", letter.table().unwrap_or("-"), letter.reason());
        Ok((letter, source, label))
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
        self.tally.kept(kept);
        self.kept.push(held);
    }

    /// A message is done with, or stays.
    async fn conclude(&mut self, taken: Vec<Taken>, outcome: Result<(), Obstacle>) -> Result<(), RedriveError> {
        match outcome {
            Ok(()) => self.delete(taken).await,
            Err(Obstacle::Keep(kept)) => {
                for Taken { held, label } in taken {
                    self.tally.given_back(&label);
                    self.keep(held, &kept);
                }
                Ok(())
            }
            Err(Obstacle::Fail(error)) => {
                self.kept.extend(taken.into_iter().map(|taken| taken.held));
                Err(error)
            }
        }
    }

    /// What there was of a batch is written. Another message takes the place of this one, that says so: else every run would
    /// write it again, and send what is refused of it as new letters.
    async fn note(&mut self, taken: Taken, lost: String) -> Result<(), RedriveError> {
        let read_back = ReadBack { lost: lost.clone(), at: now().to_string() };
        let noted = read_back.noted_in(&taken.held.body);
        self.conclude(vec![taken], Err(Kept::Gone(lost).into())).await?;
        // What is no object, as Lambda's messages are, stays as it is.
        let Ok(noted) = noted else { return Ok(()) };
        self.queue.send(vec![noted]).await?;
        if let Some(held) = self.kept.last() {
            self.queue.delete(std::slice::from_ref(held)).await?;
            self.kept.pop();
        }
        Ok(())
    }

    async fn delete(&mut self, written: Vec<Taken>) -> Result<(), RedriveError> {
        let held: Vec<Held> = written.into_iter().map(|taken| taken.held).collect();
        if let Err(error) = self.queue.delete(&held).await {
            self.kept.extend(held);
            return Err(error.into());
        }
        for message in &held {
            self.met.remove(&message.id);
        }
        self.tally.redriven(held.len() as u64);
        (self.redrive.watch)(&self.tally.progress);
        Ok(())
    }

    /// Lambda's own message names a range of a shard: its records are read back and written, a page at a time.
    async fn read_back(&mut self, letter: &OnFailure, source: usize) -> Result<(), Obstacle> {
        let mut pages = self.redrive.streams.range(&letter.stream, &letter.shard, &letter.first, &letter.last).await?;
        while let Some(mut batch) = pages.next().await? {
            batch.records.iter_mut().for_each(|record| record.attempts = 1);
            self.apply(source, &batch).await?;
        }
        pages.lost(letter.records).map_or(Ok(()), |lost| Err(Kept::Gone(lost).into()))
    }

    async fn wait(&mut self, source: usize, message: Waiting) -> Result<(), RedriveError> {
        let waiting = self.waiting.entry(source).or_default();
        waiting.push(message);
        if !is_full(waiting) {
            return Ok(());
        }
        let full = std::mem::take(waiting);
        self.write(source, full).await
    }

    async fn write_waiting(&mut self) -> Result<(), RedriveError> {
        while let Some((source, waiting)) = self.waiting.pop_first() {
            self.write(source, waiting).await?;
        }
        Ok(())
    }

    /// Writes messages of a source together; where some of them keep all from being written, in halves, until those are
    /// alone.
    async fn write(&mut self, source: usize, waiting: Vec<Waiting>) -> Result<(), RedriveError> {
        let mut parts = vec![waiting];
        while let Some(mut part) = parts.pop() {
            let outcome = self.apply(source, &together(&part)).await.map_err(Obstacle::from);
            if part.len() > 1 && matches!(outcome, Err(Obstacle::Keep(_))) {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
                continue;
            }
            let taken = part.into_iter().map(|waiting| waiting.taken).collect();
            if let Err(error) = self.conclude(taken, outcome).await {
                self.kept.extend(parts.into_iter().flatten().map(|waiting| waiting.taken.held));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn apply(&mut self, source: usize, batch: &Batch) -> Result<(), IngestError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        // A batch that has begun is brought to its end.
        let time_left = self.time_left().max(Duration::from_secs(30));
        let report = self.redrive.ingest.redriven(source, batch, time_left).await?;
        self.tally.progress.records += report.counts;
        Ok(())
    }
}

fn together(waiting: &[Waiting]) -> Batch {
    let mut whole = Batch::default();
    waiting.iter().for_each(|waiting| whole.append(&waiting.batch));
    whole
}

fn is_full(waiting: &[Waiting]) -> bool {
    let bytes: usize = waiting.iter().map(|waiting| waiting.batch.bytes.len()).sum();
    waiting.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES
}
