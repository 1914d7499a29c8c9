//! `manifest.json`: the digests of what a run was made from.

use std::path::Path;

use serde_json::{Map, Value};
use shared::contract::digest::Digest;
use shared::machine::atomic_file;

use crate::policy::{ADAPTER_FILE, ModelPlace, weight_files};

/// Writes the digests of model, tokenizer and questions, and the version of the program, into the run directory.
pub(super) fn write_manifest(
    run_dir: &Path,
    place: &ModelPlace,
    questions: [(&str, &Path); 2],
) -> anyhow::Result<()> {
    let tokenizer = "tokenizer.json";
    let mut files = vec![("tokenizer".to_owned(), place.folder_with(tokenizer).join(tokenizer))];
    files.extend(questions.map(|(name, path)| (name.to_owned(), path.to_owned())));
    if let Some(adapters) = &place.adapters {
        files.push(("adapters".to_owned(), adapters.folder.join(ADAPTER_FILE)));
    }
    let weights = weight_files(&place.base)?;
    let count = weights.len();
    files.extend(weights.into_iter().enumerate().map(|(index, path)| {
        let name =
            if count == 1 { "model".to_owned() } else { format!("model, file {}", index + 1) };
        (name, path)
    }));
    let mut facts = Map::new();
    facts.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
    for (name, path) in files.iter().filter(|(_, path)| path.is_file()) {
        facts.insert(name.clone(), Value::from(fact(path)?));
    }
    let text = serde_json::to_vec_pretty(&facts)?;
    Ok(atomic_file::write(&run_dir.join("manifest.json"), &text)?)
}

fn fact(path: &Path) -> std::io::Result<String> {
    Ok(format!("{} sha256:{}", path.display(), Digest::of_file(path)?))
}
