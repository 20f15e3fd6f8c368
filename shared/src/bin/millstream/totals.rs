//! `millstream totals`: lists totals, compares them with the rows they sum, and recomputes them.

use std::time::Duration;

use clap::{Args, Subcommand};
use millstream::config::Config;
use millstream::names::{Identifier, TableName};
use millstream::task::Deadline;
use millstream::timestamp::Timestamp;
use millstream::totals::build::FrozenPolicy;
use millstream::totals::freeze;
use millstream::totals::health::{TotalHealth, read_configured};
use millstream::totals::recompute::RecomputeReport;
use millstream::totals::task::{RunOptions, TotalResult, run_totals};
use serde::Serialize;

use crate::layout::{Align, TextTable, format_count, format_duration, format_number_of, wrap};
use crate::{CommandContext, CommandError, CommandOutput};

/// A table is summed for as long as it takes.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Args)]
pub struct TotalsArgs {
    #[command(subcommand)]
    command: TotalsCommand,
}

#[derive(Subcommand)]
enum TotalsCommand {
    /// Show each total: its groups, its deltas, and how far off it was
    List,
    /// Compare totals with the rows that they sum; writes nothing
    Check {
        /// Only this total
        total: Option<String>,
    },
    /// Build, recompute and fold totals, as the scheduled function does
    Recompute {
        /// Only this total
        total: Option<String>,
        /// Compare only
        #[arg(long)]
        dry_run: bool,
        /// If a definition has changed, give up the sums of dropped partitions that do not follow from the old one
        #[arg(long)]
        discard_dropped: bool,
    },
    /// Attach a table with the restored rows of a dropped partition; they take the place of its kept sums
    Attach {
        /// The partitioned table, such as sportsbook.bet
        #[arg(value_name = "SCHEMA.TABLE")]
        table: String,
        /// The table to attach, with the name of the dropped partition
        #[arg(value_name = "SCHEMA.PARTITION")]
        partition: String,
        /// Start of its period: 2026-02-08T00:00:00Z
        #[arg(long, value_name = "TIMESTAMP")]
        from: String,
        /// End of its period, exclusive
        #[arg(long, value_name = "TIMESTAMP")]
        to: String,
    },
    /// Replace the kept sums of a dropped partition by those of the rows in another table
    Refreeze {
        /// The total
        total: String,
        /// The dropped partition, such as sportsbook.bet_p20260208
        #[arg(value_name = "SCHEMA.PARTITION")]
        partition: String,
        /// The table with its rows
        #[arg(long, value_name = "SCHEMA.TABLE")]
        rows: String,
    },
}

/// What the command found or did.
#[derive(Serialize)]
#[serde(untagged)]
pub enum TotalsOutput {
    List(Vec<TotalHealth>),
    Results(Vec<TotalResult>),
    /// The partition whose sums were replaced.
    Partition(String),
}

pub async fn run(arguments: TotalsArgs, context: &CommandContext) -> Result<TotalsOutput, CommandError> {
    let (config, database) = context.app()?.config_and_database().await?;
    let (total, dry_run, frozen) = match arguments.command {
        TotalsCommand::List => {
            let connection = database.connection().await?;
            let health = read_configured(&connection, &config).await?;
            connection.release();
            return Ok(TotalsOutput::List(health));
        }
        TotalsCommand::Check { total } => (total, true, FrozenPolicy::Keep),
        TotalsCommand::Recompute { total, dry_run, discard_dropped } => {
            (total, dry_run, if discard_dropped { FrozenPolicy::Discard } else { FrozenPolicy::Keep })
        }
        TotalsCommand::Attach { table, partition, from, to } => {
            let (parent, restored) = (table_name(&table)?, table_name(&partition)?);
            let bounds = (timestamp(&from)?, timestamp(&to)?);
            let connection = database.connection().await?;
            freeze::attach_restored(&connection, &parent, &restored, bounds, TIMEOUT).await?;
            connection.release();
            return Ok(TotalsOutput::Partition(partition));
        }
        TotalsCommand::Refreeze { total, partition, rows } => {
            let connection = database.connection().await?;
            freeze::refreeze(&connection, &total, &partition, &table_name(&rows)?, TIMEOUT).await?;
            connection.release();
            return Ok(TotalsOutput::Partition(partition));
        }
    };
    if let Some(name) = &total {
        find_total(&config, name)?;
    }
    let options = RunOptions { dry_run, frozen, deadline: Deadline::after(TIMEOUT) };
    Ok(TotalsOutput::Results(run_totals(&config, &database, total.as_deref(), options).await?))
}

fn table_name(text: &str) -> Result<TableName, CommandError> {
    let names =
        text.split_once('.').and_then(|(schema, table)| Some((Identifier::exact(schema)?, Identifier::exact(table)?)));
    let (schema, table) =
        names.ok_or_else(|| CommandError::Usage(format!("`{text}` is not a name such as schema.table")))?;
    Ok(TableName { schema, table })
}

fn timestamp(text: &str) -> Result<Timestamp, CommandError> {
    let mistake = || CommandError::Usage(format!("`{text}` is not a timestamp such as 2026-02-08T00:00:00Z"));
    Timestamp::parse(text).ok_or_else(mistake)
}

fn find_total(config: &Config, name: &str) -> Result<(), CommandError> {
    if config.totals.iter().any(|total| total.name.as_str() == name) {
        return Ok(());
    }
    let known: Vec<&str> = config.totals.iter().map(|total| total.name.as_str()).collect();
    Err(CommandError::Usage(format!("unknown total `{name}`; configured totals: {}", known.join(", "))))
}

impl CommandOutput for TotalsOutput {
    fn to_text(&self) -> String {
        match self {
            Self::List(list) if list.is_empty() => "No total is configured.".to_owned(),
            Self::List(list) => list_text(list),
            Self::Results(results) if results.is_empty() => "No total is configured.".to_owned(),
            Self::Results(results) => results.iter().map(result_text).collect(),
            Self::Partition(partition) => format!("The sums of {partition} are those of its rows now."),
        }
    }

    fn needs_attention(&self) -> bool {
        let is_wrong = |result: &TotalResult| {
            result.error.is_some() || result.report.as_ref().is_some_and(|report| report.off_by > 0)
        };
        match self {
            Self::List(list) => list.iter().any(|total| total.broken > 0 || total.rejection().is_some()),
            Self::Results(results) => results.iter().any(is_wrong),
            Self::Partition(_) => false,
        }
    }
}

/// One line for each total, and what those wait for that cannot be built yet.
pub fn totals_text(list: &[TotalHealth]) -> String {
    let mut text = totals_table(list).to_string();
    for TotalHealth { total, reason, state, .. } in list {
        if let Some(reason) = reason {
            text.push_str(&wrap(&format!("{total} is {state}: {reason}"), 0));
        }
    }
    text
}

/// One line for each total.
fn totals_table(list: &[TotalHealth]) -> TextTable {
    let columns = [
        ("TOTAL", Align::Left),
        ("TABLE", Align::Left),
        ("STATE", Align::Left),
        ("GROUPS", Align::Right),
        ("DELTAS", Align::Right),
        ("RECOMPUTED", Align::Right),
        ("WAS OFF BY", Align::Right),
    ];
    let mut table = TextTable::new(&columns);
    for total in list {
        let state = if total.broken > 0 { "broken" } else { total.state };
        let ago = total
            .recomputed_seconds_ago
            .map_or("never".to_owned(), |seconds| format!("{} ago", format_duration(seconds)));
        let off_by = total.off_by.map_or("-".to_owned(), |groups| format_number_of(groups as usize, "group", "groups"));
        let groups = total.groups.map_or("-".to_owned(), format_count);
        let pending = total.groups.map_or("-".to_owned(), |_| format_count(total.pending));
        table.push([total.total.clone(), total.table.clone(), state.to_owned(), groups, pending, ago, off_by]);
    }
    table
}

fn list_text(list: &[TotalHealth]) -> String {
    let mut text = totals_text(list);
    for TotalHealth { total, broken, failure, .. } in list {
        if let Some(failure) = failure {
            let transactions = format_number_of(*broken as usize, "transaction", "transactions");
            text.push_str(&wrap(
                &format!("{total} misses the rows of {transactions} (last: {failure}); fix the cause, then recompute"),
                0,
            ));
        }
    }
    text
}

fn result_text(result: &TotalResult) -> String {
    let TotalResult { total, waiting, error, report, folded } = result;
    if let Some(error) = error {
        return wrap(&format!("{total}: {error}"), 0);
    }
    let Some(RecomputeReport { off_by, groups, triggers_repaired, dry_run, seconds, .. }) = report else {
        return wrap(&format!("{total}: {}", waiting.as_deref().unwrap_or("nothing to do")), 0);
    };
    let finding = match (off_by, dry_run) {
        (0, _) => "exact".to_owned(),
        (off_by, true) => format!("off by {}", format_number_of(*off_by as usize, "group", "groups")),
        (off_by, false) => format!("was off by {}, corrected", format_number_of(*off_by as usize, "group", "groups")),
    };
    let mut text = format!("{total}: {finding} ({})\n", format_duration(*seconds));
    for difference in groups {
        let group: Vec<&str> = difference.group.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
        text.push_str(&wrap(&format!("{}: {}", group.join(", "), difference.figures.join(", ")), 2));
    }
    if *triggers_repaired > 0 {
        text.push_str(&wrap(&format!("{} repaired", format_number_of(*triggers_repaired, "trigger", "triggers")), 2));
    }
    if *folded > 0 {
        text.push_str(&wrap(&format!("{} folded", format_number_of(*folded as usize, "delta", "deltas")), 2));
    }
    text
}
