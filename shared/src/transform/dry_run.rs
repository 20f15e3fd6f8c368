//! A dry run: what is wrong with the transforms of a configuration, and what their next run would create. Nothing is written: the
//! queries are analysed, in a transaction that is rolled back, and not run.

use serde::Serialize;
use tokio_postgres::Client;

use super::TransformError;
use super::file::TransformFile;
use super::registry::read_states;
use super::run::check_query;
use super::source::TransformSet;
use crate::apply::{self, Limits};
use crate::feed::load_feeds;

/// What `plan` says about a transform.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct PlannedTransform {
    /// The transform.
    pub transform: String,
    /// The table that it fills, as `schema.table`.
    pub target: String,
    /// What the next run does.
    pub change: TransformChange,
    /// The details, human-readable.
    pub remarks: Vec<String>,
}

/// What the next run does.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TransformChange {
    /// It creates the target, or the change log of a table.
    Create,
    /// Nothing: a table whose changes it reads does not exist yet.
    Wait,
    /// Nothing: it is wrong.
    Reject,
    /// Nothing, and never again: it has no file any more.
    Remove,
}

impl PlannedTransform {
    /// Whether the file must be changed.
    pub fn is_rejected(&self) -> bool {
        self.change == TransformChange::Reject
    }
}

/// Returns the transforms whose next run creates something or does not run, in their order; those to be forgotten come last.
///
/// # Errors
/// Returns an error if the connection fails, or Millstream's own tables cannot be read. Any other error of a transform is one of
/// its remarks.
pub async fn dry_run(
    client: &Client,
    set: &TransformSet,
    sources: &[String],
    limits: Limits,
) -> Result<Vec<PlannedTransform>, TransformError> {
    let mut planned = Vec::new();
    for (name, mistakes) in &set.rejected {
        planned.push(PlannedTransform {
            transform: name.clone(),
            target: String::new(),
            change: TransformChange::Reject,
            remarks: vec![mistakes.clone()],
        });
    }
    let logged: Vec<_> = load_feeds(client).await?.into_iter().map(|feed| feed.table).collect();
    for &index in &set.graph.order {
        let transform = &set.transforms[index];
        let (change, remarks) = match &set.graph.problems[index] {
            Some(problem) => (TransformChange::Reject, vec![problem.clone()]),
            None => match plan(client, set, transform, &logged, limits).await? {
                Some(planned) => planned,
                None => continue,
            },
        };
        let target = transform.target.unquoted();
        planned.push(PlannedTransform { transform: transform.name.clone(), target, change, remarks });
    }
    for state in read_states(client).await? {
        let is_own = state.sources.iter().any(|source| sources.contains(source));
        if is_own && !set.names().contains(&&*state.name) {
            let remarks = vec![format!("forgotten: it has no file any more; table {} stays", state.target)];
            let (transform, target) = (state.name, state.target);
            planned.push(PlannedTransform { transform, target, change: TransformChange::Remove, remarks });
        }
    }
    Ok(planned)
}

async fn plan(
    client: &Client,
    set: &TransformSet,
    transform: &TransformFile,
    logged: &[crate::names::TableName],
    limits: Limits,
) -> Result<Option<(TransformChange, Vec<String>)>, TransformError> {
    let mut remarks = Vec::new();
    for table in &transform.changes {
        if !apply::relation_exists(client, &table.to_string()).await? {
            let reason = format!("table {} does not exist yet", table.unquoted());
            return Ok(Some((TransformChange::Wait, vec![reason])));
        }
        if !logged.contains(table) {
            remarks.push(format!(
                "a change log of {} is created, with triggers on it and its partitions",
                table.unquoted()
            ));
        }
    }
    let mut change = TransformChange::Create;
    if let Some((rejected, reason)) = check(client, set, transform, limits).await? {
        (change, remarks) = (rejected, vec![reason]);
    } else if !apply::relation_exists(client, &transform.target.to_string()).await? {
        remarks.push(format!("table {} is created with the columns of the query", transform.target.unquoted()));
    }
    Ok((!remarks.is_empty()).then_some((change, remarks)))
}

/// What is wrong with the query, as PostgreSQL analyses it. It cannot be analysed before the first log, with which the functions
/// are created, and while a target of another transform that it reads does not exist.
async fn check(
    client: &Client,
    set: &TransformSet,
    transform: &TransformFile,
    limits: Limits,
) -> Result<Option<(TransformChange, String)>, TransformError> {
    let has_functions = "SELECT FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) \
        pg_catalog.to_regprocedure('millstream.changes(anyelement)')::pg_catalog.oid";
    if !transform.changes.is_empty() && client.query_typed(has_functions, &[]).await?.is_empty() {
        return Ok(None);
    }
    for dependency in transform_dependencies(set, transform) {
        if !apply::relation_exists(client, &dependency.target.to_string()).await? {
            let reason = format!("table {} does not exist yet", dependency.target.unquoted());
            return Ok(Some((TransformChange::Wait, reason)));
        }
    }
    apply::begin_snapshot(client, limits).await?;
    let checked = check_query(client, transform).await;
    client.batch_execute("ROLLBACK").await?;
    match checked {
        Ok(()) => Ok(None),
        Err(error) if error.is_of_connection() => Err(error),
        Err(error) => Ok(Some((TransformChange::Reject, error.to_string()))),
    }
}

fn transform_dependencies<'s>(
    set: &'s TransformSet,
    transform: &TransformFile,
) -> impl Iterator<Item = &'s TransformFile> {
    let index = set.transforms.iter().position(|other| other.name == transform.name);
    let dependencies = index.map(|index| set.graph.dependencies[index].as_slice()).unwrap_or_default();
    dependencies.iter().map(|dependency| &set.transforms[*dependency])
}
