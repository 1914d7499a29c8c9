//! Products and element-wise loops of every level, compared with the portable ones.

use std::fmt::Debug;

use shared::contract::splitmix;

use super::Instructions;
use crate::engine::native::kernel::{
    Bf16, Number, PANEL, Product, ROWS_MAX, ROWS_UNIT, STEP, Step, lanes, right_offset,
};

const SEEDS: u64 = 60;

fn rounded<T: Number>(count: usize, state: &mut u64) -> Vec<T> {
    splitmix::numbers(count, state).into_iter().map(T::round).collect()
}

/// A product of random shape, and the sums before it.
struct Case<T> {
    steps: Vec<Step>,
    left: Vec<T>,
    left_stride: usize,
    right: Vec<T>,
    right_columns: usize,
    rows: usize,
    sums: Vec<f32>,
    sums_stride: usize,
    adds: bool,
}

impl<T: Number> Case<T> {
    fn random(seed: u64) -> Self {
        let mut state = seed;
        let mut below = |limit: usize| splitmix::next(&mut state) as usize % limit;
        let (rows, steps) = (1 + below(ROWS_MAX), 1 + below(9));
        let (left_stride, sums_stride) = (STEP + below(50), PANEL + below(50));
        let right_columns = PANEL * (1 + below(3));
        let padded = rows.next_multiple_of(ROWS_UNIT);
        // Steps begin anywhere and may repeat.
        let steps: Vec<Step> =
            (0..steps).map(|_| Step { left: below(100), right: below(70) * T::PAIR }).collect();
        let adds = below(2) == 0;
        let last = right_offset::<T>(STEP - 1, PANEL - 1, right_columns);
        let left = rounded((padded - 1) * left_stride + STEP + 100, &mut state);
        let right = rounded(last + 1 + 70 * T::PAIR, &mut state);
        let sums = splitmix::numbers((padded - 1) * sums_stride + PANEL, &mut state);
        Self { steps, left, left_stride, right, right_columns, rows, sums, sums_stride, adds }
    }

    fn compute(&self, instructions: Instructions, rows: usize) -> Vec<f32> {
        let mut sums = self.sums.clone();
        T::multiply(
            &instructions.engage(),
            &mut Product {
                steps: &self.steps,
                left: &self.left,
                left_stride: self.left_stride,
                right: &self.right,
                right_columns: self.right_columns,
                rows,
                sums: &mut sums,
                sums_stride: self.sums_stride,
                adds: self.adds,
            },
        );
        sums
    }

    /// Returns a sum and the sum of its magnitudes, in f64.
    fn exact(&self, row: usize, column: usize) -> (f64, f64) {
        let start = f64::from(self.sums[row * self.sums_stride + column]);
        let mut sums = if self.adds { (start, start.abs()) } else { (0.0, 0.0) };
        for step in &self.steps {
            for depth in 0..STEP {
                let left = self.left[step.left + row * self.left_stride + depth].widen();
                let right = right_offset::<T>(depth, column, self.right_columns) + step.right;
                let product = f64::from(left) * f64::from(self.right[right].widen());
                sums = (sums.0 + product, sums.1 + product.abs());
            }
        }
        sums
    }
}

fn check_products<T: Number + Debug>() {
    for seed in 0..SEEDS {
        let case = Case::<T>::random(seed);
        for instructions in Instructions::available() {
            let sums = case.compute(instructions, case.rows);
            for row in 0..case.rows {
                // A row that is computed alone has the same sums to the last bit.
                let mut alone = Case { steps: case.steps.clone(), ..Case::<T>::random(seed) };
                alone.left.drain(..row * case.left_stride);
                alone.left.resize(case.left.len(), T::default());
                alone.sums.drain(..row * case.sums_stride);
                alone.sums.resize(case.sums.len(), 0.0);
                let alone = alone.compute(instructions, 1);
                let own = &sums[row * case.sums_stride..][..PANEL];
                assert_eq!(own, &alone[..PANEL], "{instructions:?}, seed {seed}, row {row}");
                for (column, &sum) in own.iter().enumerate() {
                    let (exact, magnitude) = case.exact(row, column);
                    let error = (f64::from(sum) - exact).abs() / magnitude;
                    assert!(
                        error < 2e-6,
                        "{instructions:?}, seed {seed}, row {row}, column {column}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn products_of_f32_are_exact_to_rounding_and_apart() {
    check_products::<f32>();
}

#[test]
fn products_of_bf16_are_exact_to_rounding_and_apart() {
    check_products::<Bf16>();
}

/// Covers the whole range of arguments.
#[test]
fn exponentials_are_exact_to_rounding() {
    for index in -870_000..=880_000 {
        let x = index as f32 * 1e-4;
        let exact = f64::from(x).exp();
        let error = (f64::from(lanes::exponential(x)) - exact).abs() / exact;
        assert!(error < 2.5e-7, "{x}: {error}");
    }
    assert_eq!(lanes::exponential(0.0).to_bits(), 1.0_f32.to_bits());
    assert_eq!(lanes::exponential(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(lanes::exponential(-1e30).to_bits(), 0);
    assert!(lanes::exponential(f32::NAN).is_nan());
}

#[test]
fn rounding_to_bfloat16_takes_the_nearest_even() {
    let mut state = 9;
    for _ in 0..100_000 {
        let number = f32::from_bits(splitmix::next(&mut state) as u32);
        let expected = half::bf16::from_f32(number);
        let actual = <Bf16 as Number>::round(number);
        if number.is_nan() {
            assert!(actual.widen().is_nan());
        } else {
            assert_eq!(actual.0, expected.to_bits(), "{number:e}");
        }
    }
}

/// Runs all element-wise loops on random numbers; returns the results as bits.
fn loops<T: Number>(instructions: Instructions, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let engaged = instructions.engage();
    let mut panel = |scale: f32| -> [f32; PANEL] {
        let numbers = splitmix::numbers(PANEL, &mut state);
        std::array::from_fn(|index| numbers[index] * scale)
    };
    let (mut residual, sums, other) = (panel(2.0), panel(9.0), panel(9.0));
    let (scales, biases) = (panel(1.0), panel(1.0));
    let mut numbers = [panel(30.0), panel(30.0), panel(30.0)].concat();
    let (cosines, sines) = ([panel(1.0); 3].concat(), [panel(1.0); 3].concat());
    let mut rounded = [T::default(); PANEL];
    lanes::add_to_residual(&engaged, &mut residual, &sums, &scales, &biases);
    let mut actual = residual.to_vec();
    actual.push(lanes::begin_norm(&engaged, &residual, &scales, &mut rounded));
    actual.extend(rounded.map(T::widen));
    let pair = [&sums, &other];
    lanes::gate(&engaged, pair, 0.3, [&scales; 2], [&biases; 2], &mut rounded);
    actual.extend(rounded.map(T::widen));
    lanes::rotate(&engaged, &mut numbers, &cosines, &sines);
    lanes::scale_and_shift(&engaged, &mut numbers[..77], 0.7, &cosines, &sines);
    lanes::multiply_by(&engaged, &mut numbers[5..], 1.1);
    lanes::finish_logits(&engaged, &mut numbers, 0.9, &cosines, 0.7);
    actual.extend(&numbers);
    let largest = lanes::largest(&engaged, &numbers);
    actual.push(largest);
    actual.push(lanes::sum_of_exponentials(&engaged, &numbers, largest));
    let mut weights = vec![T::default(); numbers.len()];
    actual.push(lanes::exponentials(&engaged, &numbers, largest, &mut weights));
    actual.extend(weights.iter().map(|weight| weight.widen()));
    lanes::narrow(&engaged, &numbers, &mut weights);
    actual.extend(weights.iter().map(|weight| weight.widen()));
    let bytes: Vec<i8> = (-127..=127).collect();
    let mut widened = vec![T::default(); bytes.len()];
    lanes::widen_bytes(&engaged, &bytes, &mut widened);
    for (widened, byte) in widened.iter().zip(bytes) {
        assert_eq!(widened.widen().to_bits(), f32::from(byte).to_bits());
    }
    actual.into_iter().map(f32::to_bits).collect()
}

#[test]
fn loops_of_every_level_are_equal_to_the_last_bit() {
    let levels = Instructions::available();
    let portable = levels[levels.len() - 1];
    assert_eq!(portable.name(), "portable");
    for instructions in levels {
        for seed in 0..SEEDS {
            let name = instructions.name();
            assert_eq!(loops::<f32>(instructions, seed), loops::<f32>(portable, seed), "{name}");
            assert_eq!(loops::<Bf16>(instructions, seed), loops::<Bf16>(portable, seed), "{name}");
        }
    }
}
