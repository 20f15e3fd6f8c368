//! The batch layer of totals: builds what is configured, sums all rows, adds the differences, and reports them. Without a
//! step in its event, for example from a schedule, one invocation does it for all totals.

use millstream::runtime::{App, Failure, Invocation, parse_task, serve};
use millstream::telemetry;
use millstream::totals::task::{Step, TotalsAnswer, TotalsTask, run_task};

async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<TotalsAnswer, Failure> {
    let task: TotalsTask = parse_task(event)?;
    let reports = task.step.is_none_or(|step| step == Step::Report);
    let (config, database) = app.config_and_database().await?;
    let answer = run_task(&config, &database, task, invocation.time_left).await?;
    if reports {
        telemetry::log_totals(&answer, &invocation.request_id);
    }
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
