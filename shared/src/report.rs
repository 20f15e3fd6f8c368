//! The last step: every record is accounted for. A report in which the sum is off cannot be built.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::outcome::OutcomeCounts;
use crate::timestamp::Timestamp;

/// How long each step took.
#[derive(Clone, Copy, Default, Debug)]
pub struct StageTimes {
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
    pub counts: OutcomeCounts,
    /// Records without a byte, which say nothing.
    pub empty_records: u64,
    /// Rows inserted and updated.
    pub rows: u64,
    /// Statements that changed the schema.
    pub ddl: u64,
    /// Dead letters (or records left to Lambda) by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// How old the batch's oldest record was when it was committed.
    pub batch_age: Duration,
    /// How long each step took.
    pub times: StageTimes,
    /// What Lambda is told to deliver again from.
    pub retry_from: Option<String>,
}

impl Report {
    /// The age of a batch: from the arrival of its oldest record to now.
    pub fn batch_age(oldest: Option<Timestamp>, now: Timestamp) -> Duration {
        let micros = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Display for Report {
    /// The account, without times: what golden files hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutcomeCounts { applied, duplicate, superseded, expired, dead_lettered, retry, control } = self.counts;
        write!(
            f,
            "{} records: {applied} applied, {duplicate} duplicate, {superseded} superseded, ",
            self.counts.total()
        )?;
        write!(f, "{expired} expired, {dead_lettered} dead-lettered, {retry} to retry")?;
        if control > 0 {
            write!(f, ", {control} control")?;
        }
        writeln!(f, "; {} empty; {} rows, {} DDL statements", self.empty_records, self.rows, self.ddl)?;
        self.reasons.iter().try_for_each(|(reason, count)| writeln!(f, "  {reason}: {count}"))
    }
}
