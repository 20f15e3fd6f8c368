//! Backups, exports and scans → tables. `handle` runs one invocation of a task.

use millstream::backfill::BackfillTask;
use millstream::runtime::{App, Failure, Invocation, parse_task, serve};
use millstream::task::TaskCall;

/// Runs the task until the invocation's deadline and returns it with its progress. To continue, invoke the function with the
/// returned task.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<BackfillTask, Failure> {
    app.backfill(parse_task(event)?, TaskCall::unwatched(invocation.work_deadline())).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
