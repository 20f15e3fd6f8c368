//! A running function: delivers batches to it and collects its dead letters.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use millstream::config::{Format, stream_name_from_arn};
use millstream::record::unpack;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::batches::{Batches, RECORD_BYTES_MAX, STREAM_RECORD_BYTES};
use super::detect::Layout;
use super::documents::{Document, Documents};
use super::input::InputReader;
use super::rejections::{RejectedDocument, Rejections};
use super::settings::Settings;
use super::sink::Sink;
use super::summary::{Summary, thousands};
use crate::function::{Function, FunctionError, Settings as FunctionSettings, binary};
use crate::system::SystemResult;

/// Lambda's longest time-out.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(900);

const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Records of a replicated table without a known key are delivered again as long as they are younger than two minutes. Here
/// no further record can provide the key.
const REPLICATED_AGE: Duration = Duration::from_secs(600);

/// A function and what it has rejected so far.
pub struct Delivery {
    function: Function,
    sink: Sink,
    rejections: Rejections,
}

impl Delivery {
    /// Starts a function.
    ///
    /// # Errors
    /// Returns an error of the operating system, or if the binary is not built.
    pub async fn start(name: &str, config: Option<&Path>, url: &str, sink: Sink) -> SystemResult<Self> {
        let mut environment = sink.environment();
        environment.push(("DATABASE_URL".to_owned(), url.to_owned()));
        if let Some(config) = config {
            environment.push(("MILLSTREAM_CONFIG".to_owned(), config.to_string_lossy().into_owned()));
        }
        let settings = FunctionSettings { binary: binary(name)?, environment, timeout: INVOCATION_TIMEOUT };
        Ok(Self { function: Function::start(settings).await?, sink, rejections: Rejections::default() })
    }

    /// Where the function's log is.
    pub fn log(&self) -> PathBuf {
        self.function.log()
    }

    /// Ends the function and returns what it has rejected.
    pub fn into_rejections(self) -> Rejections {
        self.rejections
    }

    /// Invokes the function with an unchanged event.
    ///
    /// # Errors
    /// Returns an error if the invocation fails.
    pub async fn invoke_once(&mut self, payload: Vec<u8>) -> SystemResult<Summary> {
        let documents = unpack(&payload).map_or(0, |batch| batch.records.len() as u64);
        let answer = Some(self.invoke(payload).await?);
        Ok(Summary { documents, answer, ..Summary::new(Layout::LambdaEvent) })
    }

    /// Invokes the function with all documents of a file.
    ///
    /// # Errors
    /// Returns an error if reading or an invocation fails.
    pub async fn ingest(
        &mut self,
        documents: &mut Documents<InputReader>,
        layout: Layout,
        settings: &Settings,
        progress: &dyn Fn(&str),
    ) -> SystemResult<Summary> {
        let mut batches = Batches::new(&settings.stream, arrival_seconds(settings.format)?);
        let (mut summary, mut last_progress) = (Summary::new(layout), Instant::now());
        while let Some(document) = read_next(documents, &summary)? {
            summary.documents += 1;
            if document.is_too_long {
                self.rejections.add(too_long(document.number));
                continue;
            }
            summary.large_documents += u64::from(document.bytes.len() > STREAM_RECORD_BYTES);
            let is_dynamodb = settings.format == Format::Dynamodb;
            let data = if is_dynamodb { with_table_name(document.bytes) } else { document.bytes };
            if let Some(event) = batches.push(document.number, data) {
                self.invoke(event).await?;
            }
            if last_progress.elapsed() > PROGRESS_INTERVAL {
                progress(&format!("{} {}s so far …", thousands(summary.documents), layout.unit()));
                last_progress = Instant::now();
            }
        }
        if let Some(event) = batches.take() {
            self.invoke(event).await?;
        }
        Ok(Summary { blank_lines: documents.blank_lines(), is_truncated: documents.is_truncated(), ..summary })
    }

    async fn invoke(&mut self, payload: Vec<u8>) -> SystemResult<String> {
        let answer = self.function.invoke(payload).await;
        let answer = answer.map_err(|error| {
            format!("{}; the function's log is {}", error_message(&error), self.function.log().display())
        })?;
        // After each batch, so that no number of dead letters fills the memory.
        self.rejections.add_dead_letters(&self.sink.take().await?)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn read_next(documents: &mut Documents<InputReader>, summary: &Summary) -> SystemResult<Option<Document>> {
    let Summary { documents: read, layout, .. } = summary;
    let next = documents.next_document();
    Ok(next.map_err(|error| format!("cannot read beyond {} {}s: {error}", thousands(*read), layout.unit()))?)
}

/// The message in a function's error, which is JSON.
fn error_message(error: &FunctionError) -> String {
    let message = match error {
        FunctionError::Handled(answer) => serde_json::from_str::<Value>(answer).ok(),
        FunctionError::Exited | FunctionError::TimedOut(_) => None,
    };
    let message = message.and_then(|answer| answer["errorMessage"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| error.to_string())
}

fn arrival_seconds(format: Format) -> SystemResult<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok((if format.replicates() { now.saturating_sub(REPLICATED_AGE) } else { now }).as_secs())
}

fn too_long(number: u64) -> RejectedDocument {
    let reason = format!(
        "larger than {} bytes, the most that fits in Lambda's payload of 6 MB",
        thousands(RECORD_BYTES_MAX as u64)
    );
    RejectedDocument { number: number.to_string(), sub_number: 0, table: None, reason }
}

/// Through Kinesis, a change names its table; in a DynamoDB stream, the stream's ARN does.
#[derive(Deserialize)]
struct TableOfChange {
    #[serde(rename = "tableName")]
    table_name: Option<IgnoredAny>,
    #[serde(rename = "eventSourceARN")]
    event_source_arn: Option<String>,
}

/// A change of a DynamoDB table with the name of its table.
fn with_table_name(document: Vec<u8>) -> Vec<u8> {
    let Ok(TableOfChange { table_name: None, event_source_arn: Some(arn) }) = serde_json::from_slice(&document) else {
        return document;
    };
    let Some(members) = document.strip_prefix(b"{") else { return document };
    let name = Value::from(stream_name_from_arn(&arn));
    [format!("{{\"tableName\":{name},").as_bytes(), members].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_without_its_table_gets_the_stream_s() {
        let named = |document: &str| String::from_utf8(with_table_name(document.as_bytes().to_vec())).unwrap();
        let arn = r#""eventSourceARN":"arn:aws:dynamodb:us-east-1:123456789012:table/Orders/stream/2026""#;
        assert_eq!(named(&format!("{{{arn}}}")), format!("{{\"tableName\":\"Orders\",{arn}}}"));
        for unchanged in [format!("{{\"tableName\":\"t\",{arn}}}"), "{}".to_owned(), "oops".to_owned()] {
            assert_eq!(named(&unchanged), unchanged);
        }
    }

    #[test]
    fn of_a_function_s_error_the_message_is_shown() {
        let answer = r#"{"errorType":"Millstream.Event","errorMessage":"no batch"}"#;
        assert_eq!(error_message(&FunctionError::Handled(answer.to_owned())), "no batch");
        assert_eq!(error_message(&FunctionError::Handled("oops".to_owned())), "oops");
        assert_eq!(error_message(&FunctionError::Exited), "Runtime.ExitError: the process ended");
    }
}
