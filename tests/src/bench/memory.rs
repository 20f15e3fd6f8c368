//! The memory of a function for batches that are small as they arrive and large once they are unpacked, decoded or stored.

use std::time::Duration;

use super::BenchResult;
use super::line::Line;
use super::process::peak_megabytes;
use crate::function::{Function, Settings, binary};
use crate::kinesis::{ShardRecord, event};
use crate::postgresql::PostgreSql;
use crate::process::target;
use crate::shapes::{self, MEGABYTES_MAX, Shape};

/// The peak for each shape, in a function that writes nothing else.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut measured = Vec::new();
    for shape in shapes::all() {
        let what = format!("peak memory: {}", shape.what);
        measured.push(Line::at_most(&what, peak(server, &shape).await?, "MB", MEGABYTES_MAX as f64));
    }
    Ok(measured)
}

async fn peak(server: &PostgreSql, shape: &Shape) -> BenchResult<f64> {
    let config = target().join("bench-memory.toml");
    std::fs::write(&config, shape.config)?;
    let environment = vec![
        ("DATABASE_URL".to_owned(), server.database().await?),
        ("MILLSTREAM_CONFIG".to_owned(), config.to_string_lossy().into_owned()),
    ];
    let settings = Settings { binary: binary("kinesis-ingest")?, environment, timeout: Duration::from_secs(600) };
    let records: Vec<ShardRecord> =
        (1..).zip(&shape.records).map(|(number, data)| ShardRecord::numbered(number, data.clone())).collect();
    let mut function = Function::start(settings).await?;
    function.invoke(event("s", "shardId-000000000000", &records)).await?;
    peak_megabytes(function.pid())
}
