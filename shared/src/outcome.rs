//! Outcomes: every record has exactly one, and so does every change of a record.

use std::ops::{AddAssign, Range};

use serde::{Deserialize, Serialize};

/// The outcome of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ChangeOutcome {
    /// Newer changes override all of it; whether it was applied earlier is no longer known.
    Superseded,
    /// It was already in the row.
    Duplicate,
    /// It was written to the row.
    Applied,
}

/// The outcome of a record, in order of severity. If it concerns several tables, the most severe outcome counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It concerns the stream and no row: a control record.
    Control,
    /// Newer changes had already overridden all of it.
    Superseded,
    /// It was already in the database.
    Duplicate,
    /// It is older than the retention of its table.
    Expired,
    /// It was written to the database.
    Applied,
    /// It was rejected and is in the dead-letter queue.
    DeadLettered,
    /// It was rejected and no dead-letter queue is configured: Lambda delivers it again.
    Retry,
}

impl From<ChangeOutcome> for Outcome {
    fn from(outcome: ChangeOutcome) -> Self {
        match outcome {
            ChangeOutcome::Duplicate => Self::Duplicate,
            ChangeOutcome::Superseded => Self::Superseded,
            ChangeOutcome::Applied => Self::Applied,
        }
    }
}

/// How many records had each outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct OutcomeCounts {
    /// See [`Outcome::Applied`].
    pub applied: u64,
    /// See [`Outcome::Duplicate`].
    pub duplicate: u64,
    /// See [`Outcome::Superseded`].
    pub superseded: u64,
    /// See [`Outcome::Expired`].
    pub expired: u64,
    /// See [`Outcome::DeadLettered`].
    pub dead_lettered: u64,
    /// See [`Outcome::Retry`].
    pub retry: u64,
    /// See [`Outcome::Control`].
    pub control: u64,
}

impl OutcomeCounts {
    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Applied => &mut self.applied,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::Superseded => &mut self.superseded,
            Outcome::Expired => &mut self.expired,
            Outcome::DeadLettered => &mut self.dead_lettered,
            Outcome::Retry => &mut self.retry,
            Outcome::Control => &mut self.control,
        } += 1;
    }

    /// Whether a transaction was committed for any of them, even if it only found duplicates.
    pub fn any_committed(&self) -> bool {
        self.applied + self.duplicate + self.superseded > 0
    }

    /// The number of records. A new outcome does not compile until it is added here.
    pub fn total(&self) -> u64 {
        let Self { applied, duplicate, superseded, expired, dead_lettered, retry, control } = *self;
        applied + duplicate + superseded + expired + dead_lettered + retry + control
    }
}

impl AddAssign for OutcomeCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { applied, duplicate, superseded, expired, dead_lettered, retry, control } = other;
        for (sum, count) in [
            (&mut self.applied, applied),
            (&mut self.duplicate, duplicate),
            (&mut self.superseded, superseded),
            (&mut self.expired, expired),
            (&mut self.dead_lettered, dead_lettered),
            (&mut self.retry, retry),
            (&mut self.control, control),
        ] {
            *sum += count;
        }
    }
}

/// The outcomes of some records of a batch, as they are recorded.
#[derive(Debug)]
pub struct OutcomeLedger {
    outcomes: Vec<Option<Outcome>>,
    /// The index of the first record.
    first: usize,
}

impl OutcomeLedger {
    /// Creates a ledger for these records, none with an outcome.
    pub fn new(records: Range<usize>) -> Self {
        Self { outcomes: vec![None; records.len()], first: records.start }
    }

    /// Records an outcome of a record; the most severe one is kept.
    pub fn record(&mut self, record: usize, outcome: Outcome) {
        let recorded = &mut self.outcomes[record - self.first];
        *recorded = (*recorded).max(Some(outcome));
    }

    /// Counts the records by outcome.
    ///
    /// # Errors
    /// Returns an error if a record has no outcome.
    pub fn counts(&self) -> Result<OutcomeCounts, Unaccounted> {
        let mut counts = OutcomeCounts::default();
        self.outcomes.iter().flatten().for_each(|outcome| counts.add(*outcome));
        let missing = self.outcomes.len() as u64 - counts.total();
        if missing == 0 { Ok(counts) } else { Err(Unaccounted(missing)) }
    }
}

/// Records without an outcome: a bug in Millstream. The invocation fails before anything is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} records have no outcome; the batch was not acknowledged (this is a bug)")]
pub struct Unaccounted(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_accounted_for() {
        let mut ledger = OutcomeLedger::new(5..8);
        ledger.record(5, Outcome::Duplicate);
        ledger.record(5, Outcome::Applied);
        ledger.record(6, Outcome::Applied);
        ledger.record(6, Outcome::DeadLettered);
        assert_eq!(ledger.counts(), Err(Unaccounted(1)));
        ledger.record(7, Outcome::Expired);
        let counts = OutcomeCounts { applied: 1, expired: 1, dead_lettered: 1, ..OutcomeCounts::default() };
        assert_eq!(ledger.counts(), Ok(counts));
    }
}
