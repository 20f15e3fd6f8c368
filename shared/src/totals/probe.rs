//! What PostgreSQL makes of a total's expressions: each must be accepted as an expression of an index, which makes it
//! immutable, without aggregates and subqueries, and over columns of its table only.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::TotalError;
use super::definition::{Definition, Group, Sum, SumKind};
use crate::apply;
use crate::config::{BucketConfig, Expression, TotalConfig};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe};

/// A probe reads the catalog and indexes an empty table.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a probe.
#[derive(Clone, PartialEq, Debug)]
pub enum Probe {
    /// The total can be built.
    Defined(Definition),
    /// Its table, or a column, does not exist yet.
    Waiting {
        /// What is missing.
        reason: String,
    },
}

/// An expression of a type that the total cannot use.
struct ProbedType {
    name: String,
    category: i8,
    is_enum: bool,
    length: i16,
}

/// Checks a total against its table, in a transaction that is rolled back.
///
/// # Errors
/// Returns an error if an expression is not suitable, with its place in the configuration, or if the connection fails.
pub async fn probe(client: &Client, total: &TotalConfig) -> Result<Probe, TotalError> {
    apply::begin(client, TIMEOUT, TIMEOUT).await?;
    let probed = probe_in_transaction(client, total).await;
    client.batch_execute("ROLLBACK").await?;
    probed
}

async fn probe_in_transaction(client: &Client, total: &TotalConfig) -> Result<Probe, TotalError> {
    client.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp").await?;
    let empty = format!("CREATE TEMPORARY TABLE {} (LIKE {})", total.table.table, total.table);
    match client.batch_execute(&empty).await {
        Ok(()) => {}
        Err(error)
            if error.code() == Some(&SqlState::UNDEFINED_TABLE)
                || error.code() == Some(&SqlState::INVALID_SCHEMA_NAME) =>
        {
            return Ok(Probe::Waiting { reason: format!("table {} does not exist yet", total.table.unquoted()) });
        }
        Err(error) => return Err(error.into()),
    }
    for (number, (expression, is_condition)) in expressions(total).into_iter().enumerate() {
        if let Some(reason) = index(client, total, number, expression, is_condition).await? {
            return Ok(Probe::Waiting { reason });
        }
    }
    reject_virtual_columns(client, total).await?;
    Ok(Probe::Defined(define(client, total).await?))
}

/// All expressions, and whether each is a condition.
fn expressions(total: &TotalConfig) -> Vec<(&Expression, bool)> {
    let groups = total.groups.iter().map(|group| (&group.expression, false));
    let bucket = total.bucket.iter().map(|bucket| (&bucket.at, false));
    let sums = total.sums.iter().map(|sum| (&sum.expression, false));
    let conditions = total.condition.iter().chain(total.sums.iter().filter_map(|sum| sum.condition.as_ref()));
    groups.chain(bucket).chain(sums).chain(conditions.map(|condition| (condition, true))).collect()
}

/// Indexes an expression; returns what is missing if a column does not exist yet.
async fn index(
    client: &Client,
    total: &TotalConfig,
    number: usize,
    expression: &Expression,
    is_condition: bool,
) -> Result<Option<String>, TotalError> {
    let table = &total.table.table;
    let statement = match is_condition {
        true => format!("CREATE INDEX millstream_probe_{number} ON pg_temp.{table} ((1)) WHERE ({})", expression.sql),
        false => format!("CREATE INDEX millstream_probe_{number} ON pg_temp.{table} (({}))", expression.sql),
    };
    // A prepared statement is exactly one statement.
    match client.execute_typed(&statement, &[]).await {
        Ok(_) => Ok(None),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => {
            Ok(Some(format!("{}: {} in table {}", expression.place, message(&error), total.table.unquoted())))
        }
        Err(error) if classify(DatabaseStep::ChangeSchema, &error) == ErrorAction::Retry => Err(error.into()),
        Err(error) => Err(TotalError::Expression { place: expression.place.clone(), reason: message(&error) }),
    }
}

/// PostgreSQL's message. It cannot contain values: the table is empty.
fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| describe(error), |database| database.message().to_owned())
}

/// Transition tables hold NULL in virtual generated columns (PostgreSQL 18): a total of them would be wrong.
async fn reject_virtual_columns(client: &Client, total: &TotalConfig) -> Result<(), TotalError> {
    let (schema, table) = (total.table.schema.as_str(), total.table.table.as_str());
    let statement = include_str!("probe/virtual_columns.sql");
    let rows = client.query_typed(statement, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    match rows.first() {
        None => Ok(()),
        Some(row) => Err(TotalError::Expression {
            place: format!("total.{}", total.name.as_str()),
            reason: format!(
                "column {} of table {} is a virtual generated column, whose values triggers do not see; make it STORED, or use \
                 its expression",
                row.get::<_, &str>(0),
                total.table.unquoted(),
            ),
        }),
    }
}

async fn define(client: &Client, total: &TotalConfig) -> Result<Definition, TotalError> {
    let bucket = total.bucket.as_ref().map(|bucket| &bucket.at);
    let groups = total.groups.iter().map(|group| &group.expression);
    let sums = total.sums.iter().map(|sum| &sum.expression);
    let types = types_of(client, total, groups.chain(bucket).chain(sums)).await?;
    let mut types = types.into_iter();
    let mut definition = Definition {
        name: total.name.as_str().to_owned(),
        table: total.table.clone(),
        groups: Vec::new(),
        bucket: None,
        condition: total.condition.as_ref().map(|condition| condition.sql.clone()),
        sums: Vec::new(),
    };
    for (group, found) in total.groups.iter().zip(types.by_ref()) {
        definition.groups.push(define_group(group.name.as_str(), &group.expression, &found)?);
    }
    if let (Some(bucket), Some(found)) = (&total.bucket, total.bucket.as_ref().and_then(|_| types.next())) {
        definition.bucket = Some(bucket.every.as_str().to_owned());
        definition.groups.push(define_bucket(bucket, &found)?);
    }
    for (sum, found) in total.sums.iter().zip(types) {
        definition.sums.push(Sum {
            name: sum.name.as_str().to_owned(),
            expression: sum.expression.sql.clone(),
            condition: sum.condition.as_ref().map(|condition| condition.sql.clone()),
            kind: sum_kind(&sum.expression, &found)?,
        });
    }
    Ok(definition)
}

/// The types of expressions, in order.
async fn types_of(
    client: &Client,
    total: &TotalConfig,
    expressions: impl Iterator<Item = &Expression>,
) -> Result<Vec<ProbedType>, TotalError> {
    let list: Vec<_> = expressions.map(|expression| format!("({})", expression.sql)).collect();
    let query = format!("SELECT {} FROM pg_temp.{}", list.join(", "), total.table.table);
    let statement = client.prepare_typed(&query, &[]).await?;
    let oids: Vec<u32> = statement.columns().iter().map(|column| column.type_().oid()).collect();
    let rows = client.query_typed(include_str!("probe/types.sql"), &[(&oids, Type::OID_ARRAY)]).await?;
    let by_oid: HashMap<u32, usize> =
        rows.iter().enumerate().map(|(index, row)| (row.get::<_, u32>("oid"), index)).collect();
    let probed = |oid: &u32| {
        let row = &rows[by_oid[oid]];
        ProbedType {
            name: row.get("name"),
            category: row.get("typcategory"),
            is_enum: row.get("is_enum"),
            length: row.get("typlen"),
        }
    };
    Ok(oids.iter().map(probed).collect())
}

fn define_group(name: &str, expression: &Expression, found: &ProbedType) -> Result<Group, TotalError> {
    const GROUPABLE: [&str; 14] = [
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "real",
        "double precision",
        "uuid",
        "date",
        "time without time zone",
        "timestamp without time zone",
        "timestamp with time zone",
        "interval",
        "oid",
    ];
    let is_text = found.category == b'S' as i8;
    if !(is_text || found.is_enum || GROUPABLE.contains(&&*found.name)) {
        let reason = format!("rows cannot be grouped by a value of type {}; cast it to text", found.name);
        return Err(TotalError::Expression { place: expression.place.clone(), reason });
    }
    Ok(Group {
        name: name.to_owned(),
        expression: expression.sql.clone(),
        sql_type: found.name.clone(),
        has_variable_length: found.length < 0,
    })
}

/// The beginning of a row's bucket. `date_trunc` of a `timestamptz` would depend on the session's time zone.
fn define_bucket(bucket: &BucketConfig, found: &ProbedType) -> Result<Group, TotalError> {
    let Expression { sql, place } = &bucket.at;
    let utc = match &*found.name {
        "timestamp with time zone" => format!("({sql}) AT TIME ZONE 'UTC'"),
        "timestamp without time zone" => format!("({sql})"),
        "date" => format!("({sql})::timestamp"),
        other => {
            let reason = format!("must be a timestamp or a date, not {other}");
            return Err(TotalError::Expression { place: place.clone(), reason });
        }
    };
    let every = bucket.every.as_str();
    Ok(Group {
        name: every.to_owned(),
        expression: format!("date_trunc('{every}', {utc}) AT TIME ZONE 'UTC'"),
        sql_type: "timestamp with time zone".to_owned(),
        has_variable_length: false,
    })
}

fn sum_kind(expression: &Expression, found: &ProbedType) -> Result<SumKind, TotalError> {
    match &*found.name {
        "smallint" | "integer" | "bigint" => Ok(SumKind::Integer),
        "numeric" => Ok(SumKind::Numeric),
        "real" | "double precision" => Ok(SumKind::Float),
        other => {
            let reason = format!("values of type {other} cannot be summed; cast them to numeric");
            Err(TotalError::Expression { place: expression.place.clone(), reason })
        }
    }
}
