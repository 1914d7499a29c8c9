//! Reports of a build's progress, for a bar, a line or the log.

/// A report of a build's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Passages are read and analysed.
    Reading {
        /// The number of bytes read.
        bytes_read: u64,
        /// The size of the corpus in bytes.
        bytes_total: u64,
        /// The number of passages read.
        passages: u64,
    },
    /// Postings are merged into one segment.
    Merging,
    /// Passages are compressed.
    Compressing,
    /// Passages are turned into vectors.
    Encoding {
        /// The number of passages with a vector.
        passages: u64,
        /// The number of all passages.
        total: u64,
        /// The number of passages that an earlier, interrupted build had encoded.
        done_before: u64,
    },
    /// Vectors are converted or linked.
    Rows {
        /// The kind of work as a participle, to print after the number of rows.
        action: &'static str,
        /// The number of finished rows.
        rows: u64,
        /// The number of all rows.
        total: u64,
        /// The number of rows that an earlier, interrupted build had finished.
        done_before: u64,
    },
    /// Files are digested and synced.
    Sealing,
    /// An engine makes what it has stored searchable.
    Settling,
}
