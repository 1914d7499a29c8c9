//! Tied embeddings beside a head of their own. A file may hold `lm_head.weight` although its `config.json` says that
//! the head is the embedding. transformers then computes with the head of the file if its values differ.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::checkpoint_files::weight_files;
use super::headers::{StoredTensor, read_header};

const HEAD: &str = "lm_head.weight";
/// Names of the embedding, with and without the prefix of the model.
const EMBEDDINGS: [&str; 2] = ["model.embed_tokens.weight", "embed_tokens.weight"];
const CHUNK_BYTES: u64 = 1 << 20;

/// Returns `true` if the weights of `folder` hold a head whose values are not those of the embedding. Files that
/// cannot be read have none here; the reader of the weights reports them.
pub(super) fn differs(folder: &Path) -> bool {
    let Ok(files) = weight_files(folder) else { return false };
    let (mut head, mut embedding) = (None, None);
    for path in files {
        let Ok(mut tensors) = read_header(&path) else { continue };
        if let Some(tensor) = tensors.remove(HEAD) {
            head = Some((path.clone(), tensor));
        }
        let named = EMBEDDINGS.into_iter().find_map(|name| tensors.remove(name));
        if let Some(tensor) = named {
            embedding = Some((path, tensor));
        }
    }
    match (head, embedding) {
        (Some(head), Some(embedding)) => !same_bytes(&head, &embedding).unwrap_or(false),
        _ => false,
    }
}

/// Compares two tensors without holding either in memory.
fn same_bytes(
    left: &(PathBuf, StoredTensor),
    right: &(PathBuf, StoredTensor),
) -> std::io::Result<bool> {
    if left.1.dtype != right.1.dtype || left.1.shape != right.1.shape {
        return Ok(false);
    }
    let open = |(path, tensor): &(PathBuf, StoredTensor)| {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(tensor.start))?;
        Ok::<_, std::io::Error>(file)
    };
    let (mut left_file, mut right_file) = (open(left)?, open(right)?);
    let (mut left_bytes, mut right_bytes) = (Vec::new(), Vec::new());
    let mut remaining = left.1.data_offsets.1 - left.1.data_offsets.0;
    while remaining > 0 {
        let length = remaining.min(CHUNK_BYTES);
        for (file, bytes) in
            [(&mut left_file, &mut left_bytes), (&mut right_file, &mut right_bytes)]
        {
            bytes.clear();
            file.by_ref().take(length).read_to_end(bytes)?;
        }
        if left_bytes != right_bytes || left_bytes.len() as u64 != length {
            return Ok(false);
        }
        remaining -= length;
    }
    Ok(true)
}
