//! `trainer replay`: computes the batch of a failed update again and says where the first number arises
//! that is not finite.

use std::io::Write;
use std::path::Path;

use tch::{Kind, Tensor};

use super::failed_batch::{
    CONFIG_FILE, MODEL_FOLDER, read_critic_batch, read_failure, read_policy_batch,
};
use super::loaded_model::LoadedModel;
use super::training::policy_update_config;
use crate::algo::value_loss;
use crate::config::{Config, Environment};
use crate::critic::{Critic, CriticSequence};
use crate::policy::Decoder;
use crate::update::{
    NotFiniteAt, first_in, first_in_gradients, first_in_parameters, first_not_finite,
    largest_gradient,
};

/// Computes the failed update that `folder` keeps, with the weights, the configuration and the number
/// format of then, and writes what is found.
///
/// # Errors
/// A folder that is none of a failed update, or damaged.
pub fn replay(folder: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let failure = read_failure(folder)?;
    let mut config = Config::load(Some(&folder.join(CONFIG_FILE)), &Environment::new(), &[])?;
    config.model.path = folder.join(MODEL_FOLDER);
    let loaded = LoadedModel::open_for_training(&config)?;
    writeln!(
        out,
        "step {}, update {} of the {}: the {} was {}",
        failure.step, failure.update, failure.part, failure.what, failure.value
    )?;
    let found = if failure.part == "critic" {
        let (critic, sequences) = read_critic_batch(folder, &loaded.policy)?;
        in_critic(&critic, &loaded.decoder, &sequences, config.critic.clip)
    } else {
        let sequences = read_policy_batch(folder)?;
        let update = policy_update_config(&config);
        first_not_finite(&loaded.policy, &loaded.decoder, &sequences, &update)
    };
    match found {
        Some(found) => writeln!(out, "first number that is not finite: {found}")?,
        None => writeln!(
            out,
            "every number is finite this time: the failure depends on the device, on the number of \
             threads or on how the batch was cut"
        )?,
    }
    Ok(())
}

/// The first number of a critic's update that is not finite.
fn in_critic(
    critic: &Critic,
    decoder: &Decoder,
    sequences: &[CriticSequence],
    clip: f64,
) -> Option<NotFiniteAt> {
    if let Some(found) = first_in_parameters(&critic.model) {
        return Some(NotFiniteAt { place: format!("of the critic, {}", found.place), ..found });
    }
    let found = sequences.iter().enumerate().find_map(|(index, sequence)| {
        for (what, values) in [("old value", &sequence.old_values), ("return", &sequence.returns)] {
            if let Some(place) = values.iter().position(|value| !value.is_finite()) {
                let value = f64::from(values[place]);
                let place = format!("the {what} of valued token {place} of trajectory {index}");
                return Some(NotFiniteAt { place, value });
            }
        }
        let packed = [(&sequence.token_ids[..], &sequence.mask[..])];
        let weights = critic.model.weights();
        let valued = critic.values(decoder, &weights, &packed);
        let values = &valued.values;
        if values.numel() == 0 {
            return None;
        }
        let [old, returns] = [&sequence.old_values, &sequence.returns]
            .map(|numbers| Tensor::from_slice(numbers).to_device(values.device()));
        let losses = value_loss(values, &old, &returns, clip).losses;
        for (what, numbers) in [("value", values), ("value loss", &losses)] {
            if let Some((place, value)) = first_in(numbers) {
                let place = format!("the {what} of valued token {place} of trajectory {index}");
                return Some(NotFiniteAt { place, value });
            }
        }
        valued.backward(&losses.mean(Kind::Float));
        first_in_gradients(&critic.model)
    });
    found.or_else(|| largest_gradient(&critic.model))
}
