//! What cannot be written or created: the records that need it are rejected, and the others are planned.

use std::sync::Arc;

use super::super::PartialPlan;
use super::super::table_problems::TableProblems;
use super::{PlannedChange, TablePlanner};
use crate::change::Changes;
use crate::rejection::RejectionReason;
use crate::unwritable::{Blocked, BlockedTables, UnwritableTable};

impl<'p> TablePlanner<'p> {
    /// Plans around what PostgreSQL has rejected in this batch.
    pub fn blocked_by(self, blocked: &'p BlockedTables) -> Self {
        Self { blocked: blocked.get(&self.spec.name), ..self }
    }

    /// Why the table cannot be written, whatever the records hold.
    pub fn unwritable(&self) -> Option<Arc<UnwritableTable>> {
        let of_every_row = self.schema_block().filter(|_| self.pending.iter().any(|pending| pending.has_value));
        match self.blocked {
            Some(Blocked::Rows(unwritable)) => Some(unwritable.clone()),
            Some(Blocked::SchemaChanges(unwritable)) if self.existing.is_none() => Some(unwritable.clone()),
            Some(Blocked::SchemaChanges(_)) | None => of_every_row.cloned().or_else(|| self.problems()?.of_table()),
        }
    }

    /// Why nothing that the table is missing can be created.
    fn schema_block(&self) -> Option<&'p Arc<UnwritableTable>> {
        match self.blocked? {
            Blocked::SchemaChanges(unwritable) => Some(unwritable),
            Blocked::Rows(_) => None,
        }
    }

    /// What the catalog says against writing the table, if it exists.
    pub fn problems(&self) -> Option<TableProblems<'p>> {
        self.existing.map(|table| TableProblems { spec: self.spec, table })
    }

    /// Rejects the rows of partitions that cannot be written.
    pub(super) fn without_unwritable_partitions(
        &self,
        mut planned: Vec<PlannedChange>,
        changes: &Changes<'_>,
        partial_plan: &mut PartialPlan,
    ) -> Vec<PlannedChange> {
        let Some(problems) = self.problems() else { return planned };
        let mut written: Vec<usize> = planned.iter().map(|row| row.partition).collect();
        written.sort_unstable();
        written.dedup();
        let written = written.into_iter().filter_map(|index| Some((index, self.table.partitions.get(index)?)));
        for (index, partition) in written {
            let Some(unwritable) = problems.of_partition(partition) else { continue };
            let rejection = self.rejection(RejectionReason::Unwritable(unwritable));
            let rejected = planned.extract_if(.., |row| row.partition == index);
            let records = rejected.map(|row| (changes.list[row.change].record, rejection.clone()));
            partial_plan.rejected.extend(records);
        }
        planned
    }

    /// Rejects a change that needs a column or partition which cannot be created.
    pub fn allow_schema_change(&self) -> Result<(), RejectionReason> {
        self.schema_block().map_or(Ok(()), |unwritable| Err(RejectionReason::Unwritable(unwritable.clone())))
    }
}
