//! A Debezium event with its row still raw JSON: which table it concerns, what happened to the row, and when.

use std::borrow::Cow;

use super::super::json_objects::{for_each_member, read_raw, read_string, skip_value};
use super::super::malformed;
use crate::change::Version;
use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;
use crate::timestamp::Timestamp;

/// Members of `source` that a flattened row may carry without the prefix `source_`.
const SOURCE_MEMBERS: [&str; 21] = [
    "change_lsn",
    "commit_lsn",
    "commit_scn",
    "connector",
    "db",
    "event_serial_no",
    "file",
    "gtid",
    "lsn",
    "name",
    "pos",
    "query",
    "row",
    "schema",
    "scn",
    "sequence",
    "snapshot",
    "table",
    "txId",
    "version",
    "xmin",
];

/// The members of a heartbeat.
const HEARTBEAT_MEMBERS: [&str; 3] = ["ts_ms", "ts_us", "ts_ns"];

/// What happened to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebeziumOperation {
    /// A snapshot read it.
    Read,
    /// It was inserted or updated.
    Write,
    /// It was deleted.
    Delete,
}

/// An event that contains a row.
pub struct DebeziumEvent<'a> {
    /// The schema, if there is one.
    pub schema: Option<&'a str>,
    /// What happened to the row.
    pub operation: DebeziumOperation,
    /// The row, or what is known of a deleted row.
    pub row: &'a str,
    /// Whether the row's columns and its metadata are members of the same object.
    pub flattened: bool,
    /// Whether the document is `{"schema": …, "payload": …}`.
    pub has_schema_and_payload: bool,
    source: SourceInfo<'a>,
}

/// A document without its wrapper.
pub struct UnwrappedPayload<'a> {
    /// The schema, if there is one.
    pub schema: Option<&'a str>,
    /// The payload.
    pub json: &'a str,
    /// Whether the document is `{"schema": …, "payload": …}`.
    pub has_schema_and_payload: bool,
}

/// Where and when a change was made: `source`.
#[derive(Default)]
struct SourceInfo<'a> {
    schema: Option<Cow<'a, str>>,
    db: Option<Cow<'a, str>>,
    table: Option<Cow<'a, str>>,
    lsn: Option<&'a str>,
    file: Option<Cow<'a, str>>,
    pos: Option<&'a str>,
    row: Option<&'a str>,
    change_lsn: Option<Cow<'a, str>>,
    event_serial_no: Option<&'a str>,
    ts_ms: Option<&'a str>,
    ts_us: Option<&'a str>,
    ts_ns: Option<&'a str>,
}

/// The members of a payload that are read.
#[derive(Default)]
struct EnvelopeParts<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
    source: Option<&'a str>,
    op: Option<Cow<'a, str>>,
    flat_op: Option<Cow<'a, str>>,
    flat_deleted: Option<&'a str>,
    flat: SourceInfo<'a>,
    /// When Debezium processed the event: the fallback for the time of a flattened row.
    processed: SourceInfo<'a>,
    has_flat: bool,
    is_heartbeat: bool,
    ddl: bool,
    is_transaction_boundary: bool,
}

/// Unwraps a payload from its schema, if it has one.
pub fn payload(json: &str) -> Result<UnwrappedPayload<'_>, Rejection> {
    let (mut schema, mut payload, mut others) = (None, None, false);
    let mut scanner = JsonScanner::new(json);
    for_each_member(&mut scanner, |key, scanner| match key {
        "schema" => read_raw(scanner, &mut schema),
        "payload" => read_raw(scanner, &mut payload),
        _ => {
            others = true;
            skip_value(scanner)
        }
    })?;
    scanner.expect_end()?;
    Ok(match payload {
        Some(payload) if schema.is_some() && !others => UnwrappedPayload {
            schema: schema.filter(|schema| *schema != "null"),
            json: payload,
            has_schema_and_payload: true,
        },
        Some(_) | None => UnwrappedPayload { schema: None, json, has_schema_and_payload: false },
    })
}

/// Whether a member of a flattened row is metadata, which `add.fields` can name, and not a column.
pub fn is_metadata(name: &str) -> bool {
    let event_members = ["deleted", "op", "ts_ms", "ts_us", "ts_ns"];
    name.strip_prefix("__").is_some_and(|name| {
        event_members.contains(&name)
            || SOURCE_MEMBERS.contains(&name)
            || name.starts_with("source_")
            || name.starts_with("transaction")
    })
}

impl<'a> DebeziumEvent<'a> {
    /// Reads an event; `None` if it contains no row: a tombstone, a truncation, a message, a heartbeat, a schema
    /// change, the begin or the end of a transaction.
    pub fn read(json: &'a str) -> Result<Option<Self>, Rejection> {
        if json.trim_ascii() == "null" {
            return Ok(None);
        }
        let UnwrappedPayload { schema, json, has_schema_and_payload } = payload(json)?;
        if json == "null" {
            return Ok(None);
        }
        let parts = EnvelopeParts::read(json)?;
        match (&parts.op, parts.source) {
            (Some(op), Some(source)) => {
                let operation = match &**op {
                    "c" | "u" => DebeziumOperation::Write,
                    "r" => DebeziumOperation::Read,
                    "d" => DebeziumOperation::Delete,
                    "t" | "m" => return Ok(None),
                    other => return Err(unknown_value("op", other)),
                };
                let row = match operation {
                    DebeziumOperation::Read | DebeziumOperation::Write => {
                        parts.after.ok_or_else(|| malformed("`after` is missing"))
                    }
                    DebeziumOperation::Delete => parts.before.ok_or_else(|| {
                        malformed("`before` is missing; the table needs a primary key or REPLICA IDENTITY FULL")
                    }),
                }?;
                let source = SourceInfo::read(source)?;
                Ok(Some(Self { schema, operation, row, flattened: false, has_schema_and_payload, source }))
            }
            (None, _) if parts.has_flat => {
                let operation = parts.flat_operation()?;
                let (row, source) = (json, parts.flat);
                Ok(Some(Self { schema, operation, row, flattened: true, has_schema_and_payload, source }))
            }
            (None, _)
                if parts.is_heartbeat || parts.is_transaction_boundary || (parts.ddl && parts.source.is_some()) =>
            {
                Ok(None)
            }
            (None, _) => Err(malformed("event has neither `op` nor, flattened, `__op` or `__deleted`")),
            (Some(_), None) => Err(malformed("`source` is missing")),
        }
    }

    /// `schema.table`; for MySQL, which has no schemas, `database.table`.
    pub fn table_name(&self) -> Result<String, Rejection> {
        let is_non_empty = |name: &&str| !name.is_empty();
        let table = self.source.table.as_deref().filter(is_non_empty).ok_or_else(|| match self.flattened {
            false => malformed("`source.table` is missing"),
            true => malformed("`__table` is missing from the flattened row; set add.fields to op,table,schema,lsn"),
        })?;
        let schema =
            self.source.schema.as_deref().filter(is_non_empty).or(self.source.db.as_deref().filter(is_non_empty));
        Ok(schema.map_or_else(|| table.to_owned(), |schema| format!("{schema}.{table}")))
    }

    /// When the change was made, rounded down to microseconds; `None` if the event does not say.
    pub fn event_time(&self) -> Option<Timestamp> {
        let micros = self.source.event_time_nanos()?.div_euclid(1_000);
        i64::try_from(micros).ok().map(Timestamp)
    }

    /// The position in the source's log. In PostgreSQL every row change has its own, even a delete and an insert of one
    /// key in one transaction, and a row that a snapshot read at a position is older than the change at that position.
    /// In other databases, snapshot rows are older than all changes. Without a log position, the order is by time.
    pub fn version(&self, digest: u64) -> Result<Version, Rejection> {
        let is_read = self.operation == DebeziumOperation::Read;
        let position = self.source.log_position()?;
        if let Some(position) = position
            && (!is_read || self.source.lsn.is_some())
        {
            return Ok(Version { origin: Version::STREAM, order: position << 2 | i128::from(!is_read), digest });
        }
        let order = position.or_else(|| self.source.event_time_nanos()).ok_or_else(|| match self.flattened {
            false => malformed("`source` has no ordering field (`lsn`, `pos`, `change_lsn` or `ts_ms`)"),
            true => malformed("the flattened row has no ordering field; set add.fields to op,table,schema,lsn"),
        })?;
        let origin = if is_read { Version::SNAPSHOT } else { Version::STREAM };
        Ok(Version { origin, order: order << 2 | i128::from(!is_read), digest })
    }
}

impl<'a> EnvelopeParts<'a> {
    fn read(json: &'a str) -> Result<Self, Rejection> {
        let mut parts = Self { is_heartbeat: true, ..Self::default() };
        let (mut status, mut has_event_count) = (None, false);
        for_each_member(&mut JsonScanner::new(json), |key, scanner| {
            parts.is_heartbeat &= HEARTBEAT_MEMBERS.contains(&key);
            match key {
                "before" => read_raw(scanner, &mut parts.before),
                "after" => read_raw(scanner, &mut parts.after),
                "source" => read_raw(scanner, &mut parts.source),
                "op" => read_string(scanner, &mut parts.op),
                "status" => read_string(scanner, &mut status),
                "__op" => read_string(scanner, &mut parts.flat_op),
                "__deleted" => read_raw(scanner, &mut parts.flat_deleted),
                _ => {
                    has_event_count |= key == "event_count";
                    parts.ddl |= key == "tableChanges";
                    let (of_source, of_event) = (key.strip_prefix("__source_"), key.strip_prefix("__"));
                    match (of_source.or(of_event), of_event.is_some_and(|name| HEARTBEAT_MEMBERS.contains(&name))) {
                        (Some(name), false) => parts.flat.read_member(name, scanner),
                        (Some(name), true) => parts.processed.read_member(name, scanner),
                        (None, _) => skip_value(scanner),
                    }
                }
            }
        })?;
        let is_object = |json: &&str| json.starts_with('{');
        // A flattened row may have columns of any name, `op` and `source` among them.
        parts.has_flat = parts.flat_op.is_some() || parts.flat_deleted.is_some();
        parts.source = parts.source.filter(is_object);
        parts.op = parts.op.filter(|_| !parts.has_flat);
        parts.before = parts.before.filter(is_object);
        parts.after = parts.after.filter(is_object);
        if parts.flat.event_time_nanos().is_none() {
            let SourceInfo { ts_ms, ts_us, ts_ns, .. } = parts.processed;
            (parts.flat.ts_ms, parts.flat.ts_us, parts.flat.ts_ns) = (ts_ms, ts_us, ts_ns);
        }
        parts.is_transaction_boundary = has_event_count && matches!(status.as_deref(), Some("BEGIN" | "END"));
        parts.is_heartbeat &= json.trim_ascii_end().len() > 2;
        Ok(parts)
    }

    fn flat_operation(&self) -> Result<DebeziumOperation, Rejection> {
        if self.flat_deleted.is_some_and(|deleted| deleted.trim_matches('"') == "true") {
            return Ok(DebeziumOperation::Delete);
        }
        match self.flat_op.as_deref() {
            None | Some("c" | "u") => Ok(DebeziumOperation::Write),
            Some("r") => Ok(DebeziumOperation::Read),
            Some("d") => Ok(DebeziumOperation::Delete),
            Some(other) => Err(unknown_value("__op", other)),
        }
    }
}

impl<'a> SourceInfo<'a> {
    fn read(json: &'a str) -> Result<Self, Rejection> {
        let mut source = Self::default();
        for_each_member(&mut JsonScanner::new(json), |key, scanner| source.read_member(key, scanner))?;
        Ok(source)
    }

    fn read_member(&mut self, key: &str, scanner: &mut JsonScanner<'a>) -> Result<(), Rejection> {
        match key {
            "schema" => read_string(scanner, &mut self.schema),
            "db" => read_string(scanner, &mut self.db),
            "table" => read_string(scanner, &mut self.table),
            "file" => read_string(scanner, &mut self.file),
            "change_lsn" => read_string(scanner, &mut self.change_lsn),
            "lsn" => number(scanner, &mut self.lsn),
            "pos" => number(scanner, &mut self.pos),
            "row" => number(scanner, &mut self.row),
            "event_serial_no" => number(scanner, &mut self.event_serial_no),
            "ts_ms" => number(scanner, &mut self.ts_ms),
            "ts_us" => number(scanner, &mut self.ts_us),
            "ts_ns" => number(scanner, &mut self.ts_ns),
            _ => skip_value(scanner),
        }
    }

    /// The position in the log of PostgreSQL, SQL Server or MySQL, as one number.
    fn log_position(&self) -> Result<Option<i128>, Rejection> {
        let position = match (self.lsn, &self.change_lsn, &self.file) {
            (Some(lsn), _, _) => lsn.parse().ok().map(|lsn: u64| i128::from(lsn)),
            (None, Some(change_lsn), _) => self.sql_server_position(change_lsn),
            (None, None, Some(file)) => self.mysql_position(file),
            (None, None, None) => return Ok(None),
        };
        position.map(Some).ok_or_else(|| malformed("invalid log position in `source`"))
    }

    /// `00000027:00000758:0005`, three hexadecimal numbers that ascend along the log, followed by the event's serial
    /// number. A row is locked until its change is committed, so this is also the order of its changes.
    fn sql_server_position(&self, change_lsn: &str) -> Option<i128> {
        let mut parts = change_lsn.split(':');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            u32::from_str_radix(part, 16).ok().map(i128::from)
        };
        let (file, block, slot) = (part(8)?, part(8)?, part(4)?);
        let serial: u32 = self.event_serial_no.map_or(Some(0), |serial| serial.parse().ok())?;
        Some((file << 48 | block << 16 | slot) << 32 | i128::from(serial)).filter(|_| parts.next().is_none())
    }

    /// The number at the end of the log file's name, the position in the file, and the row's position in its event.
    fn mysql_position(&self, file: &str) -> Option<i128> {
        let number: u32 = file.rsplit('.').next()?.parse().ok().filter(|number| *number < 1 << 28)?;
        let pos: u64 = self.pos?.parse().ok()?;
        let row: u32 = self.row.map_or(Some(0), |row| row.parse().ok())?;
        Some((i128::from(number) << 64 | i128::from(pos)) << 32 | i128::from(row))
    }

    /// The time of the change in nanoseconds, from the finest unit that the event has.
    fn event_time_nanos(&self) -> Option<i128> {
        let scaled = |text: Option<&str>, unit: i128| text?.parse::<i64>().ok().map(|units| i128::from(units) * unit);
        scaled(self.ts_ns, 1).or_else(|| scaled(self.ts_us, 1_000)).or_else(|| scaled(self.ts_ms, 1_000_000))
    }
}

/// Reads a number, which may be written as a text; `None` for a null.
fn number<'a>(scanner: &mut JsonScanner<'a>, into: &mut Option<&'a str>) -> Result<(), Rejection> {
    *into = Some(scanner.skip_value()?.trim_matches('"')).filter(|text| *text != "null");
    Ok(())
}

fn unknown_value(member: &str, value: &str) -> Rejection {
    malformed(format!("unknown `{member}` {:?}", value.chars().take(20).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(op: &str, source: &str) -> Result<Version, Rejection> {
        let json =
            format!(r#"{{"before":{{"id":1}},"after":{{"id":1}},"source":{{"table":"t",{source}}},"op":"{op}"}}"#);
        DebeziumEvent::read(&json)?.ok_or_else(|| malformed("no row"))?.version(0)
    }

    #[test]
    fn versions_order_as_the_sources_log() {
        for (older, newer) in [
            (("r", r#""lsn":24023128"#), ("c", r#""lsn":24023128"#)),
            (("c", r#""lsn":24023128"#), ("r", r#""lsn":24023129,"snapshot":"incremental""#)),
            (("u", r#""lsn":99"#), ("d", r#""lsn":"18446744073709551615""#)),
            (("r", r#""file":"b.000009","pos":9"#), ("c", r#""file":"b.000001","pos":1"#)),
            (("c", r#""file":"b.000009","pos":99"#), ("u", r#""file":"b.000010","pos":4"#)),
            (("c", r#""file":"b.000009","pos":99,"row":0"#), ("u", r#""file":"b.000009","pos":99,"row":1"#)),
            (
                ("c", r#""change_lsn":"00000027:00000758:0005","event_serial_no":1"#),
                ("u", r#""change_lsn":"00000027:00000758:0005","event_serial_no":2"#),
            ),
            (("c", r#""change_lsn":"00000027:ffffffff:ffff""#), ("u", r#""change_lsn":"00000028:00000000:0000""#)),
            (("c", r#""ts_ms":1770593460000"#), ("u", r#""ts_ms":1770593460000,"ts_us":1770593460000001"#)),
            (("r", r#""ts_ms":1770593460001"#), ("c", r#""ts_ms":1770593460000"#)),
        ] {
            let (older, newer) = (version(older.0, older.1).unwrap(), version(newer.0, newer.1).unwrap());
            assert!(older < newer, "{older:?} {newer:?}");
        }
    }

    #[test]
    fn positions_that_cannot_be_read_are_rejected() {
        for source in [
            r#""lsn":-1"#,
            r#""lsn":{}"#,
            r#""file":"b","pos":1"#,
            r#""file":"b.1""#,
            r#""change_lsn":"0:1:2""#,
            r#""change_lsn":"00000027:00000758:0005:1""#,
            r#""txId":5"#,
        ] {
            assert!(version("u", source).is_err(), "{source}");
        }
    }

    #[test]
    fn events_without_a_row_are_distinguished_from_what_is_not_an_event() {
        for json in [
            "null",
            r#"{"schema":null,"payload":null}"#,
            r#"{"op":"t","source":{}}"#,
            r#"{"op":"m","source":{},"message":{}}"#,
            r#"{"ts_ms":1}"#,
            r#"{"status":"BEGIN","id":"5","event_count":null,"ts_ms":1}"#,
            r#"{"source":{},"ddl":"CREATE TABLE t ()","tableChanges":[]}"#,
        ] {
            assert!(matches!(DebeziumEvent::read(json), Ok(None)), "{json}");
        }
        for json in [
            "{}",
            "[]",
            "7",
            r#"{"id":1}"#,
            r#"{"op":"x","source":{}}"#,
            r#"{"op":"c","source":{}}"#,
            r#"{"op":"c","source":{},"after":[1]}"#,
            r#"{"op":"d","source":{},"before":null}"#,
            r#"{"op":"c","after":{"id":1}}"#,
            r#"{"op":5,"source":{},"after":{"id":1}}"#,
            r#"{"id":1,"__op":"x"}"#,
        ] {
            assert!(DebeziumEvent::read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn flattened_rows_name_table_and_order_or_are_rejected() {
        let event = |json| DebeziumEvent::read(json).unwrap().unwrap();
        assert!(
            is_metadata("__source_ts_ms") && is_metadata("__lsn") && !is_metadata("__column") && !is_metadata("op")
        );
        let flattened =
            event(r#"{"id":1,"op":"x","__op":"u","__table":"t","__schema":"s","__lsn":7,"__deleted":"false"}"#);
        assert_eq!((flattened.table_name().unwrap().as_str(), flattened.operation), ("s.t", DebeziumOperation::Write));
        assert_eq!(flattened.version(0).unwrap().order, 7 << 2 | 1);
        assert_eq!(event(r#"{"id":1,"__deleted":"true","__source_ts_ms":5}"#).operation, DebeziumOperation::Delete);
        let times = event(r#"{"id":1,"__op":"c","__ts_us":9000,"__source_ts_ms":5,"__ts_ms":9}"#);
        assert_eq!(times.event_time(), Some(Timestamp(5_000)));
        assert!(event(r#"{"id":1,"__op":"c"}"#).table_name().is_err());
        assert!(event(r#"{"id":1,"__op":"c","__table":"t"}"#).version(0).is_err());
    }
}
