//! A local AWS: moto's server with its resharding fixed (`local_aws.py`), used through the real SDK.

use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use millstream::aws::Aws;

use crate::process::{Process, free_port, start, target, tool, workspace};

/// moto's account.
pub const ACCOUNT: &str = "123456789012";
/// The region that everything local is in.
pub const REGION: &str = "us-east-1";

/// A running local AWS.
pub struct LocalAws {
    /// Stopped when dropped; `None` if this process has not started it.
    _server: Option<Process>,
    endpoint: String,
    config: SdkConfig,
}

impl LocalAws {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn start() -> std::io::Result<Self> {
        let port = free_port()?;
        let log = target().join(format!("moto-{port}.log"));
        let server = start(&tool("python"), None, &log, |command| {
            command.arg(workspace().join("tests/src/local_aws.py")).args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        })?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let since = Instant::now();
        while !answers(port).await {
            if since.elapsed() > Duration::from_secs(60) {
                return Err(std::io::Error::other(format!("moto did not start; see {}", log.display())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::fs::remove_file(&log)?;
        let config = Aws::local(&endpoint, REGION).await.config().await.clone();
        Ok(Self { _server: Some(server), endpoint, config })
    }

    /// The same server for another runtime: the SDK's connections belong to the one that they were made on.
    pub async fn for_this_runtime(&self) -> Self {
        let config = Aws::local(&self.endpoint, REGION).await.config().await.clone();
        Self { _server: None, endpoint: self.endpoint.clone(), config }
    }

    /// The value of `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The SDK's configuration.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The environment of a process that is to use it.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Creates a queue and returns its URL.
    ///
    /// # Errors
    /// Returns an error if a call of the SDK fails.
    pub async fn queue(&self, name: &str) -> Result<String, aws_sdk_sqs::Error> {
        let made = aws_sdk_sqs::Client::new(&self.config).create_queue().queue_name(name).send().await?;
        Ok(made.queue_url().unwrap_or_default().to_owned())
    }

    /// Receives and deletes all messages of a queue.
    ///
    /// # Errors
    /// Returns an error if a call of the SDK fails.
    pub async fn drain(&self, queue: &str) -> Result<Vec<String>, aws_sdk_sqs::Error> {
        let client = aws_sdk_sqs::Client::new(&self.config);
        let mut bodies = Vec::new();
        loop {
            let received = client.receive_message().queue_url(queue).max_number_of_messages(10).send().await?;
            let messages = received.messages();
            if messages.is_empty() {
                return Ok(bodies);
            }
            let mut done = client.delete_message_batch().queue_url(queue);
            for (number, message) in messages.iter().enumerate() {
                bodies.push(message.body().unwrap_or_default().to_owned());
                let handle = message.receipt_handle().unwrap_or_default();
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(handle);
                done = done.entries(entry.build()?);
            }
            done.send().await?;
        }
    }
}

async fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let request = b"GET /moto-api/data.json HTTP/1.0\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.lines().next().is_some_and(|line| line.contains(" 200 "))
}
