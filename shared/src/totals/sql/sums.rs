//! The sums of rows by group, of a table or of the rows of one statement.

use super::{TotalSql, fill, quoted};
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
    pub(super) fn sums(&self, added: Option<&str>, removed: Option<&str>) -> String {
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
}
