//! Backups, exports and scans → tables. `handle` says what one piece of the work does.

use millstream::backfill::Task;
use millstream::runtime::{App, Failure, Invocation, serve, task};

/// Works on the task for as long as the invocation may, and answers with the task as it is then: given again, it goes on.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<Task, Failure> {
    app.backfill(task(event)?, invocation.working_until(), &|_| ()).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
