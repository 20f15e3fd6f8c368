//! What a record says: a table, a key's version and columns, and where it came from.
//!
//! Decoders write [`Changes`], the plan reads them. Nothing here knows PostgreSQL's types: a [`Value`] is what the source
//! said, exactly. Columns are named by [`Field`], a path in the source's documents; which column that becomes is the
//! plan's to say.

use std::borrow::Cow;
use std::ops::Range;

use crate::field::FieldId;
use crate::spec::TableId;
use crate::timestamp::Timestamp;

/// One value as the source said it, borrowed from the record where possible: what is borrowed is as it stands in JSON,
/// without escapes or control characters.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// An explicit null: the column is carried, and empty.
    Null,
    /// A null that the source tells from absence: the column is empty, and the overflow says that it is a null.
    TypedNull,
    /// True or false.
    Bool(bool),
    /// The value that the source had before, and has not told again: the column keeps what it has.
    Unchanged,
    /// A number as its text: no digit is lost on the way.
    Number(Cow<'a, str>),
    /// A string.
    Text(Cow<'a, str>),
    /// An array or object as its JSON text.
    Json(Cow<'a, str>),
    /// A moment that the decoder has already read.
    Time(Timestamp),
    /// A day that the decoder has already read, in days since 1970-01-01.
    Date(i32),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// Texts, numbers or bytes, all of one kind.
    List(Vec<Value<'a>>),
}

/// A total order over the changes of one key: what the source orders by, then a digest of the content.
///
/// The digest makes the outcome independent of the order of arrival where two changes carry the same moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// [`Version::LOADED`] for rows of a full load, which lose against all that a stream has said; [`Version::STREAMED`]
    /// and above for a stream.
    pub origin: u8,
    /// Microseconds since 1970, or the source's own whole number.
    pub order: i128,
    /// XXH3 of the document's bytes.
    pub digest: u64,
}

impl Version {
    /// The era of full loads.
    pub const SNAPSHOT: u8 = 0;
    /// The era of streams.
    pub const STREAM: u8 = 1;

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut part = || parts.next();
        let (era, length, digits, digest) = (part()?, part()?, part()?, part()?);
        let order = match length.strip_prefix('-') {
            Some(_) => format!("-{}", complement(digits)).parse().ok()?,
            None => digits.parse().ok()?,
        };
        Some(Self { origin: era.parse().ok()?, order, digest: u64::from_str_radix(digest, 16).ok()? })
    }
}

/// Era, length of the order, order, digest: as texts (in the order of their bytes) versions compare as versions, so that
/// SQL can. A negative order is written as the complement of its digits.
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

/// Each digit's distance from nine.
fn complement(digits: &str) -> String {
    digits.bytes().map(|digit| char::from(b'0' + (b'9'.saturating_sub(digit)))).collect()
}

/// What a change does to the row of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// The row is there, and is as the change says.
    Put,
    /// The row is gone, and its key is remembered.
    Delete,
}

/// One record's word about one table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record, by its place in the batch.
    pub record: usize,
    /// The table.
    pub table: TableId,
    /// What it does; of event tables always [`Operation::Put`].
    pub operation: Operation,
    /// For entities: which of two changes of one key wins.
    pub version: Option<Version>,
    /// The record's values, in [`Changes::values`]; the table takes those in its scope.
    pub values: Range<usize>,
}

/// A batch's changes; the values of a record are kept once, however many tables take them.
#[derive(Default, Debug)]
pub struct Changes<'a> {
    /// The changes, in the order of the records.
    pub list: Vec<Change>,
    /// All values, record after record.
    pub values: Vec<(FieldId, Value<'a>)>,
    /// Records that concern the stream and no row.
    pub control_records: Vec<usize>,
}

impl Changes<'_> {
    /// None, in the room that these took.
    pub fn into_empty<'b>(mut self) -> Changes<'b> {
        self.list.clear();
        self.values.clear();
        self.control_records.clear();
        // Collected in place: a vector of nothing is one of values that borrow from elsewhere.
        let values = self.values.into_iter().map(|(field, _)| (field, Value::Null)).collect();
        Changes { list: self.list, values, control_records: self.control_records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_origin_time_and_content_as_texts_too_and_round_trip() {
        let mut versions = Vec::new();
        for era in [0, 1, 12, 101] {
            for order in
                [i128::MIN + 1, -1_770_593_460_123_456, -100, -99, -5, 0, 7, 10, 1_770_593_460_123_456, i128::MAX]
            {
                versions.extend([0, 0xab, u64::MAX].map(|digest| Version { origin: era, order, digest }));
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
