//! Brings the totals of a database in line with the configuration: creates new ones, builds new versions of changed ones while
//! the old ones are served, repairs triggers, and removes what is no longer configured. Writers go on meanwhile.
//!
//! Each step is complete in itself and found again by the next run: a version, its triggers, its first sums, the view.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::definition::Definition;
use super::fold::fold;
use super::probe::{Probe, probe};
use super::recompute::{recompute, unknown_definition};
use super::registry::{self, TotalState, TotalVersion, load_versions};
use super::sql::TotalSql;
use super::{BOARD_RELATIONS, TotalError, of_triggers, repair_triggers};
use crate::apply::{self, BoardObjects, Limits};
use crate::catalog::comment::with_note;
use crate::config::{SourceConfig, TotalConfig};
use crate::names::quote_literal;
use crate::schema_work::{in_transaction, retry};
use crate::statement_triggers;

/// Creating and dropping objects changes the catalog only.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: STATEMENT_TIMEOUT };

/// How patient a build is.
#[derive(Clone, Copy, Debug)]
pub struct BuildLimits {
    /// Bounds the statement that sums the rows of a new total.
    pub statement: Duration,
    /// How often a lock is tried.
    pub attempts: u32,
    /// What happens to the sums of dropped partitions if a changed definition cannot take them over.
    pub frozen: FrozenPolicy,
}

/// What happens to the sums of dropped partitions if a changed definition cannot take them over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrozenPolicy {
    /// The change is refused.
    Keep,
    /// They are given up.
    Discard,
}

/// The result of building a total.
#[derive(Clone, PartialEq, Debug)]
pub enum BuildOutcome {
    /// The total is served with the configured definition.
    Ready(Box<TotalVersion>),
    /// Its table, or a column, does not exist yet.
    Waiting {
        /// What is missing.
        reason: String,
    },
}

/// Builds one total.
///
/// # Errors
/// Returns an error if the configuration does not fit the table, a lock is not obtained, or a statement or the connection
/// fails.
pub async fn build(client: &Client, total: &TotalConfig, limits: BuildLimits) -> Result<BuildOutcome, TotalError> {
    let definition = match probe(client, total).await? {
        Probe::Defined(definition) => definition,
        Probe::Waiting { reason } => return Ok(BuildOutcome::Waiting { reason }),
    };
    registry::ensure_tables(client, LIMITS).await?;
    let mut version = retry(limits.attempts, || ensure_version(client, total, &definition, limits.frozen)).await?;
    let sql = TotalSql::new(&definition, version.version);
    repair_triggers(client, &sql, &version.table, limits.attempts).await?;
    if version.state == TotalState::Building || !version.served {
        if version.state == TotalState::Building {
            recompute(client, &version, false, limits.statement).await?;
            fold(client, &sql, Duration::ZERO, limits.statement).await?;
        }
        retry(limits.attempts, || serve(client, &version, &definition)).await?;
        grant_board(client, &definition).await?;
        (version.state, version.served) = (TotalState::Ready, true);
    }
    remove_versions(client, limits.attempts, |other| {
        other.name == version.name && other.version != version.version && other.state == TotalState::Removing
    })
    .await?;
    Ok(BuildOutcome::Ready(Box::new(version)))
}

/// The names of the totals of these sources that the database has and the configuration has not.
pub fn unconfigured(versions: &[TotalVersion], sources: &[SourceConfig], totals: &[TotalConfig]) -> Vec<String> {
    let is_unconfigured = |version: &&TotalVersion| {
        sources.iter().any(|source| source.name == version.source)
            && !totals.iter().any(|total| total.name.as_str() == version.name)
    };
    let mut names: Vec<String> = versions.iter().filter(is_unconfigured).map(|version| version.name.clone()).collect();
    names.dedup();
    names
}

/// Removes a total: all its versions, and its view.
///
/// # Errors
/// Returns an error if another view depends on its view, a lock is not obtained, or a statement or the connection fails.
pub async fn remove_total(client: &Client, name: &str, attempts: u32) -> Result<(), TotalError> {
    remove_versions(client, attempts, |version| version.name == name).await
}

async fn remove_versions(
    client: &Client,
    attempts: u32,
    is_removed: impl Fn(&TotalVersion) -> bool,
) -> Result<(), TotalError> {
    for version in load_versions(client).await?.iter().filter(|version| is_removed(version)) {
        remove(client, version, attempts).await?;
    }
    Ok(())
}

/// The version with this definition; created, with its tables and functions, if it does not exist.
async fn ensure_version(
    client: &Client,
    total: &TotalConfig,
    definition: &Definition,
    frozen: FrozenPolicy,
) -> Result<TotalVersion, TotalError> {
    let versions = load_versions(client).await?;
    if let Some(version) = current(&versions, definition) {
        return Ok(version.clone());
    }
    in_transaction(client, STATEMENT_TIMEOUT, async {
        apply::lock_system_schema(client).await?;
        apply::lock_schema_changes(client, &total.table).await?;
        let versions = load_versions(client).await?;
        if let Some(version) = current(&versions, definition) {
            return Ok(version.clone());
        }
        create_version(client, total, definition, frozen, &versions).await
    })
    .await
}

/// The newest version of a total that is not being removed. Versions are ordered.
fn newest<'v>(versions: &'v [TotalVersion], total: &str) -> Option<&'v TotalVersion> {
    versions.iter().rfind(|version| version.name == total && version.state != TotalState::Removing)
}

/// The newest version that is not being removed, if it has this definition.
fn current<'v>(versions: &'v [TotalVersion], definition: &Definition) -> Option<&'v TotalVersion> {
    newest(versions, &definition.name).filter(|version| version.definition.as_ref() == Some(definition))
}

async fn create_version(
    client: &Client,
    total: &TotalConfig,
    definition: &Definition,
    frozen: FrozenPolicy,
    versions: &[TotalVersion],
) -> Result<TotalVersion, TotalError> {
    let earlier: Vec<&TotalVersion> = versions.iter().filter(|version| version.name == definition.name).collect();
    let number = earlier.iter().map(|version| version.version).max().unwrap_or(0) + 1;
    let version = TotalVersion {
        name: definition.name.clone(),
        version: number,
        source: total.source.clone(),
        table: definition.table.clone(),
        state: TotalState::Building,
        served: false,
        definition: Some(definition.clone()),
    };
    let sql = TotalSql::new(definition, number);
    client.batch_execute(include_str!("sql/total_failed.sql")).await?;
    client
        .batch_execute("REVOKE ALL ON FUNCTION millstream.total_failed(text, integer, text, text) FROM PUBLIC")
        .await?;
    for statement in sql.create() {
        client.execute_typed(&statement, &[]).await?;
    }
    let served = earlier.iter().rev().find(|version| version.served);
    match served {
        Some(served) => carry_over_frozen(client, &sql, definition, served, frozen).await?,
        None => create_view(client, definition, &sql.empty_view()).await?,
    }
    let text = serde_json::to_string(definition).unwrap_or_default();
    registry::insert(client, &version, &text).await?;
    Ok(version)
}

/// Creates the view, unless another relation has its name.
async fn create_view(client: &Client, definition: &Definition, statement: &str) -> Result<(), TotalError> {
    reject_other_relation(client, definition).await?;
    let view = definition.view();
    let note = view_note(definition);
    client.batch_execute(statement).await?;
    client.batch_execute(&format!("COMMENT ON VIEW {view} IS {}", quote_literal(&note))).await?;
    Ok(())
}

/// The comment that marks a total's view.
fn view_note(definition: &Definition) -> String {
    with_note(None, &format!("total {}", definition.name))
}

/// Checks that no other relation has the name of the total's view.
pub(super) async fn reject_other_relation(client: &Client, definition: &Definition) -> Result<(), TotalError> {
    let view = definition.view();
    let (schema, name) = (view.schema.as_str(), view.table.as_str());
    let rows =
        client.query_typed(include_str!("build/view.sql"), &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await?;
    let is_view = |row: &tokio_postgres::Row| {
        row.get::<_, i8>("relkind") == b'v' as i8
            && row.get::<_, Option<&str>>("comment") == Some(&*view_note(definition))
    };
    if rows.first().is_none_or(is_view) {
        return Ok(());
    }
    Err(TotalError::Conflict {
        total: definition.name.clone(),
        reason: format!("relation {} exists and is not the total's view; rename it, or the total", view.unquoted()),
    })
}

/// The rows behind the frozen sums are gone: they follow from the earlier definition, or they are lost.
async fn carry_over_frozen(
    client: &Client,
    sql: &TotalSql<'_>,
    definition: &Definition,
    served: &TotalVersion,
    policy: FrozenPolicy,
) -> Result<(), TotalError> {
    let earlier = served.sql().ok_or_else(|| unknown_definition(served))?;
    client.batch_execute(&format!("LOCK TABLE {} IN SHARE MODE", earlier.object("frozen"))).await?;
    if served.definition.as_ref().is_some_and(|earlier| definition.follows_from(earlier)) {
        client.execute_typed(&sql.carry_over_frozen(&earlier), &[]).await?;
        return Ok(());
    }
    let any_frozen = format!("SELECT FROM {} LIMIT 1", earlier.object("frozen"));
    let has_frozen = !client.query_typed(&any_frozen, &[]).await?.is_empty();
    if has_frozen && policy == FrozenPolicy::Keep {
        return Err(TotalError::Conflict {
            total: definition.name.clone(),
            reason: "its definition has changed, and the sums of dropped partitions do not follow from the old one; restore \
                     their rows, undo the change, or give these sums up with 'millstream totals recompute --discard-dropped'"
                .to_owned(),
        });
    }
    Ok(())
}

/// Exchanges the view, and marks the other versions as to be removed.
async fn serve(client: &Client, version: &TotalVersion, definition: &Definition) -> Result<(), TotalError> {
    in_transaction(client, STATEMENT_TIMEOUT, async {
        apply::lock_system_schema(client).await?;
        let versions = load_versions(client).await?;
        if newest(&versions, &version.name).is_none_or(|newest| newest.version != version.version) {
            let reason = "another session is changing it".to_owned();
            return Err(TotalError::Busy { total: version.name.clone(), reason });
        }
        let served = versions.iter().find(|other| other.name == version.name && other.served);
        let earlier = served.and_then(|served| served.definition.as_ref());
        let view = definition.view();
        let is_replaced = earlier.is_none_or(|earlier| definition.extends_columns_of(earlier));
        let sql = TotalSql::new(definition, version.version).view();
        if is_replaced {
            create_view(client, definition, &sql).await?;
        } else {
            let grants = acl_statements(client, definition, include_str!("build/grants.sql")).await?;
            drop_view(client, definition).await?;
            create_view(client, definition, &sql).await?;
            let defaults = acl_statements(client, definition, include_str!("build/revokes.sql")).await?;
            for statement in defaults.iter().chain(&grants) {
                client.batch_execute(statement).await?;
            }
        }
        registry::serve(client, version).await?;
        tracing::debug!(view = view.unquoted(), version = version.version, "total");
        Ok(())
    })
    .await
}

/// Lets the board's role, if there is one, read the total. If that is not possible now, `maintain` does it.
async fn grant_board(client: &Client, definition: &Definition) -> Result<(), TotalError> {
    let mut relations = BOARD_RELATIONS.map(str::to_owned).to_vec();
    relations.push(definition.view().to_string());
    match apply::grant_to_board(client, &BoardObjects { relations, ..BoardObjects::default() }).await {
        Err(error) if error.database_error().is_some_and(|error| error.as_db_error().is_some()) => {
            tracing::warn!(total = definition.name, %error, "the board's role cannot read the total yet");
            Ok(())
        }
        granted => Ok(granted?),
    }
}

/// The statements that a query builds from the privileges on the view: those that repeat the grants after it has been created
/// again, or those that take back what default privileges have given to the new one.
async fn acl_statements(client: &Client, definition: &Definition, query: &str) -> Result<Vec<String>, TotalError> {
    let view = definition.view();
    let (schema, name) = (view.schema.as_str(), view.table.as_str());
    let rows = client.query_typed(query, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn drop_view(client: &Client, definition: &Definition) -> Result<(), TotalError> {
    let view = definition.view();
    match client.batch_execute(&format!("DROP VIEW IF EXISTS {view}")).await {
        Err(error) if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => Err(TotalError::Conflict {
            total: definition.name.clone(),
            reason: format!(
                "its columns have changed, and other views depend on {}; drop them, and create them again afterwards",
                view.unquoted()
            ),
        }),
        dropped => Ok(dropped?),
    }
}

/// Removes a version: its functions first become empty, which needs no lock on the table; then its triggers go one by one,
/// each with a lock for a moment; then the rest.
async fn remove(client: &Client, version: &TotalVersion, attempts: u32) -> Result<(), TotalError> {
    let sql = version.sql().ok_or_else(|| unknown_definition(version))?;
    retry(attempts, || stop_feeding(client, version, &sql)).await?;
    let dropped = statement_triggers::drop_all(client, &sql.triggers(), attempts).await;
    dropped.map_err(|error| of_triggers(sql.name(), error))?;
    in_transaction(client, STATEMENT_TIMEOUT, async {
        apply::lock_system_schema(client).await?;
        for statement in sql.drop() {
            client.execute_typed(&statement, &[]).await?;
        }
        registry::delete(client, version).await
    })
    .await
}

/// Takes the view away and makes the trigger functions do nothing.
async fn stop_feeding(client: &Client, version: &TotalVersion, sql: &TotalSql<'_>) -> Result<(), TotalError> {
    let work = async {
        apply::lock_system_schema(client).await?;
        if version.served
            && let Some(definition) = &version.definition
        {
            drop_view(client, definition).await?;
        }
        registry::mark_removing(client, version).await?;
        for statement in sql.triggers().empty_functions() {
            client.execute_typed(&statement, &[]).await?;
        }
        Ok(())
    };
    in_transaction(client, STATEMENT_TIMEOUT, work).await
}
