//! What is, or would be, written past a change log: `plan` and `status` report it.

use std::fmt;

use serde::{Serialize, Serializer};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::FeedError;
use super::registry::load_feeds;
use crate::names::TableName;
use crate::statement_triggers::{self, IncompleteTrigger, TriggerProblem};

/// A way past a change log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedProblem {
    /// The table with the log.
    pub table: TableName,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProblemKind {
    /// Triggers are missing, disabled or replaced.
    Triggers {
        /// The relations with such triggers.
        relations: Vec<TableName>,
        /// Whether all of these exist, and merely do not fire whenever they should.
        are_disabled: bool,
    },
    /// A subscription writes to the table or one of its partitions: an apply worker fires no statement triggers.
    Subscription {
        /// The target.
        relation: TableName,
    },
    /// A commit is visible before it is durable.
    AsynchronousCommit {
        /// Where the setting is made: a role, the database or the server.
        scope: String,
    },
}

impl fmt::Display for FeedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.unquoted();
        match &self.kind {
            ProblemKind::Triggers { relations, are_disabled } => {
                let names: Vec<String> = relations.iter().map(TableName::unquoted).collect();
                let names = names.join(", ");
                let state = if *are_disabled { "do not always fire" } else { "are missing" };
                write!(
                    f,
                    "change log of {table}: triggers on {names} {state}; the next run of a transform that reads it repairs \
                     them and reads the whole table"
                )
            }
            ProblemKind::Subscription { relation } => write!(
                f,
                "change log of {table}: a subscription writes to {}, and fires no statement triggers; let it write to another \
                 table, or run transforms that read this one with --full",
                relation.unquoted()
            ),
            ProblemKind::AsynchronousCommit { scope } => write!(
                f,
                "change log of {table}: synchronous_commit is off for {scope}; commits are visible before they are durable, and \
                 what was read from the log may be lost in a crash; set it to on"
            ),
        }
    }
}

impl Serialize for FeedProblem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Finds the problems of all logs that are in use.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn find_problems(client: &Client) -> Result<Vec<FeedProblem>, FeedError> {
    let mut problems = Vec::new();
    for feed in load_feeds(client).await?.into_iter().filter(|feed| feed.definition.is_some()) {
        let table = feed.table.clone();
        let incomplete = statement_triggers::incomplete(client, &feed.sql().triggers(), &table).await?;
        problems.extend(trigger_problem(&table, &incomplete));
        let name = table.to_string();
        for row in client.query_typed(include_str!("problems/subscriptions.sql"), &[(&name, Type::TEXT)]).await? {
            let relation = TableName::from_catalog(row.get(0), row.get(1));
            problems.push(FeedProblem { table: table.clone(), kind: ProblemKind::Subscription { relation } });
        }
        for row in client.query_typed(include_str!("problems/asynchronous_commit.sql"), &[]).await? {
            let scope = row.get(0);
            problems.push(FeedProblem { table: table.clone(), kind: ProblemKind::AsynchronousCommit { scope } });
        }
    }
    Ok(problems)
}

fn trigger_problem(table: &TableName, incomplete: &[IncompleteTrigger]) -> Option<FeedProblem> {
    let mut relations: Vec<TableName> = incomplete.iter().map(|trigger| trigger.relation.clone()).collect();
    relations.dedup();
    let are_disabled = incomplete.iter().all(|trigger| trigger.problem == TriggerProblem::Disabled);
    let kind = ProblemKind::Triggers { relations, are_disabled };
    (!incomplete.is_empty()).then(|| FeedProblem { table: table.clone(), kind })
}
