//! Turns the rejected records of a batch into dead letters, and logs them.
//!
//! A record of Lambda's event may hold any number of documents, and hence of rejections. Beyond a limit they share one dead
//! letter: the number of messages and of log lines is bounded by the event, not by what its records unpack to.

use std::collections::{BTreeMap, HashMap};

use super::{IngestError, OutcomeReporter};
use crate::dead_letter::{DeadLetter, DeadLetterError, PendingDeadLetter, PendingDocuments, StorableRecord};
use crate::decode::Decoder;
use crate::record::{Batch, Record};
use crate::rejection::Rejection;

/// So many rejected documents of one record have a dead letter each.
const DOCUMENTS_MAX: usize = 100;

/// So many rejections of a batch: Lambda delivers at most 10,000 records at once. Beyond that, each record has one dead letter.
const REJECTIONS_MAX: usize = 10_000;

/// So many dead letters of an invocation are logged; the others are counted.
const LINES_MAX: usize = 100;

/// The dead letters of a batch.
#[derive(Default)]
struct BatchLetters {
    pending: Vec<PendingDeadLetter>,
}

impl OutcomeReporter {
    /// Stores a dead letter for each rejected record, or for several documents of one.
    pub(super) async fn store(
        &self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        rejections: &BTreeMap<usize, Rejection>,
    ) -> Result<(), IngestError> {
        let documents_max = if rejections.len() > REJECTIONS_MAX { 1 } else { DOCUMENTS_MAX };
        let mut letters = BatchLetters::default();
        for indexes in by_position(batch, rejections) {
            if indexes.len() > documents_max {
                letters.add_shared(source, decoder, batch, &indexes, rejections)
            } else {
                letters.add_each(source, decoder, batch, &indexes, rejections)
            }
            .map_err(DeadLetterError::from)?;
        }
        letters.log(source, rejections);
        Ok(self.dead_letters.store(letters.pending).await?)
    }
}

impl BatchLetters {
    fn add_each(
        &mut self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        indexes: &[usize],
        rejections: &BTreeMap<usize, Rejection>,
    ) -> std::io::Result<()> {
        for index in indexes {
            let (record, rejection) = (&batch.records[*index], &rejections[index]);
            let stored = storable_record(decoder, batch, record);
            self.pending.push(PendingDeadLetter::new(source, record, stored, rejection)?);
        }
        Ok(())
    }

    /// One dead letter for all documents of a record; another one for those whose payload must be withheld.
    fn add_shared(
        &mut self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        indexes: &[usize],
        rejections: &BTreeMap<usize, Rejection>,
    ) -> std::io::Result<()> {
        let (mut with_payload, mut withheld): (Option<PendingDocuments>, Option<PendingDocuments>) = (None, None);
        for index in indexes {
            let (record, rejection) = (&batch.records[*index], &rejections[index]);
            let stored = storable_record(decoder, batch, record);
            let documents = if stored.payload.is_some() { &mut with_payload } else { &mut withheld };
            documents
                .get_or_insert_with(|| PendingDocuments::new(source, record, &stored, rejection))
                .push(record, &stored, rejection)?;
        }
        for documents in [with_payload, withheld].into_iter().flatten() {
            self.pending.push(documents.finish()?);
        }
        Ok(())
    }

    /// Writes a WARN line for each of the first dead letters, and one for all if there are more.
    fn log(&self, source: &str, rejections: &BTreeMap<usize, Rejection>) {
        for DeadLetter { position, error, documents, .. } in
            self.pending.iter().take(LINES_MAX).map(PendingDeadLetter::letter)
        {
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
        if self.pending.len() > LINES_MAX {
            let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
            for rejection in rejections.values() {
                *reasons.entry(rejection.reason.class()).or_default() += 1;
            }
            let (dead_letters, records) = (self.pending.len(), rejections.len());
            tracing::warn!(source, dead_letters, logged = LINES_MAX, records, ?reasons, "more dead letters");
        }
    }
}

/// What may be stored of a record.
fn storable_record(decoder: &mut Decoder, batch: &Batch, record: &Record) -> StorableRecord {
    let original = batch.payload(record);
    StorableRecord {
        payload: decoder.redact(record, original),
        partition_key: decoder.partition_key(record).into_owned(),
        digest: decoder.digest(record, original),
    }
}

/// The indexes of the rejected records that come from the same record of the stream, in the order of the batch.
fn by_position(batch: &Batch, rejections: &BTreeMap<usize, Rejection>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of: HashMap<(&str, &str, &str), usize> = HashMap::new();
    for index in rejections.keys() {
        let Record { position, .. } = &batch.records[*index];
        let key = (&*position.stream, &*position.shard, &*position.sequence_number.0);
        let group = *group_of.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(*index);
    }
    groups
}
