//! The policy as engines outside this process load it: in the number format that it computes in,
//! and with the output head written out.

use std::collections::BTreeMap;
use std::path::Path;

use shared::atomic_file::AtomicDir;
use tch::{Kind, Tensor};

use super::{CheckpointError, copy_describing, share_like, write_model_as};
use crate::policy::{ModelPlace, Policy};

/// The input embeddings, and the output head that tied models share with them.
const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes the weights of `policy`, adapters among them, to `folder`, with the describing files of `source`. A model with
/// tied embeddings is written as one without: an engine that keeps a prepared copy of the head would
/// go on with the old one when only the embeddings are loaded anew.
///
/// # Errors
/// The file system's; `folder` is then as it was before.
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
