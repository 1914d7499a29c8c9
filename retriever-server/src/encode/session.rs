//! A model in ONNX Runtime: token ids in, one vector a text out.

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

/// Rows of token ids of one length, `lengths` of which are the text's.
#[derive(Debug)]
pub(super) struct Rows {
    /// Row after row.
    pub(super) ids: Vec<i64>,
    /// Tokens of each text, at least 1 and at most `row_tokens`.
    pub(super) lengths: Vec<usize>,
    /// Tokens of a row, padding included.
    pub(super) row_tokens: usize,
    /// Of each token, in which of two texts it is; `None` stands for the first throughout.
    pub(super) types: Option<Vec<i64>>,
}

/// What a model is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Single texts as soon as possible, in little memory.
    #[default]
    Latency,
    /// As many texts as possible: on the CPU a session for every thread, up to eight, even where
    /// each keeps weights of its own.
    Throughput,
}

/// A model file to open.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) environment: &'a Environment,
    pub(super) path: &'a Path,
    pub(super) reading: Reading,
    pub(super) threads: NonZeroUsize,
    pub(super) goal: Goal,
    pub(super) products: Products,
}

/// What is made of a model's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// One vector a text.
    Vectors(Pooling),
    /// One number a text: the logit of the only class, or by how much that of the second of two
    /// is above that of the first.
    Scores,
}

/// What the model is told of each token.
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

/// Outputs that hold a vector for each token, by the names that exporters give them.
const TOKEN_OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];
const POOLER_OUTPUT: &str = "pooler_output";
const SCORES_OUTPUT: &str = "logits";

/// An open model. Its errors are texts for [`super::EncodeError`].
pub(super) struct Model {
    session: Session,
    /// Without the outputs that are not looked at, which are then not computed.
    options: RunOptions<HasSelectedOutputs>,
    inputs: Vec<(&'static str, Input)>,
    /// Inputs that are always the same, by their names.
    tables: Vec<(String, Arc<DynValue>)>,
    output: String,
    reading: Reading,
}

impl Model {
    /// Opens an ONNX file; `threads` compute on the CPU.
    pub(super) fn open(
        source: Source<'_>,
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

    /// Computes the vectors of `rows`, one after the other, as they come out of pooling, or their
    /// scores.
    pub(super) fn run(&mut self, rows: &Rows) -> Result<Vec<f32>, String> {
        let shape = [rows.lengths.len(), rows.row_tokens];
        let mut mask = vec![0i64; rows.ids.len()];
        for (row, &length) in mask.chunks_exact_mut(rows.row_tokens).zip(&rows.lengths) {
            row[..length].fill(1);
        }
        let plain = rows.types.is_none().then(|| vec![0i64; rows.ids.len()]);
        let types = rows.types.as_ref().or(plain.as_ref());
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for &(name, input) in &self.inputs {
            let numbers = match input {
                Input::Ids => &rows.ids,
                Input::Mask => &mask,
                Input::Types => types.unwrap_or(&mask),
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
        let (found, values) = outputs[self.output.as_str()]
            .try_extract_tensor::<f32>()
            .map_err(|error| whole_text(&error))?;
        let sizes: Vec<usize> = found.iter().map(|&size| size as usize).collect();
        let read = match self.reading {
            Reading::Vectors(pooling) => vectors(pooling, rows, &sizes, values),
            Reading::Scores => scores(rows, &sizes, values),
        };
        read.ok_or_else(|| {
            format!("output {} has shape {sizes:?} for texts {shape:?}", self.output)
        })
    }
}

/// Pools an output of these sizes; `None` if it cannot be that of `rows`.
fn vectors(pooling: Pooling, rows: &Rows, sizes: &[usize], values: &[f32]) -> Option<Vec<f32>> {
    let shape = [rows.lengths.len(), rows.row_tokens];
    let (found, [tokens, dimension]) = match (pooling, sizes) {
        (Pooling::Pooler, &[texts, dimension]) => ([texts, rows.row_tokens], [1, dimension]),
        (Pooling::Mean | Pooling::Cls, &[texts, tokens, dimension]) => {
            ([texts, tokens], [tokens, dimension])
        }
        _ => return None,
    };
    if found != shape || dimension == 0 || values.len() != shape[0] * tokens * dimension {
        return None;
    }
    let mut vectors = vec![0.0; shape[0] * dimension];
    let texts = values.chunks_exact(tokens * dimension).zip(&rows.lengths);
    for (pooled, (text, &length)) in vectors.chunks_exact_mut(dimension).zip(texts) {
        pool(pooling, &text[..length.min(tokens) * dimension], pooled);
    }
    Some(vectors)
}

/// Reads logits of these sizes; `None` if they cannot be those of `rows`.
fn scores(rows: &Rows, sizes: &[usize], values: &[f32]) -> Option<Vec<f32>> {
    let texts = rows.lengths.len();
    match *sizes {
        [found, 1] if found == texts && values.len() == texts => Some(values.to_vec()),
        [found, 2] if found == texts && values.len() == 2 * texts => {
            Some(values.chunks_exact(2).map(|logits| logits[1] - logits[0]).collect())
        }
        _ => None,
    }
}

/// Whether the loaded ONNX Runtime knows CUDA at all; a device may still be missing.
pub(super) fn is_built_with_cuda() -> bool {
    CUDA::is_available().unwrap_or(false)
}

fn commit(
    source: Source<'_>,
    provider: Provider,
    threads: NonZeroUsize,
    split: Option<&SplitModel>,
) -> ort::Result<Session> {
    let mut builder = Session::builder(source.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads.get())?
        .with_inter_threads(1)?
        // Within a run threads wait for each other for microseconds at a time. Between runs they
        // would take the cores from searches.
        .with_intra_op_spinning(true)?
        .with_config_entry("session.force_spinning_stop", "1")?
        // A pattern would be kept for every shape that ever came.
        .with_memory_pattern(false)?;
    if let Provider::Cuda(device) = provider {
        CUDA::default().with_device_id(i32::from(device)).register(&mut builder)?;
    }
    match split {
        Some(split) => split.commit(builder, threads),
        None => builder.commit_from_file(source.path),
    }
}

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

fn output_for(session: &Session, reading: Reading) -> Result<String, String> {
    let wanted: &[&str] = match reading {
        Reading::Vectors(Pooling::Mean | Pooling::Cls) => &TOKEN_OUTPUTS,
        Reading::Vectors(Pooling::Pooler) => &[POOLER_OUTPUT],
        Reading::Scores => &[SCORES_OUTPUT],
    };
    let output = wanted
        .iter()
        .find_map(|name| session.outputs().iter().find(|output| output.name() == *name))
        .ok_or_else(|| {
            let names: Vec<&str> = session.outputs().iter().map(Outlet::name).collect();
            format!("outputs are {}, expected {}", names.join(", "), wanted.join(" or "))
        })?;
    if output.dtype().tensor_type() == Some(TensorElementType::Float32) {
        Ok(output.name().to_owned())
    } else {
        Err(format!("output {} is {}, expected float32", output.name(), output.dtype()))
    }
}
