//! The certificate of the server and its private key, from files of PEM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// The protocol that the server speaks over TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that vouch for it.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The reason why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not readable, or not PEM.
    #[error("{} is not a file of PEM with {expected}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The reason.
        error: pem::Error,
    },
    /// Certificate and key do not fit, or their kind is not supported.
    #[error("the certificate {} with the key {} cannot be used: {error}", files.certificate.display(), files.key.display())]
    Unfit {
        /// The files.
        files: TlsFiles,
        /// The reason.
        error: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads the files.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let fault = |path: &Path, expected| {
            let path = path.to_owned();
            move |error| TlsError::Pem { path, expected, error }
        };
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(|sections| {
                let certificates = sections.collect::<Result<Vec<_>, _>>()?;
                if certificates.is_empty() {
                    Err(pem::Error::NoItemsFound)
                } else {
                    Ok(certificates)
                }
            })
            .map_err(fault(&self.certificate, "a certificate"))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(fault(&self.key, "an unencrypted private key"))?;
        let unfit = |error| TlsError::Unfit { files: self.clone(), error };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(unfit)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificate in use. New connections get the newest one.
pub struct Identity {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = ArcSwap::new(files.load()?);
        Ok(Self { files, config })
    }

    /// Reads the files again. If that fails, the certificate in use stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(self.files.load()?);
        Ok(())
    }

    /// Returns the certificate for a new connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}
