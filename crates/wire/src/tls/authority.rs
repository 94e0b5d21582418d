//! Servers with certificates for the tests of this crate.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_rustls::TlsAcceptor;

use super::{TlsConfig, install_provider};

/// A file that goes when the test ends.
pub(crate) struct File(PathBuf);

impl File {
    pub fn with(name: &str, text: &str) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let unique = format!("emailclient-tls-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A certificate that vouches for itself.
pub(crate) struct Authority {
    file: File,
    server: Arc<rustls::ServerConfig>,
}

impl Authority {
    /// For one name.
    pub fn new(name: &str) -> Self {
        install_provider();
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self { file: File::with(name, &made.cert.pem()), server: Arc::new(server) }
    }

    /// The server's side.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// Its certificate.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// A client that trusts it.
    pub fn trusted(&self) -> TlsConfig {
        TlsConfig::new(Some(self.file.path())).unwrap()
    }
}
