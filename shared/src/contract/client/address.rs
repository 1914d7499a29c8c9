//! The address of a retriever: the forms in which users write it, and the form that messages show.

use reqwest::Url;

use super::ConfigError;
use crate::machine::http;

/// Last part of the path of every endpoint.
const SEGMENT: &str = "retrieve";

/// Returns the endpoint of a retriever. With or without `/retrieve`, and with or without a slash at the end, an address
/// means the same; a query string stays, a fragment is dropped.
///
/// # Errors
/// A text that is not an address, or one of another protocol.
pub(super) fn endpoint(url: &str) -> Result<Url, ConfigError> {
    let refuse = |reason: String| ConfigError::Url { url: url.to_owned(), reason };
    let mut endpoint = Url::parse(url).map_err(|error| refuse(error.to_string()))?;
    if !http::SCHEMES.contains(&endpoint.scheme()) {
        return Err(refuse(format!("the scheme {:?} is not supported", endpoint.scheme())));
    }
    let path = endpoint.path().trim_end_matches('/');
    let has_segment = path.rsplit('/').next() == Some(SEGMENT);
    let path = if has_segment { path.to_owned() } else { format!("{path}/{SEGMENT}") };
    endpoint.set_path(&path);
    endpoint.set_fragment(None);
    Ok(endpoint)
}

/// Returns an address for messages, without the parts that may hold a secret: user, password and query string.
pub(super) fn shown(endpoint: &Url) -> String {
    let mut shown = endpoint.clone();
    shown.set_query(None);
    // These fail only for addresses without a host, which no endpoint is.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_an_address_mean_the_same() {
        for (url, expected) in [
            ("http://host:8000", "http://host:8000/retrieve"),
            ("http://host:8000/", "http://host:8000/retrieve"),
            ("http://host:8000//", "http://host:8000/retrieve"),
            ("http://host:8000/retrieve", "http://host:8000/retrieve"),
            ("http://host:8000/retrieve/", "http://host:8000/retrieve"),
            ("http://host:8000/retrieve//", "http://host:8000/retrieve"),
            (" http://host:8000/retrieve ", "http://host:8000/retrieve"),
            ("http://host:8000/retrieve/#top", "http://host:8000/retrieve"),
            ("http://host:8000/retrieve?key=a/b", "http://host:8000/retrieve?key=a/b"),
            ("http://host:8000/retrieve/?key=a", "http://host:8000/retrieve?key=a"),
            ("http://host:8000?key=a", "http://host:8000/retrieve?key=a"),
            ("HTTP://Host/v1/", "http://host/v1/retrieve"),
            ("http://host/my_retrieve", "http://host/my_retrieve/retrieve"),
            ("http://host/retrieve/v2", "http://host/retrieve/v2/retrieve"),
            ("https://[::1]:9", "https://[::1]:9/retrieve"),
        ] {
            assert_eq!(endpoint(url).unwrap().as_str(), expected, "{url}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_accepted_form() {
        for url in ["", "host:8000", "ftp://host", "http://", "/retrieve"] {
            let error = endpoint(url).unwrap_err().to_string();
            assert!(error.contains(&format!("{url:?}")), "{error}");
            assert!(error.contains("http://host:port"), "{error}");
        }
    }

    #[test]
    fn messages_show_no_secret() {
        let endpoint = endpoint("http://me:secret@host:1/a?token=secret").unwrap();
        assert_eq!(shown(&endpoint), "http://host:1/a/retrieve");
    }
}
