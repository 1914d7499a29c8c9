//! Writes the postings of a corpus with tantivy, as one segment: a text field with frequencies and
//! lengths, and a column with each passage's row. The passages themselves are stored elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use tantivy::indexer::NoMergePolicy;
use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, IndexWriter, TantivyDocument};

use super::analyzer::{ANALYZER, EnglishTokenizer};
use super::bm25::Bm25Parameters;
use super::reader::LexicalReader;
use super::{CONTENTS_FIELD, LexicalError, ROW_FIELD, bounds_writer};

/// The memory in which each thread collects postings before it writes them to disk.
const MEMORY_PER_THREAD_BYTES: usize = 64 * 1024 * 1024;
/// The most threads that make tantivy's writer faster.
const MAX_THREADS: usize = 8;

/// A writer that indexes passages into one segment.
pub struct LexicalWriter {
    folder: PathBuf,
    writer: IndexWriter,
    contents: Field,
    row: Field,
}

impl std::fmt::Debug for LexicalWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LexicalWriter")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl LexicalWriter {
    /// Starts an index in an empty, existing folder.
    pub fn create(folder: &Path, threads: usize) -> Result<Self, LexicalError> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(ANALYZER)
            .set_fieldnorms(true)
            .set_index_option(IndexRecordOption::WithFreqs);
        let options = TextOptions::default().set_indexing_options(indexing);
        let contents = schema.add_text_field(CONTENTS_FIELD, options);
        let row = schema.add_u64_field(ROW_FIELD, FAST);
        let index = Index::create_in_dir(folder, schema.build())?;
        index.tokenizers().register(ANALYZER, TextAnalyzer::from(EnglishTokenizer));
        let threads = threads.clamp(1, MAX_THREADS);
        let writer = index.writer_with_num_threads(threads, threads * MEMORY_PER_THREAD_BYTES)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(Self { folder: folder.to_owned(), writer, contents, row })
    }

    /// Indexes the contents of the passage at `row`.
    pub fn add(&mut self, row: u32, contents: &str) -> Result<(), LexicalError> {
        let mut document = TantivyDocument::new();
        document.add_u64(self.row, u64::from(row));
        document.add_text(self.contents, contents);
        self.writer.add_document(document)?;
        Ok(())
    }

    /// Merges everything into one segment, removes the writer's lock files and writes the bounds.
    pub fn finish(mut self) -> Result<(), LexicalError> {
        self.writer.commit()?;
        let segments = self.writer.index().searchable_segment_ids()?;
        if segments.len() > 1 {
            self.writer.merge(&segments).wait()?;
            self.writer.garbage_collect_files().wait()?;
        }
        self.writer.wait_merging_threads()?;
        for lock in [".tantivy-writer.lock", ".tantivy-meta.lock"] {
            match fs::remove_file(self.folder.join(lock)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        // The bounds do not depend on the constants.
        let reader = LexicalReader::open(&self.folder, Bm25Parameters::default())?;
        bounds_writer::write(&self.folder, reader.postings(), reader.length_ids())
    }
}
