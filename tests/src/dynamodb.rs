//! DynamoDB tables on the local AWS, changed and read through the JSON of its API, and their streams as an event source.
//!
//! By hand, because the API's JSON is what Lambda hands over: the SDK would take it apart and leave it to be put together again.

use std::io::Write;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::event_source::{Element, Invoked, Mapping, Progress, deliver};
use crate::function::Function;
use crate::local_aws::{ACCOUNT, LocalAws, REGION};
use crate::system::Outcome;

/// A table's ARN.
pub fn arn(table: &str) -> String {
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}")
}

/// Makes a table with a stream of both images; the key's attributes come with their types, the hash key first. The
/// stream's ARN.
///
/// # Errors
/// The API's.
pub async fn create_table(aws: &LocalAws, table: &str, key: &[(&str, &str)]) -> Outcome<String> {
    let attribute = |(name, kind): &(&str, &str)| json!({"AttributeName": name, "AttributeType": kind});
    let part = |((name, _), kind): (&(&str, &str), &str)| json!({"AttributeName": name, "KeyType": kind});
    let request = json!({
        "TableName": table,
        "AttributeDefinitions": key.iter().map(attribute).collect::<Vec<_>>(),
        "KeySchema": key.iter().zip(["HASH", "RANGE"]).map(part).collect::<Vec<_>>(),
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    });
    let made = call(aws, "DynamoDB_20120810.CreateTable", &request).await?;
    Ok(made["TableDescription"]["LatestStreamArn"].as_str().unwrap_or_default().to_owned())
}

/// Puts an item, in the JSON of DynamoDB.
///
/// # Errors
/// The API's.
pub async fn put_item(aws: &LocalAws, table: &str, item: &Value) -> Outcome<()> {
    call(aws, "DynamoDB_20120810.PutItem", &json!({"TableName": table, "Item": item})).await.map(drop)
}

/// Deletes an item.
///
/// # Errors
/// The API's.
pub async fn delete_item(aws: &LocalAws, table: &str, key: &Value) -> Outcome<()> {
    call(aws, "DynamoDB_20120810.DeleteItem", &json!({"TableName": table, "Key": key})).await.map(drop)
}

/// All items of a table.
///
/// # Errors
/// The API's.
pub async fn items(aws: &LocalAws, table: &str) -> Outcome<Vec<Value>> {
    let mut items = Vec::new();
    let mut request = json!({"TableName": table});
    loop {
        let mut page = call(aws, "DynamoDB_20120810.Scan", &request).await?;
        items.extend(page["Items"].as_array().cloned().unwrap_or_default());
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"].take();
        if request["ExclusiveStartKey"].is_null() {
            return Ok(items);
        }
    }
}

/// Exports a table to a bucket as DynamoDB does, which the local AWS does without manifests; the address of the summary.
///
/// # Errors
/// The API's.
pub async fn export(aws: &LocalAws, table: &str, bucket: &str, files: usize) -> Outcome<String> {
    let time = millstream::ingest::now();
    let items = items(aws, table).await?;
    let folder = format!("AWSDynamoDB/{}-{table}", time.0);
    let mut manifest = Vec::new();
    for (number, part) in items.chunks(items.len().div_ceil(files).max(1)).enumerate() {
        let mut lines = GzEncoder::new(Vec::new(), Compression::fast());
        for item in part {
            writeln!(lines, "{}", json!({"Item": item}))?;
        }
        let key = format!("{folder}/data/{number:08}.json.gz");
        store(aws, bucket, &key, lines.finish()?).await?;
        writeln!(
            manifest,
            "{}",
            json!({"itemCount": part.len(), "md5Checksum": "", "etag": "", "dataFileS3Key": key})
        )?;
    }
    let files_key = format!("{folder}/manifest-files.json");
    store(aws, bucket, &files_key, manifest).await?;
    let summary = json!({
        "version": "2020-06-30", "exportArn": format!("{}/export/{}", arn(table), time.0), "tableArn": arn(table),
        "exportTime": time.to_string(), "s3Bucket": bucket, "manifestFilesS3Key": files_key,
        "billedSizeBytes": 0, "itemCount": items.len(), "outputFormat": "DYNAMODB_JSON",
    });
    let summary_key = format!("{folder}/manifest-summary.json");
    store(aws, bucket, &summary_key, summary.to_string().into_bytes()).await?;
    Ok(format!("s3://{bucket}/{summary_key}"))
}

async fn store(aws: &LocalAws, bucket: &str, key: &str, body: Vec<u8>) -> Outcome<()> {
    let client = aws_sdk_s3::Client::new(aws.config());
    client.put_object().bucket(bucket).key(key).body(ByteStream::from(body)).send().await?;
    Ok(())
}

/// Polls a table's stream until it is told to finish and has nothing left, as [`crate::event_source::poll`] does a shard's.
///
/// # Errors
/// The API's.
pub async fn poll(
    aws: &LocalAws,
    stream: &str,
    batch_size: usize,
    function: &mut Function,
    progress: &Progress,
    seen: &mpsc::UnboundedSender<Invoked>,
) -> Outcome<()> {
    let described = call(aws, "DynamoDBStreams_20120810.DescribeStream", &json!({"StreamArn": stream})).await?;
    let shard = described["StreamDescription"]["Shards"][0]["ShardId"].as_str().unwrap_or_default().to_owned();
    let from = json!({"StreamArn": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let mut place = call(aws, "DynamoDBStreams_20120810.GetShardIterator", &from).await?["ShardIterator"].take();
    let mapping = Mapping { stream: stream.to_owned(), batch_size, bisect: true };
    while !place.is_null() {
        let finishing = progress.is_finishing();
        let mut page = call(aws, "DynamoDBStreams_20120810.GetRecords", &json!({"ShardIterator": place})).await?;
        place = page["NextShardIterator"].take();
        let records: Vec<Element> =
            page["Records"].as_array_mut().into_iter().flatten().map(|r| element(r, stream)).collect();
        progress.add(records.len());
        if records.is_empty() {
            if finishing {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        deliver(&mapping, &shard, &records, function, seen).await;
    }
    Ok(())
}

/// A record of GetRecords as Lambda hands it over.
fn element(record: &mut Value, stream: &str) -> Element {
    record["eventSourceARN"] = stream.into();
    let sequence = record["dynamodb"]["SequenceNumber"].as_str().unwrap_or_default().to_owned();
    Element { sequence, json: record.to_string() }
}

/// One request of the JSON API; the local AWS looks at no signature.
async fn call(aws: &LocalAws, target: &str, body: &Value) -> Outcome<Value> {
    let address = aws.endpoint().trim_start_matches("http://").to_owned();
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.0\r\nHost: {address}\r\nX-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=local/20260101/{REGION}/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").unwrap_or((&answer, "{}"));
    if !head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        return Err(format!("{target}: {content}").into());
    }
    Ok(serde_json::from_str(content)?)
}
