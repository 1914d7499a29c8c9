//! The variables of back ends, encoder and re-ranker.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{FaultNoted, Reader, path};
use super::variables as var;
use crate::backend::fuse::{Fusion, FusionConfig};
use crate::device::Device;
use crate::engine::{EngineConfig, EngineKind};
use crate::index::dense::ann::GraphKind;
use crate::vector::RowFormat;

/// The largest weight of a list.
const MAX_WEIGHT: f64 = 1e6;

/// The back ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Lexical search by BM25.
    Bm25,
    /// Exact search over vectors.
    Dense,
    /// Search along a graph over vectors.
    Ann,
    /// Two of the others with their lists fused.
    Hybrid,
    /// Search of the web by providers.
    Web,
    /// An engine of another machine, which holds the passages.
    Engine(EngineKind),
}

impl BackendKind {
    const OWN: [Self; 5] = [Self::Bm25, Self::Dense, Self::Ann, Self::Hybrid, Self::Web];

    /// Returns the name in configuration and in `/info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
            Self::Ann => "ann",
            Self::Hybrid => "hybrid",
            Self::Web => "web",
            Self::Engine(engine) => engine.name(),
        }
    }

    /// Returns `true` if queries have to become vectors.
    pub fn needs_encoder(self) -> bool {
        match self {
            Self::Dense | Self::Ann => true,
            Self::Bm25 | Self::Hybrid | Self::Web => false,
            Self::Engine(engine) => engine.searches_vectors(),
        }
    }

    /// Returns `true` if another service holds the passages, so that there is no index.
    pub fn is_remote(self) -> bool {
        match self {
            Self::Bm25 | Self::Dense | Self::Ann | Self::Hybrid => false,
            Self::Web | Self::Engine(_) => true,
        }
    }

    /// Returns the back end with this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let own = Self::OWN.into_iter().find(|kind| kind.name() == text);
        own.or_else(|| EngineKind::parse(text).map(Self::Engine))
    }
}

/// The back end that answers queries.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// The kind of back end.
    pub kind: BackendKind,
    /// The two back ends of [`BackendKind::Hybrid`].
    pub hybrid: Option<HybridConfig>,
}

impl BackendConfig {
    fn new(kind: BackendKind, hybrid: HybridConfig) -> Self {
        Self { kind, hybrid: (kind == BackendKind::Hybrid).then_some(hybrid) }
    }

    /// Returns the back end that needs the most of its index.
    pub(super) fn neediest(backends: &[Self]) -> Option<&Self> {
        backends.iter().max_by_key(|backend| (backend.needs_encoder(), backend.needs_graph()))
    }

    /// Returns `true` if one of the back ends compares queries with every vector.
    pub(super) fn scans_vectors(&self) -> bool {
        self.components().contains(&BackendKind::Dense)
    }

    /// Returns `true` if one of the back ends follows a graph over vectors.
    pub fn needs_graph(&self) -> bool {
        self.components().contains(&BackendKind::Ann)
    }

    /// Returns the back ends that search: both parts of a hybrid one, else the back end itself.
    pub fn components(&self) -> Vec<BackendKind> {
        self.hybrid.map_or_else(|| vec![self.kind], |hybrid| hybrid.components.to_vec())
    }

    /// Returns `true` if one of the back ends turns queries into vectors.
    pub fn needs_encoder(&self) -> bool {
        self.components().into_iter().any(BackendKind::needs_encoder)
    }
}

/// Two back ends and the fusion of their lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HybridConfig {
    /// Two different back ends, neither of them hybrid.
    pub components: [BackendKind; 2],
    /// The fusion of their lists.
    pub fusion: FusionConfig,
}

/// The encoder, its vectors and their graph.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Folder of the model.
    pub model: PathBuf,
    /// The runtime of the model.
    pub runtime: RuntimeConfig,
    /// A file of faiss with the vectors; `None` for the vectors of the index.
    pub vectors: Option<PathBuf>,
    /// The number of candidate rows that a search along a graph keeps.
    pub hnsw_ef: usize,
    /// The format of the rows that are searched.
    pub vector_format: RowFormat,
    /// The graph over the rows, if a back end needs one.
    pub graph: Option<GraphKind>,
    /// `true` if rows in that format are read from the index.
    pub reads_rows: bool,
}

/// The re-ranker of the passages that a back end returns.
#[derive(Clone, Debug)]
pub struct RerankerConfig {
    /// Folder of the model.
    pub model: PathBuf,
    /// The runtime of the model.
    pub runtime: RuntimeConfig,
    /// The most passages of a query that are ranked again.
    pub depth: usize,
    /// The longest time for a request; `None` for no limit.
    pub budget: Option<Duration>,
}

/// The runtime of models.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The device that models run on.
    pub device: Device,
    /// The library of ONNX Runtime; `None` to look in the usual folders.
    pub library: Option<PathBuf>,
}

impl Reader<'_> {
    /// Reads the back end. The variables of a hybrid one are always checked.
    pub(super) fn backend(&mut self) -> Result<BackendConfig, FaultNoted> {
        let kind = self.take(&var::BACKEND, BackendKind::parse);
        let hybrid = self.hybrid();
        Ok(BackendConfig::new(kind?, hybrid?))
    }

    /// Reads the engine of another machine, if the back end is one.
    pub(super) fn engine_of(
        &mut self,
        backend: Result<&BackendConfig, &FaultNoted>,
    ) -> Result<Option<EngineConfig>, FaultNoted> {
        match backend.map_err(|noted| *noted)?.kind {
            BackendKind::Engine(kind) => self.engine(kind).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads the back ends that an index is made for, with commas between their names.
    /// An engine that is loaded from it is one of them.
    pub(super) fn backends(
        &mut self,
        to: Option<EngineKind>,
    ) -> Result<Vec<BackendConfig>, FaultNoted> {
        let kinds = self.take(&var::BACKEND, |text| {
            let kind = |name: &str| BackendKind::parse(name).filter(|kind| !kind.is_remote());
            text.split(',').map(kind).collect::<Option<Vec<_>>>()
        });
        let (hybrid, kinds) = (self.hybrid()?, kinds?);
        let vectors = to.filter(|engine| engine.searches_vectors()).map(|_| BackendKind::Dense);
        let kinds = kinds.into_iter().chain(vectors);
        Ok(kinds.map(|kind| BackendConfig::new(kind, hybrid)).collect())
    }

    fn hybrid(&mut self) -> Result<HybridConfig, FaultNoted> {
        let components = self.take(&var::HYBRID, components);
        let fusion = self.fusion();
        Ok(HybridConfig { components: components?, fusion: fusion? })
    }

    fn fusion(&mut self) -> Result<FusionConfig, FaultNoted> {
        let by_rank = self.take(&var::FUSION, |text| match text {
            "rrf" => Some(true),
            "weighted" => Some(false),
            _ => None,
        });
        let k = self.take(&var::RRF_K, |text| {
            text.parse::<f64>().ok().filter(|k| k.is_finite() && *k > 0.0)
        });
        let weights = self.take(&var::FUSION_WEIGHTS, weights);
        let depth = self.count(&var::FUSION_DEPTH);
        let k = k?;
        let method = if by_rank? { Fusion::ReciprocalRank { k } } else { Fusion::Weighted };
        Ok(FusionConfig { method, weights: weights?, depth: depth? })
    }

    /// Reads the runtime of models, which is always checked.
    pub(super) fn runtime(&mut self) -> Result<RuntimeConfig, FaultNoted> {
        let device = self.take(&var::DEVICE, |text| text.parse().ok());
        let library = self.take_optional(&var::ONNXRUNTIME, |text| path(text).map(Some));
        Ok(RuntimeConfig { device: device?, library: library? })
    }

    /// Reads the re-ranker of a model, if one is named.
    pub(super) fn reranker(
        &mut self,
        model: Result<&Option<PathBuf>, &FaultNoted>,
        runtime: Result<&RuntimeConfig, &FaultNoted>,
    ) -> Result<Option<RerankerConfig>, FaultNoted> {
        let depth = self.count(&var::RERANK_DEPTH);
        let budget = self.take(&var::RERANK_BUDGET_MS, |text| {
            let limit = Duration::from_hours(24);
            let budget = Duration::from_millis(text.parse().ok()?);
            (budget <= limit).then_some((!budget.is_zero()).then_some(budget))
        });
        let (depth, budget) = (depth?, budget?);
        let runtime = runtime.map_err(|noted| *noted)?.clone();
        let model = model.map_err(|noted| *noted)?.clone();
        Ok(model.map(|model| RerankerConfig { model, runtime, depth, budget }))
    }

    /// Reads the encoder, if one of several back ends needs it.
    pub(super) fn encoder_of_index(
        &mut self,
        backends: Result<&[BackendConfig], &FaultNoted>,
        runtime: Result<&RuntimeConfig, &FaultNoted>,
    ) -> Result<Option<EncoderConfig>, FaultNoted> {
        let neediest = backends.map(|backends| {
            BackendConfig::neediest(backends).expect("splitting a text gives at least one part")
        });
        let encoder = self.encoder(neediest, runtime)?;
        Ok(encoder.zip(backends.ok()).map(|(encoder, backends)| {
            let reads_rows = reads_rows(backends, encoder.graph);
            EncoderConfig { reads_rows, ..encoder }
        }))
    }

    /// Reads the encoder, if the back end needs one.
    pub(super) fn encoder(
        &mut self,
        backend: Result<&BackendConfig, &FaultNoted>,
        runtime: Result<&RuntimeConfig, &FaultNoted>,
    ) -> Result<Option<EncoderConfig>, FaultNoted> {
        let vectors = self.take_optional(&var::VECTORS, |text| path(text).map(Some));
        let hnsw_ef = self.count(&var::HNSW_EF);
        let vector_format = self.take(&var::VECTOR_FORMAT, FormatChoice::parse);
        let graph = self.take(&var::ANN, GraphKind::parse);
        let backend = backend.map_err(|noted| *noted)?;
        if !backend.needs_encoder() {
            return Ok(None);
        }
        let model = self.take(&var::MODEL, path);
        let graph = Some(graph?).filter(|_| backend.needs_graph());
        Ok(Some(EncoderConfig {
            model: model?,
            runtime: runtime.map_err(|noted| *noted)?.clone(),
            vectors: vectors?,
            hnsw_ef: hnsw_ef?,
            vector_format: vector_format?.resolved(graph),
            reads_rows: reads_rows(std::slice::from_ref(backend), graph),
            graph,
        }))
    }
}

/// The choice of the format of the vectors that are searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum FormatChoice {
    /// The fastest format.
    Auto,
    /// This format.
    Named(RowFormat),
}

impl FormatChoice {
    /// Returns the choice with this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if name == "auto" { Some(Self::Auto) } else { RowFormat::parse(name).map(Self::Named) }
    }

    /// Returns the format. Along a graph, half precision is faster at equal recall, because hits are scored
    /// again with the exact vectors. A scan of every row needs no second format.
    pub(super) fn resolved(self, graph: Option<GraphKind>) -> RowFormat {
        match self {
            Self::Named(format) => format,
            Self::Auto if graph.is_some() => RowFormat::F16,
            Self::Auto => RowFormat::F32,
        }
    }
}

/// Returns `true` if rows in the searched format are read from the index. A graph of usearch holds its own.
pub(super) fn reads_rows(backends: &[BackendConfig], graph: Option<GraphKind>) -> bool {
    graph != Some(GraphKind::Usearch) || backends.iter().any(BackendConfig::scans_vectors)
}

/// Parses two different back ends over an index of ours that are not hybrid, with a comma between them.
fn components(text: &str) -> Option<[BackendKind; 2]> {
    let (first, second) = text.split_once(',')?;
    let kinds = [BackendKind::parse(first)?, BackendKind::parse(second)?];
    let has_own_rows = |kind: &BackendKind| *kind != BackendKind::Hybrid && !kind.is_remote();
    (kinds[0] != kinds[1] && kinds.iter().all(has_own_rows)).then_some(kinds)
}

/// Parses two weights with a comma between them.
fn weights(text: &str) -> Option<[f64; 2]> {
    let (first, second) = text.split_once(',')?;
    let weights = [first.parse::<f64>().ok()?, second.parse().ok()?];
    let fits = |weight: &f64| (0.0..=MAX_WEIGHT).contains(weight);
    (weights.iter().all(fits) && weights.iter().any(|&weight| weight > 0.0)).then_some(weights)
}
