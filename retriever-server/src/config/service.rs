//! The variables of keys, certificates, browsers, the admin endpoints and traces.

use std::net::SocketAddr;
use std::path::PathBuf;

use shared::machine::traces::TraceConfig;

use super::BadValue;
use super::reader::{FaultNoted, Reader, path};
use super::variables::{self as var, Variable};
use crate::access::{AccessFiles, KeyRing, TlsFiles};

/// The time at which the files of the index are compared with their digests. Their sizes are compared at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexCheck {
    /// Small files before the first query is answered, large ones as with [`Self::Background`].
    Auto,
    /// Before the first query is answered.
    Start,
    /// While queries are answered. A file that differs takes the index out of service.
    Background,
    /// Never.
    Never,
}

/// The settings of a server that neither its back end nor its limits depend on.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// The address of the admin endpoints, if they have one of their own.
    pub admin_addr: Option<SocketAddr>,
    /// The files of keys and certificates.
    pub files: AccessFiles,
    /// The web sites whose pages may ask; `*` for all.
    pub cors_origins: Vec<String>,
    /// The collector of traces, if there is one.
    pub traces: Option<TraceConfig>,
}

impl Reader<'_> {
    pub(super) fn service(&mut self) -> Result<ServiceConfig, FaultNoted> {
        let admin_addr = self.take_optional(&var::ADMIN_ADDR, |text| text.parse().ok().map(Some));
        let keys = self.take_optional(&var::API_KEYS_FILE, |text| path(text).map(Some));
        let admin_keys = self.take_optional(&var::ADMIN_KEYS_FILE, |text| path(text).map(Some));
        let certificate = self.take_optional(&var::TLS_CERT, |text| path(text).map(Some));
        let key = self.take_optional(&var::TLS_KEY, |text| path(text).map(Some));
        let cors_origins = self.take_optional(&var::CORS_ORIGINS, origins);
        let endpoint = self.take_optional(&var::OTLP_ENDPOINT, |text| collector(text).map(Some));
        let sample_ratio = self.take(&var::TRACE_RATIO, |text| {
            text.parse().ok().filter(|ratio: &f64| (0.0..=1.0).contains(ratio))
        });
        let tls = match (certificate?, key?) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(self.lacks(&var::TLS_KEY, &var::TLS_CERT)),
            (None, Some(_)) => return Err(self.lacks(&var::TLS_CERT, &var::TLS_KEY)),
        };
        let (endpoint, sample_ratio) = (endpoint?, sample_ratio?);
        Ok(ServiceConfig {
            admin_addr: admin_addr?,
            files: AccessFiles { keys: keys?, admin_keys: admin_keys?, tls },
            cors_origins: cors_origins?,
            traces: endpoint.map(|endpoint| TraceConfig { endpoint, sample_ratio }),
        })
    }

    /// Notes that one of two variables that belong together is not set.
    fn lacks(&mut self, missing: &Variable, present: &Variable) -> FaultNoted {
        self.note(missing, None, format!("{}, as {} is set", missing.accepts, present.name))
    }
}

/// Returns the faults of the files that do not fit.
pub(super) fn file_faults(files: &AccessFiles) -> Vec<BadValue> {
    let fault = |variable: &Variable, path: &PathBuf, problem: String| BadValue {
        variable: variable.name,
        flag: variable.flag,
        value: Some(path.display().to_string()),
        problem: Some(problem),
        accepts: variable.accepts.to_owned(),
    };
    let keys = [(&var::API_KEYS_FILE, &files.keys), (&var::ADMIN_KEYS_FILE, &files.admin_keys)];
    let mut faults: Vec<BadValue> = keys
        .into_iter()
        .filter_map(|(variable, path)| {
            let path = path.as_ref()?;
            Some(fault(variable, path, KeyRing::load(path).err()?.to_string()))
        })
        .collect();
    if let Some(tls) = &files.tls
        && let Err(error) = tls.load()
    {
        faults.push(fault(&var::TLS_CERT, &tls.certificate, error.to_string()));
    }
    faults
}

/// Parses the address of a collector.
fn collector(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let is_http = shared::machine::http::SCHEMES.contains(&url.scheme()) && url.has_host();
    is_http.then(|| text.to_owned())
}

/// Parses origins with commas between them, or `*`.
fn origins(text: &str) -> Option<Vec<String>> {
    if text == "*" {
        return Some(vec![text.to_owned()]);
    }
    let origin = |text: &str| {
        let url = reqwest::Url::parse(text).ok()?;
        // A browser sends scheme, host and port, without a path and in lower case.
        (url.origin().ascii_serialization() == text).then(|| text.to_owned())
    };
    text.split(',').map(origin).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ServeConfig;

    fn message(variables: &[(&str, &str)]) -> String {
        let mut source: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| (format!("RETRIEVER_{name}"), (*value).to_owned()))
            .collect();
        source.insert("RETRIEVER_INDEX".to_owned(), "index".to_owned());
        ServeConfig::resolve(&source).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn settings_that_fit_are_accepted() {
        for variables in [
            [("ADMIN_ADDR", "127.0.0.1:8001"), ("API_KEYS_FILE", "keys")],
            [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")],
            [("CORS_ORIGINS", "https://a.example,http://localhost:3000"), ("TRACE_RATIO", "0.01")],
            [("CORS_ORIGINS", "*"), ("OTLP_ENDPOINT", "http://collector:4318")],
        ] {
            assert_eq!(message(&variables), "", "{variables:?}");
        }
    }

    #[test]
    fn each_bad_value_is_named() {
        for (name, value, expected) in [
            (
                "ADMIN_ADDR",
                "8001",
                "RETRIEVER_ADMIN_ADDR (--admin-addr) is \"8001\": expected an address",
            ),
            ("TLS_CERT", "cert.pem", "RETRIEVER_TLS_KEY (--tls-key) is not set: expected"),
            ("TLS_KEY", "key.pem", "RETRIEVER_TLS_CERT (--tls-cert) is not set: expected"),
            ("CORS_ORIGINS", "https://a.example/path", "is \"https://a.example/path\": expected *"),
            ("CORS_ORIGINS", "a.example", "is \"a.example\": expected *"),
            ("OTLP_ENDPOINT", "collector:4318", "is \"collector:4318\": expected"),
            ("TRACE_RATIO", "2", "is \"2\": expected a number from 0 to 1"),
        ] {
            let message = message(&[(name, value)]);
            assert!(message.contains(expected), "{name} {value}: {message}");
        }
    }
}
