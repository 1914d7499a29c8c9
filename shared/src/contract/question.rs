//! The question of a record: a field of its own, or a part of the prompt that a preparation of training data made.
//!
//! Search-R1, veRL and SkyRL write the question into an instruction, after a system message in the last two. What is
//! not certainly the question is refused, because a run with other questions would show no error.

use serde_json::{Map, Value};

/// Fields with the question, in order of precedence: most sets; BEIR's sets, KILT and table-like sets after them.
const FIELDS: [&str; 10] = [
    "question",
    "Question",
    "RawQuestion",
    "query",
    "question_text",
    "question_stem",
    "problem",
    "Problem",
    "text",
    "input",
];
/// Fields with the messages of a prompt.
const MESSAGES: [&str; 3] = ["prompt", "messages", "conversation"];
/// Mark before the question in the instructions of Search-R1 and its descendants.
const MARK: &str = "Question:";
/// Tags that instructions name and questions do not.
const TAGS: [&str; 5] = ["<think>", "<search>", "<answer>", "<tool_call>", "<information>"];
/// Most characters of a prompt that a message shows.
const SHOWN_CHARS: usize = 80;

/// A question, and the prompt that contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question, trimmed, not blank.
    pub text: String,
    /// The user's message that contains it, if the record has a prompt.
    pub prompt: Option<String>,
}

/// Returns the question of a record.
///
/// # Errors
/// No question, or a prompt from which it cannot be told for certain.
pub fn find(fields: &Map<String, Value>) -> Result<Question, String> {
    let prompt = MESSAGES.iter().find_map(|name| user_message(fields.get(*name)?));
    let found = |text: &str| Question { text: text.trim().to_owned(), prompt: prompt.clone() };
    for name in FIELDS {
        match fields.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.trim().is_empty() && name != "question" => {}
            Some(value) => match text_of(value) {
                Some(text) if !text.trim().is_empty() => return Ok(found(text)),
                _ => {
                    return Err(format!(
                        "\"{name}\" is {}; accepted is a text that is not blank",
                        shown(&value.to_string())
                    ));
                }
            },
        }
    }
    if let Some(text) = fields.get("extra_info").and_then(question_within) {
        return Ok(found(text));
    }
    match &prompt {
        Some(prompt) => from_prompt(prompt).map(found),
        None => {
            Err("\"question\" is missing; accepted is a text that is not blank, in \"question\", \
                     \"query\" or \"extra_info.question\", or as the user's message of \"prompt\""
                .to_owned())
        }
    }
}

/// Returns a text, or the text within an object, as in Natural Questions.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("text")?.as_str())
}

/// Returns the question in the extra information of veRL and SkyRL.
fn question_within(extra: &Value) -> Option<&str> {
    let of_tools = "/tools_kwargs/search/create_kwargs/question";
    let questions = [extra.get("question"), extra.pointer(of_tools)];
    questions.into_iter().flatten().filter_map(Value::as_str).find(|text| !text.trim().is_empty())
}

/// Returns the last message of the user, from a list of messages, such a list as a text, or a plain text.
fn user_message(messages: &Value) -> Option<String> {
    match messages {
        Value::Array(messages) => {
            let user = messages.iter().rev().find(|message| {
                ["role", "from"].iter().any(|key| {
                    matches!(message.get(key).and_then(Value::as_str), Some("user" | "human"))
                })
            })?;
            content(user.get("content").or_else(|| user.get("value"))?)
        }
        Value::String(text) => match serde_json::from_str(text) {
            Ok(messages @ Value::Array(_)) => user_message(&messages),
            _ => Some(text.clone()),
        },
        _ => None,
    }
}

/// Returns the text of a message, which may be in parts.
fn content(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> =
                parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            (!texts.is_empty()).then(|| texts.concat())
        }
        _ => None,
    }
}

/// Returns the question after the instruction of a prompt, or the whole prompt if it has no instruction.
fn from_prompt(prompt: &str) -> Result<&str, String> {
    let refuse = |why: &str| {
        Err(format!(
            "the prompt {} {why}, so its question is not certain; add a field \"question\"",
            shown(&format!("{:?}", prompt.trim()))
        ))
    };
    // The instruction ends after its last tag; a question may contain the mark itself.
    let end = TAGS.iter().filter_map(|tag| {
        let closing = tag.replace('<', "</");
        [*tag, &closing].iter().filter_map(|tag| Some(prompt.rfind(tag)? + tag.len())).max()
    });
    let end = end.max();
    let instruction_end = end.unwrap_or(0);
    let question = match prompt[instruction_end..].split_once(MARK) {
        Some((_, question)) => question,
        None if end.is_none() => prompt,
        None => return refuse("has an instruction and no \"Question:\" after it"),
    };
    let question = question.trim();
    if question.is_empty() {
        return refuse("has nothing after \"Question:\"");
    }
    if question.lines().count() > 1 {
        return refuse("has several lines where the question should be");
    }
    Ok(question)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INSTRUCTION: &str = "Think inside <think> and </think>. Search by <search> query </search>. For example, \
                               <answer> Beijing </answer>. Question: ";

    fn question(record: Value) -> Result<String, String> {
        let Value::Object(fields) = record else { panic!("not an object") };
        find(&fields).map(|question| question.text)
    }

    fn prompted(content: &str) -> Result<String, String> {
        let system = json!({"role": "system", "content": "You are kind? Question: no"});
        question(json!({"prompt": [system, {"role": "user", "content": content}]}))
    }

    #[test]
    fn a_field_comes_before_the_extra_information_and_that_before_the_prompt() {
        let prompt = json!([{"role": "user", "content": format!("{INSTRUCTION}third?\n")}]);
        let extra = json!({"question": " second? "});
        let tools = json!({"tools_kwargs": {"search": {"create_kwargs": {"question": "fourth?"}}}});
        for (record, expected) in [
            (json!({"question": "first?\n", "extra_info": extra, "prompt": prompt}), "first?"),
            (json!({"question": null, "extra_info": extra, "prompt": prompt}), "second?"),
            (json!({"extra_info": {"question": ""}, "prompt": prompt}), "third?"),
            (json!({"extra_info": tools, "prompt": prompt}), "fourth?"),
            (json!({"Question": "bamboogle?"}), "bamboogle?"),
            (json!({"question": {"text": "nq?", "tokens": []}}), "nq?"),
            (json!({"input": "kilt?", "output": []}), "kilt?"),
            (json!({"_id": "1", "text": "beir?", "metadata": {}}), "beir?"),
        ] {
            assert_eq!(question(record).unwrap(), expected);
        }
    }

    #[test]
    fn the_instruction_is_cut_from_the_prompt_and_the_system_message_never_read() {
        for (content, expected) in [
            (format!("{INSTRUCTION}who wrote Hamlet?\n"), "who wrote Hamlet?"),
            (format!("{INSTRUCTION}what is Question: Time?"), "what is Question: Time?"),
            ("Answer this. Question: who?".to_owned(), "who?"),
            ("who wrote Hamlet".to_owned(), "who wrote Hamlet"),
        ] {
            assert_eq!(prompted(&content).unwrap(), expected);
        }
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "who?"}]}]);
        assert_eq!(question(json!({"prompt": parts})).unwrap(), "who?");
        let text = "[{\"role\": \"user\", \"content\": \"who?\"}]";
        assert_eq!(question(json!({"prompt": text})).unwrap(), "who?");
        let sharegpt = json!([{"from": "human", "value": "who?"}, {"from": "gpt", "value": "he"}]);
        assert_eq!(question(json!({"conversation": sharegpt})).unwrap(), "who?");
    }

    #[test]
    fn what_is_not_certainly_the_question_is_refused() {
        for (record, fault) in [
            (json!({"answer": "x"}), "\"question\" is missing"),
            (json!({"question": " "}), "\"question\" is \" \"; accepted is a text"),
            (json!({"question": 5}), "\"question\" is 5"),
            (json!({"query": ["a"]}), "\"query\" is [\"a\"]"),
            (
                json!({"prompt": [{"role": "system", "content": "Be kind."}]}),
                "\"question\" is missing",
            ),
            (json!({"prompt": "Use <search>query</search>: who?"}), "no \"Question:\" after it"),
            (json!({"prompt": format!("{INSTRUCTION}\n")}), "has nothing after"),
            (json!({"prompt": format!("{INSTRUCTION}who?\nContext: x")}), "has several lines"),
            (json!({"prompt": "Be brief.\nwho?"}), "has several lines"),
        ] {
            let error = question(record.clone()).unwrap_err();
            assert!(error.contains(fault), "{record}: {error}");
        }
    }
}
