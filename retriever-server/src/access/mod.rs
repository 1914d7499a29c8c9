//! Who may ask, and how: API keys, and the certificate of TLS. Both come from files, which are read again on request and
//! when they change. A file that has become bad changes nothing: the keys and the certificate in use stay.

mod keys;
mod tls;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use thiserror::Error;
use tracing::{error, info};

pub use keys::{KeyRing, KeysError};
pub use tls::{Identity, TlsError, TlsFiles};

/// The files of keys and certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFiles {
    /// The keys of clients; without it, everybody may ask.
    pub keys: Option<PathBuf>,
    /// The keys of operators, for the admin endpoints.
    pub admin_keys: Option<PathBuf>,
    /// The certificate; without it, the server speaks plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// The reason why a file cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A file of keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Keys that are read again.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    ring: ArcSwap<KeyRing>,
}

impl Guard {
    fn load(path: &Path) -> Result<Self, KeysError> {
        let ring = ArcSwap::from_pointee(KeyRing::load(path)?);
        Ok(Self { path: path.to_owned(), ring })
    }

    /// Returns the number of the holder of an accepted key.
    pub fn holder_of(&self, presented: &[u8]) -> Option<u64> {
        self.ring.load().holder_of(presented)
    }
}

/// The keys and the certificate in use.
#[derive(Debug, Default)]
pub struct Access {
    /// The keys of clients.
    pub keys: Option<Arc<Guard>>,
    /// The keys of operators.
    pub admin_keys: Option<Arc<Guard>>,
    /// The certificate.
    pub identity: Option<Arc<Identity>>,
    files: AccessFiles,
    /// The state of the files when they were last read.
    seen: Mutex<Vec<Stamp>>,
}

/// The marks of a file that differ after a change.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Access {
    /// Reads all files.
    pub fn load(files: &AccessFiles) -> Result<Self, AccessError> {
        let seen = Mutex::new(stamps(files));
        let guard = |path: &Option<PathBuf>| -> Result<_, KeysError> {
            path.as_deref().map(Guard::load).transpose().map(|guard| guard.map(Arc::new))
        };
        let identity = files.tls.clone().map(Identity::load).transpose()?.map(Arc::new);
        Ok(Self {
            keys: guard(&files.keys)?,
            admin_keys: guard(&files.admin_keys)?,
            identity,
            files: files.clone(),
            seen,
        })
    }

    /// Reads all files again. After an error, everything in use stays as it was.
    pub fn reload(&self) -> Result<(), AccessError> {
        let seen = stamps(&self.files);
        let read = |guard: &Option<Arc<Guard>>| -> Result<_, KeysError> {
            guard.as_ref().map(|guard| KeyRing::load(&guard.path)).transpose()
        };
        let (keys, admin_keys) = (read(&self.keys)?, read(&self.admin_keys)?);
        if let Some(identity) = &self.identity {
            identity.reload()?;
        }
        for (guard, ring) in [(&self.keys, keys), (&self.admin_keys, admin_keys)] {
            if let (Some(guard), Some(ring)) = (guard, ring) {
                info!(file = %guard.path.display(), keys = ring.count(), "API keys are read");
                guard.ring.store(Arc::new(ring));
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// Reads the files again if one of them has changed, and logs what is wrong with it.
    pub fn follow(&self) {
        let now = stamps(&self.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return;
            }
            // A bad file is reported once.
            seen.clone_from(&now);
        }
        if let Err(fault) = self.reload() {
            error!(%fault, "keys and certificates stay as they were");
        }
    }

    /// Returns `true` if there is a file to follow.
    pub fn has_files(&self) -> bool {
        self.files != AccessFiles::default()
    }
}

fn stamps(files: &AccessFiles) -> Vec<Stamp> {
    let AccessFiles { keys, admin_keys, tls } = files;
    let tls = tls.iter().flat_map(|files| [&files.certificate, &files.key]);
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    keys.iter().chain(admin_keys).chain(tls).map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-key-0123456789";
    const NEW: &str = "new-key-0123456789";

    #[test]
    fn changed_keys_are_followed_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, OLD).unwrap();
        let files = AccessFiles { keys: Some(path.clone()), ..AccessFiles::default() };
        let access = Access::load(&files).unwrap();
        let admits = |key: &str| access.keys.as_ref().unwrap().holder_of(key.as_bytes()).is_some();
        assert!(admits(OLD) && !admits(NEW));
        fs::write(&path, format!("{OLD}\n{NEW}\n")).unwrap();
        access.follow();
        assert!(admits(OLD) && admits(NEW));
        // A bad file changes nothing, also when it is asked for.
        fs::write(&path, "short").unwrap();
        access.follow();
        assert!(access.reload().unwrap_err().to_string().contains("line 1 has a key of 5"));
        assert!(admits(OLD) && admits(NEW));
        fs::write(&path, format!("after {NEW}")).unwrap();
        access.follow();
        assert!(!admits(OLD) && admits(NEW));
    }
}
