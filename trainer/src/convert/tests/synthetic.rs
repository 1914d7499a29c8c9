//! Writes small GGUF files of a one-layer model, valid or invalid.

use std::collections::BTreeMap;

/// A metadata value, written with its type code.
#[derive(Clone)]
pub(super) enum Entry {
    Unsigned(u32),
    Float(f32),
    Text(&'static str),
    Texts(Vec<&'static str>),
    Integers(Vec<i32>),
}

/// A model file to write.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<&'static str, Entry>,
    /// Name, rows (0 for a vector), columns.
    pub(super) tensors: Vec<(&'static str, usize, usize)>,
    /// If `true`, the file has `output.weight`.
    pub(super) output_layer: bool,
    /// ggml's number of the type stated for every tensor; the data is always f32.
    pub(super) tensor_type: u32,
}

const ALIGNMENT_BYTES: usize = 32;

impl Default for Model {
    fn default() -> Self {
        let tokens = vec!["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab"];
        let metadata = BTreeMap::from([
            ("general.architecture", Entry::Text("llama")),
            ("llama.block_count", Entry::Unsigned(1)),
            ("llama.context_length", Entry::Unsigned(128)),
            ("llama.embedding_length", Entry::Unsigned(32)),
            ("llama.feed_forward_length", Entry::Unsigned(64)),
            ("llama.attention.head_count", Entry::Unsigned(2)),
            ("llama.attention.head_count_kv", Entry::Unsigned(1)),
            ("llama.attention.layer_norm_rms_epsilon", Entry::Float(1e-5)),
            ("llama.rope.freq_base", Entry::Float(100_000.0)),
            ("tokenizer.ggml.model", Entry::Text("gpt2")),
            ("tokenizer.ggml.pre", Entry::Text("smollm")),
            ("tokenizer.ggml.tokens", Entry::Texts(tokens)),
            ("tokenizer.ggml.token_type", Entry::Integers(vec![3, 3, 3, 1, 1, 1])),
            ("tokenizer.ggml.merges", Entry::Texts(vec!["a b"])),
            ("tokenizer.ggml.bos_token_id", Entry::Unsigned(1)),
            ("tokenizer.ggml.eos_token_id", Entry::Unsigned(2)),
            ("tokenizer.chat_template", Entry::Text("{{ messages }}")),
        ]);
        let tensors = vec![
            ("token_embd.weight", 6, 32),
            ("blk.0.attn_norm.weight", 0, 32),
            ("blk.0.attn_q.weight", 32, 32),
            ("blk.0.attn_k.weight", 16, 32),
            ("blk.0.attn_v.weight", 16, 32),
            ("blk.0.attn_output.weight", 32, 32),
            ("blk.0.ffn_norm.weight", 0, 32),
            ("blk.0.ffn_gate.weight", 64, 32),
            ("blk.0.ffn_up.weight", 64, 32),
            ("blk.0.ffn_down.weight", 32, 64),
            ("output_norm.weight", 0, 32),
        ];
        Self { version: 3, metadata, tensors, output_layer: false, tensor_type: 0 }
    }
}

impl Model {
    /// Sets one metadata value.
    pub(super) fn with_entry(mut self, key: &'static str, entry: Entry) -> Self {
        self.metadata.insert(key, entry);
        self
    }

    /// Removes one metadata value.
    pub(super) fn without(mut self, key: &str) -> Self {
        self.metadata.remove(key).unwrap();
        self
    }

    /// Returns the file's bytes. Every value in row r of a matrix is r.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut tensors = self.tensors.clone();
        if self.output_layer {
            tensors.push(("output.weight", 6, 32));
        }
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, entry) in &self.metadata {
            text(&mut out, key);
            entry.write(&mut out);
        }
        let mut data = Vec::new();
        for (name, rows, columns) in tensors {
            text(&mut out, name);
            let dimensions = if rows == 0 { vec![columns] } else { vec![columns, rows] };
            out.extend((dimensions.len() as u32).to_le_bytes());
            for length in dimensions {
                out.extend((length as u64).to_le_bytes());
            }
            out.extend(self.tensor_type.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            for row in 0..rows.max(1) {
                data.extend((0..columns).flat_map(|_| (row as f32).to_le_bytes()));
            }
            data.resize(data.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        out.extend(data);
        out
    }
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(value) => {
                out.extend(4u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Float(value) => {
                out.extend(6u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Text(value) => {
                out.extend(8u32.to_le_bytes());
                text(out, value);
            }
            Self::Texts(values) => {
                array(out, 8, values.len());
                for value in values {
                    text(out, value);
                }
            }
            Self::Integers(values) => {
                array(out, 5, values.len());
                for value in values {
                    out.extend(value.to_le_bytes());
                }
            }
        }
    }
}

fn array(out: &mut Vec<u8>, kind: u32, length: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend((length as u64).to_le_bytes());
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
