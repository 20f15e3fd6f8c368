//! What a writer does for totals after each commit: it folds the deltas that it has caused, about once a second, and builds a
//! total whose table has just been created. Neither ever fails a batch.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::TotalError;
use super::build::{BuildLimits, BuildOutcome, FrozenPolicy, build};
use super::fold::fold;
use super::registry::{TotalState, TotalVersion, load_versions};
use crate::config::TotalConfig;
use crate::names::TableName;

/// Deltas stay in their table at least this long after the last fold.
const FOLD_PAUSE: Duration = Duration::from_secs(1);
/// The totals of the database are read again after this long: an operator may have changed them.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);
/// Pause between two attempts to build a total.
const BUILD_PAUSE: Duration = Duration::from_secs(10);
/// A table with more than this many bytes is summed by the scheduled function only.
const TABLE_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// A writer's totals, as far as it knows them.
#[derive(Debug)]
pub struct LiveTotals {
    configured: Vec<TotalConfig>,
    versions: Vec<TotalVersion>,
    read_at: Option<Instant>,
    folded_at: HashMap<(String, i32), Instant>,
    built_at: Option<Instant>,
}

impl LiveTotals {
    /// Starts without knowing the database's totals.
    pub fn new(configured: Vec<TotalConfig>) -> Self {
        Self { configured, versions: Vec::new(), read_at: None, folded_at: HashMap::new(), built_at: None }
    }

    /// Whether a commit that wrote these tables is followed by work for their totals.
    pub fn is_due(&self, tables: &BTreeSet<TableName>, now: Instant) -> bool {
        self.configured.iter().any(|total| tables.contains(&total.table))
            && (self.must_read(now)
                || self.must_build(tables, now)
                || self.versions.iter().any(|version| tables.contains(&version.table) && self.must_fold(version, now)))
    }

    fn must_read(&self, now: Instant) -> bool {
        self.read_at.is_none_or(|read| now.duration_since(read) >= REREAD_INTERVAL)
    }

    fn must_build(&self, tables: &BTreeSet<TableName>, now: Instant) -> bool {
        self.built_at.is_none_or(|built| now.duration_since(built) >= BUILD_PAUSE)
            && self.configured.iter().any(|total| tables.contains(&total.table) && !self.is_built(total))
    }

    fn must_fold(&self, version: &TotalVersion, now: Instant) -> bool {
        let last = self.folded_at.get(&(version.name.clone(), version.version));
        last.is_none_or(|folded| now.duration_since(*folded) >= FOLD_PAUSE)
    }

    fn is_built(&self, total: &TotalConfig) -> bool {
        self.versions.iter().any(|version| version.name == total.name.as_str() && version.served)
    }

    /// Does the work that is due after a commit that wrote these tables.
    ///
    /// # Errors
    /// Returns an error if a statement or the connection fails; the next commit tries again.
    pub async fn after_commit(
        &mut self,
        client: &Client,
        tables: &BTreeSet<TableName>,
        timeout: Duration,
    ) -> Result<(), TotalError> {
        let now = Instant::now();
        if self.must_read(now) {
            self.read(client).await?;
        }
        if self.must_build(tables, now) {
            self.built_at = Some(now);
            self.build_new(client, tables, timeout).await?;
        }
        for version in self.versions.iter().filter(|version| tables.contains(&version.table)) {
            let Some(sql) = version.sql().filter(|_| version.state != TotalState::Removing) else { continue };
            if self.must_fold(version, now) {
                self.folded_at.insert((version.name.clone(), version.version), now);
                fold(client, &sql, FOLD_PAUSE, timeout).await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, client: &Client) -> Result<(), TotalError> {
        self.versions = load_versions(client).await?;
        self.read_at = Some(Instant::now());
        Ok(())
    }

    /// Builds the totals of small tables: their writers need not wait for the schedule.
    async fn build_new(
        &mut self,
        client: &Client,
        tables: &BTreeSet<TableName>,
        timeout: Duration,
    ) -> Result<(), TotalError> {
        let limits = BuildLimits { statement: timeout, attempts: 3, frozen: FrozenPolicy::Keep };
        let unbuilt: Vec<TotalConfig> = self
            .configured
            .iter()
            .filter(|total| tables.contains(&total.table) && !self.is_built(total))
            .cloned()
            .collect();
        for total in unbuilt {
            if table_bytes(client, &total.table).await? > TABLE_BYTES_MAX {
                continue;
            }
            match build(client, &total, limits).await? {
                BuildOutcome::Ready(version) => {
                    tracing::info!(total = version.name, table = version.table.unquoted(), "total created");
                }
                BuildOutcome::Waiting { reason } => {
                    tracing::debug!(total = total.name.as_str(), reason, "total waits");
                }
            }
        }
        self.read(client).await
    }
}

/// The size of a table with its partitions, without indexes and values that are stored apart.
async fn table_bytes(client: &Client, table: &TableName) -> Result<i64, TotalError> {
    let name = table.to_string();
    let rows = client.query_typed(include_str!("live/table_bytes.sql"), &[(&name, Type::TEXT)]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
