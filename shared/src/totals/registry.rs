//! `millstream.total`: the versions of each total that exist in the database.
//!
//! A changed definition is a new version with tables, functions and triggers of its own. Both versions are fed until the new
//! one is complete; then the view is exchanged and the old version removed.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::TotalError;
use super::definition::Definition;
use super::sql::TotalSql;
use crate::apply::{Limits, SystemTable, ensure_system_table};
use crate::names::TableName;

/// The table of versions, and that of marks of broken totals.
pub const TOTAL_TABLE: SystemTable = SystemTable { name: "millstream.total", ddl: include_str!("create.sql") };

/// The state of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TotalState {
    /// Its triggers or its first sums are not complete yet.
    Building,
    /// Its figures are exact.
    Ready,
    /// It is being removed.
    Removing,
}

impl TotalState {
    fn from_text(text: &str) -> Self {
        match text {
            "ready" => Self::Ready,
            "removing" => Self::Removing,
            _ => Self::Building,
        }
    }

    /// The state as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

/// A version of a total.
#[derive(Clone, PartialEq, Debug)]
pub struct TotalVersion {
    /// The total's name.
    pub name: String,
    /// The number of the version.
    pub version: i32,
    /// The configured name of the source that fills the table.
    pub source: String,
    /// The table whose rows are summed.
    pub table: TableName,
    /// Its state.
    pub state: TotalState,
    /// Whether the view shows it.
    pub served: bool,
    /// Its definition; `None` if a later release of Millstream wrote it.
    pub definition: Option<Definition>,
}

impl TotalVersion {
    /// The SQL of this version.
    pub fn sql(&self) -> Option<TotalSql<'_>> {
        Some(TotalSql::new(self.definition.as_ref()?, self.version))
    }
}

/// Creates the tables if they do not exist.
pub(super) async fn ensure_tables(client: &Client, limits: Limits) -> Result<(), TotalError> {
    if !TOTAL_TABLE.exists(client).await? {
        ensure_system_table(client, &TOTAL_TABLE, limits).await?;
    }
    Ok(())
}

/// Reads all versions, by name and version; none if the table does not exist.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn load_versions(client: &Client) -> Result<Vec<TotalVersion>, TotalError> {
    if !TOTAL_TABLE.exists(client).await? {
        return Ok(Vec::new());
    }
    let rows = client.query_typed(include_str!("registry/load.sql"), &[]).await?;
    let version = |row: &tokio_postgres::Row| TotalVersion {
        name: row.get("name"),
        version: row.get("version"),
        source: row.get("source"),
        table: TableName::from_catalog(row.get("schema_name"), row.get("table_name")),
        state: TotalState::from_text(row.get("state")),
        served: row.get("served"),
        definition: serde_json::from_str(row.get("definition")).ok(),
    };
    Ok(rows.iter().map(version).collect())
}

/// Records a new version.
pub(super) async fn insert(client: &Client, version: &TotalVersion, definition: &str) -> Result<(), TotalError> {
    let (schema, table) = (version.table.schema.as_str(), version.table.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&version.name, Type::TEXT),
        (&version.version, Type::INT4),
        (&version.source, Type::TEXT),
        (&schema, Type::TEXT),
        (&table, Type::TEXT),
        (&definition, Type::TEXT),
    ];
    client.execute_typed(include_str!("registry/insert.sql"), &parameters).await?;
    Ok(())
}

/// Marks a version as served and ready, and all others of its total as to be removed.
pub(super) async fn serve(client: &Client, version: &TotalVersion) -> Result<(), TotalError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&version.name, Type::TEXT), (&version.version, Type::INT4)];
    client.execute_typed(include_str!("registry/serve.sql"), &parameters).await?;
    Ok(())
}

/// Marks all versions of a total as to be removed.
pub(super) async fn mark_removing(client: &Client, version: &TotalVersion) -> Result<(), TotalError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&version.name, Type::TEXT), (&version.version, Type::INT4)];
    client.execute_typed(include_str!("registry/mark_removing.sql"), &parameters).await?;
    Ok(())
}

/// Forgets a version that has been removed, and its marks.
pub(super) async fn delete(client: &Client, version: &TotalVersion) -> Result<(), TotalError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&version.name, Type::TEXT), (&version.version, Type::INT4)];
    client.execute_typed(include_str!("registry/delete.sql"), &parameters).await?;
    Ok(())
}
