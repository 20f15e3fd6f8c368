//! Turns the rejected records of a batch into dead letters, and logs them.
//!
//! A record of Lambda's event may hold any number of documents, and hence of rejections. Beyond a limit they share one dead
//! letter: the number of messages and of log lines is bounded by the event, not by what its records unpack to. The batch is
//! read once more, in parts, and the dead letters of each part are stored before the next one is read.

use std::collections::HashMap;

use super::record_source::RecordSource;
use super::rejections::RejectionLog;
use super::{IngestError, OutcomeReporter};
use crate::dead_letter::{
    AcknowledgedLetters, DeadLetter, DeadLetterError, PendingDeadLetter, PendingDocuments, StorableRecord,
};
use crate::decode::Decoder;
use crate::record::{Batch, Record};
use crate::rejection::Rejection;

/// So many rejected documents of one record have a dead letter each.
const DOCUMENTS_MAX: usize = 100;

/// So many rejections of a batch: Lambda delivers at most 10,000 records at once. Beyond that, each record has one dead letter.
const REJECTIONS_MAX: u64 = 10_000;

/// So many dead letters of an invocation are logged; the others are counted.
const LINES_MAX: usize = 100;

/// The dead letters of a batch, or of a part of it.
struct BatchLetters<'l, 'b> {
    source: &'l str,
    decoder: &'l mut Decoder,
    batch: &'b Batch,
    pending: Vec<PendingDeadLetter>,
}

/// A rejected record, by its index in the batch.
type Rejected<'r> = (usize, &'r Rejection);

impl OutcomeReporter {
    /// Stores a dead letter for each rejected record, or for several documents of one. The documents of a record of the stream
    /// are in one part.
    pub(super) async fn store(
        &self,
        source: &str,
        decoder: &mut Decoder,
        incoming: &mut RecordSource<'_>,
        rejections: &RejectionLog,
    ) -> Result<(), IngestError> {
        if rejections.count() == 0 {
            return Ok(());
        }
        let (mut logged, mut count, mut acknowledged) = (0, 0, AcknowledgedLetters::default());
        let mut parts = incoming.parts()?;
        while parts.read_next()? {
            let (first, batch) = (parts.first(), parts.batch());
            let rejected = rejections.within(first..first + batch.records.len());
            let rejected = rejected.map(|(index, rejection)| (index - first, rejection)).collect();
            let pending = letters(source, decoder, batch, rejected, documents_max(rejections))?;
            log(source, &pending, &mut logged);
            count += pending.len();
            acknowledged.append(self.dead_letters.send(pending).await?);
        }
        log_total(source, count, rejections);
        self.dead_letters.forget(&acknowledged);
        Ok(())
    }
}

fn documents_max(rejections: &RejectionLog) -> usize {
    if rejections.count() > REJECTIONS_MAX { 1 } else { DOCUMENTS_MAX }
}

fn letters(
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    rejected: Vec<Rejected<'_>>,
    documents_max: usize,
) -> Result<Vec<PendingDeadLetter>, DeadLetterError> {
    let mut letters = BatchLetters { source, decoder, batch, pending: Vec::new() };
    for documents in by_position(batch, rejected) {
        if documents.len() > documents_max { letters.add_shared(&documents) } else { letters.add_each(&documents) }?;
    }
    Ok(letters.pending)
}

impl<'b> BatchLetters<'_, 'b> {
    fn add_each(&mut self, documents: &[Rejected<'_>]) -> std::io::Result<()> {
        for &(index, rejection) in documents {
            let (record, stored) = self.storable(index);
            let letter = PendingDeadLetter::new(self.source, record, stored, rejection)?;
            self.pending.push(letter);
        }
        Ok(())
    }

    /// One dead letter for all documents of a record; another one for those whose payload must be withheld.
    fn add_shared(&mut self, documents: &[Rejected<'_>]) -> std::io::Result<()> {
        let (mut with_payload, mut withheld): (Option<PendingDocuments>, Option<PendingDocuments>) = (None, None);
        for &(index, rejection) in documents {
            let (record, stored) = self.storable(index);
            let letter = if stored.payload.is_some() { &mut with_payload } else { &mut withheld };
            letter
                .get_or_insert_with(|| PendingDocuments::new(self.source, record, &stored, rejection))
                .push(record, &stored, rejection)?;
        }
        for documents in [with_payload, withheld].into_iter().flatten() {
            self.pending.push(documents.finish()?);
        }
        Ok(())
    }

    /// A record, and what may be stored of it.
    fn storable(&mut self, index: usize) -> (&'b Record, StorableRecord) {
        let record = &self.batch.records[index];
        let partition_key = self.decoder.partition_key(record).into_owned();
        let (payload, digest) = self.decoder.redact(record, self.batch.payload(record)).unzip();
        (record, StorableRecord { payload, partition_key, digest })
    }
}

/// Writes a WARN line for each dead letter, as long as `logged` allows it.
fn log(source: &str, pending: &[PendingDeadLetter], logged: &mut usize) {
    let letters = pending.iter().take(LINES_MAX - *logged).map(PendingDeadLetter::letter);
    for DeadLetter { position, error, documents, .. } in letters {
        *logged += 1;
        tracing::warn!(
            source,
            place = %position,
            class = error.class,
            table = error.table.as_deref(),
            sqlstate = error.sqlstate.as_deref(),
            error = error.message,
            documents = documents.as_ref().map(|documents| documents.count),
            "dead letter"
        );
    }
}

/// Writes a WARN line for all dead letters if not all have one of their own.
fn log_total(source: &str, dead_letters: usize, rejections: &RejectionLog) {
    if dead_letters > LINES_MAX {
        let (records, reasons) = (rejections.count(), rejections.classes());
        tracing::warn!(source, dead_letters, logged = LINES_MAX, records, ?reasons, "more dead letters");
    }
}

/// The rejected records grouped by the record of the stream that they come from, in the order of the batch.
fn by_position<'r>(batch: &Batch, rejected: Vec<Rejected<'r>>) -> Vec<Vec<Rejected<'r>>> {
    let mut groups: Vec<Vec<Rejected<'r>>> = Vec::new();
    let mut group_of: HashMap<(&str, &str, &str), usize> = HashMap::new();
    for (index, rejection) in rejected {
        let Record { position, .. } = &batch.records[index];
        let key = (&*position.stream, &*position.shard, &*position.sequence_number.0);
        let group = *group_of.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push((index, rejection));
    }
    groups
}
