//! Encoders of small models: those whose vectors other programs recorded, and graphs written here
//! (`graph_file`), whose vectors are known.

mod sentence_transformers;
mod graph_file;
mod graphs;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::*;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn options() -> EncoderOptions {
    let library = in_repository(".cache/onnxruntime/lib");
    assert!(library.is_dir(), "{} is missing: run make setup first", library.display());
    EncoderOptions {
        device: Device::Cpu,
        threads: NonZeroUsize::new(1),
        library: Some(library),
        ..EncoderOptions::default()
    }
}

fn open(folder: &Path) -> Encoder {
    Encoder::open(folder, &options()).unwrap()
}

fn refusal(folder: &Path) -> String {
    Encoder::open(folder, &options()).unwrap_err().to_string()
}

fn encode(encoder: &Encoder, texts: &[&str], role: Role) -> Vec<Vec<f32>> {
    let vectors = encoder.encode(texts, role, &|| false).unwrap();
    assert_eq!(vectors.len(), texts.len() * encoder.dimension());
    vectors.chunks(encoder.dimension()).map(<[f32]>::to_vec).collect()
}

/// Returns the greatest difference of a number.
fn difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let differences = left.iter().zip(right).map(|(left, right)| (left - right).abs());
    differences.fold(0.0, |greatest, difference| {
        // A comparison with NaN must not count as equal.
        if difference <= greatest { greatest } else { difference }
    })
}
