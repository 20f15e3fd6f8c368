//! The environments of one function: one process per concurrent invocation, reused for the next one, as Lambda does.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, TryAcquireError};

use super::response::Response;
use crate::function::{Function, Settings, arn, request_id};

/// An account's concurrency, which applies to functions without reserved concurrency:
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const ACCOUNT_CONCURRENCY: usize = 1_000;

/// A function's environments.
pub struct Environments {
    settings: Settings,
    concurrency: Semaphore,
    idle: Mutex<Vec<Function>>,
    logs: Mutex<Vec<PathBuf>>,
}

/// One invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its request id.
    pub request_id: String,
    /// When it was requested.
    pub began: Instant,
    /// How long it took.
    pub time: Duration,
    /// Its outcome.
    pub response: Response,
}

impl Environments {
    /// Creates none yet: they are started on demand.
    pub fn new(settings: Settings) -> Self {
        Self::with_concurrency(settings, ACCOUNT_CONCURRENCY)
    }

    /// Sets the maximum (`ReservedConcurrentExecutions`); invocations beyond it are throttled.
    pub fn with_concurrency(settings: Settings, reserved: usize) -> Self {
        Self { settings, concurrency: Semaphore::new(reserved), idle: Mutex::default(), logs: Mutex::default() }
    }

    /// The function's ARN.
    pub fn function_arn(&self) -> String {
        arn(&self.settings.binary.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Invokes the function in a free environment.
    pub async fn invoke(&self, payload: impl Into<Bytes>) -> Invocation {
        let began = Instant::now();
        let ended = |request_id, response| Invocation { request_id, began, time: began.elapsed(), response };
        let _permit = match self.concurrency.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return ended(request_id(), Response::NotInvoked("Rate Exceeded.".to_owned()));
            }
        };
        let mut function = match self.environment().await {
            Ok(function) => function,
            Err(error) => return ended(request_id(), Response::NotInvoked(error.to_string())),
        };
        let response = function.invoke(payload).await.map_or_else(Response::Failed, Response::Answered);
        let ended = ended(function.request().to_owned(), response);
        locked(&self.idle).push(function);
        ended
    }

    /// Ends all environments and returns their logs.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub fn end(&self) -> std::io::Result<String> {
        locked(&self.idle).clear();
        std::mem::take(&mut *locked(&self.logs)).into_iter().map(std::fs::read_to_string).collect()
    }

    async fn environment(&self) -> std::io::Result<Function> {
        let idle = locked(&self.idle).pop();
        if let Some(function) = idle {
            return Ok(function);
        }
        let function = Function::start(self.settings.clone()).await?;
        locked(&self.logs).push(function.log());
        Ok(function)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
