//! Classifies PostgreSQL's errors by what was being done and the SQLSTATE: retry, reject the row or the table, refresh the
//! catalog, or halt until an operator acts.
//!
//! An SQLSTATE alone does not say what is at fault: 42501 is a missing right on one table if it is locked or changed, a policy
//! that rejects one row if it is written, and concerns everything if Millstream's own tables are read.

use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

/// What was being done when an error occurred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatabaseStep {
    /// Connecting, or a statement that concerns no table.
    Session,
    /// Reading the definitions of tables.
    ReadCatalog,
    /// Reading, writing or creating Millstream's own tables, or creating a schema: every table depends on them.
    SystemTable,
    /// Creating a table, or one of its columns or partitions.
    ChangeSchema,
    /// Locking a table before it is written.
    LockTable,
    /// Reading and writing a table's rows.
    WriteRows,
}

/// What an error means for the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// The error is transient: the invocation fails, and Lambda retries it.
    Retry,
    /// The row is at fault: its record becomes a dead letter, and the other rows are written.
    RejectRow,
    /// The catalog may be stale: read it again and plan the batch again. If the error recurs, see [`concerns_table`].
    RefreshCatalog,
    /// The table is at fault: its records become dead letters, and other tables are written.
    RejectTable,
    /// An operator must act. Until then the invocation fails, and nothing is lost.
    Halt,
}

/// What an SQLSTATE says, whatever was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SqlstateKind {
    /// It passes.
    Transient,
    /// A value, or what a function did with it.
    Data,
    /// A relation, or what the statement does with it: it changed since the catalog was read, or does not allow this.
    Definition,
    /// Another condition that PostgreSQL defines.
    Other,
    /// PostgreSQL does not define it.
    Undefined,
}

/// SQLSTATEs and their classes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>); the longest prefix
/// wins.
const SQLSTATE_KINDS: &[(&str, SqlstateKind)] = &[
    ("08", SqlstateKind::Transient),     // connection
    ("08P01", SqlstateKind::Definition), // a value in another type's binary format
    ("09", SqlstateKind::Data),          // a trigger raised it
    ("0A", SqlstateKind::Definition),    // cached plan must not change result type; a foreign table accepts no rows
    ("21", SqlstateKind::Data),          // one row twice in a statement
    ("22", SqlstateKind::Data),          // data
    ("22P03", SqlstateKind::Definition), // a value in another type's binary format
    ("23", SqlstateKind::Data),          // constraints
    ("25006", SqlstateKind::Transient),  // read-only: connected to a reader after a failover
    ("25P02", SqlstateKind::Transient),  // the transaction is already aborted
    ("26", SqlstateKind::Transient),     // a pooler lost a prepared statement
    ("27", SqlstateKind::Data),          // a trigger raised it
    ("28", SqlstateKind::Transient),     // login: the password was rotated meanwhile
    ("2F", SqlstateKind::Data),          // an SQL function raised it
    ("38", SqlstateKind::Data),          // a function raised it
    ("39", SqlstateKind::Data),          // a function raised it
    ("3F", SqlstateKind::Definition),    // no such schema
    ("40", SqlstateKind::Transient),     // serialization, deadlock
    ("42", SqlstateKind::Definition),    // no such table or column, another type, no right
    ("44", SqlstateKind::Data),          // a view's check option
    ("53", SqlstateKind::Transient),     // memory, disk, connections
    ("54", SqlstateKind::Data),          // a row or an index entry too large
    ("55", SqlstateKind::Transient),     // lock timeout, object in use
    ("55000", SqlstateKind::Definition), // ON CONFLICT with a deferrable constraint, an UPDATE without a replica identity
    ("57", SqlstateKind::Transient),     // cancelled, shutting down
    ("58", SqlstateKind::Transient),     // an error of the operating system
    ("72", SqlstateKind::Transient),     // snapshot too old
    ("HV", SqlstateKind::Definition),    // a foreign table
    ("P0", SqlstateKind::Data),          // RAISE in the table owner's trigger
    ("XX", SqlstateKind::Transient),     // internal, such as "tuple concurrently updated"
];

/// SQLSTATEs of a schema change that mean that another session was faster or holds a lock: the change is retried from the
/// current schema.
const SCHEMA_COLLISIONS: &[&str] =
    &["55P03", "55006", "40P01", "40001", "42P06", "42P07", "42701", "42710", "42P17", "23505", "XX000"];

/// SQLSTATEs of a write that concern the table even if the error has no position in the statement.
const TABLE_SQLSTATES: &[&str] = &["0A", "42501", "428C9", "42809", "42P10", "55000", "HV"];

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

/// Classifies an error by what was being done.
///
/// An error without an SQLSTATE comes from the driver. It is transient only if the connection failed: any other one, such as a
/// text that cannot be sent, would recur with every retry. What the owner's functions and triggers raise concerns the row that
/// is written or the schema change, whatever its SQLSTATE, and so does an SQLSTATE that PostgreSQL does not define.
pub fn classify(step: DatabaseStep, error: &Error) -> ErrorAction {
    match error.as_db_error() {
        Some(db) if is_raised(db) => classify_raised(step, db.code().code()),
        Some(db) if step == DatabaseStep::WriteRows && has_no_partition(db) => ErrorAction::RefreshCatalog,
        Some(db) => classify_sqlstate(step, db.code().code()),
        None if is_connection_failure(error) => ErrorAction::Retry,
        None => ErrorAction::Halt,
    }
}

/// Whether the connection cannot be used any more: it failed, or PostgreSQL has ended the session with this error.
pub fn ends_connection(error: &Error) -> bool {
    let severity = error.as_db_error().map(DbError::parsed_severity);
    severity.is_none_or(|severity| matches!(severity, Some(Severity::Fatal | Severity::Panic)))
}

/// Whether the connection was closed or failed with an I/O error, a timeout among them.
fn is_connection_failure(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    // `InvalidInput` is what the driver returns for a message that it cannot encode, or not decode.
    let is_io = source.is_some_and(|source| source.kind() != io::ErrorKind::InvalidInput);
    error.is_closed() || is_io
}

/// Classifies what a function or trigger of the database's owner raised.
fn classify_raised(step: DatabaseStep, code: &str) -> ErrorAction {
    match step {
        _ if has_prefix(code, TRANSIENT_IF_RAISED) => ErrorAction::Retry,
        DatabaseStep::WriteRows => ErrorAction::RejectRow,
        // An event trigger.
        DatabaseStep::ChangeSchema => ErrorAction::RejectTable,
        DatabaseStep::Session | DatabaseStep::ReadCatalog | DatabaseStep::SystemTable | DatabaseStep::LockTable => {
            ErrorAction::Halt
        }
    }
}

fn classify_sqlstate(step: DatabaseStep, code: &str) -> ErrorAction {
    if step == DatabaseStep::ChangeSchema && has_prefix(code, SCHEMA_COLLISIONS) {
        return ErrorAction::RefreshCatalog;
    }
    match (step, kind_of(code)) {
        (_, SqlstateKind::Transient) => ErrorAction::Retry,
        (DatabaseStep::Session | DatabaseStep::ReadCatalog, _) => ErrorAction::Halt,
        (DatabaseStep::ChangeSchema, _) => ErrorAction::RejectTable,
        (DatabaseStep::LockTable, SqlstateKind::Definition) if is_permission(code) => ErrorAction::RejectTable,
        (DatabaseStep::SystemTable, SqlstateKind::Definition) if is_permission(code) => ErrorAction::Halt,
        (DatabaseStep::SystemTable | DatabaseStep::LockTable | DatabaseStep::WriteRows, SqlstateKind::Definition) => {
            ErrorAction::RefreshCatalog
        }
        (DatabaseStep::WriteRows, SqlstateKind::Data | SqlstateKind::Other | SqlstateKind::Undefined) => {
            ErrorAction::RejectRow
        }
        (
            DatabaseStep::SystemTable | DatabaseStep::LockTable,
            SqlstateKind::Data | SqlstateKind::Other | SqlstateKind::Undefined,
        ) => ErrorAction::Halt,
    }
}

fn kind_of(code: &str) -> SqlstateKind {
    let matching = SQLSTATE_KINDS.iter().filter(|(prefix, _)| code.starts_with(prefix));
    match matching.max_by_key(|(prefix, _)| prefix.len()) {
        Some((_, kind)) => *kind,
        None if condition(code).is_some() => SqlstateKind::Other,
        None => SqlstateKind::Undefined,
    }
}

/// Whether a write that was rejected with [`ErrorAction::RefreshCatalog`], although the catalog is fresh, was rejected because
/// of the table. Otherwise the row is at fault: a check constraint that casts a value to `regclass` reports 42P01, too.
pub fn concerns_table(error: &Error) -> bool {
    let Some(db) = error.as_db_error() else { return false };
    matches!(db.position(), Some(ErrorPosition::Original(_)))
        || has_no_partition(db)
        || (db.where_().is_none_or(|context| context.starts_with("COPY "))
            && has_prefix(db.code().code(), TABLE_SQLSTATES))
}

/// Whether a right is missing, or a policy rejects the row.
pub fn is_permission(code: &str) -> bool {
    code == "42501"
}

/// Whether a lock was not obtained in time.
pub fn is_lock_timeout(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}

/// The relation that has no partition for the row, if that is the error.
pub fn relation_without_partition(error: &Error) -> Option<(&str, &str)> {
    let db = error.as_db_error().filter(|db| has_no_partition(db))?;
    Some((db.schema()?, db.table()?))
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
fn has_no_partition(error: &DbError) -> bool {
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

/// The name of the function that raised an error, without its schema and arguments; empty if PostgreSQL does not name it.
/// `None` if no function raised it.
pub fn raising_function_name(error: &Error) -> Option<&str> {
    let db = error.as_db_error().filter(|db| is_raised(db))?;
    let signature = raising_function(db).strip_prefix("function ").unwrap_or_default();
    let qualified = signature.split('(').next().unwrap_or_default();
    Some(qualified.rsplit('.').next().unwrap_or(qualified).trim_matches('"'))
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
            ("42501", ErrorAction::RefreshCatalog),
            ("55000", ErrorAction::RefreshCatalog),
            ("HV000", ErrorAction::RefreshCatalog),
            ("P0001", ErrorAction::RejectRow),
            ("20000", ErrorAction::RejectRow),
            ("UE001", ErrorAction::RejectRow),
        ] {
            assert_eq!(classify_sqlstate(DatabaseStep::WriteRows, code), action, "{code}");
        }
    }

    const STEPS: [DatabaseStep; 6] = [
        DatabaseStep::Session,
        DatabaseStep::ReadCatalog,
        DatabaseStep::SystemTable,
        DatabaseStep::ChangeSchema,
        DatabaseStep::LockTable,
        DatabaseStep::WriteRows,
    ];

    #[test]
    fn what_is_done_decides_what_an_sqlstate_means() {
        use ErrorAction::{Halt, RefreshCatalog, RejectRow, RejectTable};
        for (code, actions) in [
            ("42501", [Halt, Halt, Halt, RejectTable, RejectTable, RefreshCatalog]),
            ("42P01", [Halt, Halt, RefreshCatalog, RejectTable, RefreshCatalog, RefreshCatalog]),
            ("0A000", [Halt, Halt, RefreshCatalog, RejectTable, RefreshCatalog, RefreshCatalog]),
            ("42P07", [Halt, Halt, RefreshCatalog, RefreshCatalog, RefreshCatalog, RefreshCatalog]),
            ("22008", [Halt, Halt, Halt, RejectTable, Halt, RejectRow]),
            ("54011", [Halt, Halt, Halt, RejectTable, Halt, RejectRow]),
        ] {
            assert_eq!(STEPS.map(|step| classify_sqlstate(step, code)), actions, "{code}");
        }
        assert_eq!(classify_raised(DatabaseStep::ChangeSchema, "P0001"), RejectTable);
        assert_eq!(classify_raised(DatabaseStep::WriteRows, "42501"), RejectRow);
    }

    #[test]
    fn what_passes_rejects_nothing_whatever_is_done() {
        for code in ["08006", "40001", "53100", "53300", "55006", "57P01", "58030", "25006"] {
            for step in STEPS {
                let action = classify_sqlstate(step, code);
                let is_collision = step == DatabaseStep::ChangeSchema && action == ErrorAction::RefreshCatalog;
                assert!(action == ErrorAction::Retry || is_collision, "{step:?} {code}");
            }
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
