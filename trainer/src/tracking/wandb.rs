//! Offline runs of Weights & Biases, which `wandb sync` uploads and `wandb leet` shows.
//!
//! A run is a folder with a log of protocol buffers. The log has LevelDB's framing (blocks of 32 KiB, records in
//! fragments) after a header of 7 bytes, but its checksums are plain CRC-32 of zlib, where LevelDB has masked CRC-32C.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use crc::{CRC_32_ISO_HDLC, Crc};
use prost::Message;
use time::OffsetDateTime;

use super::lane::Memory;
use super::{Fault, Outcome, Point, Run, Tracker};

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// The folder in the run's folder.
const FOLDER: &str = "wandb";
/// The mark at the begin of a log: a name, the magic number, and the version.
const FILE_HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];
const BLOCK_BYTES: usize = 32 * 1024;
/// The bytes before a fragment: checksum, length, kind.
const FRAGMENT_HEADER_BYTES: usize = 7;
/// The oldest client that reads the records.
const MIN_CONSUMER: &str = "0.16.0";

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    num: i64,
    #[prost(message, optional, tag = "2")]
    history: Option<History>,
    #[prost(message, optional, tag = "3")]
    summary: Option<Items>,
    #[prost(message, optional, tag = "17")]
    run: Option<RunRecord>,
    #[prost(message, optional, tag = "18")]
    exit: Option<Exit>,
    #[prost(message, optional, tag = "21")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(message, optional, tag = "1")]
    version_info: Option<VersionInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct VersionInfo {
    #[prost(string, tag = "1")]
    producer: String,
    #[prost(string, tag = "2")]
    min_consumer: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunRecord {
    #[prost(string, tag = "1")]
    run_id: String,
    #[prost(string, tag = "3")]
    project: String,
    #[prost(message, optional, tag = "4")]
    config: Option<Items>,
    #[prost(string, tag = "8")]
    display_name: String,
    #[prost(int64, tag = "14")]
    starting_step: i64,
    #[prost(message, optional, tag = "17")]
    start_time: Option<Timestamp>,
    #[prost(bool, tag = "18")]
    resumed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// New values of the configuration or of the summary.
#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    update: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, repeated, tag = "2")]
    nested_key: Vec<String>,
    #[prost(string, tag = "16")]
    value_json: String,
}

#[derive(Clone, PartialEq, Message)]
struct History {
    #[prost(message, repeated, tag = "1")]
    item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    step: Option<HistoryStep>,
}

#[derive(Clone, PartialEq, Message)]
struct HistoryStep {
    #[prost(int64, tag = "1")]
    num: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exit {
    #[prost(int32, tag = "1")]
    exit_code: i32,
}

pub(super) struct OfflineRun {
    log: Log,
    /// The number of the last record.
    last: i64,
    started: SystemTime,
    /// The row of a step, which is written once the next one begins: an evaluation may still add to it.
    open: Option<Row>,
}

struct Row {
    step: u64,
    time: SystemTime,
    /// The position of the last point in it.
    position: u64,
    values: Vec<(String, f64)>,
}

impl OfflineRun {
    /// Creates the folder of this process. A resumed run has the identifier of the first one, and `wandb sync` joins
    /// them in the order of their times.
    pub(super) fn create(run: &Run, resumed_at: Option<u64>) -> Result<Self, Fault> {
        let started = SystemTime::now();
        let begun = OffsetDateTime::from(started);
        let ((year, month, day), (hour, minute, second)) =
            ((begun.year(), u8::from(begun.month()), begun.day()), begun.to_hms());
        let name = format!(
            "offline-run-{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}-{}",
            run.id
        );
        let folder = run.folder.join(FOLDER).join(name);
        let at = |error: std::io::Error| Fault(format!("{}: {error}", folder.display()));
        fs::create_dir_all(folder.join("files")).map_err(at)?;
        let file = File::create(folder.join(format!("run-{}.wandb", run.id))).map_err(at)?;
        let mut this = Self { log: Log::begin(file)?, last: 0, started, open: None };
        let version_info = Some(VersionInfo {
            producer: env!("CARGO_PKG_VERSION").to_owned(),
            min_consumer: MIN_CONSUMER.to_owned(),
        });
        this.append(Record { header: Some(Header { version_info }), ..Record::default() })?;
        let config = run.parameters.iter().map(|(key, value)| Item {
            key: key.clone(),
            value_json: json_text(value),
            ..Item::default()
        });
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start_time =
            Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 };
        let record = RunRecord {
            run_id: run.id.clone(),
            project: run.project.clone(),
            config: Some(Items { update: config.collect() }),
            display_name: run.name.clone(),
            starting_step: resumed_at.map_or(0, |step| step as i64 + 1),
            start_time: Some(start_time),
            resumed: resumed_at.is_some(),
        };
        this.append(Record { run: Some(record), ..Record::default() })?;
        Ok(this)
    }

    /// Writes the open row. Returns the position of its last point.
    fn close_row(&mut self) -> Result<Option<u64>, Fault> {
        let Some(Row { step, time, position, values }) = self.open.take() else { return Ok(None) };
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let runtime = time.duration_since(self.started).unwrap_or_default();
        let own = [
            ("_timestamp".to_owned(), since.as_secs_f64()),
            ("_runtime".to_owned(), runtime.as_secs_f64()),
            ("_step".to_owned(), step as f64),
        ];
        let item = |(key, value): (String, f64)| Item {
            nested_key: vec![key],
            value_json: value.to_string(),
            ..Item::default()
        };
        let item: Vec<Item> = values.into_iter().chain(own).map(item).collect();
        let summary = Some(Items { update: item.clone() });
        self.append(Record { summary, ..Record::default() })?;
        let step = Some(HistoryStep { num: step as i64 });
        self.append(Record { history: Some(History { item, step }), ..Record::default() })?;
        Ok(Some(position))
    }

    fn append(&mut self, record: Record) -> Result<(), Fault> {
        self.last += 1;
        self.log.append(&Record { num: self.last, ..record }.encode_to_vec())
    }
}

/// Returns a text as JSON.
fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Tracker for OfflineRun {
    fn send(&mut self, points: &[Arc<Point>], _memory: &mut Memory) -> Result<Option<u64>, Fault> {
        let mut written = None;
        for point in points {
            if self.open.as_ref().is_some_and(|row| row.step != point.step) {
                written = self.close_row()?;
            }
            let row = self.open.get_or_insert_with(|| Row {
                step: point.step,
                time: point.time,
                position: 0,
                values: Vec::new(),
            });
            row.position = point.position();
            row.values.extend_from_slice(&point.values);
        }
        Ok(written)
    }

    fn end(&mut self, outcome: Outcome, _memory: &mut Memory) -> Result<(), Fault> {
        self.close_row()?;
        let exit_code = i32::from(outcome != Outcome::Finished);
        self.append(Record { exit: Some(Exit { exit_code }), ..Record::default() })?;
        self.log.file.sync_all().map_err(|error| Fault(error.to_string()))
    }
}

/// A log file in blocks.
struct Log {
    file: File,
    /// The bytes of the current block that are written.
    used: usize,
}

impl Log {
    fn begin(mut file: File) -> Result<Self, Fault> {
        file.write_all(&FILE_HEADER).map_err(|error| Fault(error.to_string()))?;
        Ok(Self { file, used: FILE_HEADER.len() })
    }

    /// Appends a record, in fragments that do not cross blocks.
    fn append(&mut self, mut record: &[u8]) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let (mut used, mut is_first) = (self.used, true);
        loop {
            let free = BLOCK_BYTES - used;
            if free < FRAGMENT_HEADER_BYTES {
                bytes.resize(bytes.len() + free, 0);
                used = 0;
                continue;
            }
            let (fragment, rest) = record.split_at(record.len().min(free - FRAGMENT_HEADER_BYTES));
            let kind: u8 = match (is_first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut checksum = CRC32.digest();
            checksum.update(&[kind]);
            checksum.update(fragment);
            bytes.extend_from_slice(&checksum.finalize().to_le_bytes());
            bytes.extend_from_slice(&(fragment.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend_from_slice(fragment);
            used += FRAGMENT_HEADER_BYTES + fragment.len();
            (record, is_first) = (rest, false);
            if record.is_empty() {
                break;
            }
        }
        self.file.write_all(&bytes).map_err(|error| Fault(error.to_string()))?;
        self.used = used;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the records of a log, and checks every checksum.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(bytes[..7], FILE_HEADER);
        let (mut offset, mut record, mut records) = (7, Vec::new(), Vec::new());
        while offset < bytes.len() {
            let free = BLOCK_BYTES - offset % BLOCK_BYTES;
            if free < FRAGMENT_HEADER_BYTES {
                assert!(bytes[offset..offset + free].iter().all(|byte| *byte == 0));
                offset += free;
                continue;
            }
            let header = &bytes[offset..offset + 7];
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let content = &bytes[offset + 6..offset + 7 + length];
            assert_eq!(header[..4], CRC32.checksum(content).to_le_bytes());
            record.extend_from_slice(&content[1..]);
            if [1, 4].contains(&header[6]) {
                records.push(std::mem::take(&mut record));
            }
            offset += 7 + length;
        }
        assert!(record.is_empty());
        records
    }

    #[test]
    fn records_of_all_lengths_come_back_from_their_fragments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::begin(File::create(&path).unwrap()).unwrap();
        // The second one leaves 6 bytes of its block, the third one 7.
        let lengths = [0, BLOCK_BYTES - 7 - 7 - 7 - 6, BLOCK_BYTES - 14, 3 * BLOCK_BYTES, 1];
        let written: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(index, length)| vec![index as u8; *length]).collect();
        for record in &written {
            log.append(record).unwrap();
        }
        assert_eq!(records(&fs::read(path).unwrap()), written);
    }
}
