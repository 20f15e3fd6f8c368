//! What a change log records of its table: the key, and the version of a row.
//!
//! The key is that of a unique index: the table's own, or one that every partition has. An event table's is unique within a
//! partition only, so that the columns by which the table is partitioned are part of its key, too.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::FeedError;
use crate::names::TableName;
use crate::spec::{VERSION, VERSIONS};

/// The trigger functions are quoted with it.
const FUNCTION_QUOTE: &str = "$feed$";

/// What a change log records. It is stored with the log, so that a change of the table's key is noticed and the log begins
/// anew.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct FeedDefinition {
    /// The columns that identify a row.
    pub key: Vec<LoggedColumn>,
    /// The column with a row's version, if it has one.
    pub version: Option<String>,
}

/// A column of a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LoggedColumn {
    /// Its name.
    pub name: String,
    /// Its type in SQL, with the schema unless it is PostgreSQL's own.
    pub sql_type: String,
    /// Its collation, quoted, if it is not that of the type.
    pub collation: Option<String>,
    /// The schema of the operator that compares its values.
    pub operator_schema: String,
}

/// A unique index.
#[derive(Clone, PartialEq, Eq, Debug)]
struct UniqueIndex {
    /// The relation, as `schema.table`.
    relation: String,
    /// Whether the relation is the table itself.
    is_own: bool,
    /// The columns; `None` if the relation has no suitable index.
    columns: Option<Vec<String>>,
}

/// Reads what the log of a table must record. Must run in a transaction in which unqualified names are PostgreSQL's own. `None`
/// if the table, or its first partition, does not exist yet.
///
/// # Errors
/// Returns an error if the relation is not a table or has no key, or a query or the connection fails.
pub(super) async fn read(client: &Client, table: &TableName) -> Result<Option<FeedDefinition>, FeedError> {
    let (schema, name) = (table.schema.as_str(), table.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&name, Type::TEXT)];
    let rows = client.query_typed(include_str!("definition/unique_indexes.sql"), &parameters).await?;
    if let Some(problem) = rows.iter().find_map(|row| row.get::<_, Option<&str>>("problem")) {
        return Err(unsuitable(table, problem));
    }
    let indexes: Vec<UniqueIndex> = rows.iter().map(unique_index).collect();
    let unique = match find_key(&indexes) {
        Ok(Some(unique)) => unique,
        Ok(None) => return Ok(None),
        Err(relation) => {
            let reason = format!(
                "{relation} has no primary key and no other unique index without a predicate or an expression, on columns that \
                 are NOT NULL; add a primary key"
            );
            return Err(unsuitable(table, &reason));
        }
    };
    let mut definition = FeedDefinition { key: Vec::new(), version: None };
    let (mut has_version, mut has_versions) = (false, false);
    for row in client.query_typed(include_str!("definition/columns.sql"), &parameters).await? {
        let column = key_column(&row);
        has_version |= column.name == VERSION;
        has_versions |= column.name == VERSIONS;
        let is_partition_column: bool = row.get("is_partition_column");
        if !unique.contains(&column.name) && !is_partition_column {
            continue;
        }
        if column.name.contains(FUNCTION_QUOTE) {
            return Err(unsuitable(table, &format!("the name of a column of its key contains {FUNCTION_QUOTE}")));
        }
        if row.get("is_array") {
            return Err(unsuitable(table, &format!("column {} of its key is an array", column.name)));
        }
        definition.key.push(column);
    }
    let version = if has_version { Some(VERSION) } else { has_versions.then_some(VERSIONS) };
    definition.version = version.map(str::to_owned);
    Ok(Some(definition))
}

fn unsuitable(table: &TableName, reason: &str) -> FeedError {
    FeedError::Table { table: table.clone(), reason: reason.to_owned() }
}

fn unique_index(row: &Row) -> UniqueIndex {
    UniqueIndex { relation: row.get("relation"), is_own: row.get("is_own"), columns: row.get("columns") }
}

fn key_column(row: &Row) -> LoggedColumn {
    LoggedColumn {
        name: row.get("attname"),
        sql_type: row.get("sql_type"),
        collation: row.get("collation"),
        operator_schema: row.get::<_, Option<String>>("operator_schema").unwrap_or_else(|| "pg_catalog".to_owned()),
    }
}

/// The columns of the first index of the table itself or, if it has none, of the first index that all of its leaves have; the
/// indexes of a relation are ordered, its primary key first. `None` if there is no leaf yet; the error is a relation without one.
fn find_key(indexes: &[UniqueIndex]) -> Result<Option<&Vec<String>>, &str> {
    if let Some(columns) = indexes.iter().filter(|index| index.is_own).find_map(|index| index.columns.as_ref()) {
        return Ok(Some(columns));
    }
    let leaves: Vec<&UniqueIndex> = indexes.iter().filter(|index| !index.is_own).collect();
    let Some(first) = leaves.first() else {
        // A table without partitions, which must have a key of its own, has a row here; a partitioned one has none.
        return indexes.first().map_or(Ok(None), |index| Err(&index.relation));
    };
    if let Some(without) = leaves.iter().find(|leaf| leaf.columns.is_none()) {
        return Err(&without.relation);
    }
    let has_index = |relation: &str, columns: &Vec<String>| {
        leaves.iter().any(|leaf| leaf.relation == relation && leaf.columns.as_ref() == Some(columns))
    };
    for candidate in leaves.iter().filter(|leaf| leaf.relation == first.relation) {
        if let Some(columns) = &candidate.columns
            && leaves.iter().all(|leaf| has_index(&leaf.relation, columns))
        {
            return Ok(Some(columns));
        }
    }
    let first_columns = first.columns.as_ref();
    let other = leaves.iter().find(|leaf| first_columns.is_some_and(|columns| !has_index(&leaf.relation, columns)));
    Err(other.map_or(&first.relation, |leaf| &leaf.relation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(relation: &str, columns: &[&str]) -> UniqueIndex {
        let columns = (!columns.is_empty()).then(|| columns.iter().map(|name| (*name).to_owned()).collect());
        UniqueIndex { relation: relation.to_owned(), is_own: relation == "t", columns }
    }

    fn key(indexes: &[UniqueIndex]) -> Result<Option<Vec<String>>, String> {
        find_key(indexes).map(|key| key.cloned()).map_err(str::to_owned)
    }

    fn columns(names: &[&str]) -> Result<Option<Vec<String>>, String> {
        Ok(Some(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn the_key_is_the_table_s_own_or_one_that_every_partition_has() {
        assert_eq!(key(&[index("t", &["a", "b"]), index("t", &["c"]), index("p", &["d"])]), columns(&["a", "b"]));
        assert_eq!(key(&[index("p", &["x"]), index("p", &["id"]), index("q", &["id"])]), columns(&["id"]));
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[index("t", &[])]), Err("t".to_owned()));
        assert_eq!(key(&[index("p", &["id"]), index("q", &[])]), Err("q".to_owned()));
        assert_eq!(key(&[index("p", &["id"]), index("q", &["other"])]), Err("q".to_owned()));
    }
}
