//! The configured totals: their figures by group and split, the worst first, and their state.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::activity::MINUTES;
use crate::config::{BucketWidth, Config, NamedExpression, TotalBoard, TotalConfig};
use crate::names::Identifier;
use crate::timestamp::Timestamp;

/// So many groups are read, the worst ones. The others are only counted.
const GROUPS_MAX: i64 = 100;

/// A minute in microseconds.
const MINUTE_MICROS: i64 = 60_000_000;

/// The figures of a total.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct TotalFigures {
    /// The worst groups, in order.
    pub groups: Vec<GroupFigures>,
    /// The number of all groups.
    pub group_count: i64,
    /// What the first group added in each of the last 60 minutes, if a total with a bucket of a minute says so.
    pub minutes: Option<Vec<MinuteSeries>>,
}

/// A group, for example a game.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupFigures {
    /// Its name.
    pub name: String,
    /// The sum over its parts, exact.
    pub whole: Option<String>,
    /// Its parts, for example the sides.
    pub parts: Vec<PartFigures>,
}

/// A part of a group.
#[derive(Clone, PartialEq, Debug)]
pub struct PartFigures {
    /// Its name; empty if the total is not split.
    pub name: String,
    /// The sum, exact.
    pub value: Option<String>,
    /// What is kept if this part wins, exact.
    pub kept: Option<String>,
}

/// How a part changed from minute to minute.
#[derive(Clone, PartialEq, Debug)]
pub struct MinuteSeries {
    /// The part.
    pub name: String,
    /// What was added in each of the last 60 minutes, oldest first; `None` where it is not known.
    pub added: Vec<Option<f64>>,
}

/// The state of a total.
#[derive(Clone, PartialEq, Debug)]
pub struct TotalStatus {
    /// Whether it is exact and served.
    pub is_ready: bool,
    /// Failures of its triggers that the next recompute corrects.
    pub broken: i64,
    /// When it was recomputed last.
    pub recomputed_at: Option<Timestamp>,
    /// How long that took.
    pub recompute_seconds: Option<f64>,
    /// The number of groups that were off.
    pub off_by: Option<i64>,
    /// The number of groups, estimated.
    pub groups: i64,
    /// The number of deltas that are not folded yet, estimated.
    pub pending: i64,
}

fn quoted(name: &str) -> String {
    Identifier::truncated(name, name).to_string()
}

/// The SQL of a total on the board.
struct FiguresSql<'t> {
    total: &'t TotalConfig,
    board: &'t TotalBoard,
}

impl FiguresSql<'_> {
    /// A group's column as text, `(none)` for NULL; an empty text if the total has no such column.
    fn name_of(column: Option<&str>) -> String {
        match column {
            Some(column) => format!("coalesce({}::pg_catalog.text, '(none)')", quoted(column)),
            None => "''".to_owned(),
        }
    }

    /// The group that the board lists: the configured one, or the first one that is not the split.
    fn group(&self) -> Option<&str> {
        let split = self.board.split.as_deref();
        if self.board.group.is_some() {
            return self.board.group.as_deref();
        }
        self.total.groups.iter().map(|group| group.name.as_str()).find(|name| Some(*name) != split)
    }

    /// The total by group and split alone, with all its sums under their names.
    fn parts(&self) -> String {
        let names: Vec<String> =
            [self.group(), self.board.split.as_deref()].into_iter().flatten().map(quoted).collect();
        let view = self.total.view();
        if self.total.group_names().count() == names.len() {
            return format!("SELECT * FROM {view}");
        }
        let mut columns = names.clone();
        columns.push("pg_catalog.sum(rows) AS rows".to_owned());
        for sum in &self.total.sums {
            columns.push(format!("pg_catalog.sum({0}) AS {0}", sum.name));
        }
        let grouping = if names.is_empty() { "()".to_owned() } else { names.join(", ") };
        format!("SELECT {} FROM {view} GROUP BY {grouping}", columns.join(", "))
    }

    /// The worst groups with their parts.
    fn figures(&self) -> String {
        let value = quoted(&self.board.value);
        let kept = self.board.worst.as_ref().map_or("NULL::numeric".to_owned(), |worst| format!("({})", worst.sql));
        format!(
            "WITH part AS (SELECT {group} AS group_name, {split} AS part_name, {value} AS value, {kept} AS kept FROM ({parts}) AS total), \
             whole AS (SELECT group_name, pg_catalog.min(kept) AS worst, pg_catalog.sum(value) AS value FROM part GROUP BY group_name), \
             top AS (SELECT *, pg_catalog.count(*) OVER () AS group_count FROM whole \
                 ORDER BY worst NULLS LAST, value DESC NULLS LAST, group_name LIMIT $1) \
             SELECT group_name, part_name, part.value::pg_catalog.text AS value, part.kept::pg_catalog.text AS kept, \
                 top.value::pg_catalog.text AS whole, top.group_count \
             FROM top JOIN part USING (group_name) ORDER BY top.worst NULLS LAST, top.value DESC NULLS LAST, group_name, part_name",
            group = Self::name_of(self.group()),
            split = Self::name_of(self.board.split.as_deref()),
            parts = self.parts(),
        )
    }

    /// What a group added in each of the last 60 minutes, by part, from a total with a bucket of a minute.
    fn minutes(&self, by_minute: &TotalConfig) -> String {
        format!(
            "SELECT part_name, minutes_ago, pg_catalog.sum(value)::double precision AS added FROM ( \
                 SELECT {group} AS group_name, {split} AS part_name, {value} AS value, \
                     (extract(epoch FROM pg_catalog.date_trunc('minute', pg_catalog.now() AT TIME ZONE 'UTC') \
                         OPERATOR(pg_catalog.-) CAST(\"minute\" AS timestamp without time zone)) OPERATOR(pg_catalog./) 60)::bigint AS minutes_ago \
                 FROM {view} \
             ) AS total WHERE group_name OPERATOR(pg_catalog.=) $1 AND minutes_ago BETWEEN 0 AND 60 GROUP BY part_name, minutes_ago",
            group = Self::name_of(self.group()),
            split = Self::name_of(self.board.split.as_deref()),
            value = quoted(&self.board.value),
            view = by_minute.view(),
        )
    }

    /// The total that says what was added in each minute: this one, or another one of the same table that has the same groups, a
    /// sum of the same name, and a bucket of a minute.
    fn total_by_minute<'c>(&self, config: &'c Config) -> Option<&'c TotalConfig> {
        let has_minute =
            |total: &&TotalConfig| total.bucket.as_ref().is_some_and(|bucket| bucket.every == BucketWidth::Minute);
        let own = config.totals.iter().filter(|total| total.name == self.total.name);
        own.chain(&config.totals).filter(has_minute).find(|total| self.has_same_columns(total))
    }

    /// Whether another total of the table has what this one shows: the group, the split and the value.
    fn has_same_columns(&self, other: &TotalConfig) -> bool {
        let has_group = |column: Option<&str>| {
            let own = self.total.groups.iter().find(|group| Some(group.name.as_str()) == column);
            let is_same = |own: &NamedExpression| {
                other.groups.iter().any(|group| group.name == own.name && group.expression.sql == own.expression.sql)
            };
            column.is_none() || own.is_some_and(is_same)
        };
        let value = self.board.value.as_str();
        let has_value = value == "rows" || other.sums.iter().any(|sum| sum.name.as_str() == value);
        other.table == self.total.table
            && has_group(self.group())
            && has_group(self.board.split.as_deref())
            && has_value
    }
}

/// Reads the figures of a total.
pub async fn read_figures(client: &Client, config: &Config, total: &TotalConfig) -> Result<TotalFigures, Error> {
    let Some(board) = &total.board else { return Ok(TotalFigures::default()) };
    let sql = FiguresSql { total, board };
    let rows = client.query_typed(&sql.figures(), &[(&GROUPS_MAX, Type::INT8)]).await?;
    let mut figures = TotalFigures::default();
    for row in &rows {
        figures.group_count = row.get("group_count");
        add_part(&mut figures.groups, row);
    }
    if let Some((first, by_minute)) = figures.groups.first().zip(sql.total_by_minute(config)) {
        let rows = client.query_typed(&sql.minutes(by_minute), &[(&first.name, Type::TEXT)]).await?;
        figures.minutes = Some(series(first, &rows));
    }
    Ok(figures)
}

fn add_part(groups: &mut Vec<GroupFigures>, row: &Row) {
    let name: &str = row.get("group_name");
    if groups.last().is_none_or(|last| last.name != name) {
        groups.push(GroupFigures { name: name.to_owned(), whole: row.get("whole"), parts: Vec::new() });
    }
    if let Some(group) = groups.last_mut() {
        group.parts.push(PartFigures { name: row.get("part_name"), value: row.get("value"), kept: row.get("kept") });
    }
}

/// A minute without a row is one in which nothing was added.
fn series(group: &GroupFigures, rows: &[Row]) -> Vec<MinuteSeries> {
    let empty = |part: &PartFigures| MinuteSeries { name: part.name.clone(), added: vec![Some(0.0); MINUTES] };
    let mut all: Vec<MinuteSeries> = group.parts.iter().map(empty).collect();
    for row in rows {
        let (name, ago): (&str, i64) = (row.get("part_name"), row.get("minutes_ago"));
        let index = usize::try_from(ago).ok().filter(|ago| *ago > 0).and_then(|ago| MINUTES.checked_sub(ago));
        if let Some((series, index)) = all.iter_mut().find(|series| series.name == name).zip(index) {
            series.added[index] = row.get("added");
        }
    }
    all
}

/// Reads the state of the totals that the configuration names.
pub async fn read_states(client: &Client, config: &Config) -> Result<BTreeMap<String, TotalStatus>, Error> {
    if config.totals.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = client.query_typed(include_str!("total_states.sql"), &[]).await?;
    let status = |row: &Row| TotalStatus {
        is_ready: row.get("is_ready"),
        broken: row.get("broken"),
        recomputed_at: row.get::<_, Option<i64>>("recomputed_at").map(Timestamp),
        recompute_seconds: row.get("recompute_seconds"),
        off_by: row.get("off_by"),
        groups: row.get("groups"),
        pending: row.get("pending"),
    };
    let is_configured = |name: &str| config.totals.iter().any(|total| total.name.as_str() == name);
    let configured = rows.iter().filter(|row| is_configured(row.get("name")));
    Ok(configured.map(|row| (row.get("name"), status(row))).collect())
}

/// The figures of the last hour, one per minute, for totals without a minute of their own. An environment keeps it in memory: it
/// begins when the environment first reads the total, and ends with it.
#[derive(Clone, Default, Debug)]
pub struct TotalHistory {
    /// The last figures of each minute, by minute.
    minutes: BTreeMap<i64, BTreeMap<(String, String), f64>>,
}

impl TotalHistory {
    /// Adds figures; those of the same minute replace each other.
    pub fn add(&mut self, at: Timestamp, figures: &TotalFigures) {
        let minute = at.0.div_euclid(MINUTE_MICROS);
        let mut values = BTreeMap::new();
        for group in &figures.groups {
            for part in &group.parts {
                if let Some(value) = part.value.as_deref().and_then(|value| value.parse().ok()) {
                    values.insert((group.name.clone(), part.name.clone()), value);
                }
            }
        }
        self.minutes.insert(minute, values);
        while self.minutes.len() > MINUTES + 2 {
            self.minutes.pop_first();
        }
    }

    /// What a group added in each of the last 60 minutes, by part, as far as it is known.
    pub fn series(&self, group: &GroupFigures, now: Timestamp) -> Vec<MinuteSeries> {
        let current = now.0.div_euclid(MINUTE_MICROS);
        let mut all = Vec::new();
        for part in &group.parts {
            let key = (group.name.clone(), part.name.clone());
            let value = |minute: i64| self.minutes.get(&minute).and_then(|values| values.get(&key));
            let ago = (1..=MINUTES as i64).rev();
            let added = ago.map(|ago| Some(value(current - ago)? - value(current - ago - 1)?)).collect();
            all.push(MinuteSeries { name: part.name.clone(), added });
        }
        all
    }

    /// When it begins.
    pub fn since(&self) -> Option<Timestamp> {
        self.minutes.first_key_value().map(|(minute, _)| Timestamp(minute * MINUTE_MICROS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(total: &str) -> TotalConfig {
        let text = format!(
            "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.bet]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"v\"\n\
             [total.betting]\ntable = \"bet\"\n{total}"
        );
        Config::parse("m.toml", &text).unwrap().totals.remove(0)
    }

    fn figures(values: &[(&str, &str)]) -> TotalFigures {
        let part = |(name, value): &(&str, &str)| PartFigures {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            kept: None,
        };
        let parts = values.iter().map(part).collect();
        let group = GroupFigures { name: "final".to_owned(), whole: None, parts };
        TotalFigures { groups: vec![group], group_count: 1, minutes: None }
    }

    #[test]
    fn a_total_with_more_groups_than_the_board_lists_is_summed_over_them() {
        let board = "board = { split = \"side\", value = \"staked\", worst = \"staked - open\" }\n";
        let sums = "sums = { staked = \"stake\", open = \"stake * odds\" }\n";
        let plain = config(&format!("by = [\"game\", \"side\"]\n{sums}{board}"));
        let sql = FiguresSql { total: &plain, board: plain.board.as_ref().unwrap() };
        assert_eq!(sql.parts(), "SELECT * FROM \"s\".\"betting\"");
        assert!(sql.figures().contains("(staked - open) AS kept"), "{}", sql.figures());
        let finer = config(&format!("by = [\"game\", \"side\", \"shop\"]\n{sums}{board}"));
        let sql = FiguresSql { total: &finer, board: finer.board.as_ref().unwrap() };
        let parts = sql.parts();
        assert!(parts.ends_with("FROM \"s\".\"betting\" GROUP BY \"game\", \"side\""), "{parts}");
        assert!(parts.contains("pg_catalog.sum(\"open\") AS \"open\""), "{parts}");
        let chosen =
            config(&format!("by = [\"user\", \"game\"]\n{sums}board = {{ group = \"game\", value = \"staked\" }}\n"));
        let sql = FiguresSql { total: &chosen, board: chosen.board.as_ref().unwrap() };
        assert!(
            sql.parts().starts_with("SELECT \"game\", ") && sql.parts().ends_with("GROUP BY \"game\""),
            "{}",
            sql.parts()
        );
    }

    #[test]
    fn a_history_shows_what_was_added_from_minute_to_minute() {
        let minute = |number: i64, second: i64| Timestamp(number * MINUTE_MICROS + second * 1_000_000);
        let mut history = TotalHistory::default();
        history.add(minute(100, 5), &figures(&[("home", "10")]));
        history.add(minute(100, 50), &figures(&[("home", "12.5")]));
        history.add(minute(101, 59), &figures(&[("home", "20"), ("away", "3")]));
        history.add(minute(103, 1), &figures(&[("home", "30"), ("away", "4")]));
        let current = figures(&[("home", "30"), ("away", "4")]);
        let series = history.series(&current.groups[0], minute(103, 30));
        assert_eq!(series[0].added[57..], [None, Some(7.5), None], "nothing is known of minute 102");
        assert_eq!(series[1].added[57..], [None, None, None]);
        assert_eq!(history.since(), Some(minute(100, 0)));
        for number in 0..500 {
            history.add(minute(number, 0), &current);
        }
        assert_eq!(history.minutes.len(), MINUTES + 2);
    }
}
