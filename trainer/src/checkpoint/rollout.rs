//! Model folders for engines in other processes: in the policy's compute type, and with an explicit output
//! head.

use std::collections::BTreeMap;
use std::path::Path;

use shared::machine::atomic_file::AtomicDir;
use tch::{Kind, Tensor};

use super::{CheckpointError, copy_describing, share_like, write_model_as};
use crate::policy::{ModelPlace, Policy};

/// Name of the input embeddings. Models with tied embeddings use them as the output head.
const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes the weights of `policy`, with adapters merged, to `folder`, with the describing files of `source`. A model
/// with tied embeddings is written as one without. Otherwise an engine with a prepared copy of the head would keep
/// the old head when it reloads only the embeddings.
///
/// # Errors
/// Fails if a file cannot be written. `folder` is then unchanged.
pub fn save_for_rollouts(
    folder: &Path,
    policy: &Policy,
    source: &ModelPlace,
) -> Result<(), CheckpointError> {
    let new = AtomicDir::create(folder)?;
    let mut parameters: BTreeMap<String, Tensor> = policy.merged_parameters();
    let mut config = policy.config.source.clone();
    if policy.config.tied_embeddings {
        parameters.insert(HEAD.to_owned(), parameters[EMBEDDINGS].shallow_clone());
        config["tie_word_embeddings"] = false.into();
    }
    let kind = match policy.compute.kind {
        narrow @ (Kind::BFloat16 | Kind::Half) => narrow,
        _ => Kind::Float,
    };
    write_model_as(new.path(), &parameters, config, kind)?;
    copy_describing(new.path(), source)?;
    share_like(&new.path().join("config.json"), new.path())?;
    Ok(new.commit()?)
}
