//! Writes what a query has returned to its target: rows are replaced or merged, and the table stays the same table, so that
//! views on it survive. A row that is equal to the stored one is not written.
//!
//! A target that does not exist is created with the columns of the query. One that exists must be the transform's own, by the note
//! in its comment, or its owner's and empty: a transform never takes over a table that something else fills.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::file::{TargetMode, TransformFile};
use super::{TransformError, error};
use crate::apply;
use crate::catalog::comment::{split_note, with_note};
use crate::catalog::{self, Catalog, DbColumn, DbTable};
use crate::names::{Identifier, quote_literal};

/// The temporary table with what the query has returned, which is dropped when the transaction ends.
pub const RESULT: &str = "pg_temp.millstream_result";

/// The column that marks a key as removed.
const DELETED: &str = "_deleted";

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Rows inserted or updated.
    pub written: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A column that the query returns.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ResultColumn {
    name: Identifier,
    /// Its type in SQL.
    sql_type: String,
}

/// Writes the result of a transform's query to its target. In the transaction of the run, with only pg_catalog searched.
///
/// # Errors
/// Returns an error if the result does not fit the target, or a statement or the connection fails.
pub async fn write(client: &Client, transform: &TransformFile, mode: TargetMode) -> Result<Written, TransformError> {
    let mut columns = result_columns(client).await?;
    let deleted = columns.iter().position(|column| column.name.as_str() == DELETED).map(|index| columns.remove(index));
    if let Some(deleted) = &deleted {
        check_deleted(transform, deleted)?;
    }
    let target = match load_target(client, transform).await? {
        Some(target) => target,
        None => create(client, transform, &columns).await?,
    };
    let merge = Merge::new(transform, &target, &columns, deleted.is_some())?;
    merge.check_keys(client).await?;
    let mut written = Written::default();
    if mode == TargetMode::Replace {
        written.deleted += merge.execute(client, &merge.delete_missing()).await?;
    }
    if deleted.is_some() {
        written.deleted += merge.execute(client, &merge.delete_removed()).await?;
    }
    written.written = merge.execute(client, &merge.insert()).await?;
    Ok(written)
}

async fn result_columns(client: &Client) -> Result<Vec<ResultColumn>, TransformError> {
    let rows = client.query_typed(include_str!("target/result_columns.sql"), &[(&RESULT, Type::TEXT)]).await?;
    let column = |row: &tokio_postgres::Row| ResultColumn {
        name: Identifier::truncated(row.get("attname"), row.get("attname")),
        sql_type: row.get("sql_type"),
    };
    Ok(rows.iter().map(column).collect())
}

fn query_error(transform: &TransformFile, reason: String) -> TransformError {
    TransformError::Query { position: transform.query_position(), reason }
}

fn target_error(transform: &TransformFile, reason: String) -> TransformError {
    TransformError::Query { position: transform.target_position.clone(), reason }
}

fn check_deleted(transform: &TransformFile, deleted: &ResultColumn) -> Result<(), TransformError> {
    if deleted.sql_type != "boolean" {
        return Err(query_error(transform, format!("column {DELETED} must be boolean, not {}", deleted.sql_type)));
    }
    if transform.mode == TargetMode::Replace {
        let reason =
            format!("column {DELETED} needs `-- mode: upsert`: otherwise rows that are not returned are deleted");
        return Err(query_error(transform, reason));
    }
    Ok(())
}

/// The target, if it exists and the transform may fill it.
async fn load_target(client: &Client, transform: &TransformFile) -> Result<Option<DbTable>, TransformError> {
    let mut catalog = Catalog::default();
    catalog::load(client, &mut catalog, std::slice::from_ref(&transform.target)).await?;
    let name = transform.target.unquoted();
    let Some(table) = catalog.table(&transform.target).map(|table| DbTable::clone(table)) else {
        if catalog.is_taken(&transform.target) {
            return Err(target_error(transform, format!("{name} exists and is not a table; choose another target")));
        }
        return Ok(None);
    };
    match &table.source_label {
        Some(note) if *note == own_note(transform) => {}
        Some(note) => {
            let reason = format!("table {name} belongs to {note}; choose another target");
            return Err(target_error(transform, reason));
        }
        None => adopt(client, transform).await?,
    }
    Ok(Some(table))
}

/// The note in the comment of the target.
fn own_note(transform: &TransformFile) -> String {
    format!("transform {}", transform.name)
}

/// Puts the transform's note on a table of the owner, if it is empty.
async fn adopt(client: &Client, transform: &TransformFile) -> Result<(), TransformError> {
    let target = &transform.target;
    let is_empty = client.query_typed(&format!("SELECT FROM {target} LIMIT 1"), &[]).await?.is_empty();
    let note = own_note(transform);
    if !is_empty {
        let reason = format!(
            "table {} has rows that this transform has not written; choose another target, or let the transform replace them: \
             COMMENT ON TABLE {target} IS {}",
            target.unquoted(),
            quote_literal(&with_note(None, &note))
        );
        return Err(target_error(transform, reason));
    }
    let name = target.to_string();
    let rows = client.query_typed(include_str!("target/comment.sql"), &[(&name, Type::TEXT)]).await?;
    let comment: Option<String> = rows.first().and_then(|row| row.get(0));
    let owner = comment.as_deref().and_then(|comment| split_note(comment).0);
    let statement = format!("COMMENT ON TABLE {target} IS {}", quote_literal(&with_note(owner, &note)));
    execute(client, transform, &statement).await.map(drop)
}

/// Creates the target with the columns of the query, and its schema if it does not exist.
async fn create(
    client: &Client,
    transform: &TransformFile,
    columns: &[ResultColumn],
) -> Result<DbTable, TransformError> {
    let target = &transform.target;
    apply::lock_schema_changes(client, target).await?;
    if let Some(statement) = apply::missing_schema_ddl(client, &target.schema).await? {
        execute(client, transform, &statement).await?;
    }
    let names = list(columns.iter().map(|column| column.name.to_string()));
    let mut statements = vec![format!("CREATE TABLE {target} AS SELECT {names} FROM {RESULT} WITH NO DATA")];
    if !transform.key.is_empty() {
        let key = list(transform.key.iter().map(Identifier::to_string));
        statements.push(format!("ALTER TABLE {target} ADD PRIMARY KEY ({key})"));
    }
    let comment = quote_literal(&with_note(None, &own_note(transform)));
    statements.push(format!("COMMENT ON TABLE {target} IS {comment}"));
    for statement in &statements {
        execute(client, transform, statement).await?;
    }
    tracing::info!(transform = transform.name, table = target.unquoted(), "target created");
    let mut catalog = Catalog::default();
    catalog::load(client, &mut catalog, std::slice::from_ref(target)).await?;
    let created = catalog.table(target).map(|table| DbTable::clone(table));
    created.ok_or_else(|| TransformError::Busy { reason: format!("table {} was dropped meanwhile", target.unquoted()) })
}

/// Executes a statement that Millstream has built; its error is one of the transform.
async fn execute(client: &Client, transform: &TransformFile, statement: &str) -> Result<u64, TransformError> {
    client.execute_typed(statement, &[]).await.map_err(|error| error::of_target(transform, error))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// The statements that bring the target in line with the result.
struct Merge<'t> {
    transform: &'t TransformFile,
    /// The columns that the query returns, in its order.
    columns: Vec<&'t DbColumn>,
    /// Those of the key.
    key: Vec<&'t DbColumn>,
    /// Whether the result marks removed keys.
    marks_removed: bool,
}

impl<'t> Merge<'t> {
    fn new(
        transform: &'t TransformFile,
        target: &'t DbTable,
        returned: &[ResultColumn],
        marks_removed: bool,
    ) -> Result<Self, TransformError> {
        if let Some(name) = transform.key.iter().find(|name| returned.iter().all(|column| column.name != **name)) {
            return Err(query_error(transform, format!("the query does not return column {name} of the key")));
        }
        let mut columns = Vec::new();
        for ResultColumn { name, sql_type } in returned {
            columns.push(target_column(transform, target, name, sql_type)?);
        }
        let key: Vec<&DbColumn> =
            columns.iter().copied().filter(|column| transform.key.contains(&column.name)).collect();
        let is_key = |index: &Vec<Identifier>| {
            index.len() == transform.key.len() && transform.key.iter().all(|column| index.contains(column))
        };
        if !key.is_empty() && !target.unique.iter().any(|index| is_key(index) && !target.deferrable.contains(index)) {
            let columns = list(transform.key.iter().map(Identifier::to_string));
            let reason = format!(
                "table {} has no unique index on ({columns}); create one: ALTER TABLE {} ADD PRIMARY KEY ({columns})",
                target.name.unquoted(),
                target.name
            );
            return Err(target_error(transform, reason));
        }
        Ok(Self { transform, columns, key, marks_removed })
    }

    async fn execute(&self, client: &Client, statement: &str) -> Result<u64, TransformError> {
        execute(client, self.transform, statement).await
    }

    /// Checks that the result has each key once, and no key without a value.
    async fn check_keys(&self, client: &Client) -> Result<(), TransformError> {
        if self.key.is_empty() {
            return Ok(());
        }
        let is_null =
            self.key.iter().map(|column| format!("r.{} IS NULL", column.name)).collect::<Vec<_>>().join(" OR ");
        let keys = list(self.key.iter().map(|column| in_type_of(column)));
        let statement = format!(
            "SELECT (SELECT pg_catalog.count(*) FROM {RESULT} r WHERE {is_null}), \
             (SELECT pg_catalog.count(*) FROM (SELECT FROM {RESULT} r GROUP BY {keys} HAVING pg_catalog.count(*) > 1) AS repeated)"
        );
        let rows = client.query_typed(&statement, &[]).await;
        let rows = rows.map_err(|error| error::of_target(self.transform, error))?;
        let count = |column: usize| rows.first().map_or(0, |row| row.get::<_, i64>(column));
        let key = list(self.key.iter().map(|column| column.name.as_str().to_owned()));
        match (count(0), count(1)) {
            (0, 0) => Ok(()),
            (0, repeated) => {
                let reason =
                    format!("the query returns several rows for one key ({key}; keys: {repeated}); group by the key");
                Err(query_error(self.transform, reason))
            }
            (nulls, _) => {
                let reason = format!("the query returns rows in which the key is NULL ({key}; rows: {nulls})");
                Err(query_error(self.transform, reason))
            }
        }
    }

    /// A condition: the rows `t` of the target and `r` of the result have the same key, by the operators of its types.
    fn same_key(&self) -> String {
        let equal = |column: &&DbColumn| {
            format!("t.{} OPERATOR({}.=) {}", column.name, column.operator_schema, in_type_of(column))
        };
        self.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Deletes the rows that the query has not returned. Without a key, all: none can be recognised.
    fn delete_missing(&self) -> String {
        let target = &self.transform.target;
        if self.key.is_empty() {
            return format!("DELETE FROM {target}");
        }
        format!("DELETE FROM {target} t WHERE NOT EXISTS (SELECT FROM {RESULT} r WHERE {})", self.same_key())
    }

    /// Deletes the rows whose keys the query has marked.
    fn delete_removed(&self) -> String {
        let target = &self.transform.target;
        format!("DELETE FROM {target} t USING {RESULT} r WHERE r.{DELETED} AND {}", self.same_key())
    }

    /// Inserts the rows, or updates those with the same key that differ.
    fn insert(&self) -> String {
        let names = list(self.columns.iter().map(|column| column.name.to_string()));
        let values = list(self.columns.iter().map(|column| format!("r.{}", column.name)));
        let kept = if self.marks_removed { format!(" WHERE r.{DELETED} IS NOT TRUE") } else { String::new() };
        let insert =
            format!("INSERT INTO {} AS t ({names}) SELECT {values} FROM {RESULT} r{kept}", self.transform.target);
        if self.key.is_empty() {
            return insert;
        }
        let key = list(self.key.iter().map(|column| column.name.to_string()));
        let others: Vec<&&DbColumn> =
            self.columns.iter().filter(|column| !self.key.iter().any(|key| key.name == column.name)).collect();
        if others.is_empty() {
            return format!("{insert} ON CONFLICT ({key}) DO NOTHING");
        }
        let set = list(others.iter().map(|column| format!("{0} = excluded.{0}", column.name)));
        // Compared as stored, whatever the types: not every type has an equality.
        let row = |of: &str| {
            let columns = list(others.iter().map(|column| format!("{of}.{}", column.name)));
            format!("(ROW({columns})::pg_catalog.record)")
        };
        format!(
            "{insert} ON CONFLICT ({key}) DO UPDATE SET {set} WHERE {} OPERATOR(pg_catalog.*<>) {}",
            row("t"),
            row("excluded")
        )
    }
}

/// The value of a column of the result as the target's type.
fn in_type_of(column: &DbColumn) -> String {
    format!("r.{}::{}", column.name, column.cast_type)
}

/// The column of the target that takes a column of the query.
fn target_column<'t>(
    transform: &TransformFile,
    target: &'t DbTable,
    name: &Identifier,
    sql_type: &str,
) -> Result<&'t DbColumn, TransformError> {
    let Some(index) = target.column_index(name.as_str()) else {
        let reason = format!(
            "table {} has no column {name}, which the query returns; give the column of the query the name of one, or add it: \
             ALTER TABLE {} ADD COLUMN {name} {sql_type}",
            target.name.unquoted(),
            target.name
        );
        return Err(query_error(transform, reason));
    };
    let column = &target.columns[index];
    if column.generated.is_some() {
        let reason =
            format!("column {name} of table {} is generated; leave it out of the query", target.name.unquoted());
        return Err(query_error(transform, reason));
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::*;
    use crate::catalog::ColumnType;

    fn column(name: &str) -> DbColumn {
        DbColumn {
            name: Identifier::exact(name).unwrap(),
            column_type: ColumnType::Other,
            type_oid: 0,
            sql_type: "ext.citext".to_owned(),
            cast_type: "ext.citext".to_owned(),
            operator_schema: Identifier::exact("ext").unwrap(),
            source_path: None,
            required: false,
            may_reject_null: false,
            generated: None,
        }
    }

    fn transform(header: &str) -> TransformFile {
        parse("t", "t.sql", &format!("-- target: s.t\n-- every: 1 day\n{header}\nSELECT 1")).unwrap()
    }

    #[test]
    fn equal_rows_are_not_written_and_keys_are_compared_by_their_own_operators() {
        let transform = transform("-- key: k\n-- mode: upsert");
        let (k, v) = (column("k"), column("v"));
        let merge = Merge { transform: &transform, columns: vec![&k, &v], key: vec![&k], marks_removed: true };
        assert_eq!(
            merge.insert(),
            "INSERT INTO \"s\".\"t\" AS t (\"k\", \"v\") SELECT r.\"k\", r.\"v\" FROM pg_temp.millstream_result r \
             WHERE r._deleted IS NOT TRUE ON CONFLICT (\"k\") DO UPDATE SET \"v\" = excluded.\"v\" \
             WHERE (ROW(t.\"v\")::pg_catalog.record) OPERATOR(pg_catalog.*<>) (ROW(excluded.\"v\")::pg_catalog.record)"
        );
        assert_eq!(
            merge.delete_missing(),
            "DELETE FROM \"s\".\"t\" t WHERE NOT EXISTS (SELECT FROM pg_temp.millstream_result r WHERE \
             t.\"k\" OPERATOR(\"ext\".=) r.\"k\"::ext.citext)"
        );
    }

    #[test]
    fn a_target_without_a_key_is_replaced_as_a_whole() {
        let transform = transform("");
        let v = column("v");
        let merge = Merge { transform: &transform, columns: vec![&v], key: Vec::new(), marks_removed: false };
        assert_eq!(merge.delete_missing(), "DELETE FROM \"s\".\"t\"");
        assert!(!merge.insert().contains("ON CONFLICT"));
    }
}
