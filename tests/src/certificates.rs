//! A private certificate authority, and the certificates that it signs for servers: valid ones and invalid ones.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate that the server presents.
    pub pem: String,
    /// The server's private key.
    pub key: String,
}

/// How long a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// Far in the future.
    Good,
    /// Expired years ago.
    Expired,
}

impl Authority {
    /// Creates an authority that no client trusts yet.
    ///
    /// # Errors
    /// Returns an error if the library cannot sign it.
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate: what a CA file holds.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's own certificate, as a server without another certificate would present it.
    pub fn own(&self) -> Certificate {
        Certificate { pem: self.pem.clone(), key: self.issuer.key().serialize_pem() }
    }

    /// A certificate for a server of these names and addresses.
    ///
    /// # Errors
    /// Returns an error if the library cannot sign it.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<Certificate, rcgen::Error> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        if validity == Validity::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate()?;
        Ok(Certificate { pem: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }
}
