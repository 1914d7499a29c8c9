//! Which back ends answer, and what each of them needs.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::reader::{Noted, Reader, path};
use crate::config::variables as var;
use crate::encode::device::Device;
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
    /// Two of the others, their lists made one.
    Hybrid,
}

impl BackendKind {
    const ALL: [Self; 4] = [Self::Bm25, Self::Dense, Self::Ann, Self::Hybrid];

    /// Name in configuration and in `/info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
            Self::Dense => "dense",
            Self::Ann => "ann",
            Self::Hybrid => "hybrid",
        }
    }

    /// Whether queries have to become vectors.
    pub fn needs_encoder(self) -> bool {
        match self {
            Self::Dense | Self::Ann => true,
            Self::Bm25 | Self::Hybrid => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

/// What answers queries.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// The back end.
    pub kind: BackendKind,
    /// How two back ends become one, for [`BackendKind::Hybrid`].
    pub hybrid: Option<HybridConfig>,
}

impl BackendConfig {
    fn new(kind: BackendKind, hybrid: HybridConfig) -> Self {
        Self { kind, hybrid: (kind == BackendKind::Hybrid).then_some(hybrid) }
    }

    /// The one of several that needs most.
    pub(super) fn neediest(backends: &[Self]) -> Option<&Self> {
        backends.iter().max_by_key(|backend| (backend.needs_encoder(), backend.needs_graph()))
    }

    /// Whether one of the back ends compares queries with every vector.
    pub(super) fn scans_vectors(&self) -> bool {
        self.components().contains(&BackendKind::Dense)
    }

    /// Whether one of the back ends follows a graph over vectors.
    pub fn needs_graph(&self) -> bool {
        self.components().contains(&BackendKind::Ann)
    }

    /// The back ends that search: two of a hybrid one, else the one itself.
    pub fn components(&self) -> Vec<BackendKind> {
        self.hybrid.map_or_else(|| vec![self.kind], |hybrid| hybrid.components.to_vec())
    }

    /// Whether one of the back ends turns queries into vectors.
    pub fn needs_encoder(&self) -> bool {
        self.components().into_iter().any(BackendKind::needs_encoder)
    }
}

/// Two back ends and how their lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HybridConfig {
    /// Two different back ends, neither of them hybrid.
    pub components: [BackendKind; 2],
    /// How lists become one.
    pub fusion: FusionConfig,
}

/// How two lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusionConfig {
    /// The formula.
    pub method: Fusion,
    /// Weight of each list: finite, at least 0, not both 0.
    pub weights: [f64; 2],
    /// Fewest passages that each back end is asked for.
    pub depth: usize,
}

/// The formula by which lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// By ranks alone, with this constant, above 0.
    ReciprocalRank {
        /// Added to every rank.
        k: f64,
    },
    /// By scores, each list's brought to 0..1.
    Weighted,
}

/// Where the encoder is and what it runs on.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Folder of the model.
    pub model: PathBuf,
    /// What runs it.
    pub runtime: RuntimeConfig,
    /// A file of faiss with the vectors; `None` for those in the index.
    pub vectors: Option<PathBuf>,
    /// Rows that a search along a graph keeps in sight.
    pub hnsw_ef: usize,
    /// Format of the rows that are searched.
    pub vector_format: RowFormat,
    /// The graph over them, if a back end needs one.
    pub graph: Option<GraphKind>,
    /// Whether rows in that format are read from the index.
    pub reads_rows: bool,
}

/// What ranks again what a back end has found.
#[derive(Clone, Debug)]
pub struct RerankerConfig {
    /// Folder of the model.
    pub model: PathBuf,
    /// What runs it.
    pub runtime: RuntimeConfig,
    /// Most passages of a query that it looks at.
    pub depth: usize,
    /// Longest time for a request.
    pub budget: Option<Duration>,
}

/// What runs models.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Where they run.
    pub device: Device,
    /// ONNX Runtime; `None` looks in the usual places.
    pub library: Option<PathBuf>,
}

impl Reader<'_> {
    /// The back end; what concerns a hybrid one is checked in any case.
    pub(super) fn backend(&mut self) -> Result<BackendConfig, Noted> {
        let kind = self.take(&var::BACKEND, BackendKind::parse);
        let hybrid = self.hybrid();
        Ok(BackendConfig::new(kind?, hybrid?))
    }

    /// The back ends that an index is made for, with commas between their names.
    pub(super) fn backends(&mut self) -> Result<Vec<BackendConfig>, Noted> {
        let kinds = self.take(&var::BACKEND, |text| {
            text.split(',').map(BackendKind::parse).collect::<Option<Vec<_>>>()
        });
        let (hybrid, kinds) = (self.hybrid()?, kinds?);
        Ok(kinds.into_iter().map(|kind| BackendConfig::new(kind, hybrid)).collect())
    }

    fn hybrid(&mut self) -> Result<HybridConfig, Noted> {
        let components = self.take(&var::HYBRID, components);
        let fusion = self.fusion();
        Ok(HybridConfig { components: components?, fusion: fusion? })
    }

    fn fusion(&mut self) -> Result<FusionConfig, Noted> {
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

    /// What runs models; checked in any case.
    pub(super) fn runtime(&mut self) -> Result<RuntimeConfig, Noted> {
        let device = self.take(&var::DEVICE, |text| text.parse().ok());
        let library = self.take_optional(&var::ONNXRUNTIME, |text| path(text).map(Some));
        Ok(RuntimeConfig { device: device?, library: library? })
    }

    /// The re-ranker, if one is named.
    pub(super) fn reranker(
        &mut self,
        runtime: Result<&RuntimeConfig, &Noted>,
    ) -> Result<Option<RerankerConfig>, Noted> {
        let model = self.take_optional(&var::RERANKER, |text| path(text).map(Some));
        let depth = self.count(&var::RERANK_DEPTH);
        let budget = self.take(&var::RERANK_BUDGET_MS, |text| {
            let limit = Duration::from_hours(24);
            let budget = Duration::from_millis(text.parse().ok()?);
            (budget <= limit).then_some((!budget.is_zero()).then_some(budget))
        });
        let (depth, budget) = (depth?, budget?);
        let runtime = runtime.map_err(|noted| *noted)?.clone();
        Ok(model?.map(|model| RerankerConfig { model, runtime, depth, budget }))
    }

    /// The encoder, if one of several back ends needs it.
    pub(super) fn encoder_of_index(
        &mut self,
        backends: Result<&[BackendConfig], &Noted>,
        runtime: Result<&RuntimeConfig, &Noted>,
    ) -> Result<Option<EncoderConfig>, Noted> {
        let neediest = backends.and_then(|backends| {
            // There is always one: splitting a text gives a part.
            BackendConfig::neediest(backends).ok_or(&Noted)
        });
        let encoder = self.encoder(neediest, runtime)?;
        Ok(encoder.zip(backends.ok()).map(|(encoder, backends)| {
            let reads_rows = reads_rows(backends, encoder.graph);
            EncoderConfig { reads_rows, ..encoder }
        }))
    }

    /// The encoder, if a back end needs one.
    pub(super) fn encoder(
        &mut self,
        backend: Result<&BackendConfig, &Noted>,
        runtime: Result<&RuntimeConfig, &Noted>,
    ) -> Result<Option<EncoderConfig>, Noted> {
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

/// Which format of the vectors is searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum FormatChoice {
    /// What is fastest.
    Auto,
    Named(RowFormat),
}

impl FormatChoice {
    /// The choice of that name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if name == "auto" { Some(Self::Auto) } else { RowFormat::parse(name).map(Self::Named) }
    }

    /// The format itself. Along a graph half precision is faster at equal recall, as hits are scored again by
    /// the exact vectors; a scan of every row needs no second format.
    pub(super) fn resolved(self, graph: Option<GraphKind>) -> RowFormat {
        match self {
            Self::Named(format) => format,
            Self::Auto if graph.is_some() => RowFormat::F16,
            Self::Auto => RowFormat::F32,
        }
    }
}

/// Whether rows in the format that is searched are read: a graph of usearch has its own.
pub(super) fn reads_rows(backends: &[BackendConfig], graph: Option<GraphKind>) -> bool {
    graph != Some(GraphKind::Usearch) || backends.iter().any(BackendConfig::scans_vectors)
}

/// Two different back ends that search by themselves, with a comma between them.
fn components(text: &str) -> Option<[BackendKind; 2]> {
    let (one, other) = text.split_once(',')?;
    let kinds = [BackendKind::parse(one)?, BackendKind::parse(other)?];
    (kinds[0] != kinds[1] && !kinds.contains(&BackendKind::Hybrid)).then_some(kinds)
}

/// Two weights with a comma between them.
fn weights(text: &str) -> Option<[f64; 2]> {
    let (one, other) = text.split_once(',')?;
    let weights = [one.parse::<f64>().ok()?, other.parse().ok()?];
    let fits = |weight: &f64| (0.0..=MAX_WEIGHT).contains(weight);
    (weights.iter().all(fits) && weights.iter().any(|&weight| weight > 0.0)).then_some(weights)
}
