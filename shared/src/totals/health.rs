//! The health of totals: what status, the board and the alarms say about them.

use serde::Serialize;
use tokio_postgres::Client;

use super::TotalError;
use super::registry::{TotalState, TotalVersion, load_versions};
use crate::apply;
use crate::config::{Config, TotalConfig};
use crate::names::quote_literal;
use crate::sql_script::fill;

/// Deltas are counted up to this many.
const PENDING_MAX: i64 = 1_000_000;

/// The state of a configured total that the database does not have.
const NOT_BUILT: &str = "not built";
/// The state of a configured total whose table does not exist yet.
const WAITING: &str = "waiting";

/// The health of the served version of a total, or of the newest if none is served.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TotalHealth {
    /// The total.
    pub total: String,
    /// The configured name of the source that fills its table.
    pub source: String,
    /// The table whose rows are summed, as `schema.table`.
    pub table: String,
    /// `building`, `ready` or `removing`; of a configured total that the database does not have, `not built`, or `waiting` if
    /// its table does not exist yet.
    pub state: &'static str,
    /// The estimated number of groups.
    pub groups: i64,
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
/// has no longer come last.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn read_configured(client: &Client, config: &Config) -> Result<Vec<TotalHealth>, TotalError> {
    let mut existing = read_health(client).await?;
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
            groups: 0,
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
        let exists = apply::relation_exists(client, &total.table.to_string()).await?;
        let state = if exists { NOT_BUILT } else { WAITING };
        Ok(Self::new(total.name.as_str(), &total.source, total.table.unquoted(), state))
    }

    /// Whether its table exists, and the database has no complete version of it.
    pub fn is_unbuilt(&self) -> bool {
        self.state == NOT_BUILT || self.state == TotalState::Building.as_str()
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
