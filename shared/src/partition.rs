//! Partitions by time: which period a moment falls into, and what its partition is called. Pure arithmetic, in UTC.

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

/// The moments that one partition holds: from `from`, before `to`. `None` is without end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimeRange {
    /// The first moment.
    pub from: Option<Timestamp>,
    /// The first moment after the last.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// Whether the partition holds the moment.
    pub fn contains(&self, moment: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.to.is_none_or(|to| moment < to)
    }

    /// Whether some moment lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let before =
            |end: Option<Timestamp>, start: Option<Timestamp>| end.zip(start).is_some_and(|(end, start)| end <= start);
        !before(self.to, other.from) && !before(other.to, self.from)
    }

    /// `self` without what its neighbours already hold, so that a changed width does not overlap older partitions.
    /// `moment` lies in `self` and in none of `taken`.
    pub fn clipped_to_gap(mut self, moment: Timestamp, taken: impl Iterator<Item = TimeRange>) -> Self {
        for other in taken {
            if other.to.is_some_and(|to| to <= moment) {
                self.from = self.from.max(other.to);
            } else if let Some(from) = other.from.filter(|&from| from > moment) {
                self.to = Some(self.to.map_or(from, |to| to.min(from)));
            }
        }
        self
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |end: Option<Timestamp>, open: &str| end.map_or(open.to_owned(), |moment| moment.to_string());
        write!(f, "[{}, {})", bound(self.from, "-infinity"), bound(self.to, "infinity"))
    }
}

impl PartitionWidth {
    /// The period that holds the moment.
    pub fn bounds(self, moment: Timestamp) -> TimeRange {
        let from = self.start(moment);
        TimeRange { from: Some(from), to: Some(self.next(from)) }
    }

    /// Where the period that holds the moment begins.
    fn start(self, moment: Timestamp) -> Timestamp {
        let (day, micros) = moment.day_and_micros();
        match self {
            Self::Hour => Timestamp(moment.0 - micros % MICROS_PER_HOUR),
            Self::Day => Timestamp::from_days(day),
            Self::Week => Timestamp::from_days(day - (day + MONDAY_OFFSET).rem_euclid(DAYS_PER_WEEK)),
            Self::Month => {
                let (year, month, _) = civil_from_days(day);
                Timestamp::from_days(days_from_civil(year, month, 1))
            }
        }
    }

    /// The period after the one that begins at `start`.
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

    /// The partition's table: the parent's name and the start of the period, an hour only where it matters.
    pub fn partition_name(self, parent: &TableName, bounds: TimeRange) -> TableName {
        let (day, micros) = bounds.from.unwrap_or(Timestamp(0)).day_and_micros();
        let (year, month, date) = civil_from_days(day);
        let hour = match (self, micros) {
            (Self::Day | Self::Week | Self::Month, 0) => String::new(),
            _ => format!("{:02}", micros / MICROS_PER_HOUR),
        };
        let suffix = format!("_p{year:04}{month:02}{date:02}{hour}");
        let whole = format!("{}{suffix}", parent.table.as_str());
        let table = Identifier::exact(&whole).unwrap_or_else(|| {
            // The suffix must survive the cut: it is what tells one partition from the next.
            let room = crate::names::IDENTIFIER_BYTES_MAX - suffix.len() - 9;
            let text = parent.table.as_str();
            let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let short = Identifier::with_hash_suffix(&text[..end], text);
            Identifier::truncated(&format!("{}{suffix}", short.as_str()), &whole)
        });
        TableName { schema: parent.schema.clone(), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(every: PartitionWidth, text: &str) -> String {
        every.bounds(Timestamp::parse(text).unwrap()).to_string()
    }

    #[test]
    fn periods_are_calendar_periods_in_utc() {
        let moment = "2026-02-08T23:30:00-01:00";
        assert_eq!(bounds(PartitionWidth::Hour, moment), "[2026-02-09T00:00:00Z, 2026-02-09T01:00:00Z)");
        assert_eq!(bounds(PartitionWidth::Day, moment), "[2026-02-09T00:00:00Z, 2026-02-10T00:00:00Z)");
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
    fn a_new_width_leaves_older_partitions_their_range() {
        let day = |text| PartitionWidth::Day.bounds(Timestamp::parse(text).unwrap());
        let moment = Timestamp::parse("2026-02-15T12:00:00Z").unwrap();
        let month = PartitionWidth::Month
            .bounds(moment)
            .clipped_to_gap(moment, [day("2026-02-08"), day("2026-02-20")].into_iter());
        assert_eq!(month.to_string(), "[2026-02-09T00:00:00Z, 2026-02-20T00:00:00Z)");
    }

    #[test]
    fn names_contain_the_period_even_for_long_table_names() {
        let parent = |table: String| TableName {
            schema: Identifier::truncated("s", "s"),
            table: Identifier::truncated(&table, &table),
        };
        let moment = Timestamp::parse("2026-02-08T23:30:00Z").unwrap();
        let name = |every: PartitionWidth, table: &str| {
            every.partition_name(&parent(table.to_owned()), every.bounds(moment)).table.as_str().to_owned()
        };
        assert_eq!(name(PartitionWidth::Day, "bet_placed"), "bet_placed_p20260208");
        assert_eq!(name(PartitionWidth::Hour, "bet_placed"), "bet_placed_p2026020823");
        let long = name(PartitionWidth::Day, &"long".repeat(15));
        assert!(long.len() <= 63 && long.ends_with("_p20260208"), "{long}");
    }
}
