//! The question of a record: a field of its own, or a part of the prompt that a preparation of training data made.
//!
//! Search-R1, veRL and SkyRL write the question into an instruction, after a system message in the last two. What is
//! not certainly the question is refused, because a run with other questions would show no error.

use serde_json::{Map, Value, json};

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
/// The role of the model's own messages.
const ASSISTANT: &str = "assistant";
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

/// The prompt that a record carries: what a preparation of training data gives the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarriedPrompt {
    /// A text, whole as it is.
    Text(String),
    /// Messages for the model's chat template, at least one.
    Messages(Vec<Message>),
}

/// A message of a carried prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`, or another role that the chat template knows.
    pub role: String,
    /// The text, unchanged.
    pub content: String,
}

impl CarriedPrompt {
    /// Returns the prompt in the form in which a row carries it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Messages(messages) => messages
                .iter()
                .map(|Message { role, content }| json!({"role": role, "content": content}))
                .collect(),
        }
    }
}

/// Returns the prompt that a record carries, word for word.
///
/// # Errors
/// No field with a prompt; a message without a role or a text; an end that is the model's own message, which would give
/// the answer away.
pub fn carried_prompt(fields: &Map<String, Value>) -> Result<CarriedPrompt, String> {
    let carried = MESSAGES.iter().find_map(|&name| {
        fields.get(name).filter(|value| !value.is_null()).map(|value| (name, value))
    });
    let Some((name, value)) = carried else {
        return Err(format!(
            "the row carries no prompt; accepted is a text or a list of messages in {}",
            MESSAGES.map(|name| format!("{name:?}")).join(", ")
        ));
    };
    match value {
        Value::Array(messages) => carried_messages(name, messages),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(messages)) => carried_messages(name, &messages),
            _ if text.trim().is_empty() => Err(format!("\"{name}\" is a blank text")),
            _ => Ok(CarriedPrompt::Text(text.clone())),
        },
        other => Err(format!(
            "\"{name}\" is {}; accepted is a text or a list of messages",
            shown(&other.to_string())
        )),
    }
}

fn carried_messages(name: &str, messages: &[Value]) -> Result<CarriedPrompt, String> {
    let text = |message: &Value, keys: [&str; 2]| {
        keys.iter().find_map(|key| content(message.get(key).filter(|value| !value.is_null())?))
    };
    let carried = messages.iter().enumerate().map(|(index, message)| {
        let role = text(message, ["role", "from"]);
        let content = text(message, ["content", "value"]);
        let (Some(role), Some(content)) = (role, content) else {
            return Err(format!(
                "\"{name}[{index}]\" is {}; accepted is an object with \"role\" and \"content\"",
                shown(&message.to_string())
            ));
        };
        let role = match role.as_str() {
            "human" => "user".to_owned(),
            "gpt" => ASSISTANT.to_owned(),
            _ => role,
        };
        Ok(Message { role, content })
    });
    let carried = carried.collect::<Result<Vec<_>, String>>()?;
    match carried.last() {
        None => Err(format!("\"{name}\" has no message")),
        Some(last) if last.role == ASSISTANT => Err(format!(
            "\"{name}\" ends with a message of the assistant; accepted is a prompt that the model has to continue"
        )),
        Some(_) => Ok(CarriedPrompt::Messages(carried)),
    }
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
    fn a_carried_prompt_is_read_word_for_word() {
        let carried = |record: Value| {
            let Value::Object(fields) = record else { panic!("not an object") };
            carried_prompt(&fields)
        };
        let message = |role: &str, content: &str| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let both = vec![message("system", " Be kind.\n"), message("user", "Question: who?\n")];
        let list = json!([
            {"role": "system", "content": " Be kind.\n"}, {"role": "user", "content": "Question: who?\n"}
        ]);
        let sharegpt = json!([
            {"from": "system", "value": " Be kind.\n"}, {"from": "human", "value": "Question: who?\n"}
        ]);
        for record in [
            json!({"prompt": list}),
            json!({"prompt": list.to_string()}),
            json!({"prompt": null, "messages": list}),
            json!({"conversation": sharegpt}),
        ] {
            assert_eq!(carried(record).unwrap(), CarriedPrompt::Messages(both.clone()));
        }
        assert_eq!(CarriedPrompt::Messages(both).to_json(), list);
        let text = json!({"prompt": " as it is\n"});
        assert_eq!(carried(text).unwrap(), CarriedPrompt::Text(" as it is\n".to_owned()));
        for (record, fault) in [
            (json!({"question": "who?"}), "carries no prompt; accepted is a text or a list"),
            (json!({"prompt": []}), "\"prompt\" has no message"),
            (json!({"prompt": " "}), "\"prompt\" is a blank text"),
            (json!({"prompt": 7}), "\"prompt\" is 7; accepted is"),
            (json!({"prompt": [{"role": "user"}]}), "\"prompt[0]\" is {\"role\":\"user\"}"),
            (
                json!({"prompt": [{"role": "assistant", "content": "x"}]}),
                "message of the assistant",
            ),
        ] {
            let error = carried(record.clone()).unwrap_err();
            assert!(error.contains(fault), "{record}: {error}");
        }
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
