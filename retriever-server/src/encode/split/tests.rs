//! Comparison of products with those in `f64`, for every multiplier that this processor supports.

use proptest::prelude::*;

use super::onnx::Matrix;
use super::weights::{Activations, split};
use super::*;

fn multipliers() -> impl Iterator<Item = SplitMultiplier> {
    SplitMultiplier::fast().into_iter().chain([SplitMultiplier::Portable])
}

fn multiply(
    multiplier: SplitMultiplier,
    activations: &mut Activations,
    numbers: &[f32],
    weights: &Weights,
    parts: usize,
) -> Vec<f32> {
    let rows = numbers.len() / weights.inner();
    // Every number must be overwritten.
    let mut products = vec![f32::NAN; rows * weights.columns()];
    let activations = activations.split(numbers, weights.inner(), multiplier);
    for mut part in weights.parts(&mut products, parts) {
        part.compute(activations, multiplier);
    }
    products
}

/// Generates numbers of very different sizes.
fn number() -> impl Strategy<Value = f32> {
    (-1.0f32..1.0, -8i32..8).prop_map(|(number, power)| number * 2f32.powi(power))
}

#[test]
fn numbers_are_split_if_that_is_fast_or_requested() {
    let names: Vec<_> = multipliers().map(SplitMultiplier::name).collect();
    assert_eq!(names.last(), Some(&"portable"));
    assert_eq!(Products::Auto.multiplier(), SplitMultiplier::fast());
    assert_eq!(Products::Runtime.multiplier(), None);
    assert!(Products::Split.multiplier().is_some());
}

proptest! {
    #[test]
    fn two_halves_are_nearly_the_number(number in number()) {
        let [high, low] = split(number).map(|bits| half::bf16::from_bits(bits).to_f32());
        prop_assert!((number - high - low).abs() <= number.abs() * 2f32.powi(-16));
        prop_assert!(low.abs() <= number.abs() * 2f32.powi(-8));
    }

    #[test]
    fn products_differ_from_those_of_f32_in_the_last_bits_only(
        (rows, inner, columns, parts) in (1usize..75, 1usize..100, 1usize..140, 1usize..5),
        numbers in prop::collection::vec(number(), 2 * 140 * 100),
    ) {
        let (left, right) = (&numbers[..rows * inner], &numbers[numbers.len() - inner * columns..]);
        let bytes: Vec<u8> = right.iter().flat_map(|number| number.to_le_bytes()).collect();
        let weights = Weights::pack(&Matrix { numbers: &bytes, inner, columns });
        for multiplier in multipliers() {
            let mut activations = Activations::default();
            // Rows of another product stay in the buffer.
            let ones = vec![1.0; 33 * inner];
            multiply(multiplier, &mut activations, &ones, &weights, 1);
            let products = multiply(multiplier, &mut activations, left, &weights, parts);
            for (position, &product) in products.iter().enumerate() {
                let (row, column) = (position / columns, position % columns);
                let factors = (0..inner).map(|depth| {
                    let [left, right] = [left[row * inner + depth], right[depth * columns + column]];
                    f64::from(left) * f64::from(right)
                });
                let (sum, size) =
                    factors.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let off = (f64::from(product) - sum).abs();
                prop_assert!(
                    off <= size * 2f64.powi(-14),
                    "{multiplier:?}: row {row}, column {column}: {product}, expected {sum}"
                );
            }
            // A row's products do not depend on the other rows or on the number of parts.
            let row = rows / 2;
            let alone = &left[row * inner..][..inner];
            let alone = multiply(multiplier, &mut Activations::default(), alone, &weights, 1);
            prop_assert_eq!(&alone, &products[row * columns..][..columns]);
        }
    }
}
