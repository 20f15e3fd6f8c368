//! The board's tables: records the partitions that a run created and dropped, prunes old rows, and lets the board's role read.

use tokio_postgres::Client;

use super::{MaintainError, MaintenanceReport};
use crate::activity::{ActivityEvent, EventKind};
use crate::apply::{self, BoardObjects, EVENT_TABLE, MINUTE_TABLE, SystemTable};
use crate::config::Config;
use crate::database::sqlstate::describe;
use crate::totals::BOARD_RELATIONS;
use crate::transform::TRANSFORM_TABLE;

/// How much of a report was recorded already.
#[derive(Clone, Copy)]
pub struct RecordedUntil {
    made: usize,
    dropped: usize,
}

impl MaintenanceReport {
    /// Everything in the report so far counts as recorded.
    pub(super) fn recorded_until(&self) -> RecordedUntil {
        RecordedUntil { made: self.made.len(), dropped: self.dropped.len() }
    }
}

/// Records the partitions that were created and dropped since `since`. A statement that PostgreSQL rejects is postponed.
pub async fn record_partitions(
    client: &Client,
    source: &str,
    since: RecordedUntil,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    let mut events = Vec::new();
    for name in &report.made[since.made..] {
        events.push(ActivityEvent::new(EventKind::SchemaChange, name, "partition created ahead of time"));
    }
    for name in &report.dropped[since.dropped..] {
        events.push(ActivityEvent::new(EventKind::Drop, name, "expired partition dropped"));
    }
    if events.is_empty() || !EVENT_TABLE.exists(client).await? {
        return Ok(());
    }
    let events: Vec<(Option<&str>, &ActivityEvent)> = events.iter().map(|event| (Some(source), event)).collect();
    match apply::insert_events(client, &events).await {
        Err(apply::ApplyError::Database(error)) if error.as_db_error().is_some() => {
            report.postponed.push(format!("recording events: {}", describe(&error)));
        }
        recorded => recorded?,
    }
    Ok(())
}

/// Deletes old counters and events.
pub async fn prune(client: &Client, report: &mut MaintenanceReport) -> Result<(), MaintainError> {
    prune_table(client, &MINUTE_TABLE, include_str!("prune_minutes.sql"), report).await?;
    prune_table(client, &EVENT_TABLE, include_str!("prune_events.sql"), report).await
}

/// Repeats a statement, which deletes some rows at a time, until none is left.
async fn prune_table(
    client: &Client,
    table: &SystemTable,
    statement: &str,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    if !table.exists(client).await? {
        return Ok(());
    }
    loop {
        match client.execute_typed(statement, &[]).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.as_db_error().is_some() => {
                report.postponed.push(format!("pruning {}: {}", table.name, describe(&error)));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the board shows besides the activity: the state of the transforms and the totals, the totals, and the reports.
pub(super) fn board_objects(config: &Config) -> BoardObjects {
    let mut objects = BoardObjects::default();
    objects.relations.push(TRANSFORM_TABLE.name.to_owned());
    if !config.totals.is_empty() {
        objects.relations.extend(BOARD_RELATIONS.map(str::to_owned));
    }
    objects.relations.extend(config.totals.iter().map(|total| total.view().to_string()));
    objects.functions.extend(config.reports.iter().map(|report| report.function.clone()));
    objects
}

/// Lets the board's role, if there is one, read what the board shows.
pub async fn grant_board(
    client: &Client,
    config: &Config,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    match apply::grant_to_board(client, &board_objects(config)).await {
        Err(apply::ApplyError::Database(error)) if error.as_db_error().is_some() => {
            report.postponed.push(format!("granting the board its privileges: {}", describe(&error)));
        }
        granted => granted?,
    }
    Ok(())
}
