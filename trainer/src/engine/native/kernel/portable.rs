//! Products in plain Rust: for processors without a kernel of their own, and as the reference that tests
//! compare the other kernels with.

use super::{Number, PANEL, Product, STEP, right_offset};

pub(super) fn multiply<T: Number>(product: &mut Product<'_, T>) {
    // Over the rows, then the steps, then the depths of a step: each of the row's sums grows depth by depth,
    // in the order of the other kernels.
    for row in 0..product.rows {
        let mut sums = [0.0_f32; PANEL];
        let sums_start = row * product.sums_stride;
        if product.adds {
            sums.copy_from_slice(&product.sums[sums_start..][..PANEL]);
        }
        for step in product.steps {
            let left = &product.left[step.left + row * product.left_stride..][..STEP];
            let right = &product.right[step.right..];
            for (depth, &factor) in left.iter().enumerate() {
                let factor = factor.widen();
                let first = right_offset::<T>(depth, 0, product.right_columns);
                let row = right[first..].iter().step_by(T::PAIR);
                for (sum, &number) in sums.iter_mut().zip(row) {
                    *sum += factor * number.widen();
                }
            }
        }
        product.sums[sums_start..][..PANEL].copy_from_slice(&sums);
    }
}
