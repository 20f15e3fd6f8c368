//! A user's own data through a real function: NDJSON or a Lambda event into a database, and the outcome.
//!
//! A file of documents is read once, in bounded memory: each document becomes a record of a Kinesis stream, numbered by its
//! line ([`batches`]), and the batches go to the function as Lambda delivers them. Without a configuration, the
//! smallest one that reads the file is generated ([`settings`]) for the detected format ([`detect`]).

mod batches;
mod delivery;
mod detect;
mod documents;
mod input;
mod rejections;
mod settings;
mod sink;
mod summary;
mod tables;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use millstream::config::stream_name_from_arn;
use millstream::record::unpack;

use crate::function::names;
use crate::postgresql::connect;
use crate::process::{target, workspace};
use crate::system::{SystemResult, reported};
use batches::RECORD_BYTES_MAX;
use delivery::Delivery;
use documents::Documents;
use input::{Input, InputReader};
use settings::{Settings, choose_source, find_config, format_name, generate, name_of_file, read_config};
use sink::Sink;
use summary::TABLES_MAX;
use tables::read_tables;

pub use detect::Layout;
pub use rejections::{RejectedDocument, Rejections};
pub use summary::Summary;
pub use tables::TableContent;

const KINESIS_INGEST: &str = "kinesis-ingest";
/// The only function that needs no configuration.
const DYNAMODB_SYNC: &str = "dynamodb-sync";

/// What to replay.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Options {
    /// The file.
    pub event: PathBuf,
    /// The function, if not the one that the file is for.
    pub function: Option<String>,
    /// The configuration, if not the one next to the file.
    pub config: Option<PathBuf>,
}

/// A replay whose file and configuration have been checked.
pub struct Replay {
    event: PathBuf,
    function: String,
    config: Option<PathBuf>,
    settings: Option<Settings>,
    content: Content,
}

enum Content {
    /// Documents, to be wrapped into batches.
    Documents(Box<Documents<InputReader>>, Layout),
    /// The payload of one invocation.
    Payload(Vec<u8>),
}

impl Replay {
    /// Reads the head of the file, and the configuration.
    ///
    /// # Errors
    /// Returns an error if either is invalid; nothing has been started yet.
    pub fn prepare(options: Options) -> SystemResult<Self> {
        let Options { event, function, config } = options;
        if let Some(name) = &function {
            check_function(name)?;
        }
        let input = Input::open(&event)?;
        let config = find_config(&event, config.as_deref());
        let layout = detect::layout(input.head(), input.is_whole());
        if function.as_deref().is_some_and(has_tasks) || layout == Layout::LambdaEvent {
            return Self::from_payload(event, function, config, input);
        }
        let settings = settings_of_documents(&event, &input, layout, config.as_deref())?;
        let documents = Documents::new(input.into_reader(), layout, RECORD_BYTES_MAX);
        let content = Content::Documents(Box::new(documents), layout);
        let function = function.unwrap_or_else(|| KINESIS_INGEST.to_owned());
        Ok(Self { event, function, config, settings: Some(settings), content })
    }

    fn from_payload(
        event: PathBuf,
        function: Option<String>,
        config: Option<PathBuf>,
        input: Input,
    ) -> SystemResult<Self> {
        let mut payload = Vec::new();
        input.into_reader().read_to_end(&mut payload)?;
        let function = function.unwrap_or_else(|| function_for(&payload).to_owned());
        let mut settings = None;
        match &config {
            Some(config) => drop(read_config(config)?),
            None if function == KINESIS_INGEST => settings = Some(settings_of_event(&payload)?),
            None if function == DYNAMODB_SYNC => {}
            None => return Err(format!("{function} needs a configuration: give it with CONFIG=my.toml").into()),
        }
        Ok(Self { event, function, config, settings, content: Content::Payload(payload) })
    }

    /// What is about to be replayed, and by which configuration.
    pub fn introduction(&self) -> String {
        let file = display_path(&self.event).display();
        let content = match &self.content {
            Content::Payload(_) => format!("{file} is an event for {}.", self.function),
            Content::Documents(_, layout) => {
                let format = self.settings.as_ref().map_or("", |settings| format_name(settings.format));
                let note = match layout {
                    Layout::Array => "; the file is one JSON array, and each of its elements counts as a line",
                    Layout::Concatenated => "; they extend over several lines each",
                    Layout::Lines | Layout::LambdaEvent => "",
                };
                format!("{file} holds {format}{note}.")
            }
        };
        let config = match (&self.config, self.generated_config()) {
            (Some(config), _) => format!("Configuration: {}", display_path(config).display()),
            (None, Some(text)) => {
                format!(
                    "No configuration is given, so this one is used:\n\n    {}",
                    text.trim_end().replace('\n', "\n    ")
                )
            }
            (None, None) => "No configuration is given, and none is needed.".to_owned(),
        };
        format!("{content}\n{config}\n")
    }

    fn generated_config(&self) -> Option<&str> {
        self.settings.as_ref().and_then(|settings| settings.generated.as_deref())
    }

    /// Replays into a database; `progress` gets a line of text now and then.
    ///
    /// # Errors
    /// Returns an error if the file turns out to be unreadable, or the function fails.
    pub async fn run(self, url: &str, progress: &dyn Fn(&str)) -> SystemResult<Summary> {
        let generated = self.generated_config().map(ConfigFile::write).transpose()?;
        let config = generated.as_ref().map(|file| file.0.as_path()).or(self.config.as_deref());
        let sink = if has_tasks(&self.function) { Sink::start_local_aws().await? } else { Sink::start().await? };
        let mut delivery = Delivery::start(&self.function, config, url, sink).await?;
        let started = Instant::now();
        let mut summary = match (self.content, &self.settings) {
            (Content::Documents(mut documents, layout), Some(settings)) => {
                let delivered = delivery.ingest(&mut documents, layout, settings, progress).await;
                delivered.map_err(|error| format!("{}: {error}", self.event.display()))?
            }
            (Content::Documents(..), None) => return Err("the documents have no stream".into()),
            (Content::Payload(payload), _) => delivery.invoke_once(payload).await?,
        };
        summary.time = started.elapsed();
        summary.reported = reported(&std::fs::read_to_string(delivery.log())?);
        summary.rejections = delivery.into_rejections();
        summary.check_account()?;
        summary.tables = read_tables(&connect(url).await?, TABLES_MAX).await?;
        Ok(summary)
    }
}

/// A path as it is given on the command line.
fn display_path(path: &Path) -> &Path {
    path.strip_prefix(workspace()).unwrap_or(path)
}

fn check_function(name: &str) -> SystemResult<()> {
    let mut names = names()?;
    names.sort();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(format!("unknown function {name}: expected one of {}", names.join(", ")).into())
}

/// Whether a function receives tasks instead of batches of records.
fn has_tasks(function: &str) -> bool {
    ![KINESIS_INGEST, DYNAMODB_SYNC].contains(&function)
}

/// The function that takes an event.
fn function_for(payload: &[u8]) -> &'static str {
    let is_dynamodb = unpack(payload).is_ok_and(|batch| {
        batch.records.iter().any(|record| record.position.stream.split(':').nth(2) == Some("dynamodb"))
    });
    if is_dynamodb { DYNAMODB_SYNC } else { KINESIS_INGEST }
}

fn settings_of_documents(event: &Path, input: &Input, layout: Layout, config: Option<&Path>) -> SystemResult<Settings> {
    let mut documents = Documents::new(input.head(), layout, RECORD_BYTES_MAX);
    let mut sample = Vec::new();
    while sample.len() < detect::SAMPLE_DOCUMENTS
        && let Some(document) = documents.next_document()?
    {
        sample.push(document.bytes);
    }
    let format = detect::format(sample.iter().map(Vec::as_slice)).ok_or_else(|| {
        let (file, unit) = (event.display(), layout.unit());
        format!("{file}: expected one JSON object per line, found none in the first {} {unit}s", sample.len())
    })?;
    let name = name_of_file(event);
    match config {
        Some(config) => choose_source(&read_config(config)?, &name, format),
        None => Ok(generate(&name, format)),
    }
}

fn settings_of_event(payload: &[u8]) -> SystemResult<Settings> {
    let batch = unpack(payload)?;
    let format = detect::format(batch.records.iter().map(|record| batch.payload(record)));
    match (batch.records.iter().find(|record| !record.position.stream.is_empty()), format) {
        (Some(record), Some(format)) => Ok(generate(stream_name_from_arn(&record.position.stream), format)),
        _ => {
            Err("the event holds no record in a format that is known: give a configuration with CONFIG=my.toml".into())
        }
    }
}

/// A generated configuration on disk, where a function finds it; removed when dropped.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn write(text: &str) -> std::io::Result<Self> {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = target().join(format!("replay-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text)?;
        Ok(Self(path))
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}
