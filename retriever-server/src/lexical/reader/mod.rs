//! Ranks passages by the postings that [`crate::lexical::writer`] wrote. tantivy maps the files
//! into memory. Ranking writes nothing, so a read-only disk is enough.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::index::{InvertedIndexReader, SegmentReader};
use tantivy::postings::BlockSegmentPostings;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{Index, Term};

use super::analyzer;
use super::bm25::{Bm25Parameters, CollectionStatistics, LengthNorms};
use super::bounds::{BoundsFile, TermBounds};
use super::maxscore::{self, Documents, PostingBlocks, ScoredRow, WeightedTerm};
use super::ranges::LengthClasses;
use super::{CONTENTS_FIELD, LexicalError, ROW_FIELD};

/// An open lexical index together with the BM25 constants of its rankings.
pub struct LexicalReader {
    contents: Field,
    postings: Arc<InvertedIndexReader>,
    documents: SegmentDocuments,
    bounds: Option<BoundsFile>,
    passage_count: u32,
    statistics: CollectionStatistics,
    norms: LengthNorms,
}

/// A query could not be ranked.
#[derive(Debug)]
pub enum RankError {
    /// The caller cancelled the query.
    Stopped,
    /// The index could not be read.
    Index(LexicalError),
}

impl std::fmt::Debug for LexicalReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LexicalReader")
            .field("passage_count", &self.passage_count)
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

impl LexicalReader {
    /// Opens the index in `folder`.
    pub fn open(folder: &Path, parameters: Bm25Parameters) -> Result<Self, LexicalError> {
        let index = Index::open_in_dir(folder)?;
        let contents = index.schema().get_field(CONTENTS_FIELD)?;
        let segments = index.searchable_segments()?;
        let [segment] = &segments[..] else {
            let count = segments.len();
            return Err(LexicalError::Malformed(format!("{count} segments, expected 1")));
        };
        // tantivy's own reader would create a lock file in the index folder.
        let segment = SegmentReader::open(segment)?;
        let postings = segment.inverted_index(contents)?;
        let lengths = segment.get_fieldnorms_reader(contents)?;
        let rows = segment.fast_fields().u64(ROW_FIELD)?;
        let passage_count = segment.max_doc();
        let length_ids: Box<[u8]> =
            (0..passage_count).map(|document| lengths.fieldnorm_id(document)).collect();
        let statistics = CollectionStatistics {
            passage_count: length_ids.iter().filter(|&&id| id > 0).count() as u64,
            token_count: postings.total_num_tokens(),
        };
        let bounds = BoundsFile::open(folder, passage_count)?;
        let classes = bounds.as_ref().map(BoundsFile::classes).unwrap_or_default();
        Ok(Self {
            contents,
            postings,
            documents: SegmentDocuments { length_ids, rows, classes },
            bounds,
            passage_count,
            statistics,
            norms: LengthNorms::new(parameters, statistics),
        })
    }

    /// Returns the postings of all terms.
    pub(super) fn postings(&self) -> &InvertedIndexReader {
        &self.postings
    }

    /// Returns the length of each document, encoded in one byte.
    pub(super) fn length_ids(&self) -> &[u8] {
        &self.documents.length_ids
    }

    /// Returns the number of passages in the index, including those without a term.
    pub fn passage_count(&self) -> u32 {
        self.passage_count
    }

    /// Returns the facts about the collection that BM25 uses.
    pub fn statistics(&self) -> CollectionStatistics {
        self.statistics
    }

    /// Returns the best `k` passages for any text, best first. A text without a term matches none.
    /// The search calls `stop` from time to time and cancels itself when it returns `true`.
    pub fn rank(
        &self,
        query: &str,
        k: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<ScoredRow>, RankError> {
        let terms = self.weighted_terms(query).map_err(RankError::Index)?;
        maxscore::best(terms, &self.norms, &self.documents, k, stop)
            .map_err(|maxscore::Stopped| RankError::Stopped)
    }

    /// Returns the query's distinct terms that are in the index, in order of first occurrence.
    fn weighted_terms(
        &self,
        query: &str,
    ) -> Result<Vec<WeightedTerm<'_, TermBlocks>>, LexicalError> {
        let mut order = Vec::new();
        let mut counts: HashMap<String, u32> = HashMap::new();
        for term in analyzer::terms(query) {
            let count = counts.entry(term.clone()).or_insert(0);
            if *count == 0 {
                order.push(term);
            }
            *count += 1;
        }
        let mut weighted = Vec::with_capacity(order.len());
        for term in order {
            let key = Term::from_field_text(self.contents, &term);
            let Some(info) = self.postings.get_term_info(&key)? else { continue };
            let blocks = self
                .postings
                .read_block_postings_from_terminfo(&info, IndexRecordOption::WithFreqs)?;
            let idf = self.statistics.inverse_document_frequency(info.doc_freq);
            let count = counts[&term];
            let bounds = self.bounds.as_ref().map(|bounds| bounds.term(&info));
            let TermBounds { peaks, ranges } = bounds.unwrap_or_default();
            weighted.push(WeightedTerm {
                weight: count as f32 * idf,
                document_frequency: info.doc_freq,
                peaks,
                ranges,
                blocks: TermBlocks(blocks),
            });
        }
        Ok(weighted)
    }
}

/// The lengths and rows of the documents in the one segment.
struct SegmentDocuments {
    /// One byte per document, in this process's memory: every posting looks one up, so the page cache
    /// must not evict them.
    length_ids: Box<[u8]>,
    rows: Column<u64>,
    classes: LengthClasses,
}

impl Documents for SegmentDocuments {
    fn length_ids(&self) -> &[u8] {
        &self.length_ids
    }

    fn row(&self, document: u32) -> u32 {
        self.rows.values.get_val(document) as u32
    }

    fn classes(&self) -> LengthClasses {
        self.classes
    }
}

/// A term's postings in tantivy's blocks. All blocks are full except the last, which may be empty.
#[derive(Clone)]
struct TermBlocks(BlockSegmentPostings);

impl PostingBlocks for TermBlocks {
    #[inline]
    fn documents(&self) -> &[u32] {
        self.0.docs()
    }

    #[inline]
    fn frequencies(&self) -> &[u32] {
        self.0.freqs()
    }

    fn advance(&mut self) {
        self.0.advance();
    }

    fn seek(&mut self, target: u32) -> usize {
        self.0.seek(target)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
