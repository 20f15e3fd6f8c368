//! Replicated tables: changed items against a temporary table, the load of an export, and the cost of a new column.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::process::Command;

use super::line::{Figure, Line};
use super::merge::{newest, turns};
use super::process::peak_megabytes;
use super::publish::lines;
use super::{BenchResult, ingest, run_events};
use crate::dynamodb::arn;
use crate::event_source::event_of;
use crate::function::binary;
use crate::local_aws::LocalAws;
use crate::postgresql::PostgreSql;
use crate::process::target;
use crate::random::Random;

const ITEMS: u64 = 20_000;
const BATCH: usize = 4_000;
const CONFIG: &str = "[source.bench]\nstream = \"Item\"\nformat = \"dynamodb\"\nbackup = false\n";

/// MODIFY batches, an export, and new columns.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    Ok(vec![modify(server).await?, columns(server).await?])
}

async fn modify(server: &PostgreSql) -> BenchResult<Line> {
    let (mut ours, mut others) = turns(server, CONFIG, changes, newest).await?;
    let what = "DynamoDB MODIFY, 20 attributes, 1 KB, against a temporary table and INSERT … ON CONFLICT";
    Ok(Line::ratio(what, ITEMS, &mut ours, &mut others, Some(0.8)))
}

/// Every item once, in another order each time, in batches.
fn changes(revision: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(revision + 1);
    let mut numbers: Vec<u64> = (0..ITEMS).collect();
    random.shuffle(&mut numbers);
    let change = |(place, number): (usize, &u64)| {
        let sequence = format!("1405400000000{:012}", revision * ITEMS + place as u64);
        let (key, image) = (format!("{{\"id\":{{\"S\":\"item-{number:08}\"}}}}"), item(*number, revision, &mut random));
        format!(
            "{{\"eventID\":\"{sequence}\",\"eventName\":\"MODIFY\",\"eventVersion\":\"1.1\",\"eventSource\":\"aws:dynamodb\",\
             \"awsRegion\":\"us-east-1\",\"dynamodb\":{{\"ApproximateCreationDateTime\":1770593460,\"Keys\":{key},\"NewImage\":{image},\
             \"SequenceNumber\":\"{sequence}\",\"SizeBytes\":1000,\"StreamViewType\":\"NEW_IMAGE\"}},\
             \"eventSourceARN\":\"{}/stream/2026-02-01T00:00:00.000\"}}",
            arn("Item")
        )
    };
    let changes: Vec<String> = numbers.iter().enumerate().map(change).collect();
    changes.chunks(BATCH).map(|batch| event_of(batch.iter().map(String::as_str))).collect()
}

/// 20 attributes, about a kilobyte.
fn item(number: u64, revision: u64, random: &mut Random) -> String {
    let mut attributes =
        vec![format!("\"id\":{{\"S\":\"item-{number:08}\"}}"), format!("\"revision\":{{\"N\":\"{revision}\"}}")];
    attributes.extend((0..18).map(|column| match column % 6 {
        0 => format!("\"amount{column}\":{{\"N\":\"{}.{:02}\"}}", random.below(100_000), random.below(100)),
        1 => format!("\"flag{column}\":{{\"BOOL\":{}}}", random.per_mille(500)),
        2 => format!("\"tags{column}\":{{\"SS\":[\"a{}\",\"b\"]}}", random.below(10)),
        3 => format!("\"map{column}\":{{\"M\":{{\"x\":{{\"N\":\"{}\"}},\"y\":{{\"S\":\"z\"}}}}}}", random.below(1_000)),
        _ => format!(
            "\"text{column}\":{{\"S\":\"{:016x}-{:016x}-{:016x}\"}}",
            random.number(),
            random.number(),
            random.number()
        ),
    }));
    format!("{{{}}}", attributes.join(","))
}

/// A hundred batches with a new column each, against a hundred without.
async fn columns(server: &PostgreSql) -> BenchResult<Line> {
    const BATCHES: u64 = 100;
    let url = server.database().await?;
    let mut ingest = ingest(CONFIG, &url)?;
    let batch = |number: u64, attribute: &str| {
        let json = format!(
            "{{\"eventID\":\"e\",\"eventName\":\"INSERT\",\"dynamodb\":{{\"Keys\":{{\"id\":{{\"S\":\"{number}\"}}}},\
             \"NewImage\":{{\"id\":{{\"S\":\"{number}\"}},\"{attribute}\":{{\"S\":\"x\"}}}},\"SequenceNumber\":\"{}\"}},\
             \"eventSourceARN\":\"{}/stream/x\"}}",
            140_540_000_000_000_000_000_u128 + u128::from(number),
            arn("Item")
        );
        event_of([&*json])
    };
    run_events(&mut ingest, &[batch(0, "same")]).await?;
    let plain: Vec<Vec<u8>> = (1..=BATCHES).map(|number| batch(number, "same")).collect();
    let new: Vec<Vec<u8>> =
        (1..=BATCHES).map(|number| batch(BATCHES + number, &format!("attribute{number}"))).collect();
    let since = Instant::now();
    run_events(&mut ingest, &plain).await?;
    let without = since.elapsed();
    let since = Instant::now();
    run_events(&mut ingest, &new).await?;
    let each = since.elapsed().saturating_sub(without).as_secs_f64() * 1e3 / BATCHES as f64;
    Ok(Line::at_most("adding a column, one in each of 100 batches", each, "ms", 20.0))
}

/// The load of an export of a gigabyte by the real program: its rate and its memory.
pub async fn export(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    const FILES: u64 = 16;
    const BYTES: usize = 1_000_000_000;
    let aws = LocalAws::start().await?;
    let s3 = aws_sdk_s3::Client::new(aws.config());
    s3.create_bucket().bucket("archive").send().await?;
    let mut random = Random::new(1);
    let each = item(0, 0, &mut random).len() + 10;
    let items = BYTES as u64 / each as u64 / FILES;
    let mut manifest = Vec::new();
    for file in 0..FILES {
        let mut lines = GzEncoder::new(Vec::new(), Compression::fast());
        for number in file * items..(file + 1) * items {
            writeln!(lines, "{{\"Item\":{}}}", item(number, 0, &mut random))?;
        }
        let key = format!("data/{file}.json.gz");
        s3.put_object().bucket("archive").key(&key).body(lines.finish()?.into()).send().await?;
        writeln!(manifest, "{}", json!({"itemCount": items, "dataFileS3Key": key}))?;
    }
    s3.put_object().bucket("archive").key("files.json").body(manifest.into()).send().await?;
    let summary = json!({"tableArn": arn("Item"), "exportTime": "2026-02-08T00:00:00Z", "s3Bucket": "archive",
        "manifestFilesS3Key": "files.json", "itemCount": items * FILES, "outputFormat": "DYNAMODB_JSON"});
    s3.put_object().bucket("archive").key("summary.json").body(summary.to_string().into_bytes().into()).send().await?;
    let config = target().join("bench-export.toml");
    std::fs::write(&config, CONFIG)?;
    let task = json!({"source": "bench", "export": {"manifest": "s3://archive/summary.json", "key": ["id"]}});
    let since = Instant::now();
    let mut program = Command::new(binary("millstream")?)
        .args(["backfill", &task.to_string()])
        .envs(aws.environment())
        .env("DATABASE_URL", server.database().await?)
        .env("MILLSTREAM_CONFIG", &config)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let mut peak: f64 = 0.0;
    let ended = loop {
        tokio::select! {
            ended = program.wait() => break ended?,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                peak = program.id().and_then(|pid| peak_megabytes(pid).ok()).unwrap_or(peak);
            }
        }
    };
    let time = since.elapsed();
    if !ended.success() {
        return Err("the export could not be loaded".into());
    }
    let rate = (items * FILES) as f64 / time.as_secs_f64();
    let what = format!("{}, {} items, gzip on S3", lines::LOAD, items * FILES);
    let figure = Figure::Load { rate, seconds: time.as_secs_f64() };
    let line = Line { what, figure, target: String::new() };
    Ok(vec![line, Line::at_most(lines::LOAD_MEMORY, peak, "MB", 128.0)])
}
