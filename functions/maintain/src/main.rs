//! Scheduled upkeep: partitions made ahead of time, expired ones dropped, old deletes forgotten. The event says nothing that matters.

use millstream::maintain::{MaintenanceReport, maintain};
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

async fn handle(app: &mut App, _event: &[u8], invocation: Invocation) -> Result<MaintenanceReport, Failure> {
    let (config, database) = app.config_and_database().await?;
    let upkeep = maintain(&config, &database).await?;
    telemetry::log_maintenance(&upkeep, &invocation.request_id);
    Ok(upkeep)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
