//! What sources did, from `millstream.minute`, and events, from `millstream.event`.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::config::Config;
use crate::timestamp::Timestamp;

/// Minutes of history that charts show.
pub const MINUTES: usize = 60;

/// So many examples of rejections, and of other events, are shown.
const EVENTS_MAX: i64 = 20;

/// What a source did in the last hour.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceActivity {
    /// Its name.
    pub name: String,
    /// The last commit of its writers; `None` if none is recorded.
    pub last_commit: Option<Timestamp>,
    /// Of the 60 minutes before the last commit, those with a record: how busy it usually is.
    pub busy_minutes: i64,
    /// The last 60 complete minutes and the current one, oldest first; `None` where nothing was recorded.
    pub minutes: Vec<Option<MinuteActivity>>,
}

/// What a source did in a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinuteActivity {
    /// Records.
    pub records: i64,
    /// Rows written.
    pub rows: i64,
    /// Rejected records.
    pub rejected: i64,
    /// The largest lag of a batch.
    pub lag_micros: Option<i64>,
}

impl SourceActivity {
    /// Records a second in the last complete minute.
    pub fn records_per_second(&self) -> f64 {
        let complete = self.minutes.len().checked_sub(2).and_then(|index| self.minutes[index]);
        complete.map_or(0.0, |minute| minute.records as f64 / 60.0)
    }

    /// The largest lag of the last complete minute and the current one.
    pub fn lag_micros(&self) -> Option<i64> {
        self.minutes.iter().rev().take(2).flatten().filter_map(|minute| minute.lag_micros).max()
    }
}

/// What was rejected within a day.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct RejectionSummary {
    /// Rejected records by class.
    pub counts: BTreeMap<String, i64>,
    /// The newest rejections, one for each class and table.
    pub newest: Vec<RejectionExample>,
}

/// A rejection.
#[derive(Clone, PartialEq, Debug)]
pub struct RejectionExample {
    /// Its class.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The source.
    pub source: Option<String>,
    /// The table, if one rejected the record.
    pub relation: Option<String>,
    /// The message.
    pub detail: String,
    /// The position in the stream.
    pub position: Option<String>,
}

/// A schema change, a drop or a recompute.
#[derive(Clone, PartialEq, Debug)]
pub struct ChangeEvent {
    /// When.
    pub at: Timestamp,
    /// What it is, as in the table.
    pub kind: String,
    /// The table or the total.
    pub relation: Option<String>,
    /// The statement, or what happened.
    pub detail: String,
}

/// The names of the sources.
fn source_names(config: &Config) -> Vec<&str> {
    config.sources.iter().map(|source| source.name.as_str()).collect()
}

/// Reads what each source did.
pub async fn read_sources(client: &Client, config: &Config) -> Result<Vec<SourceActivity>, Error> {
    let names = source_names(config);
    let rows = client.query_typed(include_str!("commits.sql"), &[(&names, Type::TEXT_ARRAY)]).await?;
    let mut sources: Vec<SourceActivity> = rows.iter().map(source_without_minutes).collect();
    for row in client.query_typed(include_str!("minutes.sql"), &[(&names, Type::TEXT_ARRAY)]).await? {
        let (name, minutes_ago): (&str, i64) = (row.get("source"), row.get("minutes_ago"));
        let index = usize::try_from(minutes_ago).ok().and_then(|ago| MINUTES.checked_sub(ago));
        let source = sources.iter_mut().find(|source| source.name == name);
        if let Some((source, index)) = source.zip(index) {
            source.minutes[index] = Some(MinuteActivity {
                records: row.get("records"),
                rows: row.get("rows"),
                rejected: row.get("rejected"),
                lag_micros: row.get("lag_micros"),
            });
        }
    }
    Ok(sources)
}

fn source_without_minutes(row: &Row) -> SourceActivity {
    SourceActivity {
        name: row.get("source"),
        last_commit: row.get::<_, Option<i64>>("last_commit").map(Timestamp),
        busy_minutes: row.get("busy_minutes"),
        minutes: vec![None; MINUTES + 1],
    }
}

/// Reads what was rejected.
pub async fn read_rejections(client: &Client, config: &Config) -> Result<RejectionSummary, Error> {
    let names = source_names(config);
    let counts = client.query_typed(include_str!("rejections.sql"), &[(&names, Type::TEXT_ARRAY)]).await?;
    let counts = counts.iter().map(|row| (row.get("reason"), row.get("records"))).collect();
    let rows = client.query_typed(include_str!("rejection_examples.sql"), &[(&EVENTS_MAX, Type::INT8)]).await?;
    let example = |row: &Row| RejectionExample {
        reason: row.get("reason"),
        at: Timestamp(row.get("at")),
        source: row.get("source"),
        relation: row.get("relation"),
        detail: row.get("detail"),
        position: row.get("position"),
    };
    Ok(RejectionSummary { counts, newest: rows.iter().map(example).collect() })
}

/// Reads the latest events that are not rejections.
pub async fn read_changes(client: &Client) -> Result<Vec<ChangeEvent>, Error> {
    let rows = client.query_typed(include_str!("changes.sql"), &[(&EVENTS_MAX, Type::INT8)]).await?;
    let change = |row: &Row| ChangeEvent {
        at: Timestamp(row.get("at")),
        kind: row.get("kind"),
        relation: row.get("relation"),
        detail: row.get("detail"),
    };
    Ok(rows.iter().map(change).collect())
}
