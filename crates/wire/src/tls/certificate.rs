//! What a person needs to know of a server's certificate: for whom it is, by whom, and until when.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Names shown of one certificate; some have hundreds.
const MAX_NAMES: usize = 20;
/// Characters shown of one name.
const MAX_NAME: usize = 253;

/// A certificate that a server showed, whether or not it was accepted. All of it is the server's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The names and addresses it is for; of an old one without any the name of its subject.
    pub names: Vec<String>,
    /// Who vouches for it.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: Option<DateTime<Utc>>,
    /// Until when.
    pub not_after: Option<DateTime<Utc>>,
}

impl Certificate {
    /// Reads what a server sent; `None` when that is no certificate.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, found) = X509Certificate::from_der(der).ok()?;
        let alternative = found.subject_alternative_name().ok().flatten();
        let mut names: Vec<String> = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(shown(name)),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .take(MAX_NAMES)
            .collect();
        if names.is_empty() {
            names.extend(
                found.subject().iter_common_name().filter_map(|n| n.as_str().ok()).take(1).map(shown),
            );
        }
        let at = |time: x509_parser::time::ASN1Time| DateTime::from_timestamp(time.timestamp(), 0);
        Some(Self {
            names,
            issuer: shown(&found.issuer().to_string()),
            not_before: at(found.validity().not_before),
            not_after: at(found.validity().not_after),
        })
    }
}

fn shown(name: &str) -> String {
    let visible = |c: &char| !c.is_control() && !mail::address::is_invisible(*c);
    name.chars().filter(visible).take(MAX_NAME).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let ip = ip.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    ip.ok().map(|ip| ip.to_string())
}

/// A verifier that judges as `verifier` does, and remembers the certificate it was shown.
#[derive(Debug)]
pub(super) struct Remembering {
    pub verifier: Arc<dyn ServerCertVerifier>,
    pub seen: Mutex<Option<Certificate>>,
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Certificate::read(end_entity);
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
