//! Records on their way in.

use crate::record::{Batch, EventError, Unpacking};

/// Records that are there, or are unpacked as they are asked for.
pub enum Incoming<'b> {
    /// Lambda's event.
    Event(Unpacking<'b>),
    /// Records from elsewhere.
    Batch(&'b Batch),
}

impl Incoming<'_> {
    /// So many records at least, or all.
    pub fn until(&mut self, records: usize) -> Result<&Batch, EventError> {
        if let Self::Event(event) = self {
            event.until(records)?;
        }
        Ok(self.batch())
    }

    /// All records.
    pub fn all(&mut self) -> Result<&Batch, EventError> {
        self.until(usize::MAX)
    }

    /// The records that have been asked for.
    pub fn batch(&self) -> &Batch {
        match self {
            Self::Event(event) => event.batch(),
            Self::Batch(batch) => batch,
        }
    }

    /// How many records there will be, about.
    pub fn expected(&self) -> usize {
        match self {
            Self::Event(event) => event.expected(),
            Self::Batch(batch) => batch.records.len(),
        }
    }
}
