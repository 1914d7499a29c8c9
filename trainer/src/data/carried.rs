//! Prompts that rows carry, token for token as the preparation of their data meant them.
//!
//! Search-R1's loader puts the messages through the model's chat template, with the mark that the model's turn begins,
//! or takes the content of the only message if the model has no template. Names of special tokens stand for those
//! tokens in both cases.

use shared::contract::dataset::QaRecord;
use shared::contract::question::CarriedPrompt;

use super::DataError;
use crate::token::{ChatMessage, Tokenizer};

/// Returns the text and the token ids of the prompt of a record.
pub(super) fn prompt(
    record: &QaRecord,
    chat: bool,
    tokenizer: &Tokenizer,
) -> Result<(String, Vec<u32>), DataError> {
    let text = match record.prompt.as_ref().expect("records are read with their prompts") {
        CarriedPrompt::Text(text) => text.clone(),
        CarriedPrompt::Messages(messages) if chat && tokenizer.has_chat_template()? => {
            let messages: Vec<ChatMessage> = messages
                .iter()
                .map(|message| ChatMessage::new(&message.role, &message.content))
                .collect();
            tokenizer.render_chat(&messages)?
        }
        CarriedPrompt::Messages(messages) => match &messages[..] {
            [only] => only.content.clone(),
            several => {
                let (id, messages) = (record.id.clone(), several.len());
                return Err(DataError::NeedsChatTemplate { id, messages, is_off: !chat });
            }
        },
    };
    let ids = tokenizer.encode_template(&text)?;
    Ok((text, ids))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use serde_json::Value;
    use shared::contract::dataset::{Ids, QaOptions, read_qa_file};

    use super::*;
    use crate::data::{PromptMaker, example};
    use crate::golden;

    const OPTIONS: QaOptions = QaOptions { prompts: true, names_files: false };

    fn records(file: &str) -> Vec<QaRecord> {
        let path = golden::path("questions").join(file);
        read_qa_file(&path, OPTIONS, &mut Ids::default()).unwrap()
    }

    /// The ids that transformers makes of the same rows, by `apply_chat_template` and by the tokenizer alone.
    #[test]
    fn prompts_equal_those_of_transformers_token_for_token() {
        let folder = golden::path("prompts");
        let text = fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        let mut compared = 0;
        for (case, expected) in &expected {
            let (model, file) = case.split_once(' ').unwrap();
            let tokenizer = Tokenizer::from_folder(&folder.join(model)).unwrap();
            let prompts = PromptMaker::Carried { chat: true };
            for (record, expected) in records(file).iter().zip(expected.as_array().unwrap()) {
                let example = example(record, &prompts, &tokenizer, 10_000).unwrap();
                assert_eq!(example.prompt_text, expected["text"], "{case}");
                let ids: Vec<u64> = example.prompt_ids.iter().map(|&id| u64::from(id)).collect();
                assert_eq!(Value::from(ids), expected["ids"], "{case}");
                compared += 1;
            }
        }
        assert_eq!(compared, 12);
    }

    #[test]
    fn messages_that_nothing_joins_are_refused() {
        let tokenizer = Tokenizer::characters();
        let records = records("verl.parquet");
        let refuse = |chat: bool| {
            let prompts = PromptMaker::Carried { chat };
            example(&records[0], &prompts, &tokenizer, 10_000).unwrap_err().to_string()
        };
        let error = refuse(true);
        assert!(error.contains("\"row-1\" carries a prompt of 2 messages"), "{error}");
        assert!(error.contains("the model has none"), "{error}");
        assert!(refuse(false).contains("data.chat is false"));
    }
}
