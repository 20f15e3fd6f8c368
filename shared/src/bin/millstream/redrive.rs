//! `millstream redrive`: reprocesses dead letters after the cause of their rejection is fixed.

use std::collections::BTreeMap;

use clap::Args;
use millstream::outcome::OutcomeCounts;
use millstream::redrive::{RedriveProgress, RedriveTask, Selection};
use millstream::task::{TaskCall, run_until_done};

use crate::layout::{Align, TextTable, format_count_of};
use crate::{CommandContext, CommandError, CommandOutput};

/// Why messages stay on the queue, and the explanation for the operator.
const KEEP_REASON_TEXT: [(&str, &str); 7] = [
    ("dry_run", "dry run: nothing was redriven"),
    ("not_selected", "not selected"),
    ("unknown_source", "no configured source has this name or reads this stream"),
    ("unreadable", "not dead letters, or written by a newer release"),
    ("unavailable", "their payload or stream could not be read"),
    ("gone", "some of their records are no longer in the stream"),
    ("failed", "their records prevent a batch from being written; see the warnings above"),
];

#[derive(Args)]
pub struct RedriveArgs {
    /// Show what would be redriven, without redriving it
    #[arg(long)]
    dry_run: bool,
    /// Only dead letters of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only records rejected by this table, such as sportsbook.bet
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
    /// Only this error class, such as does_not_fit; `undelivered` selects batches that Lambda discarded
    #[arg(long, value_name = "CLASS")]
    reason: Option<String>,
    /// Only records that arrived in the stream at or after this time: 2026-02-08T00:00:00Z
    #[arg(long, value_name = "TIMESTAMP")]
    from: Option<String>,
    /// Only records that arrived before this time
    #[arg(long, value_name = "TIMESTAMP")]
    to: Option<String>,
    /// Maximum number of messages
    #[arg(long)]
    limit: Option<u64>,
    /// Only this queue [default: DEAD_LETTER_QUEUE_URL and ON_FAILURE_QUEUE_URL]
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
}

pub async fn run(arguments: RedriveArgs, context: &CommandContext) -> Result<RedriveTask, CommandError> {
    let RedriveArgs { dry_run, source, table, reason, from, to, limit, queue } = arguments;
    let only = Selection { source, table, reason, from, to };
    let task = RedriveTask { queue, only, limit, dry_run, progress: RedriveProgress::default() };
    let mut app = context.app()?;
    Ok(run_until_done(task, async |task, deadline| app.redrive(task, TaskCall::unwatched(deadline)).await).await?)
}

impl CommandOutput for RedriveTask {
    fn to_text(&self) -> String {
        let RedriveProgress { selected, redriven, records, kept, .. } = &self.progress;
        let mut parts = vec![text_table(("SOURCE, TABLE, REASON", "MESSAGES"), selected.iter())];
        if !self.dry_run {
            parts.push(format!("Messages redriven: {}. {}\n", format_count_of(*redriven), format_outcomes(records)));
        }
        let kept: BTreeMap<String, u64> = kept.iter().map(|(class, count)| (keep_reason_text(class), *count)).collect();
        parts.push(text_table(("LEFT ON QUEUE", "MESSAGES"), kept.iter()));
        parts.retain(|part| !part.is_empty());
        if parts.is_empty() { "The queues are empty.".to_owned() } else { parts.join("\n") }
    }
}

fn text_table<'t>(
    headings: (&'static str, &'static str),
    counts: impl Iterator<Item = (&'t String, &'t u64)>,
) -> String {
    let mut table = TextTable::new(&[(headings.0, Align::Left), (headings.1, Align::Right)]);
    for (label, count) in counts {
        table.push([label.clone(), format_count_of(*count)]);
    }
    if table.is_empty() { String::new() } else { table.to_string() }
}

fn keep_reason_text(class: &str) -> String {
    let entry = KEEP_REASON_TEXT.iter().find(|(known_class, _)| *known_class == class);
    entry.map_or_else(|| class.to_owned(), |(_, text)| (*text).to_owned())
}

fn format_outcomes(records: &OutcomeCounts) -> String {
    let OutcomeCounts { applied, duplicate, superseded, expired, dead_lettered, retry: _, control } = *records;
    let outcomes = [
        ("applied", applied),
        ("duplicate", duplicate),
        ("superseded", superseded),
        ("expired", expired),
        ("control", control),
        ("rejected again", dead_lettered),
    ];
    let nonzero = outcomes.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> =
        nonzero.map(|(outcome, count)| format!("{} {outcome}", format_count_of(*count))).collect();
    if counts.is_empty() { "No records were written.".to_owned() } else { format!("Records: {}.", counts.join(", ")) }
}
