//! AdamW over f32 numbers in host memory, on all threads, with one read and one write of each number. On other
//! devices the tensor operations of [`super::AdamW`] compute the same.

use tch::{Device, Kind, Tensor};

use crate::policy::threads;

/// Least number of elements that is worth a thread.
const THREAD_NUMBERS: usize = 1 << 16;

/// The constants of one update, the same for every number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) epsilon: f64,
    /// Factor of the parameter: 1 less the decay.
    pub(super) kept: f64,
    /// Learning rate divided by the bias correction of the first moment.
    pub(super) step_size: f64,
    /// Inverse root of the bias correction of the second moment.
    pub(super) second_scale: f64,
}

/// The tensors of one parameter, all of the same size.
pub(super) struct Numbers<'t> {
    pub(super) parameter: &'t mut Tensor,
    pub(super) gradient: &'t mut Tensor,
    pub(super) first: &'t mut Tensor,
    pub(super) second: &'t mut Tensor,
}

/// Applies `rule`, clears the gradient and returns `true`. Does nothing and returns `false` if a tensor is not a
/// contiguous f32 array in host memory, or if sizes differ.
pub(super) fn step(numbers: Numbers<'_>, rule: &Rule) -> bool {
    let Numbers { parameter, gradient, first, second } = numbers;
    let size = parameter.size();
    let plain = |tensor: &Tensor| {
        tensor.device() == Device::Cpu
            && tensor.kind() == Kind::Float
            && tensor.is_contiguous()
            && tensor.size() == size
    };
    if !(plain(parameter) && plain(gradient) && plain(first) && plain(second)) {
        return false;
    }
    let (parameter, gradient) = (slice(parameter), slice(gradient));
    let (first, second) = (slice(first), slice(second));
    let part = parameter.len().div_ceil(threads()).max(THREAD_NUMBERS);
    let parts = parameter
        .chunks_mut(part)
        .zip(gradient.chunks_mut(part))
        .zip(first.chunks_mut(part).zip(second.chunks_mut(part)));
    std::thread::scope(|scope| {
        let mut rest = parts.peekable();
        while let Some(((parameter, gradient), (first, second))) = rest.next() {
            if rest.peek().is_some() {
                scope.spawn(move || apply(parameter, gradient, first, second, rule));
            } else {
                apply(parameter, gradient, first, second, rule);
            }
        }
    });
    true
}

#[expect(unsafe_code, reason = "tch lends no slices of its tensors")]
fn slice(tensor: &mut Tensor) -> &mut [f32] {
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: the caller has checked that this is a contiguous f32 tensor in host memory. So `data_ptr` points
    // to `numel` numbers, aligned for f32. The slice borrows the tensor and does not outlive its storage. A
    // parameter, its gradient and its moments are separate tensors that share no storage, and nothing else
    // uses them while an update is applied.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

fn apply(
    parameter: &mut [f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    rule: &Rule,
) {
    let (new_first, kept_second) = ((1.0 - rule.beta1) as f32, rule.beta2 as f32);
    let new_second = (1.0 - rule.beta2) as f32;
    let (epsilon, kept) = (rule.epsilon as f32, rule.kept as f32);
    let (step_size, second_scale) = (rule.step_size as f32, rule.second_scale as f32);
    // One loop over all four arrays, because the update is bound by memory: every number is read and written once.
    let moments = first.iter_mut().zip(second);
    for ((parameter, gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments)
    {
        *first += (*gradient - *first) * new_first;
        *second = *second * kept_second + *gradient * *gradient * new_second;
        let denominator = second.sqrt() * second_scale + epsilon;
        *parameter = *parameter * kept - *first / denominator * step_size;
        *gradient = 0.0;
    }
}
