//! The weights of a policy as plain numbers in host memory, for code that computes without libtorch.
//!
//! Numbers that libtorch already holds on the CPU are borrowed, not copied.

use tch::{Device, Kind, Tensor};

use super::decoder::{Decoder, LayerWeights, Weights};
use super::linear::Linear;

/// The numbers of a tensor, in one of the two types that a policy computes in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HostNumbers<'a> {
    F32(&'a [f32]),
    /// The bits of bfloat16.
    Bf16(&'a [u16]),
}

/// A matrix `[rows, columns]`, row by row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostMatrix<'a> {
    pub(crate) columns: usize,
    pub(crate) numbers: HostNumbers<'a>,
}

/// The linear map `x W^T + b`.
#[derive(Clone, Debug)]
pub(crate) struct HostLinear<'a> {
    pub(crate) weight: HostMatrix<'a>,
    /// `[outputs]`
    pub(crate) bias: Option<Vec<f32>>,
}

/// The weights of one layer, joined as the policy joins them.
#[derive(Clone, Debug)]
pub(crate) struct HostLayer<'a> {
    /// `[hidden]`
    pub(crate) input_norm: Vec<f32>,
    /// Query, key and value rows, stacked.
    pub(crate) query_key_value: HostLinear<'a>,
    /// Norm weights of each query and key head, `[heads + kv_heads, head_dim]`.
    pub(crate) query_key_norm: Option<Vec<f32>>,
    pub(crate) output: HostLinear<'a>,
    /// `[hidden]`
    pub(crate) post_norm: Vec<f32>,
    /// Gate and up rows, stacked.
    pub(crate) gate_up: HostLinear<'a>,
    pub(crate) down: HostLinear<'a>,
}

/// All weights that a forward pass reads.
#[derive(Clone, Debug)]
pub(crate) struct HostModel<'a> {
    /// `[vocab, hidden]`
    pub(crate) embedding: HostMatrix<'a>,
    pub(crate) layers: Vec<HostLayer<'a>>,
    /// `[hidden]`
    pub(crate) final_norm: Vec<f32>,
    /// `[vocab, hidden]`
    pub(crate) head: HostMatrix<'a>,
}

/// Cosines and sines of every position, `[positions, head_dim]`.
#[derive(Clone, Debug)]
pub(crate) struct HostRotations {
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

/// Contiguous tensors in host memory, in a type that can be read.
#[derive(Debug)]
pub(crate) struct HostWeights {
    embedding: Tensor,
    head: Tensor,
    /// Matrices of each layer: the joined projection, the output, gate and up, and down.
    maps: Vec<[Tensor; 4]>,
}

impl HostWeights {
    /// Shares the matrices of `weights`. Copies those on another device or in another type.
    pub(crate) fn new(weights: &Weights) -> Self {
        let maps = |layer: &LayerWeights| {
            let LayerWeights { attention, feed_forward, .. } = layer;
            [
                on_host(&attention.query_key_value.weight),
                on_host(&attention.output.weight),
                on_host(&feed_forward.gate_up.weight),
                on_host(&feed_forward.down.weight),
            ]
        };
        Self {
            embedding: on_host(&weights.embedding),
            head: on_host(&weights.head),
            maps: weights.layers.iter().map(maps).collect(),
        }
    }

    /// Borrows the matrices and copies the small tensors of `weights`.
    pub(crate) fn model<'a>(&'a self, weights: &Weights) -> HostModel<'a> {
        let layers = weights.layers.iter().zip(&self.maps).map(|(layer, maps)| {
            let [query_key_value, output, gate_up, down] = maps;
            let LayerWeights { attention, feed_forward, .. } = layer;
            let norm = attention.query_key_norm.as_ref();
            HostLayer {
                input_norm: vector(&layer.input_norm.weight),
                query_key_value: linear(query_key_value, &attention.query_key_value),
                query_key_norm: norm.map(|norm| vector(&norm.weight)),
                output: linear(output, &attention.output),
                post_norm: vector(&layer.post_norm.weight),
                gate_up: linear(gate_up, &feed_forward.gate_up),
                down: linear(down, &feed_forward.down),
            }
        });
        HostModel {
            embedding: matrix(&self.embedding),
            layers: layers.collect(),
            final_norm: vector(&weights.final_norm.weight),
            head: matrix(&self.head),
        }
    }
}

impl HostRotations {
    /// Copies the tables of `decoder`.
    pub(crate) fn new(decoder: &Decoder) -> Self {
        let [cosines, sines] = decoder.rotary.tables();
        Self { cosines: vector(cosines), sines: vector(sines) }
    }
}

/// Returns the tensor on the CPU, contiguous, in f32 or bf16.
fn on_host(tensor: &Tensor) -> Tensor {
    let kind = if tensor.kind() == Kind::BFloat16 { Kind::BFloat16 } else { Kind::Float };
    tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous()
}

fn linear<'a>(weight: &'a Tensor, linear: &Linear) -> HostLinear<'a> {
    HostLinear { weight: matrix(weight), bias: linear.bias.as_ref().map(vector) }
}

/// Borrows the numbers of a tensor that [`on_host`] made.
#[expect(unsafe_code, reason = "libtorch gives a tensor's numbers as a pointer")]
fn matrix(tensor: &Tensor) -> HostMatrix<'_> {
    let (columns, count) = (tensor.size()[1] as usize, tensor.numel());
    let data = tensor.data_ptr();
    let numbers = if tensor.kind() == Kind::BFloat16 {
        // SAFETY: `on_host` made the tensor contiguous bf16 on the CPU, so `data` points to `count` aligned
        // numbers. The slice borrows the tensor, and nothing writes to weights while they are borrowed.
        HostNumbers::Bf16(unsafe { std::slice::from_raw_parts(data.cast(), count) })
    } else {
        // SAFETY: `on_host` made the tensor contiguous f32 on the CPU, so `data` points to `count` aligned
        // numbers. The slice borrows the tensor, and nothing writes to weights while they are borrowed.
        HostNumbers::F32(unsafe { std::slice::from_raw_parts(data.cast(), count) })
    };
    HostMatrix { columns, numbers }
}

/// Copies all numbers of a small tensor, row by row.
fn vector(tensor: &Tensor) -> Vec<f32> {
    let tensor = on_host(tensor).to_kind(Kind::Float);
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut numbers, tensor.numel());
    numbers
}

impl HostMatrix<'_> {
    /// Reads the numbers of a row in the given columns, with 0 where a column is `None`.
    #[inline]
    pub(crate) fn read(&self, row: usize, columns: &[Option<usize>], numbers: &mut [f32]) {
        let start = row * self.columns;
        // The columns are nearly always one run.
        if let (Some(Some(first)), Some(Some(last))) = (columns.first(), columns.last())
            && last - first + 1 == columns.len()
        {
            self.read_run(start + first, numbers);
            return;
        }
        for (number, column) in numbers.iter_mut().zip(columns) {
            *number = column.map_or(0.0, |column| self.number(start + column));
        }
    }

    /// Reads a whole row.
    pub(crate) fn read_row(&self, row: usize, numbers: &mut [f32]) {
        self.read_run(row * self.columns, numbers);
    }

    fn read_run(&self, start: usize, numbers: &mut [f32]) {
        match self.numbers {
            HostNumbers::F32(all) => numbers.copy_from_slice(&all[start..][..numbers.len()]),
            HostNumbers::Bf16(all) => {
                for (number, bits) in numbers.iter_mut().zip(&all[start..]) {
                    *number = f32::from_bits(u32::from(*bits) << 16);
                }
            }
        }
    }

    #[inline]
    fn number(&self, index: usize) -> f32 {
        match self.numbers {
            HostNumbers::F32(numbers) => numbers[index],
            HostNumbers::Bf16(bits) => f32::from_bits(u32::from(bits[index]) << 16),
        }
    }
}
