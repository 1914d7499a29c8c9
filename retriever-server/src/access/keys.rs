//! API keys from a file: one key a line, with a name before it if it has one.
//!
//! ```text
//! # name   key
//! trainer  7d0e0a3b7f2c4d...
//! ```
//!
//! Only digests are kept. A presented key is compared with all of them in constant time, so that the time of an answer
//! tells nothing about a key. Keys never appear in messages.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// The shortest accepted key.
const MIN_KEY_CHARS: usize = 16;
/// The longest accepted key.
const MAX_KEY_CHARS: usize = 512;
/// The largest accepted file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The reason why a file of keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The file is too large.
    #[error("{} has {bytes} bytes, expected at most {MAX_FILE_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file has no key, so nobody could ask.
    #[error("{} has no key, expected one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a key.
    #[error(
        "{} line {line} {fault}, expected a key of {MIN_KEY_CHARS} to {MAX_KEY_CHARS} visible ASCII \
         characters, with a name and a space before it if it has one", path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The fault, without the key.
        fault: String,
    },
}

/// The accepted keys.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

/// An accepted key.
#[derive(Clone)]
struct Key {
    digest: [u8; 32],
    name: String,
    /// The number of its holder. Keys of one name have one holder, such as the old and the new key of a rotation.
    holder: u64,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyRing").field("keys", &self.keys.len()).finish()
    }
}

impl KeyRing {
    /// Reads a file of keys.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let unreadable = |error| KeysError::Unreadable { path: path.to_owned(), error };
        let bytes = fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(KeysError::TooLarge { path: path.to_owned(), bytes });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(unreadable)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, key, holder) = match words[..] {
                [key] => (format!("line {}", index + 1), key, digest(key.as_bytes()).to_vec()),
                [name, key] => (name.to_owned(), key, name.as_bytes().to_vec()),
                _ => {
                    let fault = format!("has {} words", words.len());
                    return Err(KeysError::Line { path: path.to_owned(), line: index + 1, fault });
                }
            };
            let fault = if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                Some("has a key with other characters".to_owned())
            } else if !(MIN_KEY_CHARS..=MAX_KEY_CHARS).contains(&key.len()) {
                Some(format!("has a key of {} characters", key.len()))
            } else {
                None
            };
            if let Some(fault) = fault {
                return Err(KeysError::Line { path: path.to_owned(), line: index + 1, fault });
            }
            let holder = number(&digest(&holder));
            keys.push(Key { digest: digest(key.as_bytes()), name, holder });
        }
        if keys.is_empty() {
            Err(KeysError::Empty { path: path.to_owned() })
        } else {
            Ok(Self { keys })
        }
    }

    /// Returns the number of keys.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Returns the name of a key, if it is accepted. The time does not depend on which key it resembles.
    pub fn name_of(&self, presented: &[u8]) -> Option<&str> {
        self.key(presented).map(|key| key.name.as_str())
    }

    /// Returns the number of the holder of a key, if it is accepted.
    pub fn holder_of(&self, presented: &[u8]) -> Option<u64> {
        self.key(presented).map(|key| key.holder)
    }

    fn key(&self, presented: &[u8]) -> Option<&Key> {
        let presented = digest(presented);
        let mut accepted = None;
        for key in &self.keys {
            let is_equal: Choice = key.digest.ct_eq(&presented);
            if bool::from(is_equal) {
                accepted = Some(key);
            }
        }
        accepted
    }
}

/// Returns the first 64 bits of a digest.
fn number(digest: &[u8; 32]) -> u64 {
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "fedcba9876543210!";

    fn parse(text: &str) -> Result<KeyRing, KeysError> {
        KeyRing::parse(Path::new("keys"), text)
    }

    #[test]
    fn each_line_is_a_key() {
        let ring = parse(&format!("# two\n\n{FIRST}\r\n  trainer {SECOND}\n")).unwrap();
        assert_eq!(ring.count(), 2);
        assert_eq!(ring.name_of(FIRST.as_bytes()), Some("line 3"));
        assert_eq!(ring.name_of(SECOND.as_bytes()), Some("trainer"));
        for other in ["", "0123456789abcde", "0123456789abcdef ", "trainer"] {
            assert_eq!(ring.name_of(other.as_bytes()), None, "{other:?}");
        }
        assert!(!format!("{ring:?}").contains("0123"));
    }

    #[test]
    fn keys_of_one_name_have_one_holder() {
        let third = "third-key-0123456789";
        let ring = parse(&format!("{FIRST}\ntrainer {SECOND}\ntrainer {third}\n")).unwrap();
        let holder = |key: &str| ring.holder_of(key.as_bytes());
        assert_eq!(holder(SECOND), holder(third));
        assert!(holder(FIRST).is_some() && holder(FIRST) != holder(SECOND));
        assert_eq!(holder("another-key-0123456789"), None);
        // Other lines do not change the holder.
        let alone = parse(&format!("\n\n{FIRST}\n")).unwrap();
        assert_eq!(alone.holder_of(FIRST.as_bytes()), holder(FIRST));
    }

    #[test]
    fn a_bad_line_is_named_without_its_key() {
        for (text, fault) in [
            ("", "keys has no key"),
            ("# only a comment\n", "keys has no key"),
            ("\nshort-secret\n", "keys line 2 has a key of 12 characters"),
            ("a b secretsecretsecret", "keys line 1 has 3 words"),
            ("name schl\u{fc}sselschl\u{fc}ssel", "keys line 1 has a key with other characters"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(fault), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
