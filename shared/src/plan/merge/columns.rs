//! A row's changes, merged column by column. A delete is a floor: what is not newer than it is gone, whenever it arrives.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::versions::Versions;
use super::{Action, Decision, Fate, Stored, StoredRow, Take, repeated_are_duplicates};
use crate::catalog::Column;
use crate::change::{Operation, Version};
use crate::plan::rows::{Member, TableWrite};
use crate::spec::{Absent, Deletes, Merge, OVERFLOW, Rule};

/// Parts the overflow column's name from the field's within `_versions`: the overflow is merged field by field.
const OVERFLOW_PREFIX: &str = "_overflow/";

/// A cell's length and `jsonb`'s version stand before its text.
const JSONB_HEADER: usize = 5;

/// Whether the overflow is merged field by field. Where changes tell whole rows, they tell the whole overflow, too.
pub fn by_field(write: &TableWrite) -> bool {
    write.rule == Rule::Merge(Merge::Column) && write.absent == Absent::Keeps
}

/// Decides about a row whose columns have these versions.
pub fn decide<'s>(
    write: &'s TableWrite,
    members: &'s [Member],
    versions: Versions<'s>,
    stored: &'s Stored,
) -> Decision {
    let mut columns = Columns::new(write, members, versions, stored);
    // From the newest change to the oldest, the first that carries a column offers it; older ones cannot win it any more.
    (0..members.len()).rev().for_each(|index| columns.offer(index));
    columns.decision()
}

/// A row's columns while its changes are offered to them.
struct Columns<'s> {
    write: &'s TableWrite,
    members: &'s [Member],
    stored: &'s Stored,
    /// The newest delete among the changes.
    newest_delete: Option<Version>,
    /// The newest delete of all.
    floor: Option<Version>,
    versions: Versions<'s>,
    takes: Vec<Take>,
    /// The overflow's new fields, by the names that `_versions` knows them by.
    overflow: BTreeMap<String, &'s str>,
    fates: Vec<Option<Fate>>,
    /// Whether the row is written even if no column takes anything.
    wins: bool,
}

impl<'s> Columns<'s> {
    fn new(write: &'s TableWrite, members: &'s [Member], mut versions: Versions<'s>, stored: &'s Stored) -> Self {
        let deletes = |member: &&Member| member.operation == Operation::Delete && write.deletes == Deletes::Hard;
        let newest_delete = members.iter().filter(deletes).filter_map(|member| member.version).max();
        let floor = stored.tombstone.max(newest_delete);
        let name = |place: usize| write.table.columns[write.columns[place]].name.as_str();
        let cleared = versions.forget(name(0), floor);
        let mut takes = vec![Take::Keep; write.columns.len()];
        if cleared {
            let gone = (write.key..write.columns.len()).filter(|&place| !versions.is_told(name(place)));
            gone.for_each(|place| takes[place] = Take::Null);
        }
        let fates = vec![None; members.len()];
        let overflow = BTreeMap::new();
        Self { write, members, stored, newest_delete, floor, versions, takes, overflow, fates, wins: cleared }
    }

    fn column(&self, place: usize) -> &'s Column {
        &self.write.table.columns[self.write.columns[place]]
    }

    /// What stands in `_versions` for the row itself: the key's first column.
    fn row(&self) -> &'s str {
        self.column(0).name.as_str()
    }

    /// Offers what a change carries.
    fn offer(&mut self, index: usize) {
        let member = &self.members[index];
        if member.version <= self.floor {
            self.fates[index] = Some(self.fate_of_buried(member));
            return;
        }
        if self.write.absent == Absent::Null && member.operation == Operation::Put {
            self.offer_row(index);
        }
        let row = self.versions.of(self.row());
        for place in self.write.key..self.write.columns.len() {
            if !self.write.cell(member, place).is_empty() {
                self.offer_column(index, place, row);
            }
        }
    }

    /// The fate of a change that is not newer than the newest delete.
    fn fate_of_buried(&self, member: &Member) -> Fate {
        match member.operation {
            Operation::Delete if member.version == self.stored.tombstone => Fate::Duplicate,
            Operation::Delete if member.version == self.floor => Fate::Applied,
            Operation::Delete | Operation::Put => Fate::Superseded,
        }
    }

    /// Where a change tells the whole row, that it does is a word of its own, kept with the key's first column; and so are
    /// the columns that it leaves out because they had not changed.
    fn offer_row(&mut self, index: usize) {
        let (write, member) = (self.write, &self.members[index]);
        let fate = self.versions.settle(self.row().into(), member.version);
        self.wins |= fate == Fate::Applied;
        self.tell(index, fate);
        for place in (write.key..write.columns.len()).filter(|&place| write.cell(member, place).is_empty()) {
            self.versions.leave_out(self.column(place));
        }
        write.untold(member).iter().for_each(|path| self.versions.leave_out_path(path));
    }

    /// Offers a change's value of one column; `row` is the version of the newest change that has told the whole row.
    fn offer_column(&mut self, index: usize, place: usize, row: Option<Version>) {
        let (write, member, column) = (self.write, &self.members[index], self.column(place));
        // A column that was made after a newer change had told the whole row: it told a NULL.
        if write.absent == Absent::Null && member.version < row && !self.versions.knows(column) {
            return self.tell(index, Fate::Superseded);
        }
        if by_field(write) && column.name.as_str() == OVERFLOW {
            return self.offer_overflow(index, write.cell(member, place));
        }
        let fate = self.versions.settle(column.name.as_str().into(), member.version);
        self.tell(index, fate);
        if fate == Fate::Applied {
            self.takes[place] = Take::Of(index);
        }
    }

    fn offer_overflow(&mut self, index: usize, cell: &'s [u8]) {
        for (name, json) in overflow_fields(cell) {
            let fate = self.versions.settle(name.clone().into(), self.members[index].version);
            self.tell(index, fate);
            if fate == Fate::Applied {
                self.overflow.insert(name, json);
            }
        }
    }

    /// A change's fate is the best that any of its columns has.
    fn tell(&mut self, index: usize, fate: Fate) {
        self.fates[index] = self.fates[index].max(Some(fate));
    }

    fn decision(mut self) -> Decision {
        let survives = self.survives();
        let is_new = survives && self.stored.row == StoredRow::Absent;
        let tombstone = self.newest_delete.filter(|_| self.newest_delete > self.stored.tombstone);
        let changes = is_new || !self.overflow.is_empty() || self.takes.iter().any(|take| *take != Take::Keep);
        let action = match (survives, tombstone) {
            (true, _) if self.wins || changes => Action::Put,
            (false, Some(_)) => Action::Delete,
            (true | false, _) => Action::Keep,
        };
        let mut members: Vec<Fate> = self.fates.iter().map(|fate| fate.unwrap_or(Fate::Duplicate)).collect();
        // A change that carries nothing but the key makes the row, or says nothing new.
        members.last_mut().into_iter().filter(|_| is_new).for_each(|fate| *fate = Fate::Applied);
        repeated_are_duplicates(self.members, &mut members);
        // The key belongs to every change alike.
        self.takes[..self.write.key].fill(Take::Of(self.members.len() - 1));
        Decision {
            action,
            overflow: self.overflow_json(),
            columns: self.takes,
            versions: if action == Action::Put { self.versions.to_string() } else { "{}".to_owned() },
            tombstone,
            members,
        }
    }

    /// Whether there is a row once all changes are applied.
    fn survives(&self) -> bool {
        let newest = self.members.last().is_some_and(|member| member.version > self.floor);
        newest
            || match self.write.deletes {
                Deletes::Hard => self.versions.of(self.row()).is_some(),
                Deletes::Never | Deletes::Soft => self.stored.row != StoredRow::Absent,
            }
    }

    /// `{"path": value, …}`
    fn overflow_json(&self) -> Option<String> {
        let member = |(name, json): (&String, &&str)| {
            let path = name.strip_prefix(OVERFLOW_PREFIX).unwrap_or(name);
            format!("{}:{json}", serde_json::Value::from(path))
        };
        let members: Vec<String> = self.overflow.iter().map(member).collect();
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
    }
}

/// The fields of an overflow cell, each under the name that `_versions` knows it by.
fn overflow_fields(cell: &[u8]) -> Vec<(String, &str)> {
    let json =
        cell.get(JSONB_HEADER..).and_then(|json| serde_json::from_slice::<BTreeMap<String, &RawValue>>(json).ok());
    json.into_iter().flatten().map(|(name, value)| (format!("{OVERFLOW_PREFIX}{name}"), value.get())).collect()
}
