//! Element-wise loops, written once in plain Rust and compiled for each width of vectors.
//!
//! The compiler turns them into vectors of the enabled instructions. None of the loops permits it to change
//! the order of a sum or to fuse a product with a sum, so all levels compute the same numbers.

#![expect(unsafe_code, reason = "instructions chosen at run time")]

use super::{EngagedThread, Level, Number, PANEL};

/// Defines a function whose body is compiled for each width of vectors; an [`EngagedThread`] selects one.
macro_rules! compiled_for_each_level {
    (
        $(#[$doc:meta])*
        $name:ident $(<$number:ident>)? ($($argument:ident: $type:ty),+ $(,)?) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$doc])*
        pub(in crate::engine::native) fn $name $(<$number: Number>)? (
            engaged: &EngagedThread,
            $($argument: $type),+
        ) $(-> $result)? {
            #[inline(always)]
            fn plain $(<$number: Number>)? ($($argument: $type),+) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
            fn wide $(<$number: Number>)? ($($argument: $type),+) $(-> $result)? {
                plain($($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn medium $(<$number: Number>)? ($($argument: $type),+) $(-> $result)? {
                plain($($argument),+)
            }

            match engaged.level {
                #[cfg(target_arch = "x86_64")]
                Level::Amx | Level::Avx512Bf16 | Level::Avx512 => {
                    // SAFETY: the level proves the instructions.
                    unsafe { wide($($argument),+) }
                }
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => {
                    // SAFETY: the level proves the instructions.
                    unsafe { medium($($argument),+) }
                }
                Level::Portable => plain($($argument),+),
            }
        }
    };
}

/// Returns `e^x` for `x` up to 88, to 2 units in the last place, and 0 below -87 (J.-M. Muller, "Elementary
/// Functions", 2016, section 6.2: reduction by multiples of ln 2, then a polynomial).
#[inline(always)]
pub(in crate::engine::native) fn exponential(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves no fraction, which rounds to the nearest integer.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let multiple = shifted - ROUNDER;
    let rest = clamped - multiple * LN_2_HIGH - multiple * LN_2_LOW;
    // The minimax polynomial of Cephes' expf on [-ln 2 / 2, ln 2 / 2].
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + coefficient;
    }
    let value = sum * (rest * rest) + rest + 1.0;
    // The integer is in the lowest bits of the shifted number; it becomes the exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { value * power }
}

/// Returns the sum of a panel's numbers, always added in the same order.
#[inline(always)]
fn sum_of_panel(numbers: &[f32; PANEL]) -> f32 {
    let mut sums = *numbers;
    let mut width = PANEL / 2;
    while width > 0 {
        for index in 0..width {
            sums[index] += sums[index + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Returns the largest of a panel's numbers.
#[inline(always)]
fn largest_of_panel(numbers: &[f32; PANEL]) -> f32 {
    let mut best = *numbers;
    let mut width = PANEL / 2;
    while width > 0 {
        for index in 0..width {
            let other = best[index + width];
            best[index] = if other > best[index] { other } else { best[index] };
        }
        width /= 2;
    }
    best[0]
}

compiled_for_each_level! {
    /// Writes a row's panel of the residual stream times the next norm's weights; returns the sum of the
    /// panel's squares.
    begin_norm<T>(
        residual: &[f32; PANEL],
        weights: &[f32; PANEL],
        normed: &mut [T; PANEL],
    ) -> f32 {
        let mut squares = [0.0; PANEL];
        for index in 0..PANEL {
            normed[index] = T::round(residual[index] * weights[index]);
            squares[index] = residual[index] * residual[index];
        }
        sum_of_panel(&squares)
    }
}

compiled_for_each_level! {
    /// Adds a panel of products to a row's residual stream, each times its column's scale plus its
    /// column's bias.
    add_to_residual(
        residual: &mut [f32; PANEL],
        sums: &[f32; PANEL],
        scales: &[f32; PANEL],
        biases: &[f32; PANEL],
    ) {
        for index in 0..PANEL {
            residual[index] += sums[index] * scales[index] + biases[index];
        }
    }
}

compiled_for_each_level! {
    /// Computes the gated unit of a row's panel, `silu(gate) * up`. Gate and up are products times the row's
    /// `scale` and their column's scale, plus their column's bias.
    gate<T>(
        sums: [&[f32; PANEL]; 2],
        scale: f32,
        scales: [&[f32; PANEL]; 2],
        biases: [&[f32; PANEL]; 2],
        gated: &mut [T; PANEL]
    ) {
        for index in 0..PANEL {
            let gate = sums[0][index] * (scale * scales[0][index]) + biases[0][index];
            let up = sums[1][index] * (scale * scales[1][index]) + biases[1][index];
            // Above 80 the logistic function is 1 to the last bit.
            let negated = if gate < -80.0 { 80.0 } else { -gate };
            gated[index] = T::round(gate / (1.0 + exponential(negated)) * up);
        }
    }
}

compiled_for_each_level! {
    /// Computes `numbers * scale * scales + biases` in place.
    scale_and_shift(numbers: &mut [f32], scale: f32, scales: &[f32], biases: &[f32]) {
        for ((number, column_scale), bias) in numbers.iter_mut().zip(scales).zip(biases) {
            *number = *number * (scale * *column_scale) + *bias;
        }
    }
}

compiled_for_each_level! {
    /// Rotates a head over its halves: `x cos + rotate_half(x) sin`, in Hugging Face's layout of heads.
    rotate(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
        let half = head.len() / 2;
        let (first, second) = head.split_at_mut(half);
        let (cosines, sines) = (&cosines[..half], &sines[..half]);
        for (((x, y), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
            let (left, right) = (*x, *y);
            *x = left * *cosine - right * *sine;
            *y = right * *cosine + left * *sine;
        }
    }
}

compiled_for_each_level! {
    /// Rounds numbers to `T`.
    narrow<T>(numbers: &[f32], rounded: &mut [T]) {
        for (rounded, number) in rounded.iter_mut().zip(numbers) {
            *rounded = T::round(*number);
        }
    }
}

compiled_for_each_level! {
    /// Converts integers, which bfloat16 represents exactly.
    widen_bytes<T>(bytes: &[i8], widened: &mut [T]) {
        for (widened, byte) in widened.iter_mut().zip(bytes) {
            *widened = T::from_byte(*byte);
        }
    }
}

compiled_for_each_level! {
    /// Returns the largest of the numbers, which are whole panels; minus infinity if there are none.
    largest(numbers: &[f32]) -> f32 {
        let mut best = [f32::NEG_INFINITY; PANEL];
        for panel in numbers.as_chunks::<PANEL>().0 {
            for (best, number) in best.iter_mut().zip(panel) {
                *best = if *number > *best { *number } else { *best };
            }
        }
        largest_of_panel(&best)
    }
}

compiled_for_each_level! {
    /// Writes `e^(number - shift)` of whole panels of numbers, rounded. Returns the sum of the values before
    /// rounding.
    exponentials<T>(numbers: &[f32], shift: f32, rounded: &mut [T]) -> f32 {
        let mut sums = [0.0; PANEL];
        let panels = numbers.as_chunks::<PANEL>().0.iter();
        for (panel, rounded) in panels.zip(rounded.as_chunks_mut::<PANEL>().0) {
            for ((sum, number), rounded) in sums.iter_mut().zip(panel).zip(rounded) {
                let value = exponential(*number - shift);
                *rounded = T::round(value);
                *sum += value;
            }
        }
        sum_of_panel(&sums)
    }
}

compiled_for_each_level! {
    /// Returns the sum of `e^(number - shift)` over whole panels of numbers.
    sum_of_exponentials(numbers: &[f32], shift: f32) -> f32 {
        let mut sums = [0.0; PANEL];
        for panel in numbers.as_chunks::<PANEL>().0 {
            for (sum, number) in sums.iter_mut().zip(panel) {
                *sum += exponential(*number - shift);
            }
        }
        sum_of_panel(&sums)
    }
}

compiled_for_each_level! {
    /// Multiplies all numbers by `factor`.
    multiply_by(numbers: &mut [f32], factor: f32) {
        for number in numbers {
            *number *= factor;
        }
    }
}

compiled_for_each_level! {
    /// Turns products into logits: times the row's and the column's scale, divided by the temperature.
    finish_logits(logits: &mut [f32], scale: f32, scales: &[f32], temperature: f32) {
        for (logit, column_scale) in logits.iter_mut().zip(scales) {
            *logit = *logit * (scale * *column_scale) / temperature;
        }
    }
}
