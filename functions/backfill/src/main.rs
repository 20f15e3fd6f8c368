//! Backups, exports and scans → tables. `handle` says what one piece of the work does.

use std::time::{Duration, Instant};

use millstream::backfill::Task;
use millstream::runtime::{App, Failure, Invocation, serve};

/// Kept back from an invocation for the batch that is being written when the time is up.
const LAST_BATCH: Duration = Duration::from_secs(30);

/// Works on the task for as long as the invocation may, and answers with the task as it is then: given again, it goes on.
async fn handle(app: &mut App, task: Task, invocation: Invocation) -> Result<Task, Failure> {
    let time = invocation.time_left.saturating_sub(LAST_BATCH).max(invocation.time_left / 2);
    app.backfill(task, Instant::now() + time, &|_| ()).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(|app, task, invocation| Box::pin(handle(app, task, invocation))).await
}
