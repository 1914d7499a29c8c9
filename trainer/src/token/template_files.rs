//! Reads the chat templates of a model folder, with the precedence of `transformers` 5.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::tokenizer_files::ReadTokenizer;
use super::{ChatDate, ChatTemplate, TokenError};

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The folder of further templates; each file is a template with the name of the file.
const FURTHER_TEMPLATES: &str = "additional_chat_templates";
/// The name of the template that is used.
const DEFAULT: &str = "default";

/// Returns the default template of `folder`, which may name the tokens of `read` by their keys, and the names of all
/// other templates.
pub(super) fn chat_template(
    folder: &Path,
    read: &ReadTokenizer,
    today: ChatDate,
) -> Result<(Option<ChatTemplate>, Vec<String>), TokenError> {
    let written = read.files.config.get("chat_template").unwrap_or(&Value::Null);
    let mut templates = templates(folder, written)?;
    let default = match templates.remove(DEFAULT) {
        Some(source) => Some(ChatTemplate::new(&source, read.named.names(), today)?),
        None => None,
    };
    Ok((default, templates.into_keys().collect()))
}

/// Returns the sources of the templates by name. Files win: if there is one, `chat_template` of
/// tokenizer_config.json does not count. A file `additional_chat_templates/default.jinja` wins over
/// chat_template.jinja.
fn templates(folder: &Path, in_config: &Value) -> Result<BTreeMap<String, String>, TokenError> {
    let mut templates = BTreeMap::new();
    if let Some(source) = read(&folder.join("chat_template.jinja"))? {
        templates.insert(DEFAULT.to_owned(), source);
    }
    let further = folder.join(FURTHER_TEMPLATES);
    if further.is_dir() {
        let unreadable = |error: std::io::Error| TokenError::File {
            path: further.clone(),
            reason: error.to_string(),
        };
        for entry in std::fs::read_dir(&further).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.strip_suffix(".jinja")) else { continue };
            if let Some(source) = read(&path)? {
                templates.insert(name.to_owned(), source);
            }
        }
    }
    if templates.is_empty() {
        templates = written(folder, in_config)?;
    }
    if templates.is_empty() && folder.join("chat_template.json").is_file() {
        tracing::warn!(
            folder = %folder.display(),
            "chat_template.json is not read, as in transformers 5: write its text to chat_template.jinja"
        );
    }
    Ok(templates)
}

/// Returns the templates that tokenizer_config.json holds: one text, a list with names, or an object by name.
fn written(folder: &Path, value: &Value) -> Result<BTreeMap<String, String>, TokenError> {
    let refused = |found: &Value| TokenError::File {
        path: folder.join(TOKENIZER_CONFIG),
        reason: format!(
            "chat_template has {found}; accepted: a text, a list of objects with the texts name and template, or \
             an object of texts"
        ),
    };
    let mut templates = BTreeMap::new();
    match value {
        Value::Null => {}
        Value::String(source) => {
            templates.insert(DEFAULT.to_owned(), source.clone());
        }
        Value::Array(list) => {
            for entry in list {
                let (Some(name), Some(source)) =
                    (entry["name"].as_str(), entry["template"].as_str())
                else {
                    return Err(refused(entry));
                };
                templates.insert(name.to_owned(), source.to_owned());
            }
        }
        Value::Object(named) => {
            for (name, source) in named {
                let source = source.as_str().ok_or_else(|| refused(source))?;
                templates.insert(name.clone(), source.to_owned());
            }
        }
        other => return Err(refused(other)),
    }
    Ok(templates)
}

fn read(path: &Path) -> Result<Option<String>, TokenError> {
    match std::fs::read_to_string(path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TokenError::File { path: path.to_path_buf(), reason: error.to_string() }),
    }
}
