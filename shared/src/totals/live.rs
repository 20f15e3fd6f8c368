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
        let is_past = |then: Option<&Instant>, pause| then.is_none_or(|then| now.duration_since(*then) >= pause);
        let is_summed = self.configured.iter().any(|total| tables.contains(&total.table));
        let has_due = self.versions.iter().any(|version| {
            let key = (version.name.clone(), version.version);
            tables.contains(&version.table) && is_past(self.folded_at.get(&key), FOLD_PAUSE)
        });
        is_summed
            && (has_due
                || is_past(self.read_at.as_ref(), REREAD_INTERVAL)
                || (self.has_unbuilt(tables) && is_past(self.built_at.as_ref(), BUILD_PAUSE)))
    }

    fn has_unbuilt(&self, tables: &BTreeSet<TableName>) -> bool {
        self.configured.iter().any(|total| tables.contains(&total.table) && !self.is_built(total))
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
        if self.read_at.is_none_or(|read| now.duration_since(read) >= REREAD_INTERVAL) {
            self.read(client).await?;
        }
        if self.has_unbuilt(tables) && self.built_at.is_none_or(|built| now.duration_since(built) >= BUILD_PAUSE) {
            self.built_at = Some(now);
            self.build_new(client, tables, timeout).await?;
        }
        for version in self.versions.iter().filter(|version| tables.contains(&version.table)) {
            let Some(sql) = version.sql().filter(|_| version.state != TotalState::Removing) else { continue };
            let last = self.folded_at.entry((version.name.clone(), version.version)).or_insert(now - FOLD_PAUSE);
            if now.duration_since(*last) >= FOLD_PAUSE {
                *last = now;
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
