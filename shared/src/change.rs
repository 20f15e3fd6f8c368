//! What a record says: a table, a key's version and columns, and where it came from.
//!
//! Decoders write [`Changes`], the plan reads them. Nothing here knows PostgreSQL's types: a [`Value`] is what the source
//! said, exactly. Columns are named by [`Field`], a path in the source's documents; which column that becomes is the
//! plan's to say.

use std::borrow::Cow;
use std::ops::Range;

use crate::field::Field;
use crate::spec::TableId;
use crate::timestamp::Timestamp;

/// One value as the source said it, borrowed from the record where possible.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// An explicit null: the column is carried, and empty.
    Null,
    /// True or false.
    Bool(bool),
    /// A number as its text: no digit is lost on the way.
    Number(&'a str),
    /// A string.
    Text(Cow<'a, str>),
    /// An array or object as its JSON text.
    Json(Cow<'a, str>),
    /// A moment that the decoder has already read.
    Time(Timestamp),
}

/// A total order over the changes of one key: what the source orders by, then a digest of the content.
///
/// The digest makes the outcome independent of the order of arrival where two changes carry the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// Microseconds since 1970, or the source's own whole number.
    pub order: i128,
    /// XXH3 of the document's bytes.
    pub digest: u64,
}

impl Version {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (order, digest) = text.split_once('.')?;
        Some(Self { order: order.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:016x}", self.order, self.digest)
    }
}

/// One record's word about one table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record, by its place in the batch.
    pub record: usize,
    /// The table.
    pub table: TableId,
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
    pub values: Vec<(Field, Value<'a>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_moment_then_content_and_go_round_as_text() {
        let version = |order, digest| Version { order, digest };
        assert!(version(1, 9) < version(2, 0) && version(2, 0) < version(2, 1) && version(-5, 0) < version(1, 0));
        let shown = version(-1_770_593_460_123_456, 0xab).to_string();
        assert_eq!(Version::parse(&shown), Some(version(-1_770_593_460_123_456, 0xab)));
    }
}
