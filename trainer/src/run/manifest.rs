//! `manifest.json`: what a run was made from, by digest.

use std::path::Path;

use serde_json::{Map, Value};
use shared::atomic_file;
use shared::digest::Digest;

use crate::config::Config;

/// Writes the digests of model, tokenizer and questions and the version of the program into the run
/// directory.
pub(super) fn write_manifest(config: &Config) -> anyhow::Result<()> {
    let model = &config.model.path;
    let files = [
        ("model", model.join("model.safetensors")),
        ("tokenizer", model.join("tokenizer.json")),
        ("training questions", config.data.train.clone()),
        ("held-out questions", config.data.test.clone()),
    ];
    let mut facts = Map::new();
    facts.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
    for (name, path) in files.iter().filter(|(_, path)| path.is_file()) {
        facts.insert((*name).to_owned(), Value::from(fact(path)?));
    }
    let text = serde_json::to_vec_pretty(&facts)?;
    Ok(atomic_file::write(&config.run_dir.join("manifest.json"), &text)?)
}

fn fact(path: &Path) -> std::io::Result<String> {
    Ok(format!("{} sha256:{}", path.display(), Digest::of_file(path)?))
}
