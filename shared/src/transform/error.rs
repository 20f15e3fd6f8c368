//! Why a transform failed.

use tokio_postgres::error::{DbError, ErrorPosition};

use super::file::TransformFile;
use super::position::byte_of_character;
use crate::apply::ApplyError;
use crate::catalog::CatalogError;
use crate::database::DatabaseError;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe, ends_connection};
use crate::feed::FeedError;
use crate::schema_work::{WorkError, is_interference};

/// Why a transform failed.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The query, or what it returns, is wrong.
    #[error("{position}: {reason}")]
    Query {
        /// Its file, line and column.
        position: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The time of the run was over.
    #[error("{position}: not finished within {seconds} s; {remedy}")]
    TimeIsUp {
        /// The query's file, line and column.
        position: String,
        /// The time that it had.
        seconds: u64,
        /// Whether that was all the time that the run had left, and less than the transform's own.
        is_deadline: bool,
        /// What to do.
        remedy: &'static str,
    },
    /// A lock could not be obtained, or a concurrent change interfered, after repeated attempts.
    #[error("{reason}; the next run retries it")]
    Busy {
        /// What was being done.
        reason: String,
    },
    /// A change log could not be created or repaired.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A statement of the run itself, or the connection, failed.
    #[error("statement of a transform failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The connection to the database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The target could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A table of Millstream's own could not be created.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl TransformError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Query { .. } | Self::TimeIsUp { .. } => true,
            Self::Busy { .. } => false,
            Self::Feed(error) => error.needs_operator(),
            Self::Statement(error) => classify(DatabaseStep::ChangeSchema, error) != ErrorAction::Retry,
            Self::Database(error) => error.needs_operator(),
            Self::Catalog(error) => error.needs_operator(),
            Self::Apply(error) => error.needs_operator(),
        }
    }

    /// Whether the connection failed, so that nothing else can be done with it.
    pub fn is_of_connection(&self) -> bool {
        match self {
            Self::Database(_) => true,
            Self::Feed(error) => error.is_of_connection(),
            Self::Statement(error) => ends_connection(error),
            Self::Apply(error) => error.database_error().is_some_and(ends_connection),
            Self::Query { .. } | Self::TimeIsUp { .. } | Self::Busy { .. } | Self::Catalog(_) => false,
        }
    }
}

impl WorkError for TransformError {
    fn is_busy(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Feed(error) => error.is_busy(),
            Self::Statement(error) => is_interference(error),
            Self::Apply(error) => error.is_busy(),
            Self::Query { .. } | Self::TimeIsUp { .. } | Self::Database(_) | Self::Catalog(_) => false,
        }
    }
}

/// What PostgreSQL says of a transform's query. `prefix_characters` precede the file's text in the statement.
pub fn of_query(transform: &TransformFile, prefix_characters: usize, error: tokio_postgres::Error) -> TransformError {
    let Some(db) = error.as_db_error() else { return error.into() };
    if classify(DatabaseStep::ChangeSchema, &error) == ErrorAction::Retry || is_conflict(&error) {
        return error.into();
    }
    let position = match db.position() {
        Some(ErrorPosition::Original(character)) => {
            let character = (*character as usize).saturating_sub(prefix_characters);
            let byte = byte_of_character(&transform.text, character);
            if character == 0 { transform.query_position() } else { transform.position_of(byte) }
        }
        // A position within a function.
        Some(ErrorPosition::Internal { .. }) | None => transform.query_position(),
    };
    TransformError::Query { position, reason: reason(db, &error) }
}

/// A statement that another transaction's commit has made impossible in this snapshot.
fn is_conflict(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["40001", "40P01", "55P03"].contains(&code.code()))
}

/// PostgreSQL's own text where it can hold no value of a row, and that of Millstream's functions.
fn reason(db: &DbError, error: &tokio_postgres::Error) -> String {
    if db.where_().is_some_and(|context| context.starts_with("PL/pgSQL function millstream.feed_reader(")) {
        return format!("{} [SQLSTATE {}]", db.message(), db.code().code());
    }
    if db.code().code() == "42601" && db.position().is_none() {
        return format!("a file holds one query, without another statement after it [SQLSTATE {}]", db.code().code());
    }
    if db.code().code() == "0A000" && db.position().is_none() && db.message().starts_with("DECLARE CURSOR") {
        return format!("a query only reads; its WITH holds a statement that writes [SQLSTATE {}]", db.code().code());
    }
    describe(error)
}

/// What PostgreSQL says of a statement that writes a transform's target.
pub fn of_target(transform: &TransformFile, error: tokio_postgres::Error) -> TransformError {
    if error.as_db_error().is_none()
        || classify(DatabaseStep::ChangeSchema, &error) == ErrorAction::Retry
        || is_conflict(&error)
    {
        return error.into();
    }
    let position = transform.target_position.clone();
    TransformError::Query { position, reason: format!("table {}: {}", transform.target.unquoted(), describe(&error)) }
}
