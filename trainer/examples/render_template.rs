//! Renders chat templates as the trainer does, for `scripts/check-templates`. Reads objects with `template`,
//! `messages` and `tokens`, one on each line, and writes an object with `text` or `error` for each.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde::Deserialize;
use trainer::token::{ChatDate, ChatMessage, ChatTemplate};

#[derive(Deserialize)]
struct Request {
    template: String,
    messages: Vec<ChatMessage>,
    tokens: BTreeMap<String, String>,
}

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let rendered = ChatTemplate::new(&request.template, request.tokens, ChatDate::default())
            .and_then(|template| template.render(&request.messages));
        let answer = match rendered {
            Ok(text) => serde_json::json!({ "text": text }),
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
