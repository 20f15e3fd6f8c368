//! The SQL functions through which a transform reads what is new: `millstream.changes`, `millstream.removed_keys` and
//! `millstream.is_full_run`.
//!
//! Their argument is a typed NULL, `NULL::schema.table`: a text cannot carry a row type. Which transform asks is not a setting:
//! it is the row of `millstream.transform` that this very transaction has marked as running, which only the writer's role can
//! do. None of them moves a cursor.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::FeedError;
use crate::apply;
use crate::names::{hex, quote_literal};

/// The functions, in the order in which they need each other.
const FUNCTIONS: [(&str, &str); 6] = [
    ("millstream.feed_identity()", include_str!("functions/identity.sql")),
    ("millstream.feed_snapshot()", include_str!("functions/snapshot.sql")),
    ("millstream.feed_reader(regtype)", include_str!("functions/reader.sql")),
    ("millstream.changes(anyelement)", include_str!("functions/changes.sql")),
    ("millstream.removed_keys(anyelement)", include_str!("functions/removed_keys.sql")),
    ("millstream.is_full_run(anyelement)", include_str!("functions/is_full_run.sql")),
];

/// What the comment of the last function says, if all of them are those of this release.
fn mark() -> String {
    let mut text = String::new();
    for (signature, definition) in FUNCTIONS {
        text.push_str(signature);
        text.push_str(definition);
    }
    format!("Millstream: functions {}", hex(&xxhash_rust::xxh3::xxh3_64(text.as_bytes()).to_be_bytes()))
}

/// Whether the functions exist and are those of this release.
pub(super) async fn are_current(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let (signature, _) = FUNCTIONS[FUNCTIONS.len() - 1];
    let statement = include_str!("functions/is_current.sql");
    let rows = client.query_typed(statement, &[(&signature, Type::TEXT), (&mark(), Type::TEXT)]).await?;
    Ok(!rows.is_empty())
}

/// Creates or replaces the functions. The transaction must have locked Millstream's schema.
pub(super) async fn create(client: &Client) -> Result<(), FeedError> {
    apply::lock_system_schema(client).await?;
    if are_current(client).await? {
        return Ok(());
    }
    for (signature, definition) in FUNCTIONS {
        client.execute_typed(definition, &[]).await?;
        client.execute_typed(&format!("REVOKE ALL ON FUNCTION {signature} FROM PUBLIC"), &[]).await?;
    }
    let (signature, _) = FUNCTIONS[FUNCTIONS.len() - 1];
    let comment = format!("COMMENT ON FUNCTION {signature} IS {}", quote_literal(&mark()));
    client.execute_typed(&comment, &[]).await?;
    Ok(())
}
