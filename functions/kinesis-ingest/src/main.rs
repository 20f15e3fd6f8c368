//! Kinesis → PostgreSQL. `handle` processes one batch.

use aws_lambda_events::event::streams::KinesisEventResponse;
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

/// Writes the batch to the database. Returns success once everything is durable. Without a dead-letter queue, the response names
/// the first rejected record.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<KinesisEventResponse, Failure> {
    let report = app.ingest().await?.process_event(event, invocation.time_left).await?;
    telemetry::log_batch(&report, &invocation.request_id);
    let mut response = KinesisEventResponse::default();
    if let Some(sequence_number) = report.retry_from {
        response.add_failure(sequence_number);
    }
    Ok(response)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
