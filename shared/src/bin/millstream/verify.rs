//! `millstream verify`: compares DynamoDB tables with their replicas, item by item and row by row.

use clap::Args;
use millstream::backfill::{BackfillJob, BackfillProgress, BackfillTask, Difference, Differences};
use millstream::config::{Config, Format, SourceConfig};
use serde::Serialize;

use crate::layout::{format_count_of, wrap};
use crate::{CommandContext, CommandError, CommandOutput, backfill, find_source};

#[derive(Args)]
pub struct VerifyArgs {
    /// Compare only this source [default: all DynamoDB sources]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Compare only this DynamoDB table [default: all tables that the source reads]
    #[arg(long, value_name = "NAME", requires = "source")]
    table: Option<String>,
}

/// The compared tables.
#[derive(Serialize)]
#[serde(transparent)]
pub struct VerifyOutput(Vec<VerifiedTable>);

#[derive(Serialize)]
struct VerifiedTable {
    source: String,
    table: String,
    /// Items of the source.
    items: u64,
    /// The differences; `None` if there are none.
    differences: Option<Differences>,
}

pub async fn run(arguments: &VerifyArgs, context: &CommandContext) -> Result<VerifyOutput, CommandError> {
    let mut app = context.app()?;
    let tables = tables(arguments, &app.config().await?)?;
    let mut verified = Vec::new();
    for (source, table) in tables {
        let job = BackfillJob::Verify { table: table.clone() };
        let task = BackfillTask { source: source.clone(), job, progress: BackfillProgress::default() };
        let BackfillProgress { records, differences, .. } =
            backfill::run_with_progress_bar(&mut app, task).await?.progress;
        verified.push(VerifiedTable { source, table, items: records, differences });
    }
    Ok(VerifyOutput(verified))
}

/// The tables to compare, each with its source.
fn tables(arguments: &VerifyArgs, config: &Config) -> Result<Vec<(String, String)>, CommandError> {
    let sources = match &arguments.source {
        Some(name) => vec![find_source(config, name)?],
        None => config.sources.iter().filter(|source| source.format == Format::Dynamodb).collect(),
    };
    let mut tables = Vec::new();
    for source in sources {
        let table_names = match &arguments.table {
            _ if source.format != Format::Dynamodb => {
                Err("not a DynamoDB source; compare its tables in the source database")
            }
            Some(table) => Ok(vec![table.clone()]),
            None => tables_of(source).ok_or("it reads every table (`*`); name one with --table"),
        };
        let table_names =
            table_names.map_err(|reason| CommandError::Usage(format!("source {}: {reason}", source.name)))?;
        tables.extend(table_names.into_iter().map(|table| (source.name.clone(), table)));
    }
    if tables.is_empty() {
        return Err(CommandError::Usage("the configuration has no DynamoDB source".to_owned()));
    }
    Ok(tables)
}

/// The tables that a source reads, if the configuration names them.
fn tables_of(source: &SourceConfig) -> Option<Vec<String>> {
    let names: Vec<&str> = source.stream_names().collect();
    (!names.contains(&"*"))
        .then(|| names.into_iter().filter(|name| source.replicates_table(name)).map(str::to_owned).collect())
}

/// Formats the result of a comparison as text.
pub fn format_result(table: &str, items: u64, differences: Option<&Differences>) -> String {
    let items = format_count_of(items);
    let Some(Differences { missing, extra, differing, examples }) = differences else {
        return format!("{table}: {items} items, no differences\n");
    };
    let [missing, extra, differing] = [missing, extra, differing].map(|number| format_count_of(*number));
    let mut text =
        format!("{table}: {items} items; DIFFERS: {missing} missing, {differing} different, {extra} extra\n");
    for Difference { key, what } in examples {
        text.push_str(&wrap(&format!("{key}: {what}"), 2));
    }
    text
}

impl CommandOutput for VerifyOutput {
    fn to_text(&self) -> String {
        let result = |table: &VerifiedTable| {
            let name = format!("{}: {}", table.source, table.table);
            format_result(&name, table.items, table.differences.as_ref())
        };
        self.0.iter().map(result).collect()
    }

    fn needs_attention(&self) -> bool {
        self.0.iter().any(|table| table.differences.is_some())
    }
}
