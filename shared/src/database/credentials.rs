//! The password: from the address, from Secrets Manager, or as a token signed with the function's role.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::aws::{Aws, describe_error};
use crate::config::Credentials;

/// A token is valid for 15 minutes and is checked only when a connection is opened:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html>.
const TOKEN_LIFETIME: Duration = Duration::from_secs(900);
/// A token is renewed at this age.
const TOKEN_RENEWAL: Duration = Duration::from_secs(600);

const POSTGRESQL_PORT: u16 = 5432;

/// The secret or the token cannot be obtained.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Secrets Manager does not respond, or rejects the request.
    #[error("could not read secret {arn}: {reason}")]
    Secret {
        /// The secret's ARN.
        arn: String,
        /// The failed request.
        reason: String,
    },
    /// The secret does not have the form of the rotation templates.
    #[error("secret {arn} is not a JSON object with username and password")]
    Form {
        /// The secret's ARN.
        arn: String,
    },
    /// The function has no credentials or no region.
    #[error("could not sign an IAM token for the database: {0}")]
    Token(String),
}

impl CredentialsError {
    /// Whether an operator must act before a login is possible.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Secret { .. } => false,
            Self::Form { .. } | Self::Token(_) => true,
        }
    }
}

/// Provides the configuration to connect with.
pub struct LoginProvider {
    credentials: Credentials,
    base: Config,
    aws: Aws,
    /// When the current login was obtained; `None` before the first.
    last_login: Mutex<Option<SystemTime>>,
}

/// A secret in the form of Secrets Manager's rotation templates. `port` may be a string in manually created secrets,
/// and RDS's own secrets hold only the first two fields:
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html>.
#[derive(Deserialize)]
struct Secret {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<serde_json::Value>,
    dbname: Option<String>,
}

impl LoginProvider {
    pub fn new(credentials: &Credentials, base: &Config, aws: Aws) -> Self {
        Self { credentials: credentials.clone(), base: base.clone(), aws, last_login: Mutex::new(None) }
    }

    /// Whether a new login may differ from the last one.
    pub fn can_change(&self) -> bool {
        self.credentials != Credentials::Url
    }

    /// A new configuration, if one is due: the first time, when a token is too old, or with `force`.
    pub async fn login(&self, force: bool) -> Result<Option<Config>, CredentialsError> {
        let last_login = *self.last_login.lock().unwrap_or_else(PoisonError::into_inner);
        let config = match &self.credentials {
            Credentials::Url => return Ok(None),
            Credentials::Secret(_) if last_login.is_some() && !force => return Ok(None),
            Credentials::Secret(arn) => self.read_secret(arn).await?,
            Credentials::Iam
                if last_login.is_some_and(|time| time.elapsed().is_ok_and(|age| age < TOKEN_RENEWAL)) && !force =>
            {
                return Ok(None);
            }
            Credentials::Iam => self.with_token().await?,
        };
        *self.last_login.lock().unwrap_or_else(PoisonError::into_inner) = Some(SystemTime::now());
        Ok(Some(config))
    }

    async fn read_secret(&self, arn: &str) -> Result<Config, CredentialsError> {
        let client = aws_sdk_secretsmanager::Client::new(self.aws.config().await);
        let response = client.get_secret_value().secret_id(arn).send().await.map_err(|error| {
            let reason = describe_error("Secrets Manager GetSecretValue", &error);
            CredentialsError::Secret { arn: arn.to_owned(), reason }
        })?;
        let form_error = || CredentialsError::Form { arn: arn.to_owned() };
        let text = response.secret_string().ok_or_else(form_error)?;
        let secret: Secret = serde_json::from_str(text).map_err(|_may_hold_the_password| form_error())?;
        let mut config = self.base.clone();
        config.user(&secret.username).password(&secret.password);
        if let Some(host) = secret.host.filter(|_| config.get_hosts().is_empty()) {
            config.host(&host).port(secret.port.as_ref().and_then(port).unwrap_or(POSTGRESQL_PORT));
        }
        if let Some(name) = secret.dbname.filter(|_| config.get_dbname().is_none()) {
            config.dbname(&name);
        }
        Ok(config)
    }

    /// The token is the signed query string of a request that is never sent.
    async fn with_token(&self) -> Result<Config, CredentialsError> {
        let token_error = |text: &str| CredentialsError::Token(text.to_owned());
        let aws = self.aws.config().await;
        let region = aws.region().ok_or_else(|| token_error("no AWS region is configured"))?.clone();
        let provider = aws.credentials_provider().ok_or_else(|| token_error("no AWS credentials are configured"))?;
        let identity = provider.provide_credentials().await.map_err(|error| {
            // Its sources may quote the response that should have contained the credentials.
            CredentialsError::Token(format!("credentials could not be loaded: {error}"))
        })?;
        let identity = identity.into();
        let Some(Host::Tcp(host)) = self.base.get_hosts().first() else {
            return Err(token_error("DATABASE_HOST is not set"));
        };
        let port = self.base.get_ports().first().copied().unwrap_or(POSTGRESQL_PORT);
        let user = self.base.get_user().ok_or_else(|| token_error("DATABASE_USER is not set"))?;
        let mut url =
            url::Url::parse(&format!("https://{host}:{port}/")).map_err(|e| CredentialsError::Token(e.to_string()))?;
        url.query_pairs_mut().append_pair("Action", "connect").append_pair("DBUser", user);
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(TOKEN_LIFETIME);
        settings.signature_location = SignatureLocation::QueryParams;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name("rds-db")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| CredentialsError::Token(error.to_string()))?
            .into();
        let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]))
            .map_err(|error| CredentialsError::Token(error.to_string()))?;
        let signed = sign(request, &parameters).map_err(|error| CredentialsError::Token(error.to_string()))?;
        for (name, value) in signed.output().params() {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut config = self.base.clone();
        config.password(url.as_str().trim_start_matches("https://"));
        Ok(config)
    }
}

fn port(value: &serde_json::Value) -> Option<u16> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_a_signed_query_without_a_scheme() {
        let mut base = Config::new();
        base.host("db.example").port(5433).user("writer");
        let provider =
            LoginProvider::new(&Credentials::Iam, &base, Aws::local("http://127.0.0.1:1", "eu-west-1").await);
        let config = provider.login(false).await.unwrap().unwrap();
        let token = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        assert!(token.starts_with("db.example:5433/?Action=connect&DBUser=writer&"), "{token}");
        for part in ["X-Amz-Expires=900", "eu-west-1%2Frds-db%2Faws4_request", "X-Amz-Signature="] {
            assert!(token.contains(part), "{part} is missing in {token}");
        }
        assert!(provider.login(false).await.unwrap().is_none(), "a fresh token is kept");
        assert!(provider.login(true).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_expires() {
        let mut base = Config::new();
        base.host("db.example").user("writer");
        let provider =
            LoginProvider::new(&Credentials::Iam, &base, Aws::local("http://127.0.0.1:1", "eu-west-1").await);
        assert!(provider.login(false).await.unwrap().is_some());
        let set_age = |age: Duration| *provider.last_login.lock().unwrap() = Some(SystemTime::now() - age);
        set_age(TOKEN_RENEWAL - Duration::from_secs(5));
        assert!(provider.login(false).await.unwrap().is_none());
        set_age(TOKEN_RENEWAL);
        let renewed = provider.login(false).await.unwrap().expect("a login for the next connection");
        assert!(renewed.get_password().is_some());
        assert!(provider.login(false).await.unwrap().is_none(), "the new one is fresh");
    }
}
