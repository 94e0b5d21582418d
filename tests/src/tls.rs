//! TLS with certificates of any kind in front of a server without.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::scripted::{self, Scripted};

/// What is wrong with a certificate for `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It ended in 2020.
    Expired,
    /// It begins in 2090.
    NotYetValid,
    /// It is for another name.
    OtherName,
    /// Nobody vouches for it.
    SelfSigned,
}

/// An authority of a test's own.
pub struct Authority {
    /// Its certificate in PEM; the file goes with this value.
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When its file cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = std::env::temp_dir()
            .join(format!("authority-{}.pem", emailclient_core::platform::id::new_uuid()));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { file, issuer: Issuer::new(params, key) }
    }

    /// TLS with such a certificate before `port` on 127.0.0.1; every byte under it passes unchanged.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn before(&self, port: u16, fault: Fault) -> Scripted {
        let acceptor = self.acceptor(fault);
        scripted::serve(move |client| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        })
        .await
    }

    fn acceptor(&self, fault: Fault) -> TlsAcceptor {
        wire::tls::install_provider();
        let name = if fault == Fault::OtherName { "other.example" } else { "localhost" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match fault {
            Fault::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Fault::NotYetValid => params.not_before = date_time_ymd(2090, 1, 1),
            Fault::None | Fault::OtherName | Fault::SelfSigned => {}
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match fault {
            Fault::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        let chain: Vec<CertificateDer<'static>> = vec![certificate.unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
