//! Statistics over the tokens that a mask keeps.

use tch::{Kind, Tensor};

/// Mean of `values` where `mask` is 1. An empty mask gives 0, not NaN.
pub fn masked_mean(values: &Tensor, mask: &Tensor) -> Tensor {
    let kept = mask.gt(0.0);
    // `where` and not a product: infinity times 0 is NaN.
    let values = values.where_self(&kept, &values.zeros_like());
    values.sum(Kind::Float) / mask.sum(Kind::Float).clamp_min(1.0)
}

/// `(x - mean) / sqrt(var + 1e-8)` with the unbiased variance, both over the tokens of `mask`
/// (Search-R1, `masked_whiten`).
///
/// # Errors
/// Fewer than two tokens in the mask have no variance.
pub fn masked_whiten(values: &Tensor, mask: &Tensor) -> Result<Tensor, TooFewTokens> {
    let count = mask.sum(Kind::Float).double_value(&[]);
    if count < 2.0 {
        return Err(TooFewTokens { count: count as usize });
    }
    let mean = masked_mean(values, mask);
    let variance = masked_mean(&(values - &mean).square(), mask) * (count / (count - 1.0));
    Ok((values - mean) * (variance + 1e-8).rsqrt())
}

/// A mask too small for a variance.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("whitening needs at least 2 tokens in the mask, there are {count}")]
pub struct TooFewTokens {
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_mask_is_no_nan() {
        let values = Tensor::from_slice(&[f32::INFINITY, 1.0]);
        let mask = Tensor::from_slice(&[0.0_f32, 0.0]);
        assert!(masked_mean(&values, &mask).double_value(&[]).abs() < f64::EPSILON);
        assert_eq!(masked_whiten(&values, &mask).err(), Some(TooFewTokens { count: 0 }));
    }
}
