//! `[total.NAME]`: sums over the rows of a table, by group.

use toml::Spanned;
use toml::de::DeValue;

use super::section::Section;
use super::sql::expression_mistake;
use super::{ConfigErrors, SourceConfig};
use crate::names::{Identifier, TableName};

/// The names of a total's triggers are its own name with up to 26 bytes more, of 63.
const NAME_BYTES_MAX: usize = 36;
/// A sum's columns have its name and up to eight bytes more.
const SUM_NAME_BYTES_MAX: usize = 55;
/// An index has at most 32 columns.
const GROUPS_MAX: usize = 16;
/// A total's functions are quoted with it.
const FUNCTION_QUOTE: &str = "$total$";

/// What a total cannot keep up to date when a row is deleted or changed.
const NOT_SUMS: [&str; 3] = ["min", "max", "distinct"];

/// Columns that a total's tables have in addition to its groups and sums.
const RESERVED: [&str; 6] = ["id", "rows", "long", "hash", "piece", "dropped_at"];

/// A total: sums over the rows of one table, by group.
#[derive(Clone, PartialEq, Debug)]
pub struct TotalConfig {
    /// The name of the view that serves it, in the schema of the table.
    pub name: Identifier,
    /// The configured name of the source that fills the table.
    pub source: String,
    /// The table whose rows are summed.
    pub table: TableName,
    /// The expressions that a row is grouped by, with the names of their columns.
    pub groups: Vec<NamedExpression>,
    /// The time bucket that a row is grouped by.
    pub bucket: Option<BucketConfig>,
    /// The condition that a row must meet.
    pub condition: Option<Expression>,
    /// What is summed.
    pub sums: Vec<SumConfig>,
    /// How the total is shown on the board.
    pub board: Option<TotalBoard>,
}

/// One SQL expression over the columns of a table, and where the configuration has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Expression {
    /// The expression.
    pub sql: String,
    /// Its position: file, line, column and key.
    pub position: String,
}

/// An expression with the name of its column.
#[derive(Clone, PartialEq, Debug)]
pub struct NamedExpression {
    /// The name.
    pub name: Identifier,
    /// The expression.
    pub expression: Expression,
}

/// A time bucket, in UTC.
#[derive(Clone, PartialEq, Debug)]
pub struct BucketConfig {
    /// The time of a row.
    pub at: Expression,
    /// The width, which is also the name of the column.
    pub every: BucketWidth,
    /// Buckets older than this many microseconds are removed; `None` keeps them.
    pub retention_micros: Option<i64>,
}

/// The width of a time bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BucketWidth {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
    /// A week from Monday in UTC.
    Week,
    /// A month in UTC.
    Month,
}

impl BucketWidth {
    /// PostgreSQL's name of the width.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// A sum.
#[derive(Clone, PartialEq, Debug)]
pub struct SumConfig {
    /// The name of its column.
    pub name: Identifier,
    /// What is summed.
    pub expression: Expression,
    /// The condition that a row must meet to be part of this sum.
    pub condition: Option<Expression>,
}

/// How a total is shown on the board.
#[derive(Clone, PartialEq, Debug)]
pub struct TotalBoard {
    /// The group that is listed; `None` is the first one that is not the split.
    pub group: Option<String>,
    /// The group that splits the others, for example the side of a game.
    pub split: Option<String>,
    /// The sum that is shown.
    pub value: String,
    /// The unit of its values.
    pub unit: Option<String>,
    /// An SQL expression over the total's columns: what remains if this part of the split wins.
    pub worst: Option<Expression>,
    /// The limit of `worst`: less is over the limit.
    pub limit: Option<f64>,
}

impl TotalConfig {
    /// The columns that a row is grouped by, in order: the groups, then the bucket.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        let bucket = self.bucket.as_ref().map(|bucket| bucket.every.as_str());
        self.groups.iter().map(|group| group.name.as_str()).chain(bucket)
    }

    /// The view that serves the total.
    pub fn view(&self) -> TableName {
        TableName { schema: self.table.schema.clone(), table: self.name.clone() }
    }
}

/// Checks a total and returns it.
pub(super) fn check(raw: Section<'_>, sources: &[SourceConfig], errors: &mut ConfigErrors) -> Option<TotalConfig> {
    let name = Identifier::exact(raw.name()).filter(|name| name.as_str().len() <= NAME_BYTES_MAX);
    if name.is_none() {
        raw.error(errors, "", format!("names of totals are 1 to {NAME_BYTES_MAX} bytes"));
    }
    reject_other_aggregates(&raw, errors);
    let table = summed_table(&raw, sources, errors);
    let groups = groups(&raw, errors);
    let bucket = raw.section(errors, "bucket").and_then(|section| bucket(section, errors));
    if groups.is_empty() && bucket.is_none() {
        raw.error(errors, "by", "required, unless `bucket` is set: the columns that the rows are grouped by");
    }
    let condition = expression(&raw, "where", errors);
    let sums = sums(&raw, errors);
    let board = raw.section(errors, "board").and_then(|section| board(section, &groups, &sums, errors));
    let total = name.zip(table).map(|(name, (source, table))| TotalConfig {
        name,
        source,
        table,
        groups,
        bucket,
        condition,
        sums,
        board,
    });
    if let Some(total) = &total {
        check_names(&raw, total, sources, errors);
    }
    raw.reject_unknown_keys(errors);
    total
}

/// A deleted or changed row can be subtracted from a sum or a count, not from these.
fn reject_other_aggregates(raw: &Section<'_>, errors: &mut ConfigErrors) {
    for key in NOT_SUMS {
        let reason = "not possible: removing a row can change it in a way that the row alone does not tell; query the table instead";
        raw.reject_key(errors, key, reason);
    }
}

/// `table = "bet"`: a declared table, or another table of `source`.
fn summed_table(raw: &Section<'_>, sources: &[SourceConfig], errors: &mut ConfigErrors) -> Option<(String, TableName)> {
    let source_name = raw.string(errors, "source");
    let table = raw.required(errors, "table", "the table whose rows are summed")?;
    let Some(table) = Identifier::exact(table) else {
        raw.error(errors, "table", "table names are 1 to 63 bytes");
        return None;
    };
    let source = match source_name {
        Some(name) => sources.iter().find(|source| source.name == name),
        None => sources.iter().find(|source| source.tables.iter().any(|declared| declared.name == table)),
    };
    let Some(source) = source else {
        match source_name {
            Some(name) => raw.error(errors, "source", format!("unknown source `{name}`")),
            None => raw.error(errors, "table", "not a declared table; for another table, set `source` as well"),
        }
        return None;
    };
    Some((source.name.clone(), TableName { schema: source.schema.clone(), table }))
}

/// `by = ["game_id", "side"]`, or `by = { game = "lower(game_id)", side = "side" }`.
fn groups(raw: &Section<'_>, errors: &mut ConfigErrors) -> Vec<NamedExpression> {
    if raw.is_table("by") {
        let Some(section) = raw.section(errors, "by") else { return Vec::new() };
        let mut entries: Vec<_> = section.entries().collect();
        // In the order of the file, which a TOML table does not keep.
        entries.sort_by_key(|(_, value)| value.span().start);
        return entries.into_iter().filter_map(|(name, value)| named(&section, name, value, errors)).collect();
    }
    let columns = raw.string_list(errors, "by");
    let position = raw.position(errors, "by");
    let group = |column: String| {
        let name = Identifier::exact(&column)?;
        let expression = Expression { sql: name.to_string(), position: position.clone() };
        Some(NamedExpression { name, expression })
    };
    columns.into_iter().filter_map(group).collect()
}

fn named<'a>(
    section: &Section<'a>,
    name: &str,
    value: &'a Spanned<DeValue<'a>>,
    errors: &mut ConfigErrors,
) -> Option<NamedExpression> {
    let Some(sql) = value.get_ref().as_str() else {
        errors.add(value.span(), &section.key(name), "must be an SQL expression, as a string");
        return None;
    };
    let expression = checked_expression(section, name, value, sql, errors)?;
    Some(NamedExpression { name: column_name(section, name, value, errors)?, expression })
}

fn column_name(
    section: &Section<'_>,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    errors: &mut ConfigErrors,
) -> Option<Identifier> {
    let checked = Identifier::exact(name).filter(|name| name.as_str().len() <= SUM_NAME_BYTES_MAX);
    if checked.is_none() {
        errors.add(value.span(), &section.key(name), format!("names are 1 to {SUM_NAME_BYTES_MAX} bytes"));
    }
    checked
}

fn checked_expression<'a>(
    section: &Section<'a>,
    key: &str,
    value: &'a Spanned<DeValue<'a>>,
    sql: &str,
    errors: &mut ConfigErrors,
) -> Option<Expression> {
    let mistake = expression_mistake(sql).or(sql.contains(FUNCTION_QUOTE).then_some("contains `$total$`"));
    if let Some(mistake) = mistake {
        errors.add(value.span(), &section.key(key), format!("must be one SQL expression, but {mistake}"));
        return None;
    }
    Some(Expression { sql: sql.to_owned(), position: errors.position(value.span(), &section.key(key)) })
}

/// The expression in a key, if the key is set.
fn expression(section: &Section<'_>, key: &'static str, errors: &mut ConfigErrors) -> Option<Expression> {
    section.string(errors, key)?;
    let value = section.value(key)?;
    checked_expression(section, key, value, value.get_ref().as_str()?, errors)
}

/// `bucket = { at = "placed_at", every = "hour", keep = "5 years" }`
fn bucket(raw: Section<'_>, errors: &mut ConfigErrors) -> Option<BucketConfig> {
    raw.required(errors, "at", "the time of a row");
    let at = expression(&raw, "at", errors);
    let widths = [BucketWidth::Minute, BucketWidth::Hour, BucketWidth::Day, BucketWidth::Week, BucketWidth::Month];
    let every = raw.one_of(errors, "every", &widths.map(|width| (width.as_str(), width)));
    if every.is_none() {
        raw.required(errors, "every", "the width of a bucket");
    }
    let retention_micros = raw.duration(errors, "keep");
    raw.reject_unknown_keys(errors);
    Some(BucketConfig { at: at?, every: every?, retention_micros })
}

/// `sums = { staked = "stake", open_liability = { of = "stake * odds", where = "status = 'placed'" } }`
fn sums(raw: &Section<'_>, errors: &mut ConfigErrors) -> Vec<SumConfig> {
    let Some(section) = raw.section(errors, "sums") else { return Vec::new() };
    let mut entries: Vec<_> = section.entries().collect();
    entries.sort_by_key(|(_, value)| value.span().start);
    entries.into_iter().filter_map(|(name, value)| sum(&section, name, value, errors)).collect()
}

fn sum<'a>(
    section: &Section<'a>,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    errors: &mut ConfigErrors,
) -> Option<SumConfig> {
    let Some(entry) = section.entry(key, value) else {
        let NamedExpression { name, expression } = named(section, key, value, errors)?;
        return Some(SumConfig { name, expression, condition: None });
    };
    entry.required(errors, "of", "the expression to sum");
    let summed = expression(&entry, "of", errors);
    let condition = expression(&entry, "where", errors);
    entry.reject_unknown_keys(errors);
    let name = column_name(section, key, value, errors);
    Some(SumConfig { name: name?, expression: summed?, condition })
}

/// `board = { split = "side", value = "staked", unit = "USD", worst = "staked - open_liability", limit = -250000 }`
fn board(
    raw: Section<'_>,
    groups: &[NamedExpression],
    sums: &[SumConfig],
    errors: &mut ConfigErrors,
) -> Option<TotalBoard> {
    let group = board_group(&raw, "group", groups, errors);
    let split = board_group(&raw, "split", groups, errors);
    if group.is_some() && group == split {
        raw.error(errors, "split", "must be another column than `group`");
    }
    let value = raw.required(errors, "value", "the sum to show").map(str::to_owned);
    if let Some(value) = &value
        && value != "rows"
        && !sums.iter().any(|sum| sum.name.as_str() == value)
    {
        raw.error(errors, "value", "must be one of `sums`, or \"rows\"");
    }
    let unit = raw.string(errors, "unit").map(str::to_owned);
    let worst = expression(&raw, "worst", errors);
    let limit = raw.read(errors, "limit", "a number", |value| match value {
        DeValue::Integer(integer) => integer.as_str().parse().ok(),
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    });
    if limit.is_some() && worst.is_none() {
        raw.error(errors, "limit", "only valid together with `worst`");
    }
    raw.reject_unknown_keys(errors);
    Some(TotalBoard { group, split, value: value?, unit, worst, limit })
}

/// One of the columns that the total is grouped by.
fn board_group(
    raw: &Section<'_>,
    key: &'static str,
    groups: &[NamedExpression],
    errors: &mut ConfigErrors,
) -> Option<String> {
    let name = raw.string(errors, key)?;
    if !groups.iter().any(|group| group.name.as_str() == name) {
        raw.error(errors, key, "must be one of the columns of `by`");
    }
    Some(name.to_owned())
}

/// The names of columns differ from each other, and the view's from those of declared tables.
fn check_names(raw: &Section<'_>, total: &TotalConfig, sources: &[SourceConfig], errors: &mut ConfigErrors) {
    let groups = total.group_names().map(str::to_owned);
    let suffixes = ["", "_count", "_nan", "_inf", "_neg_inf"];
    let of_sum = |sum: &SumConfig| suffixes.map(|suffix| format!("{}{suffix}", sum.name.as_str()));
    let mut seen: Vec<String> = RESERVED.map(str::to_owned).to_vec();
    for name in groups.chain(total.sums.iter().flat_map(of_sum)) {
        if seen.contains(&name) {
            raw.error(errors, "", format!("two columns of the total would be called `{name}`; choose another name"));
        }
        seen.push(name);
    }
    if total.groups.len() > GROUPS_MAX {
        raw.error(errors, "by", format!("at most {GROUPS_MAX} columns"));
    }
    let is_table = |source: &&SourceConfig| {
        source.schema == total.table.schema && source.tables.iter().any(|table| table.name == total.name)
    };
    if sources.iter().any(|source| is_table(&source)) {
        raw.error(errors, "", "a declared table has this name; the total's view needs another one");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const SOURCE: &str =
        "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.bet]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"v\"\n";

    fn errors(total: &str) -> String {
        Config::parse("m.toml", &format!("{SOURCE}{total}")).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_total_is_read_in_the_order_of_the_file() {
        let text = "[total.betting]\ntable = \"bet\"\nby = { side = \"side\", game = \"lower(game_id)\" }\n\
            bucket = { at = \"placed_at\", every = \"hour\", keep = \"5 years\" }\n\
            sums = { staked = \"stake\", open = { of = \"stake * odds\", where = \"status = 'placed'\" } }\n\
            board = { split = \"side\", value = \"staked\", worst = \"staked - open\", limit = -250000 }\n";
        let config = Config::parse("m.toml", &format!("{SOURCE}{text}")).unwrap();
        let total = &config.totals[0];
        assert_eq!(total.group_names().collect::<Vec<_>>(), ["side", "game", "hour"]);
        assert_eq!(total.view().unquoted(), "s.betting");
        assert_eq!(total.sums[1].condition.as_ref().unwrap().sql, "status = 'placed'");
        assert_eq!(total.sums[0].expression.position, "m.toml:12:19: total.betting.sums.staked");
        assert_eq!(total.board.as_ref().unwrap().limit, Some(-250_000.0));
        assert_eq!(total.bucket.as_ref().unwrap().retention_micros, Some(5 * 365 * 86_400_000_000));
    }

    #[test]
    fn what_cannot_be_summed_is_rejected_with_the_reason() {
        for (total, part) in [
            ("[total.t]\ntable = \"bet\"\nby = [\"g\"]\nmin = \"x\"", "total.t.min: not possible"),
            ("[total.t]\ntable = \"other\"\nby = [\"g\"]", "total.t.table: not a declared table"),
            ("[total.t]\ntable = \"bet\"", "total.t.by: required"),
            ("[total.t]\ntable = \"bet\"\nby = [\"g\"]\nsums = { rows = \"x\" }", "would be called `rows`"),
            ("[total.t]\ntable = \"bet\"\nby = [\"x_count\"]\nsums = { x = \"x\" }", "would be called `x_count`"),
            ("[total.bet]\ntable = \"bet\"\nby = [\"g\"]", "a declared table has this name"),
            ("[total.t]\ntable = \"bet\"\nby = [\"g\"]\nsums = { x = \"x); DROP TABLE y\" }", "one SQL expression"),
            ("[total.t]\ntable = \"bet\"\nby = [\"g\"]\nwhere = \"x = '$total$'\"", "contains `$total$`"),
            (
                "[total.t]\ntable = \"bet\"\nby = [\"g\"]\nboard = { split = \"h\", value = \"v\" }",
                "must be one of the columns",
            ),
            (
                "[total.t]\ntable = \"bet\"\nby = [\"g\"]\nboard = { group = \"g\", split = \"g\", value = \"rows\" }",
                "total.t.board.split: must be another column than `group`",
            ),
        ] {
            let message = errors(total);
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
    }
}
