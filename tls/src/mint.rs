//! Issuing certificates. ECDSA over P-256: small, fast to sign, and supported by every TLS library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use crate::Identity;

/// Clocks of nodes differ, so certificates are valid from a little before their issue.
const BACKDATE: Duration = Duration::from_secs(300);

/// Reason why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Issuing failed.
    #[error("minting a certificate: {0}")]
    Mint(#[from] rcgen::Error),
    /// A time that a certificate cannot express.
    #[error("minting a certificate: its end is out of range")]
    Time,
    /// The input is not a certificate.
    #[error("reading a certificate: {0}")]
    Read(String),
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The certificate.
    pub certificate: String,
    /// The key; secret.
    pub key: String,
}

/// Contents of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Time of issue: the validity begins a few minutes earlier.
    pub made: SystemTime,
    /// End of the validity.
    pub until: SystemTime,
    /// Subject, as DER.
    pub subject: Vec<u8>,
    /// Issuer, as DER.
    pub issuer: Vec<u8>,
}

/// A new authority, valid for `lifetime` from `now`. No two have the same subject.
///
/// # Errors
/// There is no randomness.
pub fn authority(now: SystemTime, lifetime: Duration) -> Result<Minted, MintError> {
    let mut params = params(&format!("slm-swarm {}", uuid::Uuid::new_v4()), now, lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Minted { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new certificate of role `identity`, signed by `authority`, valid for `lifetime` from `now`.
///
/// # Errors
/// `authority` is not a valid authority.
pub fn leaf(authority: &Minted, identity: Identity, now: SystemTime, lifetime: Duration) -> Result<Minted, MintError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(&identity.to_string(), now, lifetime)?;
    params.subject_alt_names = CertificateParams::new(vec![identity.dns_name().to_owned()])?.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // The certificates of a worker and of the egress are only for servers, the others only for clients: a stolen one is good for nothing else.
    params.extended_key_usages = vec![match identity {
        Identity::Worker | Identity::Egress => ExtendedKeyUsagePurpose::ServerAuth,
        Identity::Operator | Identity::Router => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Minted { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(name: &str, now: SystemTime, lifetime: Duration) -> Result<CertificateParams, MintError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now.checked_sub(BACKDATE))?;
    params.not_after = moment(now.checked_add(lifetime))?;
    Ok(params)
}

fn moment(time: Option<SystemTime>) -> Result<OffsetDateTime, MintError> {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).ok_or(MintError::Time)?;
    let seconds = i64::try_from(since.as_secs()).map_err(|_| MintError::Time)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| MintError::Time)
}

/// Contents of each certificate in `pem`.
///
/// # Errors
/// One cannot be read.
pub fn facts(pem: &[u8]) -> Result<Vec<Facts>, MintError> {
    let read = |error: &dyn std::fmt::Display| MintError::Read(error.to_string());
    Pem::iter_from_buffer(pem)
        .map(|block| {
            let block = block.map_err(|error| read(&error))?;
            let certificate = block.parse_x509().map_err(|error| read(&error))?;
            let validity = certificate.validity();
            let at = |seconds: i64| {
                u64::try_from(seconds).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
            };
            Ok(Facts {
                made: at(validity.not_before.timestamp()).ok_or(MintError::Time)? + BACKDATE,
                until: at(validity.not_after.timestamp()).ok_or(MintError::Time)?,
                subject: certificate.subject().as_raw().to_vec(),
                issuer: certificate.issuer().as_raw().to_vec(),
            })
        })
        .collect()
}

/// The certificates of a PEM bundle, one by one.
///
/// # Errors
/// The bundle is not text.
pub fn split(bundle: &[u8]) -> Result<Vec<String>, MintError> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(bundle).map_err(|error| MintError::Read(error.to_string()))?;
    let certificates = text.split_inclusive(END).map(str::trim).filter(|certificate| certificate.ends_with(END));
    Ok(certificates.map(|certificate| format!("{certificate}\n")).collect())
}
