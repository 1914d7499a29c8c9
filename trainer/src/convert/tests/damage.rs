//! Invalid files: each is refused with a message that names the location and the problem, without a panic.

use proptest::prelude::*;

use super::synthetic::Entry;
use super::synthetic::Model;
use super::*;

/// Converts `bytes`, which must fail, and returns the message without the file's name.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let workspace = Workspace::new(bytes);
    let Err(ConvertError::Gguf { path, source }) = workspace.convert(Dtype::Bf16) else {
        panic!("the file was not refused for its content");
    };
    assert_eq!(path, workspace.input());
    assert_eq!(workspace.names(), ["model.gguf"], "nothing is left behind");
    source.to_string()
}

#[track_caller]
fn check(model: &Model, message: &str) {
    assert_eq!(refusal(&model.bytes()), message);
}

#[test]
fn another_kind_of_file_is_refused() {
    let text = refusal(b"PK\x03\x04 a zip archive");
    assert_eq!(text, r#"at byte 0: expected the letters GGUF, found "PK\\x03\\x04""#);
    let text = refusal(b"GG");
    assert_eq!(
        text,
        "at byte 0: expected the letters GGUF (4 bytes), found 2 bytes up to the end of the file"
    );
    check(
        &Model { version: 1, ..Model::default() },
        "at byte 4: expected format version 2 or 3, found version 1",
    );
    check(
        &Model { version: 3u32.swap_bytes(), ..Model::default() },
        "at byte 4: expected format version 2 or 3, found a big-endian file",
    );
    assert!(
        Workspace::new(&Model { version: 2, ..Model::default() }.bytes())
            .convert(Dtype::Bf16)
            .is_ok()
    );
}

#[test]
fn lengths_past_the_end_are_refused_before_they_are_allocated() {
    let mut bytes = Model::default().bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let text = refusal(&bytes);
    assert!(text.starts_with("at byte 8: expected a number of tensors of at most "), "{text}");

    let whole = Model::default().bytes();
    let text = refusal(&whole[..whole.len() - 1000]);
    assert!(
        text.starts_with("tensor ") && text.ends_with(&format!("{} bytes", whole.len() - 1000)),
        "{text}"
    );
}

#[test]
fn invalid_metadata_is_refused_by_key() {
    let model = Model::default;
    check(
        &model().with_entry("general.architecture", Entry::Text("mamba")),
        r#"metadata general.architecture: expected llama or qwen2 or qwen3, found "mamba""#,
    );
    check(
        &model().without("llama.block_count"),
        "metadata llama.block_count: expected a whole number from 1 to 1024, found nothing",
    );
    check(
        &model().with_entry("llama.block_count", Entry::Unsigned(0)),
        "metadata llama.block_count: expected a whole number from 1 to 1024, found 0",
    );
    check(
        &model().with_entry("llama.attention.head_count", Entry::Unsigned(3)),
        "metadata llama.attention.head_count: expected a divisor of llama.embedding_length, 32, found 3",
    );
    check(
        &model().with_entry("llama.attention.layer_norm_rms_epsilon", Entry::Float(f32::NAN)),
        "metadata llama.attention.layer_norm_rms_epsilon: expected a finite number above 0, found NaN",
    );
    check(
        &model().with_entry("llama.rope.scaling.type", Entry::Text("longrope")),
        "metadata llama.rope.scaling.type: expected none, linear or yarn, found longrope",
    );
    check(
        &model().with_entry("llama.rope.scaling.type", Entry::Text("yarn")),
        "metadata llama.rope.scaling.factor: expected a finite number above 0, found nothing",
    );
    check(
        &model().with_entry("llama.attention.sliding_window", Entry::Unsigned(512)),
        "metadata llama.attention.sliding_window: expected no such key (it may change what the model computes), found 512",
    );
    check(
        &model().with_entry("llama.expert_count", Entry::Unsigned(8)),
        "metadata llama.expert_count: expected no such key (it may change what the model computes), found 8",
    );
    check(
        &model().with_entry("llama.attention.value_length", Entry::Unsigned(8)),
        "metadata llama.attention.value_length: expected the head size, 16, found 8",
    );
    check(
        &model().with_entry("llama.vocab_size", Entry::Unsigned(7)),
        "metadata llama.vocab_size: expected the number of tokens, 6, found 7",
    );
    check(
        &model().with_entry("llama.rope.dimension_count", Entry::Unsigned(8)),
        "metadata llama.rope.dimension_count: expected an even number equal to the head size, 16, found 8",
    );
    check(
        &model().with_entry("general.alignment", Entry::Unsigned(0)),
        "metadata general.alignment: expected a multiple of 8 up to 65536, found 0",
    );
}

#[test]
fn invalid_tensors_are_refused_by_name() {
    let mut model = Model::default();
    model.tensors.retain(|(name, _, _)| *name != "blk.0.ffn_up.weight");
    check(&model, "tensor blk.0.ffn_up.weight: expected shape [64, 32], found nothing");

    let mut model = Model::default();
    model.tensors.push(("rope_factors_long.weight", 0, 8));
    check(
        &model,
        "tensor rope_factors_long.weight: expected only tensors of a llama model, found another one",
    );
    // All values of the synthetic file are 0 in a vector.
    let mut model = Model::default();
    model.tensors.push(("rope_freqs.weight", 0, 8));
    let text = refusal(&model.bytes());
    assert!(text.starts_with("tensor rope_freqs.weight: expected divisors of the form"), "{text}");
    model.tensors.pop();
    model.tensors.push(("rope_freqs.weight", 0, 16));
    check(&model, "tensor rope_freqs.weight: expected shape [8], found shape [16]");

    let model = Model::default().with_entry("llama.feed_forward_length", Entry::Unsigned(48));
    check(&model, "tensor blk.0.ffn_gate.weight: expected shape [48, 32], found shape [64, 32]");

    check(
        &Model { tensor_type: 16, ..Model::default() },
        "tensor token_embd.weight: expected one of the types F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16, found type number 16",
    );
    check(
        &Model { tensor_type: 14, ..Model::default() },
        "tensor token_embd.weight: expected rows of a multiple of 256 values (Q6_K), found shape [6, 32]",
    );
}

#[test]
fn an_inconsistent_tokenizer_is_refused() {
    let model = Model::default;
    check(
        &model().with_entry("tokenizer.ggml.eos_token_id", Entry::Unsigned(6)),
        "metadata tokenizer.ggml.eos_token_id: expected a token id below 6, found 6",
    );
    check(
        &model().with_entry("tokenizer.ggml.merges", Entry::Texts(vec!["a b", "b a"])),
        r#"tokenizer: merge 1, "b a", is not a pair of tokens that form a third"#,
    );
    check(
        &model().with_entry("tokenizer.ggml.token_type", Entry::Integers(vec![3])),
        "metadata tokenizer.ggml.token_type: expected one entry for each of 6 tokens, found 1",
    );
    check(
        &model().with_entry("tokenizer.ggml.pre", Entry::Text("viking")),
        r#"metadata tokenizer.ggml.pre: expected smollm or llama-bpe or llama3 or llama-v3 or falcon3 or falcon-h1 or pixtral or midm-2.0 or lfm2 or smaug-bpe or dbrx or qwen2 or deepseek-r1-qwen or megrez or kormo or tekken or gpt-2, found "viking""#,
    );
    let tokens = vec!["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "a"];
    check(
        &model().with_entry("tokenizer.ggml.tokens", Entry::Texts(tokens)),
        "tokenizer: the vocabulary has 1 duplicate tokens",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// A file truncated at any length is refused and leaves nothing behind.
    #[test]
    fn every_truncation_is_refused(share in 0.0..1.0f64) {
        let bytes = Model::default().bytes();
        let kept = (bytes.len() as f64 * share) as usize;
        prop_assert!(!refusal(&bytes[..kept]).is_empty());
    }

    /// A file with flipped bits is either refused or converted into a loadable folder.
    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((0..1_600usize, 0..8u32), 1..6)) {
        let mut bytes = Model::default().bytes();
        for (index, bit) in flips {
            bytes[index] ^= 1 << bit;
        }
        let workspace = Workspace::new(&bytes);
        if let Err(error) = workspace.convert(Dtype::Bf16) {
            prop_assert!(!error.to_string().is_empty());
            prop_assert_eq!(workspace.names(), ["model.gguf"]);
        } else {
            let weights = fs::read(workspace.output().join("model.safetensors")).unwrap();
            prop_assert!(SafeTensors::deserialize(&weights).is_ok());
            let tokenizer = workspace.output().join("tokenizer.json");
            prop_assert!(tokenizers::Tokenizer::from_file(tokenizer).is_ok());
        }
    }
}
