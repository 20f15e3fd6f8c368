//! The changes that a record makes: the table, the operation, the version and the values.
//!
//! Decoders write [`Changes`], and the plan reads them. Nothing here knows PostgreSQL's types: a [`Value`] is exactly
//! what the source sent. A [`FieldId`], a path in the source's documents, identifies each value; the plan chooses its
//! column.

use std::borrow::Cow;
use std::ops::Range;

use crate::field::FieldId;
use crate::spec::TableId;
use crate::timestamp::Timestamp;

/// One value as the source sent it, borrowed from the record where possible. Borrowed text is a slice of valid JSON,
/// which cannot contain U+0000; a borrowed [`Value::Text`] contains no escapes or control characters at all.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// An explicit null: the change sets the column to NULL.
    Null,
    /// A null that the source distinguishes from a missing value: the column is NULL, and the overflow column records
    /// the null.
    TypedNull,
    /// True or false.
    Bool(bool),
    /// A value that the source did not send because it is unchanged: the column keeps its value.
    Unchanged,
    /// A number as text, so that no digit is lost.
    Number(Cow<'a, str>),
    /// A string.
    Text(Cow<'a, str>),
    /// An array or object as its JSON text.
    Json(Cow<'a, str>),
    /// A timestamp that the decoder has already parsed.
    Time(Timestamp),
    /// A date that the decoder has already parsed, in days since 1970-01-01.
    Date(i32),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// Texts, numbers or bytes, all of one type.
    List(Vec<Value<'a>>),
}

/// A total order over the changes of one key: the origin, the source's order, then a digest of the content.
///
/// The digest makes the outcome independent of the order of arrival if two changes carry the same timestamp.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// [`Version::SNAPSHOT`] for rows of a full load, which lose to every change of a stream; [`Version::STREAM`] or
    /// more for a stream. A DynamoDB sequence number has up to 40 digits, of which `order` holds the last 38; the first
    /// two, if present, are added here.
    pub origin: u8,
    /// Microseconds since 1970, or a whole number from the source.
    pub order: i128,
    /// XXH3 of the document's bytes.
    pub digest: u64,
}

impl Version {
    /// The origin of full loads.
    pub const SNAPSHOT: u8 = 0;
    /// The origin of streams.
    pub const STREAM: u8 = 1;

    /// Parses the output of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut part = || parts.next();
        let (origin, length, digits, digest) = (part()?, part()?, part()?, part()?);
        let order = match length.strip_prefix('-') {
            Some(_) => format!("-{}", complement(digits)).parse().ok()?,
            None => digits.parse().ok()?,
        };
        Some(Self { origin: origin.parse().ok()?, order, digest: u64::from_str_radix(digest, 16).ok()? })
    }
}

/// Origin, length of the order, order and digest. Compared byte by byte, the texts sort like the versions, so SQL can
/// compare them. A negative order is written as the complement of its digits.
impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.order.unsigned_abs().to_string();
        if self.order < 0 {
            write!(f, "{:03}.-{:02}.{}.{:016x}", self.origin, 99 - digits.len(), complement(&digits), self.digest)
        } else {
            write!(f, "{:03}.{:02}.{digits}.{:016x}", self.origin, digits.len(), self.digest)
        }
    }
}

/// Subtracts each digit from nine.
fn complement(digits: &str) -> String {
    digits.bytes().map(|digit| char::from(b'0' + (b'9'.saturating_sub(digit)))).collect()
}

/// What a change does to the row of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// The row exists, with the values of the change.
    Put,
    /// The row is deleted, and its key is remembered.
    Delete,
}

/// The change that one record makes to one table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The index of the record in the batch.
    pub record: usize,
    /// The table.
    pub table: TableId,
    /// What it does; for event tables always [`Operation::Put`].
    pub operation: Operation,
    /// For entities: decides which of two changes of one key wins.
    pub version: Option<Version>,
    /// The record's values, as a range of [`Changes::values`]; the table stores those in its scope.
    pub values: Range<usize>,
}

/// The changes of a batch. The values of a record are stored once, however many tables use them.
#[derive(Default, Debug)]
pub struct Changes<'a> {
    /// The changes, in the order of the records.
    pub list: Vec<Change>,
    /// All values, record after record.
    pub values: Vec<(FieldId, Value<'a>)>,
    /// Indexes of records that concern the stream and not a row.
    pub control_records: Vec<usize>,
    /// An estimate of the memory that the changes take until they are written.
    pub estimated_bytes: usize,
    /// How many cells their rows have.
    pub cells: CellCounter,
}

/// Counts the cells of the rows of changes: for each table, its changes times the fields that any of them carries. A row has a cell
/// for each column that is written, also if its own change does not carry it.
#[derive(Default, Debug)]
pub struct CellCounter(Vec<TableCells>);

#[derive(Clone, Default, Debug)]
struct TableCells {
    changes: usize,
    /// One bit for each field.
    fields: Vec<u64>,
    columns: usize,
}

impl CellCounter {
    /// PostgreSQL's limit of columns (<https://www.postgresql.org/docs/current/limits.html>): fields beyond it share one.
    const COLUMNS_MAX: usize = 1_600;

    /// Adds a change; returns how many cells it adds.
    pub fn add(&mut self, table: TableId, values: &[(FieldId, Value<'_>)]) -> usize {
        let index = table.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, TableCells::default());
        }
        let table = &mut self.0[index];
        let before = table.changes * table.columns.min(Self::COLUMNS_MAX);
        table.changes += 1;
        for (field, _) in values {
            let (word, bit) = (field.0 as usize / 64, 1_u64 << (field.0 % 64));
            if table.fields.len() <= word {
                table.fields.resize(word + 1, 0);
            }
            table.columns += usize::from(table.fields[word] & bit == 0);
            table.fields[word] |= bit;
        }
        table.changes * table.columns.min(Self::COLUMNS_MAX) - before
    }
}

impl Changes<'_> {
    /// Returns an empty set that reuses the memory of this one.
    pub fn into_empty<'b>(mut self) -> Changes<'b> {
        self.list.clear();
        self.values.clear();
        self.control_records.clear();
        // Collecting the empty vector changes the lifetime of its values and keeps its allocation.
        let values = self.values.into_iter().map(|(field, _)| (field, Value::Null)).collect();
        Changes {
            list: self.list,
            values,
            control_records: self.control_records,
            estimated_bytes: 0,
            cells: CellCounter::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_the_changes_of_a_table_times_the_fields_that_any_of_them_carries() {
        let mut cells = CellCounter::default();
        let carries = |fields: &[u32]| fields.iter().map(|&field| (FieldId(field), Value::Null)).collect::<Vec<_>>();
        assert_eq!(cells.add(TableId(0), &carries(&[0, 70])), 2);
        assert_eq!(cells.add(TableId(0), &carries(&[70, 5])), 2 * 3 - 2);
        assert_eq!(cells.add(TableId(2), &carries(&[5])), 1);
        assert_eq!(cells.add(TableId(0), &carries(&[])), 3);
    }

    #[test]
    fn versions_order_by_origin_time_and_content_as_texts_too_and_round_trip() {
        let mut versions = Vec::new();
        for origin in [0, 1, 12, 101] {
            for order in
                [i128::MIN + 1, -1_770_593_460_123_456, -100, -99, -5, 0, 7, 10, 1_770_593_460_123_456, i128::MAX]
            {
                versions.extend([0, 0xab, u64::MAX].map(|digest| Version { origin, order, digest }));
            }
        }
        assert!(versions.is_sorted());
        let texts: Vec<String> = versions.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        for (text, version) in texts.iter().zip(versions) {
            assert_eq!(Version::parse(text), Some(version));
        }
    }
}
