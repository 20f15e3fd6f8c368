//! The SQL of a total, built from its definition: fragments that several statements share, and the statements themselves.
//!
//! A total's tables keep, for each group, the number of rows and, for each sum, the sum of its finite values and how many
//! values are not NULL, NaN, infinite and minus infinite: NaN and infinity cannot be subtracted again. The view puts them
//! together to what SQL's `sum` would return.
//!
//! The statements run with the search path `pg_catalog`. The expressions of the configuration are the only other text in
//! them; each was accepted as an expression of an index ([`super::probe`]).

mod changes;
mod objects;
mod sums;

use super::definition::Definition;
use crate::names::{Identifier, SYSTEM_SCHEMA};
use crate::sql_script::quoted;
use crate::statement_triggers::{Firing, TriggerSet};

/// The SQL of one version of a total.
pub struct TotalSql<'d> {
    definition: &'d Definition,
    version: i32,
    /// What the names of its objects begin with, for example `betting_v1`.
    prefix: String,
}

/// The names of the columns of a sum, as they are written in SQL.
struct SumColumns {
    sum: String,
    count: String,
    nan: String,
    inf: String,
    neg_inf: String,
}

impl SumColumns {
    fn new(name: &str) -> Self {
        let column = |suffix: &str| quoted(&format!("{name}{suffix}"));
        let [sum, count, nan, inf, neg_inf] = ["", "_count", "_nan", "_inf", "_neg_inf"].map(column);
        Self { sum, count, nan, inf, neg_inf }
    }

    /// How many values are not NULL, NaN, infinite and minus infinite.
    fn counts(self) -> [String; 4] {
        [self.count, self.nan, self.inf, self.neg_inf]
    }
}

impl<'d> TotalSql<'d> {
    /// The SQL of a version.
    pub fn new(definition: &'d Definition, version: i32) -> Self {
        Self { definition, version, prefix: format!("{}_v{version}", definition.name) }
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

    /// The triggers that feed it.
    pub fn triggers(&self) -> TriggerSet {
        TriggerSet { prefix: self.prefix.clone(), firing: Firing::Origin }
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
        let of_sum = |columns: SumColumns| std::iter::once(columns.sum.clone()).chain(columns.counts());
        std::iter::once("rows".to_owned()).chain(self.sum_columns().flat_map(of_sum)).collect()
    }

    fn sum_columns(&self) -> impl Iterator<Item = SumColumns> {
        self.definition.sums.iter().map(|sum| SumColumns::new(&sum.name))
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

    /// The groups of a row, as the composite type that treats NULLs as equal.
    fn key_of(&self, row: &str) -> String {
        let columns = self.groups().map(|group| format!("{row}{group}")).collect::<Vec<_>>().join(", ");
        format!("ROW({columns})::{}", self.object("key"))
    }
}
