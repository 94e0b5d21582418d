//! The one TLS client configuration: aws-lc-rs, the system's roots, and the operator's own authority.
//!
//! Certificates and names are always verified; there is no switch to turn that off. A server with a private
//! authority is reached by naming that authority's file in the settings (the caller passes the path, because
//! settings are read elsewhere).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

mod certificate;

pub use self::certificate::Certificate;
use self::certificate::Remembering;

/// Makes aws-lc-rs the process-wide provider, for libraries that build their own TLS clients. Call once at
/// the start of `main`; a second call changes nothing.
pub fn install_provider() {
    let _ = aws_lc_rs::default_provider().install_default();
}

/// Why TLS is not possible, at start-up or on one connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of extra authorities cannot be read, or holds no certificate.
    #[error("cannot read certificates from {path}: {reason}")]
    ExtraRoots {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither the system nor the operator provides a trusted authority, or one of the extra ones is unusable.
    #[error("no usable trusted authorities: {0}")]
    Roots(String),
    /// The host cannot stand in a certificate.
    #[error("not a host name that a certificate can hold")]
    Name,
    /// The peer's certificate was not accepted (unknown authority, wrong name, expired).
    #[error("the server's certificate was not accepted: {0}")]
    Certificate(String),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The handshake did not end in time.
    #[error("the TLS handshake took too long")]
    Timeout,
}

/// The shared client configuration. Cheap to clone; built once at start-up.
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Trusts the system's authorities and those in the PEM files `extra_roots`.
    ///
    /// # Errors
    /// [`TlsError::ExtraRoots`] or [`TlsError::Roots`]: the process should not start.
    pub fn new<'a>(extra_roots: impl IntoIterator<Item = &'a Path>) -> Result<Self, TlsError> {
        let extra: Vec<_> = extra_roots.into_iter().map(read_roots).collect::<Result<_, _>>()?;
        let extra: Vec<_> = extra.into_iter().flatten().collect();
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let roots_error = |e: rustls::Error| TlsError::Roots(e.to_string());
        let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(roots_error)?;
        let verifier = Arc::new(verifier);
        let client = client_with(Arc::<Verifier>::clone(&verifier)).map_err(roots_error)?;
        Ok(Self { client: Arc::new(client), verifier })
    }

    /// The rustls configuration, for libraries that drive TLS themselves.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Performs the handshake over `stream` and verifies that the peer is `host` (a name or an address).
    ///
    /// # Errors
    /// [`TlsError::Name`], [`TlsError::Certificate`], [`TlsError::Handshake`] or [`TlsError::Timeout`].
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
        deadline: Duration,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        shake_hands(self.client_config(), host, stream, deadline).await
    }

    /// As [`TlsConfig::connect`], and tells which certificate the peer showed, whether or not it was accepted.
    pub async fn inspect<S>(
        &self,
        host: &str,
        stream: S,
        deadline: Duration,
    ) -> (Result<TlsStream<S>, TlsError>, Option<Certificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let verifier = Arc::<Verifier>::clone(&self.verifier);
        let watching = Arc::new(Remembering { verifier, seen: Mutex::default() });
        let client = match client_with(Arc::<Remembering>::clone(&watching)) {
            Ok(client) => Arc::new(client),
            Err(error) => return (Err(TlsError::Roots(error.to_string())), None),
        };
        let result = shake_hands(client, host, stream, deadline).await;
        let seen = watching.seen.lock().ok().and_then(|mut seen| seen.take());
        (result, seen)
    }
}

fn client_with(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, rustls::Error> {
    // `dangerous` is rustls' name for passing any verifier of one's own; ours all verify everything.
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

async fn shake_hands<S>(
    client: Arc<ClientConfig>,
    host: &str,
    stream: S,
    deadline: Duration,
) -> Result<TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = host.trim_end_matches('.').to_owned();
    let name = ServerName::try_from(host).map_err(|_| TlsError::Name)?;
    match timeout(deadline, TlsConnector::from(client).connect(name, stream)).await {
        Err(_) => Err(TlsError::Timeout),
        Ok(Err(e)) => Err(handshake_error(&e)),
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn handshake_error(error: &io::Error) -> TlsError {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(e)) => TlsError::Certificate(e.to_string()),
        Some(e) => TlsError::Handshake(e.to_string()),
        None => TlsError::Handshake(error.kind().to_string()),
    }
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::ExtraRoots { path: path.display().to_string(), reason };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| error(e.to_string()))?;
    if found.is_empty() { Err(error("it holds no certificate".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
pub(crate) mod authority;
#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::authority::{Authority, File};
    use super::{TlsConfig, TlsError, install_provider};

    async fn handshake(trust: bool, host: &str) -> Result<(), TlsError> {
        install_provider();
        let ca = Authority::new("mail.test");
        let (a, b) = tokio::io::duplex(1 << 16);
        let acceptor = ca.acceptor();
        tokio::spawn(async move { acceptor.accept(b).await.map(drop) });
        let config = if trust { ca.trusted() } else { TlsConfig::new(None).unwrap() };
        config.connect(host, a, Duration::from_secs(5)).await.map(drop)
    }

    #[tokio::test]
    async fn the_operators_authority_is_trusted_and_the_name_is_checked() {
        assert!(handshake(true, "mail.test").await.is_ok());
        assert!(matches!(handshake(true, "other.test").await, Err(TlsError::Certificate(_))));
    }

    #[tokio::test]
    async fn a_certificate_is_told_whether_or_not_it_is_accepted() {
        let ca = Authority::new("mail.test");
        for (config, host, accepted) in [
            (ca.trusted(), "mail.test", true),
            (ca.trusted(), "other.test", false),
            (TlsConfig::new(None).unwrap(), "mail.test", false),
        ] {
            let (a, b) = tokio::io::duplex(1 << 16);
            let acceptor = ca.acceptor();
            tokio::spawn(async move { acceptor.accept(b).await.map(drop) });
            let (result, seen) = config.inspect(host, a, Duration::from_secs(5)).await;
            assert_eq!(result.is_ok(), accepted, "{host}");
            let seen = seen.unwrap();
            assert_eq!(seen.names, ["mail.test"]);
            assert!(seen.not_before < seen.not_after && !seen.issuer.is_empty(), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_authority_is_not_trusted() {
        assert!(matches!(handshake(false, "mail.test").await, Err(TlsError::Certificate(_))));
    }

    #[tokio::test]
    async fn a_silent_peer_is_a_timeout() {
        let (a, _b) = tokio::io::duplex(64);
        let config = TlsConfig::new(None).unwrap();
        let result = config.connect("mail.test", a, Duration::from_millis(20)).await;
        assert!(matches!(result, Err(TlsError::Timeout)));
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_refused() {
        let file = File::with("empty", "nothing");
        assert!(matches!(TlsConfig::new(Some(file.path())), Err(TlsError::ExtraRoots { .. })));
        assert!(matches!(TlsConfig::new(Some(Path::new("/nonexistent"))), Err(TlsError::ExtraRoots { .. })));
        let (one, other) = (Authority::new("one.test"), Authority::new("other.test"));
        assert!(TlsConfig::new([one.path(), other.path()]).is_ok());
        assert!(matches!(TlsConfig::new([one.path(), file.path()]), Err(TlsError::ExtraRoots { .. })));
    }
}
