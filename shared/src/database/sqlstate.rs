//! Classifies PostgreSQL's errors: retry, reject the row, refresh the catalog, or halt until an operator acts.

use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

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

/// The name of each condition, as in PL/pgSQL: `23505 unique_violation`.
const CONDITIONS: &str = include_str!("sqlstate/conditions.txt");

/// Messages of these SQLSTATEs describe the session, its permissions, locks and resources, never a value of a row, if
/// PostgreSQL wrote them and not a function.
const MESSAGES_WITHOUT_VALUES: &[&str] = &["25", "26", "42501", "53", "55", "57", "58", "XX001", "XX002"];

/// Messages of these SQLSTATEs describe the statement, if they have a position in it. Without a position they may quote a
/// value: a cast to `regclass` or `tsquery` reports these, too.
const MESSAGES_OF_STATEMENTS: &[&str] = &["0A", "3F", "42"];

/// The routines of PostgreSQL that raise what a function or trigger in PL/pgSQL or PL/Python asks for.
const RAISE_ROUTINES: &[&str] = &["exec_stmt_raise", "exec_stmt_assert", "PLy_elog", "PLy_elog_impl"];

/// SQLSTATEs that are transient also if a function raises them: it may pass on an error that it caught.
const TRANSIENT_IF_RAISED: &[&str] = &["08", "40", "53", "55006", "55P03", "57", "58"];

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

/// Classifies an error of a statement that writes rows. What the owner's functions and triggers raise concerns the row,
/// whatever its SQLSTATE, and so does an SQLSTATE that PostgreSQL does not define.
pub fn classify_row_error(error: &Error) -> ErrorAction {
    let Some(db) = error.as_db_error() else { return classify(error) };
    let code = db.code().code();
    if is_raised(db) {
        return if has_prefix(code, TRANSIENT_IF_RAISED) { ErrorAction::Retry } else { ErrorAction::RejectRow };
    }
    if action_of(code).is_none() && condition(code).is_none() {
        return ErrorAction::RejectRow;
    }
    classify(error)
}

fn classify_sqlstate(code: &str) -> ErrorAction {
    action_of(code).unwrap_or(ErrorAction::Halt)
}

fn action_of(code: &str) -> Option<ErrorAction> {
    let matching = ERROR_ACTIONS.iter().filter(|(prefix, _)| code.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, action)| *action)
}

fn condition(code: &str) -> Option<&'static str> {
    CONDITIONS.lines().find_map(|line| line.strip_prefix(code)).map(str::trim_start)
}

fn has_prefix(code: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| code.starts_with(prefix))
}

/// Whether a function or trigger of the database's owner chose the SQLSTATE and all texts of the error.
fn is_raised(error: &DbError) -> bool {
    error.routine().is_some_and(|routine| RAISE_ROUTINES.contains(&routine))
}

/// PostgreSQL reports "no partition of relation found for row" as a check violation without a constraint.
fn is_missing_partition(error: &DbError) -> bool {
    error.code().code() == "23514" && error.constraint().is_none()
}

/// Whether a key already exists.
pub fn is_unique_violation(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "23505")
}

/// A human-readable error: the SQLSTATE with its condition, and the table, column and constraint that PostgreSQL names; or
/// the connection's error. The message is PostgreSQL's only where it cannot contain a value of a row. What a function or
/// trigger raises is never quoted, and PostgreSQL's detail and hint neither.
pub fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return format!("{error}{source}");
    };
    let code = db.code().code();
    if is_raised(db) {
        let condition = condition(code).map(|name| format!(" ({name})")).unwrap_or_default();
        return format!("raised by {}{condition} [SQLSTATE {code}]", raising_function(db));
    }
    let message = own_message(db).or_else(|| condition(code)).unwrap_or("condition unknown to PostgreSQL");
    let objects = [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    let objects: Vec<_> = objects.into_iter().filter_map(|(kind, name)| Some(format!("{kind} {}", name?))).collect();
    let objects = if objects.is_empty() { String::new() } else { format!(" ({})", objects.join(", ")) };
    format!("{message}{objects} [SQLSTATE {code}]")
}

/// PostgreSQL's own message, where it cannot contain a value of a row. An error within a function has a context: its
/// message may be about anything that the function does.
fn own_message(error: &DbError) -> Option<&str> {
    let code = error.code().code();
    let ends_session = matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    let is_about_statement =
        matches!(error.position(), Some(ErrorPosition::Original(_))) && has_prefix(code, MESSAGES_OF_STATEMENTS);
    let is_safe = ends_session || is_about_statement || has_prefix(code, MESSAGES_WITHOUT_VALUES);
    (is_safe && error.where_().is_none()).then(|| error.message())
}

/// The function that raised an error. The context's first line is PostgreSQL's: `PL/pgSQL function f(text) line 1 at RAISE`.
fn raising_function(error: &DbError) -> &str {
    let line = error.where_().and_then(|context| context.lines().next()).unwrap_or_default();
    let signature = line.strip_prefix("PL/pgSQL ").and_then(|rest| rest.split_once(" line "));
    signature.map_or("a function or trigger", |(function, _)| function)
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

    #[test]
    fn conditions_have_their_standard_names() {
        assert_eq!(condition("23505"), Some("unique_violation"));
        assert_eq!(condition("P0001"), Some("raise_exception"));
        assert_eq!(condition("UE001"), None);
        assert!(CONDITIONS.lines().all(|line| line.len() > 6 && line.as_bytes()[5] == b' '));
    }
}
