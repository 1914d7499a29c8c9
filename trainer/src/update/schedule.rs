//! The learning-rate schedule.

/// Returns the rate of a linear warm-up to `learning_rate` over `warmup_updates`, constant afterwards. `update`
/// counts from 0. The first rate is above 0; the reference begins with 0, which wastes a batch
/// (`docs/algorithms.md`).
pub fn warmed_up(learning_rate: f64, warmup_updates: usize, update: u64) -> f64 {
    if warmup_updates == 0 {
        return learning_rate;
    }
    learning_rate * ((update + 1) as f64 / warmup_updates as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_from_the_first_update_and_stays() {
        let rates: Vec<f64> = (0..4).map(|update| warmed_up(2.0, 2, update)).collect();
        assert_eq!(rates, vec![1.0, 2.0, 2.0, 2.0]);
        assert!((warmed_up(2.0, 0, 0) - 2.0).abs() < f64::EPSILON);
    }
}
