//! Compares expected rows with the stored rows. Writes nothing.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::row_params::RowParams;
use super::sql::{self, parameters};
use super::{ApplyError, Limits, ddl};
use crate::plan::TableWrite;
use crate::spec::VERSION;

/// A row that differs from the expected row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowDifference {
    /// Its key, as text.
    pub key: String,
    /// The columns that differ; `None` if the row is missing.
    pub columns: Option<Vec<String>>,
}

/// Compares the rows of a write with the table's rows.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn diff_rows(client: &Client, write: &TableWrite, limits: Limits) -> Result<Vec<RowDifference>, ApplyError> {
    let mut params = RowParams::new(write, VERSION, Vec::new());
    for row in &write.rows {
        params.push(write.newest_cells(row), "", &[]);
    }
    let statement = sql::select_differences(write, &params.source());
    let arrays = params.arrays();
    ddl::begin(client, limits.lock, limits.statement).await?;
    let rows = client.query_typed(&statement, &parameters(&arrays)).await?;
    client.batch_execute("COMMIT").await?;
    let row_difference = |row: &tokio_postgres::Row| RowDifference {
        key: row.get(0),
        columns: (!row.get::<_, bool>(1)).then(|| row.get(2)),
    };
    Ok(rows.iter().map(row_difference).collect())
}

/// The keys of a table that follow a given key, in order, as texts (bytes as base64). Rows marked as deleted are
/// skipped.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn list_keys(
    client: &Client,
    write: &TableWrite,
    after: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Vec<String>>, ApplyError> {
    let statement = sql::select_keys(write, after.is_some(), limit);
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        after.into_iter().flatten().map(|key| (key as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = client.query_typed(&statement, &parameters).await?;
    Ok(rows.iter().map(|row| (0..write.key_column_count).map(|column| row.get(column)).collect()).collect())
}
