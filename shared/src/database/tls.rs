//! TLS to the database: always verified, against the public root CAs and those in an optional file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file does not exist or contains no certificate.
    #[error(
        "could not read certificates from {file}: {reason}; DATABASE_CA_FILE or sslrootcert must name a file of PEM certificates",
        file = .file.display()
    )]
    CaFile {
        /// `DATABASE_CA_FILE` or `sslrootcert`.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library rejects its own defaults.
    #[error("could not set up TLS")]
    Setup(#[from] rustls::Error),
}

/// A server that cannot be trusted until an operator acts.
#[derive(Debug, thiserror::Error)]
#[error("TLS connection to {host} failed: {reason}; {advice}")]
pub struct TlsRefusal {
    host: String,
    reason: String,
    advice: &'static str,
}

/// The driver's message for a server that has TLS disabled.
const WITHOUT_TLS: &str = "server does not support TLS";

impl TlsRefusal {
    /// The certificate error that caused a failed connection attempt; `None` if the cause is a different one.
    pub fn from_connect_error(error: &tokio_postgres::Error, login: &Config) -> Option<Self> {
        let source = std::error::Error::source(error)?;
        let refusal = |reason: String, advice| Self { host: hosts(login), reason, advice };
        if source.to_string() == WITHOUT_TLS {
            let advice = "enable TLS on the server (ssl = on), or set sslmode=disable in DATABASE_URL for an unencrypted connection";
            return Some(refusal("the server does not support TLS".to_owned(), advice));
        }
        let cause = source.downcast_ref::<std::io::Error>()?.get_ref()?;
        let rustls::Error::InvalidCertificate(certificate_error) = cause.downcast_ref::<rustls::Error>()? else {
            return None;
        };
        Some(if matches!(certificate_error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
            let reason = "its certificate is not signed by a trusted CA".to_owned();
            refusal(reason, "add the signing CA's certificate to the file named by DATABASE_CA_FILE or sslrootcert")
        } else {
            // rustls names the expected names and times itself.
            refusal(certificate_error.to_string(), advice(certificate_error))
        })
    }
}

/// What an operator can do about an invalid certificate of a trusted CA.
fn advice(certificate_error: &CertificateError) -> &'static str {
    if matches!(certificate_error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    {
        "connect by a name in the certificate, or issue a certificate for this name"
    } else if matches!(certificate_error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "renew the server's certificate"
    } else {
        "issue a currently valid X.509 version 3 server certificate with a subjectAltName that is not a CA certificate"
    }
}

/// The hosts of a login, for messages.
pub fn hosts(login: &Config) -> String {
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    login.get_hosts().iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A connector that verifies the server's certificate and host name. RDS's own root CAs are in no public store: they
/// must be in `ca_file` (<https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html>). RDS Proxy
/// needs none.
pub fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = ca_file {
        let ca_file_error = |reason: String| TlsError::CaFile { file: file.to_owned(), reason };
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| ca_file_error(unreadable(&error)))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| ca_file_error(unreadable(&error)))?;
            roots.add(certificate).map_err(|error| ca_file_error(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(ca_file_error("contains no PEM certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn unreadable(error: &pem::Error) -> String {
    if matches!(error, pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. }) {
        // The library would print the line byte by byte.
        return "contains a truncated certificate".to_owned();
    }
    error.to_string()
}
