//! The batch layer of totals: builds what is configured, sums all rows, adds the differences, and reports them. A state machine
//! runs it in steps, with an invocation for each total. Without a step in its event, one invocation does it for all totals.

use millstream::runtime::{App, Failure, Invocation, parse_task, serve};
use millstream::telemetry;
use millstream::totals::task::{Step, TotalsAnswer, TotalsTask, run_task};

async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<TotalsAnswer, Failure> {
    let task: TotalsTask = parse_task(event)?;
    let is_last_step = task.step.is_none_or(|step| step == Step::Report);
    let (config, database) = app.config_and_database().await?;
    let answer = run_task(&config, &database, task, invocation.work_deadline()).await?;
    if is_last_step {
        telemetry::log_totals(&answer, &invocation.request_id);
    }
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}
