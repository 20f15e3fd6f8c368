//! The SQL of a total, built from its definition: fragments that several statements share, and the statements themselves.
//!
//! A total's tables keep, for each group, the number of rows and, for each sum, the sum of its finite values and how many
//! values are not NULL, NaN, infinite and minus infinite: NaN and infinity cannot be subtracted again. The view puts them
//! together to what SQL's `sum` would return.
//!
//! The statements run with the search path `pg_catalog`. The expressions of the configuration are the only other text in
//! them; each was accepted as an expression of an index ([`super::probe`]).

use super::definition::{Definition, SumKind};
use crate::apply::TotalTrigger;
use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};

/// The SQL of one version of a total.
pub struct TotalSql<'d> {
    definition: &'d Definition,
    /// What the names of its objects begin with, for example `betting_v1`.
    prefix: String,
}

/// Whether rows are added to a total or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    Plus,
    Minus,
}

impl Sign {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "",
            Self::Minus => "-",
        }
    }
}

/// The columns of a sum, after its own.
const COUNTS: [&str; 4] = ["_count", "_nan", "_inf", "_neg_inf"];

/// A group's key longer than this many bytes is not in the B-tree, whose entries are limited to about 2,700 bytes.
const KEY_BYTES_MAX: usize = 1_000;

/// Replaces each `{name}` of a template by its value; values are not searched again.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, after) = rest.split_at(start);
        filled.push_str(before);
        let value = after.find('}').and_then(|end| {
            let name = &after[1..end];
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, end))
        });
        match value {
            Some((value, end)) => {
                filled.push_str(value);
                rest = &after[end + 1..];
            }
            None => {
                filled.push('{');
                rest = &after[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

fn quoted(name: &str) -> String {
    Identifier::truncated(name, name).to_string()
}

impl<'d> TotalSql<'d> {
    /// The SQL of a version.
    pub fn new(definition: &'d Definition, version: i32) -> Self {
        Self { definition, prefix: format!("{}_v{version}", definition.name) }
    }

    /// The total's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// A name in Millstream's schema that belongs to this version.
    pub fn object(&self, suffix: &str) -> String {
        let name = Identifier::truncated(&format!("{}_{suffix}", self.prefix), &self.prefix);
        format!("{SYSTEM_SCHEMA}.{name}")
    }

    /// What the names of the triggers and functions begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn groups(&self) -> impl Iterator<Item = String> {
        self.definition.groups.iter().map(|group| quoted(&group.name))
    }

    /// The groups' columns.
    fn group_list(&self) -> String {
        self.groups().collect::<Vec<_>>().join(", ")
    }

    /// The names of all columns with a figure: the rows, then those of each sum.
    fn figures(&self) -> Vec<String> {
        let of_sum = |name: &str| {
            std::iter::once(quoted(name))
                .chain(COUNTS.iter().map(move |suffix| quoted(&format!("{name}{suffix}"))))
                .collect::<Vec<_>>()
        };
        std::iter::once("rows".to_owned())
            .chain(self.definition.sums.iter().flat_map(|sum| of_sum(&sum.name)))
            .collect()
    }

    fn figure_list(&self, of: impl Fn(&str) -> String) -> String {
        self.figures().iter().map(|figure| of(figure)).collect::<Vec<_>>().join(", ")
    }

    /// The groups' columns and the figures.
    fn columns(&self) -> String {
        format!("{}, {}", self.group_list(), self.figure_list(str::to_owned))
    }

    /// `sum(x) AS x` of each figure.
    fn summed_figures(&self) -> String {
        self.figure_list(|figure| format!("sum({figure}) AS {figure}"))
    }

    /// A condition: some figure is not zero.
    fn any_nonzero(&self) -> String {
        self.figures().iter().map(|figure| format!("{figure} <> 0")).collect::<Vec<_>>().join(" OR ")
    }

    /// A further condition: the bucket is not older than the total keeps it. A row without a time is in no bucket that ends.
    fn is_kept(&self) -> String {
        let state = self.object("fold_state");
        let condition = |bucket: &String| {
            let bucket = quoted(bucket);
            format!(" AND ({bucket} IS NULL OR {bucket} >= (SELECT keep_from FROM {state}))")
        };
        self.definition.bucket.as_ref().map(condition).unwrap_or_default()
    }

    fn typed_groups(&self) -> String {
        let typed = |(name, sql_type): (String, &str)| format!("{name} {sql_type}");
        let types = self.definition.groups.iter().map(|group| &*group.sql_type);
        self.groups().zip(types).map(typed).collect::<Vec<_>>().join(", ")
    }

    fn typed_figures(&self) -> String {
        let of_sum = |name: &str| {
            let counts = COUNTS.iter().map(|suffix| format!("{} bigint NOT NULL", quoted(&format!("{name}{suffix}"))));
            // A sum that is not finite could not be corrected by a difference.
            let name = quoted(name);
            let sum = format!("{name} numeric NOT NULL CHECK ({name} > '-Infinity' AND {name} < 'Infinity')");
            std::iter::once(sum).chain(counts).collect::<Vec<_>>()
        };
        let sums = self.definition.sums.iter().flat_map(|sum| of_sum(&sum.name));
        std::iter::once("rows bigint NOT NULL".to_owned()).chain(sums).collect::<Vec<_>>().join(", ")
    }

    /// The groups of a row, as the composite type that treats NULLs as equal.
    fn key_of(&self, row: &str) -> String {
        let columns = self.groups().map(|group| format!("{row}{group}")).collect::<Vec<_>>().join(", ");
        format!("ROW({columns})::{}", self.object("key"))
    }

    /// The length of the groups of variable length; `None` if all have a fixed one.
    fn key_length(&self) -> Option<String> {
        let variable = self.definition.groups.iter().filter(|group| group.has_variable_length);
        let lengths: Vec<_> =
            variable.map(|group| format!("coalesce(octet_length({}::text), 0)", quoted(&group.name))).collect();
        (!lengths.is_empty()).then(|| lengths.join(" + "))
    }

    /// One row per row of a relation: its groups and the values to sum.
    fn projection(&self, relation: &str) -> String {
        let groups =
            self.definition.groups.iter().map(|group| format!("{} AS {}", group.expression, quoted(&group.name)));
        let sums = self.definition.sums.iter().map(|sum| {
            let value = match sum.kind {
                // The text of a float is exact; its cast to numeric keeps 15 digits.
                SumKind::Float => format!("({})::text::numeric", sum.expression),
                SumKind::Integer | SumKind::Numeric => format!("({})", sum.expression),
            };
            let value = match &sum.condition {
                Some(condition) => format!("CASE WHEN {condition} THEN {value} END"),
                None => value,
            };
            format!("{value} AS {}", quoted(&sum.name))
        });
        let condition = self.definition.condition.as_ref().map(|condition| format!(" WHERE ({condition})"));
        format!(
            "SELECT {} FROM {relation} AS {}{}",
            groups.chain(sums).collect::<Vec<_>>().join(", "),
            self.definition.table.table,
            condition.unwrap_or_default(),
        )
    }

    /// The plain sums of a relation's rows by group.
    fn plain_sums(&self, relation: &str, sign: Sign) -> String {
        let sign = sign.as_str();
        let sums = self.definition.sums.iter().map(|sum| {
            let (name, count) = (quoted(&sum.name), quoted(&format!("{}_count", sum.name)));
            format!(", {sign}sum({name})::numeric AS {name}, {sign}count({name}) AS {count}")
        });
        let groups = self.group_list();
        format!(
            "SELECT {groups}, {sign}count(*) AS rows{} FROM ({}) p GROUP BY {groups}",
            sums.collect::<String>(),
            self.projection(relation),
        )
    }

    /// The sums of a relation's finite values, and the counts of the others, by group.
    fn exact_sums(&self, relation: &str, sign: Sign) -> String {
        let sign = sign.as_str();
        let sums = self.definition.sums.iter().map(|sum| {
            let name = quoted(&sum.name);
            let column = |suffix: &str| quoted(&format!("{}{suffix}", sum.name));
            let [nan, inf, neg_inf] = ["_nan", "_inf", "_neg_inf"].map(column);
            if sum.kind == SumKind::Integer {
                return format!(", {sign}sum({name})::numeric AS {name}, 0::bigint AS {nan}, 0::bigint AS {inf}, 0::bigint AS {neg_inf}");
            }
            format!(
                ", {sign}sum({name}) FILTER (WHERE {name} > '-Infinity' AND {name} < 'Infinity') AS {name}, \
                 {sign}count(*) FILTER (WHERE {name} = 'NaN') AS {nan}, \
                 {sign}count(*) FILTER (WHERE {name} = 'Infinity') AS {inf}, \
                 {sign}count(*) FILTER (WHERE {name} = '-Infinity') AS {neg_inf}"
            )
        });
        let groups = self.group_list();
        format!(
            "SELECT {groups}{} FROM ({}) p WHERE (SELECT special FROM special) GROUP BY {groups}",
            sums.collect::<String>(),
            self.projection(relation),
        )
    }

    /// The columns and figures of rows that are added, and of others that are taken away.
    fn sums(&self, added: Option<&str>, removed: Option<&str>) -> String {
        let groups = self.group_list();
        let counts = |suffixes: &[&str]| {
            let of_sum =
                |name: &str| suffixes.iter().map(|suffix| quoted(&format!("{name}{suffix}"))).collect::<Vec<_>>();
            let figures = self.definition.sums.iter().flat_map(|sum| of_sum(&sum.name));
            figures.map(|figure| format!(", sum({figure}) AS {figure}")).collect::<String>()
        };
        let both = |of: &dyn Fn(&str, Sign) -> String, regrouped: String| match (added, removed) {
            (Some(added), Some(removed)) => format!(
                "SELECT {groups}{regrouped} FROM ({} UNION ALL {}) u GROUP BY {groups}",
                of(added, Sign::Plus),
                of(removed, Sign::Minus),
            ),
            (Some(relation), None) => of(relation, Sign::Plus),
            (None, relation) => of(relation.unwrap_or_default(), Sign::Minus),
        };
        let plain = both(
            &|relation, sign| self.plain_sums(relation, sign),
            format!(", sum(rows) AS rows{}", counts(&["", "_count"])),
        );
        let exact = both(&|relation, sign| self.exact_sums(relation, sign), counts(&["", "_nan", "_inf", "_neg_inf"]));
        let is_finite = |sum: &super::definition::Sum| {
            let name = quoted(&sum.name);
            format!("coalesce({name} > '-Infinity' AND {name} < 'Infinity', true)")
        };
        let fractional = self.definition.sums.iter().filter(|sum| sum.kind != SumKind::Integer);
        let finite: Vec<_> = fractional.map(is_finite).collect();
        if finite.is_empty() {
            return format!("SELECT {groups}, rows{} FROM ({plain}) a", self.finite_figures());
        }
        fill(
            include_str!("sql/sums.sql"),
            &[
                ("plain", &plain),
                ("exact", &exact),
                ("finite", &finite.join(" AND ")),
                ("groups", &groups),
                ("a_groups", &self.groups().map(|group| format!("a.{group}")).collect::<Vec<_>>().join(", ")),
                ("finite_figures", &self.finite_figures()),
                ("exact_figures", &self.exact_figures()),
                ("a_key", &self.key_of("a.")),
                ("d_key", &self.key_of("d.")),
            ],
        )
    }

    /// The figures of each sum if all its values are finite.
    fn finite_figures(&self) -> String {
        let of_sum = |name: &str| {
            let column = |suffix: &str| quoted(&format!("{name}{suffix}"));
            format!(
                ", coalesce({0}, 0) AS {0}, {1}, 0::bigint AS {2}, 0::bigint AS {3}, 0::bigint AS {4}",
                quoted(name),
                column("_count"),
                column("_nan"),
                column("_inf"),
                column("_neg_inf")
            )
        };
        self.definition.sums.iter().map(|sum| of_sum(&sum.name)).collect()
    }

    /// The figures of each sum, from the plain sums `a` and the exact ones `d`.
    fn exact_figures(&self) -> String {
        let of_sum = |name: &str| {
            let column = |suffix: &str| quoted(&format!("{name}{suffix}"));
            format!(
                ", coalesce(d.{}, 0), a.{}, d.{}, d.{}, d.{}",
                quoted(name),
                column("_count"),
                column("_nan"),
                column("_inf"),
                column("_neg_inf")
            )
        };
        self.definition.sums.iter().map(|sum| of_sum(&sum.name)).collect()
    }

    /// The columns and figures of the rows of a relation.
    pub fn sums_of(&self, relation: &str) -> String {
        self.sums(Some(relation), None)
    }

    /// Deltas are inserted from a query over the columns and figures.
    fn insert_deltas(&self, query: &str) -> String {
        format!("INSERT INTO {} ({})\n{query}", self.object("delta"), self.columns())
    }

    /// The statements that create the tables and the functions.
    pub fn create(&self) -> Vec<String> {
        let mut statements = self.create_tables();
        statements.extend(self.create_functions());
        statements.push(self.create_fold());
        let functions = TotalTrigger::ALL.map(|trigger| format!("{}()", self.object(trigger.as_str())));
        statements.push(format!(
            "REVOKE ALL ON FUNCTION {}, {}(interval) FROM PUBLIC",
            functions.join(", "),
            self.object("fold"),
        ));
        statements
    }

    fn create_tables(&self) -> Vec<String> {
        let long = self.key_length().map_or("false".to_owned(), |length| format!("{length} > {KEY_BYTES_MAX}"));
        let key = self.object("key");
        let hash = format!("hash_record_extended({}, 0)", self.key_of(""));
        let script = fill(
            include_str!("sql/tables.sql"),
            &[
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
            ],
        );
        let mut statements: Vec<String> = statements(&script);
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
                include_str!("sql/trigger_function.sql"),
                operation,
                &self.insert_deltas(&query),
            ));
        }
        // The text passes through format(), whose first argument is the table.
        let removed = self.insert_deltas(&self.sums(None, Some("{relation}"))).replace('%', "%%");
        let removed = fill(&removed, &[("relation", "%1$s")]);
        statements.push(self.create_function(include_str!("sql/truncate_function.sql"), "truncate", &removed));
        statements
    }

    fn create_function(&self, template: &str, operation: &str, insert: &str) -> String {
        fill(
            template,
            &[
                ("function", &self.object(operation)),
                ("insert", insert),
                ("total", &self.literal_name()),
                ("version", &self.version()),
            ],
        )
    }

    fn literal_name(&self) -> String {
        crate::names::quote_literal(&self.definition.name)
    }

    fn version(&self) -> String {
        self.prefix.rsplit_once("_v").map_or_else(String::new, |(_, version)| version.to_owned())
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
        let of_sum = |name: &str| {
            let column = |suffix: &str| quoted(&format!("{name}{suffix}"));
            let (count, nan, inf, neg_inf, name) =
                (column("_count"), column("_nan"), column("_inf"), column("_neg_inf"), quoted(name));
            format!(
                ", CASE WHEN {count} = 0 THEN NULL WHEN {nan} > 0 OR {inf} > 0 AND {neg_inf} > 0 THEN 'NaN' \
                 WHEN {inf} > 0 THEN 'Infinity' WHEN {neg_inf} > 0 THEN '-Infinity' ELSE {name} END AS {name}"
            )
        };
        let sums: String = self.definition.sums.iter().map(|sum| of_sum(&sum.name)).collect();
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
            include_str!("sql/fold_function.sql"),
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
        let sums = self.definition.sums.iter().map(|sum| {
            let name = quoted(&sum.name);
            format!("{name}::text")
        });
        let sums: Vec<_> = std::iter::once("rows::text".to_owned()).chain(sums).collect();
        format!("ARRAY[{groups}]::text[] AS groups, ARRAY[{}]::text[] AS figures", sums.join(", "))
    }

    /// Removes groups without content, and merges groups that have two rows.
    pub fn tidy(&self) -> String {
        fill(
            include_str!("sql/tidy.sql"),
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
            crate::names::quote_literal(&relation.unquoted()),
            self.sums_of(&relation.to_string()),
        )
    }

    /// Replaces the frozen sums of a piece by its rows, which have been restored: what they differ by becomes deltas.
    pub fn restore(&self, relation: &TableName, piece: &str) -> String {
        let columns = self.columns();
        let negative = format!("{}, {}", self.group_list(), self.figure_list(|figure| format!("-{figure}")));
        let groups = self.group_list();
        let query = format!(
            "SELECT {columns} FROM (SELECT {groups}, {} FROM (SELECT {negative} FROM f UNION ALL SELECT z.* FROM ({}) z) parts ({columns}) \
             GROUP BY {groups}) difference WHERE {}",
            self.summed_figures(),
            self.sums_of(&relation.to_string()),
            self.any_nonzero(),
        );
        format!(
            "WITH f AS (DELETE FROM {} WHERE piece = {} RETURNING *) {}",
            self.object("frozen"),
            crate::names::quote_literal(piece),
            self.insert_deltas(&query),
        )
    }

    /// Removes the buckets before a time, given as the parameter `$1` in text.
    pub fn prune(&self, before: &str) -> Option<String> {
        let bucket = quoted(self.definition.bucket.as_ref()?);
        let before = format!("{}::timestamptz", crate::names::quote_literal(before));
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

    /// The statements that remove the functions and the tables, once no trigger is left.
    pub fn drop(&self) -> Vec<String> {
        let functions = TotalTrigger::ALL.map(|trigger| format!("{}()", self.object(trigger.as_str())));
        let tables = ["batch", "delta", "frozen", "fold_state", "recompute"].map(|table| self.object(table));
        vec![
            format!("DROP FUNCTION IF EXISTS {}, {}(interval)", functions.join(", "), self.object("fold")),
            format!("DROP TABLE IF EXISTS {}", tables.join(", ")),
            format!("DROP TYPE IF EXISTS {}", self.object("key")),
        ]
    }

    /// Makes the functions do nothing, which needs no lock on a table: the triggers can then be dropped one by one.
    pub fn empty_functions(&self) -> Vec<String> {
        let empty = |trigger: TotalTrigger| {
            format!(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $total$BEGIN RETURN NULL; END$total$",
                self.object(trigger.as_str())
            )
        };
        TotalTrigger::ALL.map(empty).to_vec()
    }
}

/// The statements of a script, which contains no semicolon within one. Comment lines are left out.
fn statements(script: &str) -> Vec<String> {
    let lines: Vec<&str> = script.lines().filter(|line| !line.starts_with("--")).collect();
    lines
        .join("\n")
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}
