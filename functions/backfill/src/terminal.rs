//! The whole work at once, with a bar.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use millstream::backfill::{Progress, Task};
use millstream::runtime::App;

/// A piece on a terminal: the time after which the task as it is then would be lost.
const PIECE: Duration = Duration::from_secs(600);

const KNOWN: &str = "{wide_bar} {human_pos} of {human_len} records, {per_sec}, {eta} left; {msg}";
const UNKNOWN: &str = "{spinner} {human_pos} records, {per_sec}, {elapsed}; {msg}";

/// Does the task, given as JSON, to its end; its last line is the task with its sums.
pub async fn run(task: &str) -> Result<(), lambda_runtime::Error> {
    let mut task: Task = serde_json::from_str(task)?;
    let mut app = App::from_environment()?;
    let bar = ProgressBar::new(0);
    while !task.progress.done {
        task = app.backfill(task, Instant::now() + PIECE, &|progress| show(&bar, progress)).await?;
    }
    bar.finish();
    use_stdout(&serde_json::to_string(&task)?);
    Ok(())
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let template = if progress.total.is_some() { KNOWN } else { UNKNOWN };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(progress.total.unwrap_or(0));
    bar.set_position(progress.records);
    bar.set_message(format!(
        "{} rows, {} dead letters, {} MB",
        progress.rows,
        progress.dead_lettered,
        progress.bytes / 1_000_000
    ));
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn use_stdout(line: &str) {
    println!("{line}");
}
