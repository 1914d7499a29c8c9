//! The way from a path to text: opens a file, takes off gzip or zstd, and skips a byte order mark.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::GzDecoder;

use super::fault::{RowFault, RowsError};
use super::kind::{self, Container};
use crate::contract::digest::{Digest, DigestReader};

/// The size of the buffers, of which the first one decides the kind of the file.
const BUFFER_BYTES: usize = 1 << 18;

/// The largest window of a zstd frame, as a power of two: that of `zstd --ultra --long=31`.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The content of a file.
#[derive(Debug)]
pub(super) enum Content {
    /// Text, decompressed.
    Text(TextReader),
    /// A parquet file.
    Parquet(File),
}

/// A reader of decompressed text.
pub struct TextReader {
    reader: Box<dyn BufRead + Send>,
}

impl fmt::Debug for TextReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TextReader").finish_non_exhaustive()
    }
}

impl TextReader {
    /// Returns the bytes in the buffer, which the next read returns again.
    pub(super) fn head(&mut self, path: &Path) -> Result<&[u8], RowsError> {
        self.reader.fill_buf().map_err(|error| RowsError::io(path, error))
    }
}

impl Read for TextReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for TextReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

/// Counts the bytes that are read from a file and computes their digest.
#[derive(Debug)]
pub(super) struct Meter {
    state: Arc<Mutex<MeterState>>,
}

#[derive(Debug)]
struct MeterState {
    file: DigestReader<File>,
    bytes: u64,
}

/// The file behind a meter. Only one reader uses it, so the lock is always free.
struct Metered(Arc<Mutex<MeterState>>);

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.file.read(buffer)?;
        state.bytes += count as u64;
        Ok(count)
    }
}

impl Meter {
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Reads the rest of the file and returns the digest of all of it. The readers must be gone.
    pub(super) fn finish(self) -> io::Result<Digest> {
        io::copy(&mut Metered(self.state.clone()), &mut io::sink())?;
        let state =
            Arc::into_inner(self.state).ok_or_else(|| io::Error::other("is still being read"))?;
        Ok(state.into_inner().unwrap_or_else(PoisonError::into_inner).file.digest())
    }
}

/// Opens a file and takes off its compression. What is neither text nor parquet is named in the error.
pub(super) fn open(path: &Path) -> Result<(Content, Meter), RowsError> {
    let io = |error| RowsError::io(path, error);
    let file = File::open(path).map_err(io)?;
    let state = Arc::new(Mutex::new(MeterState { file: DigestReader::new(file), bytes: 0 }));
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, Metered(state.clone()));
    let container = kind::container(raw.fill_buf().map_err(io)?);
    let mut text: Box<dyn BufRead + Send> = match container {
        Container::Parquet => {
            // Columns are read by position, so they get a file of their own.
            let file = File::open(path).map_err(io)?;
            return Ok((Content::Parquet(file), Meter { state }));
        }
        Container::Plain => Box::new(raw),
        Container::Gzip => unpacked("gzip", Members { decoder: Some(GzDecoder::new(raw)) }),
        Container::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(io)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(io)?;
            unpacked("zstd", decoder)
        }
    };
    let head = text.fill_buf().map_err(io)?;
    let not_rows = |name: String| RowsError::file(path, RowFault::NotRows(name));
    if container != Container::Plain {
        match kind::container(head) {
            Container::Plain => {}
            inner => return Err(not_rows(format!("{} within {}", inner.name(), container.name()))),
        }
    }
    if let Some(name) = kind::binary(head) {
        return Err(not_rows(match container {
            Container::Plain => name.to_owned(),
            _ => format!("{name} within {}", container.name()),
        }));
    }
    if head.starts_with(BYTE_ORDER_MARK) {
        text.consume(BYTE_ORDER_MARK.len());
    }
    Ok((Content::Text(TextReader { reader: text }), Meter { state }))
}

/// The members of a gzip file, one behind the other. Zeros behind a member are skipped, as gzip and Python do: tapes
/// and block devices fill up files with them.
struct Members<R> {
    /// `None` at the end.
    decoder: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let rest = self.decoder.take().map(GzDecoder::into_inner);
            self.decoder = rest.map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// Returns the decoder of the member behind zeros, if there is one.
fn next_member<R: BufRead>(mut rest: R) -> io::Result<Option<GzDecoder<R>>> {
    loop {
        let bytes = rest.fill_buf()?;
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        if bytes.is_empty() {
            return Ok(None);
        }
        let is_member = zeros < bytes.len();
        rest.consume(zeros);
        if is_member {
            return Ok(Some(GzDecoder::new(rest)));
        }
    }
}

/// Wraps a decompressor, so that its errors name the format.
fn unpacked(format: &'static str, decoder: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, Unpacked { format, decoder }))
}

struct Unpacked<R> {
    format: &'static str,
    decoder: R,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::UnexpectedEof => "it ends in the middle".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("the {} data is damaged: {reason}", self.format))
        })
    }
}
