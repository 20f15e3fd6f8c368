//! The life of a function: reads the environment once, creates its resources once, and passes each event to the handler.
//!
//! An unavailable dependency never fails the start: Lambda would count that against healthy records. Errors in the
//! configuration are reported at the start and by every invocation, until they are fixed.

mod failure;
mod queues;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lambda_runtime::tower::layer::layer_fn;
use lambda_runtime::{Context, LambdaEvent, LambdaInvocation, Runtime, Service, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::aws::Aws;
use crate::backfill::{self, Backfill, BackfillProgress, BackfillTask};
use crate::board::auth::tokens::{TokenSource, TokenStore};
use crate::board::{Authentication, Board, Transport};
use crate::config::{BoardAccess, Config, Environment, Files};
use crate::database::Database;
use crate::dead_letter::DeadLetters;
use crate::dynamodb_tables::DynamodbTables;
use crate::ingest::Ingest;
use crate::object_store::{self, ObjectStore};
use crate::redrive::{self, Queues, Redrive, RedriveProgress, StreamReader};
use crate::task::{Deadline, LAST_UNIT_TIME, TaskCall};
use crate::telemetry;
use crate::transform::read_transforms;
use crate::transform::task::{TransformProgress, TransformTask, run_task};
pub use failure::Failure;
pub use queues::{QueueProblem, check_queues};

/// Reserved from the invocation's time to respond before Lambda's timeout; a quarter of the time if the timeout is short.
const MARGIN: Duration = Duration::from_millis(1_500);

/// Lambda's maximum timeout: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// The resources of a function.
pub struct App {
    environment: Environment,
    aws: Aws,
    ingest: Option<Ingest>,
    board: Option<Board>,
    /// The configuration to use if none exists.
    fallback_config: Option<Config>,
}

/// An invocation, without its event.
pub struct Invocation {
    /// Lambda's request ID.
    pub request_id: String,
    /// Time left for the work.
    pub time_left: Duration,
}

/// Serves events until Lambda stops the process. `fallback_config` is used if no configuration exists.
///
/// # Errors
/// Returns an error if the environment is incomplete or the Runtime API fails.
pub async fn serve<R, H>(fallback_config: Option<Config>, handle: H) -> Result<(), lambda_runtime::Error>
where
    R: Serialize + Send + 'static,
    H: for<'a> Fn(&'a mut App, &'a [u8], Invocation) -> Pin<Box<dyn Future<Output = Result<R, Failure>> + Send + 'a>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let environment = Environment::read()?;
    telemetry::init(&environment.function, environment.log_level);
    let mut app = App::new(environment, fallback_config);
    app.check_config_at_start();
    queues::check_at_start(&app.environment, &app.aws).await;
    let app = Arc::new(Mutex::new(app));
    let pending = PendingPayload::default();
    let pending_event = pending.clone();
    let service = service_fn(move |LambdaEvent { payload: (), context }| {
        let (app, handle, event) = (app.clone(), handle.clone(), pending_event.take());
        async move {
            let invocation = Invocation::new(&context);
            let (request, time_left) = (invocation.request_id.clone(), invocation.time_left);
            let mut app = app.lock().await;
            let outcome = tokio::time::timeout(time_left, handle(&mut app, &event, invocation)).await;
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(Failure::timed_out(time_left)));
            outcome.inspect_err(|failure| failure.log(&request))
        }
    });
    let layer = layer_fn(|inner| RawPayloadService { inner, pending: pending.clone() });
    Runtime::new(service).layer(layer).run().await
}

/// Parses the task of an invocation that is not from a stream.
///
/// # Errors
/// Returns an error with its position if the event is not a valid task.
pub fn parse_task<T: DeserializeOwned>(event: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(event).map_err(Failure::invalid_task)
}

/// The event that has not been read yet. There is at most one: Lambda sends a process one invocation at a time.
#[derive(Clone, Default)]
struct PendingPayload(Arc<std::sync::Mutex<Bytes>>);

impl PendingPayload {
    fn put(&self, event: Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = event;
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the runtime from parsing the event, so that a batch of 6 MB is parsed only once, by [`crate::record`].
struct RawPayloadService<S> {
    inner: S,
    pending: PendingPayload,
}

impl<S: Service<LambdaInvocation>> Service<LambdaInvocation> for RawPayloadService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut invocation: LambdaInvocation) -> S::Future {
        self.pending.put(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null")));
        self.inner.call(invocation)
    }
}

impl Invocation {
    fn new(context: &Context) -> Self {
        // `cargo lambda` sends a deadline in 1970, which means none.
        let left = context.deadline().duration_since(SystemTime::now()).unwrap_or(TIMEOUT_MAX);
        Self { request_id: context.request_id.clone(), time_left: left - MARGIN.min(left / 4) }
    }

    /// Until when a long task may begin new units of work; the rest is reserved for the last one.
    pub fn work_deadline(&self) -> Deadline {
        Deadline::after(self.time_left.saturating_sub(LAST_UNIT_TIME).max(self.time_left / 2))
    }
}

impl App {
    /// Creates an app without connecting to anything.
    pub fn new(environment: Environment, fallback_config: Option<Config>) -> Self {
        Self { environment, aws: Aws::default(), ingest: None, board: None, fallback_config }
    }

    /// Checks a configuration file at the start, so that its errors are logged when it is deployed.
    fn check_config_at_start(&mut self) {
        let config = &self.environment.config;
        if object_store::is_address(config) {
            return;
        }
        let checked = std::fs::read_to_string(config).map(|text| Config::parse(config, &text));
        if let Ok(Err(errors)) = checked {
            tracing::error!(error = %errors, "configuration");
        }
    }

    /// Creates an app from the process's environment, for a program on a terminal; `config` overrides the location of the
    /// configuration.
    ///
    /// # Errors
    /// Returns an error if the environment is incomplete.
    pub fn from_environment(config: Option<&str>) -> Result<Self, Failure> {
        let mut environment = Environment::read()?;
        if let Some(address) = config {
            environment.config = address.to_owned();
        }
        Ok(Self::new(environment, None))
    }

    /// The environment variables.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The AWS SDK's configuration.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Returns an error if the configuration is missing or invalid.
    pub async fn config(&self) -> Result<Config, Failure> {
        let address = &self.environment.config;
        if let Some(config) = self.fallback_config.clone().filter(|_| !self.environment.has_config()) {
            return Ok(config);
        }
        read_config(address, &self.aws).await
    }

    /// The files next to the configuration.
    ///
    /// # Errors
    /// Returns an error if the address of the configuration is invalid.
    pub fn files(&self) -> Result<Files, Failure> {
        Ok(Files::beside(&self.environment.config, &self.aws)?)
    }

    /// The environment's database; does not connect yet.
    ///
    /// # Errors
    /// Returns an error if the address is invalid.
    pub fn database(&self) -> Result<Database, Failure> {
        Ok(Database::new(&self.environment.database, self.aws.clone())?)
    }

    /// The checked configuration and the database, for functions that need nothing else.
    ///
    /// # Errors
    /// See [`Self::config`] and [`Self::database`].
    pub async fn config_and_database(&self) -> Result<(Config, Database), Failure> {
        Ok((self.config().await?, self.database()?))
    }

    /// Runs one call of a task; returns the task with its progress.
    ///
    /// # Errors
    /// See [`backfill::run`].
    pub async fn backfill(
        &mut self,
        task: BackfillTask,
        call: TaskCall<'_, BackfillProgress>,
    ) -> Result<BackfillTask, Failure> {
        let archive = ObjectStore::new(self.aws.clone(), self.environment.archive_bucket.clone());
        let tables = DynamodbTables::new(self.aws.clone());
        let ingest = self.ingest().await?;
        let progress = backfill::run(&mut Backfill { ingest, object_store: archive, tables, call }, &task).await?;
        telemetry::log_backfill(&task.source, &progress);
        Ok(BackfillTask { progress, ..task })
    }

    /// Runs one call of a task that redrives dead letters; returns the task with its progress.
    ///
    /// # Errors
    /// See [`redrive::run`].
    pub async fn redrive(
        &mut self,
        task: redrive::RedriveTask,
        call: TaskCall<'_, RedriveProgress>,
    ) -> Result<redrive::RedriveTask, Failure> {
        let Environment { dead_letter_queue, on_failure_queue, archive_bucket, .. } = self.environment.clone();
        let queues = Queues::new(self.aws.clone(), dead_letter_queue.into_iter().chain(on_failure_queue));
        let archive = ObjectStore::new(self.aws.clone(), archive_bucket);
        let streams = StreamReader::new(self.aws.clone());
        let ingest = self.ingest().await?;
        let progress =
            redrive::run(&mut Redrive { ingest, object_store: archive, streams, queues, call }, &task).await?;
        telemetry::log_redrive(&progress);
        Ok(redrive::RedriveTask { progress, ..task })
    }

    /// Runs the transforms that are due until all have run or the time of the call is over; returns the task with its progress.
    ///
    /// # Errors
    /// Returns an error if the configuration or a file cannot be read, or the connection fails.
    pub async fn transform(
        &self,
        task: TransformTask,
        call: &TaskCall<'_, TransformProgress>,
        request: &str,
    ) -> Result<TransformTask, Failure> {
        let (config, database) = self.config_and_database().await?;
        let set = read_transforms(&self.files()?).await?;
        let earlier = task.progress.results.len();
        let task = run_task(&config, &set, &database, task, call).await?;
        telemetry::log_transforms(&task.progress, earlier, request);
        Ok(task)
    }

    /// Returns the board; creates it on first use. It is always one behind HTTPS.
    ///
    /// # Errors
    /// Returns an error if nothing says who authenticates requests. See also [`Self::config`].
    pub async fn board(&mut self) -> Result<&Board, Failure> {
        let board = match self.board.take() {
            Some(board) => board,
            None => {
                let access = match self.environment.board.clone().ok_or_else(Failure::no_board_access)? {
                    BoardAccess::Secret(arn) => {
                        Authentication::Tokens(TokenStore::new(TokenSource::Secret(self.aws.clone(), arn)))
                    }
                    BoardAccess::Iam(role) => Authentication::Iam(role),
                };
                let database = Database::read_only(&self.environment.database, self.aws.clone())?;
                Board::new(self.config().await?, database, access, Transport::Https)
            }
        };
        Ok(self.board.insert(board))
    }

    /// Returns the ingest pipeline; creates it on first use.
    ///
    /// # Errors
    /// See [`Self::config`] and [`Self::database`].
    pub async fn ingest(&mut self) -> Result<&mut Ingest, Failure> {
        let ingest = match self.ingest.take() {
            Some(ingest) => ingest,
            None => {
                let (config, database) = self.config_and_database().await?;
                let Environment { dead_letter_queue, archive_bucket, function, .. } = self.environment.clone();
                let dead_letters = DeadLetters::new(self.aws.clone(), dead_letter_queue, archive_bucket, function);
                Ingest::new(config, database, dead_letters)
            }
        };
        Ok(self.ingest.insert(ingest))
    }
}

/// Reads and checks the configuration at an address: a path, or `s3://…`.
///
/// # Errors
/// Returns an error if the configuration is missing or invalid.
pub async fn read_config(address: &str, aws: &Aws) -> Result<Config, Failure> {
    let text = if object_store::is_address(address) {
        ObjectStore::new(aws.clone(), None).read_text(address).await?
    } else {
        std::fs::read_to_string(address).map_err(|error| Failure::unreadable_config(address, &error))?
    };
    Ok(Config::parse(address, &text)?)
}
