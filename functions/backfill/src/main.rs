//! Backups, exports and scans → tables. `handle` says what one piece of the work does.

use millstream::backfill::BackfillTask;
use millstream::runtime::{App, Failure, Invocation, parse_task, serve};

/// Works on the task for as long as the invocation may, and answers with the task as it is then: given again, it goes on.
async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<BackfillTask, Failure> {
    app.backfill(parse_task(event)?, invocation.work_deadline(), &|_| ()).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
