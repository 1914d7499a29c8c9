//! A searcher that answers from a record, from a retriever, or from both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::file::{Record, RecordError};
use super::line::Question;
use super::source::Source;
use super::{MissRule, RecordCounters, RecordMode, RecordSettings};
use crate::search::http::HttpSearcher;
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;

/// Wait for a retriever to say what it serves, if the record can do without.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);

/// Answers searches as [`RecordMode`] says.
#[derive(Debug)]
pub struct RecordedSearcher {
    /// The retriever; none in a replay.
    live: Option<HttpSearcher>,
    /// The record; none if it is off.
    attached: Option<Attached>,
    ready: Vec<SearchOutcome>,
    /// The queries that the retriever has been asked, by ticket.
    pending: HashMap<u64, SearchRequest>,
    counters: RecordCounters,
    /// The counts of the searcher's whole life, for the log.
    totals: RecordCounters,
}

/// A record in use.
#[derive(Debug)]
struct Attached {
    record: Arc<Record>,
    source: Source,
    mode: RecordMode,
    on_miss: MissRule,
}

impl RecordedSearcher {
    /// Opens the record, and finds out what the retriever `live` serves. A replay needs no retriever, the other modes do.
    ///
    /// # Errors
    /// A record that cannot be opened or has no answers to replay, and a retriever that does not say what it serves in
    /// time.
    pub fn open(
        live: Option<HttpSearcher>,
        settings: &RecordSettings,
    ) -> Result<Self, SearcherError> {
        let attached = match (settings.mode, &live) {
            (RecordMode::Off, _) => None,
            (RecordMode::Replay, _) => Some(replayed(settings)?),
            (RecordMode::Record | RecordMode::Fill, Some(live)) => Some(recorded(live, settings)?),
            (RecordMode::Record | RecordMode::Fill, None) => {
                return Err(SearcherError("there is no retriever to record".to_owned()));
            }
        };
        if let Some(Attached { record, source, mode, .. }) = &attached {
            let (file, answers) = (record.path().display(), record.answer_count());
            info!(%file, answers, source = source.in_words(), ?mode, "searches use a record");
        }
        Ok(Self {
            live: live.filter(|_| settings.mode != RecordMode::Replay),
            attached,
            ready: Vec::new(),
            pending: HashMap::new(),
            counters: RecordCounters::default(),
            totals: RecordCounters::default(),
        })
    }

    /// Records what the retriever answered, and replaces it by the answer that counts.
    fn settle(
        &mut self,
        outcomes: Vec<SearchOutcome>,
    ) -> Result<Vec<SearchOutcome>, SearcherError> {
        let Some(attached) = &self.attached else { return Ok(outcomes) };
        let mut settled = Vec::with_capacity(outcomes.len());
        for SearchOutcome { ticket, result } in outcomes {
            let request = self.pending.remove(&ticket);
            let result = match (request, result) {
                (Some(request), Ok(passages)) => {
                    let question = attached.question(&request);
                    let (passages, is_new) =
                        attached.record.settle(question, passages, attached.only_fresh())?;
                    self.counters.recorded += u64::from(is_new);
                    Ok(passages)
                }
                (_, result) => result,
            };
            settled.push(SearchOutcome { ticket, result });
        }
        Ok(settled)
    }
}

impl Attached {
    fn question<'q>(&'q self, request: &'q SearchRequest) -> Question<'q> {
        Question { source: &self.source, top_k: request.top_k, query: &request.query }
    }

    /// Returns `true` if only answers of this process count.
    fn only_fresh(&self) -> bool {
        self.mode == RecordMode::Record
    }

    fn miss(&self, request: &SearchRequest) -> String {
        format!(
            "the search record {} has no answer to the query {:?} with {} passages from the source {}; \
             record.mode = \"fill\" asks a retriever for what is missing",
            self.record.path().display(),
            request.query,
            request.top_k,
            self.source.in_words()
        )
    }
}

impl Searcher for RecordedSearcher {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        let mut asked = requests;
        if let Some(attached) = &self.attached {
            let mut missing = Vec::new();
            for request in asked {
                let question = attached.question(&request);
                if let Some(passages) = attached.record.answer(question, attached.only_fresh())? {
                    self.counters.hits += 1;
                    self.ready.push(SearchOutcome { ticket: request.ticket, result: Ok(passages) });
                    continue;
                }
                self.counters.misses += 1;
                match (attached.mode, attached.on_miss) {
                    (RecordMode::Replay, MissRule::Stop) => {
                        return Err(SearcherError(attached.miss(&request)));
                    }
                    (RecordMode::Replay, MissRule::Drop) => {
                        let result = Err(attached.miss(&request));
                        self.ready.push(SearchOutcome { ticket: request.ticket, result });
                    }
                    (RecordMode::Off | RecordMode::Record | RecordMode::Fill, _) => {
                        self.pending.insert(request.ticket, request.clone());
                        missing.push(request);
                    }
                }
            }
            asked = missing;
        }
        match &mut self.live {
            Some(live) if !asked.is_empty() => live.submit(asked),
            _ => Ok(()),
        }
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        let mut outcomes = std::mem::take(&mut self.ready);
        if let Some(live) = &mut self.live {
            let answered = live.poll()?;
            outcomes.extend(self.settle(answered)?);
        }
        Ok(outcomes)
    }

    fn wait(
        &mut self,
        limit: Duration,
        stop: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        let ready = self.poll()?;
        if !ready.is_empty() {
            return Ok(Some(ready));
        }
        let Some(live) = &mut self.live else { return Ok(None) };
        let Some(answered) = live.wait(limit, stop)? else { return Ok(None) };
        self.settle(answered).map(Some)
    }

    fn cancel(&mut self) {
        self.ready.clear();
        self.pending.clear();
        if let Some(live) = &mut self.live {
            live.cancel();
        }
    }

    fn take_counters(&mut self) -> RecordCounters {
        self.totals.add(self.counters);
        std::mem::take(&mut self.counters)
    }
}

impl Drop for RecordedSearcher {
    fn drop(&mut self) {
        self.take_counters();
        let RecordCounters { hits, misses, recorded } = self.totals;
        if let Some(attached) = &self.attached
            && hits + misses > 0
        {
            let file = attached.record.path().display();
            info!(%file, hits, misses, recorded, "searches and their record");
        }
    }
}

/// Opens a record to be replayed, with the source that was chosen.
fn replayed(settings: &RecordSettings) -> Result<Attached, SearcherError> {
    let record = Record::read(&settings.file)?;
    let sources = record.sources();
    let matches = |source: &&Source| {
        let index = source.facts["index_digest"].as_str().unwrap_or_default();
        let (id, wanted) = (source.id.to_string(), settings.source.as_str());
        id.starts_with(wanted) || (!wanted.is_empty() && index.starts_with(wanted))
    };
    let chosen: Vec<&Source> = sources.iter().filter(matches).collect();
    let file = settings.file.display();
    let source = match chosen[..] {
        [source] => source.clone(),
        [] if sources.is_empty() => {
            return Err(SearcherError(format!("the search record {file} has no answers")));
        }
        _ => {
            let known: Vec<String> = sources.iter().map(Source::in_words).collect();
            let (number, known) = (sources.len(), known.join("; "));
            let reason = if settings.source.is_empty() {
                format!("has answers of {number} sources")
            } else {
                format!("has {} sources that begin with {:?}", chosen.len(), settings.source)
            };
            return Err(SearcherError(format!(
                "the search record {file} {reason}: set record.source to the beginning of one id: {known}"
            )));
        }
    };
    Ok(Attached { record, source, mode: settings.mode, on_miss: settings.on_miss })
}

/// Opens a record to be written, for the retriever that is asked.
fn recorded(live: &HttpSearcher, settings: &RecordSettings) -> Result<Attached, SearcherError> {
    let record = Record::write(&settings.file)?;
    let mut sources = record.sources();
    let only = if sources.len() == 1 { sources.pop() } else { None };
    let only = only.filter(|_| settings.mode == RecordMode::Fill);
    let patience = if only.is_some() { SHORT_PATIENCE } else { settings.patience };
    let source = match (live.serving(patience.min(settings.patience)), only) {
        (Ok(serving), _) => {
            if serving.is_none() {
                warn!(
                    "the retriever does not say what it serves: a change of its index would not be noticed"
                );
            }
            Source::of(serving.as_ref())
        }
        (Err(reason), Some(source)) => {
            warn!(reason, "no retriever answers: the record is used as far as it goes");
            source
        }
        (Err(reason), None) => {
            let reason = format!("the retriever does not say what it serves: {reason}");
            return Err(SearcherError(reason));
        }
    };
    // The answers of a record are those of its source.
    if let Some(identity) = source.facts["identity"].as_str() {
        live.pin_identity(identity);
    }
    if settings.mode == RecordMode::Record && record.sources().contains(&source) {
        let file = settings.file.display();
        warn!(%file, "queries in the record are asked for anew; record.mode = \"fill\" would use their answers");
    }
    Ok(Attached { record, source, mode: settings.mode, on_miss: settings.on_miss })
}

impl From<RecordError> for SearcherError {
    fn from(error: RecordError) -> Self {
        Self(error.to_string())
    }
}
