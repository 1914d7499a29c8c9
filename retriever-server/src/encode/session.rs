//! A model in ONNX Runtime, which turns the token ids of texts into one vector or one score per text.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::DynValue;

use super::calls;
use super::inputs::Inputs;
use super::library::whole_text;
use super::outputs::{Output, OutputKind, Reading};
use super::split::{Products, SplitModel};
use crate::device::Provider;

/// Rows of token ids, padded to equal length.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenRows {
    /// The ids, row after row.
    pub(super) ids: Vec<i64>,
    /// The number of tokens of each text, from 1 to `row_tokens`.
    pub(super) lengths: Vec<usize>,
    /// The number of tokens of a row, including padding.
    pub(super) row_tokens: usize,
    /// The type of each token: 0 in the first of two texts, 1 in the second. `None` stands for zeros.
    pub(super) types: Option<Vec<i64>>,
    /// `true` if padding is at the start of a row, `false` if it is at the end.
    pub(super) pads_left: bool,
    /// The number of tokens at the start of each text that pooling leaves out.
    pub(super) skipped: usize,
}

impl TokenRows {
    /// Returns the place of a text's tokens in its row.
    pub(super) fn range(&self, text: usize) -> Range<usize> {
        let length = self.lengths[text].min(self.row_tokens);
        let start = if self.pads_left { self.row_tokens - length } else { 0 };
        start..start + length
    }

    /// Returns a number for each token, which depends on its position in the text, and 0 for padding.
    pub(super) fn by_token(&self, number: impl Fn(usize) -> i64) -> Vec<i64> {
        let mut numbers = vec![0; self.ids.len()];
        for (text, row) in numbers.chunks_exact_mut(self.row_tokens).enumerate() {
            for (position, slot) in row[self.range(text)].iter_mut().enumerate() {
                *slot = number(position);
            }
        }
        numbers
    }

    /// Returns rows for `texts` texts, with the first text again in place of missing ones.
    fn filled(&self, texts: usize) -> Cow<'_, Self> {
        let missing = texts.saturating_sub(self.lengths.len());
        if missing == 0 {
            return Cow::Borrowed(self);
        }
        let mut filled = self.clone();
        for _ in 0..missing {
            filled.ids.extend_from_slice(&self.ids[..self.row_tokens]);
            filled.lengths.push(self.lengths[0]);
            if let (Some(filled), Some(types)) = (&mut filled.types, &self.types) {
                filled.extend_from_slice(&types[..self.row_tokens]);
            }
        }
        Cow::Owned(filled)
    }
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
    pub(super) reading: &'a Reading,
    /// The position of the first token.
    pub(super) first_position: i64,
    pub(super) threads: NonZeroUsize,
    pub(super) goal: Goal,
    pub(super) products: Products,
}

/// The properties of a graph that limit its runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct GraphShape {
    /// The number of texts of every run, if the graph fixes it.
    pub(super) texts: Option<usize>,
    /// The number of tokens of every row, if the graph fixes it.
    pub(super) tokens: Option<usize>,
    /// `true` if the graph can tell tokens from padding.
    pub(super) has_mask: bool,
    /// The kind of its output.
    pub(super) output: OutputKind,
}

/// An open model. Its errors are texts for [`super::EncodeError`].
pub(super) struct Model {
    session: Session,
    /// The options that select the one output in use. Others are not computed.
    options: RunOptions<HasSelectedOutputs>,
    inputs: Inputs,
    /// The names and values of the inputs that never change.
    tables: Vec<(String, Arc<DynValue>)>,
    output: Output,
    first_position: i64,
}

impl Model {
    /// Opens an ONNX file, which `threads` compute on the CPU.
    pub(super) fn open(
        source: SessionSpec<'_>,
        provider: Provider,
        threads: NonZeroUsize,
        split: Option<&SplitModel>,
    ) -> Result<Self, String> {
        let call = calls::begin();
        let session =
            commit(source, provider, threads, split).map_err(|error| whole_text(&error))?;
        drop(call);
        let tables = split.map_or_else(Vec::new, |split| split.tables.clone());
        let inputs = Inputs::of(&session, &tables)?;
        let output = Output::of(&session, source.reading)?;
        let selected = OutputSelector::no_default().with(output.name.clone());
        let options = RunOptions::new().map_err(|error| whole_text(&error))?.with_outputs(selected);
        let first_position = source.first_position;
        Ok(Self { session, options, inputs, tables, output, first_position })
    }

    /// Returns the properties of its graph.
    pub(super) fn shape(&self) -> GraphShape {
        let Inputs { texts, tokens, has_mask, .. } = self.inputs;
        GraphShape { texts, tokens, has_mask, output: self.output.kind }
    }

    /// Computes the pooled vectors of `rows` one after the other, or their scores.
    pub(super) fn run(&mut self, rows: &TokenRows) -> Result<Vec<f32>, String> {
        let texts = rows.lengths.len();
        let rows = rows.filled(self.inputs.texts.unwrap_or(texts));
        let mut inputs = self.inputs.values(&rows, self.first_position)?;
        inputs.extend(self.tables.iter().map(|(name, table)| (name.as_str(), (&**table).into())));
        let _call = calls::begin();
        let outputs = self
            .session
            .run_with_options(inputs, &self.options)
            .map_err(|error| whole_text(&error))?;
        let mut read = self.output.read(&outputs[self.output.name.as_str()], &rows)?;
        read.truncate(read.len() / rows.lengths.len() * texts);
        Ok(read)
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
