//! `millstream redrive`: dead letters back in, once what refused them has been mended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use millstream::redrive::{Progress, Selection, Task};
use millstream::report::Counts;

use crate::layout::{Grid, Side, count_of};
use crate::{Answer, Session, Unanswered};

/// A piece: for as long messages are out of others' sight.
const PIECE: Duration = Duration::from_secs(600);

/// Why messages stay, and what a person may think of it.
const KEPT: [(&str, &str); 7] = [
    ("dry_run", "nothing was redriven: this was a dry run"),
    ("not_selected", "not asked for"),
    ("unknown_source", "no source of the configuration is called so, or reads the stream"),
    ("unreadable", "no dead letters, or of a newer program"),
    ("unavailable", "their payloads, or their streams, could not be read"),
    ("gone", "their streams do not hold all their records any more"),
    ("failed", "their records keep a batch from being written; the warnings above say why"),
];

#[derive(Args)]
pub struct Arguments {
    /// Only tell what would be redriven
    #[arg(long)]
    dry_run: bool,
    /// Only letters of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only what this table refused: sportsbook.bet
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
    /// Only this class of error, such as does_not_fit; `undelivered`: batches that Lambda gave up
    #[arg(long, value_name = "CLASS")]
    reason: Option<String>,
    /// Only what arrived in its stream at this moment or later: 2026-02-08T00:00:00Z
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// Only what arrived before this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    /// At most so many messages
    #[arg(long)]
    limit: Option<u64>,
    /// Only this queue [default: DEAD_LETTER_QUEUE_URL and ON_FAILURE_QUEUE_URL]
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
}

pub async fn run(arguments: Arguments, session: &Session) -> Result<Task, Unanswered> {
    let Arguments { dry_run, source, table, reason, from, to, limit, queue } = arguments;
    let only = Selection { source, table, reason, from, to };
    let mut task = Task { queue, only, limit, dry_run, progress: Progress::default() };
    let mut app = session.app()?;
    while !task.progress.done {
        task = app.redrive(task, Instant::now() + PIECE, &|_| ()).await?;
    }
    Ok(task)
}

impl Answer for Task {
    fn for_people(&self) -> String {
        let Progress { selected, redriven, records, kept, .. } = &self.progress;
        let mut parts = vec![grid(("SOURCE, TABLE, REASON", "MESSAGES"), selected.iter())];
        if !self.dry_run {
            parts.push(format!("Redriven: {} messages. {}\n", count_of(*redriven), outcomes(records)));
        }
        let told: BTreeMap<String, u64> = kept.iter().map(|(class, count)| (told(class), *count)).collect();
        parts.push(grid(("STAY ON THE QUEUE", "MESSAGES"), told.iter()));
        parts.retain(|part| !part.is_empty());
        if parts.is_empty() { "The queues are empty.".to_owned() } else { parts.join("\n") }
    }
}

fn grid<'t>(headings: (&'static str, &'static str), counts: impl Iterator<Item = (&'t String, &'t u64)>) -> String {
    let mut grid = Grid::new(&[(headings.0, Side::Left), (headings.1, Side::Right)]);
    counts.for_each(|(what, count)| grid.push([what.clone(), count_of(*count)]));
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

fn told(class: &str) -> String {
    let known = KEPT.iter().find(|(known, _)| *known == class);
    known.map_or_else(|| class.to_owned(), |(_, told)| (*told).to_owned())
}

fn outcomes(records: &Counts) -> String {
    let Counts { applied, duplicate, superseded, expired, dead_lettered, retry: _, control } = *records;
    let outcomes = [
        ("applied", applied),
        ("duplicate", duplicate),
        ("superseded", superseded),
        ("expired", expired),
        ("control", control),
        ("refused again", dead_lettered),
    ];
    let told = outcomes.iter().filter(|(_, count)| *count > 0);
    let told: Vec<String> = told.map(|(what, count)| format!("{} {what}", count_of(*count))).collect();
    if told.is_empty() { "No record was written.".to_owned() } else { format!("Records: {}.", told.join(", ")) }
}
