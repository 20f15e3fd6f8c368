//! Logs and metrics: JSON lines with timestamp and level, and CloudWatch's embedded metric format.
//!
//! Lambda filters JSON lines by `timestamp` and `level`. Without both, an ERROR counts as INFO and is lost under a stricter
//! filter: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.

use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_histogram, gauge, histogram};
use metrics_cloudwatch_embedded::{Builder, Collector};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::backfill::BackfillProgress;
use crate::board::RequestOutcome;
use crate::maintain::MaintenanceReport;
use crate::outcome::OutcomeCounts;
use crate::redrive;
use crate::report::Report;
use crate::totals::health::TotalHealth;
use crate::totals::task::{RemovedTotal, TotalResult, TotalsAnswer, invocation_error};
use crate::transform::RunReport;
use crate::transform::task::{TransformOutcome, TransformProgress, TransformResult};

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

/// Counters of runs of the totals.
const TOTAL_METRICS: [&str; 3] = ["totals_recomputed", "totals_off_by", "totals_failed"];

/// Counters of runs of the transforms.
const TRANSFORM_METRICS: [&str; 3] = ["transforms_run", "transforms_failed", "transforms_rows"];

/// Counters of failed invocations: those that need an operator because no retry can succeed, and those with records without an
/// outcome.
const FAILURE_METRICS: [&str; 2] = ["person_needed", "unaccounted"];

/// Counters of maintenance runs.
const MAINTENANCE_METRICS: [&str; 4] =
    ["partitions_made", "partitions_dropped", "deletes_forgotten", "upkeep_postponed"];

/// Counters of the board.
const BOARD_METRICS: [&str; 2] = ["board_requests", "failed_logins"];

/// The board's counters are written at most once in this time: a page is requested every few seconds.
const BOARD_FLUSH_INTERVAL: Duration = Duration::from_secs(60);

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
    let counters = [&FAILURE_METRICS[..], &MAINTENANCE_METRICS, &TOTAL_METRICS, &TRANSFORM_METRICS, &BOARD_METRICS];
    for name in BATCH_METRICS.iter().chain(counters.into_iter().flatten()) {
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
    let MaintenanceReport { made, dropped, forgotten, postponed, emptied } = report;
    tracing::info!(request, ?made, ?dropped, forgotten, ?postponed, ?emptied, "upkeep");
    count(MAINTENANCE_METRICS, [made.len() as u64, dropped.len() as u64, *forgotten, postponed.len() as u64]);
    flush(request);
}

/// Writes one line for each total of a run, the counts as metrics, and the state of the totals as gauges.
pub fn log_totals(answer: &TotalsAnswer, request: &str) {
    for RemovedTotal { total, error } in &answer.removed {
        match error {
            Some(error) => tracing::error!(request, total, error, "operator action required: a total was not removed"),
            None => tracing::info!(request, total, "total removed"),
        }
    }
    answer.results.iter().for_each(|result| log_total(result, request));
    for TotalHealth { total, broken, failure, .. } in answer.health.iter().filter(|health| health.broken > 0) {
        tracing::error!(request, total, broken, failure, "operator action required: a total misses rows");
    }
    let reports = || answer.results.iter().filter_map(|result| result.report.as_ref());
    let errors = answer.results.iter().filter(|result| result.error.is_some()).count()
        + answer.removed.iter().filter(|removed| removed.error.is_some()).count();
    let off_by = reports().map(|report| report.off_by).sum();
    count(TOTAL_METRICS, [reports().count() as u64, off_by, errors as u64]);
    // What a run has folded was pending until then.
    let pending = answer.health.iter().map(|health| health.pending as u64 + answer.folded(&health.total)).max();
    gauge!("totals_pending").set(pending.unwrap_or(0) as f64);
    gauge!("totals_broken").set(answer.health.iter().filter(|health| health.broken > 0).count() as f64);
    flush(request);
}

fn log_total(result: &TotalResult, request: &str) {
    let TotalResult { total, waiting, error, report, folded } = result;
    if let Some(error) = error {
        let error = invocation_error(error);
        tracing::error!(request, total, error, "operator action required: a total was not recomputed");
        return;
    }
    let Some(report) = report else {
        tracing::info!(request, total, waiting, "total");
        return;
    };
    let (off_by, repaired, seconds) = (report.off_by, report.triggers_repaired, report.seconds);
    if off_by > 0 {
        tracing::error!(request, total, off_by, repaired, folded, seconds, "total corrected");
    } else {
        tracing::info!(request, total, off_by, repaired, folded, seconds, "total");
    }
}

/// Writes one line for each transform that was run since the `earlier` results, and the counts as metrics.
pub fn log_transforms(progress: &TransformProgress, earlier: usize, request: &str) {
    let results = progress.results.get(earlier..).unwrap_or_default();
    let (mut run, mut failed, mut rows) = (0, 0, 0);
    for result in results {
        log_transform(result, request);
        match &result.outcome {
            TransformOutcome::Succeeded(report) => {
                run += 1;
                rows += report.rows_written + report.rows_deleted;
            }
            TransformOutcome::Failed { .. } => failed += 1,
            TransformOutcome::Waiting { .. } | TransformOutcome::Skipped { .. } => {}
        }
    }
    for transform in &progress.removed {
        tracing::info!(request, transform, "transform forgotten: it has no file any more");
    }
    count(TRANSFORM_METRICS, [run, failed, rows]);
    flush(request);
}

fn log_transform(result: &TransformResult, request: &str) {
    let transform = &result.transform;
    match &result.outcome {
        TransformOutcome::Succeeded(RunReport { full_run, rows_written, rows_deleted, seconds }) => {
            tracing::info!(request, transform, full_run, rows_written, rows_deleted, seconds, "transform");
        }
        TransformOutcome::Failed { reason } => {
            tracing::error!(request, transform, reason, "operator action required: a transform failed");
        }
        TransformOutcome::Waiting { reason } => tracing::info!(request, transform, reason, "transform waits"),
        TransformOutcome::Skipped { reason } => tracing::warn!(request, transform, reason, "transform skipped"),
    }
}

/// Logs a request to the board and counts it. Neither its address nor anything that it carries is logged.
pub fn log_board_request(outcome: RequestOutcome, status: u16, request: &str) {
    static FLUSHED: Mutex<Option<Instant>> = Mutex::new(None);
    match outcome {
        RequestOutcome::SignedIn(role) => tracing::info!(request, role = role.as_str(), "signed in"),
        RequestOutcome::SignedOut => tracing::info!(request, "signed out"),
        RequestOutcome::FailedLogin => tracing::warn!(request, status, "failed login"),
        RequestOutcome::Throttled => tracing::warn!(request, status, "too many failed logins"),
        RequestOutcome::Unavailable => tracing::warn!(request, status, "the tokens could not be read"),
        RequestOutcome::Answered | RequestOutcome::NotSignedIn => tracing::debug!(request, status, "request"),
    }
    let failed = matches!(outcome, RequestOutcome::FailedLogin | RequestOutcome::Throttled);
    count(BOARD_METRICS, [1, u64::from(failed)]);
    let mut flushed = FLUSHED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed || flushed.is_none_or(|flushed| flushed.elapsed() >= BOARD_FLUSH_INTERVAL) {
        *flushed = Some(Instant::now());
        flush(request);
    }
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
