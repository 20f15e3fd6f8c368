//! Totals as a demo or a test handles them: built, falsified by hand, recomputed.

use std::path::Path;
use std::time::Duration;

use millstream::config::Config;
use millstream::totals::TotalVersion;
use millstream::totals::build::{BuildLimits, BuildOutcome, FrozenPolicy, build};
use millstream::totals::fold::fold;
use millstream::totals::recompute::RecomputeReport;
use millstream::totals::task::TotalResult;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::function::{Function, Settings, binary};
use crate::system::SystemResult;

/// Bounds each statement.
const TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: BuildLimits = BuildLimits { statement: TIMEOUT, attempts: 30, frozen: FrozenPolicy::Keep };

/// A figure that someone changes by hand, where no one may.
#[derive(Clone, Copy, Debug)]
pub struct Falsification<'a> {
    /// The sum that is changed.
    pub figure: &'a str,
    /// What is added to it.
    pub amount: i64,
    /// Selects groups; of these, the one with most rows is changed.
    pub condition: &'a str,
}

/// Builds the totals of a system, or finds them built by its writers. `folder` is the system's under `events/`.
///
/// # Errors
/// Returns an error if a total cannot be built, or its table does not exist.
pub async fn build_totals(client: &Client, folder: &Path) -> SystemResult<Vec<TotalVersion>> {
    let path = folder.join("millstream.toml");
    let config = Config::parse(&path.to_string_lossy(), &std::fs::read_to_string(&path)?)?;
    let mut versions = Vec::new();
    for total in &config.totals {
        match build(client, total, LIMITS).await? {
            BuildOutcome::Ready(version) => versions.push(*version),
            BuildOutcome::Waiting { reason } => return Err(reason.into()),
        }
    }
    Ok(versions)
}

/// Folds all deltas into the batch.
///
/// # Errors
/// Returns an error if another session is folding, or the statement or the connection fails.
pub async fn fold_all(client: &Client, version: &TotalVersion) -> SystemResult<()> {
    let sql = version.sql().ok_or("the total has no definition")?;
    let folded = fold(client, &sql, Duration::ZERO, TIMEOUT).await?;
    folded.map(drop).ok_or_else(|| "another session is folding".into())
}

/// Changes one figure in the batch of a total, and returns the values of its group.
///
/// # Errors
/// Returns an error if no group is selected, or the statement or the connection fails.
pub async fn falsify(client: &Client, version: &TotalVersion, what: Falsification<'_>) -> SystemResult<Vec<String>> {
    fold_all(client, version).await?;
    let sql = version.sql().ok_or("the total has no definition")?;
    let batch = sql.object("batch");
    let Falsification { figure, amount, condition } = what;
    let groups: Vec<String> = group_names(version).map(|name| format!("coalesce({name}::text, '')")).collect();
    let statement = format!(
        "UPDATE {batch} SET {figure} = {figure} + {amount} WHERE id = \
         (SELECT id FROM {batch} WHERE {condition} ORDER BY rows DESC, id LIMIT 1) RETURNING ARRAY[{}]",
        groups.join(", ")
    );
    let row = client.query_opt(&statement, &[]).await?;
    row.map(|row| row.get(0)).ok_or_else(|| format!("no group of {batch} has {condition}").into())
}

/// The function `recompute`, as a schedule invokes it.
pub struct Recompute(Function);

impl Recompute {
    /// Starts the function. `folder` is the system's under `events/`.
    ///
    /// # Errors
    /// Returns an error if the function is not built or does not start.
    pub async fn start(folder: &Path, url: &str) -> SystemResult<Self> {
        let config = folder.join("millstream.toml").to_string_lossy().into_owned();
        let environment = vec![("DATABASE_URL".to_owned(), url.to_owned()), ("MILLSTREAM_CONFIG".to_owned(), config)];
        Ok(Self(Function::start(Settings { binary: binary("recompute")?, environment, timeout: TIMEOUT }).await?))
    }

    /// Recomputes the system's only total.
    ///
    /// # Errors
    /// Returns an error if the function fails, or reports that the total could not be recomputed.
    pub async fn run(&mut self) -> SystemResult<RecomputeReport> {
        let answer: RecomputeAnswer = serde_json::from_slice(&self.0.invoke("{}").await?)?;
        let result = answer.results.into_iter().next().ok_or("the system has no total")?;
        let reason = result.error.or(result.waiting).unwrap_or_default();
        result.report.ok_or_else(|| reason.into())
    }
}

#[derive(Deserialize)]
struct RecomputeAnswer {
    results: Vec<TotalResult>,
}

/// What a recompute corrected, one line per group: the figures by which the total was too high are negative.
pub fn corrections(version: &TotalVersion, report: &RecomputeReport) -> Vec<String> {
    let sums = version.definition.iter().flat_map(|definition| definition.sums.iter().map(|sum| &*sum.name));
    let names: Vec<&str> = std::iter::once("rows").chain(sums).collect();
    let mut lines = Vec::new();
    for difference in &report.groups {
        let mut line = String::new();
        for (name, value) in group_names(version).zip(&difference.group) {
            line.push_str(&format!("{name} {}, ", value.as_deref().unwrap_or("NULL")));
        }
        let changed = names.iter().zip(&difference.figures).filter(|(_, figure)| !is_zero(figure));
        let figures: Vec<String> = changed.map(|(name, figure)| format!("{name} {figure}")).collect();
        lines.push(format!("{}: {}", line.trim_end_matches(", "), figures.join(", ")));
    }
    lines
}

fn group_names(version: &TotalVersion) -> impl Iterator<Item = &str> {
    version.definition.iter().flat_map(|definition| definition.groups.iter().map(|group| &*group.name))
}

fn is_zero(figure: &str) -> bool {
    figure.chars().all(|character| matches!(character, '0' | '.' | '-'))
}
