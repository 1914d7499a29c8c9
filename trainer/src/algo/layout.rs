//! Packed tokens and the sequences that they belong to.

use tch::{Device, Kind, Tensor};

/// The assignment of packed tokens to sequences.
#[derive(Debug)]
pub struct TokenLayout {
    /// Number of tokens of each sequence, in packing order.
    tokens: Vec<i64>,
    /// Index of each token's sequence, `[tokens]`, i64.
    owner: Tensor,
    /// Number of tokens of each sequence, at least 1, `[sequences]`, f32.
    counts: Tensor,
}

impl TokenLayout {
    /// Creates the layout of sequences with these numbers of tokens.
    pub fn new(tokens: &[usize], device: Device) -> Self {
        let tokens: Vec<i64> = tokens.iter().map(|&count| count as i64).collect();
        let owners: Vec<i64> = tokens
            .iter()
            .enumerate()
            .flat_map(|(sequence, &count)| std::iter::repeat_n(sequence as i64, count as usize))
            .collect();
        let counts: Vec<f32> = tokens.iter().map(|&count| count.max(1) as f32).collect();
        Self {
            tokens,
            owner: Tensor::from_slice(&owners).to_device(device),
            counts: Tensor::from_slice(&counts).to_device(device),
        }
    }

    /// Sums each sequence's `values` (`[tokens]`), always in the same order: `[sequences]`.
    pub fn sums(&self, values: &Tensor) -> Tensor {
        if self.tokens.is_empty() {
            return values.narrow(0, 0, 0).shallow_clone();
        }
        let parts = values.split_with_sizes(&self.tokens[..], 0);
        let sums: Vec<Tensor> = parts.iter().map(|part| part.sum(Kind::Float)).collect();
        Tensor::stack(&sums, 0)
    }

    /// Averages each sequence's `values`: `[sequences]`, with 0 for a sequence without tokens.
    pub fn means(&self, values: &Tensor) -> Tensor {
        self.sums(values) / &self.counts
    }

    /// Repeats each sequence's number (`[sequences]`) at each of its tokens: `[tokens]`.
    pub fn spread(&self, per_sequence: &Tensor) -> Tensor {
        per_sequence.index_select(0, &self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_without_tokens_keeps_its_row() {
        let layout = TokenLayout::new(&[2, 0, 1], Device::Cpu);
        let values = Tensor::from_slice(&[1.0_f32, 3.0, 5.0]);
        assert_eq!(Vec::<f32>::try_from(layout.means(&values)).unwrap(), [2.0, 0.0, 5.0]);
        let spread = layout.spread(&Tensor::from_slice(&[1.0_f32, 2.0, 3.0]));
        assert_eq!(Vec::<f32>::try_from(spread).unwrap(), [1.0, 1.0, 3.0]);
        assert_eq!(TokenLayout::new(&[], Device::Cpu).sums(&values.narrow(0, 0, 0)).numel(), 0);
    }
}
