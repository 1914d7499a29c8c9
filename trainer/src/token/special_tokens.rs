//! Finds the chat template of a folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::tokenizer_files::ReadTokenizer;
use super::{ChatDate, ChatTemplate, TokenError};

/// Reads the chat template of `folder`. It may name the tokens of `read` by their keys.
pub(super) fn chat_template(
    folder: &Path,
    read: &ReadTokenizer,
    today: ChatDate,
) -> Result<Option<ChatTemplate>, TokenError> {
    let written = read.files.config.get("chat_template").unwrap_or(&Value::Null);
    let Some(source) = template_source(folder, written)? else { return Ok(None) };
    let tokens: BTreeMap<String, String> = read.named.names();
    Ok(Some(ChatTemplate::new(&source, tokens, today)?))
}

/// Returns the source of the template: a string, an entry in a list of named templates, or, in newer
/// folders, a file.
fn template_source(folder: &Path, written: &Value) -> Result<Option<String>, TokenError> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok(Some(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(TokenError::File { path, reason: error.to_string() }),
    }
    let named = || {
        let list = written.as_array()?;
        list.iter().find(|entry| entry["name"] == "default")?["template"].as_str()
    };
    Ok(written.as_str().or_else(named).map(str::to_owned))
}
