//! Parses `DATABASE_URL`, including options that the driver does not know: `sslmode=verify-full`, `sslrootcert`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::config::{Credentials, DatabaseAddress};

/// A parsed address.
pub struct ParsedAddress {
    /// The driver's configuration.
    pub config: Config,
    /// Whether the connection is not encrypted.
    pub plaintext: bool,
    /// `sslrootcert`.
    pub ca_file: Option<PathBuf>,
}

/// An invalid address. Never repeats the address, because it may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither a URL nor `key=value` pairs.
    #[error("invalid DATABASE_URL; expected postgresql://user:password@host:5432/database")]
    Unreadable,
    /// An `sslmode` that may fall back to plaintext.
    #[error(
        "DATABASE_URL: sslmode={0} is not supported; use verify-full (the default except for localhost) or disable (no encryption)"
    )]
    SslMode(String),
    /// An IAM token would be sent unencrypted.
    #[error(
        "DATABASE_AUTH=iam requires TLS, because the token is sent as a password in clear text; remove sslmode=disable from DATABASE_URL, and for a tunnel on this machine connect with host=<the server's name>, hostaddr=127.0.0.1 and sslmode=verify-full"
    )]
    IamWithoutTls,
}

/// Reads the address from the environment: a URL, single parts, or both. The secret provides what is missing.
pub fn read(settings: &DatabaseAddress) -> Result<ParsedAddress, AddressError> {
    let mut address = match &settings.url {
        Some(url) => parse(url)?,
        None => ParsedAddress { config: Config::new(), plaintext: false, ca_file: None },
    };
    if address.config.get_hosts().is_empty() {
        if let Some(host) = &settings.host {
            address.config.host(host);
        }
        if let Some(port) = &settings.port {
            address.config.port(*port);
        }
    }
    if let Some(name) = &settings.name {
        address.config.dbname(name);
    }
    if let Some(user) = &settings.user {
        address.config.user(user);
    }
    if address.plaintext && settings.credentials == Credentials::Iam {
        return Err(AddressError::IamWithoutTls);
    }
    Ok(address)
}

/// Parses a URL or `key=value` pairs.
fn parse(text: &str) -> Result<ParsedAddress, AddressError> {
    let (rest, ssl_mode, ca_file) = if text.contains("://") { split_url(text)? } else { split_pairs(text) };
    let config = Config::from_str(&rest).map_err(|_may_hold_a_password| AddressError::Unreadable)?;
    let plaintext = match ssl_mode.as_deref() {
        None => is_local(&config),
        Some("disable") => true,
        // All of them verify the certificate and the host name: anything less is no protection.
        Some("require" | "verify-ca" | "verify-full") => false,
        Some(mode) => return Err(AddressError::SslMode(mode.to_owned())),
    };
    Ok(ParsedAddress { config, plaintext, ca_file: ca_file.map(PathBuf::from) })
}

type SslOptions = (String, Option<String>, Option<String>);

fn split_url(text: &str) -> Result<SslOptions, AddressError> {
    let mut url = url::Url::parse(text).map_err(|_may_hold_a_password| AddressError::Unreadable)?;
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (ssl_mode, ca_file) = (find("sslmode"), find("sslrootcert"));
    let other_pairs: Vec<_> = pairs.iter().filter(|(key, _)| key != "sslmode" && key != "sslrootcert").collect();
    url.set_query(None);
    if !other_pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(other_pairs);
    }
    Ok((url.into(), ssl_mode, ca_file))
}

fn split_pairs(text: &str) -> SslOptions {
    let find = |name: &str| {
        text.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let is_ssl_option = |pair: &&str| pair.starts_with("sslmode=") || pair.starts_with("sslrootcert=");
    let other_pairs: Vec<_> = text.split_whitespace().filter(|pair| !is_ssl_option(pair)).collect();
    (other_pairs.join(" "), find("sslmode"), find("sslrootcert"))
}

/// Whether every address that may be dialled is on this machine. The driver dials `hostaddr` in place of its host.
fn is_local(config: &Config) -> bool {
    let is_local_host = |host: &Host| match host {
        Host::Tcp(name) => ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()),
        Host::Unix(_) => true,
    };
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(is_local_host) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_needs_localhost_or_sslmode_disable() {
        let plaintext = |text: &str| parse(text).unwrap().plaintext;
        assert!(plaintext("postgresql://u:p@127.0.0.1:5433/db"));
        assert!(plaintext("host=/tmp user=u"));
        assert!(plaintext("postgresql://u:p@db.example/db?sslmode=disable"));
        assert!(!plaintext("postgresql://u:p@db.example/db"));
        assert!(!plaintext("postgresql://u:p@localhost/db?sslmode=verify-full&sslrootcert=/ca.pem"));
        assert!(!plaintext("host=db.example user=u sslmode=verify-full"));
        assert!(plaintext("host=localhost hostaddr=127.0.0.1 user=u"));
        assert!(!plaintext("host=localhost hostaddr=192.0.2.1 user=u"), "it is the address that is dialled");
        assert!(!plaintext("host=db.example hostaddr=127.0.0.1 user=u"));
    }

    #[test]
    fn iam_tokens_require_tls() {
        let read_url = |text: &str| {
            read(&DatabaseAddress { credentials: Credentials::Iam, ..DatabaseAddress::from_url(text) }).map(|_| ())
        };
        for text in [
            "postgresql://u@db.example/db?sslmode=disable",
            "host=db.example user=u sslmode=disable",
            "postgresql://u@localhost/db",
            "postgresql://u@127.0.0.1:5433/db",
            "host=/tmp user=u",
            "host=localhost,127.0.0.1 user=u",
        ] {
            assert!(matches!(read_url(text), Err(AddressError::IamWithoutTls)), "{text}");
        }
        for text in [
            "postgresql://u@db.example/db",
            "postgresql://u@localhost/db?sslmode=verify-full",
            "host=db.example hostaddr=127.0.0.1 user=u sslmode=verify-full",
        ] {
            assert!(read_url(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_address() {
        for text in ["postgresql://u:hunter2@db.example:port/x", "password=hunter2 nonsense"] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        assert!(matches!(parse("postgresql://db/x?sslmode=prefer"), Err(AddressError::SslMode(_))));
    }
}
