//! Reports of a build, for a bar, a line or the log.

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Passages are read and analysed.
    Reading {
        /// Bytes of corpus read.
        bytes_read: u64,
        /// Bytes of corpus in all.
        bytes_total: u64,
        /// Passages read.
        passages: u64,
    },
    /// Postings are merged into one segment.
    Merging,
    /// Passages are compressed.
    Compressing,
    /// Passages are turned into vectors.
    Encoding {
        /// Passages that have their vector.
        passages: u64,
        /// Passages in all.
        of: u64,
        /// Passages that an earlier, interrupted build had encoded.
        done_before: u64,
    },
    /// Vectors are converted or linked.
    Rows {
        /// What was done with the rows, to follow their number.
        what: &'static str,
        /// Rows that are done.
        rows: u64,
        /// Rows in all.
        of: u64,
        /// Rows that an earlier, interrupted build had done.
        done_before: u64,
    },
    /// Files are digested and synced.
    Sealing,
}
