//! Writes changes to the database: plans and applies until the plan and the database agree.

use std::collections::BTreeSet;
use std::time::Instant;

use super::table_findings::TableFindings;
use super::{IngestError, LOCK_TIMEOUT, PLAN_ATTEMPTS_MAX, rejected_row};
use crate::apply::{self, ActivityLog, ApplyError, ApplyResult, Freshness, Limits, RowDifference, WriteHints};
use crate::catalog::{self, Catalog, CatalogError};
use crate::change::Changes;
use crate::clock::now;
use crate::config::TotalConfig;
use crate::database::{Connection, Database};
use crate::decode::Decoder;
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::{Plan, TableWrite, plan, plan_changes, resolve_keys_and_names};
use crate::rejection::{Rejection, RejectionReason};
use crate::report::StageTimes;
use crate::spec::TableId;
use crate::totals::LiveTotals;

/// Writes changes, and keeps what it learns between batches.
pub struct Writer {
    pub(super) database: Database,
    pub(super) catalog: Catalog,
    pub(super) hints: WriteHints,
    pub(super) freshness: Freshness,
    pub(super) activity: ActivityLog,
    pub(super) totals: LiveTotals,
}

/// What decoding finds in the records of a batch, besides their changes.
#[derive(Default)]
pub struct DecodeSummary {
    /// Records that decoding rejected.
    pub rejected: Vec<(usize, Rejection)>,
    /// Records that concern the stream and no row.
    pub control_records: Vec<usize>,
    /// The tables of all other records, by record.
    pub tables: Vec<(usize, TableId)>,
}

impl DecodeSummary {
    /// Summarizes the changes and rejections of some records.
    pub fn new(changes: &Changes<'_>, rejected: Vec<(usize, Rejection)>) -> Self {
        let tables = changes.list.iter().map(|change| (change.record, change.table)).collect();
        Self { rejected, control_records: changes.control_records.clone(), tables }
    }

    /// Rejects a stream whose view type omits the items: none of its records can ever be written.
    pub fn check(&self) -> Result<(), IngestError> {
        let has_wrong_view =
            |(_, rejection): &&(usize, Rejection)| matches!(rejection.reason, RejectionReason::ViewType(_));
        match self.rejected.iter().find(has_wrong_view) {
            Some((_, rejection)) => Err(IngestError::ViewType(rejection.clone())),
            None => Ok(()),
        }
    }

    /// Adds the summary of further records.
    pub fn add(&mut self, other: Self) {
        self.rejected.extend(other.rejected);
        self.control_records.extend(other.control_records);
        self.tables.extend(other.tables);
    }
}

/// The outcome of writing changes to the database.
#[derive(Default)]
pub struct WriteResult {
    /// The outcome of each change, by record.
    pub outcomes: Vec<(usize, ChangeOutcome)>,
    /// Data errors, by record, found by the plan or by PostgreSQL.
    pub rejected: Vec<(usize, Rejection)>,
    /// Records with a row older than its table's retention.
    pub expired: Vec<usize>,
    /// Records with a row that another record of the batch already holds.
    pub repeated_in_batch: Vec<usize>,
    /// The number of rows inserted, updated and deleted.
    pub rows: u64,
    /// The number of statements that changed the schema.
    pub ddl: usize,
    /// The tables that were written.
    pub tables: BTreeSet<TableName>,
}

impl WriteResult {
    fn new(plan: Plan, applied: ApplyResult, ddl: usize) -> Self {
        let mut written = Self { ddl, ..Self::default() };
        written.add(plan, applied);
        written
    }

    /// Adds the outcome of a further plan.
    pub fn add(&mut self, plan: Plan, applied: ApplyResult) {
        self.outcomes.extend(applied.outcomes);
        self.rejected.extend(plan.rejected.into_iter().chain(applied.rejected));
        self.expired.extend(plan.expired);
        self.repeated_in_batch.extend(plan.repeated_in_batch);
        self.rows += applied.rows;
        self.tables.extend(plan.writes.into_iter().map(|write| write.table.name.clone()));
    }
}

impl Writer {
    /// Creates a writer with an empty catalog, for these totals.
    pub fn new(database: Database, totals: Vec<TotalConfig>) -> Self {
        Self {
            database,
            catalog: Catalog::default(),
            hints: WriteHints::default(),
            freshness: Freshness::default(),
            activity: ActivityLog::default(),
            totals: LiveTotals::new(totals),
        }
    }

    /// The source's names for the columns of the table's key, and the keys after `after`; see [`apply::list_keys`].
    pub async fn list_keys(
        &mut self,
        decoder: &mut Decoder,
        table: TableId,
        after: Option<&[String]>,
        limit: i64,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), IngestError> {
        let limits = Limits { statement: LOCK_TIMEOUT, lock: LOCK_TIMEOUT };
        let connection = self.database.connection().await?;
        read_catalog(&connection, &mut self.catalog, decoder, &[table], limits).await?;
        let spec = decoder.tables.get(table);
        let keys = match self.catalog.table(&spec.name).cloned() {
            Some(table) => apply::list_keys(&connection, &TableWrite::for_key_query(table, spec), after, limit).await?,
            None => Vec::new(),
        };
        connection.release();
        let names =
            spec.key_columns().filter_map(|column| column.field).map(|field| decoder.fields.key(field).to_owned());
        Ok((names.collect(), keys))
    }

    /// Plans, and compares the plan with the stored rows. A column that the database does not have yet differs in every row.
    pub async fn diff_rows(
        &mut self,
        decoder: &mut Decoder,
        changes: &Changes<'_>,
        limits: Limits,
    ) -> Result<Vec<RowDifference>, IngestError> {
        let mut connection = None;
        let client = self.database.get_or_connect(&mut connection).await?;
        read_catalog(client, &mut self.catalog, decoder, &changed_tables(changes), limits).await?;
        let plan = plan(changes, &decoder.fields, &decoder.tables, &self.catalog, now());
        let mut differences = Vec::new();
        for diff in &plan.diffs {
            let columns = diff.columns.iter().map(|column| column.name.as_str().to_owned()).collect();
            differences.push(RowDifference { key: "(every row)".to_owned(), columns: Some(columns) });
        }
        differences.extend(plan.rejected.into_iter().map(rejected_row));
        for write in &plan.writes {
            differences.extend(apply::diff_rows(client, write, limits).await?);
        }
        connection.into_iter().for_each(Connection::release);
        Ok(differences)
    }

    /// Plans and applies, until the plan and the database agree. Records of tables that cannot be written are rejected.
    pub async fn write(
        &mut self,
        decoder: &mut Decoder,
        changes: &Changes<'_>,
        limits: Limits,
        times: &mut StageTimes,
    ) -> Result<WriteResult, IngestError> {
        let mut writing = WriteAttempts::new(limits);
        for _ in 0..PLAN_ATTEMPTS_MAX {
            if let Some(written) = writing.attempt(self, decoder, changes, times).await? {
                return Ok(written);
            }
        }
        Err(IngestError::SchemaKeptChanging(writing.cause))
    }
}

/// What the attempts to write a batch have found. Nothing of it outlives the batch.
struct WriteAttempts {
    started: Instant,
    limits: Limits,
    connection: Option<Connection>,
    reconnected: bool,
    /// The number of statements that changed the schema.
    ddl: usize,
    /// Why the batch was last planned again.
    cause: String,
    findings: TableFindings,
}

impl WriteAttempts {
    fn new(limits: Limits) -> Self {
        Self {
            started: Instant::now(),
            limits,
            connection: None,
            reconnected: false,
            ddl: 0,
            cause: String::new(),
            findings: TableFindings::default(),
        }
    }

    /// Plans and applies once. `None` if the batch must be planned again.
    async fn attempt(
        &mut self,
        writer: &mut Writer,
        decoder: &mut Decoder,
        changes: &Changes<'_>,
        times: &mut StageTimes,
    ) -> Result<Option<WriteResult>, IngestError> {
        let reading = Instant::now();
        if !changes.list.is_empty() {
            let client = writer.database.get_or_connect(&mut self.connection).await?;
            read_catalog(client, &mut writer.catalog, decoder, &changed_tables(changes), self.limits).await?;
        }
        times.apply += reading.elapsed();
        let planning = Instant::now();
        let (fields, tables) = (&decoder.fields, &decoder.tables);
        let plan = plan_changes(changes, fields, tables, &writer.catalog, &self.findings.blocked, now()).fold_by_key();
        times.plan += planning.elapsed();
        if self.findings.refresh_unwritable(&plan, &mut writer.catalog)? {
            return Ok(None);
        }
        let Some(connection) = self.connection.take() else {
            return Ok(Some(WriteResult::new(plan, ApplyResult::default(), self.ddl)));
        };
        let applying = Instant::now();
        let written = self.apply(writer, decoder.source_name(), &connection, &plan).await;
        times.apply += applying.elapsed();
        match written {
            Ok(Some(applied)) => {
                connection.release();
                Ok(Some(WriteResult::new(plan, applied, self.ddl)))
            }
            Ok(None) => {
                self.connection = Some(connection);
                Ok(None)
            }
            // After Lambda froze the function, the connection may be dead although it looked alive.
            Err(error) if !self.reconnected && error.database_error().is_some_and(tokio_postgres::Error::is_closed) => {
                self.reconnected = true;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Creates what is missing, or else writes the rows. `None` if the batch must be planned again.
    async fn apply(
        &mut self,
        writer: &mut Writer,
        source: &str,
        client: &Connection,
        plan: &Plan,
    ) -> Result<Option<ApplyResult>, ApplyError> {
        let time_left = self.limits.statement.saturating_sub(self.started.elapsed());
        let limits = Limits { statement: time_left, lock: self.limits.lock.min(time_left * 3 / 4) };
        let catalog = &mut writer.catalog;
        if !plan.diffs.is_empty() {
            let changed = apply::create_missing(client, catalog, &plan.diffs, limits).await?;
            self.ddl += changed.statements.len();
            writer.activity.add_events(source, changed.statements);
            self.findings.add_blocked_changes(changed.unwritable);
            return Ok(None);
        }
        if plan.deletes() && !catalog.tombstone_table_exists {
            self.ddl += apply::ensure_tombstone_table(client, limits).await?;
            catalog.tombstone_table_exists = true;
        }
        match apply::apply(client, plan, limits, &mut writer.hints, &self.findings.refreshed).await {
            Ok(applied) => Ok(Some(applied)),
            Err(ApplyError::Stale { tables, cause }) => {
                tables.iter().for_each(|table| catalog.invalidate(table));
                let names = tables.iter().map(TableName::unquoted).collect::<Vec<_>>().join(", ");
                self.cause = format!(" of {names}{cause}");
                self.findings.add_stale(tables, &cause);
                Ok(None)
            }
            Err(ApplyError::Unwritable(tables)) => {
                self.findings.add_unwritable(tables)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

pub(super) fn changed_tables(changes: &Changes<'_>) -> Vec<TableId> {
    let mut tables: Vec<_> = changes.list.iter().map(|change| change.table).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// Loads the tables into the catalog, unless they are loaded already.
pub(super) async fn read_catalog(
    client: &Connection,
    catalog: &mut Catalog,
    decoder: &mut Decoder,
    tables: &[TableId],
    limits: Limits,
) -> Result<(), IngestError> {
    // Only others can create a table whose key is unknown; it may exist by now, so its absence is not cached.
    for &table in tables {
        let spec = decoder.tables.get(table);
        if spec.replicated && spec.key.is_empty() && catalog.table(&spec.name).is_none() {
            catalog.invalidate(&spec.name);
        }
    }
    loop {
        resolve_keys_and_names(&mut decoder.tables, &decoder.fields, catalog);
        // Resolving may have renamed a table because the database has another one of that name; then the loop goes on.
        // Two tables may have one name until it is known which of them owns it.
        let mut names = BTreeSet::new();
        for spec in tables.iter().map(|&table| decoder.tables.get(table)) {
            names.insert(spec.name.clone());
            // A table that does not exist may have been created with another name, while its own was taken.
            if catalog.is_loaded(&spec.name) && catalog.table(&spec.name).is_none() {
                names.insert(spec.alternative_name());
            }
        }
        let names: Vec<TableName> = names.into_iter().collect();
        if names.iter().all(|name| catalog.is_loaded(name)) {
            return Ok(());
        }
        apply::begin_read_only(client, limits).await?;
        if let Err(error) = catalog::load(client, catalog, &names).await {
            return Err(apply::explain_catalog_failure(client, &names, error).await.into());
        }
        client.batch_execute("COMMIT").await.map_err(CatalogError::from)?;
    }
}
