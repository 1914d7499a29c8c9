//! AdamW over named parameters, with accessible moments for checkpoints.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::fused::{self, Numbers, Rule};

/// Constants of AdamW (arXiv 1711.05101, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

/// The memory that holds the moments, where the update is computed too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentsStorage {
    /// The device of the parameters.
    #[default]
    WithParameters,
    /// Host memory, for parameters on any device (ZeRO-Offload, arXiv 2101.06840). One parameter at a time, its
    /// numbers and its gradient are copied to the host, and the new numbers are copied back.
    Host,
}

/// Moments of every parameter and the number of updates made.
#[derive(Debug)]
pub struct AdamW {
    pub config: AdamWConfig,
    /// Updates made so far.
    pub updates: u64,
    /// First moments by parameter name, f32.
    pub first: BTreeMap<String, Tensor>,
    /// Second moments by parameter name, f32.
    pub second: BTreeMap<String, Tensor>,
}

impl AdamW {
    pub fn new(
        parameters: &BTreeMap<String, Tensor>,
        config: AdamWConfig,
        storage: MomentsStorage,
    ) -> Self {
        let zeros = || {
            let zero = |tensor: &Tensor| {
                let device = match storage {
                    MomentsStorage::WithParameters => tensor.device(),
                    MomentsStorage::Host => Device::Cpu,
                };
                Tensor::zeros(tensor.size(), (tensor.kind(), device))
            };
            parameters.iter().map(|(name, tensor)| (name.clone(), zero(tensor))).collect()
        };
        Self { config, updates: 0, first: zeros(), second: zeros() }
    }

    /// Updates every parameter that has a gradient, then clears the gradients.
    pub fn step(&mut self, parameters: &mut BTreeMap<String, Tensor>, learning_rate: f64) {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        self.updates += 1;
        let exponent = i32::try_from(self.updates).unwrap_or(i32::MAX);
        let rule = Rule {
            beta1,
            beta2,
            epsilon,
            kept: 1.0 - learning_rate * weight_decay,
            step_size: learning_rate / (1.0 - beta1.powi(exponent)),
            second_scale: 1.0 / (1.0 - beta2.powi(exponent)).sqrt(),
        };
        tch::no_grad(|| {
            for (name, parameter) in parameters {
                let mut gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                let [first, second] = [&mut self.first, &mut self.second].map(|moments| {
                    moments.get_mut(name).expect("`new` made moments for every parameter")
                });
                if first.device() == parameter.device() {
                    step_in_place(parameter, &mut gradient, first, second, &rule);
                } else {
                    step_on_host(parameter, &mut gradient, first, second, &rule);
                }
            }
        });
    }
}

/// Updates a parameter whose four tensors are on one device.
fn step_in_place(
    parameter: &mut Tensor,
    gradient: &mut Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    rule: &Rule,
) {
    if !fused::step(Numbers { parameter, gradient, first, second }, rule) {
        step_by_tensors(parameter, gradient, first, second, rule);
    }
}

/// Updates a parameter on another device, with moments in host memory.
fn step_on_host(
    parameter: &mut Tensor,
    gradient: &mut Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    rule: &Rule,
) {
    let on_host = |tensor: &Tensor| tensor.to_device_(Device::Cpu, tensor.kind(), false, true);
    let (mut host_parameter, mut host_gradient) = (on_host(parameter), on_host(gradient));
    step_in_place(&mut host_parameter, &mut host_gradient, first, second, rule);
    parameter.copy_(&host_parameter);
    let _ = gradient.zero_();
}

/// Does the same as [`fused::step`] with tensor operations, on any device.
fn step_by_tensors(
    parameter: &mut Tensor,
    gradient: &mut Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
    rule: &Rule,
) {
    let _ = first.lerp_(gradient, 1.0 - rule.beta1);
    let _ = second.g_mul_scalar_(rule.beta2);
    let squared = gradient.square() * (1.0 - rule.beta2);
    let _ = second.g_add_(&squared);
    let mut denominator = second.sqrt();
    let _ = denominator.g_mul_scalar_(rule.second_scale).g_add_scalar_(rule.epsilon);
    let change = first.g_div(&denominator) * rule.step_size;
    let _ = parameter.g_mul_scalar_(rule.kept);
    let _ = parameter.g_sub_(&change);
    let _ = gradient.zero_();
}

/// Scales all gradients down to a joint L2 norm of at most `max_norm` and returns the norm before. A norm that is
/// not finite scales nothing.
pub fn clip_gradients(parameters: &BTreeMap<String, Tensor>, max_norm: f64) -> f64 {
    tch::no_grad(|| {
        let gradients: Vec<Tensor> =
            parameters.values().map(Tensor::grad).filter(Tensor::defined).collect();
        if gradients.is_empty() {
            return 0.0;
        }
        let squares: Vec<Tensor> =
            gradients.iter().map(|gradient| gradient.norm().square()).collect();
        let norm = Tensor::stack(&squares, 0).sum(Kind::Float).sqrt().double_value(&[]);
        if norm.is_finite() && norm > max_norm {
            for mut gradient in gradients {
                let _ = gradient.g_mul_scalar_(max_norm / (norm + 1e-6));
            }
        }
        norm
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const RULE: Rule = Rule {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        kept: 0.999,
        step_size: 0.01,
        second_scale: 1.7,
    };

    fn one_parameter(value: f32) -> BTreeMap<String, Tensor> {
        let leaf = Tensor::from_slice(&[value]).set_requires_grad(true);
        BTreeMap::from([("weight".to_owned(), leaf)])
    }

    /// Repeats two steps of the published algorithm on f(w) = w² by hand.
    #[test]
    fn follows_the_published_algorithm() {
        let config = AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 };
        let mut parameters = one_parameter(3.0);
        let mut optimizer = AdamW::new(&parameters, config, MomentsStorage::WithParameters);
        let (mut weight, mut first, mut second) = (3.0_f64, 0.0, 0.0);
        for update in 1..=2 {
            parameters["weight"].square().sum(Kind::Float).backward();
            optimizer.step(&mut parameters, 0.5);
            let gradient = 2.0 * weight;
            first = 0.9 * first + 0.1 * gradient;
            second = 0.999 * second + 0.001 * gradient * gradient;
            let unbiased_first = first / (1.0 - 0.9_f64.powi(update));
            let unbiased_second = second / (1.0 - 0.999_f64.powi(update));
            weight -= 0.5 * 0.1 * weight;
            weight -= 0.5 * unbiased_first / (unbiased_second.sqrt() + 1e-8);
        }
        let stepped = parameters["weight"].double_value(&[0]);
        assert!((stepped - weight).abs() < 1e-5, "{stepped} {weight}");
    }

    /// Compares with the tensor operations over several updates, with more numbers than one thread takes.
    #[test]
    fn all_threads_do_what_the_tensor_operations_do() {
        let wave = |scale: f64| {
            (Tensor::arange(300_013, (Kind::Float, Device::Cpu)) * scale).sin().view([-1, 7])
        };
        let make = || [wave(0.1), wave(0.7), wave(0.3) * 0.1, wave(1.9).square()];
        let (mut fast, mut plain) = (make(), make());
        for update in 0..3 {
            for tensors in [&mut fast, &mut plain] {
                tensors[1].copy_(&wave(0.7 + f64::from(update)));
            }
            let [parameter, gradient, first, second] = &mut fast;
            assert!(fused::step(Numbers { parameter, gradient, first, second }, &RULE));
            let [parameter, gradient, first, second] = &mut plain;
            step_by_tensors(parameter, gradient, first, second, &RULE);
        }
        for (fast, plain) in fast.iter().zip(&plain) {
            assert!(fast.allclose(plain, 1e-5, 1e-6, false));
        }
        assert!(fast[1].abs().max().double_value(&[]).abs() < f64::EPSILON);
        assert!((&fast[0] - wave(0.1)).abs().mean(Kind::Float).double_value(&[]) > 1e-3);
        let mut transposed = wave(0.1).tr();
        let [_, gradient, first, second] = &mut plain;
        let numbers = Numbers { parameter: &mut transposed, gradient, first, second };
        assert!(!fused::step(numbers, &RULE), "rows are not contiguous");
    }

    /// Covers contiguous rows, which the fused kernel takes, and columns, which it does not.
    #[test]
    fn a_step_on_the_host_changes_no_bit() {
        for transposed in [false, true] {
            let wave = |scale: f64| {
                let all = Tensor::arange(210, (Kind::Float, Device::Cpu)) * scale;
                let rows = all.sin().view([30, 7]);
                if transposed { rows.tr() } else { rows }
            };
            let make = || [wave(0.1), wave(0.7), wave(0.3) * 0.1, wave(1.9).square()];
            let (mut moved, mut plain) = (make(), make());
            let [parameter, gradient, first, second] = &mut moved;
            step_on_host(parameter, gradient, first, second, &RULE);
            let [parameter, gradient, first, second] = &mut plain;
            step_in_place(parameter, gradient, first, second, &RULE);
            for (moved, plain) in moved.iter().zip(&plain) {
                assert!(moved.equal(plain), "transposed: {transposed}");
            }
            assert!(!moved[0].equal(&wave(0.1)), "nothing moved");
        }
    }

    #[test]
    fn clipping_keeps_the_direction_and_bounds_the_norm() {
        let parameters = one_parameter(2.0);
        (&parameters["weight"] * 10.0).sum(Kind::Float).backward();
        assert!((clip_gradients(&parameters, 1.0) - 10.0).abs() < 1e-5);
        assert!((parameters["weight"].grad().double_value(&[0]) - 1.0).abs() < 1e-5);
        assert!((clip_gradients(&parameters, 5.0) - 1.0).abs() < 1e-5);
    }
}
