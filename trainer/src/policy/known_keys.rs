//! The treatment of every key of a `config.json`. A key is read, or changes nothing that a model computes, or must
//! have a neutral value. A key in none of the lists is refused: it may belong to a model that computes something
//! else.
//!
//! Owns the lists, and the reasons of what is ignored. They describe the classes of transformers 5.24; the fields of
//! these classes are recorded in `tests/golden/transformers-keys.json`, and a test looks up each of them here.

use serde_json::{Value, json};

use super::config_keys::{Keys, ModelConfigError};

/// Keys that are read for every family. `eos_token_id` and `tokenizer_class` are read with the tokenizer.
const READ: &[&str] = &[
    "architectures",
    "attention_dropout",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "tokenizer_class",
    "vocab_size",
];

/// Keys that change nothing, after the reason.
const IGNORED: &[(&str, &[&str])] = &[
    (
        "they say where a file comes from",
        &[
            "_commit_hash",
            "_name_or_path",
            "is_llama_config",
            "name_or_path",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ],
    ),
    ("transformers runs its own class unless it is told to run a repository's code", &["auto_map"]),
    (
        "weights are read in their stored type, and the type of computing is a setting",
        &["dtype", "torch_dtype", "use_bfloat16"],
    ),
    (
        "they choose the form of results, or what is kept in memory",
        &[
            "chunk_size_feed_forward",
            "experts_implementation",
            "gradient_checkpointing",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "tie_last_hidden_states",
            "torchscript",
            "use_cache",
            "use_return_dict",
        ],
    ),
    ("only new weights are drawn with it", &["initializer_range"]),
    ("transformers 5 splits no matrix by it", &["pretraining_tp"]),
    (
        "they belong to heads for classification, or to training tasks",
        &[
            "classifier_dropout",
            "finetuning_task",
            "hidden_dropout",
            "id2label",
            "label2id",
            "num_labels",
            "prefix",
            "problem_type",
            "task_specific_params",
            "tf_legacy_loss",
        ],
    ),
    (
        "tokens come from the tokenizer, and the embedding has a row for each",
        &[
            "bos_token_id",
            "cls_token_id",
            "decoder_start_token_id",
            "mask_token_id",
            "pad_token_id",
            "sep_token_id",
            "unk_token_id",
        ],
    ),
    (
        "transformers drops parameters of generation that stand here; sampling is a setting of the trainer",
        &[
            "assistant_confidence_threshold",
            "assistant_lookbehind",
            "bad_words_ids",
            "begin_suppress_tokens",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "encoder_repetition_penalty",
            "epsilon_cutoff",
            "eta_cutoff",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "output_scores",
            "remove_invalid_values",
            "repetition_penalty",
            "return_dict_in_generate",
            "suppress_tokens",
            "target_lookbehind",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ],
    ),
    (
        "published files have them for other programs; these classes of transformers do not read them",
        &[
            "is_decoder",
            "max_sequence_length",
            "model_max_length",
            "rope_interleaved",
            "tie_encoder_decoder",
            "use_logn_attn",
            "use_mrope",
        ],
    ),
];

/// Kernels of attention that compute the same sums.
const KERNELS: &[&str] = &[
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
];

/// Refuses every key that is in no list, or that has another value than the neutral one. `read` and `ignored` are
/// the keys of the family that the lists do not have.
pub(super) fn check(
    keys: &Keys<'_>,
    read: &[&str],
    ignored: &[&str],
) -> Result<(), ModelConfigError> {
    // Python reads null as false, which makes attention bidirectional.
    if keys.contains("is_causal") && keys.value("is_causal") != Some(&Value::Bool(true)) {
        return Err(keys.refuse("is_causal", "true (attention to earlier tokens only)"));
    }
    for key in keys.names() {
        let is_known = READ.contains(&key)
            || read.contains(&key)
            || ignored.contains(&key)
            || IGNORED.iter().any(|(_, keys)| keys.contains(&key));
        if is_known {
            continue;
        }
        let value = keys.value(key).expect("the names are those of values");
        match neutral(key, value) {
            Some((true, _)) => {}
            Some((false, accepted)) => return Err(keys.refuse(key, accepted)),
            None => return Err(keys.unknown(key)),
        }
    }
    Ok(())
}

/// Compares the value of a key with the neutral one, which is also returned as text. Returns `None` for a key that
/// must not exist.
fn neutral(key: &str, value: &Value) -> Option<(bool, &'static str)> {
    Some(match key {
        "is_causal" => (value == &json!(true), "true"),
        "is_encoder_decoder" | "add_cross_attention" | "is_heterogeneous" => {
            (value == &json!(false), "false")
        }
        "pruned_heads" => (value == &json!({}), "{}"),
        "attn_implementation" | "_attn_implementation" | "_attn_implementation_autoset" => {
            let is_kernel = value.as_str().is_some_and(|name| KERNELS.contains(&name));
            (
                is_kernel || value.is_boolean(),
                "eager, sdpa, flash_attention_2 or another exact kernel",
            )
        }
        "attention_chunk_size"
        | "compression_config"
        | "cross_attention_hidden_size"
        | "distributed_config"
        | "fusion_config"
        | "kv_sharing_modes"
        | "layer_types"
        | "per_layer_config"
        | "quantization"
        | "sliding_window"
        | "transformers_weights" => (false, "null"),
        _ => return None,
    })
}

/// Returns `true` if a key of a configuration is in one of the lists.
#[cfg(test)]
pub(super) fn is_known(key: &str, read: &[&str], ignored: &[&str]) -> bool {
    READ.contains(&key)
        || read.contains(&key)
        || ignored.contains(&key)
        || IGNORED.iter().any(|(_, keys)| keys.contains(&key))
        || neutral(key, &Value::Null).is_some()
}
