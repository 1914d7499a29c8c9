//! A model in ONNX Runtime, which turns the token ids of texts into one vector or one score per text.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef};

use super::library::whole_text;
use super::pooling::pool;
use super::settings::Pooling;
use super::split::{Products, SplitModel};
use crate::device::Provider;

/// Rows of token ids, padded to equal length.
#[derive(Debug)]
pub(super) struct TokenRows {
    /// The ids, row after row.
    pub(super) ids: Vec<i64>,
    /// The number of tokens of each text, from 1 to `row_tokens`.
    pub(super) lengths: Vec<usize>,
    /// The number of tokens of a row, including padding.
    pub(super) row_tokens: usize,
    /// The type of each token: 0 in the first of two texts, 1 in the second. `None` stands for zeros.
    pub(super) types: Option<Vec<i64>>,
}

/// The goal for which a model is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Encodes single texts as soon as possible, in little memory.
    #[default]
    Latency,
    /// Encodes as many texts as possible. On the CPU it opens a session per thread, up to eight, even if
    /// each keeps weights of its own.
    Throughput,
}

/// A model file to open.
#[derive(Clone, Copy)]
pub(super) struct SessionSpec<'a> {
    pub(super) environment: &'a Environment,
    pub(super) path: &'a Path,
    pub(super) reading: Reading,
    pub(super) threads: NonZeroUsize,
    pub(super) goal: Goal,
    pub(super) products: Products,
}

/// The interpretation of a model's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// One vector per text.
    Vectors(Pooling),
    /// One number per text: the logit of a single class, or the logit of the second of two classes
    /// minus that of the first.
    Scores,
}

/// A kind of input, which has one number per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Ids,
    Mask,
    Types,
}

impl Input {
    const ALL: [(&'static str, Self); 3] =
        [("input_ids", Self::Ids), ("attention_mask", Self::Mask), ("token_type_ids", Self::Types)];
}

/// The names that exporters give to the output with a vector per token.
const TOKEN_OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];
const POOLER_OUTPUT: &str = "pooler_output";
const SCORES_OUTPUT: &str = "logits";

/// An open model. Its errors are texts for [`super::EncodeError`].
pub(super) struct Model {
    session: Session,
    /// The options that select the one output in use. Others are not computed.
    options: RunOptions<HasSelectedOutputs>,
    inputs: Vec<(&'static str, Input)>,
    /// The names and values of the inputs that never change.
    tables: Vec<(String, Arc<DynValue>)>,
    output: String,
    reading: Reading,
}

impl Model {
    /// Opens an ONNX file, which `threads` compute on the CPU.
    pub(super) fn open(
        source: SessionSpec<'_>,
        provider: Provider,
        threads: NonZeroUsize,
        split: Option<&SplitModel>,
    ) -> Result<Self, String> {
        let session =
            commit(source, provider, threads, split).map_err(|error| whole_text(&error))?;
        let reading = source.reading;
        let tables = split.map_or_else(Vec::new, |split| split.tables.clone());
        let inputs = known_inputs(&session, &tables)?;
        let output = output_for(&session, reading)?;
        let selected = OutputSelector::no_default().with(output.clone());
        let options = RunOptions::new().map_err(|error| whole_text(&error))?.with_outputs(selected);
        Ok(Self { session, options, inputs, tables, output, reading })
    }

    /// Computes the pooled vectors of `rows` one after the other, or their scores.
    pub(super) fn run(&mut self, rows: &TokenRows) -> Result<Vec<f32>, String> {
        let shape = [rows.lengths.len(), rows.row_tokens];
        let mut mask = vec![0i64; rows.ids.len()];
        for (row, &length) in mask.chunks_exact_mut(rows.row_tokens).zip(&rows.lengths) {
            row[..length].fill(1);
        }
        let zeros;
        let types = if let Some(types) = &rows.types {
            types
        } else {
            zeros = vec![0i64; rows.ids.len()];
            &zeros
        };
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for &(name, input) in &self.inputs {
            let numbers = match input {
                Input::Ids => &rows.ids,
                Input::Mask => &mask,
                Input::Types => types,
            };
            let tensor = TensorRef::from_array_view((shape, numbers.as_slice()))
                .map_err(|error| whole_text(&error))?;
            inputs.push((name, tensor.into()));
        }
        inputs.extend(self.tables.iter().map(|(name, table)| (name.as_str(), (&**table).into())));
        let outputs = self
            .session
            .run_with_options(inputs, &self.options)
            .map_err(|error| whole_text(&error))?;
        let (sizes, values) = outputs[self.output.as_str()]
            .try_extract_tensor::<f32>()
            .map_err(|error| whole_text(&error))?;
        let sizes: Vec<usize> = sizes.iter().map(|&size| size as usize).collect();
        let read = match self.reading {
            Reading::Vectors(pooling) => vectors(pooling, rows, &sizes, values),
            Reading::Scores => scores(rows, &sizes, values),
        };
        read.ok_or_else(|| {
            format!("output {} has shape {sizes:?} for texts {shape:?}", self.output)
        })
    }
}

/// Pools an output of these sizes. Returns `None` if they do not fit `rows`.
fn vectors(
    pooling: Pooling,
    rows: &TokenRows,
    sizes: &[usize],
    values: &[f32],
) -> Option<Vec<f32>> {
    let shape = [rows.lengths.len(), rows.row_tokens];
    let (output, [tokens, dimension]) = match (pooling, sizes) {
        (Pooling::Pooler, &[texts, dimension]) => ([texts, rows.row_tokens], [1, dimension]),
        (Pooling::Mean | Pooling::Cls, &[texts, tokens, dimension]) => {
            ([texts, tokens], [tokens, dimension])
        }
        _ => return None,
    };
    if output != shape || dimension == 0 || values.len() != shape[0] * tokens * dimension {
        return None;
    }
    let mut vectors = vec![0.0; shape[0] * dimension];
    let texts = values.chunks_exact(tokens * dimension).zip(&rows.lengths);
    for (pooled, (text, &length)) in vectors.chunks_exact_mut(dimension).zip(texts) {
        pool(pooling, &text[..length.min(tokens) * dimension], pooled);
    }
    Some(vectors)
}

/// Reads logits of these sizes. Returns `None` if they do not fit `rows`.
fn scores(rows: &TokenRows, sizes: &[usize], values: &[f32]) -> Option<Vec<f32>> {
    let texts = rows.lengths.len();
    match *sizes {
        [count, 1] if count == texts && values.len() == texts => Some(values.to_vec()),
        [count, 2] if count == texts && values.len() == 2 * texts => {
            Some(values.chunks_exact(2).map(|logits| logits[1] - logits[0]).collect())
        }
        _ => None,
    }
}

/// Returns `true` if the loaded ONNX Runtime supports CUDA. A device may still be missing.
pub(super) fn is_built_with_cuda() -> bool {
    CUDA::is_available().unwrap_or(false)
}

/// Opens a session.
fn commit(
    source: SessionSpec<'_>,
    provider: Provider,
    threads: NonZeroUsize,
    split: Option<&SplitModel>,
) -> ort::Result<Session> {
    let mut builder = Session::builder(source.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads.get())?
        .with_inter_threads(1)?
        // Within a run, threads wait for each other for microseconds, so they spin. Between runs,
        // spinning would take the cores away from searches.
        .with_intra_op_spinning(true)?
        .with_config_entry("session.force_spinning_stop", "1")?
        // ONNX Runtime would keep a memory pattern for every shape it has ever seen.
        .with_memory_pattern(false)?;
    if let Provider::Cuda(device) = provider {
        CUDA::default().with_device_id(i32::from(device)).register(&mut builder)?;
    }
    match split {
        Some(split) => split.commit(builder, threads),
        None => builder.commit_from_file(source.path),
    }
}

/// Returns the session's inputs apart from the tables. An unknown one is an error.
fn known_inputs(
    session: &Session,
    tables: &[(String, Arc<DynValue>)],
) -> Result<Vec<(&'static str, Input)>, String> {
    let names = Input::ALL.map(|(name, _)| name);
    let mut inputs = Vec::new();
    let is_table = |input: &&Outlet| tables.iter().any(|(name, _)| name == input.name());
    for input in session.inputs().iter().filter(|input| !is_table(input)) {
        let known = Input::ALL.into_iter().find(|(name, _)| *name == input.name());
        let known = known.ok_or_else(|| {
            format!("input {} is unknown, expected {}", input.name(), names.join(", "))
        })?;
        let kind = input.dtype().tensor_type();
        if kind != Some(TensorElementType::Int64) {
            return Err(format!("input {} is {}, expected int64", input.name(), input.dtype()));
        }
        inputs.push(known);
    }
    if inputs.iter().any(|(_, input)| *input == Input::Ids) {
        Ok(inputs)
    } else {
        Err(format!("there is no input {}", names[0]))
    }
}

/// Returns the name of the output that `reading` needs.
fn output_for(session: &Session, reading: Reading) -> Result<String, String> {
    let accepted: &[&str] = match reading {
        Reading::Vectors(Pooling::Mean | Pooling::Cls) => &TOKEN_OUTPUTS,
        Reading::Vectors(Pooling::Pooler) => &[POOLER_OUTPUT],
        Reading::Scores => &[SCORES_OUTPUT],
    };
    let output = accepted
        .iter()
        .find_map(|name| session.outputs().iter().find(|output| output.name() == *name))
        .ok_or_else(|| {
            let names: Vec<&str> = session.outputs().iter().map(Outlet::name).collect();
            format!("outputs are {}, expected {}", names.join(", "), accepted.join(" or "))
        })?;
    if output.dtype().tensor_type() == Some(TensorElementType::Float32) {
        Ok(output.name().to_owned())
    } else {
        Err(format!("output {} is {}, expected float32", output.name(), output.dtype()))
    }
}
