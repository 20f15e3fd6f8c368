//! The statements that change the figures of a total: recomputing, freezing and restoring partitions, pruning.

use super::TotalSql;
use crate::names::{TableName, quote_literal};
use crate::sql_script::{fill, quoted};

impl TotalSql<'_> {
    /// Sums the rows of all pieces into a temporary table. CREATE TABLE AS may run in parallel, INSERT … SELECT may not.
    pub fn sum_pieces(&self, relation: &str) -> String {
        format!("CREATE TEMPORARY TABLE millstream_piece_sums ON COMMIT DROP AS {}", self.sums_of(relation))
    }

    /// Inserts the difference between the pieces and the total as deltas, and returns it. A dry run only returns it.
    pub fn difference(&self, applies: bool) -> String {
        let columns = self.columns();
        let negative = format!("{}, {}", self.group_list(), self.figure_list(|figure| format!("-{figure}")));
        let keep = self.is_kept();
        let select = format!(
            "SELECT {columns} FROM (SELECT {}, {} FROM (\
             SELECT {columns} FROM pg_temp.millstream_piece_sums UNION ALL SELECT {columns} FROM {} \
             UNION ALL SELECT {negative} FROM {} UNION ALL SELECT {negative} FROM {}) parts GROUP BY {}) difference WHERE ({}){keep}",
            self.group_list(),
            self.summed_figures(),
            self.object("frozen"),
            self.object("batch"),
            self.object("delta"),
            self.group_list(),
            self.any_nonzero(),
        );
        let text = self.difference_text();
        match applies {
            true => format!("WITH d AS ({} RETURNING {columns}) SELECT {text} FROM d", self.insert_deltas(&select)),
            false => format!("SELECT {text} FROM ({select}) d"),
        }
    }

    /// A difference as text: the group and the figures.
    fn difference_text(&self) -> String {
        let groups = self.groups().map(|group| format!("{group}::text")).collect::<Vec<_>>().join(", ");
        let sums = self.sum_columns().map(|columns| format!("{}::text", columns.sum));
        let sums: Vec<_> = std::iter::once("rows::text".to_owned()).chain(sums).collect();
        format!("ARRAY[{groups}]::text[] AS groups, ARRAY[{}]::text[] AS figures", sums.join(", "))
    }

    /// Removes groups without content, and merges groups that have two rows.
    pub fn tidy(&self) -> String {
        fill(
            include_str!("tidy.sql"),
            &[
                ("state", &self.object("fold_state")),
                ("batch", &self.object("batch")),
                ("columns", &self.columns()),
                ("groups", &self.group_list()),
                ("summed", &self.summed_figures()),
                ("nonzero", &self.any_nonzero()),
            ],
        )
    }

    /// Keeps the sums of a partition that is about to be dropped.
    pub fn freeze(&self, relation: &TableName) -> String {
        format!(
            "INSERT INTO {} (piece, {}) SELECT {}, z.* FROM ({}) z",
            self.object("frozen"),
            self.columns(),
            quote_literal(&relation.unquoted()),
            self.sums_of(&relation.to_string()),
        )
    }

    /// Replaces the frozen sums of a piece by its rows, which have been restored: what they differ by becomes deltas.
    pub fn restore(&self, relation: &TableName, piece: &str) -> String {
        let sums = self.sums_of(&relation.to_string());
        format!("WITH f AS ({}) {}", self.delete_frozen(piece), self.insert_deltas(&self.changed_sums(&sums)))
    }

    /// Replaces the frozen sums of a piece by the sums of the rows in a relation; what they differ by becomes deltas.
    pub fn refreeze(&self, relation: &TableName, piece: &str) -> String {
        let columns = self.columns();
        format!(
            "WITH f AS ({}), n AS MATERIALIZED ({}), \
             inserted AS (INSERT INTO {} (piece, {columns}) SELECT {}, {columns} FROM n) {}",
            self.delete_frozen(piece),
            self.sums_of(&relation.to_string()),
            self.object("frozen"),
            quote_literal(piece),
            self.insert_deltas(&self.changed_sums(&format!("SELECT {columns} FROM n"))),
        )
    }

    fn delete_frozen(&self, piece: &str) -> String {
        format!("DELETE FROM {} WHERE piece = {} RETURNING *", self.object("frozen"), quote_literal(piece))
    }

    /// New sums less the frozen ones, which are the rows of `f`.
    fn changed_sums(&self, new: &str) -> String {
        let (columns, groups) = (self.columns(), self.group_list());
        let negative = self.figure_list(|figure| format!("-{figure}"));
        format!(
            "SELECT {columns} FROM (SELECT {groups}, {} FROM (SELECT {groups}, {negative} FROM f UNION ALL SELECT z.* FROM ({new}) z) \
             parts ({columns}) GROUP BY {groups}) difference WHERE {}",
            self.summed_figures(),
            self.any_nonzero(),
        )
    }

    /// Removes the buckets before a time, given as text; `None` without buckets.
    pub fn prune(&self, before: &str) -> Option<String> {
        let bucket = quoted(self.definition.bucket.as_ref()?);
        let before = format!("{}::timestamptz", quote_literal(before));
        Some(format!(
            "LOCK TABLE {recompute}, {frozen}, {fold} IN EXCLUSIVE MODE; \
             UPDATE {fold} SET keep_from = {before} WHERE keep_from < {before}; \
             DELETE FROM {batch} WHERE {bucket} < {before}; DELETE FROM {frozen} WHERE {bucket} < {before}",
            recompute = self.object("recompute"),
            frozen = self.object("frozen"),
            fold = self.object("fold_state"),
            batch = self.object("batch"),
        ))
    }

    /// Copies the frozen sums of an earlier version whose definition has at least these groups and sums.
    pub fn carry_over_frozen(&self, earlier: &TotalSql<'_>) -> String {
        format!(
            "INSERT INTO {} (piece, dropped_at, {}) SELECT piece, dropped_at, {}, {} FROM {} GROUP BY piece, dropped_at, {}",
            self.object("frozen"),
            self.columns(),
            self.group_list(),
            self.figure_list(|figure| format!("sum({figure})")),
            earlier.object("frozen"),
            self.group_list(),
        )
    }

    /// Deltas are inserted from a query over the columns and figures.
    pub(super) fn insert_deltas(&self, query: &str) -> String {
        format!("INSERT INTO {} ({})\n{query}", self.object("delta"), self.columns())
    }
}
