//! Creates missing tables and columns, in short transactions of their own. Any number of functions can do so
//! concurrently.
//!
//! A lock for each table, held until the transaction ends, serializes them: see [`schema_lock`]. The catalog is read
//! again once the lock is held. A change waits at most [`LOCK_TIMEOUT`] for a table's lock, so that readers and writers do not
//! queue for long.
//!
//! A change that PostgreSQL rejects concerns its table only: see [`SchemaChanges::unwritable`].

mod declared_sql;
mod schema_lock;

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::lock_holders::DelayedBy;
use super::{ApplyError, Limits, LockTimeout, remedy};
use crate::activity::{ActivityEvent, EventKind};
use crate::backoff::backoff_delay;
use crate::catalog::comment::partition_note;
use crate::catalog::{self, Catalog, CatalogError, load};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, is_lock_timeout};
use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};
use crate::plan::TableDiff;
use crate::sql_script::split_script;
use crate::statement_triggers;
use crate::unwritable::{TableProblem, UnwritableTable};
pub use schema_lock::missing_lock_ddl;
use schema_lock::{Locked, ensure_lock_table, lock};

/// While DDL waits for a lock, all other sessions queue for it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Forty attempts that each wait for the lock take more than a minute; then Lambda's own retry takes over.
const ATTEMPTS: u32 = 40;
/// If no lock is in the way, a change that another session has made is in the catalog at the next attempt.
const COLLISIONS_MAX: u32 = 12;
const BACKOFF_MAX: Duration = Duration::from_millis(800);
const BACKOFF_FIRST: Duration = Duration::from_millis(40);

/// What stands for the queries of the system catalogs in messages.
pub const READING: &str = "SELECT FROM pg_catalog.pg_class";

/// What became of missing tables, columns and partitions.
#[derive(Default, Debug)]
pub struct SchemaChanges {
    /// The statements that changed the schema.
    pub statements: Vec<ActivityEvent>,
    /// The tables for which a change was rejected. The configuration of each decides whether its records wait.
    pub unwritable: Vec<UnwritableTable>,
}

/// Creates what is missing, and updates the catalog.
///
/// # Errors
/// Returns an error if the connection fails, the schema cannot be created, or a lock cannot be obtained after repeated
/// attempts, or before the time of `limits` is over.
pub async fn create_missing(
    client: &Client,
    catalog: &mut Catalog,
    diffs: &[TableDiff],
    limits: Limits,
) -> Result<SchemaChanges, ApplyError> {
    let deadline = Instant::now() + limits.statement;
    if !diffs.is_empty() {
        ensure_lock_table(client, limits).await?;
    }
    let mut changes = SchemaChanges::default();
    for diff in diffs {
        match create_missing_in_table(client, catalog, diff, limits, deadline).await? {
            Ok(statements) => {
                let table = diff.table.unquoted();
                let change = |statement: &String| ActivityEvent::new(EventKind::SchemaChange, &table, statement);
                changes.statements.extend(statements.iter().map(change));
            }
            Err(unwritable) => changes.unwritable.push(unwritable),
        }
    }
    Ok(changes)
}

/// A statement that PostgreSQL rejected, or that failed with the connection.
struct FailedStatement {
    step: DatabaseStep,
    statement: String,
    error: tokio_postgres::Error,
}

impl FailedStatement {
    /// A statement that changes a table.
    fn of_change(statement: &str, error: tokio_postgres::Error) -> Self {
        Self { step: DatabaseStep::ChangeSchema, statement: statement.to_owned(), error }
    }

    /// A statement that concerns no table.
    fn of_session(error: tokio_postgres::Error) -> Self {
        Self { step: DatabaseStep::Session, statement: String::new(), error }
    }

    fn into_error(self) -> ApplyError {
        let error = ApplyError::from(self.error);
        match self.step {
            DatabaseStep::SystemTable => error.in_system_table(&self.statement),
            DatabaseStep::Session
            | DatabaseStep::ReadCatalog
            | DatabaseStep::ChangeSchema
            | DatabaseStep::LockTable
            | DatabaseStep::WriteRows => error,
        }
    }
}

/// Why an attempt to change a table failed.
enum FailedAttempt {
    /// A statement failed.
    Statement(FailedStatement),
    /// The configuration is wrong about a column.
    Configuration(String),
    /// The current schema could not be read.
    Other(ApplyError),
}

impl From<FailedStatement> for FailedAttempt {
    fn from(failed: FailedStatement) -> Self {
        Self::Statement(failed)
    }
}

impl From<tokio_postgres::Error> for FailedAttempt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(FailedStatement::of_session(error))
    }
}

impl From<ApplyError> for FailedAttempt {
    fn from(error: ApplyError) -> Self {
        Self::Other(error)
    }
}

impl From<CatalogError> for FailedAttempt {
    fn from(error: CatalogError) -> Self {
        if error.is_lock_timeout() {
            return FailedStatement::of_change(READING, error.into_source()).into();
        }
        Self::Other(error.into())
    }
}

async fn create_missing_in_table(
    client: &Client,
    catalog: &mut Catalog,
    diff: &TableDiff,
    limits: Limits,
    deadline: Instant,
) -> Result<Result<Vec<String>, UnwritableTable>, ApplyError> {
    let mut attempt = 0;
    loop {
        let failed = match try_once(client, catalog, diff, limits).await {
            Ok(statements) => return Ok(Ok(statements)),
            Err(failed) => failed,
        };
        client.batch_execute("ROLLBACK").await.unwrap_or_default();
        catalog.invalidate(&diff.table);
        attempt += 1;
        let failed = match failed {
            FailedAttempt::Statement(failed) => failed,
            FailedAttempt::Configuration(mistake) => {
                return Ok(Err(unwritable(diff, TableProblem::Configuration(mistake), Vec::new())));
            }
            FailedAttempt::Other(error) => return Err(error),
        };
        let delay = backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX);
        match classify(failed.step, &failed.error) {
            ErrorAction::RefreshCatalog if may_retry(&failed.error, attempt, delay, deadline) => {
                tokio::time::sleep(delay).await;
            }
            ErrorAction::RefreshCatalog if is_lock(&failed.error) => {
                let (tables, FailedStatement { statement, error, .. }) = (vec![diff.table.clone()], failed);
                let timeout = LockTimeout::new(client, tables, statement, DelayedBy::Readers, &error).await;
                return Err(ApplyError::Locked(timeout));
            }
            ErrorAction::RefreshCatalog | ErrorAction::RejectTable => {
                return Ok(Err(reject_table(client, diff, failed).await?));
            }
            ErrorAction::Retry | ErrorAction::Halt | ErrorAction::RejectRow => return Err(failed.into_error()),
        }
    }
}

/// Whether a change that collided with another session is tried again.
fn may_retry(error: &tokio_postgres::Error, attempt: u32, delay: Duration, deadline: Instant) -> bool {
    let attempts_max = if is_lock(error) { ATTEMPTS } else { COLLISIONS_MAX };
    attempt < attempts_max && Instant::now() + delay + LOCK_TIMEOUT < deadline
}

/// Whether another session was in the way, and not what it had created.
fn is_lock(error: &tokio_postgres::Error) -> bool {
    is_lock_timeout(error) || error.code().is_some_and(|code| ["55006", "40P01", "40001"].contains(&code.code()))
}

async fn reject_table(
    client: &Client,
    diff: &TableDiff,
    failed: FailedStatement,
) -> Result<UnwritableTable, ApplyError> {
    let FailedStatement { statement, error, .. } = failed;
    let is_new = diff.source_label.is_some();
    let remedy = remedy::for_schema_change(client, &diff.table, is_new, &diff.statements(), &error).await?;
    Ok(unwritable(diff, remedy::statement_rejected(statement, &error), remedy))
}

fn unwritable(diff: &TableDiff, problem: TableProblem, remedy: Vec<String>) -> UnwritableTable {
    UnwritableTable { table: diff.table.clone(), problem, remedy, on_unwritable: diff.on_unwritable }
}

async fn try_once(
    client: &Client,
    catalog: &mut Catalog,
    diff: &TableDiff,
    limits: Limits,
) -> Result<Vec<String>, FailedAttempt> {
    begin(client, LOCK_TIMEOUT, limits.statement).await?;
    restrict_search_path(client, diff.columns.iter().any(|column| column.check.is_some())).await?;
    let mut statements = Vec::new();
    if diff.source_label.is_some() {
        statements.extend(create_schema(client, &diff.table).await?);
    }
    lock(client, &Locked::Table(&diff.table)).await?;
    catalog.invalidate(&diff.table);
    load(client, catalog, std::slice::from_ref(&diff.table)).await?;
    // If the name of a table turns out to be taken, the batch is planned again, with another name.
    let mut diff = diff.remaining(catalog.table(&diff.table).map(|table| &**table));
    if !diff.is_empty() && !catalog.is_taken(&diff.table) {
        choose_partition_names(client, &mut diff).await?;
        declared_sql::verify(client, &diff).await?;
        let mut ddl = diff.statements();
        ddl.extend(triggers_of_partitions(client, &diff).await?);
        for statement in &ddl {
            execute(client, statement).await.map_err(|error| FailedStatement::of_change(statement, error))?;
        }
        statements.extend(ddl);
        catalog.invalidate(&diff.table);
        load(client, catalog, std::slice::from_ref(&diff.table)).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

/// The triggers of totals and of the change log that the new partitions need. A new table has none yet.
async fn triggers_of_partitions(client: &Client, diff: &TableDiff) -> Result<Vec<String>, tokio_postgres::Error> {
    if diff.partitions.is_empty() || diff.source_label.is_some() {
        return Ok(Vec::new());
    }
    let partitions = diff.partitions.iter().map(|partition| &partition.name);
    statement_triggers::for_partitions(client, &diff.table, partitions).await
}

/// Executes one statement: PostgreSQL parses it as one, so that text in it cannot start another.
async fn execute(client: &Client, statement: &str) -> Result<(), tokio_postgres::Error> {
    client.execute_typed(statement, &[]).await.map(drop)
}

/// Executes statements, each of which PostgreSQL parses as one.
async fn execute_each(client: &Client, statements: &[String]) -> Result<(), tokio_postgres::Error> {
    for statement in statements {
        execute(client, statement).await?;
    }
    Ok(())
}

/// Gives another name to each missing partition whose name is taken, for example by a partition that the owner detached and
/// kept, or by the table of an event with that name.
pub async fn choose_partition_names(client: &Client, diff: &mut TableDiff) -> Result<(), ApplyError> {
    loop {
        let names: Vec<&TableName> = diff.partitions.iter().map(|partition| &partition.name).collect();
        let taken = catalog::taken_names(client, &names).await?;
        if taken.is_empty() {
            return Ok(());
        }
        for partition in diff.partitions.iter_mut().filter(|partition| taken.contains(&partition.name)) {
            let note = partition_note(&diff.table.unquoted(), partition.bounds);
            partition.name.table = partition.name.table.alternative(&note);
        }
    }
}

/// Waits until no other session changes the schema of a table, and keeps others from doing so until the transaction ends.
///
/// # Errors
/// Returns an error if the lock timeout passes or the connection fails.
pub async fn lock_schema_changes(client: &Client, table: &TableName) -> Result<(), ApplyError> {
    lock(client, &Locked::Table(table)).await.map_err(FailedStatement::into_error)
}

/// As [`lock_schema_changes`], for Millstream's own schema; to be taken before that of a table.
///
/// # Errors
/// Returns an error if the lock timeout passes or the connection fails.
pub async fn lock_system_schema(client: &Client) -> Result<(), ApplyError> {
    lock(client, &Locked::Schema(&system_schema())).await.map_err(FailedStatement::into_error)
}

/// Creates a table of Millstream's own schema if it does not exist. Returns whether it was created.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn ensure_system_table(client: &Client, table: &SystemTable, limits: Limits) -> Result<bool, ApplyError> {
    ensure_lock_table(client, limits).await?;
    begin(client, limits.lock, limits.statement).await?;
    restrict_search_path(client, false).await?;
    match create_system_table(client, table).await {
        Ok(created) => {
            client.batch_execute("COMMIT").await?;
            Ok(created)
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await.unwrap_or_default();
            Err(error.in_system_table(table.name))
        }
    }
}

async fn create_system_table(client: &Client, table: &SystemTable) -> Result<bool, ApplyError> {
    // One lock for all of them, because the first one also creates their schema.
    lock(client, &Locked::Schema(&system_schema())).await.map_err(FailedStatement::into_error)?;
    let statements = table.missing_ddl(client).await?;
    if !statements.is_empty() {
        execute_each(client, &statements).await?;
    }
    Ok(!statements.is_empty())
}

/// A table of Millstream's own schema.
pub struct SystemTable {
    /// Its name, including the schema.
    pub name: &'static str,
    /// The statements that create the schema and the table, also for owners whose writers may not create them.
    /// `CREATE SCHEMA` comes first.
    pub ddl: &'static str,
}

/// Millstream's own schema.
fn system_schema() -> Identifier {
    Identifier::truncated(SYSTEM_SCHEMA, SYSTEM_SCHEMA)
}

/// Whether a relation exists; `name` is written as in SQL.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn relation_exists(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    let find = "SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)";
    Ok(!client.query_typed(find, &[(&name, Type::TEXT)]).await?.is_empty())
}

impl SystemTable {
    /// Whether the table exists.
    ///
    /// # Errors
    /// Returns an error if the query or the connection fails.
    pub async fn exists(&self, client: &Client) -> Result<bool, ApplyError> {
        Ok(relation_exists(client, self.name).await?)
    }

    /// The statements that create the table; empty if it exists.
    ///
    /// # Errors
    /// Returns an error if the query or the connection fails.
    pub async fn missing_ddl(&self, client: &Client) -> Result<Vec<String>, ApplyError> {
        if self.exists(client).await? {
            return Ok(Vec::new());
        }
        let statements = split_script(self.ddl).into_iter();
        let schema = system_schema();
        // `CREATE SCHEMA IF NOT EXISTS` requires a permission even if the schema exists.
        let existing = usize::from(missing_schema_ddl(client, &schema).await?.is_none());
        Ok(statements.skip(existing).collect())
    }
}

/// Begins a transaction that reads and writes timestamps in UTC.
pub async fn begin(client: &Client, lock: Duration, statement: Duration) -> Result<(), ApplyError> {
    begin_with(client, "BEGIN ISOLATION LEVEL READ COMMITTED", lock, statement).await
}

/// Begins a read-only transaction with the same settings; PostgreSQL rejects any write.
pub async fn begin_read_only(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    begin_with(client, "BEGIN READ ONLY", limits.lock, limits.statement).await
}

/// Begins a read-only transaction that sees one snapshot of the database, in which unqualified names are PostgreSQL's own.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn begin_snapshot(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp";
    begin_with(client, begin, limits.lock, limits.statement).await
}

async fn begin_with(client: &Client, begin: &str, lock: Duration, statement: Duration) -> Result<(), ApplyError> {
    let settings = format!(
        "{begin}; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
         SET LOCAL standard_conforming_strings = on",
        lock.as_millis().max(1),
        statement.as_millis().max(1),
    );
    Ok(client.batch_execute(&settings).await?)
}

/// Sees to it that names without a schema, in the statements of this transaction, mean what PostgreSQL provides.
async fn restrict_search_path(client: &Client, has_check: bool) -> Result<(), ApplyError> {
    client.query_typed(include_str!("ddl/search_path.sql"), &[(&has_check, Type::BOOL)]).await?;
    Ok(())
}

/// Creates the schema if it does not exist. Without it none of the source's tables can be written.
async fn create_schema(client: &Client, table: &TableName) -> Result<Option<String>, FailedAttempt> {
    lock(client, &Locked::Schema(&table.schema)).await?;
    let Some(statement) = missing_schema_ddl(client, &table.schema).await? else { return Ok(None) };
    match client.batch_execute(&statement).await {
        Ok(()) => Ok(Some(statement)),
        // Another session was faster.
        Err(error) if classify(DatabaseStep::ChangeSchema, &error) == ErrorAction::RefreshCatalog => {
            Err(FailedStatement::of_change(&statement, error).into())
        }
        Err(error) => {
            let schema = format!("schema {} (`{statement}`)", table.schema.as_str());
            Err(ApplyError::System { table: schema, error }.into())
        }
    }
}

/// The statement that creates the schema, if it does not exist. `CREATE SCHEMA IF NOT EXISTS` requires a permission
/// even if the schema exists.
pub async fn missing_schema_ddl(client: &Client, schema: &Identifier) -> Result<Option<String>, ApplyError> {
    let find = "SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1";
    let schemas = client.query_typed(find, &[(&schema.as_str(), Type::TEXT)]).await?;
    Ok(schemas.is_empty().then(|| format!("CREATE SCHEMA {schema}")))
}
