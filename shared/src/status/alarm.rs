//! What of a status a person should look at. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{PartitionStatus, QueueRole, SourceStatus, Status, TableStatus};

/// An expired partition that has waited for longer was not overlooked by one run of the upkeep, but by all of a day.
const EXPIRED_SECONDS_MAX: f64 = 86_400.0;

/// From when on a source is told of. What is not given alarms nobody: how quiet a source may be only its owner knows.
#[derive(Clone, Copy, Default, Debug)]
pub struct Thresholds {
    /// The largest lag.
    pub lag: Option<Duration>,
    /// The longest time since the last commit.
    pub age: Option<Duration>,
}

/// Something that a person should look at.
#[derive(Clone, PartialEq, Debug)]
pub enum Alarm {
    /// Messages wait in a queue.
    Messages {
        /// What they are.
        holds: QueueRole,
        /// How many, about.
        count: i64,
    },
    /// A source lags.
    Lag {
        /// The source.
        source: String,
        /// By how many seconds.
        seconds: f64,
    },
    /// A source has not committed for long.
    Silent {
        /// The source.
        source: String,
        /// For how many seconds; `None` is ever.
        seconds: Option<f64>,
    },
    /// Of none of a source's tables a partition lies ahead of now. Writers make them all the same, one by one.
    NothingAhead {
        /// The source.
        source: String,
    },
    /// Expired partitions are not dropped.
    NotDropped {
        /// The table.
        table: String,
        /// How many.
        count: usize,
    },
    /// A table cannot be looked after.
    Fault {
        /// What keeps it.
        reason: String,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages { holds: QueueRole::DeadLetters, count } => {
                write!(f, "dead letters awaiting redrive: {count}")
            }
            Self::Messages { holds: QueueRole::Undelivered, count } => {
                write!(f, "batches discarded by Lambda awaiting redrive before their records expire: {count}")
            }
            Self::Lag { source, seconds } => write!(f, "source {source} lags by {seconds:.1} s"),
            Self::Silent { source, seconds: Some(seconds) } => {
                write!(f, "source {source} has not committed for {seconds:.0} s")
            }
            Self::Silent { source, seconds: None } => write!(f, "source {source} has never committed"),
            Self::NothingAhead { source } => {
                write!(f, "source {source} has no future partitions; is `maintain` running?")
            }
            Self::NotDropped { table, count } => {
                write!(
                    f,
                    "table {table} has had expired partitions ({count}) for more than a day; is `maintain` running?"
                )
            }
            Self::Fault { reason } => write!(f, "{reason}"),
        }
    }
}

impl Serialize for Alarm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Status {
    /// What a person should look at, the most urgent first.
    pub fn alarms(&self, thresholds: Thresholds) -> Vec<Alarm> {
        let waiting = self.queues.iter().filter(|queue| queue.messages.all() > 0);
        let messages = waiting.map(|queue| Alarm::Messages { holds: queue.holds, count: queue.messages.all() });
        let over = |limit: Option<Duration>, seconds: f64| limit.is_some_and(|limit| seconds > limit.as_secs_f64());
        let lagging = self.sources.iter().filter_map(|source| {
            let seconds = source.lag_seconds.filter(|seconds| over(thresholds.lag, *seconds))?;
            Some(Alarm::Lag { source: source.name.clone(), seconds })
        });
        let silent = self.sources.iter().filter(|source| match source.age_seconds {
            Some(seconds) => over(thresholds.age, seconds),
            None => thresholds.age.is_some(),
        });
        let silent = silent.map(|source| Alarm::Silent { source: source.name.clone(), seconds: source.age_seconds });
        let unprepared = self.sources.iter().filter(|source| source.has_no_future_partition());
        let unprepared = unprepared.map(|source| Alarm::NothingAhead { source: source.name.clone() });
        let tables = self.sources.iter().flat_map(|source| &source.tables).flat_map(TableStatus::alarms);
        messages.chain(lagging).chain(silent).chain(unprepared).chain(tables).collect()
    }
}

impl SourceStatus {
    fn has_no_future_partition(&self) -> bool {
        let wanting = self.tables.iter().filter_map(|table| table.partitions.as_ref()).filter(|found| found.wanted > 1);
        let nothing_ahead = |found: &PartitionStatus| found.lacking >= found.wanted - 1;
        wanting.clone().next().is_some() && wanting.clone().all(nothing_ahead)
    }
}

impl TableStatus {
    fn alarms(&self) -> impl Iterator<Item = Alarm> {
        let waiting = self.partitions.as_ref();
        let waiting =
            waiting.filter(|found| found.expired_seconds.is_some_and(|seconds| seconds > EXPIRED_SECONDS_MAX));
        let fault = self.fault.clone().map(|reason| Alarm::Fault { reason });
        let waiting = waiting.map(|found| Alarm::NotDropped { table: self.name.clone(), count: found.expired });
        [fault, waiting].into_iter().flatten()
    }
}
