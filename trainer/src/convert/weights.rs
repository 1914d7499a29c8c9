//! Maps the tensors of a GGUF file to those of `model.safetensors`, and writes that file with one tensor
//! in memory at a time.
//!
//! Invariant: every tensor of a Llama model is present with the right shape, and no tensor of the file is
//! left out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;

use safetensors::View;

use super::architecture::Architecture;
use super::dtype::Dtype;
use super::error::ConvertError;
use super::error::GgufError;
use super::gguf::Gguf;
use super::gguf::Tensor;

/// All tensors to write.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) tensors: Vec<(String, PlannedTensor<'a>)>,
    /// `true` if the embedding is also the output layer.
    pub(super) tied: bool,
}

/// One tensor to write.
#[derive(Debug)]
pub(super) struct PlannedTensor<'a> {
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

/// A tensor of a Llama layer: its names in both layouts, its shape, and the number of heads whose rows the
/// file interleaves.
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

/// Maps every tensor of the file to its name in the output. Checks that none is missing or unknown.
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
        tensors.push((to, PlannedTensor { source, dtype, interleaved_heads }));
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

impl PlannedTensor<'_> {
    fn values(&self) -> Vec<f32> {
        let values = self.source.block_type.dequantize(self.source.data);
        match self.interleaved_heads {
            Some(heads) => separate_halves(&values, self.source.shape[0], heads),
            None => values,
        }
    }
}

/// Restores Hugging Face's row order of query and key projections.
///
/// Rotary embedding rotates pairs of rows of a head. Hugging Face pairs row `i` with row
/// `i + head_size / 2`. GGUF files of Llama models keep the two rows of a pair next to each other.
fn separate_halves(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let head_size = rows / heads;
    let mut separated = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / head_size, row % head_size);
        let (pair, side) = (within % (head_size / 2), within / (head_size / 2));
        let source = head * head_size + pair * 2 + side;
        separated.extend_from_slice(&values[source * columns..][..columns]);
    }
    separated
}

/// Counts the tensors written. The safetensors writer requests the bytes of each tensor once, in turn.
struct TensorCount<'a> {
    done: usize,
    total: usize,
    report: &'a mut dyn FnMut(usize, usize),
}

struct TensorView<'a> {
    planned: PlannedTensor<'a>,
    count: &'a RefCell<TensorCount<'a>>,
}

impl View for TensorView<'_> {
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
        let mut count = self.count.borrow_mut();
        count.done += 1;
        let (done, total) = (count.done, count.total);
        (count.report)(done, total);
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
    let count = RefCell::new(TensorCount { done: 0, total, report });
    let views = plan
        .tensors
        .into_iter()
        .map(|(name, planned)| (name, TensorView { planned, count: &count }));
    // Hugging Face's libraries check this mark before they load a file.
    let mark = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(mark), path)
        .map_err(|source| ConvertError::Weights { path: path.to_path_buf(), source })
}
