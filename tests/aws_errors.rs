//! Responses of AWS that cannot be used: errors and logs describe them without a word of their content.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Credentials, DatabaseAddress};
use millstream::database::Database;
use millstream::dynamodb_tables::DynamodbTables;
use millstream::object_store::{ListMode, ObjectStore};
use millstream::queue::{MessageText, Queue};
use millstream::runtime::Failure;
use millstream_tests::aws_stand_in::{Answer, AwsStandIn};
use millstream_tests::function::{Function, FunctionError, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::REGION;
use serde_json::{Value, json};

use crate::support::{Files, database};

/// Stands for a password or a row.
const MARKER: &str = "HUNTER2SECRET";

/// JSON that breaks off after a secret, as a proxy may cut it.
fn broken_json() -> Answer {
    let body =
        format!(r#"{{"SecretString":"{MARKER}","Items":[{{"id":{{"S":"{MARKER}"}}}}],"{MARKER}":"{MARKER}" oops"#);
    Answer::new(200, body).with_header("x-amzn-requestid", "request-1")
}

/// Responses that no client can use, and what their description has to contain.
fn unusable_json() -> Vec<(Answer, &'static str)> {
    let page = Answer::new(403, format!("<html>{MARKER}</html>")).with_header("content-type", "text/html");
    let error = format!(r#"{{"__type":"AccessDeniedException","message":"not authorized","detail":"{MARKER}"}}"#);
    vec![
        (broken_json(), "failed: the response (HTTP 200) could not be parsed (request ID request-1)"),
        (Answer::new(200, format!("\"{MARKER}\"")), "failed: the response (HTTP 200) could not be parsed"),
        (page, "failed: the response (HTTP 403) has no error code"),
        (
            Answer::new(400, error).with_header("x-amzn-requestid", "request-2"),
            "failed: AccessDeniedException: not authorized (request ID request-2)",
        ),
    ]
}

async fn stand_in(answer: &Answer) -> (AwsStandIn, Aws) {
    let answer = answer.clone();
    let server = AwsStandIn::start(move |_| answer.clone()).await.unwrap();
    let aws = Aws::local(server.endpoint(), REGION).await;
    (server, aws)
}

/// The error says what is expected, and its text, its `Debug` output and its sources say nothing of the content.
fn assert_described<T>(result: Result<T, impl Error>, expected: &str) {
    let error = result.err().expect("the response cannot be used");
    let mut texts = vec![format!("{error} {error:?}")];
    let mut source = error.source();
    while let Some(error) = source {
        texts.push(format!("{error} {error:?}"));
        source = error.source();
    }
    let texts = texts.join("\n");
    assert!(texts.contains(expected), "{texts}, not {expected}");
    assert!(!texts.contains(MARKER), "{texts}");
}

#[tokio::test]
async fn a_secret_is_not_in_the_error_about_its_response() {
    for (answer, expected) in unusable_json() {
        let (_server, aws) = stand_in(&answer).await;
        let credentials = Credentials::Secret("arn:secret".to_owned());
        let address = DatabaseAddress { credentials, ..DatabaseAddress::from_url("postgresql://127.0.0.1:1/x") };
        let result = Database::new(&address, aws).unwrap().connection().await.map(drop);
        assert_described(
            result.map_err(Failure::from),
            &format!("arn:secret: Secrets Manager GetSecretValue {expected}"),
        );
    }
}

#[tokio::test]
async fn a_message_is_not_in_the_error_about_the_queue() {
    for (answer, expected) in unusable_json() {
        let (server, aws) = stand_in(&answer).await;
        let queue = Queue::open(&aws, &format!("{}/1/q", server.endpoint())).await;
        let expected = |operation: &str| format!("/1/q: SQS {operation} {expected}");
        assert_described(
            queue.send(&[MessageText::from_json("\"m\"".to_owned())]).await,
            &expected("SendMessageBatch"),
        );
        assert_described(queue.count().await, &expected("GetQueueAttributes"));
        assert_described(queue.receive(Duration::from_secs(1)).await, &expected("ReceiveMessage"));
    }
}

#[tokio::test]
async fn a_received_message_is_not_in_the_error_about_its_deletion() {
    let server = AwsStandIn::start(|operation| match operation {
        "ReceiveMessage" => Answer::new(200, r#"{"Messages":[{"MessageId":"1","ReceiptHandle":"r","Body":"b"}]}"#),
        _ => broken_json(),
    });
    let server = server.await.unwrap();
    let aws = Aws::local(server.endpoint(), REGION).await;
    let queue = Queue::open(&aws, &format!("{}/1/q", server.endpoint())).await;
    let messages = queue.receive(Duration::from_secs(1)).await.unwrap();
    assert_eq!(messages.len(), 1);
    assert_described(queue.delete(&messages).await, "SQS DeleteMessageBatch failed: the response (HTTP 200)");
    assert_described(
        queue.release(&messages).await,
        "SQS ChangeMessageVisibilityBatch failed: the response (HTTP 200)",
    );
}

#[tokio::test]
async fn an_item_is_not_in_the_error_about_its_table() {
    for (answer, expected) in unusable_json() {
        let (_server, aws) = stand_in(&answer).await;
        let tables = DynamodbTables::new(aws);
        let expected = |operation: &str| format!("DynamoDB table T: DynamoDB {operation} {expected}");
        assert_described(tables.key("T").await, &expected("DescribeTable"));
        assert_described(tables.scan("T", 0, 1, None).await, &expected("Scan"));
        assert_described(tables.items("T", &[r#"{"id":{"S":"a"}}"#.to_owned()]).await, &expected("BatchGetItem"));
    }
}

#[tokio::test]
async fn an_object_is_not_in_the_error_about_it() {
    let page = Answer::new(403, format!("<html>{MARKER}</html>")).with_header("x-amz-request-id", "request-3");
    let xml = format!("<Error><Code>AccessDenied</Code><Message>no</Message><Detail>{MARKER}</Detail></Error>");
    for (answer, expected) in [
        (page, "failed: the response (HTTP 403) has no error code (request ID request-3)"),
        (Answer::new(403, xml), "failed: AccessDenied: no"),
    ] {
        let (_server, aws) = stand_in(&answer).await;
        let store = ObjectStore::new(aws, Some("bucket".to_owned()));
        assert_described(store.put("key", b"x".to_vec()).await, &format!("s3://bucket/key: S3 PutObject {expected}"));
        assert_described(store.list("key", "", ListMode::Objects).await, &format!("S3 ListObjectsV2 {expected}"));
        assert_described(store.read("s3://bucket/key").await, &format!("s3://bucket/key: S3 GetObject {expected}"));
    }
}

#[tokio::test]
async fn a_broken_success_of_s3_does_not_appear_in_its_error() {
    let listing = Answer::new(200, format!("<{MARKER}><Contents><Key>{MARKER}</Key></Contents></{MARKER}>"));
    let (_server, aws) = stand_in(&listing).await;
    let store = ObjectStore::new(aws, Some("bucket".to_owned()));
    let unparsed = "failed: the response (HTTP 200) could not be parsed";
    assert_described(store.list("key", "", ListMode::Objects).await, &format!("S3 ListObjectsV2 {unparsed}"));

    let header = Answer::new(200, "").with_header("x-amz-server-side-encryption-bucket-key-enabled", MARKER);
    let (_server, aws) = stand_in(&header).await;
    let store = ObjectStore::new(aws, Some("bucket".to_owned()));
    assert_described(store.put("key", b"x".to_vec()).await, &format!("S3 PutObject {unparsed}"));

    // The object is not what its checksum says, and not what its name says.
    let object = Answer::new(200, MARKER).with_header("x-amz-checksum-crc32", "AAAAAA==");
    let (_server, aws) = stand_in(&object).await;
    let store = ObjectStore::new(aws.clone(), None);
    assert_described(store.read("s3://bucket/key").await, "could not read s3://bucket/key");
    let (_server, aws) = stand_in(&Answer::new(200, MARKER)).await;
    assert_described(ObjectStore::new(aws, None).read("s3://bucket/key.gz").await, "could not read s3://bucket/key.gz");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_described_by_the_connection() {
    let aws = Aws::local("http://127.0.0.1:1", REGION).await;
    let queue = Queue::open(&aws, "http://127.0.0.1:1/1/q").await;
    assert_described(queue.count().await, "SQS GetQueueAttributes failed: connection error: Connection refused");
}

/// A function whose AWS is the stand-in, and which logs everything.
async fn function(name: &str, server: &AwsStandIn, environment: &[(&str, &str)]) -> Function {
    let common = [("AWS_ENDPOINT_URL", server.endpoint()), ("AWS_REGION", REGION), ("AWS_LAMBDA_LOG_LEVEL", "TRACE")];
    let pairs = common.iter().chain(environment).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings =
        Settings { binary: binary(name).unwrap(), environment: pairs.collect(), timeout: Duration::from_secs(30) };
    Function::start(settings).await.unwrap()
}

const LOCAL_CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")];

const LOG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n";

fn one_record() -> Vec<u8> {
    event("s", "shardId-000000000000", &[ShardRecord::numbered(1, r#"{"id":1}"#)])
}

/// The log contains what is expected and nothing of a response.
fn assert_logged(function: &Function, expected: &str) {
    let log = std::fs::read_to_string(function.log()).unwrap();
    assert!(log.contains(expected), "{log}\nnot {expected}");
    assert!(!log.contains(MARKER), "{log}");
}

#[tokio::test]
async fn a_secret_is_in_no_log_at_any_level() {
    let files = Files::new("aws-errors-secret");
    let config = files.write("millstream.toml", LOG);
    let server = AwsStandIn::start(|_| broken_json()).await.unwrap();
    let [key, secret] = LOCAL_CREDENTIALS;
    let environment = [key, secret, ("DATABASE_SECRET_ARN", "arn:secret"), ("MILLSTREAM_CONFIG", &*config)];
    let mut function = function("kinesis-ingest", &server, &environment).await;
    let Err(FunctionError::Handled(error)) = function.invoke(one_record()).await else { panic!("there is no login") };
    assert!(error.contains("Secrets Manager GetSecretValue failed") && !error.contains(MARKER), "{error}");
    assert_logged(&function, "Secrets Manager GetSecretValue failed: the response (HTTP 200) could not be parsed");
}

/// The credentials of the function's role come over HTTP, too.
#[tokio::test]
async fn credentials_of_the_role_are_in_no_log_at_any_level() {
    let files = Files::new("aws-errors-role");
    let config = files.write("millstream.toml", LOG);
    let body = format!(r#"{{"AccessKeyId":"{MARKER}","SecretAccessKey":"{MARKER}","Token":"{MARKER}" oops"#);
    let server = AwsStandIn::start(move |_| Answer::new(200, body.clone())).await.unwrap();
    let role = format!("{}/role", server.endpoint());
    for login in [("DATABASE_SECRET_ARN", "arn:secret"), ("DATABASE_AUTH", "iam")] {
        let url = ("DATABASE_URL", "postgresql://u@db.example/x");
        let environment = [login, url, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*role), ("MILLSTREAM_CONFIG", &*config)];
        let mut function = function("kinesis-ingest", &server, &environment).await;
        let error = function.invoke(one_record()).await.unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains(MARKER), "{error}");
        assert_logged(&function, "credentials could not be loaded: ");
    }
}

const KINESIS: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
const DYNAMODB: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-02-01T00:00:00.000";

/// A batch that Lambda discarded.
fn discarded(info: &str, stream: &str) -> Value {
    json!({"requestContext": {"requestId": "r", "functionArn": "f", "condition": "RetryAttemptsExhausted"}, "version": "1.0",
        "timestamp": "2026-02-08T23:38:06.021Z", info: {"shardId": "shard-1", "startSequenceNumber": "1",
        "endSequenceNumber": "2", "approximateArrivalOfFirstRecord": "2026-02-08T23:30:00Z",
        "approximateArrivalOfLastRecord": "2026-02-08T23:30:05Z", "batchSize": 2, "streamArn": stream}})
}

/// A dead letter without its payload, and without the shard, which DynamoDB does not name.
fn withheld() -> Value {
    json!({"version": 1, "source": "log", "place": {"stream": DYNAMODB, "shard": "", "sequence_number": "1",
        "sub_sequence_number": 0}, "arrival": "2026-02-08T23:30:00Z", "partition_key": "", "redacted": false,
        "payload": {"withheld": {"bytes": 1, "sha256": "00"}}, "digest": "0", "attempts": 1, "function": "f",
        "error": {"class": "malformed", "table": null, "sqlstate": null, "message": ""}})
}

/// A response of SQS with one message, and without one from the second time on.
fn receive(message: &Value, is_delivered: &AtomicBool) -> Answer {
    if is_delivered.swap(true, Ordering::SeqCst) {
        return Answer::new(200, "{}");
    }
    let message = json!({"MessageId": "1", "ReceiptHandle": "r", "Body": message.to_string()});
    Answer::new(200, json!({"Messages": [message]}).to_string())
}

#[tokio::test]
async fn records_of_a_stream_are_in_no_log_at_any_level() {
    let (url, files) = (database().await, Files::new("aws-errors-stream"));
    let config =
        files.write("millstream.toml", &format!("{LOG}[source.shop]\nstream = \"t\"\nformat = \"dynamodb\"\n"));
    for (message, broken, service) in [
        (discarded("KinesisBatchInfo", KINESIS), "GetShardIterator", "Kinesis"),
        (discarded("KinesisBatchInfo", KINESIS), "GetRecords", "Kinesis"),
        (discarded("DDBStreamBatchInfo", DYNAMODB), "GetShardIterator", "DynamoDB Streams"),
        (discarded("DDBStreamBatchInfo", DYNAMODB), "GetRecords", "DynamoDB Streams"),
        (withheld(), "DescribeStream", "DynamoDB Streams"),
    ] {
        let is_delivered = AtomicBool::new(false);
        let answer = move |operation: &str| match operation {
            "ReceiveMessage" => receive(&message, &is_delivered),
            "ChangeMessageVisibilityBatch" => Answer::new(200, r#"{"Successful":[],"Failed":[]}"#),
            _ if operation == broken => broken_json(),
            "GetShardIterator" => Answer::new(200, r#"{"ShardIterator":"i"}"#),
            _ => Answer::new(400, r#"{"__type":"UnexpectedRequest"}"#),
        };
        let server = AwsStandIn::start(answer).await.unwrap();
        let queue = format!("{}/1/q", server.endpoint());
        let [key, secret] = LOCAL_CREDENTIALS;
        let environment =
            [key, secret, ("DATABASE_URL", &*url), ("MILLSTREAM_CONFIG", &*config), ("DEAD_LETTER_QUEUE_URL", &*queue)];
        let mut function = function("redrive", &server, &environment).await;
        let answer = function.invoke("{}").await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["progress"]["kept"], json!({"unavailable": 1}), "{answer}");
        let expected = format!("{service} {broken} failed: the response (HTTP 200) could not be parsed");
        assert_logged(&function, &expected);
    }
}
