//! `trainer replay`: computes the batch of a failed update again and names the first number that is not finite.

use std::io::Write;
use std::path::Path;

use tch::{Kind, Tensor};

use super::failed_batch::{
    CONFIG_FILE, MODEL_FOLDER, read_critic_batch, read_failure, read_policy_batch,
};
use super::model::LoadedModel;
use super::settings;
use crate::algo::value_loss;
use crate::config::{Config, Environment};
use crate::critic::{Critic, CriticSequence};
use crate::policy::Decoder;
use crate::update::{
    NotFiniteAt, first_in, first_in_gradients, first_in_parameters, first_not_finite,
    largest_gradient,
};

/// Computes the failed update that `folder` keeps again, with its weights, configuration and number format, and writes
/// the first number that is not finite.
///
/// # Errors
/// A folder that keeps no failed update, or is damaged.
pub fn replay(folder: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let failure = read_failure(folder)?;
    let mut config = Config::load(Some(&folder.join(CONFIG_FILE)), &Environment::new(), &[])?;
    config.model.path = folder.join(MODEL_FOLDER);
    let model_settings = settings::model::model(&config);
    let model = LoadedModel::open_for_training(&model_settings, &config.model.path)?;
    writeln!(
        out,
        "step {}, update {} of the {}: the {} was {}",
        failure.step, failure.update, failure.part, failure.what, failure.value
    )?;
    let first = if failure.part == "critic" {
        let (critic, sequences) = read_critic_batch(folder, &model.policy)?;
        in_critic(&critic, &model.decoder, &sequences, config.critic.clip)
    } else {
        let sequences = read_policy_batch(folder)?;
        let update = settings::objective::policy_update(&config);
        first_not_finite(&model.policy, &model.decoder, &sequences, &update)
    };
    match first {
        Some(number) => writeln!(out, "first number that is not finite: {number}")?,
        None => writeln!(
            out,
            "every number is finite this time: the failure depends on the device, on the number of \
             threads or on how the batch was cut"
        )?,
    }
    Ok(())
}

/// Returns the first number of a critic's update that is not finite.
fn in_critic(
    critic: &Critic,
    decoder: &Decoder,
    sequences: &[CriticSequence],
    clip: f64,
) -> Option<NotFiniteAt> {
    if let Some(parameter) = first_in_parameters(&critic.network) {
        let location = format!("of the critic, {}", parameter.location);
        return Some(NotFiniteAt { location, ..parameter });
    }
    let in_sequences = sequences.iter().enumerate().find_map(|(index, sequence)| {
        for (what, values) in [("old value", &sequence.old_values), ("return", &sequence.returns)] {
            if let Some(token) = values.iter().position(|value| !value.is_finite()) {
                let value = f64::from(values[token]);
                let location = format!("the {what} of valued token {token} of trajectory {index}");
                return Some(NotFiniteAt { location, value });
            }
        }
        let packed = [(&sequence.token_ids[..], &sequence.mask[..])];
        let weights = critic.network.weights();
        let valued = critic.values(decoder, &weights, &packed);
        let values = &valued.values;
        if values.numel() == 0 {
            return None;
        }
        let [old, returns] = [&sequence.old_values, &sequence.returns]
            .map(|numbers| Tensor::from_slice(numbers).to_device(values.device()));
        let losses = value_loss(values, &old, &returns, clip).losses;
        for (what, numbers) in [("value", values), ("value loss", &losses)] {
            if let Some((token, value)) = first_in(numbers) {
                let location = format!("the {what} of valued token {token} of trajectory {index}");
                return Some(NotFiniteAt { location, value });
            }
        }
        valued.backward(&losses.mean(Kind::Float));
        first_in_gradients(&critic.network)
    });
    in_sequences.or_else(|| largest_gradient(&critic.network))
}
