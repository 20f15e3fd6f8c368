//! A function's life: read the environment once, build what is needed once, hand each event over.
//!
//! A dependency that is down never fails the start: Lambda would count that against healthy records. What is wrong with the
//! configuration is told at the start and by every invocation, until it is mended.

mod failure;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use lambda_runtime::tower::layer::layer_fn;
use lambda_runtime::{Context, LambdaEvent, LambdaInvocation, Runtime, Service, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::aws::Aws;
use crate::backfill::{self, Backfill, BackfillProgress, BackfillTask};
use crate::config::{Config, Environment};
use crate::database::Database;
use crate::dead_letter::DeadLetters;
use crate::dynamodb_tables::DynamodbTables;
use crate::ingest::Ingest;
use crate::object_store::{self, ObjectStore};
use crate::redrive::{self, Queues, Redrive, StreamReader};
use crate::telemetry;
pub use failure::Failure;

/// Kept back from the invocation's time, to answer while there is somebody to answer to; a quarter of a short time-out.
const MARGIN: Duration = Duration::from_millis(1_500);

/// Kept back from a piece of a longer work for the batch that is being written when its time is up.
const LAST_BATCH_TIME: Duration = Duration::from_secs(30);

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
    pub request_id: String,
    /// How much time is left to work in.
    pub time_left: Duration,
}

/// Serves events until Lambda ends the process; with `without_config` also where no file says what is to be done.
///
/// # Errors
/// An environment that says too little, or the Runtime API.
pub async fn serve<R, H>(without_config: Option<Config>, handle: H) -> Result<(), lambda_runtime::Error>
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
    let mut app = App::new(environment, without_config);
    app.check_config_at_start();
    let app = Arc::new(Mutex::new(app));
    let unread = PendingPayload::default();
    let read = unread.clone();
    let service = service_fn(move |LambdaEvent { payload: (), context }| {
        let (app, handle, event) = (app.clone(), handle.clone(), read.take());
        async move {
            let invocation = Invocation::of(&context);
            let (request, time_left) = (invocation.request_id.clone(), invocation.time_left);
            let mut app = app.lock().await;
            let outcome = tokio::time::timeout(time_left, handle(&mut app, &event, invocation)).await;
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(Failure::timed_out(time_left)));
            outcome.inspect_err(|failure| failure.log(&request))
        }
    });
    let layer = layer_fn(|inner| RawPayloadService { inner, unread: unread.clone() });
    Runtime::new(service).layer(layer).run().await
}

/// Reads what an invocation of another kind than a stream's asks for.
///
/// # Errors
/// What is no such task, and where.
pub fn parse_task<T: DeserializeOwned>(event: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(event).map_err(Failure::invalid_task)
}

/// An event that nobody has read yet. There is at most one: Lambda gives a process one invocation at a time.
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

/// Keeps the runtime from reading the event: a batch of 6 MB is read once, by [`crate::record`].
struct RawPayloadService<S> {
    inner: S,
    unread: PendingPayload,
}

impl<S: Service<LambdaInvocation>> Service<LambdaInvocation> for RawPayloadService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut invocation: LambdaInvocation) -> S::Future {
        self.unread.put(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null")));
        self.inner.call(invocation)
    }
}

impl Invocation {
    fn of(context: &Context) -> Self {
        // `cargo lambda` gives a deadline in 1970: then there is none.
        let left = context.deadline().duration_since(SystemTime::now()).unwrap_or(TIMEOUT_MAX);
        Self { request_id: context.request_id.clone(), time_left: left - MARGIN.min(left / 4) }
    }

    /// Until when a piece of a longer work may take up new batches: the last one has to be brought to its end.
    pub fn work_deadline(&self) -> Instant {
        Instant::now() + self.time_left.saturating_sub(LAST_BATCH_TIME).max(self.time_left / 2)
    }
}

impl App {
    /// An app in its environment; nothing is reached for yet.
    pub fn new(environment: Environment, without_config: Option<Config>) -> Self {
        Self { environment, aws: Aws::default(), ingest: None, without_config }
    }

    /// A configuration beside the binary is read at once, so that its mistakes stand in the log of the deployment.
    fn check_config_at_start(&mut self) {
        let config = &self.environment.config;
        if object_store::is_address(config) {
            return;
        }
        let checked = std::fs::read_to_string(config).map(|text| Config::parse(config, &text));
        if let Ok(Err(mistakes)) = checked {
            tracing::error!(error = %mistakes, "configuration");
        }
    }

    /// An app in the process's environment, for a program on a terminal; `config` says where the configuration is, if not the
    /// environment.
    ///
    /// # Errors
    /// What the environment lacks.
    pub fn from_environment(config: Option<&str>) -> Result<Self, Failure> {
        let mut environment = Environment::read()?;
        config.into_iter().for_each(|address| environment.config = address.to_owned());
        Ok(Self::new(environment, None))
    }

    /// What the environment says.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The AWS SDK's configuration.
    pub fn aws(&self) -> &Aws {
        &self.aws
    }

    /// The checked configuration.
    ///
    /// # Errors
    /// Where there is none, and what is wrong with it.
    pub async fn config(&self) -> Result<Config, Failure> {
        let address = &self.environment.config;
        if let Some(config) = self.without_config.clone().filter(|_| !self.environment.has_config()) {
            return Ok(config);
        }
        read_config(address, &self.aws).await
    }

    /// The database of the environment.
    pub fn database(&self) -> Result<Database, Failure> {
        Ok(Database::new(&self.environment.database, self.aws.clone())?)
    }

    /// The checked configuration and the database, for functions that need no more.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn config_and_database(&self) -> Result<(Config, Database), Failure> {
        Ok((self.config().await?, self.database()?))
    }

    /// Works on a task until it is done or the time is up; the task as it is then.
    ///
    /// # Errors
    /// Whatever keeps the piece from being done.
    pub async fn backfill(
        &mut self,
        task: BackfillTask,
        until: Instant,
        watch: &(dyn Fn(&BackfillProgress) + Send + Sync),
    ) -> Result<BackfillTask, Failure> {
        let archive = ObjectStore::new(self.aws.clone(), self.environment.archive_bucket.clone());
        let tables = DynamodbTables::new(self.aws.clone());
        let ingest = self.ingest().await?;
        let progress = backfill::run(&mut Backfill { ingest, archive, tables, until, watch }, &task).await?;
        telemetry::log_backfill(&task.source, &progress);
        Ok(BackfillTask { progress, ..task })
    }

    /// Redrives dead letters until the queues have been swept or the time is up; the task as it is then.
    ///
    /// # Errors
    /// Whatever keeps the piece from being done.
    pub async fn redrive(
        &mut self,
        task: redrive::RedriveTask,
        until: Instant,
        watch: &(dyn Fn(&redrive::RedriveProgress) + Send + Sync),
    ) -> Result<redrive::RedriveTask, Failure> {
        let Environment { dead_letter_queue, on_failure_queue, archive_bucket, .. } = self.environment.clone();
        let queues = Queues::new(self.aws.clone(), dead_letter_queue.into_iter().chain(on_failure_queue));
        let archive = ObjectStore::new(self.aws.clone(), archive_bucket);
        let streams = StreamReader::new(self.aws.clone());
        let ingest = self.ingest().await?;
        let progress = redrive::run(&mut Redrive { ingest, archive, streams, queues, until, watch }, &task).await?;
        telemetry::log_redrive(&progress);
        Ok(redrive::RedriveTask { progress, ..task })
    }

    /// What ingests batches; made when it is first asked for.
    ///
    /// # Errors
    /// What is wrong with the configuration.
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
/// Where there is none, and what is wrong with it.
pub async fn read_config(address: &str, aws: &Aws) -> Result<Config, Failure> {
    let text = if object_store::is_address(address) {
        ObjectStore::new(aws.clone(), None).read_text(address).await?
    } else {
        std::fs::read_to_string(address).map_err(|error| Failure::unreadable_event(address, &error))?
    };
    Ok(Config::parse(address, &text)?)
}
