//! DynamoDB Streams → replicated tables. `handle` processes one batch.

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use millstream::config::Config;
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

/// Writes the batch to the replica. Returns success once everything is durable. Without a dead-letter queue, the response names
/// the first rejected record.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<DynamoDbEventResponse, Failure> {
    let report = app.ingest().await?.process_event(event, invocation.time_left).await?;
    telemetry::log_batch(&report, &invocation.request_id);
    let mut response = DynamoDbEventResponse::default();
    if let Some(sequence_number) = report.retry_from {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = Some(sequence_number);
        response.batch_item_failures.push(failure);
    }
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(Some(Config::default_replica()), |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
