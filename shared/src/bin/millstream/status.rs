//! `millstream status`: prints the status that the library reads.

use std::time::Duration;

use clap::Args;
use millstream::apply::Limits;
use millstream::config::stream_name_from_arn;
use millstream::status::{Alarm, PartitionStatus, QueueRole, RowCountMode, SourceStatus, Status, Thresholds, read};
use millstream::timestamp::Timestamp;
use serde::Serialize;

use crate::layout::{Align, TextTable, format_count, format_count_of, format_duration, wrap};
use crate::totals::totals_text;
use crate::transform::transforms_table;
use crate::{CommandContext, CommandError, CommandOutput, find_source};

/// A catalog query is fast; counting rows may take long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const COUNT_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct StatusArgs {
    /// Show only this source, with its shards
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Count rows exactly instead of estimating them (reads every table)
    #[arg(long)]
    exact: bool,
    /// Exit with 3 if the lag of a source, from arrival to commit, exceeds this
    #[arg(long, value_name = "SECONDS")]
    max_lag: Option<u64>,
    /// Exit with 3 if the last commit of a source is older than this
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u64>,
}

/// The status, and what needs an operator's attention.
#[derive(Serialize)]
pub struct StatusOutput {
    #[serde(flatten)]
    status: Status,
    alarms: Vec<Alarm>,
    /// Whether row counts are PostgreSQL's estimates.
    estimated: bool,
    /// Whether the output is limited to one source.
    #[serde(skip)]
    detailed: bool,
}

pub async fn run(arguments: &StatusArgs, context: &CommandContext) -> Result<StatusOutput, CommandError> {
    let app = context.app()?;
    let mut config = app.config().await?;
    if let Some(name) = &arguments.source {
        config.sources = vec![find_source(&config, name)?.clone()];
    }
    let (rows, statement) = if arguments.exact {
        (RowCountMode::Counted, COUNT_TIMEOUT)
    } else {
        (RowCountMode::Estimated, STATEMENT_TIMEOUT)
    };
    let limits = Limits { statement, lock: LOCK_TIMEOUT };
    let status = read(&config, app.environment(), &app.database()?, app.aws(), (rows, limits)).await?;
    let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
    let alarms = status.alarms(Thresholds { lag: seconds(arguments.max_lag), age: seconds(arguments.max_age) });
    Ok(StatusOutput { status, alarms, estimated: !arguments.exact, detailed: arguments.source.is_some() })
}

impl CommandOutput for StatusOutput {
    fn to_text(&self) -> String {
        let mut parts = vec![self.sources().to_string()];
        if self.detailed {
            parts.push(self.shards().to_string());
        }
        parts.push(self.tables().to_string());
        if !self.status.totals.is_empty() {
            parts.push(totals_text(&self.status.totals));
        }
        if !self.status.transforms.is_empty() {
            parts.push(transforms_table(&self.status.transforms).to_string());
        }
        parts.push(self.queues());
        if !self.alarms.is_empty() {
            let alarms: String = self.alarms.iter().map(|alarm| wrap(&alarm.to_string(), 2)).collect();
            parts.push(format!("Needs attention:\n{alarms}"));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    fn needs_attention(&self) -> bool {
        !self.alarms.is_empty()
    }
}

impl StatusOutput {
    fn sources(&self) -> TextTable {
        use Align::{Left, Right};
        let mut table = TextTable::new(&[
            ("SOURCE", Left),
            ("LAST COMMIT", Right),
            ("LAG", Right),
            ("SHARDS", Right),
            ("TABLES", Right),
            ("ROWS", Right),
            ("PARTITIONS", Right),
        ]);
        for source in &self.status.sources {
            let partitions = source.tables.iter().filter_map(|table| Some(table.partitions.as_ref()?.count)).sum();
            table.push([
                source.name.clone(),
                source.age_seconds.map_or("never".to_owned(), |age| format!("{} ago", format_duration(age))),
                source.lag_seconds.map_or("-".to_owned(), format_duration),
                source.shards.len().to_string(),
                source.tables.len().to_string(),
                self.rows(source.rows),
                format_nonzero(partitions),
            ]);
        }
        table
    }

    fn shards(&self) -> TextTable {
        let mut table = TextTable::new(&[
            ("STREAM", Align::Left),
            ("SHARD", Align::Left),
            ("LAST COMMIT", Align::Right),
            ("LAG", Align::Right),
        ]);
        for shard in self.status.sources.iter().flat_map(|source| &source.shards) {
            let age = self.status.at.0.saturating_sub(shard.last_commit.0).max(0) as f64 / 1e6;
            let stream = stream_name_from_arn(&shard.stream).to_owned();
            let name = if shard.shard.is_empty() { "-" } else { &shard.shard };
            table.push([
                stream,
                name.to_owned(),
                format!("{} ago", format_duration(age)),
                format_duration(shard.lag_seconds),
            ]);
        }
        table
    }

    fn tables(&self) -> TextTable {
        use Align::{Left, Right};
        let mut table = TextTable::new(&[
            ("TABLE", Left),
            ("ROWS", Right),
            ("PARTITIONS", Right),
            ("FROM", Left),
            ("TO", Left),
            ("MISSING", Right),
            ("EXPIRED", Right),
        ]);
        for status in self.status.sources.iter().flat_map(|SourceStatus { tables, .. }| tables) {
            let [count, from, to, missing, expired] = status.partitions.as_ref().map(partitions).unwrap_or_default();
            table.push([status.name.clone(), self.rows(status.rows), count, from, to, missing, expired]);
        }
        table
    }

    fn queues(&self) -> String {
        let mut table =
            TextTable::new(&[("QUEUE", Align::Left), ("WAITING", Align::Right), ("IN FLIGHT", Align::Right)]);
        for queue in &self.status.queues {
            let role = match queue.holds {
                QueueRole::DeadLetters => "dead letters",
                QueueRole::Undelivered => "discarded by Lambda",
            };
            let name = queue.url.rsplit('/').next().unwrap_or_default();
            let messages = &queue.messages;
            table.push([format!("{role} ({name})"), format_count(messages.waiting), format_count(messages.in_flight)]);
        }
        if table.is_empty() { "No queues: DEAD_LETTER_QUEUE_URL is not set.\n".to_owned() } else { table.to_string() }
    }

    /// Formats a row count; an estimate is marked with `~`.
    fn rows(&self, rows: i64) -> String {
        format!("{}{}", if self.estimated { "~" } else { "" }, format_count(rows))
    }
}

/// The cells of a table's partitions: number, start, end, missing, expired.
fn partitions(partitions: &PartitionStatus) -> [String; 5] {
    let bound = |bound: Option<Timestamp>| bound.map_or("-".to_owned(), |bound| format_bound(&bound.to_string()));
    [
        partitions.count.to_string(),
        bound(partitions.from),
        bound(partitions.to),
        format_nonzero(partitions.missing),
        format_nonzero(partitions.expired),
    ]
}

/// A partition bound without seconds and, at midnight, without the time.
fn format_bound(timestamp: &str) -> String {
    let (day, time) = timestamp.split_once('T').unwrap_or((timestamp, ""));
    if time == "00:00:00Z" { day.to_owned() } else { format!("{day} {}", time.get(..5).unwrap_or(time)) }
}

fn format_nonzero(number: usize) -> String {
    if number == 0 { "-".to_owned() } else { format_count_of(number as u64) }
}
