//! The speed of reading memory and the amount that a pass reads, which bound the speed of decoding.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use tch::{Device, Kind, Tensor};
use trainer::policy::Policy;

/// The bytes that a measurement reads, more than caches can hold.
const READ_BYTES: usize = 1 << 29;
const REPEATS: usize = 5;

/// Returns how many numbers of the weights a pass reads. The embedding is looked up, not read. The head is read, even
/// if it shares the embedding's weights.
pub(crate) fn numbers_of_a_pass(policy: &Policy) -> usize {
    let looked_up = policy.config.vocab_size * policy.config.hidden_size;
    let looked_up = if policy.config.tied_embeddings { 0 } else { looked_up as usize };
    policy.parameter_count() - looked_up
}

/// Returns the bytes per second at which a device reads its memory, the best of several measurements. `threads`
/// applies to the CPU.
pub(crate) fn bytes_per_second(device: Device, threads: usize) -> f64 {
    if device == Device::Cpu { of_host(threads) } else { of_device(device) }
}

fn of_device(device: Device) -> f64 {
    let numbers = Tensor::ones([(READ_BYTES / 4) as i64], (Kind::Float, device));
    let read = |_| {
        let start = Instant::now();
        // Reading the sum waits for the device.
        black_box(numbers.sum(Kind::Float).double_value(&[]));
        READ_BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..=REPEATS).map(read).fold(0.0, f64::max)
}

/// Returns the bytes per second at which `threads` threads read memory, the best of several measurements.
fn of_host(threads: usize) -> f64 {
    let numbers = vec![1_u64; READ_BYTES / size_of::<u64>()];
    let part = numbers.len().div_ceil(threads.max(1));
    let read = || {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in numbers.chunks(part) {
                // Several sums, so that reading takes longer than adding.
                scope.spawn(move || {
                    let mut sums = [0_u64; 32];
                    for chunk in part.as_chunks::<32>().0 {
                        for (sum, number) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*number);
                        }
                    }
                    black_box(sums)
                });
            }
        });
        READ_BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(|_| read()).fold(0.0, f64::max)
}
