//! A dry run: what a batch, or the configuration alone, would change. PostgreSQL is only read, in read-only transactions.
//! The in-memory catalog changes as if the DDL had run, so that a second batch is planned on top of the first.

mod unclaimed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Client;

use super::writer::{DecodeSummary, changed_tables, read_catalog};
use super::{Ingest, IngestError, LOCK_TIMEOUT, PLAN_ATTEMPTS_MAX};
use crate::apply::{self, Limits};
use crate::catalog::{self, Catalog, CatalogError, ColumnType};
use crate::clock::now;
use crate::plan::{Plan, TableDiff, declared_diff, plan};
use crate::record::unpack;

const LIMITS: Limits = Limits { statement: Duration::from_secs(60), lock: LOCK_TIMEOUT };

/// A dry run of several batches.
pub struct DryRun<'i> {
    ingest: &'i mut Ingest,
    /// Statements listed before, for the schemas and for Millstream's own tables.
    already_listed: BTreeSet<String>,
}

/// What a batch would change.
#[derive(Debug)]
pub struct DryRunResult {
    /// The source's configured name; empty if the event holds no record.
    pub source: String,
    /// The number of records in the event.
    pub records: usize,
    /// The statements that would change the schema, in order.
    pub ddl: Vec<String>,
    /// The rows, and the rejected, expired and repeated records. Which rows are newer than the stored ones is known only
    /// when the plan is applied.
    pub plan: Plan,
}

/// How a declared table and the database differ.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct DeclaredTable {
    /// The source's configured name.
    pub source: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// The statements that the table's next record would cause if it carried every declared column.
    pub ddl: Vec<String>,
    /// Differences that no record changes, human-readable.
    pub remarks: Vec<String>,
}

impl<'i> DryRun<'i> {
    /// Starts a dry run.
    pub fn new(ingest: &'i mut Ingest) -> Self {
        Self { ingest, already_listed: BTreeSet::new() }
    }

    /// Plans a batch as the writer would, on top of the earlier batches of this dry run.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn plan_event(&mut self, event: &[u8]) -> Result<DryRunResult, IngestError> {
        let batch = unpack(event)?;
        let records = batch.records.len();
        let Some(index) = self.ingest.source_for_batch(&batch)? else {
            return Ok(DryRunResult { source: String::new(), records, ddl: Vec::new(), plan: Plan::default() });
        };
        let Ingest { config, decoders, writer, .. } = &mut *self.ingest;
        let decoder = &mut decoders[index];
        let (changes, rejected) = decoder.decode(&batch);
        DecodeSummary::new(&changes, rejected.clone()).check()?;
        let connection = writer.database.connection().await?;
        let (mut ddl, mut attempts) = (Vec::new(), 0);
        let mut plan = loop {
            read_catalog(&connection, &mut writer.catalog, decoder, &changed_tables(&changes), LIMITS).await?;
            let plan = plan(&changes, &decoder.fields, &decoder.tables, &writer.catalog, now());
            if plan.diffs.is_empty() {
                break plan;
            }
            if attempts == PLAN_ATTEMPTS_MAX {
                return Err(IngestError::SchemaKeptChanging(String::new()));
            }
            attempts += 1;
            apply::begin_read_only(&connection, LIMITS).await?;
            for diff in &plan.diffs {
                ddl.extend(list_ddl(&connection, &mut writer.catalog, diff, &mut self.already_listed).await?);
            }
            connection.batch_execute("COMMIT").await.map_err(CatalogError::from)?;
        };
        ddl.extend(system_tables(&connection, &plan, records, &mut self.already_listed).await?);
        connection.release();
        plan.rejected.extend(rejected);
        Ok(DryRunResult { source: config.sources[index].name.clone(), records, ddl, plan })
    }

    /// Compares the declared tables with the database and returns those that differ, and those that no source fills.
    ///
    /// # Errors
    /// Returns an error if a query or the connection fails.
    pub async fn configuration(&mut self) -> Result<Vec<DeclaredTable>, IngestError> {
        let Ingest { config, decoders, writer, .. } = &mut *self.ingest;
        let connection = writer.database.connection().await?;
        let mut differing_tables = Vec::new();
        for (source, decoder) in config.sources.iter().zip(decoders) {
            let declared = decoder.declared_tables();
            read_catalog(&connection, &mut writer.catalog, decoder, &declared, LIMITS).await?;
            apply::begin_read_only(&connection, LIMITS).await?;
            for id in declared {
                let spec = decoder.tables.get(id);
                let types = spec.columns.iter().filter_map(|column| column.sql_type.as_deref()).collect();
                let types = column_types(&connection, types).await?;
                let type_of = |name: &str| types.get(name).copied().flatten();
                let comparison = declared_diff(spec, &decoder.fields, &writer.catalog, type_of);
                let ddl = match &comparison.diff {
                    Some(diff) => list_ddl(&connection, &mut writer.catalog, diff, &mut self.already_listed).await?,
                    None => Vec::new(),
                };
                let remarks: Vec<String> = comparison.remarks.iter().map(ToString::to_string).collect();
                if !ddl.is_empty() || !remarks.is_empty() {
                    let (source, table) = (source.name.clone(), spec.name.unquoted());
                    differing_tables.push(DeclaredTable { source, table, ddl, remarks });
                }
            }
            connection.batch_execute("COMMIT").await.map_err(CatalogError::from)?;
        }
        differing_tables.extend(unclaimed::tables(&connection, config).await?);
        connection.release();
        Ok(differing_tables)
    }
}

/// The statements that a writer would run for a diff. The catalog gets the table as it would be afterwards.
async fn list_ddl(
    client: &Client,
    catalog: &mut Catalog,
    diff: &TableDiff,
    already_listed: &mut BTreeSet<String>,
) -> Result<Vec<String>, IngestError> {
    let existing = catalog.table(&diff.table).cloned();
    let mut diff = diff.remaining(existing.as_deref());
    apply::choose_partition_names(client, &mut diff).await?;
    let mut statements = Vec::new();
    if !diff.is_empty() {
        let lock = apply::missing_lock_ddl(client).await?;
        statements.extend(lock.into_iter().filter(|statement| already_listed.insert(statement.clone())));
    }
    if diff.source_label.is_some()
        && let Some(statement) = apply::missing_schema_ddl(client, &diff.table.schema).await?
        && already_listed.insert(statement.clone())
    {
        statements.push(statement);
    }
    statements.extend(diff.statements());
    let types = column_types(client, diff.columns.iter().map(|column| &*column.sql_type).collect()).await?;
    // PostgreSQL will reject an unknown type; the dry run treats it as text.
    let type_of = |name: &str| types.get(name).copied().flatten().unwrap_or((ColumnType::Other, 0));
    catalog.insert(diff.table.clone(), Some(diff.applied_to(existing.as_deref(), type_of)));
    Ok(statements)
}

/// The column type and the OID of each type, by its name in the declaration; `None` for an unknown type.
async fn column_types(
    client: &Client,
    types: Vec<&str>,
) -> Result<BTreeMap<String, Option<(ColumnType, u32)>>, IngestError> {
    let column_types = catalog::lookup_types(client, &types).await?;
    Ok(types.into_iter().map(str::to_owned).zip(column_types).collect())
}

/// The statements that create Millstream's own tables, as far as the batch needs them.
async fn system_tables(
    client: &Client,
    plan: &Plan,
    records: usize,
    already_listed: &mut BTreeSet<String>,
) -> Result<Vec<String>, IngestError> {
    let needed = [
        (plan.deletes(), apply::TOMBSTONE_TABLE),
        (!plan.writes.is_empty(), apply::FRESHNESS_TABLE),
        (records > 0, apply::MINUTE_TABLE),
        (records > 0, apply::EVENT_TABLE),
    ];
    let mut statements = Vec::new();
    for (_, table) in needed.iter().filter(|(is_needed, _)| *is_needed) {
        let missing = table.missing_ddl(client).await?;
        let lock = if missing.is_empty() { Vec::new() } else { apply::missing_lock_ddl(client).await? };
        // All of them are in one schema, which is created once.
        let new = lock.into_iter().chain(missing).filter(|statement| already_listed.insert(statement.clone()));
        statements.extend(new);
    }
    Ok(statements)
}
