//! Logs and metrics: JSON lines with timestamp and level, and CloudWatch's embedded metric format.
//!
//! Lambda filters JSON lines by `timestamp` and `level`. Without both, an ERROR counts as INFO and is lost under a stricter
//! filter: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, gauge, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::backfill::BackfillProgress;
use crate::maintain::MaintenanceReport;
use crate::outcome::OutcomeCounts;
use crate::redrive;
use crate::report::Report;
use crate::totals::task::{TotalResult, TotalsAnswer};

/// Counters of batches.
const BATCH_METRICS: [&str; 10] = [
    "commits",
    "records",
    "rows",
    "duplicates",
    "superseded",
    "expired",
    "dead_letters",
    "retried",
    "ddl_statements",
    "unwritable_tables",
];

/// Counters of failed invocations: those that need an operator because no retry can succeed, and those with records without an
/// outcome.
const TOTAL_METRICS: [&str; 3] = ["totals_recomputed", "totals_off_by", "totals_failed"];
const FAILURE_METRICS: [&str; 2] = ["person_needed", "unaccounted"];

/// Counters of maintenance runs.
const MAINTENANCE_METRICS: [&str; 4] =
    ["partitions_made", "partitions_dropped", "deletes_forgotten", "upkeep_postponed"];

static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// Starts logging at a level (`AWS_LAMBDA_LOG_LEVEL`), and metrics with the function's name as their dimension.
pub fn init(function: &str, level: LevelFilter) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level)
        .finish()
        .with(logged_targets(level));
    // Only tests initialize twice in one process; the first subscriber stays.
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();
    let built = Builder::new()
        .cloudwatch_namespace("Millstream")
        .with_dimension("function", function.to_owned())
        // An alarm on dead letters needs zeros when there were none.
        .emit_zeros(true)
        .init();
    if let Ok(collector) = built {
        COLLECTOR.get_or_init(|| collector);
    }
    for name in BATCH_METRICS.iter().chain(&FAILURE_METRICS).chain(&MAINTENANCE_METRICS) {
        describe_counter!(*name, Unit::Count, "");
    }
    // Every function reports these from the start, so that alarms see zeros.
    count(FAILURE_METRICS, [0, 0]);
    for name in ["iterator_age", "decode_time", "plan_time", "apply_time", "dead_letter_time"] {
        describe_histogram!(name, Unit::Milliseconds, "");
    }
}

/// What is logged at a level. The AWS SDK logs nothing at any level: it quotes responses, also in warnings, and with them
/// secrets and rows. Its errors are reported by [`crate::aws::describe_error`]. Of other libraries only warnings are logged,
/// because their lower levels may quote requests.
fn logged_targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_target("millstream", level)
        .with_target("aws", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN))
}

/// Starts logging warnings and errors to standard error, for a terminal.
pub fn init_terminal() {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(LevelFilter::WARN)
        .finish()
        .with(logged_targets(LevelFilter::WARN));
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();
}

/// Writes one INFO line and one line of metrics for an invocation.
pub fn log_batch(report: &Report, request: &str) {
    let OutcomeCounts { applied, duplicate, superseded, expired, dead_lettered, retry, control } = report.counts;
    let times = &report.times;
    tracing::info!(
        request,
        source = report.source,
        records = report.counts.total(),
        applied,
        duplicate,
        superseded,
        expired,
        dead_lettered,
        retry,
        control,
        empty = report.empty_records,
        rows = report.rows,
        ddl = report.ddl,
        unwritable_tables = report.unwritable_tables,
        age_ms = milliseconds(report.batch_age),
        decode_ms = milliseconds(times.decode),
        plan_ms = milliseconds(times.plan),
        apply_ms = milliseconds(times.apply),
        "batch"
    );
    let total = report.counts.total();
    let Report { rows, ddl, unwritable_tables, .. } = report;
    let dead_letters = dead_lettered;
    count(
        BATCH_METRICS,
        [1, total, *rows, duplicate, superseded, expired, dead_letters, retry, *ddl, *unwritable_tables],
    );
    for (name, value) in [
        ("iterator_age", report.batch_age),
        ("decode_time", times.decode),
        ("plan_time", times.plan),
        ("apply_time", times.apply),
        ("dead_letter_time", times.dead_letters),
    ] {
        histogram!(name).record(milliseconds(value));
    }
    flush(request);
}

/// Writes one INFO line for a call of a backfill task, and its progress as metrics.
pub fn log_backfill(source: &str, progress: &BackfillProgress) {
    let BackfillProgress { done, records, rows, dead_lettered, bytes, total, differences, .. } = progress;
    let unreadable = progress.unreadable.as_ref().map_or(0, |lines| lines.count);
    tracing::info!(
        source,
        done,
        records,
        rows,
        dead_lettered,
        unreadable,
        bytes,
        total,
        differences = ?differences,
        "backfill"
    );
    gauge!("backfill_records").set(*records as f64);
    gauge!("backfill_left").set(total.unwrap_or(*records).saturating_sub(*records) as f64);
    gauge!("backfill_bytes").set(*bytes as f64);
    flush(source);
}

/// Writes one INFO line for a call of a redrive task, and its progress as metrics.
pub fn log_redrive(progress: &redrive::RedriveProgress) {
    let redrive::RedriveProgress { done, started: _, selected, redriven, records, kept } = progress;
    tracing::info!(done, ?selected, redriven, ?records, ?kept, "redrive");
    gauge!("redriven").set(*redriven as f64);
    gauge!("redriven_dead_letters").set(records.dead_lettered as f64);
    flush("redrive");
}

/// Writes one INFO line for a maintenance run, and its counts as metrics.
pub fn log_maintenance(report: &MaintenanceReport, request: &str) {
    let MaintenanceReport { made, dropped, forgotten, postponed } = report;
    tracing::info!(request, ?made, ?dropped, forgotten, ?postponed, "upkeep");
    count(MAINTENANCE_METRICS, [made.len() as u64, dropped.len() as u64, *forgotten, postponed.len() as u64]);
    flush(request);
}

/// Writes one line for each total of a run, and the counts as metrics.
pub fn log_totals(answer: &TotalsAnswer, request: &str) {
    let (mut off_by, mut failed) = (0, 0);
    for TotalResult { total, waiting, error, report, folded } in &answer.results {
        let found = report.as_ref();
        let (wrong, seconds) = (found.map_or(0, |report| report.off_by), found.map_or(0.0, |report| report.seconds));
        let repaired = found.map_or(0, |report| report.triggers_repaired);
        match error {
            Some(error) => {
                tracing::error!(request, total, error, "operator action required: a total was not recomputed")
            }
            None if wrong > 0 => {
                tracing::error!(request, total, off_by = wrong, repaired, folded, seconds, "total corrected");
            }
            None => tracing::info!(request, total, off_by = wrong, repaired, folded, seconds, ?waiting, "total"),
        }
        off_by += wrong;
        failed += u64::from(error.is_some());
    }
    count(TOTAL_METRICS, [answer.results.len() as u64, off_by, failed]);
    flush(request);
}

/// Counts a failed invocation; each value is 1 if it applies and 0 otherwise.
pub fn count_failure(request: &str, needs_operator: u64, unaccounted: u64) {
    count(FAILURE_METRICS, [needs_operator, unaccounted]);
    // An alarm must also see that nothing has ever been committed.
    count(["commits"], [0]);
    flush(request);
}

fn count<const N: usize>(names: [&'static str; N], values: [u64; N]) {
    for (name, value) in names.into_iter().zip(values) {
        counter!(name).increment(value);
    }
}

/// Writes the metrics in one call, so that no log line is written in between.
fn flush(request: &str) {
    let Some(collector) = COLLECTOR.get() else { return };
    let mut line = Vec::new();
    if collector.set_property("request", request.to_owned()).flush(&mut line).is_ok() {
        std::io::stdout().write_all(&line).unwrap_or_default();
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
