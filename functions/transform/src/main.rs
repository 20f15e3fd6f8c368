//! SQL transforms: runs those that are due, in the order of their dependencies. A state machine passes the answer on as the next
//! event until all have run (`infra/transform.asl.json`); a schedule starts it, and so does a load that has ended, with
//! `{"after": "load.NAME"}`.

use millstream::runtime::{App, Failure, Invocation, parse_task, serve};
use millstream::task::TaskCall;
use millstream::transform::task::TransformTask;

async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<TransformTask, Failure> {
    let task: TransformTask = parse_task(event)?;
    app.transform(task, &TaskCall::unwatched(invocation.work_deadline()), &invocation.request_id).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
