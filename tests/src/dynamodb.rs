//! DynamoDB tables on the local AWS, changed, exported and read through the JSON of its API.
//!
//! Without the SDK, because Lambda delivers the API's JSON, which the SDK would parse and not keep.

use std::io::Write;

use aws_sdk_s3::primitives::ByteStream;
use flate2::Compression;
use flate2::write::GzEncoder;
use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::event_source::StreamRecord;
use crate::local_aws::{ACCOUNT, LocalAws, REGION};
use crate::system::SystemResult;

/// A table's ARN.
pub fn arn(table: &str) -> String {
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}")
}

/// Creates a table with a stream of both images; the key's attributes come with their types, the hash key first. Returns the
/// stream's ARN.
///
/// # Errors
/// Returns an error if the API call fails.
pub async fn create_table(aws: &LocalAws, table: &str, key: &[(&str, &str)]) -> SystemResult<String> {
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
/// Returns an error if the API call fails.
pub async fn put_item(aws: &LocalAws, table: &str, item: &Value) -> SystemResult<()> {
    call(aws, "DynamoDB_20120810.PutItem", &json!({"TableName": table, "Item": item})).await.map(drop)
}

/// Deletes an item.
///
/// # Errors
/// Returns an error if the API call fails.
pub async fn delete_item(aws: &LocalAws, table: &str, key: &Value) -> SystemResult<()> {
    call(aws, "DynamoDB_20120810.DeleteItem", &json!({"TableName": table, "Key": key})).await.map(drop)
}

/// All items of a table.
///
/// # Errors
/// Returns an error if the API call fails.
pub async fn items(aws: &LocalAws, table: &str) -> SystemResult<Vec<Value>> {
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

/// Exports a table to a bucket as DynamoDB does (the local AWS writes no manifests); returns the address of the summary.
///
/// # Errors
/// Returns an error if the API call fails.
pub async fn export(aws: &LocalAws, table: &str, bucket: &str, files: usize) -> SystemResult<String> {
    let time = millstream::clock::now();
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

async fn store(aws: &LocalAws, bucket: &str, key: &str, body: Vec<u8>) -> SystemResult<()> {
    let client = aws_sdk_s3::Client::new(aws.config());
    client.put_object().bucket(bucket).key(key).body(ByteStream::from(body)).send().await?;
    Ok(())
}

/// A DynamoDB record as Lambda delivers it: with the stream's ARN, in whole seconds, and of the current version; moto
/// writes an older one.
pub fn stream_record(stream: &str, record: &mut Value) -> StreamRecord {
    record["eventSourceARN"] = stream.into();
    record["eventVersion"] = "1.1".into();
    let change = &mut record["dynamodb"];
    let created = change["ApproximateCreationDateTime"].to_string();
    let seconds: i64 = created.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_default();
    change["ApproximateCreationDateTime"] = seconds.into();
    StreamRecord {
        sequence: SequenceNumber(change["SequenceNumber"].as_str().unwrap_or_default().into()),
        key: change["Keys"].to_string(),
        arrival: Timestamp(seconds * 1_000_000),
        json: record.to_string(),
    }
}

/// Sends one request of the JSON API; the local AWS checks no signature.
pub(crate) async fn call(aws: &LocalAws, target: &str, body: &Value) -> SystemResult<Value> {
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
