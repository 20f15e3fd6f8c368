//! A function's life: read the environment once, build what is needed once, hand each event over.
//!
//! A dependency that is down never fails the start: Lambda would count that against healthy records. What is wrong with the
//! configuration is told at the start and by every invocation, until it is mended.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::{Context, Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::archive::{self, Archive, ObjectError};
use crate::aws::Aws;
use crate::backfill::{self, Backfill, BackfillError, Progress, Task};
use crate::config::{Config, Environment, EnvironmentError, Mistakes};
use crate::database::{Database, DatabaseError};
use crate::dead_letter::DeadLetters;
use crate::dynamodb::SourceTables;
use crate::ingest::{Ingest, IngestError};
use crate::maintain::MaintainError;
use crate::telemetry;

/// Kept back from the invocation's time, to answer while there is somebody to answer to; a quarter of a short time-out.
const MARGIN: Duration = Duration::from_millis(1_500);

/// Lambda's longest time-out: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// What a function has at hand.
pub struct App {
    environment: Environment,
    aws: Aws,
    ingest: Option<Ingest>,
    /// What is done where no configuration is at hand.
    without_config: Option<Config>,
}

/// An invocation, beside its event.
pub struct Invocation {
    /// Lambda's id of the request.
    pub request: String,
    /// How much time is left to work in.
    pub time_left: Duration,
}

/// Why an invocation failed, as Lambda is told. Holds no secret and no row's values, however it is printed.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: &'static str,
    message: String,
    needs_a_person: bool,
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self { error_type: failure.kind.to_owned(), error_message: failure.message }
    }
}

/// Serves events until Lambda ends the process.
///
/// # Errors
/// An environment that says too little, or the Runtime API.
pub async fn serve<E, R, H>(handle: H) -> Result<(), lambda_runtime::Error>
where
    E: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    H: for<'a> Fn(&'a mut App, E, Invocation) -> Pin<Box<dyn Future<Output = Result<R, Failure>> + Send + 'a>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    serve_or(None, handle).await
}

/// The same, for a function that has something to do where no file says what.
///
/// # Errors
/// As [`serve`].
pub async fn serve_or<E, R, H>(without_config: Option<Config>, handle: H) -> Result<(), lambda_runtime::Error>
where
    E: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    H: for<'a> Fn(&'a mut App, E, Invocation) -> Pin<Box<dyn Future<Output = Result<R, Failure>> + Send + 'a>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let environment = Environment::read()?;
    telemetry::start(&environment.function, environment.log_level);
    let mut app = App::new(environment, without_config);
    app.check_early();
    let app = Arc::new(Mutex::new(app));
    let service = service_fn(move |event: LambdaEvent<E>| {
        let (app, handle) = (app.clone(), handle.clone());
        async move {
            let invocation = Invocation::of(&event.context);
            let time_left = invocation.time_left;
            let mut app = app.lock().await;
            let outcome = tokio::time::timeout(time_left, handle(&mut app, event.payload, invocation)).await;
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(Failure::time_is_up(time_left)));
            outcome.inspect_err(Failure::log)
        }
    });
    lambda_runtime::run(service).await
}

impl Invocation {
    fn of(context: &Context) -> Self {
        // `cargo lambda` gives a deadline in 1970: then there is none.
        let left = context.deadline().duration_since(SystemTime::now()).unwrap_or(TIMEOUT_MAX);
        Self { request: context.request_id.clone(), time_left: left - MARGIN.min(left / 4) }
    }
}

impl App {
    /// An app in its environment; nothing is reached for yet.
    pub fn new(environment: Environment, without_config: Option<Config>) -> Self {
        Self { environment, aws: Aws::default(), ingest: None, without_config }
    }

    /// A configuration beside the binary is read at once, so that its mistakes stand in the log of the deployment.
    fn check_early(&mut self) {
        let config = &self.environment.config;
        if archive::is_address(config) {
            return;
        }
        let checked = std::fs::read_to_string(config).map(|text| Config::parse(config, &text));
        if let Ok(Err(mistakes)) = checked {
            tracing::error!(error = %mistakes, "configuration");
        }
    }

    /// An app in the process's environment, for a program on a terminal.
    ///
    /// # Errors
    /// What the environment lacks.
    pub fn from_environment() -> Result<Self, Failure> {
        Ok(Self::new(Environment::read()?, None))
    }

    async fn config(&self) -> Result<Config, Failure> {
        let address = &self.environment.config;
        if let Some(config) = self.without_config.clone().filter(|_| !self.environment.config_named()) {
            return Ok(config);
        }
        let text = if archive::is_address(address) {
            Archive::new(self.aws.clone(), None).read_text(address).await?
        } else {
            std::fs::read_to_string(address).map_err(|error| Failure::unreadable(address, &error))?
        };
        Ok(Config::parse(address, &text)?)
    }

    /// The database of the environment.
    pub fn database(&self) -> Result<Database, Failure> {
        Ok(Database::new(&self.environment.database, self.aws.clone())?)
    }

    /// The checked configuration and the database, for functions that need no more.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn system(&self) -> Result<(Config, Database), Failure> {
        Ok((self.config().await?, self.database()?))
    }

    /// Works on a task until it is done or the time is up; the task as it is then.
    ///
    /// # Errors
    /// Whatever keeps the piece from being done.
    pub async fn backfill(
        &mut self,
        task: Task,
        until: Instant,
        watch: &(dyn Fn(&Progress) + Send + Sync),
    ) -> Result<Task, Failure> {
        let archive = Archive::new(self.aws.clone(), self.environment.archive_bucket.clone());
        let tables = SourceTables::new(self.aws.clone());
        let ingest = self.ingest().await?;
        let progress = backfill::work(&mut Backfill { ingest, archive, tables, until, watch }, &task).await?;
        telemetry::progress(&task.source, &progress);
        Ok(Task { progress, ..task })
    }

    /// What ingests batches; made when it is first asked for.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn ingest(&mut self) -> Result<&mut Ingest, Failure> {
        let ingest = match self.ingest.take() {
            Some(ingest) => ingest,
            None => {
                let (config, database) = self.system().await?;
                let Environment { dead_letter_queue, archive_bucket, function, .. } = self.environment.clone();
                let dead_letters = DeadLetters::new(self.aws.clone(), dead_letter_queue, archive_bucket, function);
                Ingest::new(config, database, dead_letters)
            }
        };
        Ok(self.ingest.insert(ingest))
    }
}

impl Failure {
    fn log(&self) {
        if self.needs_a_person {
            tracing::error!(kind = self.kind, error = self.message, "a person must act");
        } else {
            tracing::warn!(kind = self.kind, error = self.message, "the invocation fails, and Lambda tries again");
        }
    }

    fn time_is_up(time: Duration) -> Self {
        let message = format!("the batch was not finished in {} ms; it is delivered again", time.as_millis());
        Self { kind: "Millstream.TimeIsUp", message, needs_a_person: false }
    }

    fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let message = format!("reading the configuration {file}: {error}; MILLSTREAM_CONFIG says where it is");
        Self { kind: "Millstream.Configuration", message, needs_a_person: true }
    }
}

/// A text for people: an error and all its sources, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let told = match below.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => crate::database::fault::describe(error),
            None => below.to_string(),
        };
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        if below.is::<tokio_postgres::Error>() {
            break;
        }
        source = below.source();
    }
    text
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self { kind: "Millstream.Configuration", message: mistakes.to_string(), needs_a_person: true }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        Self { kind: "Millstream.Environment", message: error.to_string(), needs_a_person: true }
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        Self { kind: "Millstream.Archive", message: chain(&error), needs_a_person: false }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self { kind: "Millstream.Database", message: chain(&error), needs_a_person: error.needs_a_person() }
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        Self { kind: "Millstream.Ingest", message: chain(&error), needs_a_person: error.needs_a_person() }
    }
}

impl From<BackfillError> for Failure {
    fn from(error: BackfillError) -> Self {
        Self { kind: "Millstream.Backfill", message: chain(&error), needs_a_person: error.needs_a_person() }
    }
}

impl From<MaintainError> for Failure {
    fn from(error: MaintainError) -> Self {
        Self { kind: "Millstream.Maintain", message: chain(&error), needs_a_person: error.needs_a_person() }
    }
}
