//! The logical types of Debezium's columns, from the schema in the event:
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types>.
//!
//! A date becomes a `date`, a date with a time a `timestamptz` (one without a zone is taken as UTC), a time of day a
//! text. Without a schema, a value has the type of its JSON.

use std::borrow::Cow;
use std::fmt;

use base64_simd::STANDARD;

use super::super::json_objects::{for_each_member, read_raw, read_string, skip_value};
use super::super::replica::read_column;
use crate::change::Value;
use crate::decimal::{Decimal, from_twos_complement};
use crate::field::{FieldId, FieldTree};
use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;
use crate::timestamp::{Timestamp, date_to_postgres};

const NANOS_PER_DAY: i64 = 86_400 * 1_000_000_000;

/// The logical type of a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogicalType {
    /// The type of the JSON; holds the PostgreSQL type for a key column.
    Untyped(Option<&'static str>),
    /// Base64 of a binary number, with the scale from the schema.
    Decimal {
        /// Digits after the point; `None` if the schema has none.
        scale: Option<i64>,
    },
    /// `{"scale": …, "value": …}`
    VariableDecimal,
    /// Days since 1970.
    Date,
    /// A timestamp, in units of `nanos` nanoseconds since 1970.
    Timestamp {
        /// Nanoseconds per unit.
        nanos: i64,
    },
    /// A timestamp in ISO 8601.
    ZonedTimestamp,
    /// A time of day, in units of `nanos` nanoseconds.
    Time {
        /// Nanoseconds per unit.
        nanos: i64,
    },
    /// JSON in a text.
    Json,
    /// Base64.
    Bytes,
}

/// What is expected, for the message about an invalid value.
impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untyped(_) => "a value",
            Self::Decimal { .. } | Self::VariableDecimal => "a decimal number with a scale from 0 to 16383",
            Self::Date => "a date within PostgreSQL's range",
            Self::Timestamp { .. } | Self::ZonedTimestamp => {
                "a timestamp with microsecond precision within PostgreSQL's range"
            }
            Self::Time { .. } => "a time of day",
            Self::Json => "JSON",
            Self::Bytes => "base64",
        })
    }
}

/// The logical types of a table's columns.
#[derive(Default, Debug)]
pub struct ColumnTypes(Vec<(String, LogicalType)>);

/// A field of a schema.
#[derive(Default)]
struct SchemaField<'a> {
    kind: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    field: Option<Cow<'a, str>>,
    scale: Option<Cow<'a, str>>,
    fields: Option<&'a str>,
}

impl ColumnTypes {
    /// Reads the schema of an envelope, or of a row.
    pub fn read(schema: &str) -> Result<Self, Rejection> {
        let Some(fields) = SchemaField::read(&mut JsonScanner::new(schema))?.fields else { return Ok(Self::default()) };
        let top_level = schema_fields(fields)?;
        let is_image = |field: &&SchemaField<'_>| matches!(field.field.as_deref(), Some("before" | "after"));
        let is_envelope = top_level.iter().any(|field| field.field.as_deref() == Some("op"));
        let row = top_level.iter().filter(is_image).find_map(|field| field.fields).filter(|_| is_envelope);
        let columns = row.map_or(Ok(top_level), schema_fields)?;
        let typed = |field: &SchemaField<'_>| Some((field.field.as_deref()?.to_owned(), field.logical_type()));
        Ok(Self(columns.iter().filter_map(typed).collect()))
    }

    /// The logical type of a column.
    pub fn logical_type(&self, column: &str) -> &LogicalType {
        self.0
            .iter()
            .find(|(name, _)| name == column)
            .map_or(&LogicalType::Untyped(None), |(_, logical_type)| logical_type)
    }

    /// The type of a column that is part of a key.
    pub fn sql_type(&self, column: &str) -> Option<&'static str> {
        match self.logical_type(column) {
            LogicalType::Untyped(sql_type) => *sql_type,
            LogicalType::Decimal { .. } | LogicalType::VariableDecimal => Some("numeric"),
            LogicalType::Date => Some("date"),
            LogicalType::Timestamp { .. } | LogicalType::ZonedTimestamp => Some("timestamptz"),
            LogicalType::Time { .. } => Some("text"),
            LogicalType::Json => Some("jsonb"),
            LogicalType::Bytes => Some("bytea"),
        }
    }
}

fn schema_fields(fields: &str) -> Result<Vec<SchemaField<'_>>, Rejection> {
    let mut schema_fields = Vec::new();
    JsonScanner::new(fields).each_element(|scanner| {
        schema_fields.push(SchemaField::read(scanner)?);
        Ok::<(), Rejection>(())
    })?;
    Ok(schema_fields)
}

impl<'a> SchemaField<'a> {
    fn read(scanner: &mut JsonScanner<'a>) -> Result<Self, Rejection> {
        let mut schema_field = Self::default();
        for_each_member(scanner, |key, scanner| match key {
            "type" => read_string(scanner, &mut schema_field.kind),
            "name" => read_string(scanner, &mut schema_field.name),
            "field" => read_string(scanner, &mut schema_field.field),
            "fields" => read_raw(scanner, &mut schema_field.fields),
            "parameters" if scanner.peek() == Some(b'{') => for_each_member(scanner, |key, scanner| match key {
                "scale" => read_string(scanner, &mut schema_field.scale),
                _ => skip_value(scanner),
            }),
            _ => skip_value(scanner),
        })?;
        Ok(schema_field)
    }

    fn logical_type(&self) -> LogicalType {
        match self.name.as_deref() {
            Some("org.apache.kafka.connect.data.Decimal") => {
                LogicalType::Decimal { scale: self.scale.as_deref().and_then(|scale| scale.parse().ok()) }
            }
            Some("io.debezium.data.VariableScaleDecimal") => LogicalType::VariableDecimal,
            Some("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date") => LogicalType::Date,
            Some("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp") => {
                LogicalType::Timestamp { nanos: 1_000_000 }
            }
            Some("io.debezium.time.MicroTimestamp") => LogicalType::Timestamp { nanos: 1_000 },
            Some("io.debezium.time.NanoTimestamp") => LogicalType::Timestamp { nanos: 1 },
            Some("io.debezium.time.ZonedTimestamp") => LogicalType::ZonedTimestamp,
            Some("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time") => {
                LogicalType::Time { nanos: 1_000_000 }
            }
            Some("io.debezium.time.MicroTime") => LogicalType::Time { nanos: 1_000 },
            Some("io.debezium.time.NanoTime") => LogicalType::Time { nanos: 1 },
            Some("io.debezium.data.Json") => LogicalType::Json,
            // Uuid, Enum, ZonedTime, Xml and the like are texts; an unknown type has the type of its JSON.
            Some(_) | None => self.primitive_type(),
        }
    }

    fn primitive_type(&self) -> LogicalType {
        match self.kind.as_deref() {
            Some("bytes") => LogicalType::Bytes,
            Some("int8" | "int16") => LogicalType::Untyped(Some("smallint")),
            Some("int32") => LogicalType::Untyped(Some("integer")),
            Some("int64") => LogicalType::Untyped(Some("bigint")),
            Some("float" | "float32" | "double" | "float64") => LogicalType::Untyped(Some("numeric")),
            Some("boolean") => LogicalType::Untyped(Some("boolean")),
            Some("string") => LogicalType::Untyped(Some("text")),
            Some(_) | None => LogicalType::Untyped(None),
        }
    }
}

impl LogicalType {
    /// The value of a column; `None` if it is not valid for the type.
    pub fn value<'a>(
        &self,
        fields: &mut FieldTree,
        field: FieldId,
        json: &'a str,
    ) -> Result<Option<Value<'a>>, Rejection> {
        Ok(match (self, read_column(fields, field, json)?) {
            (_, Value::Null) => Some(Value::Null),
            (Self::Untyped(_), value) => Some(value),
            // A converter may be configured to write numbers (`decimal.format=NUMERIC`).
            (Self::Decimal { .. } | Self::VariableDecimal, Value::Number(number)) => Some(Value::Number(number)),
            // What may be no number (NaN) is a text, and so is what a private number's hash became.
            (Self::Decimal { scale }, Value::Text(text)) => scale.and_then(|scale| decimal(&text, scale)),
            (Self::VariableDecimal, Value::Json(json)) => variable_decimal(&json)?,
            (Self::Date, Value::Number(days)) => integer(&days)
                .and_then(|days| i32::try_from(days).ok())
                .filter(|days| date_to_postgres(*days).is_some())
                .map(Value::Date),
            (Self::Timestamp { nanos }, Value::Number(units)) => timestamp(&units, *nanos).map(Value::Time),
            (Self::ZonedTimestamp, Value::Text(text)) => Timestamp::parse(&text).map(Value::Time),
            (Self::Time { nanos }, Value::Number(units)) => {
                integer(&units).and_then(|units| time(units, *nanos)).map(|time| Value::Text(Cow::Owned(time)))
            }
            (Self::Json, Value::Text(text)) => is_json(&text).then_some(Value::Json(text)),
            (Self::Bytes, Value::Text(text)) => {
                STANDARD.decode_to_vec(&*text).ok().map(|bytes| Value::Bytes(Cow::Owned(bytes)))
            }
            (
                Self::Decimal { .. }
                | Self::VariableDecimal
                | Self::Date
                | Self::Timestamp { .. }
                | Self::ZonedTimestamp
                | Self::Time { .. }
                | Self::Json
                | Self::Bytes,
                _,
            ) => None,
        })
    }
}

fn integer(text: &str) -> Option<i64> {
    Decimal::parse(text)?.to_integer().and_then(|whole| i64::try_from(whole).ok())
}

fn decimal(text: &str, scale: i64) -> Option<Value<'static>> {
    from_twos_complement(&STANDARD.decode_to_vec(text).ok()?, scale).map(|number| Value::Number(Cow::Owned(number)))
}

fn variable_decimal(json: &str) -> Result<Option<Value<'static>>, Rejection> {
    if !json.starts_with('{') {
        return Ok(None);
    }
    let (mut scale, mut unscaled) = (None, None);
    for_each_member(&mut JsonScanner::new(json), |key, scanner| match key {
        "scale" => read_raw(scanner, &mut scale),
        "value" => read_string(scanner, &mut unscaled),
        _ => skip_value(scanner),
    })?;
    Ok(scale.and_then(integer).zip(unscaled).and_then(|(scale, unscaled)| decimal(&unscaled, scale)))
}

/// A timestamp within PostgreSQL's range, if it is in whole microseconds.
fn timestamp(units: &str, nanos: i64) -> Option<Timestamp> {
    let nanos = i128::from(integer(units)?) * i128::from(nanos);
    let micros = (nanos % 1_000 == 0).then(|| i64::try_from(nanos / 1_000).ok())?.map(Timestamp)?;
    // Adding zero clamps a timestamp that is out of range.
    Some(micros).filter(|timestamp| timestamp.saturating_add(0) == *timestamp)
}

/// `10:00:00.000001`, with as many digits after the point as needed; PostgreSQL's day ends at 24:00:00.
fn time(units: i64, nanos: i64) -> Option<String> {
    let nanos = units.checked_mul(nanos).filter(|nanos| (0..=NANOS_PER_DAY).contains(nanos))?;
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{fraction:09}");
    let digits = fraction.trim_end_matches('0');
    Some(if digits.is_empty() { clock } else { format!("{clock}.{digits}") })
}

fn is_json(text: &str) -> bool {
    let mut scanner = JsonScanner::new(text);
    scanner.skip_value().is_ok() && scanner.expect_end().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Naming;

    fn read(field: &str, json: &str) -> String {
        let schema = format!(
            r#"{{"type":"struct","fields":[{{"field":"before","type":"struct","fields":[{{"field":"x",{field}}}]}},{{"field":"op","type":"string"}}]}}"#
        );
        let types = ColumnTypes::read(&schema).unwrap();
        let mut fields = FieldTree::new(Naming::Snake);
        let value = types.logical_type("x").value(&mut fields, FieldId::ROOT, json).unwrap();
        value.map_or_else(|| "refused".to_owned(), |value| format!("{value:?}"))
    }

    #[test]
    fn values_are_what_the_schema_says() {
        let decimal = r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}"#;
        for (field, json, value) in [
            (decimal, r#""AOfY""#, r#"Number("593.52")"#),
            (decimal, r#""/w==""#, r#"Number("-0.01")"#),
            (decimal, "12.5", r#"Number("12.5")"#),
            (decimal, r#""no base64""#, "refused"),
            (decimal, "true", "refused"),
            (decimal, "null", "Null"),
            (r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal""#, r#""AQ==""#, "refused"),
            (
                r#""name":"io.debezium.data.VariableScaleDecimal""#,
                r#"{"scale":3,"value":"BNI="}"#,
                r#"Number("1.234")"#,
            ),
            (r#""name":"io.debezium.data.VariableScaleDecimal""#, r#"{"scale":-3,"value":"BNI="}"#, "refused"),
            (r#""name":"io.debezium.data.VariableScaleDecimal""#, r#"{"scale":99999999999,"value":"BNI="}"#, "refused"),
            (r#""name":"io.debezium.data.VariableScaleDecimal""#, r#"{"value":"BNI="}"#, "refused"),
            (r#""name":"io.debezium.data.VariableScaleDecimal""#, "[1]", "refused"),
            (r#""name":"io.debezium.time.Date""#, "20492", "Date(20492)"),
            (r#""name":"io.debezium.time.Date""#, "2147483647", "refused"),
            (r#""name":"io.debezium.time.Timestamp""#, "1770593460123", "Time(Timestamp(1770593460123000))"),
            (r#""name":"io.debezium.time.MicroTimestamp""#, "-1", "Time(Timestamp(-1))"),
            (r#""name":"io.debezium.time.MicroTimestamp""#, "9223372036832400000", "refused"),
            (r#""name":"io.debezium.time.NanoTimestamp""#, "1000", "Time(Timestamp(1))"),
            (r#""name":"io.debezium.time.NanoTimestamp""#, "1001", "refused"),
            (
                r#""name":"io.debezium.time.ZonedTimestamp""#,
                r#""1970-01-01T01:00:00.5+01:00""#,
                "Time(Timestamp(500000))",
            ),
            (r#""name":"io.debezium.time.ZonedTimestamp""#, r#""infinity""#, "refused"),
            (r#""name":"io.debezium.time.Time""#, "36000001", r#"Text("10:00:00.001")"#),
            (r#""name":"io.debezium.time.MicroTime""#, "86400000000", r#"Text("24:00:00")"#),
            (r#""name":"io.debezium.time.NanoTime""#, "-1", "refused"),
            (r#""name":"io.debezium.time.NanoTime""#, "9223372036854775807", "refused"),
            (r#""name":"io.debezium.data.Json""#, r#""{\"a\":1}""#, r#"Json("{\"a\":1}")"#),
            (r#""name":"io.debezium.data.Json""#, r#""{\"a\":1""#, "refused"),
            (r#""type":"bytes""#, r#""AP8=""#, "Bytes([0, 255])"),
            (r#""type":"bytes""#, "1", "refused"),
            (r#""type":"string","name":"io.debezium.data.Uuid""#, r#""a-b""#, r#"Text("a-b")"#),
            (r#""type":"array","items":{"type":"int32"}"#, "[1,2]", r#"Json("[1,2]")"#),
            (r#""type":"int64""#, "9223372036854775807", r#"Number("9223372036854775807")"#),
        ] {
            assert_eq!(read(field, json), value, "{field} {json}");
        }
    }

    #[test]
    fn a_row_without_an_envelope_has_its_own_schema() {
        let schema = r#"{"type":"struct","fields":[{"field":"after","type":"int64"},{"field":"day","type":"int32","name":"io.debezium.time.Date"}]}"#;
        let types = ColumnTypes::read(schema).unwrap();
        let sql_types = (types.sql_type("after"), types.sql_type("day"), types.sql_type("other"));
        assert_eq!(sql_types, (Some("bigint"), Some("date"), None));
        for schema in ["7", "[]", r#"{"fields":7}"#, r#"{"fields":[7]}"#] {
            assert!(ColumnTypes::read(schema).is_err(), "{schema}");
        }
    }
}
