//! A real model folder in Hugging Face layout, small enough for tests: a Llama decoder of two layers with
//! random weights, and a tokenizer with given words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use shared::contract::splitmix;

const HIDDEN: usize = 64;
const INNER: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;
const HEAD_DIM: usize = HIDDEN / HEADS;
/// Id of the end of a sequence. Bytes come before it, tags and words after it.
const END_ID: usize = 256;
const TAGS: [&str; 8] = [
    "<think>",
    "</think>",
    "<search>",
    "</search>",
    "<answer>",
    "</answer>",
    "<information>",
    "</information>",
];

/// Writes `config.json`, `tokenizer.json` and `model.safetensors` into `folder`. Every word of
/// `texts` is one token, with and without a leading space; all other text is bytes.
pub(crate) fn write_tiny_model(folder: &Path, texts: &[String], seed: u64) {
    fs::create_dir_all(folder).unwrap();
    let words: BTreeSet<&str> = texts.iter().flat_map(|text| words_of(text)).collect();
    let added: Vec<String> = TAGS
        .iter()
        .map(|tag| (*tag).to_owned())
        .chain(words.iter().flat_map(|word| [(*word).to_owned(), format!(" {word}")]))
        .collect();
    let vocabulary = END_ID + 1 + added.len();
    write_json(&folder.join("tokenizer.json"), &tokenizer(&added));
    write_json(&folder.join("config.json"), &config(vocabulary));
    write_weights(&folder.join("model.safetensors"), vocabulary, seed);
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| word.len() > 1)
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

fn config(vocabulary: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "eos_token_id": END_ID,
    })
}

fn tokenizer(added: &[String]) -> Value {
    let mut vocabulary = Map::new();
    for (id, letter) in byte_letters().into_iter().enumerate() {
        vocabulary.insert(letter.to_string(), id.into());
    }
    let token = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "normalized": false,
               "single_word": false, "lstrip": false, "rstrip": false})
    };
    let mut added_tokens = vec![token(END_ID, "<|end|>", true)];
    added_tokens.extend(
        added.iter().enumerate().map(|(index, word)| token(END_ID + 1 + index, word, false)),
    );
    json!({
        "version": "1.0",
        "added_tokens": added_tokens,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": false},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

/// Returns the letter of each byte in byte-level vocabularies: printable bytes are themselves, the others
/// are letters from U+0100 upwards.
fn byte_letters() -> Vec<char> {
    let mut next_letter = 0x100;
    (0_u32..256)
        .map(|byte| {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                byte
            } else {
                next_letter += 1;
                next_letter - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

fn write_weights(path: &Path, vocabulary: usize, seed: u64) {
    let mut shapes = vec![("model.embed_tokens".to_owned(), vec![vocabulary, HIDDEN])];
    let key_value = KEY_VALUE_HEADS * HEAD_DIM;
    for layer in 0..LAYERS {
        for (part, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![key_value, HIDDEN]),
            ("self_attn.v_proj", vec![key_value, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
        ] {
            shapes.push((format!("model.layers.{layer}.{part}"), shape));
        }
    }
    shapes.push(("model.norm".to_owned(), vec![HIDDEN]));
    let mut random = seed;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let is_norm = shape.len() == 1;
            let count: usize = shape.iter().product();
            let mut bytes = Vec::with_capacity(4 * count);
            for _ in 0..count {
                let value = if is_norm { 1.0 } else { 0.2 * centred(&mut random) };
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            (format!("{name}.weight"), shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Returns a random number in [-0.5, 0.5).
fn centred(state: &mut u64) -> f32 {
    (splitmix::next(state) >> 40) as f32 / (1 << 24) as f32 - 0.5
}
