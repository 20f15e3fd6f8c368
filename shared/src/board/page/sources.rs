//! The sources: state, lag, last commit, rates, and the rows of their tables.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{BoardSection, SectionWidth, View, chart, text};
use crate::board::snapshot::activity::{MinuteActivity, SourceActivity};
use crate::config::SourceConfig;
use crate::timestamp::Timestamp;

/// A source lags if its records are older than this when they are committed: the limit of the alarm on a stream's age.
const LAG_MICROS_MAX: i64 = 60_000_000;
/// A busy source that has been silent for longer is late.
const SILENCE_MICROS_MAX: i64 = 5 * 60_000_000;
/// A source is busy if it had records in this many of the 60 minutes before its last commit.
const BUSY_MINUTES_MIN: i64 = 30;

/// The state of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// No commit is recorded.
    Never,
    /// It commits, and its records are fresh.
    Fresh,
    /// It commits, and its records are old.
    Lagging {
        /// Their age.
        lag_micros: i64,
    },
    /// It is busy at other times, and has not committed for a while.
    Late {
        /// For how long.
        silent_micros: i64,
    },
    /// It has not committed for a while, which is usual for it.
    Idle {
        /// For how long.
        silent_micros: i64,
    },
}

impl SourceState {
    /// The state of a source at a time.
    pub fn new(source: &SourceActivity, now: Timestamp) -> Self {
        let Some(last_commit) = source.last_commit else { return Self::Never };
        let silent_micros = now.0.saturating_sub(last_commit.0).max(0);
        if silent_micros > SILENCE_MICROS_MAX {
            let is_busy = source.busy_minutes >= BUSY_MINUTES_MIN;
            return if is_busy { Self::Late { silent_micros } } else { Self::Idle { silent_micros } };
        }
        match source.lag_micros() {
            Some(lag_micros) if lag_micros > LAG_MICROS_MAX => Self::Lagging { lag_micros },
            Some(_) | None => Self::Fresh,
        }
    }

    /// What needs attention, if anything does.
    pub fn problem(self) -> Option<String> {
        match self {
            Self::Never | Self::Fresh | Self::Idle { .. } => None,
            Self::Lagging { lag_micros } => Some(format!("lags by {}", text::duration(lag_micros))),
            Self::Late { silent_micros } => Some(format!("late: nothing for {}", text::duration(silent_micros))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Fresh => "fresh",
            Self::Lagging { .. } => "lagging",
            Self::Late { .. } => "late",
            Self::Idle { .. } => "idle",
        }
    }

    fn label(self) -> Markup {
        match self {
            Self::Never => html! { span.dim { "no commit recorded" } },
            Self::Fresh => html! { span.ok { "✓ fresh" } },
            Self::Idle { .. } => html! { span.dim { "idle" } },
            Self::Lagging { .. } | Self::Late { .. } => {
                html! { strong.tag.act { (self.problem().unwrap_or_default()) } }
            }
        }
    }
}

/// The rows of a source's tables, as PostgreSQL estimates them; `None` while they are not known.
fn rows(view: &View<'_>, source: &SourceConfig) -> Option<i64> {
    let tables = view.snapshot.tables.value.as_ref()?;
    Some(tables.iter().filter(|table| table.schema == source.schema.as_str()).map(|table| table.rows).sum())
}

/// The section.
pub fn section(view: &View<'_>) -> BoardSection {
    let panel = &view.snapshot.sources;
    let activities = panel.value.as_deref().unwrap_or_default();
    let activity = |source: &SourceConfig| activities.iter().find(|activity| activity.name == source.name);
    let sources = || view.config.sources.iter().filter_map(|source| Some((source, activity(source)?)));
    BoardSection {
        id: "sources".to_owned(),
        heading: "Sources".to_owned(),
        note: html! {},
        body: html! {
            @if let Some(error) = &panel.error { p.problem { "Not refreshed: " (text::prose(error)) } }
            div.scroll tabindex="0" role="region" aria-label="sources" {
                table {
                    thead { tr {
                        th { "source" } th { "state" } th.n { "lag" } th.n { "last commit" } th.n { "records/s" }
                        th { "last hour" } th.n { "rows, about" }
                    } }
                    tbody {
                        @for (source, activity) in sources() { (row(view, source, activity)) }
                        @if panel.value.is_none() { tr { td colspan="7" { "Nothing has been read yet." } } }
                    }
                }
            }
        },
        width: SectionWidth::Full,
        data: sources().map(|(source, activity)| data(view, source, activity)).collect(),
    }
}

fn row(view: &View<'_>, source: &SourceConfig, activity: &SourceActivity) -> Markup {
    let state = SourceState::new(activity, view.now);
    let per_minute = |minute: &Option<MinuteActivity>| Some(minute.map_or(0.0, |minute| minute.records as f64));
    // The current minute is not complete.
    let complete = activity.minutes.len().saturating_sub(1);
    let records: Vec<Option<f64>> = activity.minutes[..complete].iter().map(per_minute).collect();
    html! {
        tr.bad[state.problem().is_some()] {
            th scope="row" {
                (text::name(&source.name))
                @if source.format.replicates() { " " span.dim { "(replica)" } }
            }
            td { (state.label()) }
            td.n { @match activity.lag_micros() {
                Some(lag) => { (text::duration(lag)) }
                None => { span.dim { "no records" } }
            } }
            td.n { @match activity.last_commit {
                Some(at) => { (text::ago(at, view.now)) }
                None => { span.dim { "none" } }
            } }
            td.n { (text::amount(activity.records_per_second())) }
            td { (chart::sparkline(&records)) }
            td.n { @match rows(view, source) {
                Some(rows) => { (text::count(rows)) }
                None => { span.dim { "not known" } }
            } }
        }
    }
}

fn data(view: &View<'_>, source: &SourceConfig, activity: &SourceActivity) -> Value {
    let minute = |minute: &Option<MinuteActivity>| {
        minute.map(|minute| json!({"records": minute.records, "rows": minute.rows, "rejected": minute.rejected}))
    };
    json!({
        "name": source.name,
        "state": SourceState::new(activity, view.now).name(),
        "lag_seconds": activity.lag_micros().map(|lag| lag as f64 / 1e6),
        "last_commit": activity.last_commit.map(|at| at.to_string()),
        "records_per_second": activity.records_per_second(),
        "rows": rows(view, source),
        "minutes": activity.minutes.iter().map(minute).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(10_000_000_000);

    fn source(silent_seconds: i64, busy_minutes: i64, lag_seconds: i64) -> SourceActivity {
        let minute = MinuteActivity { records: 120, rows: 1, rejected: 0, lag_micros: Some(lag_seconds * 1_000_000) };
        SourceActivity {
            name: "s".to_owned(),
            last_commit: Some(Timestamp(NOW.0 - silent_seconds * 1_000_000)),
            busy_minutes,
            minutes: vec![Some(minute); 61],
        }
    }

    #[test]
    fn a_silent_source_is_late_only_if_it_is_usually_busy() {
        let state = |silent, busy, lag| SourceState::new(&source(silent, busy, lag), NOW);
        assert_eq!(state(2, 60, 1), SourceState::Fresh);
        assert_eq!(state(2, 60, 90), SourceState::Lagging { lag_micros: 90_000_000 });
        assert_eq!(state(420, 60, 1), SourceState::Late { silent_micros: 420_000_000 });
        assert_eq!(state(420, 3, 1), SourceState::Idle { silent_micros: 420_000_000 });
        // A source that stopped days ago is still late: the hour before its last commit counts.
        assert!(state(3 * 86_400, 60, 1).problem().is_some());
        let never = SourceActivity { last_commit: None, ..source(0, 0, 0) };
        assert_eq!(SourceState::new(&never, NOW), SourceState::Never);
    }

    #[test]
    fn the_rate_is_that_of_the_last_complete_minute() {
        let mut source = source(2, 60, 1);
        source.minutes[60] = None;
        assert_eq!(source.records_per_second(), 2.0);
    }
}
