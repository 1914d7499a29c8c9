//! Rows that a device and the processor generate identically from a counter, to measure searches over
//! more rows than one would copy.

use half::f16;

use super::keys;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use crate::processor::fork_join::fork_join;
use crate::query::Hit;

/// The bytes of one load in a kernel.
pub(super) const CHUNK_BYTES: usize = 16;

/// The numbers that one draw yields.
const NUMBERS_A_DRAW: usize = 4;

/// Returns 64 bits that depend on every bit of a counter: the output function of SplitMix64 (Steele,
/// Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn draw(seed: u64, row: u64, index: u64) -> u64 {
    let mut mixed = seed.wrapping_add((row << 20 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Writes a row as [`Layout::pack`] would, and returns its factor. Halves are multiples of 1/1024
/// from -1 up.
pub fn row(layout: Layout, seed: u64, row: u64, packed: &mut [u8]) -> f32 {
    packed.fill(0);
    for (index, positions) in (0..layout.dimension).step_by(NUMBERS_A_DRAW).enumerate() {
        let drawn = draw(seed, row, index as u64);
        for position in positions..(positions + NUMBERS_A_DRAW).min(layout.dimension) {
            let bits = (drawn >> (16 * (position % NUMBERS_A_DRAW))) as u16;
            match layout.format {
                DeviceFormat::Halves => {
                    let number = (f32::from(bits >> 5) - 1024.0) / 1024.0;
                    let half = f16::from_f32(number).to_le_bytes();
                    packed[2 * position..][..2].copy_from_slice(&half);
                }
                DeviceFormat::Bytes => {
                    packed[position] = ((bits >> 8) as i8).max(-127) as u8;
                }
            }
        }
    }
    match layout.format {
        DeviceFormat::Halves => 1.0,
        DeviceFormat::Bytes => {
            (16.0 + (draw(seed, row, (1 << 20) - 1) & 15) as f32) / (16.0 * 128.0)
        }
    }
}

/// Returns rows and their factors, as a device would hold them.
#[cfg(test)]
pub(super) fn rows(layout: Layout, seed: u64, count: usize) -> (Vec<u8>, Vec<f32>) {
    let mut packed = vec![0; count * layout.pitch()];
    let slots = packed.chunks_mut(layout.pitch()).enumerate();
    let scales = slots.map(|(number, packed)| row(layout, seed, number as u64, packed)).collect();
    (packed, scales)
}

/// Returns the `keep` best of `count` rows for each query, from sums in double precision, computed on
/// `threads` threads.
pub fn best(
    layout: Layout,
    seed: u64,
    count: usize,
    queries: &PackedQueries,
    keep: usize,
    threads: usize,
) -> Vec<Vec<Hit>> {
    let share = count.div_ceil(threads.max(1)).max(1);
    let search = |first: usize| {
        let mut packed = vec![0; layout.pitch()];
        let mut lists: Vec<Vec<u64>> = vec![Vec::new(); queries.count()];
        for number in first..(first + share).min(count) {
            let scale = row(layout, seed, number as u64, &mut packed);
            for (query, list) in queries.bytes.chunks(layout.pitch()).zip(&mut lists) {
                let sum = product(layout.format, &packed, query);
                let score = match layout.format {
                    DeviceFormat::Halves => sum as f32,
                    DeviceFormat::Bytes => sum as f32 * scale,
                };
                list.push(keys::make(score, number as u32));
                if list.len() >= 64 * keep.max(1) {
                    cut(list, keep);
                }
            }
        }
        lists
    };
    let mut lists: Vec<Vec<u64>> = vec![Vec::new(); queries.count()];
    for part in fork_join((0..count).step_by(share), search) {
        for (list, part) in lists.iter_mut().zip(part) {
            list.extend(part);
        }
    }
    let open = |(query, list): (usize, &mut Vec<u64>)| {
        cut(list, keep);
        let hits = list.iter().filter_map(|&key| keys::open(key));
        hits.map(|hit| Hit { score: hit.score * queries.factor(query), ..hit }).collect()
    };
    lists.iter_mut().enumerate().map(open).collect()
}

fn cut(list: &mut Vec<u64>, keep: usize) {
    list.sort_unstable_by(|left, right| right.cmp(left));
    list.truncate(keep);
}

fn product(format: DeviceFormat, row: &[u8], query: &[u8]) -> f64 {
    match format {
        DeviceFormat::Halves => {
            let number = |bytes: &[u8; 2]| f64::from(f16::from_le_bytes(*bytes).to_f32());
            let pairs = row.as_chunks().0.iter().zip(query.as_chunks().0);
            pairs.map(|(left, right)| number(left) * number(right)).sum()
        }
        DeviceFormat::Bytes => {
            let number = |byte: &u8| i32::from(byte.cast_signed());
            let pairs = row.iter().zip(query);
            f64::from(pairs.map(|(left, right)| number(left) * number(right)).sum::<i32>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::emulated::Emulated;
    use crate::gpu::search::search;

    #[test]
    fn the_kernels_find_the_best_of_generated_rows() {
        for format in [DeviceFormat::Halves, DeviceFormat::Bytes] {
            let layout = Layout { format, dimension: 90 };
            let (packed, scales) = rows(layout, 7, 5_000);
            let mut emulated = Emulated::from_packed(layout, &packed, scales);
            let numbers: Vec<f32> =
                (0..12 * 90).map(|n| ((n * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let queries = PackedQueries::pack(layout, &numbers);
            let lists = search(&mut emulated, &queries, 20, &|| false).unwrap().unwrap();
            let expected = best(layout, 7, 5_000, &queries, 10, 2);
            for (hits, expected) in lists.iter().zip(expected) {
                assert_eq!(expected.len(), 10);
                for hit in expected {
                    let same = hits.iter().find(|same| same.row == hit.row).unwrap();
                    assert!((same.score - hit.score).abs() < 1e-4 * hit.score.abs());
                }
            }
        }
    }
}
