//! What the attempts to write a batch have found out about its tables. Nothing of it outlives the batch.

use std::sync::Arc;

use super::IngestError;
use crate::apply::{ApplyError, RefreshedTables};
use crate::catalog::Catalog;
use crate::names::TableName;
use crate::plan::Plan;
use crate::spec::OnUnwritable;
use crate::unwritable::{Blocked, BlockedTables, UnwritableTable};

/// The tables that are blocked, and those whose definitions were read again.
#[derive(Default)]
pub(super) struct TableFindings {
    pub(super) blocked: BlockedTables,
    pub(super) refreshed: RefreshedTables,
}

impl TableFindings {
    /// Whether the plan finds a table unwritable whose definition may be stale; it is then read again.
    ///
    /// # Errors
    /// Returns an error if the records of an unwritable table must wait.
    pub(super) fn refresh_unwritable(&mut self, plan: &Plan, catalog: &mut Catalog) -> Result<bool, IngestError> {
        let mut is_stale = false;
        for (unwritable, _) in plan.unwritable() {
            if !self.blocked.contains_key(&unwritable.table) && self.refreshed.insert(unwritable.table.clone()) {
                catalog.invalidate(&unwritable.table);
                is_stale = true;
            } else if unwritable.on_unwritable == OnUnwritable::Stop {
                return Err(IngestError::Unwritable(unwritable.clone()));
            }
        }
        Ok(is_stale)
    }

    /// Adds tables that PostgreSQL says have changed. Without a cause, PostgreSQL did not reject anything: the definition had
    /// changed.
    pub(super) fn add_stale(&mut self, tables: Vec<TableName>, cause: &str) {
        self.refreshed.extend(tables.into_iter().filter(|_| !cause.is_empty()));
    }

    /// Adds tables that PostgreSQL does not write.
    ///
    /// # Errors
    /// Returns an error if the records of one of them must wait, or if it is blocked already.
    pub(super) fn add_unwritable(&mut self, tables: Vec<Arc<UnwritableTable>>) -> Result<(), ApplyError> {
        let may_continue = |unwritable: &Arc<UnwritableTable>| {
            unwritable.on_unwritable == OnUnwritable::DeadLetter && !self.blocked.contains_key(&unwritable.table)
        };
        if !tables.iter().all(may_continue) {
            return Err(ApplyError::Unwritable(tables));
        }
        let blocked = tables.into_iter().map(|unwritable| (unwritable.table.clone(), Blocked::Rows(unwritable)));
        self.blocked.extend(blocked);
        Ok(())
    }

    /// Adds tables whose missing columns or partitions PostgreSQL does not create.
    pub(super) fn add_blocked_changes(&mut self, tables: Vec<UnwritableTable>) {
        for unwritable in tables {
            self.blocked.insert(unwritable.table.clone(), Blocked::SchemaChanges(Arc::new(unwritable)));
        }
    }
}
