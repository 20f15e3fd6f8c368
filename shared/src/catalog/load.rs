//! Asking the database for tables. The only reader of PostgreSQL's catalogs.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::comment::parse_note;
use super::{Catalog, ColumnType, DbColumn, DbPartition, DbTable, RowTypeOids};
use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::timestamp::Timestamp;

/// The database could not be asked, or has what the writer cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A question failed.
    #[error("could not read the system catalogs")]
    Database(#[from] tokio_postgres::Error),
    /// A default partition takes the rows whose partition is about to be made, which then cannot be attached.
    #[error("table {0} has a default partition, which would capture new rows; detach it")]
    DefaultPartition(String),
}

/// Asks for those of `names` that the catalog does not know. Must run inside a transaction, for its settings are local.
///
/// # Errors
/// The connection's, and tables that the writer cannot work with.
pub async fn load(client: &Client, catalog: &mut Catalog, names: &[TableName]) -> Result<(), CatalogError> {
    let unknown: Vec<&TableName> = names.iter().filter(|name| !catalog.is_loaded(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let schemas: Vec<&str> = unknown.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = unknown.iter().map(|name| name.table.as_str()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
    let rows = client.query_typed(include_str!("columns.sql"), &parameters).await?;
    let mut found: HashMap<u32, DbTable> = HashMap::new();
    for row in &rows {
        if let Some((oid, column)) = column(row) {
            found.entry(oid).or_insert_with(|| table(oid, row)).columns.push(column);
        }
    }
    let oids: Vec<u32> = found.keys().copied().collect();
    for (oid, fingerprint) in fingerprints(client, &oids).await? {
        found.entry(oid).and_modify(|table| table.fingerprint = fingerprint);
    }
    for row in client.query_typed(include_str!("partitions.sql"), &[(&oids, Type::OID_ARRAY)]).await? {
        if let Some(table) = found.get_mut(&row.get(0)) {
            add_relation(table, &row)?;
        }
    }
    found.values_mut().for_each(DbTable::write_arrays_as_text);
    let mut found: HashMap<TableName, DbTable> = found.into_values().map(|table| (table.name.clone(), table)).collect();
    for name in unknown {
        catalog.insert(name.clone(), found.remove(name));
    }
    Ok(())
}

/// The kind and the number of each type, as a declaration calls it (`numeric(12,2)`); `None` where there is no such type.
///
/// # Errors
/// The connection's.
pub async fn lookup_types(client: &Client, names: &[&str]) -> Result<Vec<Option<(ColumnType, u32)>>, CatalogError> {
    let rows = client.query_typed(include_str!("types.sql"), &[(&names, Type::TEXT_ARRAY)]).await?;
    let kind = |(name, row): (&&str, &Row)| {
        let typname: &str = row.get::<_, Option<&str>>("typname")?;
        let modifier = super::column_type::modifier(typname, name);
        Some((ColumnType::from_catalog(typname, row.get("typtype"), row.get("builtin"), modifier), row.get("oid")))
    };
    Ok(names.iter().zip(&rows).map(kind).collect())
}

/// The fingerprints of the tables that are still there.
///
/// # Errors
/// The connection's.
pub async fn fingerprints(client: &Client, oids: &[u32]) -> Result<Vec<(u32, String)>, tokio_postgres::Error> {
    let rows = client.query_typed(include_str!("fingerprints.sql"), &[(&oids, Type::OID_ARRAY)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn name(schema: &str, table: &str) -> TableName {
    TableName { schema: Identifier::truncated(schema, schema), table: Identifier::truncated(table, table) }
}

fn table(oid: u32, row: &Row) -> DbTable {
    let strategy: Option<&str> = row.get("strategy");
    let by: Option<&str> = row.get("partitioned_by");
    let by = by.filter(|_| strategy == Some("r")).map(|by| Identifier::truncated(by, by));
    DbTable {
        name: name(row.get("nspname"), row.get("relname")),
        oid,
        row_type: RowTypeOids { row: row.get("row_type"), array: row.get("row_array") },
        owned: row.get("owned"),
        has_check: row.get("checked"),
        origin: row.get::<_, Option<&str>>("comment_of_table").and_then(parse_note).map(str::to_owned),
        columns: Vec::new(),
        other_partitioning: strategy.is_some() && by.is_none(),
        partition_column: by,
        partitions: Vec::new(),
        unique: Vec::new(),
        fingerprint: String::new(),
    }
}

fn column(row: &Row) -> Option<(u32, DbColumn)> {
    let comment: Option<String> = row.get("comment");
    let column = DbColumn {
        name: Identifier::exact(row.get("attname"))?,
        kind: ColumnType::from_catalog(row.get("typname"), row.get("typtype"), row.get("builtin"), row.get("typmod")),
        type_oid: row.get("atttypid"),
        sql_type: row.get("sql_type"),
        source_path: comment.as_deref().and_then(parse_note).map(str::to_owned),
        comment,
        required: row.get("required"),
        may_reject_null: row.get("guarded"),
        generated: row.get("generated"),
    };
    Some((row.get("oid"), column))
}

/// The table itself, or one of its partitions.
fn add_relation(table: &mut DbTable, row: &Row) -> Result<(), CatalogError> {
    let unique: Vec<String> = row.get("unique_columns");
    let unique = unique.iter().map(|list| list.split('\u{1}').filter_map(Identifier::exact).collect()).collect();
    if row.get("itself") {
        table.unique = unique;
        return Ok(());
    }
    if row.get("is_default") {
        return Err(CatalogError::DefaultPartition(table.name.unquoted()));
    }
    if table.partition_column.is_some() {
        let end = |name: &str| row.get::<_, Option<i64>>(name).map(Timestamp);
        let bounds = TimeRange { from: end("lower"), to: end("upper") };
        table.partitions.push(DbPartition { name: name(row.get("nspname"), row.get("relname")), bounds, unique });
    }
    Ok(())
}
