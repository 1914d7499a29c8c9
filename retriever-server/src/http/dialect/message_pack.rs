//! Reads MessagePack, which GEM sends. Texts are UTF-8; keys are texts; bytes and extension types are refused.

use serde::Deserialize;
use serde_json::Value;

/// The most levels of lists and maps, as in JSON.
const MAX_DEPTH: usize = 128;

/// Reads a value. The error says what is wrong with the body.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let mut rest = body;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = Value::deserialize(&mut deserializer)
        .map_err(|error| format!("the body is not MessagePack of texts and numbers: {error}"))?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(format!(
        "the body goes on after its MessagePack value, at byte {}",
        body.len() - rest.len()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_json_are_read_and_others_are_refused() {
        let body = b"\x82\xa7queries\x91\xa1a\xa4topk\x03";
        assert_eq!(read(body).unwrap(), json!({"queries": ["a"], "topk": 3}));
        // A number that is not finite is null, as in JSON.
        let body = b"\x81\xa1a\xcb\x7f\xf8\0\0\0\0\0\0";
        assert_eq!(read(body).unwrap(), json!({"a": null}));
        let deep = [&b"\x81\xa1a"[..], &[0x91; 200], b"\xc0"].concat();
        for (body, expected) in [
            (&b"\x82\xa7quer"[..], "not MessagePack"),
            (b"\x81\xa1a\x01\xc0", "goes on after its MessagePack value, at byte 4"),
            (b"\x81\xa1a\xc4\x01b", "not MessagePack"),
            (b"\x81\xa1a\xd4\x05b", "not MessagePack"),
            (b"\x81\x01\x01", "not MessagePack"),
            (b"\x81\xa2\xff\xfe\x01", "not MessagePack"),
            (b"\xdf\xff\xff\xff\xff", "not MessagePack"),
            (b"\x81\xa1a\xdd\xff\xff\xff\xff", "not MessagePack"),
            (&deep, "not MessagePack"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(expected), "{body:x?}: {error}");
        }
    }
}
