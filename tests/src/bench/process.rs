//! The real functions' processes: package size, time to the first poll, and memory for a full batch.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::append::{CONFIG, track_events};
use super::line::Line;
use super::publish::lines;
use super::{BenchResult, events, median};
use crate::function::{Function, Settings, binary, names};
use crate::postgresql::PostgreSql;
use crate::process::target;

/// A full payload: Lambda limits batches to six megabytes.
const PAYLOAD_BYTES: usize = 6 * 1024 * 1024;

/// Sizes and starts, the largest and the slowest of all functions; and the peak of memory after a batch of six megabytes.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let config = target().join("bench.toml");
    std::fs::write(&config, CONFIG)?;
    let environment = vec![
        ("DATABASE_URL".to_owned(), server.database().await?),
        ("MILLSTREAM_CONFIG".to_owned(), config.to_string_lossy().into_owned()),
    ];
    let settings = |function: &str| -> BenchResult<Settings> {
        let (binary, environment) = (binary(function)?, environment.clone());
        Ok(Settings { binary, environment, timeout: Duration::from_secs(60) })
    };
    let (mut slowest, mut largest) = (Duration::ZERO, 0.0_f64);
    for function in names()? {
        slowest = slowest.max(start(settings(&function)?).await?);
        largest = largest.max(package_megabytes(&settings(&function)?)?);
    }
    Ok(vec![
        Line::at_most(&format!("{}, slowest function", lines::START), slowest.as_secs_f64() * 1e3, "ms", 20.0),
        Line::at_most(&format!("{}, zipped, largest function", lines::PACKAGE), largest, "MB", 6.0),
        memory(settings("kinesis-ingest")?).await?,
    ])
}

async fn start(settings: Settings) -> BenchResult<Duration> {
    let mut starts = Vec::new();
    for _ in 0..10 {
        let since = Instant::now();
        let function = Function::start(settings.clone()).await?;
        function.first_poll().await;
        starts.push(since.elapsed());
    }
    Ok(median(&mut starts))
}

/// The size of the zipped binary.
fn package_megabytes(settings: &Settings) -> BenchResult<f64> {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&std::fs::read(&settings.binary)?)?;
    Ok(packer.finish()?.len() as f64 / 1e6)
}

async fn memory(settings: Settings) -> BenchResult<Line> {
    let documents = track_events(8_000);
    let bytes_each = events(&documents[..100], 100)[0].len() / 100;
    let event = events(&documents[..PAYLOAD_BYTES / bytes_each], documents.len()).remove(0);
    let mut function = Function::start(settings).await?;
    // Twice: the first batch creates the tables, the second contains only duplicates.
    for _ in 0..2 {
        function.invoke(event.clone()).await?;
    }
    let what = format!("{}{} bytes", lines::MEMORY, event.len());
    Ok(Line::at_most(&what, peak_megabytes(function.pid())?, "MB", 64.0))
}

/// The peak memory of a process, in MB.
pub fn peak_megabytes(pid: u32) -> BenchResult<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).ok_or("no value in VmHWM")?.parse()?;
    Ok(kilobytes / 1024.0)
}
