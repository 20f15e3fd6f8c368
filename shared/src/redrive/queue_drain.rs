//! One way through a queue: messages are held, judged, their records written, and only then are they deleted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::message::{KeepReason, OnFailure, QueueMessage, ReadBack};
use super::payload::message_records;
use super::run_tally::RunTally;
use super::{MessageFilter, Redrive, RedriveError, RedriveTask};
use crate::clock::now;
use crate::ingest::IngestError;
use crate::queue::{LeasedMessage, Queue, QueueError};
use crate::record::Batch;

/// A batch is written when it holds so many records, or so many bytes.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// SQS hands out at most 120,000 messages of a queue at once:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const LEASED_MAX: usize = 100_000;

/// A message is held for the time of the piece and for the batch at its end, which is never given longer than the piece
/// itself, nor longer than this. Were it held much longer, a crash would keep it out of everybody's sight.
const LAST_BATCH_MAX: Duration = Duration::from_secs(60);
const LAST_BATCH_MIN: Duration = Duration::from_secs(1);

/// A message that is asked for.
struct SelectedMessage {
    held: LeasedMessage,
    /// As what it is counted.
    label: String,
}

/// A message whose records wait to be written with others.
struct PendingMessage {
    selected: SelectedMessage,
    batch: Batch,
}

/// Why a message is not done with.
enum MessageError {
    /// It stays on the queue, and the sweep goes on.
    Keep(KeepReason),
    /// The sweep cannot go on.
    Abort(RedriveError),
}

impl From<KeepReason> for MessageError {
    fn from(kept: KeepReason) -> Self {
        Self::Keep(kept)
    }
}

impl From<IngestError> for MessageError {
    fn from(error: IngestError) -> Self {
        // Other records may fare better: what waits for a person, or for another shard, concerns these.
        if error.needs_operator() || matches!(error, IngestError::KeyNotKnownYet(_)) {
            Self::Keep(KeepReason::Failed(error.to_string()))
        } else {
            Self::Abort(error.into())
        }
    }
}

/// A sweep of one queue. Whatever is held and not deleted is in one of its lists, so that it can be let go.
pub struct QueueDrain<'s, 'r> {
    redrive: &'s mut Redrive<'r>,
    queue: Queue,
    task: &'s RedriveTask,
    criteria: &'s MessageFilter<'s>,
    tally: &'s mut RunTally,
    last_batch: Duration,
    /// Not looked at yet.
    received: VecDeque<LeasedMessage>,
    /// By source.
    pending: BTreeMap<usize, Vec<PendingMessage>>,
    kept: Vec<LeasedMessage>,
    /// The ids of all these: a message that is held for too long comes again.
    seen_ids: HashSet<String>,
}

impl<'s, 'r> QueueDrain<'s, 'r> {
    /// A sweep that has not begun.
    pub fn new(
        redrive: &'s mut Redrive<'r>,
        queue: Queue,
        task: &'s RedriveTask,
        criteria: &'s MessageFilter<'s>,
        tally: &'s mut RunTally,
    ) -> Self {
        let piece = redrive.until.saturating_duration_since(Instant::now());
        let last_batch = piece.clamp(LAST_BATCH_MIN, LAST_BATCH_MAX);
        let (received, pending) = (VecDeque::new(), BTreeMap::new());
        let (kept, seen_ids) = (Vec::new(), HashSet::new());
        Self { redrive, queue, task, criteria, tally, last_batch, received, pending, kept, seen_ids }
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
                self.write_pending().await?;
                if self.tally.has_redriven() {
                    break;
                }
            }
            swept = !self.receive_and_process().await? || self.is_enough();
        }
        self.write_pending().await?;
        Ok(swept)
    }

    /// Lets go of what stays on the queue.
    ///
    /// # Errors
    /// SQS's.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        let waiting = std::mem::take(&mut self.pending).into_values().flatten().map(|waiting| waiting.selected.held);
        let held: Vec<LeasedMessage> = self.kept.drain(..).chain(self.received.drain(..)).chain(waiting).collect();
        self.queue.release(&held).await
    }

    fn time_left(&self) -> Duration {
        self.redrive.until.saturating_duration_since(Instant::now())
    }

    fn is_enough(&self) -> bool {
        self.task.limit.is_some_and(|limit| self.tally.selected_messages() >= limit)
    }

    /// Takes up some messages; whether there were any that may be followed by others.
    async fn receive_and_process(&mut self) -> Result<bool, RedriveError> {
        let messages = self.queue.receive(self.time_left() + self.last_batch).await?;
        // Beyond its time a sweep may meet again what it has kept: then it has been round.
        let any = !messages.is_empty() && !self.time_left().is_zero();
        for held in messages {
            if self.seen_ids.insert(held.id.clone()) {
                self.received.push_back(held);
            }
        }
        let any = any || !self.received.is_empty();
        while let Some(held) = self.received.pop_front() {
            self.message(held).await?;
        }
        if self.kept.len() >= LEASED_MAX {
            self.write_pending().await?;
            return Err(RedriveError::TooManySkipped(self.queue.url().to_owned()));
        }
        Ok(any)
    }

    async fn message(&mut self, held: LeasedMessage) -> Result<(), RedriveError> {
        let (letter, source, label) = match self.select_message(&held.body) {
            Ok(judged) => judged,
            Err(kept) => {
                self.keep(held, &kept);
                return Ok(());
            }
        };
        self.tally.selected(&label);
        let taken = SelectedMessage { held, label };
        match letter {
            _ if self.task.dry_run => self.finish_messages(vec![taken], Err(KeepReason::DryRun.into())).await,
            QueueMessage::DeadLetter(letter) => {
                match message_records(&letter, &self.redrive.archive, &self.redrive.streams).await {
                    Ok(batch) => self.add_pending(source, PendingMessage { selected: taken, batch }).await,
                    Err(kept) => self.finish_messages(vec![taken], Err(kept.into())).await,
                }
            }
            QueueMessage::OnFailure(OnFailure { read_back: Some(ReadBack { missing: lost, .. }), .. }) => {
                self.finish_messages(vec![taken], Err(KeepReason::NoLongerInStream(lost).into())).await
            }
            QueueMessage::OnFailure(letter) => match self.read_back(&letter, source).await {
                Err(MessageError::Keep(KeepReason::NoLongerInStream(lost))) => {
                    self.replace_with_annotated(taken, lost).await
                }
                outcome => self.finish_messages(vec![taken], outcome).await,
            },
        }
    }

    /// Whether a message is asked for; then what it is, whose, and as what it is counted.
    fn select_message(&self, body: &str) -> Result<(QueueMessage, usize, String), KeepReason> {
        let letter = QueueMessage::read(body)?;
        let source = self.source_for(&letter).ok_or_else(|| KeepReason::UnknownSource(letter.origin()))?;
        let name = self.redrive.ingest.source_name(source);
        if self.is_enough() {
            return Err(KeepReason::NotSelected);
        }
        self.criteria.select(&letter, name)?;
        let label = format!("{name} {} {}", letter.table().unwrap_or("-"), letter.reason());
        Ok((letter, source, label))
    }

    /// By its name, or, where the configuration has changed since, by its stream.
    fn source_for(&self, letter: &QueueMessage) -> Option<usize> {
        let ingest = &self.redrive.ingest;
        let named = letter.source().and_then(|name| ingest.source_by_name(name));
        named.or_else(|| ingest.source_by_stream(letter.stream()))
    }

    fn keep(&mut self, held: LeasedMessage, kept: &KeepReason) {
        if let Some(detail) = kept.detail() {
            tracing::warn!(message = held.id, kept = kept.class(), detail, "dead letter left on queue");
        }
        self.tally.kept(kept);
        self.kept.push(held);
    }

    /// A message is done with, or stays.
    async fn finish_messages(
        &mut self,
        taken: Vec<SelectedMessage>,
        outcome: Result<(), MessageError>,
    ) -> Result<(), RedriveError> {
        match outcome {
            Ok(()) => self.delete(taken).await,
            Err(MessageError::Keep(kept)) => {
                for SelectedMessage { held, label } in taken {
                    self.tally.returned(&label);
                    self.keep(held, &kept);
                }
                Ok(())
            }
            Err(MessageError::Abort(error)) => {
                self.kept.extend(taken.into_iter().map(|taken| taken.held));
                Err(error)
            }
        }
    }

    /// What there was of a batch is written. Another message takes the place of this one, that says so: else every run would
    /// write it again, and send what is refused of it as new letters.
    async fn replace_with_annotated(&mut self, taken: SelectedMessage, lost: String) -> Result<(), RedriveError> {
        let read_back = ReadBack { missing: lost.clone(), at: now().to_string() };
        let noted = read_back.annotate(&taken.held.body);
        self.finish_messages(vec![taken], Err(KeepReason::NoLongerInStream(lost).into())).await?;
        // What is no object, as Lambda's messages are, stays as it is.
        let Ok(noted) = noted else { return Ok(()) };
        self.queue.send(vec![noted]).await?;
        if let Some(held) = self.kept.last() {
            self.queue.delete(std::slice::from_ref(held)).await?;
            self.kept.pop();
        }
        Ok(())
    }

    async fn delete(&mut self, written: Vec<SelectedMessage>) -> Result<(), RedriveError> {
        let held: Vec<LeasedMessage> = written.into_iter().map(|taken| taken.held).collect();
        if let Err(error) = self.queue.delete(&held).await {
            self.kept.extend(held);
            return Err(error.into());
        }
        for message in &held {
            self.seen_ids.remove(&message.id);
        }
        self.tally.redriven(held.len() as u64);
        (self.redrive.watch)(&self.tally.progress);
        Ok(())
    }

    /// Lambda's own message names a range of a shard: its records are read back and written, a page at a time.
    async fn read_back(&mut self, letter: &OnFailure, source: usize) -> Result<(), MessageError> {
        let mut pages = self.redrive.streams.range(&letter.stream, &letter.shard, &letter.first, &letter.last).await?;
        while let Some(mut batch) = pages.next().await? {
            batch.records.iter_mut().for_each(|record| record.attempts = 1);
            self.apply(source, &batch).await?;
        }
        pages.missing_records(letter.records).map_or(Ok(()), |lost| Err(KeepReason::NoLongerInStream(lost).into()))
    }

    async fn add_pending(&mut self, source: usize, message: PendingMessage) -> Result<(), RedriveError> {
        let waiting = self.pending.entry(source).or_default();
        waiting.push(message);
        if !is_full(waiting) {
            return Ok(());
        }
        let full = std::mem::take(waiting);
        self.write(source, full).await
    }

    async fn write_pending(&mut self) -> Result<(), RedriveError> {
        while let Some((source, waiting)) = self.pending.pop_first() {
            self.write(source, waiting).await?;
        }
        Ok(())
    }

    /// Writes messages of a source together; where some of them keep all from being written, in halves, until those are
    /// alone.
    async fn write(&mut self, source: usize, waiting: Vec<PendingMessage>) -> Result<(), RedriveError> {
        let mut parts = vec![waiting];
        while let Some(mut part) = parts.pop() {
            let outcome = self.apply(source, &combine(&part)).await.map_err(MessageError::from);
            if part.len() > 1 && matches!(outcome, Err(MessageError::Keep(_))) {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
                continue;
            }
            let taken = part.into_iter().map(|waiting| waiting.selected).collect();
            if let Err(error) = self.finish_messages(taken, outcome).await {
                self.kept.extend(parts.into_iter().flatten().map(|waiting| waiting.selected.held));
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
        let report = self.redrive.ingest.redrive(source, batch, time_left).await?;
        self.tally.progress.records += report.counts;
        Ok(())
    }
}

fn combine(waiting: &[PendingMessage]) -> Batch {
    let mut whole = Batch::default();
    waiting.iter().for_each(|waiting| whole.append(&waiting.batch));
    whole
}

fn is_full(waiting: &[PendingMessage]) -> bool {
    let bytes: usize = waiting.iter().map(|waiting| waiting.batch.bytes.len()).sum();
    waiting.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES
}
