//! `millstream plan`: a dry run. Writes nothing: it only reads from the database, in read-only transactions, except that the
//! expressions of totals are tried on an empty temporary table, in a transaction that is rolled back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use millstream::apply::Limits;
use millstream::change::Operation;
use millstream::feed::problems::{FeedProblem, find_problems};
use millstream::ingest::{DeclaredTable, DryRun, DryRunResult, Ingest, IngestError};
use millstream::maintain::pending;
use millstream::plan::{ChangeView, TableWrite};
use millstream::rejection::Rejection;
use millstream::runtime::{App, check_queues};
use millstream::spec::{MergeBy, WriteMode};
use millstream::totals::dry_run::{self, PlannedTotal, TotalChange};
use millstream::transform::dry_run::{PlannedTransform, TransformChange, dry_run as plan_transforms};
use millstream::transform::{TransformError, read_transforms};
use serde::Serialize;
use serde_json::{Value, json};

use crate::layout::{format_number_of, wrap};
use crate::{CommandContext, CommandError, CommandOutput};

/// Analysing a query reads catalogs only.
const LIMITS: Limits = Limits { statement: Duration::from_secs(60), lock: Duration::from_secs(10) };

#[derive(Args)]
pub struct PlanArgs {
    /// Event as Lambda delivers it (JSON); several are planned in sequence. Without an event, the configuration is compared
    /// with the database
    #[arg(long, value_name = "FILE")]
    event: Vec<PathBuf>,
}

/// What would happen, and what is wrong with the queues that the environment names.
pub struct PlanOutput {
    planned: Planned,
    queues: Vec<String>,
}

/// What would happen.
pub enum Planned {
    /// If the events were processed.
    Events(Vec<(PathBuf, DryRunResult)>),
    /// Because of differences between the configuration and the database.
    Configuration {
        /// On the next record of each of these tables.
        tables: Vec<DeclaredTable>,
        /// On the next maintenance run.
        maintenance: Vec<String>,
        /// On the next run of the totals.
        totals: Vec<PlannedTotal>,
        /// On the next run of the transforms.
        transforms: Vec<PlannedTransform>,
        /// What is, or would be, written past a change log.
        change_logs: Vec<FeedProblem>,
    },
}

pub async fn run(arguments: &PlanArgs, context: &CommandContext) -> Result<PlanOutput, CommandError> {
    let mut app = context.app()?;
    let planned = plan(arguments, &mut app).await?;
    let problems = check_queues(app.environment(), app.aws()).await;
    Ok(PlanOutput { planned, queues: problems.iter().map(ToString::to_string).collect() })
}

async fn plan(arguments: &PlanArgs, app: &mut App) -> Result<Planned, CommandError> {
    if arguments.event.is_empty() {
        let (config, database) = app.config_and_database().await?;
        let tables = DryRun::new(app.ingest().await?).configuration().await?;
        let connection = database.connection().await?;
        let mut maintenance = pending::dry_run(&connection, &config).await?;
        // Millstream's own table is created by the first that needs it.
        maintenance.retain(|statement| !tables.iter().any(|table| table.ddl.contains(statement)));
        let totals = dry_run::dry_run(&connection, &config).await?;
        let set = read_transforms(&app.files()?).await?;
        let sources: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
        let transforms = plan_transforms(&connection, &set, &sources, LIMITS).await?;
        let change_logs = find_problems(&connection).await.map_err(TransformError::from)?;
        connection.release();
        return Ok(Planned::Configuration { tables, maintenance, totals, transforms, change_logs });
    }
    let ingest: &mut Ingest = app.ingest().await?;
    let mut dry_run = DryRun::new(ingest);
    let mut planned = Vec::new();
    for file in &arguments.event {
        let invalid_event =
            |reason: &dyn std::fmt::Display| CommandError::Usage(format!("event {}: {reason}", file.display()));
        let event = std::fs::read(file).map_err(|error| invalid_event(&error))?;
        let result = match dry_run.plan_event(&event).await {
            Err(IngestError::Event(error)) => return Err(invalid_event(&error)),
            result => result?,
        };
        planned.push((file.clone(), result));
    }
    Ok(Planned::Events(planned))
}

impl CommandOutput for PlanOutput {
    fn to_text(&self) -> String {
        let mut text: String = match &self.planned {
            Planned::Events(events) => events.iter().map(|(file, planned)| event(file, planned)).collect(),
            Planned::Configuration { tables, maintenance, totals, transforms, change_logs } => {
                let mut text = configuration(tables, maintenance, totals);
                text.push_str(&transform_text(transforms, change_logs));
                if text.is_empty() { "The database matches the configuration.".to_owned() } else { text }
            }
        };
        if !self.queues.is_empty() {
            let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            text.push_str(&format!("{separator}Queues:\n"));
            self.queues.iter().for_each(|problem| text.push_str(&wrap(&format!("-- {problem}"), 4)));
        }
        text
    }

    fn needs_attention(&self) -> bool {
        match &self.planned {
            Planned::Events(_) => false,
            Planned::Configuration { totals, transforms, change_logs, .. } => {
                totals.iter().any(PlannedTotal::is_rejected)
                    || transforms.iter().any(PlannedTransform::is_rejected)
                    || !change_logs.is_empty()
            }
        }
    }
}

fn ddl(statements: &[String]) -> String {
    statements.iter().map(|statement| wrap(&with_terminator(statement), 4)).collect()
}

fn with_terminator(statement: &str) -> String {
    if statement.starts_with("--") { statement.to_owned() } else { format!("{statement};") }
}

fn event(file: &Path, planned: &DryRunResult) -> String {
    let DryRunResult { source, records, ddl: statements, plan } = planned;
    let mut text = format!("{}: {}", file.display(), format_number_of(*records, "record", "records"));
    if !source.is_empty() {
        text.push_str(&format!(" of source {source}"));
    }
    text.push('\n');
    match &statements[..] {
        [] => text.push_str("  No DDL.\n"),
        all => text.push_str(&format!(
            "  {}:\n{}",
            format_number_of(all.len(), "DDL statement", "DDL statements"),
            ddl(all)
        )),
    }
    let rows: usize = plan.writes.iter().map(|write| write.rows.len()).sum();
    let tables = format_number_of(plan.writes.len(), "table", "tables");
    text.push_str(&format!(
        "  {} in {tables}, before comparison with stored versions:\n",
        format_number_of(rows, "row", "rows")
    ));
    text + &wrap(&plan.to_string(), 4)
}

fn configuration(tables: &[DeclaredTable], maintenance: &[String], totals: &[PlannedTotal]) -> String {
    let mut text = String::new();
    for DeclaredTable { source, table, ddl: statements, remarks } in tables {
        let when = if statements.is_empty() { "" } else { ", on its next record" };
        text.push_str(&format!("{table} (source {source}){when}:\n{}", ddl(statements)));
        remarks.iter().for_each(|note| text.push_str(&wrap(&format!("-- {note}"), 4)));
    }
    if !maintenance.is_empty() {
        text.push_str(&format!("On the next run of `maintain`:\n{}", ddl(maintenance)));
    }
    for PlannedTotal { view, table, change, remarks, .. } in totals {
        let when = match change {
            TotalChange::Create => ", on the next run of `recompute` or, if the table is small, on its next record",
            TotalChange::Complete | TotalChange::Replace | TotalChange::Remove => ", on the next run of `recompute`",
            TotalChange::Wait => ", waiting",
            TotalChange::Reject => ", rejected",
        };
        text.push_str(&wrap(&format!("{view} (total of {table}){when}:"), 0));
        remarks.iter().for_each(|remark| text.push_str(&wrap(&format!("-- {remark}"), 4)));
    }
    text
}

fn transform_text(transforms: &[PlannedTransform], change_logs: &[FeedProblem]) -> String {
    let mut text = String::new();
    for PlannedTransform { transform, target, change, remarks } in transforms {
        let fills = if target.is_empty() { String::new() } else { format!("{target} ") };
        let when = match change {
            TransformChange::Create => ", on its next run",
            TransformChange::Remove => ", on the next run of `transform`",
            TransformChange::Wait => ", waiting",
            TransformChange::Reject => ", rejected",
        };
        text.push_str(&wrap(&format!("{fills}(transform {transform}){when}:"), 0));
        remarks.iter().for_each(|remark| text.push_str(&wrap(&format!("-- {remark}"), 4)));
    }
    if !change_logs.is_empty() {
        text.push_str("Change logs:\n");
        change_logs.iter().for_each(|problem| text.push_str(&wrap(&format!("-- {problem}"), 4)));
    }
    text
}

impl Serialize for PlanOutput {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = match &self.planned {
            Planned::Events(events) => {
                json!({ "events": events.iter().map(|(file, planned)| event_json(file, planned)).collect::<Vec<_>>() })
            }
            Planned::Configuration { tables, maintenance, totals, transforms, change_logs } => {
                let (transforms, change_logs) = (json!(transforms), json!(change_logs));
                json!({ "tables": tables, "maintain": maintenance, "totals": totals, "transforms": transforms, "change_logs": change_logs })
            }
        };
        value["queues"] = json!(self.queues);
        value.serialize(serializer)
    }
}

fn event_json(file: &Path, planned: &DryRunResult) -> Value {
    let DryRunResult { source, records, ddl, plan } = planned;
    let rejection_json = |(record, rejection): &(usize, Rejection)| {
        let class = rejection.reason.class();
        json!({"record": record, "class": class, "table": rejection.table, "message": rejection.to_string()})
    };
    json!({
        "event": file.display().to_string(),
        "source": source,
        "records": records,
        "ddl": ddl,
        "tables": plan.writes.iter().map(table_json).collect::<Vec<_>>(),
        "refused": plan.rejected.iter().map(rejection_json).collect::<Vec<_>>(),
        "owner_objects": plan.owner_objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "expired": plan.expired,
        "repeated": plan.repeated_in_batch,
    })
}

fn table_json(write: &TableWrite) -> Value {
    let change_json = |ChangeView { record, operation, partition, cells }: ChangeView<'_>| {
        let operation = match operation {
            Operation::Put => "put",
            Operation::Delete => "delete",
        };
        let columns: serde_json::Map<String, Value> =
            cells.into_iter().map(|(column, value)| (column.to_owned(), value.into())).collect();
        json!({"record": record, "operation": operation, "partition": partition, "columns": columns})
    };
    let write_mode = match write.write_mode {
        WriteMode::Append => "append",
        WriteMode::Merge(MergeBy::Row) => "merge_row",
        WriteMode::Merge(MergeBy::Column) => "merge_column",
    };
    json!({
        "table": write.table.name.unquoted(),
        "rule": write_mode,
        "rows": write.rows.len(),
        "changes": write.change_views().map(change_json).collect::<Vec<_>>(),
    })
}
