//! The rejected records of a batch, each with its reason. Their memory is bounded, although a batch can hold any number of
//! documents: consecutive records with one reason are one entry, and equal reasons are stored once.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::activity::{ActivityEvent, rejection_events};
use crate::record::Batch;
use crate::rejection::Rejection;
use crate::unwritable::UnwritableTable;

/// A new reason is compared with this many before it. Most records of a batch are rejected for one of a few reasons.
const COMPARED_REASONS: usize = 8;

/// The texts of distinct reasons take at most this many bytes. Beyond that, a reason is replaced by an earlier one of the
/// same class and table: the dead letter that it shares with other documents shows only the first reason.
const REASON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A batch has at most this many entries: five times as many as a record of the stream has documents.
const ENTRIES_MAX: usize = 1_000_000;

/// The first record's position is kept for so many reasons: a batch describes no more of them on the board.
const POSITIONS_MAX: usize = 20;

/// Rejected records, in the order of the batch.
#[derive(Default, Debug)]
pub struct RejectionLog {
    entries: Vec<Entry>,
    reasons: Vec<Rejection>,
    reason_bytes: usize,
    /// The index of the first record of each of the first reasons, and the positions of those records.
    first_records: Vec<usize>,
    positions: Vec<String>,
    /// The reason that stands for others of a class and a table.
    common: BTreeMap<(&'static str, Option<String>), u32>,
    count: u64,
}

/// Consecutive records with one reason.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first: usize,
    count: u32,
    reason: u32,
}

impl RejectionLog {
    /// Adds the rejections of further records; the index of each counts from `first`. Of several rejections of a record, the
    /// first is kept.
    pub fn extend(&mut self, first: usize, rejections: impl IntoIterator<Item = (usize, Rejection)>) {
        let mut sorted: Vec<(usize, Rejection)> = rejections.into_iter().collect();
        sorted.sort_by_key(|(index, _)| *index);
        sorted.dedup_by_key(|(index, _)| *index);
        for (index, rejection) in sorted {
            self.push(first + index, rejection);
        }
    }

    fn push(&mut self, index: usize, rejection: Rejection) {
        self.count += 1;
        let reason = self.reason_index(rejection);
        if reason as usize == self.first_records.len() && self.first_records.len() < POSITIONS_MAX {
            self.first_records.push(index);
        }
        match self.entries.last_mut() {
            Some(last) if last.reason == reason && last.end() == index => last.count += 1,
            Some(_) | None => self.entries.push(Entry { first: index, count: 1, reason }),
        }
    }

    fn reason_index(&mut self, rejection: Rejection) -> u32 {
        let recent = self.reasons.len().saturating_sub(COMPARED_REASONS);
        if let Some(offset) = self.reasons[recent..].iter().rposition(|reason| *reason == rejection) {
            return (recent + offset) as u32;
        }
        let key = (rejection.reason.class(), rejection.table.clone());
        if self.reason_bytes > REASON_BYTES_MAX
            && let Some(&common) = self.common.get(&key)
        {
            return common;
        }
        let index = self.reasons.len() as u32;
        self.common.entry(key).or_insert(index);
        self.reason_bytes += size_of::<Rejection>() + rejection.to_string().len();
        self.reasons.push(rejection);
        index
    }

    /// Keeps the positions of the records of `batch` that were the first ones rejected for their reasons. The records of the
    /// batch, whose first one has the index `first`, are those whose rejections were added last.
    pub fn add_positions(&mut self, first: usize, batch: &Batch) {
        for index in &self.first_records[self.positions.len()..] {
            self.positions.push(batch.records[index - first].position.to_string());
        }
    }

    /// What was rejected, for the board: one event for each class, table and message.
    pub fn events(&self) -> Vec<ActivityEvent> {
        let mut counts = vec![0; self.reasons.len()];
        for entry in &self.entries {
            counts[entry.reason as usize] += u64::from(entry.count);
        }
        let positions = self.positions.iter().map(Some).chain(std::iter::repeat(None));
        let counted = self.reasons.iter().zip(counts).zip(positions);
        rejection_events(counted.map(|((reason, count), position)| (reason, count, position.map(String::as_str))))
    }

    /// Whether there are too many entries.
    pub fn is_full(&self) -> bool {
        self.entries.len() > ENTRIES_MAX
    }

    /// The number of rejected records.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The rejected records within a range of the batch.
    pub fn within(&self, records: Range<usize>) -> impl Iterator<Item = (usize, &Rejection)> {
        let first = self.entries.partition_point(|entry| entry.end() <= records.start);
        let entries = self.entries[first..].iter().take_while(move |entry| entry.first < records.end);
        entries.flat_map(move |entry| {
            let indexes = entry.first.max(records.start)..entry.end().min(records.end);
            indexes.map(|index| (index, &self.reasons[entry.reason as usize]))
        })
    }

    /// The tables that cannot be written, each once, with the number of rejected records.
    pub fn unwritable_tables(&self) -> Vec<(&UnwritableTable, u64)> {
        let mut found: Vec<(&UnwritableTable, u64)> = Vec::new();
        for entry in &self.entries {
            let Some(unwritable) = self.reasons[entry.reason as usize].reason.unwritable() else { continue };
            match found.iter_mut().find(|(other, _)| other.table == unwritable.table) {
                Some((_, count)) => *count += u64::from(entry.count),
                None => found.push((unwritable, u64::from(entry.count))),
            }
        }
        found
    }

    /// The number of rejected records by class.
    pub fn classes(&self) -> BTreeMap<&'static str, u64> {
        let mut classes = BTreeMap::new();
        for entry in &self.entries {
            *classes.entry(self.reasons[entry.reason as usize].reason.class()).or_insert(0) += u64::from(entry.count);
        }
        classes
    }
}

impl Entry {
    fn end(&self) -> usize {
        self.first + self.count as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, SequenceNumber, StreamPosition};
    use crate::rejection::RejectionReason;
    use crate::timestamp::Timestamp;

    fn unknown(path: &str) -> Rejection {
        Rejection::for_table("s.t".to_owned(), RejectionReason::UnknownField { path: path.to_owned() })
    }

    #[test]
    fn records_with_one_reason_are_one_entry_and_come_back_in_order() {
        let mut log = RejectionLog::default();
        log.extend(0, [(2, unknown("b")), (0, unknown("a")), (1, unknown("a")), (0, unknown("b"))]);
        log.extend(10, [(0, unknown("a")), (1, unknown("a"))]);
        assert_eq!((log.entries.len(), log.reasons.len(), log.count()), (3, 2, 5));
        let found: Vec<(usize, String)> =
            log.within(0..usize::MAX).map(|(index, rejection)| (index, rejection.to_string())).collect();
        let expected = [(0, "a"), (1, "a"), (2, "b"), (10, "a"), (11, "a")];
        assert_eq!(found, expected.map(|(index, path)| (index, unknown(path).to_string())));
        let within: Vec<usize> = log.within(1..11).map(|(index, _)| index).collect();
        assert_eq!(within, [1, 2, 10]);
        assert_eq!(log.classes(), [("unknown_field", 5)].into());
    }

    #[test]
    fn each_reason_is_an_event_with_its_first_position() {
        let position = |number: usize| StreamPosition {
            stream: "s".into(),
            shard: "shard".into(),
            sequence_number: SequenceNumber(number.to_string().into()),
            sub_sequence_number: 0,
        };
        let record = |number: usize| Record::new(position(number), Timestamp(0), "k".into(), 0..0);
        let part =
            |numbers: std::ops::Range<usize>| Batch { records: numbers.map(record).collect(), ..Batch::default() };
        let mut log = RejectionLog::default();
        log.extend(0, [(1, unknown("a")), (2, unknown("b")), (3, unknown("a"))]);
        log.add_positions(0, &part(0..4));
        log.extend(4, [(0, unknown("b")), (2, unknown("c"))]);
        log.add_positions(4, &part(4..8));
        let found: Vec<(u64, Option<String>)> =
            log.events().into_iter().map(|event| (event.records, event.position)).collect();
        assert_eq!(
            found,
            [(2, 1), (2, 2), (1, 6)].map(|(records, number)| (records, Some(position(number).to_string())))
        );
    }

    #[test]
    fn the_texts_of_reasons_are_bounded() {
        let mut log = RejectionLog::default();
        for index in 0..10_000 {
            log.push(index, unknown(&format!("{index}{}", "x".repeat(2_000))));
        }
        assert!(log.reason_bytes < REASON_BYTES_MAX + 4_096, "{}", log.reason_bytes);
        assert_eq!((log.count(), log.classes()), (10_000, [("unknown_field", 10_000)].into()));
        assert!(log.entries.len() < 3_000);
    }
}
