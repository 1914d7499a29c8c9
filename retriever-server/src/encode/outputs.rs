//! The output of a model: which one is read, and what its numbers mean.

use std::borrow::Cow;

use half::{bf16, f16};
use ort::session::Session;
use ort::value::{DynValue, Outlet, TensorElementType};

use super::library::whole_text;
use super::pooling::pool;
use super::session::TokenRows;
use super::settings::Pooling;

/// The names that exporters give to the output with a vector per token.
const TOKEN_OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];
/// The name that exporters give to the output with the vector of each text.
const TEXT_OUTPUT: &str = "sentence_embedding";
const POOLER_OUTPUT: &str = "pooler_output";
const SCORES_OUTPUT: &str = "logits";

/// The interpretation of a model's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// One vector per text.
    Vectors {
        /// The methods of pooling, whose vectors are joined.
        pooling: Vec<Pooling>,
        /// The name of the output; `None` for a usual one.
        output: Option<String>,
    },
    /// One number per text: the logit of a single class, or the logit of the second of two classes
    /// minus that of the first.
    Scores,
}

/// The kind of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// A vector per token, or the pooler's.
    Pooled,
    /// The vector of each text, after all steps of the model.
    Finished,
    /// The scores of pairs.
    Scores,
}

/// The output that is read.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) kind: OutputKind,
    /// The methods of pooling the vectors of tokens.
    pooling: Vec<Pooling>,
}

impl Output {
    /// Chooses the output that `reading` needs. Vectors of tokens win over those of texts, because the
    /// settings then define all that follows.
    pub(super) fn of(session: &Session, reading: &Reading) -> Result<Self, String> {
        let outputs = session.outputs();
        let find = |name: &str| outputs.iter().find(|output| output.name() == name);
        let (output, kind, pooling) = match reading {
            Reading::Scores => (find(SCORES_OUTPUT), OutputKind::Scores, Vec::new()),
            Reading::Vectors { output: Some(name), pooling } => {
                let output = find(name);
                let rank = output.and_then(|output| output.dtype().tensor_shape());
                let kind = match rank.map(|sizes| sizes.len()) {
                    Some(2) if *pooling != [Pooling::Pooler] => OutputKind::Finished,
                    _ => OutputKind::Pooled,
                };
                (output, kind, pooling.clone())
            }
            Reading::Vectors { pooling, .. } if *pooling == [Pooling::Pooler] => {
                (find(POOLER_OUTPUT), OutputKind::Pooled, pooling.clone())
            }
            Reading::Vectors { pooling, .. } => {
                let tokens = TOKEN_OUTPUTS.iter().find_map(|name| find(name));
                match tokens {
                    Some(output) => (Some(output), OutputKind::Pooled, pooling.clone()),
                    None => (find(TEXT_OUTPUT), OutputKind::Finished, Vec::new()),
                }
            }
        };
        let output = output.ok_or_else(|| missing(outputs, reading))?;
        match output.dtype().tensor_type() {
            Some(
                TensorElementType::Float32
                | TensorElementType::Float16
                | TensorElementType::Bfloat16
                | TensorElementType::Float64,
            ) => Ok(Self { name: output.name().to_owned(), kind, pooling }),
            _ => Err(format!(
                "output {} is {}, expected float32, float16, bfloat16 or float64",
                output.name(),
                output.dtype()
            )),
        }
    }

    /// Reads the vectors of `rows` one after the other, or their scores.
    pub(super) fn read(&self, value: &DynValue, rows: &TokenRows) -> Result<Vec<f32>, String> {
        let (sizes, numbers) = numbers(value)?;
        let read = match self.kind {
            OutputKind::Scores => scores(rows, &sizes, &numbers),
            OutputKind::Finished => finished(rows, &sizes, &numbers),
            OutputKind::Pooled => pooled(&self.pooling, rows, &sizes, &numbers),
        };
        read.ok_or_else(|| {
            let shape = [rows.lengths.len(), rows.row_tokens];
            format!("output {} has shape {sizes:?} for texts {shape:?}", self.name)
        })
    }
}

/// Says which outputs there are and which were expected.
fn missing(outputs: &[Outlet], reading: &Reading) -> String {
    let names: Vec<&str> = outputs.iter().map(Outlet::name).collect();
    let expected = match reading {
        Reading::Scores => SCORES_OUTPUT.to_owned(),
        Reading::Vectors { output: Some(name), .. } => format!("output = {name:?}"),
        Reading::Vectors { pooling, .. } if *pooling == [Pooling::Pooler] => {
            POOLER_OUTPUT.to_owned()
        }
        Reading::Vectors { .. } => {
            format!("{} or {TEXT_OUTPUT}, or output in retriever.toml", TOKEN_OUTPUTS.join(" or "))
        }
    };
    format!("outputs are {}, expected {expected}", names.join(", "))
}

/// Returns the sizes and the numbers of a tensor.
fn numbers(value: &DynValue) -> Result<(Vec<usize>, Cow<'_, [f32]>), String> {
    let sizes = |sizes: &[i64]| sizes.iter().map(|&size| size as usize).collect();
    let failed = |error: ort::Error| whole_text(&error);
    Ok(match value.dtype().tensor_type() {
        Some(TensorElementType::Float16) => {
            let (shape, halves) = value.try_extract_tensor::<f16>().map_err(failed)?;
            (sizes(shape), halves.iter().map(|half| half.to_f32()).collect())
        }
        Some(TensorElementType::Bfloat16) => {
            let (shape, halves) = value.try_extract_tensor::<bf16>().map_err(failed)?;
            (sizes(shape), halves.iter().map(|half| half.to_f32()).collect())
        }
        Some(TensorElementType::Float64) => {
            let (shape, doubles) = value.try_extract_tensor::<f64>().map_err(failed)?;
            (sizes(shape), doubles.iter().map(|&double| double as f32).collect())
        }
        _ => {
            let (shape, floats) = value.try_extract_tensor::<f32>().map_err(failed)?;
            (sizes(shape), Cow::Borrowed(floats))
        }
    })
}

/// Pools an output of these sizes. Returns `None` if they do not fit `rows`.
fn pooled(
    poolings: &[Pooling],
    rows: &TokenRows,
    sizes: &[usize],
    values: &[f32],
) -> Option<Vec<f32>> {
    let texts = rows.lengths.len();
    if *poolings == [Pooling::Pooler] {
        return finished(rows, sizes, values);
    }
    let [output_texts, tokens, dimension] = *sizes else { return None };
    let fits = output_texts == texts && tokens == rows.row_tokens && dimension > 0;
    if !fits || values.len() != texts * tokens * dimension {
        return None;
    }
    let mut vectors = vec![0.0; texts * poolings.len() * dimension];
    let by_text = vectors.chunks_exact_mut(poolings.len() * dimension);
    for (text, (vector, values)) in by_text.zip(values.chunks_exact(tokens * dimension)).enumerate()
    {
        let range = rows.range(text);
        let values = &values[range.start * dimension..range.end * dimension];
        for (pooling, vector) in poolings.iter().zip(vector.chunks_exact_mut(dimension)) {
            pool(*pooling, values, rows.skipped, vector);
        }
    }
    Some(vectors)
}

/// Reads vectors of these sizes. Returns `None` if they do not fit `rows`.
fn finished(rows: &TokenRows, sizes: &[usize], values: &[f32]) -> Option<Vec<f32>> {
    let [texts, dimension] = *sizes else { return None };
    let fits = texts == rows.lengths.len() && dimension > 0 && values.len() == texts * dimension;
    fits.then(|| values.to_vec())
}

/// Reads logits of these sizes. Returns `None` if they do not fit `rows`.
fn scores(rows: &TokenRows, sizes: &[usize], values: &[f32]) -> Option<Vec<f32>> {
    let texts = rows.lengths.len();
    match *sizes {
        [count] | [count, 1] if count == texts && values.len() == texts => Some(values.to_vec()),
        [count, 2] if count == texts && values.len() == 2 * texts => {
            Some(values.chunks_exact(2).map(|logits| logits[1] - logits[0]).collect())
        }
        _ => None,
    }
}
