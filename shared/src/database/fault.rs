//! The one judge of PostgreSQL's errors: does it pass, is it the row, is our picture of the tables old, or must a person act?

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// What an error means for the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It passes: the invocation fails, and Lambda tries again.
    Retry,
    /// It is the row: that record is a dead letter, its neighbours are written.
    Reject,
    /// Our picture of the tables may be old: read it again, and plan anew.
    Stale,
    /// A person must act; until then the invocation fails, and nothing is lost.
    Halt,
}

/// SQLSTATEs and classes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>); the longest match counts.
const VERDICTS: &[(&str, Verdict)] = &[
    ("08", Verdict::Retry),    // connection
    ("08P01", Verdict::Stale), // a value of another type's binary form
    ("09", Verdict::Reject),   // a trigger refused
    ("0A000", Verdict::Stale), // cached plan must not change result type
    ("21", Verdict::Reject),   // one row twice in a statement
    ("22", Verdict::Reject),   // data
    ("22P03", Verdict::Stale), // a value of another type's binary form
    ("23", Verdict::Reject),   // constraints
    ("25006", Verdict::Retry), // read-only: a failover left us with a reader
    ("25P02", Verdict::Retry), // the transaction is aborted already
    ("26", Verdict::Retry),    // a pooler lost a prepared statement
    ("27", Verdict::Reject),   // a trigger refused
    ("28", Verdict::Retry),    // login: rotated meanwhile
    ("2F", Verdict::Reject),   // an SQL function refused
    ("38", Verdict::Reject),   // a function refused
    ("39", Verdict::Reject),   // a function refused
    ("3F", Verdict::Stale),    // no such schema
    ("40", Verdict::Retry),    // serialization, deadlock
    ("42", Verdict::Stale),    // no such table or column, another type
    ("42501", Verdict::Halt),  // not permitted
    ("42804", Verdict::Stale), // another type
    ("44", Verdict::Reject),   // a view's check option
    ("53", Verdict::Retry),    // memory, disk, connections
    ("54", Verdict::Reject),   // a row or an index entry too large
    ("55", Verdict::Retry),    // lock timeout, object in use
    ("57", Verdict::Retry),    // cancelled, shutting down
    ("58", Verdict::Retry),    // the system below
    ("P0", Verdict::Reject),   // RAISE in the owner's trigger
    ("XX", Verdict::Retry),    // internal: "tuple concurrently updated" among them
];

/// Judges an error. Without an SQLSTATE it is the connection's, which passes.
pub fn judge(error: &Error) -> Verdict {
    match error.as_db_error() {
        Some(error) if is_missing_partition(error) => Verdict::Stale,
        Some(error) => judge_sqlstate(error.code().code()),
        None => Verdict::Retry,
    }
}

fn judge_sqlstate(code: &str) -> Verdict {
    let matching = VERDICTS.iter().filter(|(prefix, _)| code.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map_or(Verdict::Halt, |(_, verdict)| *verdict)
}

/// PostgreSQL reports "no partition of relation found for row" as a check violation without a constraint.
fn is_missing_partition(error: &DbError) -> bool {
    error.code().code() == "23514" && error.constraint().is_none()
}

/// Whether a key is there already.
pub fn is_unique_violation(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "23505")
}

/// An error for people: PostgreSQL's message and code, or the connection's; without the row's values, which PostgreSQL
/// puts into the detail and sometimes into the message.
pub fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return format!("{error}{source}");
    };
    let code = db.code().code();
    let place = [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    let place: Vec<_> = place.into_iter().filter_map(|(what, name)| Some(format!("{what} {}", name?))).collect();
    let message = match judge_sqlstate(code) {
        Verdict::Reject => data_error(code),
        Verdict::Retry | Verdict::Stale | Verdict::Halt => db.message(),
    };
    let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(", ")) };
    format!("{message}{place} [SQLSTATE {code}]")
}

/// What a data error is, without the value that PostgreSQL's message may quote.
fn data_error(code: &str) -> &'static str {
    match code {
        "23502" => "a required column is null",
        "23503" => "a foreign key points nowhere",
        "23505" => "a unique constraint of the owner's is violated",
        "23514" => "a check constraint is violated",
        "23P01" => "an exclusion constraint is violated",
        "22P02" => "the text is none of the type's values",
        "22001" => "the text is too long",
        "22003" => "the number is out of range",
        _ if code.starts_with("P0") => "a trigger raised an exception",
        _ if code.starts_with("54") => "the row is too large",
        _ => "the row is not accepted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_counts() {
        for (code, verdict) in [
            ("40P01", Verdict::Retry),
            ("55P03", Verdict::Retry),
            ("53100", Verdict::Retry),
            ("25006", Verdict::Retry),
            ("23505", Verdict::Reject),
            ("22021", Verdict::Reject),
            ("22P03", Verdict::Stale),
            ("42703", Verdict::Stale),
            ("42501", Verdict::Halt),
            ("P0001", Verdict::Reject),
            ("72000", Verdict::Halt),
        ] {
            assert_eq!(judge_sqlstate(code), verdict, "{code}");
        }
    }
}
