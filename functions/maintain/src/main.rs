//! Scheduled maintenance: creates partitions ahead of time, drops expired partitions, and prunes old tombstones. The event is
//! ignored.

use millstream::maintain::{MaintenanceReport, maintain};
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

async fn handle(app: &mut App, _event: &[u8], invocation: Invocation) -> Result<MaintenanceReport, Failure> {
    let (config, database) = app.config_and_database().await?;
    let report = maintain(&config, &database).await?;
    telemetry::log_maintenance(&report, &invocation.request_id);
    Ok(report)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
