//! The health of totals: what status, the board and the alarms say about them.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Client;

use super::TotalError;
use super::build::reject_other_relation;
use super::probe::{Probe, probe};
use super::registry::{TotalState, TotalVersion, load_versions};
use crate::apply::{self, Limits};
use crate::config::{Config, TotalConfig};
use crate::names::quote_literal;
use crate::sql_script::fill;

/// Reading the health waits neither for long statements nor for locks.
const LIMITS: Limits = Limits { statement: Duration::from_secs(60), lock: Duration::from_secs(5) };

/// Deltas, and groups without an estimate, are counted up to this many.
const PENDING_MAX: i64 = 1_000_000;

/// The state of a configured total that the database does not have.
const NOT_BUILT: &str = "not built";
/// The state of a configured total whose table, or a column of it, does not exist yet.
const WAITING: &str = "waiting";
/// The state of a configured total that cannot be built until the configuration or the database is changed.
const REJECTED: &str = "rejected";

/// The health of the served version of a total, or of the newest if none is served.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TotalHealth {
    /// The total.
    pub total: String,
    /// The configured name of the source that fills its table.
    pub source: String,
    /// The table whose rows are summed, as `schema.table`.
    pub table: String,
    /// `building`, `ready` or `removing`; of a configured total that the database does not have, `not built`, `waiting` if its
    /// table or a column does not exist yet, or `rejected`.
    pub state: &'static str,
    /// What it waits for, or why it is rejected.
    pub reason: Option<String>,
    /// The number of groups, estimated if there are many; `None` for a total that the database does not have.
    pub groups: Option<i64>,
    /// The number of deltas that are not folded yet, counted up to a million.
    pub pending: i64,
    /// Seconds since the last fold; `None` before the first.
    pub folded_seconds_ago: Option<f64>,
    /// Seconds since the last recompute; `None` before the first.
    pub recomputed_seconds_ago: Option<f64>,
    /// The duration of the last recompute, in seconds.
    pub recompute_seconds: Option<f64>,
    /// The number of groups whose figures the last recompute corrected.
    pub off_by: Option<i64>,
    /// The number of transactions whose rows the total missed, because an expression failed.
    pub broken: i64,
    /// The table and the SQLSTATE of the last such failure.
    pub failure: Option<String>,
    /// Age in seconds of the oldest snapshot in the database, which keeps folded deltas from being removed.
    pub oldest_snapshot_seconds: Option<f64>,
}

/// Reads the health of all totals of the database; none if it has no totals.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn read_health(client: &Client) -> Result<Vec<TotalHealth>, TotalError> {
    let versions = load_versions(client).await?;
    let mut health = Vec::new();
    for version in &versions {
        let same = |other: &&TotalVersion| other.name == version.name;
        let shown = versions.iter().filter(same).find(|other| other.served).or_else(|| versions.iter().rfind(same));
        if shown == Some(version) {
            health.push(read_version(client, version).await?);
        }
    }
    Ok(health)
}

/// Reads the health of the totals of the configured sources, in the order of the configuration; those that the configuration
/// has no longer come last. The expressions of those that the database does not have are tried on an empty temporary table, in a
/// transaction that is rolled back, if the role may do that. Must run outside a transaction.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn read_configured(client: &Client, config: &Config) -> Result<Vec<TotalHealth>, TotalError> {
    apply::begin_read_only(client, LIMITS).await?;
    let existing = read_health(client).await;
    client.batch_execute("COMMIT").await?;
    let mut existing = existing?;
    existing.retain(|health| config.sources.iter().any(|source| source.name == health.source));
    let mut found = Vec::new();
    for total in &config.totals {
        match existing.iter().position(|health| health.total == total.name.as_str()) {
            Some(index) => found.push(existing.remove(index)),
            None => found.push(TotalHealth::unbuilt(client, total).await?),
        }
    }
    found.append(&mut existing);
    Ok(found)
}

impl TotalHealth {
    fn new(total: &str, source: &str, table: String, state: &'static str) -> Self {
        Self {
            total: total.to_owned(),
            source: source.to_owned(),
            table,
            state,
            reason: None,
            groups: None,
            pending: 0,
            folded_seconds_ago: None,
            recomputed_seconds_ago: None,
            recompute_seconds: None,
            off_by: None,
            broken: 0,
            failure: None,
            oldest_snapshot_seconds: None,
        }
    }

    async fn unbuilt(client: &Client, total: &TotalConfig) -> Result<Self, TotalError> {
        let (state, reason) = match buildable(client, total).await {
            Ok(None) => (NOT_BUILT, None),
            Ok(Some(reason)) => (WAITING, Some(reason)),
            Err(error @ (TotalError::Expression { .. } | TotalError::Conflict { .. })) => {
                (REJECTED, Some(error.to_string()))
            }
            Err(error) if error.is_of_connection() => return Err(error),
            // The role, or the server, may not be able to try expressions on a temporary table.
            Err(_not_known) => (NOT_BUILT, None),
        };
        let health = Self::new(total.name.as_str(), &total.source, total.table.unquoted(), state);
        Ok(Self { reason, ..health })
    }

    /// Whether nothing keeps it from being built, and the database has no complete version of it.
    pub fn is_unbuilt(&self) -> bool {
        self.state == NOT_BUILT || self.state == TotalState::Building.as_str()
    }

    /// Why it cannot be built until the configuration or the database is changed.
    pub fn rejection(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.state == REJECTED)
    }
}

/// Whether a total could be built now; if not, what it waits for.
async fn buildable(client: &Client, total: &TotalConfig) -> Result<Option<String>, TotalError> {
    match probe(client, total).await? {
        Probe::Waiting { reason } => Ok(Some(reason)),
        Probe::Defined(definition) => reject_other_relation(client, &definition).await.map(|()| None),
    }
}

async fn read_version(client: &Client, version: &TotalVersion) -> Result<TotalHealth, TotalError> {
    let state = version.state;
    let mut health = TotalHealth::new(&version.name, &version.source, version.table.unquoted(), state.as_str());
    let Some(sql) = version.sql().filter(|_| state != TotalState::Removing) else { return Ok(health) };
    let query = fill(
        include_str!("health/read.sql"),
        &[
            ("delta", &sql.object("delta")),
            ("batch", &quote_literal(&sql.object("batch"))),
            ("state", &sql.object("fold_state")),
            ("batch_rows", &sql.object("batch")),
            ("pending_max", &PENDING_MAX.to_string()),
            ("name", &quote_literal(&version.name)),
            ("version", &version.version.to_string()),
        ],
    );
    if let Some(row) = client.query_typed(&query, &[]).await?.first() {
        health.groups = row.get("groups");
        health.pending = row.get("pending");
        health.folded_seconds_ago = row.get("folded_seconds_ago");
        health.recomputed_seconds_ago = row.get("recomputed_seconds_ago");
        health.recompute_seconds = row.get("recompute_seconds");
        health.off_by = row.get("off_by");
        health.broken = row.get("broken");
        health.failure = row.get("failure");
        health.oldest_snapshot_seconds = row.get("oldest_snapshot_seconds");
    }
    Ok(health)
}
