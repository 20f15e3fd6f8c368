//! Why a record is not written: the data errors. Each costs its own record only and ends as a dead letter.
//!
//! Passing faults never come here; [`crate::database::fault`] is the judge of that. Messages name the table, the column
//! and the path, never a value.

use std::fmt;

/// A data error of one record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// What kind of error it is.
    pub reason: RejectionReason,
    /// The table that would have been written, as `schema.table`.
    pub table: Option<String>,
    /// PostgreSQL's own code, where it was PostgreSQL that refused.
    pub sqlstate: Option<String>,
}

impl Rejection {
    /// A rejection before any table is known.
    pub fn new(reason: RejectionReason) -> Self {
        Self { reason, table: None, sqlstate: None }
    }

    /// A rejection by a table.
    pub fn for_table(table: String, reason: RejectionReason) -> Self {
        Self { reason, table: Some(table), sqlstate: None }
    }
}

/// The kinds of data errors. The name of the variant is the reason that metrics and dead letters carry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RejectionReason {
    /// The record could not be unpacked.
    #[error(transparent)]
    Unreadable(#[from] crate::record::UnpackError),
    /// The document is not what its format asks for.
    #[error("malformed document: {0}")]
    Malformed(String),
    /// No table of the configuration takes the document.
    #[error("no table matches the document (no `when` of this source applies)")]
    Unrouted,
    /// The configuration leaves the table out.
    #[error("source table `{0}` is excluded (see `only` and `exclude`)")]
    Excluded(String),
    /// The source does not tell the key, and neither does anybody else.
    #[error("unknown key for {0}: neither the record nor an existing table provides it; set `key` in its section")]
    NoKey(String),
    /// The stream does not carry what a table is made of.
    #[error("the stream's view type {0} omits the item; recreate the stream with NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    ViewType(String),
    /// A part of the key, the version or a required column is absent or null.
    #[error("`{path}` is missing (required by {role})")]
    Missing {
        /// The path in the document.
        path: String,
        /// What needs it.
        role: &'static str,
    },
    /// The column cannot hold the value exactly.
    #[error("the value at `{path}` does not fit column \"{column}\" ({sql_type}): {mismatch}")]
    DoesNotFit {
        /// The path in the document.
        path: String,
        /// The column.
        column: String,
        /// The column's type.
        sql_type: String,
        /// What stands in the way.
        mismatch: Mismatch,
    },
    /// The table is strict, and the field has no column.
    #[error("`{path}` has no column, and the table's schema_mode is strict")]
    UnknownField {
        /// The path in the document.
        path: String,
    },
    /// The row's time is absurdly far ahead.
    #[error("column \"{column}\" is too far in the future (limit: partition.future)")]
    TooFarAhead {
        /// The partition column.
        column: String,
    },
    /// The table has as many partitions as it may have.
    #[error("the row needs another partition and the table is at its limit of {0}; shorten partition.keep")]
    TooManyPartitions(usize),
    /// PostgreSQL refused the row.
    #[error("PostgreSQL rejected the row: {0}")]
    Refused(String),
}

impl RejectionReason {
    /// A short word for metrics and for filtering dead letters.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Malformed(_) => "malformed",
            Self::Unrouted => "unrouted",
            Self::Excluded(_) => "excluded",
            Self::NoKey(_) => "no_key",
            Self::ViewType(_) => "view_type",
            Self::Missing { .. } => "missing",
            Self::DoesNotFit { .. } => "does_not_fit",
            Self::UnknownField { .. } => "unknown_field",
            Self::TooFarAhead { .. } => "too_far_ahead",
            Self::TooManyPartitions(_) => "too_many_partitions",
            Self::Refused(_) => "refused",
        }
    }
}

/// Why a value and a type do not go together. The overflow column takes what it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Another kind of value: text where a number belongs.
    Type,
    /// Outside the type's range, or more digits than it keeps.
    Range,
    /// Longer than the column's limit.
    Length,
    /// PostgreSQL's text cannot hold the character U+0000.
    NulCharacter,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "wrong type",
            Self::Range => "out of range or too many digits for the type",
            Self::Length => "too long",
            Self::NulCharacter => "contains U+0000",
        })
    }
}
