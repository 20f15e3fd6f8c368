//! The AWS SDK's configuration, loaded on first use: a function that never uses an AWS service does not pay for it.

use std::sync::Arc;

use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::OnceCell;

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
