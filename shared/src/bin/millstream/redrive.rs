//! `millstream redrive`: dead letters back in, once what refused them has been mended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use millstream::outcome::OutcomeCounts;
use millstream::redrive::{RedriveProgress, RedriveTask, Selection};

use crate::layout::{Align, TextTable, format_count_of};
use crate::{CommandContext, CommandError, CommandOutput};

/// A piece: for as long messages are out of others' sight.
const RUN_TIME: Duration = Duration::from_secs(600);

/// Why messages stay, and what a person may think of it.
const KEEP_REASON_TEXT: [(&str, &str); 7] = [
    ("dry_run", "nothing was redriven: this was a dry run"),
    ("not_selected", "not asked for"),
    ("unknown_source", "no source of the configuration is called so, or reads the stream"),
    ("unreadable", "no dead letters, or of a newer program"),
    ("unavailable", "their payloads, or their streams, could not be read"),
    ("gone", "their streams do not hold all their records any more"),
    ("failed", "their records keep a batch from being written; the warnings above say why"),
];

#[derive(Args)]
pub struct RedriveArgs {
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

pub async fn run(arguments: RedriveArgs, session: &CommandContext) -> Result<RedriveTask, CommandError> {
    let RedriveArgs { dry_run, source, table, reason, from, to, limit, queue } = arguments;
    let only = Selection { source, table, reason, from, to };
    let mut task = RedriveTask { queue, only, limit, dry_run, progress: RedriveProgress::default() };
    let mut app = session.app()?;
    while !task.progress.done {
        task = app.redrive(task, Instant::now() + RUN_TIME, &|_| ()).await?;
    }
    Ok(task)
}

impl CommandOutput for RedriveTask {
    fn to_text(&self) -> String {
        let RedriveProgress { selected, redriven, records, kept, .. } = &self.progress;
        let mut parts = vec![text_table(("SOURCE, TABLE, REASON", "MESSAGES"), selected.iter())];
        if !self.dry_run {
            parts.push(format!("Redriven: {} messages. {}\n", format_count_of(*redriven), outcomes(records)));
        }
        let told: BTreeMap<String, u64> = kept.iter().map(|(class, count)| (format_detail(class), *count)).collect();
        parts.push(text_table(("STAY ON THE QUEUE", "MESSAGES"), told.iter()));
        parts.retain(|part| !part.is_empty());
        if parts.is_empty() { "The queues are empty.".to_owned() } else { parts.join("\n") }
    }
}

fn text_table<'t>(
    headings: (&'static str, &'static str),
    counts: impl Iterator<Item = (&'t String, &'t u64)>,
) -> String {
    let mut grid = TextTable::new(&[(headings.0, Align::Left), (headings.1, Align::Right)]);
    counts.for_each(|(what, count)| grid.push([what.clone(), format_count_of(*count)]));
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

fn format_detail(class: &str) -> String {
    let known = KEEP_REASON_TEXT.iter().find(|(known, _)| *known == class);
    known.map_or_else(|| class.to_owned(), |(_, told)| (*told).to_owned())
}

fn outcomes(records: &OutcomeCounts) -> String {
    let OutcomeCounts { applied, duplicate, superseded, expired, dead_lettered, retry: _, control } = *records;
    let outcomes = [
        ("applied", applied),
        ("duplicate", duplicate),
        ("superseded", superseded),
        ("expired", expired),
        ("control", control),
        ("refused again", dead_lettered),
    ];
    let told = outcomes.iter().filter(|(_, count)| *count > 0);
    let told: Vec<String> = told.map(|(what, count)| format!("{} {what}", format_count_of(*count))).collect();
    if told.is_empty() { "No record was written.".to_owned() } else { format!("Records: {}.", told.join(", ")) }
}
