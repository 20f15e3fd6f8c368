//! Classifies PostgreSQL's errors: retry, reject the row, refresh the catalog, or halt until an operator acts.

use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// What an error means for the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// The error is transient: the invocation fails, and Lambda retries it.
    Retry,
    /// The row is at fault: its record becomes a dead letter, and the other rows are written.
    RejectRow,
    /// The catalog may be stale: read it again and plan the batch again.
    RefreshCatalog,
    /// An operator must act. Until then the invocation fails, and nothing is lost.
    Halt,
}

/// SQLSTATEs and their classes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>); the longest prefix
/// wins.
const ERROR_ACTIONS: &[(&str, ErrorAction)] = &[
    ("08", ErrorAction::Retry),             // connection
    ("08P01", ErrorAction::RefreshCatalog), // a value in another type's binary format
    ("09", ErrorAction::RejectRow),         // a trigger raised it
    ("0A000", ErrorAction::RefreshCatalog), // cached plan must not change result type
    ("21", ErrorAction::RejectRow),         // one row twice in a statement
    ("22", ErrorAction::RejectRow),         // data
    ("22P03", ErrorAction::RefreshCatalog), // a value in another type's binary format
    ("23", ErrorAction::RejectRow),         // constraints
    ("25006", ErrorAction::Retry),          // read-only: connected to a reader after a failover
    ("25P02", ErrorAction::Retry),          // the transaction is already aborted
    ("26", ErrorAction::Retry),             // a pooler lost a prepared statement
    ("27", ErrorAction::RejectRow),         // a trigger raised it
    ("28", ErrorAction::Retry),             // login: the password was rotated meanwhile
    ("2F", ErrorAction::RejectRow),         // an SQL function raised it
    ("38", ErrorAction::RejectRow),         // a function raised it
    ("39", ErrorAction::RejectRow),         // a function raised it
    ("3F", ErrorAction::RefreshCatalog),    // no such schema
    ("40", ErrorAction::Retry),             // serialization, deadlock
    ("42", ErrorAction::RefreshCatalog),    // no such table or column, another type
    ("42501", ErrorAction::Halt),           // not permitted
    ("42804", ErrorAction::RefreshCatalog), // another type
    ("44", ErrorAction::RejectRow),         // a view's check option
    ("53", ErrorAction::Retry),             // memory, disk, connections
    ("54", ErrorAction::RejectRow),         // a row or an index entry too large
    ("55", ErrorAction::Retry),             // lock timeout, object in use
    ("57", ErrorAction::Retry),             // cancelled, shutting down
    ("58", ErrorAction::Retry),             // an error of the operating system
    ("P0", ErrorAction::RejectRow),         // RAISE in the table owner's trigger
    ("XX", ErrorAction::Retry),             // internal, such as "tuple concurrently updated"
];

/// Classifies an error. An error without an SQLSTATE comes from the driver. It is transient only if the connection failed: any
/// other one, such as a text that cannot be sent, would recur with every retry.
pub fn classify(error: &Error) -> ErrorAction {
    match error.as_db_error() {
        Some(error) if is_missing_partition(error) => ErrorAction::RefreshCatalog,
        Some(error) => classify_sqlstate(error.code().code()),
        None if is_connection_failure(error) => ErrorAction::Retry,
        None => ErrorAction::Halt,
    }
}

/// Whether the connection was closed or failed with an I/O error, a timeout among them.
fn is_connection_failure(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    // `InvalidInput` is what the driver returns for a message that it cannot encode, or not decode.
    let is_io = source.is_some_and(|source| source.kind() != io::ErrorKind::InvalidInput);
    error.is_closed() || is_io
}

fn classify_sqlstate(code: &str) -> ErrorAction {
    let matching = ERROR_ACTIONS.iter().filter(|(prefix, _)| code.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map_or(ErrorAction::Halt, |(_, action)| *action)
}

/// PostgreSQL reports "no partition of relation found for row" as a check violation without a constraint.
fn is_missing_partition(error: &DbError) -> bool {
    error.code().code() == "23514" && error.constraint().is_none()
}

/// Whether a key already exists.
pub fn is_unique_violation(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "23505")
}

/// A human-readable error: PostgreSQL's message and code, or the connection's error. It omits the row's values, which
/// PostgreSQL puts into the detail and sometimes into the message.
pub fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return format!("{error}{source}");
    };
    let code = db.code().code();
    let objects = [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    let objects: Vec<_> = objects.into_iter().filter_map(|(kind, name)| Some(format!("{kind} {}", name?))).collect();
    let message = match classify_sqlstate(code) {
        ErrorAction::RejectRow => data_error(code),
        ErrorAction::Retry | ErrorAction::RefreshCatalog | ErrorAction::Halt => db.message(),
    };
    let objects = if objects.is_empty() { String::new() } else { format!(" ({})", objects.join(", ")) };
    format!("{message}{objects} [SQLSTATE {code}]")
}

/// Describes a data error without the value that PostgreSQL's message may quote.
fn data_error(code: &str) -> &'static str {
    match code {
        "23502" => "null value in a required column",
        "23503" => "foreign key violation",
        "23505" => "unique constraint violation (not Millstream's key)",
        "23514" => "check constraint violation",
        "23P01" => "exclusion constraint violation",
        "22P02" => "invalid value for the column's type",
        "22001" => "text too long for the column's type",
        "22003" => "number out of range",
        _ if code.starts_with("P0") => "a trigger raised an exception",
        _ if code.starts_with("54") => "row too large",
        _ => "data error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        for (code, action) in [
            ("40P01", ErrorAction::Retry),
            ("55P03", ErrorAction::Retry),
            ("53100", ErrorAction::Retry),
            ("25006", ErrorAction::Retry),
            ("23505", ErrorAction::RejectRow),
            ("22021", ErrorAction::RejectRow),
            ("22P03", ErrorAction::RefreshCatalog),
            ("42703", ErrorAction::RefreshCatalog),
            ("42501", ErrorAction::Halt),
            ("P0001", ErrorAction::RejectRow),
            ("72000", ErrorAction::Halt),
        ] {
            assert_eq!(classify_sqlstate(code), action, "{code}");
        }
    }
}
