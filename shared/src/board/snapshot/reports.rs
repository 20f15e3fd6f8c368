//! The reports about one user. A report is read by a function that the configuration names, whose argument is the user that a
//! verified token or session names: nothing of a request reaches it.

use std::fmt::Write;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::config::{ColumnFormat, ReportConfig};

/// So many rows are read; that there are more is said.
const ROWS_MAX: usize = 100;
/// A longer text is cut off.
const TEXT_CHARS_MAX: usize = 1_000;

/// The rows of a report.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ReportRows {
    /// The values of each row, in the order of the configured columns: exact numbers, and times in microseconds since 1970.
    pub rows: Vec<Vec<Option<String>>>,
    /// Whether there are more rows.
    pub has_more: bool,
}

/// Reads a report about a user.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn read(client: &Client, report: &ReportConfig, user: &str) -> Result<ReportRows, Error> {
    let mut found = client.query_typed(&sql(report), &[(&user, Type::TEXT)]).await?;
    let has_more = found.len() > ROWS_MAX;
    found.truncate(ROWS_MAX);
    let values = |row: &Row| (0..report.columns.len()).map(|index| row.get(index)).collect();
    Ok(ReportRows { rows: found.iter().map(values).collect(), has_more })
}

/// The rows in the order in which the function returns them.
fn sql(report: &ReportConfig) -> String {
    let mut sql = "SELECT ".to_owned();
    for (index, column) in report.columns.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let value = format!("report.{}", column.name);
        let cell = match column.format {
            ColumnFormat::Text => format!("pg_catalog.left({value}::pg_catalog.text, {TEXT_CHARS_MAX})"),
            ColumnFormat::Number | ColumnFormat::Percent => format!("{value}::pg_catalog.text"),
            // An infinite time is no time to show.
            ColumnFormat::Time => format!(
                "CASE WHEN pg_catalog.isfinite({value}) THEN \
                 (extract(epoch FROM {value}) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text END"
            ),
        };
        write!(sql, "{separator}{cell}").unwrap_or_default();
    }
    let limit = ROWS_MAX + 1;
    write!(
        sql,
        " FROM ROWS FROM ({}($1)) WITH ORDINALITY AS report ORDER BY report.ordinality LIMIT {limit}",
        report.function
    )
    .unwrap_or_default();
    sql
}
