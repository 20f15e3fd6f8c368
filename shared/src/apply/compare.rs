//! Rows as they should be, compared with the rows that are there. Nothing is written.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::row_params::RowParams;
use super::sql::{self, parameters};
use super::{ApplyError, Limits, ddl};
use crate::plan::TableWrite;
use crate::spec::VERSION;

/// A row that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowDifference {
    /// Its key, as text.
    pub key: String,
    /// The columns that differ; none where the row is not there at all.
    pub columns: Option<Vec<String>>,
}

/// Compares the rows of a write with the table's.
///
/// # Errors
/// PostgreSQL's, or the connection's.
pub async fn diff_rows(client: &Client, write: &TableWrite, limits: Limits) -> Result<Vec<RowDifference>, ApplyError> {
    let mut tuples = RowParams::new(write, VERSION, Vec::new());
    for row in &write.rows {
        tuples.push(write.newest_cells(row), "", &[]);
    }
    let statement = sql::select_differences(write, &tuples.source());
    let arrays = tuples.arrays();
    ddl::begin(client, limits.lock, limits.statement).await?;
    let rows = client.query_typed(&statement, &parameters(&arrays)).await?;
    client.batch_execute("COMMIT").await?;
    let differing = |row: &tokio_postgres::Row| RowDifference {
        key: row.get(0),
        columns: (!row.get::<_, bool>(1)).then(|| row.get(2)),
    };
    Ok(rows.iter().map(differing).collect())
}

/// The keys of a table behind one of them, as texts (bytes as base64), in their order; without rows that are marked as deleted.
///
/// # Errors
/// PostgreSQL's, or the connection's.
pub async fn list_keys(
    client: &Client,
    write: &TableWrite,
    behind: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Vec<String>>, ApplyError> {
    let statement = sql::select_keys(write, behind.is_some(), limit);
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        behind.into_iter().flatten().map(|key| (key as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = client.query_typed(&statement, &parameters).await?;
    Ok(rows.iter().map(|row| (0..write.key).map(|place| row.get(place)).collect()).collect())
}
