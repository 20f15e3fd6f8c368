//! Why an invocation failed: one form for all errors, for Lambda, the log and the metrics.

use std::time::Duration;

use lambda_runtime::Diagnostic;

use crate::backfill::BackfillError;
use crate::config::{ConfigErrors, EnvironmentError, FileError};
use crate::database::DatabaseError;
use crate::ingest::IngestError;
use crate::maintain::MaintainError;
use crate::object_store::ObjectError;
use crate::redrive::RedriveError;
use crate::status::StatusError;
use crate::telemetry;
use crate::totals::TotalError;
use crate::transform::TransformError;

/// The kind of failure in which records have no outcome: a bug in Millstream, with its own alarm.
const UNACCOUNTED: &str = "Millstream.Unaccounted";

/// Why an invocation failed, as reported to Lambda. Contains no secrets and no row values, in any output format.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: &'static str,
    message: String,
    needs_operator: bool,
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

impl Failure {
    /// Writes one line to the log and one line of metrics.
    pub(super) fn log(&self, request: &str) {
        if self.needs_operator {
            tracing::error!(request, kind = self.kind, error = self.message, "operator action required");
        } else {
            tracing::warn!(request, kind = self.kind, error = self.message, "invocation failed; Lambda will retry");
        }
        telemetry::count_failure(request, u64::from(self.needs_operator), u64::from(self.kind == UNACCOUNTED));
    }

    pub(super) fn timed_out(time: Duration) -> Self {
        let message = format!("batch not finished within {} ms; Lambda will redeliver it", time.as_millis());
        Self { kind: "Millstream.TimeIsUp", message, needs_operator: false }
    }

    pub(super) fn invalid_task(error: serde_json::Error) -> Self {
        let message = format!("the event is not a task of this function: {error}");
        Self { kind: "Millstream.Event", message, needs_operator: true }
    }

    pub(super) fn no_board_access() -> Self {
        let message = "nothing says who may open the board; set BOARD_SECRET_ARN or BOARD_IAM_ROLE".to_owned();
        Self { kind: "Millstream.Environment", message, needs_operator: true }
    }

    pub(super) fn unreadable_config(file: &str, error: &std::io::Error) -> Self {
        let message = format!("could not read the configuration {file}: {error}; MILLSTREAM_CONFIG must name it");
        Self { kind: "Millstream.Configuration", message, needs_operator: true }
    }
}

/// Returns an error and all its sources as text, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let message = match inner.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => crate::database::sqlstate::describe(error),
            None => inner.to_string(),
        };
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        if inner.is::<tokio_postgres::Error>() {
            break;
        }
        source = inner.source();
    }
    text
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self { kind: "Millstream.Configuration", message: errors.to_string(), needs_operator: true }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Object(error) => error.into(),
            FileError::Disk { .. } | FileError::Link { .. } => {
                Self { kind: "Millstream.Configuration", message: chain(&error), needs_operator: true }
            }
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        Self { kind: "Millstream.Environment", message: error.to_string(), needs_operator: true }
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        Self { kind: "Millstream.Archive", message: chain(&error), needs_operator: false }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self { kind: "Millstream.Database", message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        let kind = if error.is_unaccounted() { UNACCOUNTED } else { "Millstream.Ingest" };
        Self { kind, message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<BackfillError> for Failure {
    fn from(error: BackfillError) -> Self {
        let unaccounted = matches!(&error, BackfillError::Ingest(error) if error.is_unaccounted());
        let kind = if unaccounted { UNACCOUNTED } else { "Millstream.Backfill" };
        Self { kind, message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        Self { kind: "Millstream.Redrive", message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self { kind: "Millstream.Status", message: chain(&error), needs_operator: false }
    }
}

impl From<TotalError> for Failure {
    fn from(error: TotalError) -> Self {
        Self { kind: "Millstream.Totals", message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<TransformError> for Failure {
    fn from(error: TransformError) -> Self {
        Self { kind: "Millstream.Transform", message: chain(&error), needs_operator: error.needs_operator() }
    }
}

impl From<MaintainError> for Failure {
    fn from(error: MaintainError) -> Self {
        Self { kind: "Millstream.Maintain", message: chain(&error), needs_operator: error.needs_operator() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Unaccounted;

    #[test]
    fn unaccounted_records_have_their_own_kind_of_failure_in_every_task() {
        let lost = || IngestError::from(Unaccounted(3));
        for failure in [Failure::from(lost()), Failure::from(BackfillError::from(lost()))] {
            assert_eq!((failure.kind, failure.needs_operator), (UNACCOUNTED, true));
            assert_eq!(failure.message, "3 records have no outcome; the batch was not acknowledged (this is a bug)");
        }
        let other = Failure::from(IngestError::UnknownStream("s".to_owned()));
        assert_eq!((other.kind, other.needs_operator), ("Millstream.Ingest", true));
    }
}
