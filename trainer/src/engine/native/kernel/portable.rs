//! Products in plain Rust: for processors without a kernel of their own, and what the others are
//! compared with.

use super::{Number, PANEL, Product, STEP, place};

pub(super) fn multiply<T: Number>(product: &mut Product<'_, T>) {
    for row in 0..product.rows {
        let mut sums = [0.0_f32; PANEL];
        let place_of_sums = row * product.sums_stride;
        if product.adds {
            sums.copy_from_slice(&product.sums[place_of_sums..][..PANEL]);
        }
        for step in product.steps {
            let left = &product.left[step.left + row * product.left_stride..][..STEP];
            let right = &product.right[step.right..];
            for (depth, &factor) in left.iter().enumerate() {
                let factor = factor.widen();
                let first = place::<T>(depth, 0, product.right_columns);
                let row = right[first..].iter().step_by(T::PAIR);
                for (sum, &number) in sums.iter_mut().zip(row) {
                    *sum += factor * number.widen();
                }
            }
        }
        product.sums[place_of_sums..][..PANEL].copy_from_slice(&sums);
    }
}
