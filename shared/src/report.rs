//! The last step: every record is accounted for. A report in which the sum is off cannot be built.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::merge::Fate;
use crate::timestamp::Timestamp;

/// What became of one record. Where several tables took it, the gravest outcome counts: the order is that of gravity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It concerns the stream and no row: a control record.
    Control,
    /// Newer changes already said otherwise in all that it says.
    Superseded,
    /// It was there already.
    Duplicate,
    /// It is older than its table keeps.
    Expired,
    /// It is in the database.
    Applied,
    /// It was refused, and is kept in the dead-letter queue.
    DeadLettered,
    /// It was refused, and no queue is set: Lambda is asked to deliver it again.
    Retry,
}

impl From<Fate> for Outcome {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Duplicate => Self::Duplicate,
            Fate::Superseded => Self::Superseded,
            Fate::Applied => Self::Applied,
        }
    }
}

/// How many records had each outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Counts {
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

impl Counts {
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

    /// Whether a transaction was committed for some of them, be it only to find that they were there already.
    pub fn reached_the_database(&self) -> bool {
        self.applied + self.duplicate + self.superseded > 0
    }

    /// All records. A new outcome does not compile until it is told here.
    pub fn total(&self) -> u64 {
        let Self { applied, duplicate, superseded, expired, dead_lettered, retry, control } = *self;
        applied + duplicate + superseded + expired + dead_lettered + retry + control
    }
}

impl AddAssign for Counts {
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

/// The outcomes of a batch while they are being told.
#[derive(Debug)]
pub struct Ledger(Vec<Option<Outcome>>);

impl Ledger {
    /// Nothing is known yet of this many records.
    pub fn new(records: usize) -> Self {
        Self(vec![None; records])
    }

    /// Tells an outcome of a record; the gravest stays.
    pub fn tell(&mut self, record: usize, outcome: Outcome) {
        self.0[record] = self.0[record].max(Some(outcome));
    }

    /// The counts, if every record has an outcome.
    ///
    /// # Errors
    /// Records that nobody spoke of.
    pub fn counts(&self) -> Result<Counts, Unaccounted> {
        let mut counts = Counts::default();
        self.0.iter().flatten().for_each(|outcome| counts.add(*outcome));
        let lost = self.0.len() as u64 - counts.total();
        if lost == 0 { Ok(counts) } else { Err(Unaccounted(lost)) }
    }
}

/// Records without an outcome: an error of ours. The invocation fails before anything is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} records of the batch are not accounted for")]
pub struct Unaccounted(pub u64);

/// How long each step took.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    /// Unpacking and decoding.
    pub decode: Duration,
    /// Planning, encoding included.
    pub plan: Duration,
    /// Everything done in the database.
    pub apply: Duration,
    /// Storing dead letters.
    pub dead_letters: Duration,
}

/// What one invocation did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The source, as the configuration calls it.
    pub source: String,
    /// Records by outcome.
    pub counts: Counts,
    /// Records without a byte, which say nothing.
    pub empty: u64,
    /// Rows inserted and updated.
    pub rows: u64,
    /// Statements that changed the schema.
    pub ddl: u64,
    /// Dead letters (or records left to Lambda) by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// How old the batch's oldest record was when it was committed.
    pub age: Duration,
    /// How long each step took.
    pub times: Times,
    /// What Lambda is told to deliver again from.
    pub retry_from: Option<String>,
}

impl Report {
    /// The age of a batch: from the arrival of its oldest record to now.
    pub fn age(oldest: Option<Timestamp>, now: Timestamp) -> Duration {
        let micros = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Display for Report {
    /// The account, without times: what golden files hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { applied, duplicate, superseded, expired, dead_lettered, retry, control } = self.counts;
        write!(
            f,
            "{} records: {applied} applied, {duplicate} duplicate, {superseded} superseded, ",
            self.counts.total()
        )?;
        write!(f, "{expired} expired, {dead_lettered} dead-lettered, {retry} to retry")?;
        if control > 0 {
            write!(f, ", {control} control")?;
        }
        writeln!(f, "; {} empty; {} rows, {} DDL statements", self.empty, self.rows, self.ddl)?;
        self.reasons.iter().try_for_each(|(reason, count)| writeln!(f, "  {reason}: {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_lost() {
        let mut ledger = Ledger::new(3);
        ledger.tell(0, Outcome::Duplicate);
        ledger.tell(0, Outcome::Applied);
        ledger.tell(1, Outcome::Applied);
        ledger.tell(1, Outcome::DeadLettered);
        assert_eq!(ledger.counts(), Err(Unaccounted(1)));
        ledger.tell(2, Outcome::Expired);
        let counts = Counts { applied: 1, expired: 1, dead_lettered: 1, ..Counts::default() };
        assert_eq!(ledger.counts(), Ok(counts));
    }
}
