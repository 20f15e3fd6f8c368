//! The planning step: groups a batch's changes by table, folds them into one row per key, and finds what the database is
//! missing for them.
//!
//! Pure over the catalog's snapshot and one reading of the clock. A plan either names what is missing (then the schema is
//! changed, and the batch planned again), or holds every row in the form in which it is written. It implements `Display`.

pub mod cell;
mod declared_diff;
mod diff;
mod display;
mod expansion;
pub mod merge;
mod resolve;
mod routes;
mod rows;
mod table_planner;
mod table_problems;

pub use declared_diff::{DeclaredDiff, declared_diff};
pub use diff::{NewColumn, NewPartition, TableDiff};
pub use display::ChangeView;
pub use resolve::resolve_keys_and_names;
pub use rows::{EncodedChanges, KeyChanges, RowChange, TableWrite};
pub use table_planner::new_partition;

use std::fmt;

use crate::catalog::Catalog;
use crate::catalog::comment::with_note;
use crate::change::Changes;
use crate::field::FieldTree;
use crate::names::{Identifier, TableName, quote_literal};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{DeleteMode, OVERFLOW, TableId, TableRegistry, TableSpec};
use crate::timestamp::Timestamp;
use crate::unwritable::{BlockedTables, UnwritableTable};

/// What a batch changes in the database.
#[derive(Default, Debug)]
pub struct Plan {
    /// What the database is missing. If this is not empty, `writes` is incomplete.
    pub diffs: Vec<TableDiff>,
    /// The rows, by table, in the order in which every writer locks tables: by name.
    pub writes: Vec<TableWrite>,
    /// Data errors, by record.
    pub rejected: Vec<(usize, Rejection)>,
    /// Records with a row older than its table's retention.
    pub expired: Vec<usize>,
    /// Records with a row that another record of the batch already holds.
    pub repeated_in_batch: Vec<usize>,
    /// Tables and columns that the batch does not fill because they belong to their owner or to another source.
    pub owner_objects: Vec<OwnerObject>,
}

impl Plan {
    /// The tables that cannot be written, each once, with the number of rejected records.
    pub fn unwritable(&self) -> Vec<(&UnwritableTable, u64)> {
        unwritable_tables(self.rejected.iter().map(|(_, rejection)| rejection))
    }

    /// Whether the plan writes to a table whose rows may be deleted.
    pub fn deletes(&self) -> bool {
        self.writes.iter().any(|write| write.deletes == DeleteMode::Hard)
    }
}

/// The tables that rejections name as unwritable, each once, with the number of rejections.
pub fn unwritable_tables<'r>(rejections: impl Iterator<Item = &'r Rejection>) -> Vec<(&'r UnwritableTable, u64)> {
    let mut found: Vec<(&UnwritableTable, u64)> = Vec::new();
    for rejection in rejections {
        let Some(unwritable) = rejection.reason.unwritable() else { continue };
        match found.iter_mut().find(|(other, _)| other.table == unwritable.table) {
            Some((_, count)) => *count += 1,
            None => found.push((unwritable, 1)),
        }
    }
    found
}

/// What belongs to the database's owner or to another source, and is not filled. `Display` says how to adopt it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OwnerObject {
    /// A table with the name of one that the batch fills.
    Table {
        /// The table.
        table: TableName,
        /// The note that names the source which fills it; `None` for a table of the owner.
        note: Option<String>,
        /// The table that is filled instead.
        used: TableName,
        /// The label of the table that is filled.
        label: String,
    },
    /// A column with the name of a field, which goes to the overflow.
    Column {
        /// The table.
        table: TableName,
        /// The column.
        column: Identifier,
        /// The path of the field.
        path: String,
    },
}

impl fmt::Display for OwnerObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { table, note: Some(note), used, label } => write!(
                f,
                "table {} belongs to another source ({note}), so the rows of {label} go to {}; to fill it, give both sources the \
                 same `by` and `keep`, or hand it over: COMMENT ON TABLE {table} IS {}",
                table.unquoted(),
                used.unquoted(),
                quote_literal(&with_note(None, label))
            ),
            Self::Table { table, note: None, used, label } => write!(
                f,
                "table {} is not Millstream's, so its rows go to {}; to fill it, declare it, or run: \
                 COMMENT ON TABLE {table} IS {}",
                table.unquoted(),
                used.unquoted(),
                quote_literal(&with_note(None, label))
            ),
            Self::Column { table, column, path } => write!(
                f,
                "column {column} of {} is not Millstream's, so {path} goes to {OVERFLOW}; to fill it, declare it, or run: \
                 COMMENT ON COLUMN {table}.{column} IS {}",
                table.unquoted(),
                quote_literal(&with_note(None, path))
            ),
        }
    }
}

/// Plans a batch.
pub fn plan(
    changes: &Changes<'_>,
    fields: &FieldTree,
    tables: &TableRegistry,
    catalog: &Catalog,
    now: Timestamp,
) -> Plan {
    plan_changes(changes, fields, tables, catalog, &BlockedTables::new(), now).fold_by_key()
}

/// A plan of some of a batch's changes: encoded, but not yet grouped by key.
#[derive(Default, Debug)]
pub struct PartialPlan {
    /// See [`Plan::diffs`].
    pub diffs: Vec<TableDiff>,
    /// The encoded changes, by table, in the order of [`Plan::writes`].
    pub encoded: Vec<EncodedChanges>,
    /// See [`Plan::rejected`].
    pub rejected: Vec<(usize, Rejection)>,
    /// See [`Plan::expired`].
    pub expired: Vec<usize>,
    /// See [`Plan::owner_objects`].
    pub owner_objects: Vec<OwnerObject>,
}

impl PartialPlan {
    /// Groups the changes by key, which completes the plan.
    pub fn fold_by_key(self) -> Plan {
        let Self { diffs, encoded, rejected, expired, owner_objects } = self;
        let (mut writes, mut repeated_in_batch) = (Vec::new(), Vec::new());
        writes.extend(encoded.into_iter().map(|encoded| encoded.fold_by_key(&mut repeated_in_batch)));
        Plan { diffs, writes, rejected, expired, repeated_in_batch, owner_objects }
    }
}

/// Plans and encodes changes, but does not group them by key. Records of tables that cannot be written are rejected, as are
/// those that need what is blocked.
pub fn plan_changes(
    changes: &Changes<'_>,
    fields: &FieldTree,
    tables: &TableRegistry,
    catalog: &Catalog,
    blocked: &BlockedTables,
    now: Timestamp,
) -> PartialPlan {
    let mut partial_plan = PartialPlan::default();
    let mut planners = Vec::new();
    for (table, list) in by_table(changes, tables) {
        let spec = tables.get(table);
        if spec.key.is_empty() {
            reject_all(RejectionReason::NoKey(spec.source_label.clone()), spec, changes, &list, &mut partial_plan);
            continue;
        }
        let mut planner = table_planner::TablePlanner::new(spec, fields, catalog).blocked_by(blocked);
        if let Some(unwritable) = planner.unwritable() {
            reject_all(RejectionReason::Unwritable(unwritable), spec, changes, &list, &mut partial_plan);
            continue;
        }
        let rows = planner.changes(changes, &list, now, &mut partial_plan);
        partial_plan.diffs.extend(planner.diff());
        partial_plan.owner_objects.extend(planner.take_owner_objects());
        planners.push((planner, rows));
    }
    if partial_plan.diffs.is_empty() {
        for (planner, rows) in &planners {
            rows::encode(planner, rows, changes, &mut partial_plan);
        }
    }
    partial_plan
}

fn reject_all(
    reason: RejectionReason,
    spec: &TableSpec,
    changes: &Changes<'_>,
    list: &[usize],
    partial_plan: &mut PartialPlan,
) {
    let rejection = Rejection::for_table(spec.name.unquoted(), reason);
    partial_plan.rejected.extend(list.iter().map(|&change| (changes.list[change].record, rejection.clone())));
}

/// The indexes of the batch's changes, grouped by table and ordered by table name.
fn by_table(changes: &Changes<'_>, tables: &TableRegistry) -> Vec<(TableId, Vec<usize>)> {
    let mut lists: Vec<Vec<usize>> = vec![Vec::new(); tables.count()];
    for (index, change) in changes.list.iter().enumerate() {
        lists[change.table.0 as usize].push(index);
    }
    let mut by_table: Vec<_> = (0u32..).map(TableId).zip(lists).filter(|(_, list)| !list.is_empty()).collect();
    by_table.sort_by(|(a, _), (b, _)| tables.get(*a).name.cmp(&tables.get(*b).name));
    by_table
}
