//! The sums of rows by group, of a table or of the rows of one statement.

use super::{SumColumns, TotalSql};
use crate::sql_script::{fill, quoted};
use crate::totals::definition::{Sum, SumKind};

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

impl TotalSql<'_> {
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
        let sums = self.sum_columns().map(|sum| {
            let SumColumns { sum, count, .. } = sum;
            format!(", {sign}sum({sum})::numeric AS {sum}, {sign}count({sum}) AS {count}")
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
            let kind = sum.kind;
            let SumColumns { sum, nan, inf, neg_inf, .. } = SumColumns::new(&sum.name);
            if kind == SumKind::Integer {
                return format!(", {sign}sum({sum})::numeric AS {sum}, 0::bigint AS {nan}, 0::bigint AS {inf}, 0::bigint AS {neg_inf}");
            }
            format!(
                ", {sign}sum({sum}) FILTER (WHERE {sum} > '-Infinity' AND {sum} < 'Infinity') AS {sum}, \
                 {sign}count(*) FILTER (WHERE {sum} = 'NaN') AS {nan}, \
                 {sign}count(*) FILTER (WHERE {sum} = 'Infinity') AS {inf}, \
                 {sign}count(*) FILTER (WHERE {sum} = '-Infinity') AS {neg_inf}"
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
    pub(super) fn sums(&self, added: Option<&str>, removed: Option<&str>) -> String {
        let groups = self.group_list();
        let regrouped = |of: fn(SumColumns) -> Vec<String>| {
            self.sum_columns().flat_map(of).map(|figure| format!(", sum({figure}) AS {figure}")).collect::<String>()
        };
        let both = |of: &dyn Fn(&str, Sign) -> String, figures: String| match (added, removed) {
            (Some(added), Some(removed)) => format!(
                "SELECT {groups}{figures} FROM ({} UNION ALL {}) u GROUP BY {groups}",
                of(added, Sign::Plus),
                of(removed, Sign::Minus),
            ),
            (Some(relation), None) => of(relation, Sign::Plus),
            (None, relation) => of(relation.unwrap_or_default(), Sign::Minus),
        };
        let plain = both(
            &|relation, sign| self.plain_sums(relation, sign),
            format!(", sum(rows) AS rows{}", regrouped(|columns| vec![columns.sum, columns.count])),
        );
        let exact = both(
            &|relation, sign| self.exact_sums(relation, sign),
            regrouped(|columns| vec![columns.sum, columns.nan, columns.inf, columns.neg_inf]),
        );
        let is_finite = |sum: &Sum| {
            let name = quoted(&sum.name);
            format!("coalesce({name} > '-Infinity' AND {name} < 'Infinity', true)")
        };
        let fractional = self.definition.sums.iter().filter(|sum| sum.kind != SumKind::Integer);
        let finite: Vec<_> = fractional.map(is_finite).collect();
        if finite.is_empty() {
            return format!("SELECT {groups}, rows{} FROM ({plain}) a", self.finite_figures());
        }
        fill(
            include_str!("sums.sql"),
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
        let of_sum = |SumColumns { sum, count, nan, inf, neg_inf }| {
            format!(
                ", coalesce({sum}, 0) AS {sum}, {count}, 0::bigint AS {nan}, 0::bigint AS {inf}, 0::bigint AS {neg_inf}"
            )
        };
        self.sum_columns().map(of_sum).collect()
    }

    /// The figures of each sum, from the plain sums `a` and the exact ones `d`.
    fn exact_figures(&self) -> String {
        let of_sum = |SumColumns { sum, count, nan, inf, neg_inf }| {
            format!(", coalesce(d.{sum}, 0), a.{count}, d.{nan}, d.{inf}, d.{neg_inf}")
        };
        self.sum_columns().map(of_sum).collect()
    }

    /// The columns and figures of the rows of a relation.
    pub fn sums_of(&self, relation: &str) -> String {
        self.sums(Some(relation), None)
    }
}
