//! Event files of TensorBoard: records of the protocol buffer `Event` in TensorFlow's framing, a length and a payload
//! that each have a masked CRC-32C.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use super::lane::Memory;
use super::point::unix_ms;
use super::{Fault, Outcome, Point, Run, Tracker};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// The folder in the run's folder.
const FOLDER: &str = "tensorboard";
/// The version of the format. From 2 on, a start of a session takes back the points after its step.
const VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: the start of a session.
    #[prost(int32, tag = "1")]
    status: i32,
}

const SESSION_START: i32 = 1;

pub(super) struct EventFile {
    file: File,
}

impl EventFile {
    /// Creates the event file of this process; a resumed run continues after a step. TensorBoard reads the files of a
    /// folder in the order of their names, so the name begins with the time.
    pub(super) fn create(run: &Run, resumed_at: Option<u64>) -> Result<Self, Fault> {
        let folder = run.folder.join(FOLDER);
        let at = |error: std::io::Error| Fault(format!("{}: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(at)?;
        let (now, process) = (unix_ms(SystemTime::now()), std::process::id());
        let name = format!("events.out.tfevents.{}.trainer.{process}.{}", now / 1000, now % 1000);
        let mut file = Self { file: File::create(folder.join(name)).map_err(at)? };
        let first = Event { file_version: Some(VERSION.to_owned()), ..Event::now(0) };
        file.append(&[first])?;
        if let Some(step) = resumed_at {
            // Takes back what an earlier process wrote of later steps.
            let session_log = Some(SessionLog { status: SESSION_START });
            file.append(&[Event { session_log, ..Event::now(step + 1) }])?;
        }
        Ok(file)
    }

    fn append(&mut self, events: &[Event]) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        for event in events {
            let payload = event.encode_to_vec();
            let length = (payload.len() as u64).to_le_bytes();
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&masked(&length).to_le_bytes());
            bytes.extend_from_slice(&payload);
            bytes.extend_from_slice(&masked(&payload).to_le_bytes());
        }
        self.file.write_all(&bytes).map_err(|error| Fault(error.to_string()))
    }
}

impl Event {
    fn now(step: u64) -> Self {
        let wall_time = unix_ms(SystemTime::now()) as f64 / 1000.0;
        Self { wall_time, step: step as i64, ..Self::default() }
    }
}

/// Returns the checksum of `bytes` as the framing stores it: rotated, and moved by a constant.
fn masked(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

impl Tracker for EventFile {
    fn send(&mut self, points: &[Arc<Point>], _memory: &mut Memory) -> Result<Option<u64>, Fault> {
        let event = |point: &Arc<Point>| {
            let value = point.values.iter().map(|(tag, value)| SummaryValue {
                tag: tag.clone(),
                simple_value: Some(*value as f32),
            });
            Event {
                wall_time: point.unix_ms() as f64 / 1000.0,
                step: point.step as i64,
                summary: Some(Summary { value: value.collect() }),
                ..Event::default()
            }
        };
        let events: Vec<Event> = points.iter().map(event).collect();
        self.append(&events)?;
        Ok(points.last().map(|point| point.position()))
    }

    fn end(&mut self, _outcome: Outcome, _memory: &mut Memory) -> Result<(), Fault> {
        self.file.sync_all().map_err(|error| Fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
    #[test]
    fn the_checksum_is_that_of_the_standard_masked() {
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
