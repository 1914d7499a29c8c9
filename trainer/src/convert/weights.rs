//! Which tensor of a GGUF file becomes which tensor of `model.safetensors`, and the writing of that
//! file, one tensor in memory at a time.
//!
//! Invariant: every tensor that a Llama model has is there with its right shape, and no tensor of the
//! file is left out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use half::bf16;
use half::f16;
use safetensors::View;
use serde::Deserialize;
use serde::Serialize;

use super::architecture::Architecture;
use super::error::ConvertError;
use super::error::GgufError;
use super::gguf::Gguf;
use super::gguf::Tensor;

/// The number type of the written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16, 2 bytes.
    #[default]
    Bf16,
    /// IEEE 754 binary16, 2 bytes.
    F16,
    /// IEEE 754 binary32, 4 bytes.
    F32,
}

impl Dtype {
    /// Its name in `config.json`.
    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// `values` in this type, each rounded to nearest, ties to even.
    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl std::str::FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Bf16, Self::F16, Self::F32]
            .into_iter()
            .find(|dtype| dtype.to_string() == text)
            .ok_or_else(|| format!("expected bf16, f16 or f32, found {text:?}"))
    }
}

/// All tensors to write.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) tensors: Vec<(String, Planned<'a>)>,
    /// No output layer of its own: it is the embedding.
    pub(super) tied: bool,
}

/// One tensor to write.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    source: &'a Tensor<'a>,
    dtype: Dtype,
    /// Number of heads whose rows are interleaved in the file.
    interleaved_heads: Option<usize>,
}

impl Plan<'_> {
    pub(super) fn parameters(&self) -> usize {
        self.tensors.iter().map(|(_, planned)| planned.source.shape.iter().product::<usize>()).sum()
    }
}

/// A tensor that a Llama layer has: its names in both layouts, its shape, and the number of heads
/// whose rows the file interleaves.
struct LayerTensor {
    gguf_name: &'static str,
    hugging_face_name: &'static str,
    shape: Vec<usize>,
    interleaved_heads: Option<usize>,
}

fn layer_tensors(shape: &Architecture) -> Vec<LayerTensor> {
    let (hidden, inner) = (shape.hidden, shape.feed_forward);
    let (queries, keys) = (shape.heads * shape.head_size, shape.key_value_heads * shape.head_size);
    let tensor = |gguf_name, hugging_face_name, shape: &[usize], interleaved_heads| LayerTensor {
        gguf_name,
        hugging_face_name,
        shape: shape.to_vec(),
        interleaved_heads,
    };
    vec![
        tensor("attn_norm", "input_layernorm", &[hidden], None),
        tensor("attn_q", "self_attn.q_proj", &[queries, hidden], Some(shape.heads)),
        tensor("attn_k", "self_attn.k_proj", &[keys, hidden], Some(shape.key_value_heads)),
        tensor("attn_v", "self_attn.v_proj", &[keys, hidden], None),
        tensor("attn_output", "self_attn.o_proj", &[hidden, queries], None),
        tensor("ffn_norm", "post_attention_layernorm", &[hidden], None),
        tensor("ffn_gate", "mlp.gate_proj", &[inner, hidden], None),
        tensor("ffn_up", "mlp.up_proj", &[inner, hidden], None),
        tensor("ffn_down", "mlp.down_proj", &[hidden, inner], None),
    ]
}

/// Maps every tensor of the file to its place, and checks that all are there and none is unknown.
pub(super) fn plan<'a>(
    gguf: &'a Gguf<'a>,
    shape: &Architecture,
    dtype: Dtype,
) -> Result<Plan<'a>, GgufError> {
    let mut unused: BTreeSet<&str> = gguf.tensors.keys().copied().collect();
    let mut tensors = Vec::with_capacity(gguf.tensors.len());
    let mut add = |from: &str, to: String, shape: &[usize], interleaved_heads| {
        let expected = || format!("shape {shape:?}");
        let source =
            gguf.tensors.get(from).ok_or_else(|| GgufError::tensor(from, expected(), "nothing"))?;
        if source.shape != shape {
            return Err(GgufError::tensor(from, expected(), format!("shape {:?}", source.shape)));
        }
        unused.remove(from);
        tensors.push((to, Planned { source, dtype, interleaved_heads }));
        Ok(())
    };

    let embedding_shape = [shape.vocabulary, shape.hidden];
    add("token_embd.weight", "model.embed_tokens.weight".to_owned(), &embedding_shape, None)?;
    for layer in 0..shape.layers {
        for tensor in layer_tensors(shape) {
            add(
                &format!("blk.{layer}.{}.weight", tensor.gguf_name),
                format!("model.layers.{layer}.{}.weight", tensor.hugging_face_name),
                &tensor.shape,
                tensor.interleaved_heads,
            )?;
        }
    }
    add("output_norm.weight", "model.norm.weight".to_owned(), &[shape.hidden], None)?;
    let tied = !gguf.tensors.contains_key("output.weight");
    if !tied {
        add("output.weight", "lm_head.weight".to_owned(), &embedding_shape, None)?;
    }
    match unused.first() {
        None => Ok(Plan { tensors, tied }),
        Some(name) => Err(GgufError::tensor(*name, "only tensors of a Llama model", "another one")),
    }
}

impl Planned<'_> {
    fn values(&self) -> Vec<f32> {
        let values = self.source.block_type.dequantize(self.source.data);
        match self.interleaved_heads {
            Some(heads) => part_halves(&values, self.source.shape[0], heads),
            None => values,
        }
    }
}

/// Undoes the row order of query and key projections in GGUF files of Llama models.
///
/// Rotary embedding turns pairs of rows of a head. Hugging Face pairs row `i` with row
/// `i + head_size / 2`; the files keep the rows of a pair next to each other.
fn part_halves(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let head_size = rows / heads;
    let mut parted = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_size, row % head_size);
        let (pair, side) = (within % (head_size / 2), within / (head_size / 2));
        let source = head * head_size + pair * 2 + side;
        parted.extend_from_slice(&values[source * columns..][..columns]);
    }
    parted
}

/// Counts the tensors written. The safetensors writer asks each tensor for its bytes once, in turn.
struct Progress<'a> {
    done: usize,
    total: usize,
    report: &'a mut dyn FnMut(usize, usize),
}

struct Written<'a> {
    planned: Planned<'a>,
    progress: &'a RefCell<Progress<'a>>,
}

impl View for Written<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.planned.dtype {
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::F32 => safetensors::Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.planned.source.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.planned.dtype.encode(&self.planned.values());
        let mut progress = self.progress.borrow_mut();
        progress.done += 1;
        let (done, total) = (progress.done, progress.total);
        (progress.report)(done, total);
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.planned.source.shape.iter().product::<usize>() * self.planned.dtype.bytes()
    }
}

/// Writes `model.safetensors` at `path`.
pub(super) fn write(
    plan: Plan<'_>,
    path: &Path,
    report: &mut dyn FnMut(usize, usize),
) -> Result<(), ConvertError> {
    let total = plan.tensors.len();
    report(0, total);
    let progress = RefCell::new(Progress { done: 0, total, report });
    let views = plan
        .tensors
        .into_iter()
        .map(|(name, planned)| (name, Written { planned, progress: &progress }));
    // Readers of the Hugging Face ecosystem look for this mark before they load a file.
    let mark = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(mark), path)
        .map_err(|source| ConvertError::Weights { path: path.to_path_buf(), source })
}
