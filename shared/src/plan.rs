//! The third step: a batch's changes, grouped by table and folded to one change a key, and what the database lacks for
//! them.
//!
//! Pure over the catalog's snapshot and the clock's one reading. A plan either names what is lacking (then the database
//! is changed, and the batch planned anew), or holds every row in the form in which it is written. It prints itself.

pub mod cell;
mod declared_diff;
mod diff;
mod display;
pub mod merge;
mod resolve;
mod rows;
mod table_planner;

pub use declared_diff::{DeclaredDiff, declared_diff};
pub use diff::{NewColumn, NewPartition, TableDiff};
pub use display::ChangeView;
pub use resolve::resolve_keys_and_names;
pub use rows::{EncodedChanges, KeyChanges, RowChange, TableWrite};
pub use table_planner::new_partition;

use crate::catalog::Catalog;
use crate::change::Changes;
use crate::field::FieldTree;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{DeleteMode, TableId, TableRegistry};
use crate::timestamp::Timestamp;

/// What is to be done about a batch.
#[derive(Default, Debug)]
pub struct Plan {
    /// What the database lacks. Where there is anything, `writes` is not complete.
    pub diffs: Vec<TableDiff>,
    /// The rows, by table, in the order in which every writer takes its locks: by the table's name.
    pub writes: Vec<TableWrite>,
    /// Data errors, by record.
    pub rejected: Vec<(usize, Rejection)>,
    /// Records with a row older than its table keeps.
    pub expired: Vec<usize>,
    /// Records with a row that another record of the batch already holds.
    pub repeated_in_batch: Vec<usize>,
}

impl Plan {
    /// Whether some table's rows may be deleted.
    pub fn deletes(&self) -> bool {
        self.writes.iter().any(|write| write.deletes == DeleteMode::Hard)
    }
}

/// The database has what the writer cannot work with; operator action required.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// Without a unique index two writers make two rows of one key.
    #[error("table {table} has no unique index on its key; run: {ddl}")]
    NoUniqueIndex {
        /// The table, or the partition.
        table: String,
        /// What would make the index.
        ddl: String,
    },
}

/// Plans a batch.
///
/// # Errors
/// A table of the owner's that cannot keep its keys unique.
pub fn plan(
    changes: &Changes<'_>,
    fields: &FieldTree,
    tables: &TableRegistry,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<Plan, PlanError> {
    Ok(plan_changes(changes, fields, tables, catalog, now)?.fold_by_key())
}

/// Some of a batch's changes on their way to a plan: encoded, and not yet brought together by key.
#[derive(Default, Debug)]
pub struct PartialPlan {
    /// As in the plan.
    pub diffs: Vec<TableDiff>,
    /// The changes, by table, in the order of the plan.
    pub encoded: Vec<EncodedChanges>,
    /// As in the plan.
    pub rejected: Vec<(usize, Rejection)>,
    /// As in the plan.
    pub expired: Vec<usize>,
}

impl PartialPlan {
    /// The plan of these changes.
    pub fn fold_by_key(self) -> Plan {
        let Self { diffs: lacks, encoded, rejected, expired } = self;
        let (mut writes, mut repeated) = (Vec::new(), Vec::new());
        writes.extend(encoded.into_iter().map(|encoded| encoded.fold_by_key(&mut repeated)));
        Plan { diffs: lacks, writes, rejected, expired, repeated_in_batch: repeated }
    }
}

/// The first half of a plan.
///
/// # Errors
/// As [`plan`].
pub fn plan_changes(
    changes: &Changes<'_>,
    fields: &FieldTree,
    tables: &TableRegistry,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<PartialPlan, PlanError> {
    let mut draft = PartialPlan::default();
    let mut surveys = Vec::new();
    for (table, list) in by_table(changes, tables) {
        let spec = tables.get(table);
        if spec.key.is_empty() {
            let unkeyed = |&change: &usize| {
                (
                    changes.list[change].record,
                    Rejection::for_table(spec.name.unquoted(), RejectionReason::NoKey(spec.source_label.clone())),
                )
            };
            draft.rejected.extend(list.iter().map(unkeyed));
            continue;
        }
        let mut survey = table_planner::TablePlanner::new(spec, fields, catalog);
        let rows = survey.changes(changes, &list, now, &mut draft);
        draft.diffs.extend(survey.diff());
        surveys.push((survey, rows));
    }
    if draft.diffs.is_empty() {
        for (survey, rows) in &surveys {
            survey.require_unique_key(rows)?;
            rows::encode(survey, rows, changes, &mut draft);
        }
    }
    Ok(draft)
}

/// The batch's changes by table, in the order of the tables' names.
fn by_table(changes: &Changes<'_>, tables: &TableRegistry) -> Vec<(TableId, Vec<usize>)> {
    let mut lists: Vec<Vec<usize>> = vec![Vec::new(); tables.count()];
    for (index, change) in changes.list.iter().enumerate() {
        lists[change.table.0 as usize].push(index);
    }
    let mut by_table: Vec<_> = (0u32..).map(TableId).zip(lists).filter(|(_, list)| !list.is_empty()).collect();
    by_table.sort_by(|(a, _), (b, _)| tables.get(*a).name.cmp(&tables.get(*b).name));
    by_table
}
