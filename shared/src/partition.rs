//! Partitions by time: the period that contains a timestamp, and the name of its partition. Pure arithmetic, in UTC.
//!
//! No crate is used: the periods must cover the range of [`crate::timestamp`], which the date crates do not, and four
//! widths take few lines. The extension `pg_partman` creates partitions on a schedule, whereas Millstream needs a
//! partition when a row arrives.

use std::fmt;

use crate::names::{Identifier, TableName};
use crate::timestamp::{Timestamp, civil_from_days, days_from_civil};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const DAYS_PER_WEEK: i64 = 7;

/// 1970-01-01 was a Thursday; ISO weeks begin on Monday.
const MONDAY_OFFSET: i64 = 3;

/// The width of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionWidth {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A calendar month.
    Month,
}

/// The time range of a partition: from `from` up to, but not including, `to`. `None` is unbounded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimeRange {
    /// The lower bound, inclusive.
    pub from: Option<Timestamp>,
    /// The upper bound, exclusive.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// Whether the range contains the timestamp.
    pub fn contains(&self, timestamp: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= timestamp) && self.to.is_none_or(|to| timestamp < to)
    }

    /// Whether the two ranges have a timestamp in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let ends_before =
            |end: Option<Timestamp>, start: Option<Timestamp>| end.zip(start).is_some_and(|(end, start)| end <= start);
        !ends_before(self.to, other.from) && !ends_before(other.to, self.from)
    }

    /// Returns `self` without the ranges of its neighbours, so that after a change of width it does not overlap older
    /// partitions. `timestamp` must be in `self` and in none of `existing`.
    pub fn clipped_to_gap(mut self, timestamp: Timestamp, existing: impl Iterator<Item = TimeRange>) -> Self {
        for other in existing {
            if other.to.is_some_and(|to| to <= timestamp) {
                self.from = self.from.max(other.to);
            } else if let Some(from) = other.from.filter(|&from| from > timestamp) {
                self.to = Some(self.to.map_or(from, |to| to.min(from)));
            }
        }
        self
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |end: Option<Timestamp>, open: &str| end.map_or(open.to_owned(), |timestamp| timestamp.to_string());
        write!(f, "[{}, {})", bound(self.from, "-infinity"), bound(self.to, "infinity"))
    }
}

impl PartitionWidth {
    /// The period that contains the timestamp.
    pub fn bounds(self, timestamp: Timestamp) -> TimeRange {
        let from = self.start(timestamp);
        TimeRange { from: Some(from), to: Some(self.next(from)) }
    }

    /// The start of the period that contains the timestamp.
    fn start(self, timestamp: Timestamp) -> Timestamp {
        let (day, micros) = timestamp.day_and_micros();
        match self {
            Self::Hour => Timestamp(timestamp.0 - micros % MICROS_PER_HOUR),
            Self::Day => Timestamp::from_days(day),
            Self::Week => Timestamp::from_days(day - (day + MONDAY_OFFSET).rem_euclid(DAYS_PER_WEEK)),
            Self::Month => {
                let (year, month, _) = civil_from_days(day);
                Timestamp::from_days(days_from_civil(year, month, 1))
            }
        }
    }

    /// The start of the period after the one that begins at `start`.
    pub fn next(self, start: Timestamp) -> Timestamp {
        let (day, _) = start.day_and_micros();
        match self {
            Self::Hour => Timestamp(start.0 + MICROS_PER_HOUR),
            Self::Day => Timestamp::from_days(day + 1),
            Self::Week => Timestamp::from_days(day + DAYS_PER_WEEK),
            Self::Month => match civil_from_days(day) {
                (year, 12, _) => Timestamp::from_days(days_from_civil(year + 1, 1, 1)),
                (year, month, _) => Timestamp::from_days(days_from_civil(year, month + 1, 1)),
            },
        }
    }

    /// The name of the partition: the parent's name and the start of the period, with the hour only if it is
    /// significant.
    pub fn partition_name(self, parent: &TableName, bounds: TimeRange) -> TableName {
        let (day, micros) = bounds.from.unwrap_or(Timestamp(0)).day_and_micros();
        let (year, month, date) = civil_from_days(day);
        let hour = match (self, micros) {
            (Self::Day | Self::Week | Self::Month, 0) => String::new(),
            _ => format!("{:02}", micros / MICROS_PER_HOUR),
        };
        let suffix = format!("_p{year:04}{month:02}{date:02}{hour}");
        let full_name = format!("{}{suffix}", parent.table.as_str());
        let table = Identifier::exact(&full_name).unwrap_or_else(|| {
            // The truncated name must keep the suffix, which distinguishes one partition from the next.
            let parent_bytes_max = crate::names::IDENTIFIER_BYTES_MAX - suffix.len() - 9;
            let parent_name = parent.table.as_str();
            let end = (0..=parent_bytes_max).rev().find(|&end| parent_name.is_char_boundary(end)).unwrap_or(0);
            let prefix = Identifier::with_hash_suffix(&parent_name[..end], parent_name);
            Identifier::truncated(&format!("{}{suffix}", prefix.as_str()), &full_name)
        });
        TableName { schema: parent.schema.clone(), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(width: PartitionWidth, text: &str) -> String {
        width.bounds(Timestamp::parse(text).unwrap()).to_string()
    }

    #[test]
    fn periods_are_calendar_periods_in_utc() {
        let text = "2026-02-08T23:30:00-01:00";
        assert_eq!(bounds(PartitionWidth::Hour, text), "[2026-02-09T00:00:00Z, 2026-02-09T01:00:00Z)");
        assert_eq!(bounds(PartitionWidth::Day, text), "[2026-02-09T00:00:00Z, 2026-02-10T00:00:00Z)");
        assert_eq!(
            bounds(PartitionWidth::Week, "2026-02-08T12:00:00Z"),
            "[2026-02-02T00:00:00Z, 2026-02-09T00:00:00Z)"
        );
        assert_eq!(
            bounds(PartitionWidth::Month, "2025-12-31T23:59:59Z"),
            "[2025-12-01T00:00:00Z, 2026-01-01T00:00:00Z)"
        );
        assert_eq!(bounds(PartitionWidth::Day, "1969-12-31T23:59:59Z"), "[1969-12-31T00:00:00Z, 1970-01-01T00:00:00Z)");
    }

    #[test]
    fn a_new_width_does_not_overlap_older_partitions() {
        let day = |text| PartitionWidth::Day.bounds(Timestamp::parse(text).unwrap());
        let timestamp = Timestamp::parse("2026-02-15T12:00:00Z").unwrap();
        let month = PartitionWidth::Month
            .bounds(timestamp)
            .clipped_to_gap(timestamp, [day("2026-02-08"), day("2026-02-20")].into_iter());
        assert_eq!(month.to_string(), "[2026-02-09T00:00:00Z, 2026-02-20T00:00:00Z)");
    }

    #[test]
    fn names_contain_the_period_even_for_long_table_names() {
        let parent = |table: String| TableName {
            schema: Identifier::truncated("s", "s"),
            table: Identifier::truncated(&table, &table),
        };
        let timestamp = Timestamp::parse("2026-02-08T23:30:00Z").unwrap();
        let name = |width: PartitionWidth, table: &str| {
            width.partition_name(&parent(table.to_owned()), width.bounds(timestamp)).table.as_str().to_owned()
        };
        assert_eq!(name(PartitionWidth::Day, "bet_placed"), "bet_placed_p20260208");
        assert_eq!(name(PartitionWidth::Hour, "bet_placed"), "bet_placed_p2026020823");
        let long = name(PartitionWidth::Day, &"long".repeat(15));
        assert!(long.len() <= 63 && long.ends_with("_p20260208"), "{long}");
    }
}
