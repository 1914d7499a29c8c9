//! The part of a server's `GET /info` that decides on its answers. All servers of a list must agree in it: the passages of
//! a training run would otherwise depend on which server was asked.

use serde_json::Value;

/// The keys that are compared. Servers of other programs may have none of them.
const KEYS: [&str; 7] =
    ["index_digest", "backend", "components", "has_reranker", "k1", "b", "identity"];

/// The part of a server's description that its answers depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving([Value; KEYS.len()]);

/// Two servers that may answer the same query differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{other} has the {key} {other_value}, but {reference} has {reference_value}: all retrievers must serve the same index \
     with the same settings"
)]
pub struct MixedServers {
    /// The keys of `/info` in which they differ.
    pub key: &'static str,
    /// The address of the server that answered first.
    pub reference: String,
    /// Its value.
    pub reference_value: String,
    /// The address of the server that differs from it.
    pub other: String,
    /// Its value.
    pub other_value: String,
}

impl Serving {
    /// Reads the body of `/info`. A body without a back end says nothing. A server whose passages another service holds
    /// has no digest of an index.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        body["backend"].is_string().then(|| Self(KEYS.map(|key| body[key].clone())))
    }

    /// Returns the digest that responses of the server have in their header; `None` if it sends none.
    pub fn identity(&self) -> Option<&str> {
        self.0[KEYS.len() - 1].as_str()
    }

    /// Returns the facts as a JSON object; one that the server does not state is null.
    pub fn facts(&self) -> Value {
        KEYS.into_iter().map(str::to_owned).zip(self.0.iter().cloned()).collect()
    }

    /// Compares what the servers at two addresses serve.
    ///
    /// # Errors
    /// The first key in which they differ.
    pub(super) fn compare(
        &self,
        address: &str,
        (reference_address, reference): (&str, &Self),
    ) -> Result<(), MixedServers> {
        let values = self.0.iter().zip(&reference.0);
        let differs = |(_, (own, other)): &(_, (&Value, &Value))| own != other;
        let Some((key, (own, other))) = KEYS.into_iter().zip(values).find(differs) else {
            return Ok(());
        };
        Err(MixedServers {
            key,
            reference: reference_address.to_owned(),
            reference_value: other.to_string(),
            other: address.to_owned(),
            other_value: own.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_may_answer_differently_are_named() {
        let read = |body: &str| Serving::parse(body.as_bytes());
        let first =
            read(r#"{"index_digest": "ab", "backend": "bm25", "k1": 0.9, "x": 1}"#).unwrap();
        let same = read(r#"{"index_digest": "ab", "backend": "bm25", "k1": 0.9, "x": 2}"#).unwrap();
        assert_eq!(same.compare("http://b", ("http://a", &first)), Ok(()));
        for (body, part) in [
            (
                r#"{"index_digest": "cd", "backend": "bm25", "k1": 0.9}"#,
                "http://b has the index_digest \"cd\", but http://a has \"ab\"",
            ),
            (
                r#"{"index_digest": "ab", "backend": "dense", "k1": 0.9}"#,
                "http://b has the backend \"dense\", but http://a has \"bm25\"",
            ),
            (r#"{"index_digest": "ab", "backend": "bm25"}"#, "the k1 null, but http://a has 0.9"),
        ] {
            let mixed = read(body).unwrap().compare("http://b", ("http://a", &first));
            let message = mixed.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn servers_of_other_programs_say_nothing() {
        for body in ["", "<html>", "[]", "{\"detail\": \"Not Found\"}", "{\"backend\": 5}"] {
            assert_eq!(Serving::parse(body.as_bytes()), None, "{body}");
        }
    }
}
