//! The data errors, for which a record is not written. Each affects only its own record, which becomes a dead letter.
//!
//! Transient errors are not rejections; [`crate::database::sqlstate`] classifies them. Messages name the table, the
//! column and the path, never a value.

use std::fmt;
use std::sync::Arc;

use crate::field::{FIELDS_PER_DOCUMENT_MAX, KEY_BYTES_MAX, PATH_BYTES_MAX};
use crate::unwritable::UnwritableTable;

/// A data error of one record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The kind of error.
    pub reason: RejectionReason,
    /// The target table, as `schema.table`.
    pub table: Option<String>,
    /// The SQLSTATE, if PostgreSQL rejected the row.
    pub sqlstate: Option<String>,
}

impl Rejection {
    /// Creates a rejection for which no table is known.
    pub fn new(reason: RejectionReason) -> Self {
        Self { reason, table: None, sqlstate: None }
    }

    /// Creates a rejection by a table.
    pub fn for_table(table: String, reason: RejectionReason) -> Self {
        let sqlstate = reason.unwritable().and_then(UnwritableTable::sqlstate).map(str::to_owned);
        Self { reason, table: Some(table), sqlstate }
    }
}

/// The kinds of data errors. Metrics and dead letters report the [`class`](Self::class) as the reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RejectionReason {
    /// The record could not be unpacked.
    #[error(transparent)]
    Unreadable(#[from] crate::record::UnpackError),
    /// The document does not follow its format.
    #[error("malformed document: {0}")]
    Malformed(String),
    /// No table in the configuration matches the document.
    #[error("no table matches the document (no `when` of this source applies)")]
    Unrouted,
    /// The configuration excludes the table.
    #[error("source table `{0}` is excluded (see `only` and `exclude`)")]
    Excluded(String),
    /// The key is known neither from the source nor from an existing table or the configuration.
    #[error("unknown key for {0}: neither the record nor an existing table provides it; set `key` in its section")]
    NoKey(String),
    /// The stream omits the items.
    #[error("the stream's view type {0} omits the item; recreate the stream with NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    ViewType(String),
    /// A part of the key, the version or a required column is missing or null.
    #[error("`{path}` is missing (required by {role})")]
    Missing {
        /// The path in the document.
        path: String,
        /// What requires it.
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
        /// Why it does not fit.
        mismatch: Mismatch,
    },
    /// The table is strict, and the field has no column.
    #[error("`{path}` has no column, and the table's schema_mode is strict")]
    UnknownField {
        /// The path in the document.
        path: String,
    },
    /// A name contains U+0000, which neither PostgreSQL's text nor `jsonb` can hold.
    #[error("the name `{name}` contains U+0000, which PostgreSQL cannot store; rename it at the source")]
    NulInName {
        /// The name or path, with U+0000 written as `\u0000`.
        name: String,
    },
    /// The document exceeds a limit that bounds memory.
    #[error("the document has {limit} (at `{path}`)")]
    LimitExceeded {
        /// The beginning of the path in the document.
        path: String,
        /// The limit.
        limit: DocumentLimit,
    },
    /// The row is too far in the future.
    #[error("column \"{column}\" is too far in the future (limit: partition.future)")]
    TooFarAhead {
        /// The partition column.
        column: String,
    },
    /// The table has the maximum number of partitions.
    #[error("the row needs another partition and the table is at its limit of {0}; shorten partition.keep")]
    TooManyPartitions(usize),
    /// PostgreSQL rejected the row.
    #[error("PostgreSQL rejected the row: {0}")]
    RejectedByDatabase(String),
    /// The table cannot be written as it is defined, whatever the record holds.
    #[error("{0}")]
    Unwritable(Arc<UnwritableTable>),
}

impl RejectionReason {
    /// The rejection of a name or path that contains U+0000.
    pub fn nul_in_name(name: &str) -> Self {
        Self::NulInName { name: name.replace('\0', "\\u0000") }
    }

    /// The table that cannot be written, if that is the reason.
    pub fn unwritable(&self) -> Option<&UnwritableTable> {
        if let Self::Unwritable(unwritable) = self { Some(unwritable) } else { None }
    }

    /// A short name for metrics and for filtering dead letters.
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
            Self::NulInName { .. } => "malformed",
            Self::LimitExceeded { .. } => "limit_exceeded",
            Self::TooFarAhead { .. } => "too_far_ahead",
            Self::TooManyPartitions(_) => "too_many_partitions",
            Self::RejectedByDatabase(_) => "refused",
            Self::Unwritable(_) => "unwritable",
        }
    }
}

/// A limit on a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DocumentLimit {
    /// [`KEY_BYTES_MAX`].
    KeyBytes,
    /// [`PATH_BYTES_MAX`].
    PathBytes,
    /// [`FIELDS_PER_DOCUMENT_MAX`].
    Fields,
}

impl fmt::Display for DocumentLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyBytes => write!(f, "a name of more than {KEY_BYTES_MAX} bytes"),
            Self::PathBytes => write!(f, "a path of more than {PATH_BYTES_MAX} bytes"),
            Self::Fields => write!(f, "more than {FIELDS_PER_DOCUMENT_MAX} fields"),
        }
    }
}

/// Why a value does not fit a type. The overflow column may hold it instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The wrong type of value, such as text for a number.
    Type,
    /// Outside the range of the type, or with more digits than it holds.
    Range,
    /// Longer than the limit of the column.
    Length,
    /// Contains U+0000, which PostgreSQL's text cannot hold.
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
