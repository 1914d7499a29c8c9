//! Tests with a small byte-level tokenizer: every byte is a token, and a few pairs are merged.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CHARACTERS_END_ID, ChatMessage, TextStream, Tokenizer};

/// Returns the alphabet of byte-level vocabularies: printable bytes as themselves, the other bytes as
/// characters from U+0100 upwards.
fn byte_alphabet() -> Vec<char> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}

const START_ID: u32 = 260;
const END_ID: u32 = 261;

fn tokenizer_json() -> Value {
    let mut vocabulary: Vec<String> = byte_alphabet().iter().map(char::to_string).collect();
    let merges = ["s e", "se a", "Ġ q", "< /"];
    vocabulary.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let numbered: serde_json::Map<String, Value> =
        vocabulary.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(START_ID, "<|im_start|>"), special(END_ID, "<|im_end|>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "vocab": numbered, "merges": merges},
    })
}

const CHAT_TEMPLATE: &str = "\
{% for message in messages %}
    {% if message['role'] not in ['system', 'user', 'assistant'] %}
{{ raise_exception('no role ' + message.role) }}
    {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'].strip() + eos_token + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' -}}
{% endif %}
";

fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents.to_string()).unwrap();
    }
    folder
}

fn with_template() -> Tokenizer {
    let config = json!({"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE});
    Tokenizer::from_folder(folder(&[("tokenizer_config.json", config)]).path()).unwrap()
}

const AWKWARD: &str = "é🙂日本 \u{301} <|im_end|>\n\t</search> sea q\u{fffd}!";

#[test]
fn text_goes_to_ids_and_back() {
    for tokenizer in [with_template(), Tokenizer::characters()] {
        for text in ["", " ", "sea", AWKWARD] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}

#[test]
fn special_tokens_are_read_in_templates_and_not_in_text() {
    let tokenizer = with_template();
    assert!(!tokenizer.encode("a<|im_end|>").unwrap().contains(&END_ID));
    assert_eq!(tokenizer.encode_template("<|im_end|>").unwrap(), [END_ID]);
    assert_eq!(tokenizer.decode(&[START_ID, 0, END_ID]).unwrap(), "<|im_start|>\0<|im_end|>");
}

#[test]
fn a_turn_is_decoded_without_the_end_that_closes_it() {
    let tokenizer = with_template();
    let mut ids = tokenizer.encode("x").unwrap();
    ids.extend([END_ID, START_ID]);
    assert_eq!(tokenizer.decode_turn(&ids).unwrap(), "x<|im_end|><|im_start|>");
    ids.pop();
    assert_eq!(tokenizer.decode_turn(&ids).unwrap(), "x");
    assert_eq!(tokenizer.decode_turn(&[END_ID]).unwrap(), "");
    assert_eq!(Tokenizer::characters().decode_turn(&[120, CHARACTERS_END_ID]).unwrap(), "x");
}

#[test]
fn end_ids_are_those_of_generation_config_or_else_of_config() {
    let ids = |files: &[(&str, Value)]| {
        Tokenizer::from_folder(folder(files).path()).unwrap().end_ids().to_vec()
    };
    let tokenizer = ("tokenizer_config.json", json!({"eos_token": {"content": "<|im_end|>"}}));
    let generation = |eos: Value| ("generation_config.json", json!({"eos_token_id": eos}));
    let config = ("config.json", json!({"model_type": "llama", "eos_token_id": 2}));
    // The tokenizer's own token comes first, if it counts at all.
    assert_eq!(
        ids(&[tokenizer.clone(), generation(json!([4, 261, 3])), config.clone()]),
        [261, 4, 3]
    );
    assert_eq!(ids(&[tokenizer.clone(), generation(json!([3, 4])), config.clone()]), [3, 4]);
    assert_eq!(ids(&[tokenizer.clone(), config.clone()]), [2]);
    assert_eq!(ids(&[generation(json!(7))]), [7]);
    assert_eq!(ids(std::slice::from_ref(&tokenizer)), [261]);
    // Defaults of the classes.
    for (model_type, default) in [("llama", 2), ("mistral", 2), ("smollm3", 128_001)] {
        assert_eq!(ids(&[("config.json", json!({"model_type": model_type}))]), [default]);
    }
    for files in [
        vec![tokenizer.clone(), ("generation_config.json", json!({"temperature": 1.0})), config],
        vec![tokenizer, ("config.json", json!({"model_type": "qwen3"}))],
    ] {
        check_error(folder(&files).path(), &["config.json", "would never end"]);
    }
    // An id without an embedding is never sampled; beside another one it does no harm.
    let sizes = ("config.json", json!({"model_type": "llama", "vocab_size": 262}));
    assert_eq!(ids(&[generation(json!([3, 262])), sizes.clone()]), [3, 262]);
    let files = [generation(json!([262, 300])), sizes];
    check_error(folder(&files).path(), &["eos_token_id is [262, 300]", "262 embeddings"]);
}

#[test]
fn a_token_that_the_model_has_no_embedding_for_is_refused_where_it_stands() {
    let files = [
        ("tokenizer_config.json", json!({"eos_token": "<|im_end|>", "pad_token": "<pad>"})),
        ("config.json", json!({"model_type": "llama", "vocab_size": 262})),
    ];
    let tokenizer = Tokenizer::from_folder(folder(&files).path()).unwrap();
    assert_eq!(tokenizer.encode_template("<|im_end|>").unwrap(), [END_ID]);
    let message = tokenizer.encode_template("a<pad>").unwrap_err().to_string();
    assert!(message.contains("\"<pad>\"") && message.contains("262"), "{message}");
}

#[test]
fn keys_that_may_change_the_tokens_are_refused_by_name() {
    let eos = "<|im_end|>";
    for (key, value) in [
        ("split_special_tokens", json!(true)),
        ("fix_mistral_regex", json!(true)),
        ("init_inputs", json!([1])),
        ("auto_map", json!({"AutoTokenizer": ["code.Tokenizer", null]})),
        ("tokenizer_class", json!("BertTokenizer")),
        ("word_dropout", json!(0.1)),
        ("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", json!(true)),
        ("extra_special_tokens", json!("<|tool|>")),
        ("added_tokens_decoder", json!({"x": {"content": "<|tool|>"}})),
    ] {
        let mut config = json!({"eos_token": eos});
        config[key] = value;
        check_error(
            folder(&[("tokenizer_config.json", config)]).path(),
            &["tokenizer_config.json", key, "accepted"],
        );
    }
    let mut file = tokenizer_json();
    file["model"]["dropout"] = json!(0.1);
    check_error(folder(&[("tokenizer.json", file)]).path(), &["model.dropout = 0.1", "null"]);
    for key in ["subword_regularization", "model.lowercase"] {
        let mut file = tokenizer_json();
        match key.strip_prefix("model.") {
            Some(key) => file["model"][key] = json!(1),
            None => file[key] = json!(1),
        }
        check_error(
            folder(&[("tokenizer.json", file)]).path(),
            &["tokenizer.json", key, "accepted"],
        );
    }
}

/// Keys of files on the hub.
#[test]
fn keys_of_published_tokenizers_are_accepted() {
    let config = json!({
        "add_bos_token": true, "add_eos_token": false, "add_prefix_space": null, "added_tokens_decoder": {},
        "additional_special_tokens": [], "backend": "tokenizers", "bos_token": null, "chat_template": "{{ 1 }}",
        "clean_up_tokenization_spaces": true, "eos_token": "<|im_end|>", "errors": "replace",
        "extra_special_tokens": {}, "is_local": true, "legacy": false, "model_input_names": ["input_ids"],
        "model_max_length": 1e30, "name_or_path": "x", "pad_token": "<|im_end|>", "padding_side": "left",
        "processor_class": "Processor", "sp_model_kwargs": {}, "spaces_between_special_tokens": false,
        "split_special_tokens": false, "tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": "left",
        "unk_token": null, "use_default_system_prompt": false, "vocab_file": null, "tokenizer_file": null,
        "vocab_size": 49_152, "fast": false,
    });
    Tokenizer::from_folder(folder(&[("tokenizer_config.json", config)]).path()).unwrap();
}

/// A new key of the base class of all tokenizers fails here until it has a place in the lists.
#[test]
fn every_key_of_the_tokenizers_of_transformers_is_known() {
    let recorded: Value = crate::golden::read("transformers-keys.json");
    let keys = recorded["tokenizer"].as_array().unwrap();
    assert!(keys.len() > 20);
    for key in keys {
        assert!(super::known_keys::is_known(key.as_str().unwrap()), "{key}");
    }
}

#[track_caller]
fn check_error(folder: &Path, expected: &[&str]) {
    let message = Tokenizer::from_folder(folder).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_the_file_at_fault() {
    check_error(Path::new("nowhere"), &["nowhere/tokenizer.json", "model folder"]);
    check_error(folder(&[]).path(), &["no end-of-sequence token", "eos_token_id"]);
    let number = json!({"eos_token": 7});
    check_error(
        folder(&[("tokenizer_config.json", number)]).path(),
        &["tokenizer_config.json", "eos_token = 7", "accepted: a text"],
    );
    let negative = json!({"eos_token_id": -1});
    check_error(
        folder(&[("generation_config.json", negative)]).path(),
        &["generation_config.json", "eos_token_id is -1", "accepted"],
    );
    check_error(folder(&[("tokenizer.json", json!({"model": 1}))]).path(), &["tokenizer.json: "]);
    let template = json!({"eos_token": "<|im_end|>", "chat_template": "{% if %}"});
    check_error(folder(&[("tokenizer_config.json", template)]).path(), &["chat template"]);
}

#[test]
fn a_conversation_is_rendered_up_to_the_assistants_turn() {
    let tokenizer = with_template();
    let messages = [ChatMessage::new("system", "be brief"), ChatMessage::new("user", " <hi> & \n")];
    let expected = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n<hi> &<|im_end|>\n\
                    <|im_start|>assistant\n";
    // The lines of blocks and their indentation are removed.
    let rendered = tokenizer.render_chat(&messages).unwrap();
    assert_eq!(rendered, expected);
    let ids = tokenizer.encode_template(&rendered).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == START_ID).count(), 3);
    let refused = tokenizer.render_chat(&[ChatMessage::new("tool", "x")]).unwrap_err().to_string();
    assert!(refused.contains("no role tool"), "{refused}");
}

#[test]
fn named_templates_and_template_files_are_found() {
    let messages = [ChatMessage::new("user", "x")];
    let named = json!({"eos_token": "<|im_end|>", "chat_template": [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ messages | tojson }}"},
    ]});
    let folder = folder(&[("tokenizer_config.json", named)]);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    // The JSON as Python writes it.
    let expected = r#"[{"role": "user", "content": "x"}]"#;
    assert_eq!(tokenizer.render_chat(&messages).unwrap(), expected);
    std::fs::write(folder.path().join("chat_template.jinja"), "{{ bos_token }}file").unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.render_chat(&messages).unwrap(), "file");
}

/// Recorded from transformers 5.24.0: files win over tokenizer_config.json, and a file `default.jinja` over
/// chat_template.jinja.
#[test]
fn the_default_template_is_found_as_in_transformers() {
    let rendered = |files: &[(&str, &str)], written: Value| {
        let mut config = json!({"eos_token": "<|im_end|>"});
        config["chat_template"] = written;
        let folder = folder(&[("tokenizer_config.json", config)]);
        std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
        for (name, source) in files {
            std::fs::write(folder.path().join(name), source).unwrap();
        }
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        match tokenizer.has_chat_template() {
            Ok(true) => tokenizer.render_chat(&[ChatMessage::new("user", "x")]).unwrap(),
            Ok(false) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let file = ("chat_template.jinja", "file");
    let further = ("additional_chat_templates/rag.jinja", "rag");
    let default = ("additional_chat_templates/default.jinja", "further");
    assert_eq!(rendered(&[], json!("key")), "key");
    assert_eq!(rendered(&[file], json!("key")), "file");
    assert_eq!(rendered(&[file, further], json!("key")), "file");
    assert_eq!(rendered(&[default, further], json!("key")), "further");
    assert_eq!(rendered(&[default, file], json!(null)), "further");
    assert_eq!(rendered(&[], json!({"default": "object", "rag": "r"})), "object");
    assert_eq!(rendered(&[], json!(null)), "none");
    assert_eq!(
        rendered(&[("chat_template.json", "{\"chat_template\": \"x\"}")], json!(null)),
        "none"
    );
    assert_eq!(rendered(&[], json!([])), "none");
    // Named templates alone: nothing says which one to use, and the key does not count beside a file.
    for (files, written, names) in [
        (
            &[][..],
            json!([{"name": "rag", "template": "r"}, {"name": "b", "template": "b"}]),
            "b, rag",
        ),
        (&[further][..], json!("key"), "rag"),
    ] {
        let error = rendered(files, written);
        let expected =
            format!("none named \"default\": {names}; copy the one to use to chat_template.jinja");
        assert!(error.contains(&expected), "{error}");
    }
    for written in [json!(1), json!([{"name": "rag"}]), json!({"default": 1})] {
        let config = json!({"eos_token": "<|im_end|>", "chat_template": written});
        let folder = folder(&[("tokenizer_config.json", config)]);
        check_error(
            folder.path(),
            &["tokenizer_config.json", "chat_template has", "accepted: a text"],
        );
    }
}

/// Recorded from transformers 5.24.0: `special_tokens_map` of a tokenizer with these files.
#[test]
fn templates_see_the_special_tokens_by_name() {
    let source = "{{ bos_token is defined }} {{ pad_token is defined }} {{ tool_token }} {{ image_token }} \
                  {{ eos_token }} {{ extra_special_tokens is defined }} {{ odd_token is defined }}";
    let config = json!({
        "eos_token": {"content": "<|im_end|>"},
        "pad_token": null,
        "tool_token": "<|tool|>",
        "odd_token": 3,
        "extra_special_tokens": {"image_token": "<|image|>"},
        "chat_template": source,
    });
    let folder = folder(&[("tokenizer_config.json", config.clone())]);
    let rendered = || {
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        tokenizer.render_chat(&[ChatMessage::new("user", "x")]).unwrap()
    };
    assert_eq!(rendered(), "False False <|tool|> <|image|> <|im_end|> False False");
    let map =
        json!({"bos_token": "<s>", "pad_token": {"content": "<pad>"}, "eos_token": "<|im_end|>"});
    std::fs::write(folder.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    assert_eq!(rendered(), "True True <|tool|> <|image|> <|im_end|> False False");
    let mut newer = config;
    newer["added_tokens_decoder"] = json!({});
    newer["extra_special_tokens"] = json!(["<|image|>"]);
    std::fs::write(folder.path().join("tokenizer_config.json"), newer.to_string()).unwrap();
    assert_eq!(rendered(), "False False <|tool|>  <|im_end|> False False");
}

#[test]
fn the_longest_prefix_is_within_its_limit_and_whole_characters() {
    for tokenizer in [with_template(), Tokenizer::characters()] {
        let all = tokenizer.encode(AWKWARD).unwrap().len();
        let mut last = "";
        for limit in 0..=all + 1 {
            let prefix = tokenizer.longest_prefix(AWKWARD, limit).unwrap();
            assert!(AWKWARD.starts_with(prefix));
            assert!(tokenizer.encode(prefix).unwrap().len() <= limit, "{limit} {prefix:?}");
            assert!(prefix.len() >= last.len(), "{limit}: {prefix:?} after {last:?}");
            last = prefix;
        }
        assert_eq!(last, AWKWARD);
    }
}

#[test]
fn a_character_appears_with_its_last_byte() {
    let tokenizer = with_template();
    let mut stream = TextStream::new();
    let mut pieces = Vec::new();
    for id in tokenizer.encode("é🙂!").unwrap() {
        pieces.push(stream.push(&tokenizer, id).unwrap().to_owned());
    }
    assert_eq!(pieces, ["", "é", "", "", "", "🙂", "!"]);
    assert_eq!(stream.text(), "é🙂!");
    assert_eq!(stream.ids().len(), 7);
}

#[test]
fn invalid_bytes_do_not_delay_the_text_after_them() {
    let tokenizer = with_template();
    let [first, _] = tokenizer.encode("é").unwrap()[..] else { panic!("two bytes") };
    let mut stream = TextStream::new();
    for id in [first].into_iter().chain(tokenizer.encode("abc").unwrap()) {
        stream.push(&tokenizer, id).unwrap();
    }
    assert_eq!(stream.text(), "\u{fffd}abc");
    for _ in 0..20 {
        stream.push(&tokenizer, first).unwrap();
    }
    stream.finish(&tokenizer).unwrap();
    assert_eq!(stream.text(), format!("\u{fffd}abc{}", "\u{fffd}".repeat(20)));
    assert_eq!(stream.finish(&tokenizer).unwrap(), "", "nothing is left");
}

proptest! {
    #[test]
    fn a_stream_yields_the_text_of_the_whole(ids in prop::collection::vec(0_u32..260, 0..40)) {
        let tokenizer = with_template();
        let mut stream = TextStream::new();
        let mut pieces = String::new();
        for id in &ids {
            pieces.push_str(stream.push(&tokenizer, *id).unwrap());
        }
        pieces.push_str(stream.finish(&tokenizer).unwrap());
        prop_assert_eq!(&pieces, stream.text());
        // The number of replacement characters for broken bytes depends on the ends of the windows.
        let whole = tokenizer.decode(&ids).unwrap();
        prop_assert_eq!(stream.text().replace('\u{fffd}', ""), whole.replace('\u{fffd}', ""));
    }

    #[test]
    fn a_stream_of_valid_text_is_exact(text in "[^\\pC\u{fffd}]*") {
        let tokenizer = with_template();
        let mut stream = TextStream::new();
        for id in tokenizer.encode(&text).unwrap() {
            stream.push(&tokenizer, id).unwrap();
        }
        stream.finish(&tokenizer).unwrap();
        prop_assert_eq!(stream.text(), text);
    }
}
