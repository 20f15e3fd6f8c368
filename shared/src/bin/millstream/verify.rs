//! `millstream verify`: DynamoDB tables compared with their replicas, item by item and row by row.

use clap::Args;
use millstream::backfill::{Difference, Differences, Progress, Task, Work};
use millstream::config::{Config, Format, Source};
use serde::Serialize;

use crate::layout::{count_of, wrap};
use crate::{Answer, Session, Unanswered, backfill, source_called};

#[derive(Args)]
pub struct Arguments {
    /// Only this source [default: every source of DynamoDB tables]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only this table, as DynamoDB calls it [default: those that the source reads]
    #[arg(long, value_name = "NAME", requires = "source")]
    table: Option<String>,
}

/// Tables that have been compared.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Verified(Vec<Table>);

#[derive(Serialize)]
struct Table {
    source: String,
    table: String,
    /// Items of the source.
    items: u64,
    /// What differs; none where all is the same.
    differences: Option<Differences>,
}

pub async fn run(arguments: &Arguments, session: &Session) -> Result<Verified, Unanswered> {
    let mut app = session.app()?;
    let tables = tables(arguments, &app.config().await?)?;
    let mut verified = Vec::new();
    for (source, table) in tables {
        let work = Work::Verify { table: table.clone() };
        let task = Task { source: source.clone(), work, progress: Progress::default() };
        let Progress { records, differences, .. } = backfill::work(&mut app, task).await?.progress;
        verified.push(Table { source, table, items: records, differences });
    }
    Ok(Verified(verified))
}

/// The tables that are meant, each with its source.
fn tables(arguments: &Arguments, config: &Config) -> Result<Vec<(String, String)>, Unanswered> {
    let sources = match &arguments.source {
        Some(name) => vec![source_called(config, name)?],
        None => config.sources.iter().filter(|source| source.format == Format::Dynamodb).collect(),
    };
    let mut tables = Vec::new();
    for source in sources {
        let named = match &arguments.table {
            _ if source.format != Format::Dynamodb => Err("its tables are not DynamoDB's: compare them at the source"),
            Some(table) => Ok(vec![table.clone()]),
            None => tables_of(source).ok_or("it reads every table (`*`): say which with --table"),
        };
        let named = named.map_err(|reason| Unanswered::Usage(format!("source {}: {reason}", source.name)))?;
        tables.extend(named.into_iter().map(|table| (source.name.clone(), table)));
    }
    if tables.is_empty() {
        return Err(Unanswered::Usage("the configuration has no source of DynamoDB tables".to_owned()));
    }
    Ok(tables)
}

/// The tables that a source reads, if the configuration names them.
fn tables_of(source: &Source) -> Option<Vec<String>> {
    let names: Vec<&str> = source.stream_names().collect();
    (!names.contains(&"*")).then(|| names.into_iter().filter(|name| source.takes(name)).map(str::to_owned).collect())
}

/// What a comparison has found, for people.
pub fn told(table: &str, items: u64, differences: Option<&Differences>) -> String {
    let items = count_of(items);
    let Some(Differences { missing, extra, differing, examples }) = differences else {
        return format!("{table}: {items} items, no difference\n");
    };
    let [missing, extra, differing] = [missing, extra, differing].map(|number| count_of(*number));
    let mut text =
        format!("{table}: {items} items; DIFFERS: {missing} rows are missing, {differing} differ, {extra} are extra\n");
    for Difference { key, what } in examples {
        text.push_str(&wrap(&format!("{key}: {what}"), 2));
    }
    text
}

impl Answer for Verified {
    fn for_people(&self) -> String {
        let one = |table: &Table| {
            let called = format!("{}: {}", table.source, table.table);
            told(&called, table.items, table.differences.as_ref())
        };
        self.0.iter().map(one).collect()
    }

    fn is_alarming(&self) -> bool {
        self.0.iter().any(|table| table.differences.is_some())
    }
}
