//! Decides what in a status needs an operator's attention. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{QueueRole, SourceStatus, Status, TableStatus};
use crate::feed::problems::FeedProblem;
use crate::totals::health::TotalHealth;
use crate::transform::{TransformState, TransformStatus};

/// An expired partition that has waited longer than this was missed not by one maintenance run but by a whole day of them.
const EXPIRED_SECONDS_MAX: f64 = 86_400.0;

/// Writers fold about once a second. Reading a group stays below a millisecond up to several times this many deltas.
const PENDING_DELTAS_MAX: i64 = 50_000;

/// Limits beyond which a source raises an alarm. An unset limit raises none: only the owner knows how idle a source may be.
#[derive(Clone, Copy, Default, Debug)]
pub struct Thresholds {
    /// The largest lag.
    pub lag: Option<Duration>,
    /// The longest time since the last commit.
    pub age: Option<Duration>,
}

/// A condition that needs an operator's attention.
#[derive(Clone, PartialEq, Debug)]
pub enum Alarm {
    /// Messages are waiting in a queue.
    Messages {
        /// What they are.
        holds: QueueRole,
        /// Approximate number.
        count: i64,
    },
    /// A source lags.
    Lag {
        /// The source.
        source: String,
        /// Its lag in seconds.
        seconds: f64,
    },
    /// A source has not committed recently.
    Silent {
        /// The source.
        source: String,
        /// Seconds since its last commit; `None` if it has never committed.
        seconds: Option<f64>,
    },
    /// None of a source's tables has a future partition. Writers still create them on demand, one at a time.
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
    /// A table's partitions cannot be maintained.
    Fault {
        /// The reason.
        reason: String,
    },
    /// A total misses rows.
    TotalBroken {
        /// The total.
        total: String,
        /// The number of transactions whose rows it misses.
        transactions: i64,
        /// The table and the SQLSTATE of the last failure.
        failure: String,
    },
    /// The last recompute found that a total was wrong.
    TotalOffBy {
        /// The total.
        total: String,
        /// The number of groups that it corrected.
        groups: i64,
    },
    /// The deltas of a total are not folded, which makes it slow to read.
    TotalPending {
        /// The total.
        total: String,
        /// The number of deltas.
        deltas: i64,
    },
    /// The database does not have a configured total, although nothing keeps it from being built.
    TotalNotBuilt {
        /// The total.
        total: String,
    },
    /// A transform failed.
    TransformFailed {
        /// The transform.
        transform: String,
        /// The number of failures since it last succeeded.
        failures: i32,
        /// Why: the file, the line, the column, and what is wrong.
        reason: String,
    },
    /// A transform has not been tried for several of its intervals.
    TransformOverdue {
        /// The transform.
        transform: String,
    },
    /// Something is, or would be, written past a change log.
    ChangeLog(FeedProblem),
    /// A configured total cannot be built as it is configured.
    TotalRejected {
        /// The total.
        total: String,
        /// Why.
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
            Self::TotalBroken { total, transactions, failure } => write!(
                f,
                "total {total} misses the rows of failed transactions ({transactions}; the last one in {failure}); fix the \
                 cause, then run `millstream totals recompute {total}`"
            ),
            Self::TotalOffBy { total, groups } => {
                write!(f, "total {total} was wrong at the last recompute, which corrected it (groups: {groups})")
            }
            Self::TotalPending { total, deltas } => {
                write!(f, "total {total} has {deltas} deltas that are not folded; do its writers report errors?")
            }
            Self::TotalNotBuilt { total } => write!(f, "total {total} is not built; is `recompute` running?"),
            Self::TransformFailed { transform, failures, reason } => {
                write!(f, "transform {transform} fails (failures: {failures}): {reason}")
            }
            Self::TransformOverdue { transform } => {
                write!(f, "transform {transform} has not run for several of its intervals; is `transform` running?")
            }
            Self::ChangeLog(problem) => write!(f, "{problem}"),
            Self::TotalRejected { total, reason } => {
                write!(f, "total {total} is rejected ({reason}); correct it, and check it with `millstream plan`")
            }
        }
    }
}

impl Serialize for Alarm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Status {
    /// Returns what needs an operator's attention, most urgent first.
    pub fn alarms(&self, thresholds: Thresholds) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for queue in &self.queues {
            let count = queue.messages.all();
            if count > 0 {
                alarms.push(Alarm::Messages { holds: queue.holds, count });
            }
        }
        for source in &self.sources {
            alarms.extend(source.lag_alarm(thresholds.lag));
        }
        for source in &self.sources {
            alarms.extend(source.silence_alarm(thresholds.age));
        }
        for source in &self.sources {
            if source.has_no_future_partition() {
                alarms.push(Alarm::NothingAhead { source: source.name.clone() });
            }
        }
        for source in &self.sources {
            alarms.extend(source.tables.iter().flat_map(TableStatus::alarms));
        }
        alarms.extend(self.totals.iter().flat_map(total_alarms));
        alarms.extend(self.transforms.iter().filter_map(transform_alarm));
        alarms.extend(self.change_logs.iter().cloned().map(Alarm::ChangeLog));
        alarms
    }
}

fn transform_alarm(state: &TransformState) -> Option<Alarm> {
    let transform = state.name.clone();
    if state.status == TransformStatus::Failed {
        let (failures, reason) = (state.failures, state.reason.clone().unwrap_or_default());
        return Some(Alarm::TransformFailed { transform, failures, reason });
    }
    state.is_overdue.then_some(Alarm::TransformOverdue { transform })
}

fn total_alarms(health: &TotalHealth) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let total = || health.total.clone();
    if health.broken > 0 {
        let failure = health.failure.clone().unwrap_or_default();
        alarms.push(Alarm::TotalBroken { total: total(), transactions: health.broken, failure });
    }
    if let Some(groups) = health.off_by.filter(|groups| *groups > 0) {
        alarms.push(Alarm::TotalOffBy { total: total(), groups });
    }
    if health.pending > PENDING_DELTAS_MAX {
        alarms.push(Alarm::TotalPending { total: total(), deltas: health.pending });
    }
    if health.is_unbuilt() {
        alarms.push(Alarm::TotalNotBuilt { total: total() });
    }
    if let Some(reason) = health.rejection() {
        alarms.push(Alarm::TotalRejected { total: total(), reason: reason.to_owned() });
    }
    alarms
}

impl SourceStatus {
    fn lag_alarm(&self, limit: Option<Duration>) -> Option<Alarm> {
        let seconds = self.lag_seconds?;
        (seconds > limit?.as_secs_f64()).then(|| Alarm::Lag { source: self.name.clone(), seconds })
    }

    /// A source that has never committed exceeds any limit.
    fn silence_alarm(&self, limit: Option<Duration>) -> Option<Alarm> {
        let limit = limit?.as_secs_f64();
        let is_silent = self.age_seconds.is_none_or(|seconds| seconds > limit);
        is_silent.then(|| Alarm::Silent { source: self.name.clone(), seconds: self.age_seconds })
    }

    fn has_no_future_partition(&self) -> bool {
        let mut expects_any = false;
        for partitions in self.tables.iter().filter_map(|table| table.partitions.as_ref()) {
            if partitions.wanted <= 1 {
                continue;
            }
            if partitions.missing < partitions.wanted - 1 {
                return false;
            }
            expects_any = true;
        }
        expects_any
    }
}

impl TableStatus {
    fn alarms(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        if let Some(reason) = &self.fault {
            alarms.push(Alarm::Fault { reason: reason.clone() });
        }
        if let Some(partitions) = &self.partitions
            && partitions.expired_seconds.is_some_and(|seconds| seconds > EXPIRED_SECONDS_MAX)
        {
            alarms.push(Alarm::NotDropped { table: self.name.clone(), count: partitions.expired });
        }
        alarms
    }
}
