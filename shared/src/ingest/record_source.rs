//! Records on their way in.

use crate::record::{Batch, EventError, EventReader};

/// Records that are there, or are unpacked as they are asked for.
pub enum RecordSource<'b> {
    /// Lambda's event.
    Event(EventReader<'b>),
    /// Records from elsewhere.
    Batch(&'b Batch),
}

impl RecordSource<'_> {
    /// So many records at least, or all.
    pub fn read_until(&mut self, records: usize) -> Result<&Batch, EventError> {
        if let Self::Event(event) = self {
            event.read_until(records)?;
        }
        Ok(self.batch())
    }

    /// All records.
    pub fn read_all(&mut self) -> Result<&Batch, EventError> {
        self.read_until(usize::MAX)
    }

    /// The records that have been asked for.
    pub fn batch(&self) -> &Batch {
        match self {
            Self::Event(event) => event.batch(),
            Self::Batch(batch) => batch,
        }
    }

    /// How many records there will be, about.
    pub fn estimated_total(&self) -> usize {
        match self {
            Self::Event(event) => event.estimated_total(),
            Self::Batch(batch) => batch.records.len(),
        }
    }
}
