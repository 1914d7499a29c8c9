//! How fast memory is read, and how much of it a pass reads: what decoding is bound by.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use tch::{Device, Kind, Tensor};
use trainer::policy::Policy;

/// Bytes that the reading of memory is measured on: more than caches hold.
const READ_BYTES: usize = 1 << 29;
const REPEATS: usize = 5;

/// Numbers of the weights that a pass over any tokens reads. The embedding is looked up, not read; the
/// head is read whether or not it is the same.
pub(crate) fn numbers_of_a_pass(policy: &Policy) -> usize {
    let looked_up = policy.config.vocab_size * policy.config.hidden_size;
    let looked_up = if policy.config.tied_embeddings { 0 } else { looked_up as usize };
    policy.parameter_count() - looked_up
}

/// Bytes a second at which a device reads its memory, the best of several; on the CPU by `threads` threads.
pub(crate) fn bytes_per_second(device: Device, threads: usize) -> f64 {
    if device == Device::Cpu { of_host(threads) } else { of_device(device) }
}

fn of_device(device: Device) -> f64 {
    let numbers = Tensor::ones([(READ_BYTES / 4) as i64], (Kind::Float, device));
    let read = |_| {
        let start = Instant::now();
        // Asking for the sum waits for it.
        black_box(numbers.sum(Kind::Float).double_value(&[]));
        READ_BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..=REPEATS).map(read).fold(0.0, f64::max)
}

/// Bytes a second at which `threads` threads read memory, the best of several.
fn of_host(threads: usize) -> f64 {
    let numbers = vec![1_u64; READ_BYTES / size_of::<u64>()];
    let part = numbers.len().div_ceil(threads.max(1));
    let read = || {
        let start = Instant::now();
        thread::scope(|scope| {
            for part in numbers.chunks(part) {
                // Several sums, so that reading and not adding is what takes the time.
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
