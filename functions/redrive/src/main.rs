//! Dead letters → the same way again. `handle` says what one piece of the work does.

use millstream::config::Config;
use millstream::redrive::RedriveTask;
use millstream::runtime::{App, Failure, Invocation, parse_task, serve};

/// Redrives for as long as the invocation may, and answers with the task as it is then: given again, it goes on.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<RedriveTask, Failure> {
    app.redrive(parse_task(event)?, invocation.work_deadline(), &|_| ()).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    // What `dynamodb-sync` refused without a configuration is redriven without one.
    serve(Some(Config::default_replica()), |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
