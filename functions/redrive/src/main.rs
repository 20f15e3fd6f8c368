//! Dead letters → the same pipeline again. `handle` runs one invocation of a task.

use millstream::config::Config;
use millstream::redrive::RedriveTask;
use millstream::runtime::{App, Failure, Invocation, parse_task, serve};
use millstream::task::TaskCall;

/// Redrives until the invocation's deadline and returns the task with its progress. To continue, invoke the function with the
/// returned task.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<RedriveTask, Failure> {
    app.redrive(parse_task(event)?, TaskCall::unwatched(invocation.work_deadline())).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    // Records that `dynamodb-sync` rejected without a configuration are redriven without one.
    serve(Some(Config::default_replica()), |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
