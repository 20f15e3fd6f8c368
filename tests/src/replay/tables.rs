//! The tables that a replay has filled, human-readable.

use tokio_postgres::Client;

use crate::system::SystemResult;

/// The number of rows shown per table.
pub const ROWS_MAX: i64 = 20;

/// A table and its first rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableContent {
    /// `schema.table`, quoted where SQL needs it.
    pub name: String,
    /// Names and types, in the order of the table.
    pub columns: Vec<(String, String)>,
    /// All of its rows.
    pub rows: i64,
    /// The first rows as JSON, without nulls, in the order of the columns.
    pub first_rows: Vec<String>,
}

/// Partitions count with their parent; the schema `millstream` is the system's own.
const TABLES: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'millstream') ORDER BY n.nspname, c.relname";

/// Types by the names that a configuration has for them, too.
const COLUMNS: &str = "SELECT quote_ident(attname), \
    replace(format_type(atttypid, atttypmod), 'timestamp with time zone', 'timestamptz') FROM pg_attribute \
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

/// Reads the tables of a database; rows of the first `tables_max` only.
///
/// # Errors
/// Returns PostgreSQL's error.
pub async fn read_tables(client: &Client, tables_max: usize) -> SystemResult<Vec<TableContent>> {
    client.batch_execute("SET timezone TO 'UTC'").await?;
    let mut tables = Vec::new();
    for found in client.query(TABLES, &[]).await? {
        let (oid, name): (u32, String) = (found.get(0), found.get(1));
        let columns = client.query(COLUMNS, &[&oid]).await?;
        let columns = columns.iter().map(|column| (column.get(0), column.get(1))).collect();
        let rows = client.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await?.get(0);
        let limit = if tables.len() < tables_max { ROWS_MAX } else { 0 };
        let query = format!("SELECT json_strip_nulls(row_to_json(t))::text FROM {name} t LIMIT {limit}");
        let first_rows = client.query(&query, &[]).await?.iter().map(|row| row.get(0)).collect();
        tables.push(TableContent { name, columns, rows, first_rows });
    }
    Ok(tables)
}
