//! Drains one queue: leases messages, selects them, writes their records, and only then deletes the messages.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use super::message::{KeepReason, OnFailure, QueueMessage, ReadBack};
use super::payload::message_records;
use super::run_tally::RunTally;
use super::{MessageFilter, Redrive, RedriveError, RedriveTask};
use crate::clock::now;
use crate::ingest::IngestError;
use crate::queue::{LeasedMessage, MessageText, Queue, QueueError};
use crate::record::Batch;
use crate::task::Deadline;

/// A batch is written when it reaches this many messages, records or bytes. A single message may hold more.
const BATCH_MESSAGES: usize = 1_000;
pub(super) const BATCH_RECORDS: usize = 20_000;
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// SQS allows at most 120,000 messages of a queue in flight:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const LEASED_MAX: usize = 100_000;

/// A message is leased for the remaining time of the call plus an allowance for the last batch. The allowance is at most the
/// time of the call, and at most this. With a much longer lease, a crash would hide the message from other consumers for long.
const LAST_BATCH_MAX: Duration = Duration::from_secs(60);
const LAST_BATCH_MIN: Duration = Duration::from_secs(1);

/// A selected message.
struct SelectedMessage {
    lease: LeasedMessage,
    /// The label under which it is counted.
    label: String,
}

/// A message whose records are waiting to be written together with others.
struct PendingMessage {
    selected: SelectedMessage,
    batch: Batch,
}

/// Why a message could not be redriven.
enum MessageError {
    /// It stays on the queue, and the drain continues.
    Keep(KeepReason),
    /// The drain cannot continue.
    Abort(RedriveError),
}

impl From<KeepReason> for MessageError {
    fn from(reason: KeepReason) -> Self {
        Self::Keep(reason)
    }
}

impl From<IngestError> for MessageError {
    fn from(error: IngestError) -> Self {
        // Without dead letters, nothing that is rejected again could be stored.
        let aborts = matches!(error, IngestError::DeadLetter(_));
        // An error that waits for an operator or for another shard concerns only these records; others may succeed.
        if !aborts && (error.needs_operator() || matches!(error, IngestError::KeyNotKnownYet(_))) {
            return Self::Keep(KeepReason::Failed(error.to_string()));
        }
        Self::Abort(error.into())
    }
}

/// Drains one queue. Every leased message that is not deleted is in one of the lists, so that it can be released.
pub struct QueueDrain<'s, 'r> {
    redrive: &'s mut Redrive<'r>,
    queue: Queue,
    task: &'s RedriveTask,
    filter: &'s MessageFilter<'s>,
    tally: &'s mut RunTally,
    last_batch: Duration,
    /// Received but not processed yet.
    received: VecDeque<LeasedMessage>,
    /// Messages to be written, by source.
    pending: BTreeMap<usize, Vec<PendingMessage>>,
    kept: Vec<LeasedMessage>,
    /// IDs of the messages in these lists: SQS delivers a message again when its lease expires.
    seen_ids: HashSet<String>,
}

impl<'s, 'r> QueueDrain<'s, 'r> {
    /// Creates a drain without starting it.
    pub fn new(
        redrive: &'s mut Redrive<'r>,
        queue: Queue,
        task: &'s RedriveTask,
        filter: &'s MessageFilter<'s>,
        tally: &'s mut RunTally,
    ) -> Self {
        let last_batch = redrive.call.deadline.time_left().clamp(LAST_BATCH_MIN, LAST_BATCH_MAX);
        let (received, pending) = (VecDeque::new(), BTreeMap::new());
        let (kept, seen_ids) = (Vec::new(), HashSet::new());
        Self { redrive, queue, task, filter, tally, last_batch, received, pending, kept, seen_ids }
    }

    /// Drains the queue; returns whether it reached the end of the queue or the message limit. Even past the deadline it
    /// continues until something has been redriven; otherwise the next call would stop at the same message.
    ///
    /// # Errors
    /// Fails if the drain cannot continue.
    pub async fn run(&mut self) -> Result<bool, RedriveError> {
        let mut drained = self.is_limit_reached();
        while !drained {
            if self.deadline().has_passed() {
                self.write_pending().await?;
                if self.tally.has_redriven() {
                    break;
                }
            }
            drained = !self.receive_and_process().await? || self.is_limit_reached();
        }
        self.write_pending().await?;
        Ok(drained)
    }

    /// Releases the messages that stay on the queue.
    ///
    /// # Errors
    /// Returns an error if the SQS request fails.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        let pending = std::mem::take(&mut self.pending).into_values().flatten().map(|message| message.selected.lease);
        let leases: Vec<LeasedMessage> = self.kept.drain(..).chain(self.received.drain(..)).chain(pending).collect();
        self.queue.release(&leases).await
    }

    fn deadline(&self) -> Deadline {
        self.redrive.call.deadline
    }

    fn is_limit_reached(&self) -> bool {
        self.task.limit.is_some_and(|limit| self.tally.selected_messages() >= limit)
    }

    /// Receives and processes some messages; returns whether more may follow.
    async fn receive_and_process(&mut self) -> Result<bool, RedriveError> {
        let messages = self.queue.receive(self.deadline().time_left() + self.last_batch).await?;
        // Past the deadline, leases of kept messages expire and SQS returns the same messages: the drain has come full circle.
        let may_continue = !messages.is_empty() && !self.deadline().has_passed();
        for lease in messages {
            if self.seen_ids.insert(lease.id.clone()) {
                self.received.push_back(lease);
            }
        }
        let may_continue = may_continue || !self.received.is_empty();
        while let Some(lease) = self.received.pop_front() {
            self.process_message(lease).await?;
        }
        if self.kept.len() >= LEASED_MAX {
            self.write_pending().await?;
            return Err(RedriveError::TooManySkipped(self.queue.url().to_owned()));
        }
        Ok(may_continue)
    }

    async fn process_message(&mut self, lease: LeasedMessage) -> Result<(), RedriveError> {
        let (message, source, label) = match self.select_message(&lease.body) {
            Ok(selected) => selected,
            Err(reason) => {
                self.keep(lease, &reason);
                return Ok(());
            }
        };
        self.tally.selected(&label);
        let selected = SelectedMessage { lease, label };
        match message {
            _ if self.task.dry_run => self.finish_messages(vec![selected], Err(KeepReason::DryRun.into())).await,
            QueueMessage::DeadLetter(dead_letter) => {
                match message_records(&dead_letter, &self.redrive.object_store, &self.redrive.streams).await {
                    Ok(batch) => self.add_pending(source, PendingMessage { selected, batch }).await,
                    Err(reason) => self.finish_messages(vec![selected], Err(reason.into())).await,
                }
            }
            QueueMessage::OnFailure(OnFailure { read_back: Some(ReadBack { missing, .. }), .. }) => {
                self.finish_messages(vec![selected], Err(KeepReason::NoLongerInStream(missing).into())).await
            }
            QueueMessage::OnFailure(batch) => match self.read_back(&batch, source).await {
                Err(MessageError::Keep(KeepReason::NoLongerInStream(missing))) => {
                    self.replace_with_annotated(selected, missing).await
                }
                outcome => self.finish_messages(vec![selected], outcome).await,
            },
        }
    }

    /// Selects a message; returns the parsed message, its source and its label.
    fn select_message(&self, body: &str) -> Result<(QueueMessage, usize, String), KeepReason> {
        let message = QueueMessage::read(body)?;
        let source = self.source_for(&message).ok_or_else(|| KeepReason::UnknownSource(message.origin()))?;
        let name = self.redrive.ingest.source_name(source);
        if self.is_limit_reached() {
            return Err(KeepReason::NotSelected);
        }
        self.filter.select(&message, name)?;
        let label = format!("{name} {} {}", message.table().unwrap_or("-"), message.reason());
        Ok((message, source, label))
    }

    /// Finds the source by name or, if the configuration has changed since, by stream.
    fn source_for(&self, message: &QueueMessage) -> Option<usize> {
        let ingest = &self.redrive.ingest;
        let named = message.source().and_then(|name| ingest.source_by_name(name));
        named.or_else(|| ingest.source_by_stream(message.stream()))
    }

    fn keep(&mut self, lease: LeasedMessage, reason: &KeepReason) {
        if let Some(detail) = reason.detail() {
            tracing::warn!(message = lease.id, kept = reason.class(), detail, "dead letter left on queue");
        }
        self.tally.kept(reason);
        self.kept.push(lease);
    }

    /// Deletes the messages or keeps them on the queue, depending on the outcome.
    async fn finish_messages(
        &mut self,
        selected: Vec<SelectedMessage>,
        outcome: Result<(), MessageError>,
    ) -> Result<(), RedriveError> {
        match outcome {
            Ok(()) => self.delete(selected).await,
            Err(MessageError::Keep(reason)) => {
                for SelectedMessage { lease, label } in selected {
                    self.tally.returned(&label);
                    self.keep(lease, &reason);
                }
                Ok(())
            }
            Err(MessageError::Abort(error)) => {
                self.kept.extend(selected.into_iter().map(|message| message.lease));
                Err(error)
            }
        }
    }

    /// The remaining records of the batch are written. Replaces the message by one that says so; otherwise every run would write
    /// them again and send rejected records as new dead letters.
    async fn replace_with_annotated(&mut self, selected: SelectedMessage, missing: String) -> Result<(), RedriveError> {
        let read_back = ReadBack { missing: missing.clone(), at: now().to_string() };
        let annotated = read_back.annotate(&selected.lease.body);
        self.finish_messages(vec![selected], Err(KeepReason::NoLongerInStream(missing).into())).await?;
        // On-failure records are JSON objects; any other message stays unchanged.
        let Ok(annotated) = annotated else { return Ok(()) };
        self.queue.send(&[MessageText::from_json(annotated)]).await?;
        if let Some(lease) = self.kept.last() {
            self.queue.delete(std::slice::from_ref(lease)).await?;
            self.kept.pop();
        }
        Ok(())
    }

    async fn delete(&mut self, messages: Vec<SelectedMessage>) -> Result<(), RedriveError> {
        let leases: Vec<LeasedMessage> = messages.into_iter().map(|message| message.lease).collect();
        if let Err(error) = self.queue.delete(&leases).await {
            self.kept.extend(leases);
            return Err(error.into());
        }
        for lease in &leases {
            self.seen_ids.remove(&lease.id);
        }
        self.tally.redriven(leases.len() as u64);
        self.redrive.call.report(&self.tally.progress);
        Ok(())
    }

    /// Reads back the shard range named by an on-failure record, and writes it page by page.
    async fn read_back(&mut self, batch: &OnFailure, source: usize) -> Result<(), MessageError> {
        let mut pages = self.redrive.streams.range(&batch.stream, &batch.shard, &batch.first, &batch.last).await?;
        while let Some(mut page) = pages.next().await? {
            page.records.iter_mut().for_each(|record| record.attempts = 1);
            self.apply(source, &page).await?;
        }
        pages.missing_records(batch.records).map_or(Ok(()), |missing| Err(KeepReason::NoLongerInStream(missing).into()))
    }

    /// Writes the pending messages if there are enough, and a message that is large enough by itself.
    async fn add_pending(&mut self, source: usize, message: PendingMessage) -> Result<(), RedriveError> {
        if is_full(std::slice::from_ref(&message)) {
            return self.write(source, vec![message]).await;
        }
        let pending = self.pending.entry(source).or_default();
        pending.push(message);
        if !is_full(pending) {
            return Ok(());
        }
        let full = std::mem::take(pending);
        self.write(source, full).await
    }

    async fn write_pending(&mut self) -> Result<(), RedriveError> {
        while let Some((source, pending)) = self.pending.pop_first() {
            self.write(source, pending).await?;
        }
        Ok(())
    }

    /// Writes messages of a source together. If some of them prevent the batch from being written, halves the batch until the
    /// failing messages are isolated.
    async fn write(&mut self, source: usize, pending: Vec<PendingMessage>) -> Result<(), RedriveError> {
        let mut parts = vec![pending];
        while let Some(mut part) = parts.pop() {
            let outcome = match &part[..] {
                // It may be large: no copy.
                [message] => self.apply(source, &message.batch).await,
                messages => self.apply(source, &combine(messages)).await,
            };
            let outcome = outcome.map_err(MessageError::from);
            if part.len() > 1 && matches!(outcome, Err(MessageError::Keep(_))) {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
                continue;
            }
            let selected = part.into_iter().map(|message| message.selected).collect();
            if let Err(error) = self.finish_messages(selected, outcome).await {
                self.kept.extend(parts.into_iter().flatten().map(|message| message.selected.lease));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn apply(&mut self, source: usize, batch: &Batch) -> Result<(), IngestError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let report = self.redrive.ingest.redrive(source, batch, self.deadline().unit_time()).await?;
        self.tally.progress.records += report.counts;
        Ok(())
    }
}

fn combine(messages: &[PendingMessage]) -> Batch {
    let mut combined = Batch::default();
    for message in messages {
        combined.append(&message.batch);
    }
    combined
}

fn is_full(messages: &[PendingMessage]) -> bool {
    let bytes: usize = messages.iter().map(|message| message.batch.bytes.len()).sum();
    let records: usize = messages.iter().map(|message| message.batch.records.len()).sum();
    messages.len() >= BATCH_MESSAGES || records >= BATCH_RECORDS || bytes >= BATCH_BYTES
}
