//! The address of a retriever: the forms in which users write it, and the form that messages show.

use reqwest::Url;

use super::ConfigError;
use crate::machine::http;

/// Last part of the path of every endpoint.
const SEGMENT: &str = "retrieve";
/// Prefix of an address whose host is a name of several servers.
pub const NAME_PREFIX: &str = "dns+";

/// One entry of a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) endpoint: Url,
    /// `true` if each address of the host is a server of its own.
    pub(super) is_name: bool,
}

/// Returns the addresses in a list that is separated by commas.
pub fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Reads a list of addresses.
///
/// # Errors
/// An empty list, an invalid address, and an address that is there twice.
pub(super) fn addresses(list: &str) -> Result<Vec<Address>, ConfigError> {
    let mut addresses: Vec<Address> = Vec::new();
    for url in listed(list) {
        let (is_name, plain) = match url.strip_prefix(NAME_PREFIX) {
            Some(plain) => (true, plain),
            None => (false, url),
        };
        let endpoint = endpoint(plain)?;
        if addresses.iter().any(|other| other.endpoint == endpoint) {
            let reason = "the list has this server twice".to_owned();
            return Err(ConfigError::Url { url: url.to_owned(), reason });
        }
        addresses.push(Address { endpoint, is_name });
    }
    if addresses.is_empty() {
        let reason = "it names no server".to_owned();
        return Err(ConfigError::Url { url: list.to_owned(), reason });
    }
    Ok(addresses)
}

/// Returns the endpoint of a retriever. With or without `/retrieve`, and with or without a slash at the end, an address
/// means the same; a query string stays, a fragment is dropped.
///
/// # Errors
/// A text that is not an address, or one of another protocol.
pub fn endpoint(url: &str) -> Result<Url, ConfigError> {
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
    fn a_list_has_servers_and_names_of_servers() {
        let read = addresses(" http://a:1, dns+https://b/x/retrieve,http://[::1]:2,").unwrap();
        let shown: Vec<(&str, bool)> =
            read.iter().map(|address| (address.endpoint.as_str(), address.is_name)).collect();
        let expected = [
            ("http://a:1/retrieve", false),
            ("https://b/x/retrieve", true),
            ("http://[::1]:2/retrieve", false),
        ];
        assert_eq!(shown, expected);
        for (list, part) in [
            ("", "it names no server"),
            (" , ", "it names no server"),
            ("http://a,b:1", "\"b:1\""),
            (
                "http://a, http://a/retrieve/",
                "\"http://a/retrieve/\": the list has this server twice",
            ),
            ("http://a, dns+http://a", "the list has this server twice"),
            ("dns+ftp://a", "the scheme \"ftp\" is not supported"),
        ] {
            let error = addresses(list).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("http://host:port"), "{error}");
        }
    }

    #[test]
    fn messages_show_no_secret() {
        let endpoint = endpoint("http://me:secret@host:1/a?token=secret").unwrap();
        assert_eq!(shown(&endpoint), "http://host:1/a/retrieve");
    }
}
