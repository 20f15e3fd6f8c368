//! Reading `DATABASE_URL`, including what users write and the driver does not know: `sslmode=verify-full`, `sslrootcert`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::config::DatabaseAddress;

/// A parsed address.
pub struct ParsedAddress {
    /// What the driver takes.
    pub config: Config,
    /// Whether the connection is not encrypted.
    pub plain: bool,
    /// `sslrootcert`.
    pub ca_file: Option<PathBuf>,
}

/// What is wrong with the address. Never repeats it: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither a URL nor `key=value` pairs.
    #[error("invalid DATABASE_URL; expected postgresql://user:password@host:5432/database")]
    Unreadable,
    /// An `sslmode` that may fall back to plain text.
    #[error(
        "DATABASE_URL: sslmode={0} is not supported; use verify-full (the default except for localhost) or disable (no encryption)"
    )]
    SslMode(String),
}

/// The address as the environment gives it: a URL, single parts, or both; what is missing comes with the secret.
pub fn read(given: &DatabaseAddress) -> Result<ParsedAddress, AddressError> {
    let mut address = match &given.url {
        Some(url) => parse(url)?,
        None => ParsedAddress { config: Config::new(), plain: false, ca_file: None },
    };
    if address.config.get_hosts().is_empty() {
        given.host.iter().for_each(|host| {
            address.config.host(host);
        });
        given.port.iter().for_each(|port| {
            address.config.port(*port);
        });
    }
    given.name.iter().for_each(|name| {
        address.config.dbname(name);
    });
    given.user.iter().for_each(|user| {
        address.config.user(user);
    });
    Ok(address)
}

/// Reads a URL or `key=value` pairs.
fn parse(text: &str) -> Result<ParsedAddress, AddressError> {
    let (rest, ssl_mode, ca_file) = if text.contains("://") { split_url(text)? } else { split_pairs(text) };
    let config = Config::from_str(&rest).map_err(|_may_hold_a_password| AddressError::Unreadable)?;
    let plain = match ssl_mode.as_deref() {
        None => is_local(&config),
        Some("disable") => true,
        // All of them verify the certificate and the name: less is no protection.
        Some("require" | "verify-ca" | "verify-full") => false,
        Some(other) => return Err(AddressError::SslMode(other.to_owned())),
    };
    Ok(ParsedAddress { config, plain, ca_file: ca_file.map(PathBuf::from) })
}

type SslOptions = (String, Option<String>, Option<String>);

fn split_url(text: &str) -> Result<SslOptions, AddressError> {
    let mut url = url::Url::parse(text).map_err(|_may_hold_a_password| AddressError::Unreadable)?;
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (ssl_mode, ca_file) = (find("sslmode"), find("sslrootcert"));
    let kept: Vec<_> = pairs.iter().filter(|(key, _)| key != "sslmode" && key != "sslrootcert").collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    Ok((url.into(), ssl_mode, ca_file))
}

fn split_pairs(text: &str) -> SslOptions {
    let find = |name: &str| {
        text.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let ours = |pair: &&str| pair.starts_with("sslmode=") || pair.starts_with("sslrootcert=");
    let kept: Vec<_> = text.split_whitespace().filter(|pair| !ours(pair)).collect();
    (kept.join(" "), find("sslmode"), find("sslrootcert"))
}

/// Whether every address that may be dialled is on this machine. A `hostaddr` is dialled in the place of its host.
fn is_local(config: &Config) -> bool {
    let is_named = |host: &Host| match host {
        Host::Tcp(name) => ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()),
        Host::Unix(_) => true,
    };
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(is_named) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_localhost_or_for_those_who_ask() {
        let plain = |text: &str| parse(text).unwrap().plain;
        assert!(plain("postgresql://u:p@127.0.0.1:5433/db"));
        assert!(plain("host=/tmp user=u"));
        assert!(plain("postgresql://u:p@db.example/db?sslmode=disable"));
        assert!(!plain("postgresql://u:p@db.example/db"));
        assert!(!plain("postgresql://u:p@localhost/db?sslmode=verify-full&sslrootcert=/ca.pem"));
        assert!(!plain("host=db.example user=u sslmode=verify-full"));
        assert!(plain("host=localhost hostaddr=127.0.0.1 user=u"));
        assert!(!plain("host=localhost hostaddr=192.0.2.1 user=u"), "it is the address that is dialled");
        assert!(!plain("host=db.example hostaddr=127.0.0.1 user=u"));
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
