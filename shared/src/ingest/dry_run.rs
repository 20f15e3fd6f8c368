//! A dry run: what a batch, or the configuration alone, would change. PostgreSQL is only asked, in read-only transactions;
//! what a writer would have made is reckoned with as if it were there, so that a second batch is planned upon the first.

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
    /// Statements that have been told, of things that are not of a table.
    already_listed: BTreeSet<String>,
}

/// What a batch would do.
#[derive(Debug)]
pub struct DryRunResult {
    /// The source, as the configuration calls it; empty where the event holds no record.
    pub source: String,
    /// How many records the event holds.
    pub records: usize,
    /// The statements that would change the schema, in their order.
    pub ddl: Vec<String>,
    /// The rows, and what is refused, expired and repeated. Which of the rows are news is known when they are applied.
    pub plan: Plan,
}

/// What the configuration says of a table, and the database does not have.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct DeclaredTable {
    /// The source, as the configuration calls it.
    pub source: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// The statements that the next record of the table would cause, should it carry all that is declared.
    pub ddl: Vec<String>,
    /// What no record changes, for people.
    pub remarks: Vec<String>,
}

impl<'i> DryRun<'i> {
    /// A dry run of what would else be ingested.
    pub fn new(ingest: &'i mut Ingest) -> Self {
        Self { ingest, already_listed: BTreeSet::new() }
    }

    /// Plans a batch as the writer would, upon the batches before.
    ///
    /// # Errors
    /// As [`Ingest::batch`].
    pub async fn batch(&mut self, event: &[u8]) -> Result<DryRunResult, IngestError> {
        let batch = unpack(event)?;
        let records = batch.records.len();
        let Some(index) = self.ingest.source_for_batch(&batch)? else {
            return Ok(DryRunResult { source: String::new(), records, ddl: Vec::new(), plan: Plan::default() });
        };
        let Ingest { config, decoders, writer, .. } = &mut *self.ingest;
        let decoder = &mut decoders[index];
        let (changes, rejected) = decoder.decode(&batch);
        DecodeSummary::of(&changes, rejected.clone()).check()?;
        let connection = writer.database.connection().await?;
        let (mut ddl, mut rounds) = (Vec::new(), 0);
        let mut plan = loop {
            read_catalog(&connection, &mut writer.catalog, decoder, &changed_tables(&changes), LIMITS).await?;
            let plan = plan(&changes, &decoder.fields, &decoder.tables, &writer.catalog, now())?;
            if plan.diffs.is_empty() {
                break plan;
            }
            if rounds == PLAN_ATTEMPTS_MAX {
                return Err(IngestError::SchemaKeptChanging(String::new()));
            }
            rounds += 1;
            apply::begin_read_only(&connection, LIMITS).await?;
            for lack in &plan.diffs {
                ddl.extend(list_ddl(&connection, &mut writer.catalog, lack, &mut self.already_listed).await?);
            }
            connection.batch_execute("COMMIT").await.map_err(CatalogError::from)?;
        };
        ddl.extend(system_tables(&connection, &plan, &mut self.already_listed).await?);
        connection.release();
        plan.rejected.extend(rejected);
        Ok(DryRunResult { source: config.sources[index].name.clone(), records, ddl, plan })
    }

    /// Compares the declared tables with those that are there; tells of those that differ.
    ///
    /// # Errors
    /// The connection's, and tables that the writer cannot work with.
    pub async fn configuration(&mut self) -> Result<Vec<DeclaredTable>, IngestError> {
        let Ingest { config, decoders, writer, .. } = &mut *self.ingest;
        let connection = writer.database.connection().await?;
        let mut differing = Vec::new();
        for (source, decoder) in config.sources.iter().zip(decoders) {
            let declared = decoder.declared_tables();
            read_catalog(&connection, &mut writer.catalog, decoder, &declared, LIMITS).await?;
            apply::begin_read_only(&connection, LIMITS).await?;
            for id in declared {
                let spec = decoder.tables.get(id);
                let types = spec.columns.iter().filter_map(|column| column.sql_type.as_deref()).collect();
                let kinds = column_types(&connection, types).await?;
                let kind = |name: &str| kinds.get(name).copied().flatten();
                let found = declared_diff(spec, &decoder.fields, &writer.catalog, kind);
                let ddl = match &found.diff {
                    Some(lack) => list_ddl(&connection, &mut writer.catalog, lack, &mut self.already_listed).await?,
                    None => Vec::new(),
                };
                let remarks: Vec<String> = found.remarks.iter().map(ToString::to_string).collect();
                if !ddl.is_empty() || !remarks.is_empty() {
                    let (source, table) = (source.name.clone(), spec.name.unquoted());
                    differing.push(DeclaredTable { source, table, ddl, remarks });
                }
            }
            connection.batch_execute("COMMIT").await.map_err(CatalogError::from)?;
        }
        connection.release();
        Ok(differing)
    }
}

/// The statements that a writer would run for a lack, and the table as it would then be.
async fn list_ddl(
    client: &Client,
    catalog: &mut Catalog,
    lack: &TableDiff,
    told: &mut BTreeSet<String>,
) -> Result<Vec<String>, IngestError> {
    let found = catalog.table(&lack.table).cloned();
    let lack = lack.remaining(found.as_deref());
    let mut statements = Vec::new();
    if lack.created_by.is_some()
        && let Some(statement) = apply::missing_schema_ddl(client, &lack.table.schema).await?
        && told.insert(statement.clone())
    {
        statements.push(statement);
    }
    statements.extend(lack.statements());
    let kinds = column_types(client, lack.columns.iter().map(|column| &*column.sql_type).collect()).await?;
    // What PostgreSQL does not know it will refuse; until then it is text.
    let kind = |name: &str| kinds.get(name).copied().flatten().unwrap_or((ColumnType::Other, 0));
    catalog.insert(lack.table.clone(), Some(lack.applied_to(found.as_deref(), kind)));
    Ok(statements)
}

/// The kind and the number of each type, by what a declaration calls it.
async fn column_types(
    client: &Client,
    types: Vec<&str>,
) -> Result<BTreeMap<String, Option<(ColumnType, u32)>>, IngestError> {
    let found = catalog::lookup_types(client, &types).await?;
    Ok(types.into_iter().map(str::to_owned).zip(found).collect())
}

/// The tables of the writer's own that are made with the batch.
async fn system_tables(client: &Client, plan: &Plan, told: &mut BTreeSet<String>) -> Result<Vec<String>, IngestError> {
    let wanted = [(plan.deletes(), apply::TOMBSTONE), (!plan.writes.is_empty(), apply::FRESHNESS)];
    let mut statements = Vec::new();
    for (_, table) in wanted.iter().filter(|(wanted, _)| *wanted) {
        // The schema is the same for both, and each is made once.
        statements
            .extend(table.missing_ddl(client).await?.into_iter().filter(|statement| told.insert(statement.clone())));
    }
    Ok(statements)
}
