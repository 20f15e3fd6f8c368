//! The records of a batch, unpacked as they are needed.

use crate::record::{Batch, EventError, EventReader};

/// Where the records of a batch come from.
pub enum RecordSource<'b> {
    /// Lambda's event, unpacked on demand.
    Event(EventReader<'b>),
    /// Records that are unpacked already.
    Batch(&'b Batch),
}

impl RecordSource<'_> {
    /// Unpacks at least this many records, or all.
    pub fn read_until(&mut self, records: usize) -> Result<&Batch, EventError> {
        if let Self::Event(event) = self {
            event.read_until(records)?;
        }
        Ok(self.batch())
    }

    /// Unpacks all records.
    pub fn read_all(&mut self) -> Result<&Batch, EventError> {
        self.read_until(usize::MAX)
    }

    /// The records unpacked so far.
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
}
