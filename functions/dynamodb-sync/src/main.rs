//! DynamoDB Streams → replicated tables. `handle` says what one batch does.

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use millstream::config::Config;
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

/// Brings the batch into the replica. Success is answered once everything is durable; without a dead-letter queue the
/// answer names the first record that was refused.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<DynamoDbEventResponse, Failure> {
    let report = app.ingest().await?.process_event(event, invocation.time_left).await?;
    telemetry::log_batch(&report, &invocation.request_id);
    let mut answer = DynamoDbEventResponse::default();
    if let Some(sequence) = report.retry_from {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = Some(sequence);
        answer.batch_item_failures.push(failure);
    }
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(Some(Config::default_replica()), |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
