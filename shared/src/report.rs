//! The last step: accounts for every record. A report cannot be built unless every record has an outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::activity::ActivityEvent;
use crate::outcome::OutcomeCounts;
use crate::timestamp::Timestamp;

/// How long each step took.
#[derive(Clone, Copy, Default, Debug)]
pub struct StageTimes {
    /// Unpacking and decoding.
    pub decode: Duration,
    /// Planning, encoding included.
    pub plan: Duration,
    /// All work in the database.
    pub apply: Duration,
    /// Storing dead letters.
    pub dead_letters: Duration,
}

/// What one invocation did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The name of the source in the configuration.
    pub source: String,
    /// Records by outcome.
    pub counts: OutcomeCounts,
    /// Empty records, which hold no data.
    pub empty_records: u64,
    /// Rows inserted and updated.
    pub rows: u64,
    /// Statements that changed the schema.
    pub ddl: u64,
    /// Dead letters (or records left to Lambda) by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// What was rejected, without payloads.
    pub rejections: Vec<ActivityEvent>,
    /// The number of tables that cannot be written as they are defined.
    pub unwritable_tables: u64,
    /// The age of the oldest record of the batch when the batch was committed.
    pub batch_age: Duration,
    /// How long each step took.
    pub times: StageTimes,
    /// The sequence number from which Lambda delivers the batch again.
    pub retry_from: Option<String>,
}

impl Report {
    /// The age of a batch: the time since the arrival of its oldest record.
    pub fn batch_age(oldest: Option<Timestamp>, now: Timestamp) -> Duration {
        let micros = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Display for Report {
    /// Writes the counts without times, as in the golden files.
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
