//! The statements that create and drop the objects of a total: its tables, its functions and its view.

use super::{SumColumns, TotalSql};
use crate::names::quote_literal;
use crate::sql_script::{fill, quoted, split_script};

/// A group's key longer than this many bytes is not in the B-tree, whose entries are limited to about 2,700 bytes.
const KEY_BYTES_MAX: usize = 1_000;

impl TotalSql<'_> {
    /// The statements that create the tables and the functions.
    pub fn create(&self) -> Vec<String> {
        let mut statements = self.create_tables();
        statements.extend(self.create_functions());
        statements.push(self.create_fold());
        statements.push(format!("REVOKE ALL ON FUNCTION {} FROM PUBLIC", self.functions()));
        statements
    }

    /// The list of all functions, with their arguments.
    fn functions(&self) -> String {
        format!("{}, {}(interval)", self.triggers().functions().join(", "), self.object("fold"))
    }

    fn create_tables(&self) -> Vec<String> {
        let long = self.key_length().map_or("false".to_owned(), |length| format!("{length} > {KEY_BYTES_MAX}"));
        let key = self.object("key");
        let hash = format!("hash_record_extended({}, 0)", self.key_of(""));
        let values: [(&str, &str); 15] = [
            ("key", &key),
            ("batch", &self.object("batch")),
            ("delta", &self.object("delta")),
            ("frozen", &self.object("frozen")),
            ("fold", &self.object("fold_state")),
            ("recompute", &self.object("recompute")),
            ("groups", &self.group_list()),
            ("typed_groups", &self.typed_groups()),
            ("typed_figures", &self.typed_figures()),
            ("long", &long),
            ("hash", &hash),
            ("batch_hash", &self.index("batch_hash")),
            ("batch_key", &self.index("batch_key")),
            ("delta_key", &self.index("delta_key")),
            ("frozen_piece", &self.index("frozen_piece")),
        ];
        // Split before it is filled: a name may contain anything.
        let mut statements: Vec<String> =
            split_script(include_str!("tables.sql")).iter().map(|statement| fill(statement, &values)).collect();
        if let Some(first) = self.definition.groups.iter().find(|group| group.has_variable_length) {
            for table in ["batch", "delta"] {
                // A hash index takes values of any length.
                statements.push(format!(
                    "CREATE INDEX {} ON {} USING hash ({}) WHERE long",
                    self.index(&format!("{table}_long")),
                    self.object(table),
                    quoted(&first.name),
                ));
            }
        }
        statements
    }

    fn index(&self, suffix: &str) -> String {
        quoted(&format!("{}_{suffix}", self.prefix))
    }

    fn create_functions(&self) -> Vec<String> {
        let nonzero = format!(
            "SELECT * FROM ({}) changed WHERE {}",
            self.sums(Some("new_rows"), Some("old_rows")),
            self.any_nonzero()
        );
        let bodies = [
            ("insert", self.sums(Some("new_rows"), None)),
            ("update", nonzero),
            ("delete", self.sums(None, Some("old_rows"))),
        ];
        let mut statements = Vec::new();
        for (operation, query) in bodies {
            statements.push(self.create_function(
                include_str!("trigger_function.sql"),
                operation,
                &self.insert_deltas(&query),
            ));
        }
        // The text passes through format(), whose first argument is the table.
        let removed = self.insert_deltas(&self.sums(None, Some("{relation}"))).replace('%', "%%");
        let removed = fill(&removed, &[("relation", "%1$s")]);
        statements.push(self.create_function(include_str!("truncate_function.sql"), "truncate", &removed));
        statements
    }

    fn create_function(&self, template: &str, operation: &str, insert: &str) -> String {
        fill(
            template,
            &[
                ("function", &self.object(operation)),
                ("insert", insert),
                ("total", &quote_literal(&self.definition.name)),
                ("version", &self.version.to_string()),
            ],
        )
    }

    /// The view while the first sums are not there: its columns, without rows.
    pub fn empty_view(&self) -> String {
        let groups =
            self.definition.groups.iter().map(|group| format!("NULL::{} AS {}", group.sql_type, quoted(&group.name)));
        let sums = self.definition.sums.iter().map(|sum| format!("NULL::numeric AS {}", quoted(&sum.name)));
        let columns: Vec<_> = groups.chain(["NULL::bigint AS rows".to_owned()]).chain(sums).collect();
        format!("CREATE OR REPLACE VIEW {} AS SELECT {} WHERE false", self.definition.view(), columns.join(", "))
    }

    /// The view that serves this version.
    pub fn view(&self) -> String {
        let of_sum = |SumColumns { sum, count, nan, inf, neg_inf }| {
            format!(
                ", CASE WHEN {count} = 0 THEN NULL WHEN {nan} > 0 OR {inf} > 0 AND {neg_inf} > 0 THEN 'NaN' \
                 WHEN {inf} > 0 THEN 'Infinity' WHEN {neg_inf} > 0 THEN '-Infinity' ELSE {sum} END AS {sum}"
            )
        };
        let sums: String = self.sum_columns().map(of_sum).collect();
        // One branch for each index: short keys and long ones.
        let branches = ["batch", "delta"].into_iter().flat_map(|table| {
            let select = format!("SELECT {} FROM {}", self.columns(), self.object(table));
            [format!("{select} WHERE NOT long"), format!("{select} WHERE long")]
        });
        let branches: Vec<_> = match self.key_length() {
            Some(_) => branches.collect(),
            None => branches.step_by(2).collect(),
        };
        let keep = self.is_kept();
        let groups = self.group_list();
        format!(
            "CREATE OR REPLACE VIEW {} AS SELECT {groups}, rows::bigint AS rows{sums} FROM (SELECT {groups}, {} FROM ({}) p GROUP BY {groups}) t WHERE rows <> 0{keep}",
            self.definition.view(),
            self.summed_figures(),
            branches.join(" UNION ALL "),
        )
    }

    fn create_fold(&self) -> String {
        let keep = self.is_kept();
        fill(
            include_str!("fold_function.sql"),
            &[
                ("function", &self.object("fold")),
                ("state", &self.object("fold_state")),
                ("batch", &self.object("batch")),
                ("delta", &self.object("delta")),
                ("columns", &self.columns()),
                ("groups", &self.group_list()),
                ("summed", &self.summed_figures()),
                ("nonzero", &self.any_nonzero()),
                ("added", &self.figure_list(|figure| format!("{figure} = b.{figure} + t.{figure}"))),
                ("s_key", &self.key_of("s.")),
                ("b_key", &self.key_of("b.")),
                ("keep", &keep),
            ],
        )
    }

    /// The statements that remove the functions and the tables, once no trigger is left.
    pub fn drop(&self) -> Vec<String> {
        let tables = ["batch", "delta", "frozen", "fold_state", "recompute"].map(|table| self.object(table));
        vec![
            format!("DROP FUNCTION IF EXISTS {}", self.functions()),
            format!("DROP TABLE IF EXISTS {}", tables.join(", ")),
            format!("DROP TYPE IF EXISTS {}", self.object("key")),
        ]
    }

    fn typed_groups(&self) -> String {
        let typed = |(name, sql_type): (String, &str)| format!("{name} {sql_type}");
        let types = self.definition.groups.iter().map(|group| &*group.sql_type);
        self.groups().zip(types).map(typed).collect::<Vec<_>>().join(", ")
    }

    fn typed_figures(&self) -> String {
        let of_sum = |columns: SumColumns| {
            // A sum that is not finite could not be corrected by a difference.
            let sum = format!("{0} numeric NOT NULL CHECK ({0} > '-Infinity' AND {0} < 'Infinity')", columns.sum);
            std::iter::once(sum).chain(columns.counts().map(|count| format!("{count} bigint NOT NULL")))
        };
        let sums = self.sum_columns().flat_map(of_sum);
        std::iter::once("rows bigint NOT NULL".to_owned()).chain(sums).collect::<Vec<_>>().join(", ")
    }

    /// The length of the groups of variable length; `None` if all have a fixed one.
    fn key_length(&self) -> Option<String> {
        let variable = self.definition.groups.iter().filter(|group| group.has_variable_length);
        let lengths: Vec<_> =
            variable.map(|group| format!("coalesce(octet_length({}::text), 0)", quoted(&group.name))).collect();
        (!lengths.is_empty()).then(|| lengths.join(" + "))
    }
}
