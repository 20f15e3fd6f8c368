//! Kinesis → PostgreSQL. `handle` says what one batch does.

use aws_lambda_events::event::streams::KinesisEventResponse;
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

/// Brings the batch into the database. Success is answered once everything is durable; without a dead-letter queue the
/// answer names the first record that was refused.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<KinesisEventResponse, Failure> {
    let report = app.ingest().await?.process_event(event, invocation.time_left).await?;
    telemetry::log_batch(&report, &invocation.request_id);
    let mut answer = KinesisEventResponse::default();
    report.retry_from.into_iter().for_each(|sequence| answer.add_failure(sequence));
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
