//! The records of a batch, unpacked as they are needed.
//!
//! An ordinary batch is unpacked into memory and stays there until it is reported. A batch whose records unpack to more is
//! read in parts, as often as needed: the same event yields the same records each time.

use crate::record::{Batch, EventError, EventReader};

/// An ordinary batch unpacks to at most this many records. Lambda delivers 10,000 records, which may hold several documents
/// each; at 150 bytes, they take 6 MB.
const BATCH_RECORDS_MAX: usize = 40_000;

/// An ordinary batch unpacks to at most this many bytes: twice as many as Lambda's event has.
const BATCH_BYTES_MAX: usize = 12 * 1024 * 1024;

/// A part is read until it has this many records or bytes: few, because the last record of the stream that is read may hold
/// many documents.
const PART_RECORDS: usize = 4_000;
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Where the records of a batch come from.
pub enum RecordSource<'b> {
    /// Lambda's event, unpacked on demand.
    Event(EventReader<'b>),
    /// Records that are unpacked already.
    Batch(&'b Batch),
}

impl<'b> RecordSource<'b> {
    /// Whether the records come from the source's stream.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// Unpacks at least this many records, or all.
    pub fn read_until(&mut self, records: usize) -> Result<&Batch, EventError> {
        if let Self::Event(event) = self {
            event.read_until(records)?;
        }
        Ok(self.batch())
    }

    /// Unpacks all records of an ordinary batch. Returns `false` if the batch is not an ordinary one: it is read in parts.
    pub fn read_all(&mut self) -> Result<bool, EventError> {
        match self {
            Self::Event(event) => event.read_within(BATCH_RECORDS_MAX, BATCH_BYTES_MAX),
            Self::Batch(_) => Ok(true),
        }
    }

    /// Whether the records unpacked so far are not more than those of an ordinary batch.
    pub fn is_ordinary(&self) -> bool {
        let batch = self.batch();
        batch.records.len() <= BATCH_RECORDS_MAX && batch.bytes.len() <= BATCH_BYTES_MAX
    }

    /// The records unpacked so far; while the batch is read in parts, those of the part.
    pub fn batch(&self) -> &Batch {
        match self {
            Self::Event(event) => event.batch(),
            Self::Batch(batch) => batch,
        }
    }

    /// The approximate number of records.
    pub fn estimated_total(&self) -> usize {
        match self {
            Self::Event(event) => event.estimated_total(),
            Self::Batch(batch) => batch.records.len(),
        }
    }

    /// Reads the batch in parts, from its first record.
    pub fn parts(&mut self) -> Result<Parts<'_, 'b>, EventError> {
        if let Self::Event(event) = self {
            event.rewind()?;
        }
        Ok(Parts { source: self, next: 0, first: 0 })
    }
}

/// The parts of a batch, one at a time.
pub struct Parts<'s, 'b> {
    source: &'s mut RecordSource<'b>,
    /// The index in the batch of the part's first record, and of the next part's.
    first: usize,
    next: usize,
}

impl Parts<'_, '_> {
    /// Reads the next part; returns `false` after the last.
    pub fn read_next(&mut self) -> Result<bool, EventError> {
        self.first = self.next;
        let has_next = match self.source {
            RecordSource::Event(event) => event.next_part(PART_RECORDS, PART_BYTES)?,
            // It is in memory already.
            RecordSource::Batch(batch) => self.first < batch.records.len(),
        };
        self.next += self.source.batch().records.len();
        Ok(has_next)
    }

    /// The records of the part.
    pub fn batch(&self) -> &Batch {
        self.source.batch()
    }

    /// The index in the whole batch of the part's first record.
    pub fn first(&self) -> usize {
        self.first
    }
}
