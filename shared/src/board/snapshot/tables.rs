//! The tables of the sources, from PostgreSQL's catalog: estimates, no counting and no locks.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::config::Config;

/// A table.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceTable {
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
    /// Its rows, as PostgreSQL estimates them.
    pub rows: i64,
    /// Its size on disk with indexes and large values, as of the last VACUUM or ANALYZE; `None` before the first.
    pub bytes: Option<i64>,
    /// The number of its partitions; `None` if it is not partitioned.
    pub partitions: Option<i64>,
    /// Of these, the ones that begin in the future.
    pub partitions_ahead: i64,
}

/// Reads the tables of all schemas that the sources fill.
pub async fn read_tables(client: &Client, config: &Config) -> Result<Vec<SourceTable>, Error> {
    let mut schemas: Vec<&str> = config.sources.iter().map(|source| source.schema.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    let rows = client.query_typed(include_str!("tables.sql"), &[(&schemas, Type::TEXT_ARRAY)]).await?;
    let table = |row: &Row| SourceTable {
        schema: row.get("schema"),
        name: row.get("name"),
        rows: row.get("rows"),
        bytes: row.get("bytes"),
        partitions: row.get("partitions"),
        partitions_ahead: row.get("partitions_ahead"),
    };
    Ok(rows.iter().map(table).collect())
}
