//! Opens the `dense` and `ann` back ends: the encoder, and vectors in the index or in a file of faiss.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Opening, ServeError, index_folder};
use crate::backend::Backend;
use crate::backend::dense::{DenseBackend, Vectors};
use crate::config::{ConfigError, EncoderConfig, RuntimeConfig, ServeConfig, variables as var};
use crate::encode::{EncodeError, Encoder, EncoderOptions, Goal, Products, Role};
use crate::gpu::GpuOptions;
use crate::index::dense::ann::usearch::SearchLimits;
use crate::index::dense::ann::{self, BuildEffort, GraphKind};
use crate::index::dense::build::PassageEncoder;
use crate::index::dense::{self, DenseRows, VectorSource, formats};
use crate::index::progress::Progress;
use crate::vector::faiss_file::{Expected, FaissIndex};

/// The vectors of the passages, as a part that may have to be built.
pub(super) const VECTORS: &str = "the vectors of the passages";

/// The time between two log lines of a build.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl<'a> Opening<'a> {
    /// Opens the back end that scans all vectors.
    pub(super) fn open_dense(&mut self) -> Result<Box<dyn Backend>, ServeError> {
        let vectors = self.encoder_config()?.vectors.as_deref();
        let vectors = match vectors {
            Some(path) => self.open_named(path)?,
            None => Vectors::Index(self.open_vectors()?),
        };
        let (device, threads) = (self.encoder_config()?.runtime.device, self.config.threads);
        let options = GpuOptions { device, format: vectors.searched_format(), threads };
        let vectors = vectors.on_devices(&options)?;
        let steady_top_k = vectors.steady_top_k();
        let (encoder, pool) = (self.encoder()?, Arc::clone(self.pool));
        let dense = DenseBackend::new(encoder, vectors, pool, self.config.threads);
        Ok(self.batched(Box::new(dense), steady_top_k))
    }

    /// Opens the back end that follows a graph.
    pub(super) fn open_ann(&mut self) -> Result<Box<dyn Backend>, ServeError> {
        let config = self.encoder_config()?;
        let vectors = match config.vectors.as_deref() {
            Some(path) => match self.open_named(path)? {
                Vectors::FaissFlat(_) => {
                    return Err(ServeError::OtherVectors {
                        path: path.to_owned(),
                        property: "kind",
                        value: "vectors without a graph".to_owned(),
                        expected: "IndexHNSW for the ann back end".to_owned(),
                    });
                }
                vectors => vectors,
            },
            None => self.open_graph(config)?,
        };
        let steady_top_k = vectors.steady_top_k();
        let (encoder, pool) = (self.encoder()?, Arc::clone(self.pool));
        let dense = DenseBackend::new(encoder, vectors, pool, self.config.threads);
        Ok(self.batched(Box::new(dense), steady_top_k))
    }

    /// Opens the graph over the vectors in the index. A missing one is built if a corpus is named.
    fn open_graph(&mut self, encoder: &EncoderConfig) -> Result<Vectors, ServeError> {
        let (kind, format) =
            (encoder.graph.ok_or_else(|| ConfigError::unset(&var::ANN))?, encoder.vector_format);
        let rows = self.open_exact_vectors()?;
        let ServeConfig { corpus, threads, .. } = self.config;
        let index = index_folder(self.config)?;
        let source = VectorSource::new(self.manifest, &*self.encoder()?)?;
        if !corpus.is_empty() && !ann::exists(index, &source, kind, format)? {
            self.may_build("the graph over the vectors")?;
            info!(index = %index.display(), kind = kind.name(), "there is no graph, building one");
            let effort = BuildEffort { threads: *threads, saving: ann::SAVING };
            ann::build_kind(index, &source, kind, format, effort, &mut log_progress())?;
        }
        let ef = encoder.hnsw_ef;
        let (entry, vectors) = match kind {
            GraphKind::Hnsw => {
                let (entry, graph) = ann::open(index, &source, self.verification)?;
                let rows = self.in_searched_format(rows)?;
                (entry, Vectors::Graph { rows, graph, ef })
            }
            // The graph holds its own rows in the searched format.
            GraphKind::Usearch => {
                let limits = SearchLimits { ef, threads: *threads };
                let (entry, graph) =
                    ann::usearch::open(index, &source, format, limits, self.verification)?;
                (entry, Vectors::Usearch { rows, graph })
            }
        };
        info!(kind = kind.name(), ef, recall_at_10 = entry.recalls(), "the graph is ready");
        if let Some(warning) = entry.warning(source.passage_count, ef) {
            warn!("{warning}");
        }
        Ok(vectors)
    }

    fn encoder_config(&self) -> Result<&'a EncoderConfig, ServeError> {
        let encoder = self.config.encoder.as_ref();
        encoder.ok_or_else(|| ConfigError::unset(&var::MODEL).into())
    }

    pub(super) fn encoder(&self) -> Result<Arc<Encoder>, ServeError> {
        let encoder = self.encoder.as_ref().map(Arc::clone);
        encoder.ok_or_else(|| ConfigError::unset(&var::MODEL).into())
    }

    /// Opens the vectors of the passages in the searched format. Missing ones are made if a corpus is
    /// named.
    pub(super) fn open_vectors(&mut self) -> Result<DenseRows, ServeError> {
        let rows = self.open_exact_vectors()?;
        self.in_searched_format(rows)
    }

    /// Adds rows in the searched format. Missing ones are made if a corpus is named.
    fn in_searched_format(&mut self, rows: DenseRows) -> Result<DenseRows, ServeError> {
        let config = self.config;
        let index = index_folder(config)?;
        let source = VectorSource::new(self.manifest, &*self.encoder()?)?;
        let format = self.encoder_config()?.vector_format;
        if !config.corpus.is_empty() && !formats::exist(index, &source, format)? {
            self.may_build(&format!("the vectors in {}", format.name()))?;
            info!(format = format.name(), "there are no vectors in this format, converting them");
            formats::build(index, &source, format, &mut log_progress())?;
        }
        Ok(rows.with_format(index, &source, format, self.verification)?)
    }

    /// Opens the vectors as the encoder made them. Missing ones are made if a corpus is named.
    fn open_exact_vectors(&mut self) -> Result<DenseRows, ServeError> {
        let encoder = self.encoder()?;
        let config = self.config;
        let index = index_folder(config)?;
        let source = VectorSource::new(self.manifest, &encoder)?;
        if !config.corpus.is_empty() && !dense::build::exist(index, &source)? {
            self.may_build(VECTORS)?;
            self.make_vectors(&source, &encoder)?;
        }
        Ok(DenseRows::open(index, &source, self.verification)?)
    }

    fn make_vectors(&self, source: &VectorSource, encoder: &Encoder) -> Result<(), ServeError> {
        let index = index_folder(self.config)?;
        let model = &self.encoder_config()?.model;
        info!(index = %index.display(), "there are no vectors of this encoder, making them");
        let mut report = log_progress();
        dense::build::build(index, source, model, self.passages, encoder, &mut report)?;
        Ok(())
    }

    /// Opens the vectors in a file.
    fn open_named(&mut self, path: &Path) -> Result<Vectors, ServeError> {
        let ef = self.encoder_config()?.hnsw_ef;
        let file = open_file(path, Some(self.manifest.passage_count), &*self.encoder()?)?;
        let (count, format) = (file.vectors().count(), file.vectors().format().name());
        info!(path = %path.display(), vectors = count, format, "using the vectors of a file");
        for note in file.notes() {
            info!(path = %path.display(), "{note}");
        }
        Ok(match file {
            FaissIndex::Hnsw(file) => Vectors::FaissHnsw { file: *file, ef },
            FaissIndex::Flat(file) => Vectors::FaissFlat(file),
        })
    }
}

/// Opens the vectors in a file of faiss or numpy. Their number, unless it is not known yet, and their
/// dimension must fit passages and encoder; the file does not record which encoder made them.
pub(super) fn open_file(
    path: &Path,
    passage_count: Option<u64>,
    encoder: &Encoder,
) -> Result<FaissIndex, ServeError> {
    let expected = Expected { dimension: encoder.dimension(), passage_count };
    let file = FaissIndex::open_expecting(path, expected)?;
    let (count, dimension) = (file.vectors().count(), file.vectors().dimension());
    let misfit = |property: &'static str, value: String, expected: String| {
        Err(ServeError::OtherVectors { path: path.to_owned(), property, value, expected })
    };
    if dimension != encoder.dimension() {
        let expected = format!("{}, the dimension of the encoder", encoder.dimension());
        return misfit("dimension", dimension.to_string(), expected);
    }
    match passage_count {
        Some(expected) if count as u64 != expected => {
            let expected = format!("{expected}, the number of passages");
            misfit("vectors", count.to_string(), expected)
        }
        _ => Ok(file),
    }
}

/// Returns a report that logs the progress of a build from time to time.
fn log_progress() -> impl FnMut(Progress) {
    let mut last = Instant::now();
    move |progress| {
        if last.elapsed() < LOG_INTERVAL {
            return;
        }
        match progress {
            Progress::Encoding { passages, total, .. } => info!(passages, total, "encoding"),
            Progress::Rows { action, rows, total, .. } => info!(rows, total, "vectors {action}"),
            _ => return,
        }
        last = Instant::now();
    }
}

/// Opens the encoder of a configuration, and encodes a text in both roles. Callers open it before they build
/// anything, so that no build ends with a model that cannot be used.
pub(crate) fn open_encoder(
    config: &EncoderConfig,
    threads: usize,
    goal: Goal,
) -> Result<Encoder, EncodeError> {
    let encoder = Encoder::open(&config.model, &options(&config.runtime, threads, goal))?;
    for role in [Role::Query, Role::Passage] {
        encoder.encode(&["one text"], role, &|| false)?;
    }
    Ok(encoder)
}

/// Returns the options to open a model with.
pub(super) fn options(runtime: &RuntimeConfig, threads: usize, goal: Goal) -> EncoderOptions {
    EncoderOptions {
        device: runtime.device,
        threads: NonZeroUsize::new(threads),
        library: runtime.library.clone(),
        goal,
        products: Products::Auto,
    }
}

impl PassageEncoder for Encoder {
    fn encode(&self, texts: &[&str]) -> Result<Vec<f32>, String> {
        // A build is stopped by ending the process; the vectors written so far are kept.
        Encoder::encode(self, texts, Role::Passage, &|| false).map_err(|error| error.to_string())
    }
}
