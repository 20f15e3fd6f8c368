//! `millstream status`: how each source is. The reading is the library's; here it is printed.

use std::time::Duration;

use clap::Args;
use millstream::apply::Limits;
use millstream::config::stream_name_from_arn;
use millstream::status::{Alarm, PartitionStatus, QueueRole, RowCountMode, SourceStatus, Status, Thresholds, read};
use millstream::timestamp::Timestamp;
use serde::Serialize;

use crate::layout::{Align, TextTable, format_count, format_count_of, format_duration, wrap};
use crate::{CommandContext, CommandError, CommandOutput, find_source};

/// A question to the catalogs is answered in a moment; a count may take long.
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

/// The status and what a person should look at.
#[derive(Serialize)]
pub struct StatusOutput {
    #[serde(flatten)]
    status: Status,
    alarms: Vec<Alarm>,
    /// Whether rows are PostgreSQL's estimates.
    estimated: bool,
    /// Whether one source was asked for.
    #[serde(skip)]
    detailed: bool,
}

pub async fn run(arguments: &StatusArgs, session: &CommandContext) -> Result<StatusOutput, CommandError> {
    let app = session.app()?;
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
        let mut grid = TextTable::new(&[
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
            grid.push([
                source.name.clone(),
                source.age_seconds.map_or("never".to_owned(), |age| format!("{} ago", format_duration(age))),
                source.lag_seconds.map_or("-".to_owned(), format_duration),
                source.shards.len().to_string(),
                source.tables.len().to_string(),
                self.rows(source.rows),
                some_or_none(partitions),
            ]);
        }
        grid
    }

    fn shards(&self) -> TextTable {
        let mut grid = TextTable::new(&[
            ("STREAM", Align::Left),
            ("SHARD", Align::Left),
            ("LAST COMMIT", Align::Right),
            ("LAG", Align::Right),
        ]);
        for shard in self.status.sources.iter().flat_map(|source| &source.shards) {
            let age = self.status.at.0.saturating_sub(shard.last_commit.0).max(0) as f64 / 1e6;
            let stream = stream_name_from_arn(&shard.stream).to_owned();
            let name = if shard.shard.is_empty() { "-" } else { &shard.shard };
            grid.push([
                stream,
                name.to_owned(),
                format!("{} ago", format_duration(age)),
                format_duration(shard.lag_seconds),
            ]);
        }
        grid
    }

    fn tables(&self) -> TextTable {
        use Align::{Left, Right};
        let mut grid = TextTable::new(&[
            ("TABLE", Left),
            ("ROWS", Right),
            ("PARTITIONS", Right),
            ("FROM", Left),
            ("TO", Left),
            ("MISSING", Right),
            ("EXPIRED", Right),
        ]);
        for table in self.status.sources.iter().flat_map(|SourceStatus { tables, .. }| tables) {
            let [count, from, to, lacking, expired] = table.partitions.as_ref().map(partitions).unwrap_or_default();
            grid.push([table.name.clone(), self.rows(table.rows), count, from, to, lacking, expired]);
        }
        grid
    }

    fn queues(&self) -> String {
        let mut grid =
            TextTable::new(&[("QUEUE", Align::Left), ("WAITING", Align::Right), ("IN FLIGHT", Align::Right)]);
        for queue in &self.status.queues {
            let holds = match queue.holds {
                QueueRole::DeadLetters => "dead letters",
                QueueRole::Undelivered => "discarded by Lambda",
            };
            let name = queue.url.rsplit('/').next().unwrap_or_default();
            let messages = &queue.messages;
            grid.push([format!("{holds} ({name})"), format_count(messages.waiting), format_count(messages.in_flight)]);
        }
        if grid.is_empty() { "No queues: DEAD_LETTER_QUEUE_URL is not set.\n".to_owned() } else { grid.to_string() }
    }

    /// An estimate is marked as one.
    fn rows(&self, rows: i64) -> String {
        format!("{}{}", if self.estimated { "~" } else { "" }, format_count(rows))
    }
}

/// How many, from where to where, how many are lacking and expired.
fn partitions(partitions: &PartitionStatus) -> [String; 5] {
    let end = |end: Option<Timestamp>| end.map_or("-".to_owned(), |end| until_minutes(&end.to_string()));
    [
        partitions.count.to_string(),
        end(partitions.from),
        end(partitions.to),
        some_or_none(partitions.lacking),
        some_or_none(partitions.expired),
    ]
}

/// A bound without what is zero in it.
fn until_minutes(moment: &str) -> String {
    let (day, time) = moment.split_once('T').unwrap_or((moment, ""));
    if time == "00:00:00Z" { day.to_owned() } else { format!("{day} {}", time.get(..5).unwrap_or(time)) }
}

fn some_or_none(number: usize) -> String {
    if number == 0 { "-".to_owned() } else { format_count_of(number as u64) }
}
