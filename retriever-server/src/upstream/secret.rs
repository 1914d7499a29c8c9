//! Keys of services. A key is shown neither by `Debug` nor in a text that went through [`Secret::redact`].

use std::fmt;
use std::sync::Arc;

/// The text that stands for a key.
const HIDDEN: &str = "[key]";

/// A key, which is never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a key without the white space around it; `None` if nothing is left.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.into()))
    }

    /// Returns the key, to be sent to its own service and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Replaces every occurrence of the key, as it is and as it stands in a URL or in JSON. Services repeat keys
    /// in their messages.
    pub fn redact(&self, text: &str) -> String {
        let in_url: String = form_encoded(&self.0);
        let in_json = serde_json::Value::from(&*self.0).to_string();
        let mut redacted = text.replace(&*self.0, HIDDEN).replace(&in_url, HIDDEN);
        let in_json = in_json.trim_matches('"');
        if !in_json.is_empty() {
            redacted = redacted.replace(in_json, HIDDEN);
        }
        redacted
    }
}

/// Encodes a text as the value of a parameter in a URL.
fn form_encoded(text: &str) -> String {
    let base = reqwest::Url::parse("http://host/").expect("the address is valid");
    let mut url = base;
    url.query_pairs_mut().append_pair("k", text);
    url.query().unwrap_or_default().trim_start_matches("k=").to_owned()
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_nowhere() {
        let key = Secret::new(" a\"b/c+d \n").unwrap();
        assert_eq!(key.expose(), "a\"b/c+d");
        assert_eq!(format!("{key:?}"), "[key]");
        let text = r#"key a"b/c+d, url ?q=1&key=a%22b%2Fc%2Bd, json "a\"b/c+d"."#;
        assert_eq!(key.redact(text), r#"key [key], url ?q=1&key=[key], json "[key]"."#);
        assert_eq!(Secret::new(" \n"), None);
    }
}
