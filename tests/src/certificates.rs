//! A private certificate authority, and the certificates that it signs for servers: good ones and such as nobody shall accept.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What the server shows.
    pub pem: String,
    /// What only the server has.
    pub key: String,
}

/// Until when a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// Longer than anybody looks.
    Good,
    /// Until some years ago.
    Expired,
}

impl Authority {
    /// An authority that nobody has heard of yet.
    ///
    /// # Errors
    /// The library's.
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

    /// The authority's own certificate as a server would show it that has no other.
    pub fn own(&self) -> Certificate {
        Certificate { pem: self.pem.clone(), key: self.issuer.key().serialize_pem() }
    }

    /// A certificate for a server of these names and addresses.
    ///
    /// # Errors
    /// The library's.
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
