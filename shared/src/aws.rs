//! The AWS SDK's configuration, loaded on first use: a function that never uses an AWS service does not pay for it. And
//! its errors: only [`describe_error`] turns them into text.

use std::error::Error;
use std::sync::Arc;

use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
// Every client re-exports these types.
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::RequestId;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::OnceCell;

/// The longest message of a service that is quoted. A message may name a whole policy.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// The SDK's configuration, which reads the SDK's variables (`AWS_REGION`, `AWS_ENDPOINT_URL`, …) once.
#[derive(Clone, Default, Debug)]
pub struct Aws(Arc<OnceCell<SdkConfig>>);

impl Aws {
    /// The configuration from the environment of the process.
    pub async fn config(&self) -> &SdkConfig {
        self.0.get_or_init(|| loader().load()).await
    }

    /// The configuration for a local AWS emulator at an endpoint, with dummy credentials.
    pub async fn local(endpoint: &str, region: &str) -> Self {
        let local = loader().endpoint_url(endpoint).region(Region::new(region.to_owned())).test_credentials();
        Self(Arc::new(OnceCell::new_with(Some(local.load().await))))
    }
}

/// rustls with ring is the only TLS stack of the process, for AWS and for PostgreSQL.
fn loader() -> ConfigLoader {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}

/// Describes a failed request: service and operation (`request`), the service's error code and message, and the request
/// ID. Never quotes the rest of a response, which may hold a secret or a row; the SDK's own texts quote all of it.
pub fn describe_error<E>(request: &str, error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata,
{
    let reason = match error.code() {
        Some(code) => describe_code(code, error.message()),
        None => describe_without_code(error),
    };
    let id = error.request_id().map(|id| format!(" (request ID {id})")).unwrap_or_default();
    format!("{request} failed: {reason}{id}")
}

/// An error code of a service with its message.
pub fn describe_code(code: &str, message: Option<&str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{code}: {}", message.chars().take(MESSAGE_CHARS_MAX).collect::<String>()),
        None => code.to_owned(),
    }
}

fn describe_without_code<E>(error: &SdkError<E, HttpResponse>) -> String {
    if let Some(response) = error.raw_response() {
        let status = response.status();
        let problem = if status.is_success() { "could not be parsed" } else { "has no error code" };
        return format!("the response (HTTP {}) {problem}", status.as_u16());
    }
    if let SdkError::DispatchFailure(failure) = error
        && let Some(cause) = failure.as_connector_error().and_then(|error| describe_connection(error))
    {
        return cause;
    }
    if matches!(error, SdkError::TimeoutError(_)) {
        return "the request timed out".to_owned();
    }
    "the request could not be sent; check the region, the credentials and the endpoint".to_owned()
}

/// The innermost cause of a request that was not sent: the credentials or the connection. The sources of an error about
/// credentials may quote the response that should have contained them.
fn describe_connection(error: &(dyn Error + 'static)) -> Option<String> {
    let (mut cause, mut text) = (Some(error), None);
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return Some(format!("credentials could not be loaded: {error}"));
        }
        if error.is::<std::io::Error>() {
            text = Some(format!("connection error: {error}"));
        }
        cause = error.source();
    }
    text
}
