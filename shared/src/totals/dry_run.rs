//! A dry run: what the next run of the totals would create, change and remove, and which expressions PostgreSQL rejects.
//!
//! Nothing is written. The expressions are tried on an empty temporary table, in a transaction that is rolled back
//! ([`super::probe`]); everything else is read.

use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::TotalError;
use super::build::{reject_other_relation, unconfigured};
use super::definition::Definition;
use super::probe::{Probe, probe};
use super::registry::{TotalState, TotalVersion, load_versions};
use crate::config::{Config, TotalConfig};
use crate::names::{Identifier, TableName};

/// How a total and the database differ.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct PlannedTotal {
    /// The total.
    pub total: String,
    /// The view that serves it, as `schema.name`.
    pub view: String,
    /// The table whose rows are summed, as `schema.name`.
    pub table: String,
    /// What the next run does.
    pub change: TotalChange,
    /// The details, human-readable.
    pub remarks: Vec<String>,
}

/// What the next run does to a total.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TotalChange {
    /// It is created.
    Create,
    /// A version that exists is completed.
    Complete,
    /// It gets a new version, because its definition has changed.
    Replace,
    /// Nothing: its table, or a column, does not exist yet.
    Wait,
    /// It is removed, because the configuration has it no longer.
    Remove,
    /// Nothing: it is wrong, or something in the database prevents it.
    Reject,
}

/// Returns the totals that differ from the database, in the order of the configuration; those to be removed come last.
///
/// # Errors
/// Returns an error if the connection fails, or `millstream.total` cannot be read. Any other error of a total is one of its
/// remarks.
pub async fn dry_run(client: &Client, config: &Config) -> Result<Vec<PlannedTotal>, TotalError> {
    let versions = load_versions(client).await?;
    let mut planned = Vec::new();
    for total in &config.totals {
        match plan_total(client, total, &versions).await {
            Ok(change) => planned.extend(change),
            Err(error) if error.is_of_connection() => return Err(error),
            Err(error) => planned.push(PlannedTotal::new(total, TotalChange::Reject, vec![error.to_string()])),
        }
    }
    for name in unconfigured(&versions, &config.sources, &config.totals) {
        planned.extend(plan_removal(client, &name, &versions).await?);
    }
    Ok(planned)
}

async fn plan_total(
    client: &Client,
    total: &TotalConfig,
    versions: &[TotalVersion],
) -> Result<Option<PlannedTotal>, TotalError> {
    let definition = match probe(client, total).await? {
        Probe::Defined(definition) => definition,
        Probe::Waiting { reason } => return Ok(Some(PlannedTotal::new(total, TotalChange::Wait, vec![reason]))),
    };
    let own = || versions.iter().filter(|version| version.name == definition.name);
    let newest = own().rfind(|version| version.state != TotalState::Removing);
    let Some(newest) = newest else {
        reject_other_relation(client, &definition).await?;
        let remark = format!("created with the columns {}", columns(&definition));
        return Ok(Some(PlannedTotal::new(total, TotalChange::Create, vec![remark])));
    };
    let is_current = newest.definition.as_ref() == Some(&definition);
    if is_current && newest.served && newest.state == TotalState::Ready {
        return Ok(None);
    }
    let (change, remark) = match is_current {
        true => (TotalChange::Complete, format!("version {} is completed: its rows are summed", newest.version)),
        false => {
            (TotalChange::Replace, format!("replaced by version {}: its definition has changed", newest.version + 1))
        }
    };
    let mut remarks = vec![remark];
    if let Some(served) = own().rfind(|version| version.served) {
        remarks.extend(view_remark(client, &definition, served).await?);
        if !is_current {
            remarks.extend(frozen_remark(client, &definition, served).await?);
        }
    }
    Ok(Some(PlannedTotal::new(total, change, remarks)))
}

/// The columns of a total's view, with their types.
fn columns(definition: &Definition) -> String {
    let groups = definition.groups.iter().map(|group| format!("{} {}", group.name, group.sql_type));
    let sums = definition.sums.iter().map(|sum| format!("{} numeric", sum.name));
    groups.chain(["rows bigint".to_owned()]).chain(sums).collect::<Vec<_>>().join(", ")
}

/// What happens to the view if its columns change.
async fn view_remark(
    client: &Client,
    definition: &Definition,
    served: &TotalVersion,
) -> Result<Option<String>, TotalError> {
    if served.definition.as_ref().is_some_and(|earlier| definition.extends_columns_of(earlier)) {
        return Ok(None);
    }
    let change = format!("its columns change: the view is dropped, and created with {}", columns(definition));
    Ok(Some(match dependents(client, &definition.view()).await?.as_slice() {
        [] => change,
        views => format!("{change}; drop the views that depend on it first: {}", views.join(", ")),
    }))
}

/// What happens to the sums of dropped partitions.
async fn frozen_remark(
    client: &Client,
    definition: &Definition,
    served: &TotalVersion,
) -> Result<Option<String>, TotalError> {
    let (Some(sql), Some(earlier)) = (served.sql(), &served.definition) else { return Ok(None) };
    let frozen = format!("SELECT FROM {} LIMIT 1", sql.object("frozen"));
    if client.query_typed(&frozen, &[]).await?.is_empty() {
        return Ok(None);
    }
    if definition.follows_from(earlier) {
        return Ok(Some("the sums of dropped partitions are taken over".to_owned()));
    }
    Ok(Some(format!(
        "the sums of dropped partitions do not follow from the old definition, so that the run refuses the change: restore \
         their rows, undo the change, or give the sums up with `millstream totals recompute {} --discard-dropped`",
        definition.name,
    )))
}

async fn plan_removal(
    client: &Client,
    name: &str,
    versions: &[TotalVersion],
) -> Result<Option<PlannedTotal>, TotalError> {
    let mut own = versions.iter().filter(|version| version.name == name);
    let Some(version) = own.next_back() else { return Ok(None) };
    let view = TableName { schema: version.table.schema.clone(), table: Identifier::truncated(name, name) };
    let mut remarks = vec!["removed with its view: the configuration has it no longer".to_owned()];
    let views = dependents(client, &view).await?;
    if !views.is_empty() {
        remarks.push(format!("drop the views that depend on it first: {}", views.join(", ")));
    }
    let (total, view, table) = (name.to_owned(), view.unquoted(), version.table.unquoted());
    Ok(Some(PlannedTotal { total, view, table, change: TotalChange::Remove, remarks }))
}

/// The views that depend on a view, as `schema.name`.
async fn dependents(client: &Client, view: &TableName) -> Result<Vec<String>, TotalError> {
    let name = view.to_string();
    let rows = client.query_typed(include_str!("dry_run/dependents.sql"), &[(&name, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| format!("{}.{}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

impl PlannedTotal {
    fn new(total: &TotalConfig, change: TotalChange, remarks: Vec<String>) -> Self {
        Self {
            total: total.name.as_str().to_owned(),
            view: total.view().unquoted(),
            table: total.table.unquoted(),
            change,
            remarks,
        }
    }

    /// Whether the configuration or the database must be changed.
    pub fn is_rejected(&self) -> bool {
        self.change == TotalChange::Reject
    }
}
