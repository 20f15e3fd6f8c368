//! Loads tables from PostgreSQL's system catalogs.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::comment::parse_note;
use super::{
    Catalog, ColumnType, DbColumn, DbPartition, DbTable, GeneratedAs, OtherPartitioning, PartitionRelation,
    PartitionStrategy, RowTypeOids,
};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, is_lock_timeout};
use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::timestamp::Timestamp;

/// The system catalogs could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the system catalogs{}", format_tables(.tables))]
pub struct CatalogError {
    /// The tables whose definitions were read, if they are known.
    tables: Vec<TableName>,
    source: tokio_postgres::Error,
}

impl CatalogError {
    /// Whether an operator must act before the catalogs can be read.
    pub fn needs_operator(&self) -> bool {
        classify(DatabaseStep::ReadCatalog, &self.source) == ErrorAction::Halt
    }

    /// Whether a lock on one of the tables was not obtained in time: newer versions of PostgreSQL lock partitions to read their
    /// bounds.
    pub fn is_lock_timeout(&self) -> bool {
        is_lock_timeout(&self.source)
    }

    /// PostgreSQL's error, or the connection's.
    pub fn into_source(self) -> tokio_postgres::Error {
        self.source
    }
}

impl From<tokio_postgres::Error> for CatalogError {
    fn from(source: tokio_postgres::Error) -> Self {
        Self { tables: Vec::new(), source }
    }
}

fn format_tables(tables: &[TableName]) -> String {
    match tables {
        [] => String::new(),
        tables => format!(" for {}", tables.iter().map(TableName::unquoted).collect::<Vec<_>>().join(", ")),
    }
}

/// Loads those of `names` that the catalog does not contain. Must run in a transaction, because it relies on settings
/// that are local to one, such as the time zone.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn load(client: &Client, catalog: &mut Catalog, names: &[TableName]) -> Result<(), CatalogError> {
    let missing: Vec<&TableName> = names.iter().filter(|name| !catalog.is_loaded(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut found = load_tables(client, &missing)
        .await
        .map_err(|error| CatalogError { tables: missing.iter().map(|name| (*name).clone()).collect(), ..error })?;
    let absent: Vec<&TableName> = missing.iter().copied().filter(|name| !found.contains_key(name)).collect();
    let mut taken = taken_names(client, &absent).await?;
    if !taken.is_empty() {
        // Another writer may have created the table between the two queries.
        let created = load_tables(client, &taken.iter().collect::<Vec<_>>()).await?;
        taken.retain(|name| !created.contains_key(name));
        found.extend(created);
    }
    for name in missing {
        catalog.insert(name.clone(), found.remove(name));
    }
    catalog.taken.extend(taken);
    Ok(())
}

/// Reads those of the tables that exist.
async fn load_tables(client: &Client, names: &[&TableName]) -> Result<HashMap<TableName, DbTable>, CatalogError> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
    let rows = client.query_typed(include_str!("columns.sql"), &parameters).await?;
    let mut loaded: HashMap<u32, DbTable> = HashMap::new();
    for row in &rows {
        if let Some((oid, column)) = db_column(row) {
            loaded.entry(oid).or_insert_with(|| db_table(oid, row)).columns.push(column);
        }
    }
    let oids: Vec<u32> = loaded.keys().copied().collect();
    for (oid, fingerprint) in fingerprints(client, &oids).await? {
        loaded.entry(oid).and_modify(|table| table.fingerprint = fingerprint);
    }
    for row in client.query_typed(include_str!("partitions.sql"), &[(&oids, Type::OID_ARRAY)]).await? {
        if let Some(table) = loaded.get_mut(&row.get(0)) {
            add_relation(table, &row);
        }
    }
    loaded.values_mut().for_each(DbTable::write_arrays_as_text);
    Ok(loaded.into_values().map(|table| (table.name.clone(), table)).collect())
}

/// Returns those of the names that a relation of any kind or a type already has, so that no table can be created.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn taken_names(client: &Client, names: &[&TableName]) -> Result<Vec<TableName>, CatalogError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
    let rows = client.query_typed(include_str!("taken_names.sql"), &parameters).await?;
    Ok(rows.iter().map(|row| TableName::from_catalog(row.get(0), row.get(1))).collect())
}

/// Looks up types by their declarations, such as `numeric(12,2)`; returns how their values are written and their OIDs,
/// or `None` for a type that does not exist.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn lookup_types(client: &Client, names: &[&str]) -> Result<Vec<Option<(ColumnType, u32)>>, CatalogError> {
    let rows = client.query_typed(include_str!("types.sql"), &[(&names, Type::TEXT_ARRAY)]).await?;
    let resolve = |(name, row): (&&str, &Row)| {
        let typname: &str = row.get::<_, Option<&str>>("typname")?;
        let modifier = super::column_type::modifier(typname, name);
        Some((ColumnType::from_catalog(typname, row.get("typtype"), row.get("builtin"), modifier), row.get("oid")))
    };
    Ok(names.iter().zip(&rows).map(resolve).collect())
}

/// Reads the fingerprints of those tables that still exist.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn fingerprints(client: &Client, oids: &[u32]) -> Result<Vec<(u32, String)>, tokio_postgres::Error> {
    let rows = client.query_typed(include_str!("fingerprints.sql"), &[(&oids, Type::OID_ARRAY)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Returns those of the tables that are attached as partitions, and not about to be detached.
///
/// # Errors
/// Returns an error if the connection fails.
pub async fn attached(client: &Client, oids: &[u32]) -> Result<Vec<u32>, tokio_postgres::Error> {
    let rows = client.query_typed(include_str!("attached.sql"), &[(&oids, Type::OID_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn db_table(oid: u32, row: &Row) -> DbTable {
    let column: Option<&str> = row.get("partitioned_by_time");
    let partition_column = column.map(|column| Identifier::truncated(column, column));
    DbTable {
        name: TableName::from_catalog(row.get("nspname"), row.get("relname")),
        oid,
        row_type: RowTypeOids { row: row.get("row_type"), array: row.get("row_array") },
        has_check: row.get("checked"),
        source_label: row.get::<_, Option<&str>>("comment_of_table").and_then(parse_note).map(str::to_owned),
        columns: Vec::new(),
        other_partitioning: None,
        partition_column,
        partitions: Vec::new(),
        default_partition: None,
        unique: Vec::new(),
        deferrable: Vec::new(),
        fingerprint: String::new(),
    }
}

fn db_column(row: &Row) -> Option<(u32, DbColumn)> {
    let comment: Option<&str> = row.get("comment");
    let column = DbColumn {
        name: Identifier::exact(row.get("attname"))?,
        column_type: ColumnType::from_catalog(
            row.get("typname"),
            row.get("typtype"),
            row.get("builtin"),
            row.get("typmod"),
        ),
        type_oid: row.get("atttypid"),
        sql_type: row.get("sql_type"),
        cast_type: row.get("cast_type"),
        operator_schema: row
            .get::<_, Option<&str>>("operator_schema")
            .and_then(Identifier::exact)
            .unwrap_or_else(Identifier::pg_catalog),
        source_path: comment.and_then(parse_note).map(str::to_owned),
        required: row.get("required"),
        may_reject_null: row.get("guarded"),
        generated: row.get::<_, Option<&str>>("generated").map(|generated| match generated {
            "identity" => GeneratedAs::Identity,
            _ => GeneratedAs::Expression,
        }),
    };
    Some((row.get("oid"), column))
}

/// Adds the unique indexes of the table itself, or one of its partitions.
fn add_relation(table: &mut DbTable, row: &Row) {
    let columns = |list: &String| list.split('\u{1}').filter_map(Identifier::exact).collect::<Vec<_>>();
    let unique: Vec<Vec<Identifier>> = row.get::<_, Vec<String>>("unique_columns").iter().map(columns).collect();
    if row.get("itself") {
        let deferrable: Vec<bool> = row.get("deferrable");
        table.deferrable =
            unique.iter().zip(deferrable).filter(|(_, is)| *is).map(|(index, _)| index.clone()).collect();
        table.unique = unique;
        table.other_partitioning = other_partitioning(row).filter(|_| table.partition_column.is_none());
        return;
    }
    if table.partition_column.is_none() {
        return;
    }
    let name = TableName::from_catalog(row.get("nspname"), row.get("relname"));
    if row.get("is_default") {
        table.default_partition = Some(name);
        return;
    }
    let bound = |name: &str| row.get::<_, Option<i64>>(name).map(Timestamp);
    let bounds = TimeRange { from: bound("lower"), to: bound("upper") };
    let relation = match other_partitioning(row) {
        Some(partitioning) => PartitionRelation::Partitioned(partitioning),
        None if row.get::<_, &str>("relkind") == "f" => PartitionRelation::Foreign,
        None => PartitionRelation::Table,
    };
    let (oid, accepts_copies) = (row.get("partition_oid"), row.get("accepts_copies"));
    table.partitions.push(DbPartition { name, oid, bounds, relation, accepts_copies, unique });
}

/// How a relation is itself partitioned.
fn other_partitioning(row: &Row) -> Option<OtherPartitioning> {
    let strategy = PartitionStrategy::from_catalog(row.get::<_, Option<&str>>("strategy")?);
    let columns: Option<Vec<String>> = row.get("partition_columns");
    let columns = columns.map(|names| names.iter().filter_map(|name| Identifier::exact(name)).collect());
    Some(OtherPartitioning { strategy, columns })
}
