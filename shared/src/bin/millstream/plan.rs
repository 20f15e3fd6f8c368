//! `millstream plan`: a dry run. Nothing is written: the database is only asked, in read-only transactions.

use std::path::{Path, PathBuf};

use clap::Args;
use millstream::change::Operation;
use millstream::ingest::{DeclaredTable, Ingest, IngestError, Rehearsal, Rehearsed};
use millstream::maintain::due;
use millstream::plan::{ShownChange, TableWrite};
use millstream::rejection::Rejection;
use millstream::spec::{Merge, Rule};
use serde::Serialize;
use serde_json::{Value, json};

use crate::layout::{number_of, wrap};
use crate::{Answer, Session, Unanswered};

#[derive(Args)]
pub struct Arguments {
    /// An event as Lambda hands it over (JSON); several are planned one upon the other. Without any, what the configuration
    /// declares is compared with the database
    #[arg(long, value_name = "FILE")]
    event: Vec<PathBuf>,
}

/// What would happen.
pub enum Planned {
    /// To the events.
    Events(Vec<(PathBuf, Rehearsed)>),
    /// Because of the configuration.
    Configuration {
        /// With the next record of each of these tables.
        tables: Vec<DeclaredTable>,
        /// With the next run of the upkeep.
        upkeep: Vec<String>,
    },
}

pub async fn run(arguments: &Arguments, session: &Session) -> Result<Planned, Unanswered> {
    let mut app = session.app()?;
    if arguments.event.is_empty() {
        let (config, database) = app.system().await?;
        let tables = Rehearsal::new(app.ingest().await?).configuration().await?;
        let connection = database.connection().await?;
        let upkeep = due::rehearse(&connection, &config).await?;
        return Ok(Planned::Configuration { tables, upkeep });
    }
    let ingest: &mut Ingest = app.ingest().await?;
    let mut rehearsal = Rehearsal::new(ingest);
    let mut planned = Vec::new();
    for file in &arguments.event {
        let wrong =
            |reason: &dyn std::fmt::Display| Unanswered::Usage(format!("the event {}: {reason}", file.display()));
        let event = std::fs::read(file).map_err(|error| wrong(&error))?;
        let outcome = match rehearsal.batch(&event).await {
            Err(IngestError::Event(error)) => return Err(wrong(&error)),
            outcome => outcome?,
        };
        planned.push((file.clone(), outcome));
    }
    Ok(Planned::Events(planned))
}

impl Answer for Planned {
    fn for_people(&self) -> String {
        match self {
            Self::Events(events) => events.iter().map(|(file, planned)| event(file, planned)).collect(),
            Self::Configuration { tables, upkeep } => configuration(tables, upkeep),
        }
    }
}

fn ddl(statements: &[String]) -> String {
    statements.iter().map(|statement| wrap(&ended(statement), 4)).collect()
}

fn ended(statement: &str) -> String {
    if statement.starts_with("--") { statement.to_owned() } else { format!("{statement};") }
}

fn event(file: &Path, planned: &Rehearsed) -> String {
    let Rehearsed { source, records, ddl: statements, plan } = planned;
    let mut text = format!("{}: {}", file.display(), number_of(*records, "record", "records"));
    if !source.is_empty() {
        text.push_str(&format!(" of source {source}"));
    }
    text.push('\n');
    match &statements[..] {
        [] => text.push_str("  No DDL.\n"),
        all => text.push_str(&format!("  {}:\n{}", number_of(all.len(), "DDL statement", "DDL statements"), ddl(all))),
    }
    let rows: usize = plan.writes.iter().map(|write| write.rows.len()).sum();
    let tables = number_of(plan.writes.len(), "table", "tables");
    text.push_str(&format!("  {} of {tables}, as far as they are news:\n", number_of(rows, "row", "rows")));
    text + &wrap(&plan.to_string(), 4)
}

fn configuration(tables: &[DeclaredTable], upkeep: &[String]) -> String {
    let mut text = String::new();
    for DeclaredTable { source, table, ddl: statements, remarks } in tables {
        let with = if statements.is_empty() { "" } else { ", with its next record" };
        text.push_str(&format!("{table} (source {source}){with}:\n{}", ddl(statements)));
        remarks.iter().for_each(|remark| text.push_str(&wrap(&format!("-- {remark}"), 4)));
    }
    if !upkeep.is_empty() {
        text.push_str(&format!("With the next run of `maintain`:\n{}", ddl(upkeep)));
    }
    if text.is_empty() { "The database has all that the configuration declares.".to_owned() } else { text }
}

impl Serialize for Planned {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = match self {
            Self::Events(events) => {
                json!({ "events": events.iter().map(|(file, planned)| event_json(file, planned)).collect::<Vec<_>>() })
            }
            Self::Configuration { tables, upkeep } => json!({ "tables": tables, "maintain": upkeep }),
        };
        value.serialize(serializer)
    }
}

fn event_json(file: &Path, planned: &Rehearsed) -> Value {
    let Rehearsed { source, records, ddl, plan } = planned;
    let refused = |(record, rejection): &(usize, Rejection)| {
        let class = rejection.reason.class();
        json!({"record": record, "class": class, "table": rejection.table, "message": rejection.to_string()})
    };
    json!({
        "event": file.display().to_string(),
        "source": source,
        "records": records,
        "ddl": ddl,
        "tables": plan.writes.iter().map(table_json).collect::<Vec<_>>(),
        "refused": plan.rejected.iter().map(refused).collect::<Vec<_>>(),
        "expired": plan.expired,
        "repeated": plan.repeated,
    })
}

fn table_json(write: &TableWrite) -> Value {
    let change = |ShownChange { record, operation, partition, cells }: ShownChange<'_>| {
        let operation = match operation {
            Operation::Put => "put",
            Operation::Delete => "delete",
        };
        let columns: serde_json::Map<String, Value> =
            cells.into_iter().map(|(column, value)| (column.to_owned(), value.into())).collect();
        json!({"record": record, "operation": operation, "partition": partition, "columns": columns})
    };
    let rule = match write.rule {
        Rule::Append => "append",
        Rule::Merge(Merge::Row) => "merge_row",
        Rule::Merge(Merge::Column) => "merge_column",
    };
    json!({
        "table": write.table.name.plain(),
        "rule": rule,
        "rows": write.rows.len(),
        "changes": write.shown().map(change).collect::<Vec<_>>(),
    })
}
