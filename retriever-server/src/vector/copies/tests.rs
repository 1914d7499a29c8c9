//! Groups of equal and nearly equal rows against a comparison of all pairs.

use proptest::prelude::*;
use shared::contract::splitmix::numbers;

use super::*;
use crate::vector::RowFormat;

const DIMENSION: usize = 32;

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn table(bytes: &[u8], dimension: usize) -> Rows<'_> {
    Rows::new(bytes, RowFormat::F32, dimension).unwrap()
}

fn pairs(copies: &Copies) -> Vec<[u32; 2]> {
    copies.iter().collect()
}

/// Returns `copies` rows near each of some random rows, at a distance of about `noise` of their length.
fn clusters(count: usize, copies: usize, noise: f32) -> Vec<f32> {
    let mut state = 5;
    let mut rows = Vec::new();
    for _ in 0..count {
        let centre = numbers(DIMENSION, &mut state);
        for _ in 0..copies {
            let shift = numbers(DIMENSION, &mut state);
            rows.extend(centre.iter().zip(&shift).map(|(number, shift)| number + noise * shift));
        }
    }
    rows
}

#[test]
fn equal_rows_share_the_first_as_their_leader() {
    let distinct = numbers(6 * DIMENSION, &mut 1);
    let row = |index: usize| &distinct[index * DIMENSION..][..DIMENSION];
    let order = [3, 0, 1, 3, 2, 0, 3, 4, 5, 0];
    let stored = bytes(&order.map(row).concat());
    for threads in [1, 4] {
        let copies = Copies::find(&table(&stored, DIMENSION), threads);
        assert_eq!(pairs(&copies), [[0, 3], [0, 6], [1, 5], [1, 9]]);
        assert_eq!(copies.of(0).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(copies.of(1).collect::<Vec<_>>(), [5, 9]);
        assert_eq!(copies.of(2).count() + copies.of(9).count(), 0);
        let flags = copies.flags(10);
        let rows: Vec<u32> = (0..10).filter(|&row| flags.has(row)).collect();
        assert_eq!(rows, [3, 5, 6, 9]);
    }
}

#[test]
fn rows_are_copies_up_to_a_distance() {
    // Rounding errors, the rounding to 16 bits, and texts that differ in a word.
    for (noise, least, most) in
        [(0.0, 1.0, 1.0), (1e-7, 0.99, 1.0), (3e-4, 0.99, 1.0), (0.1, 0.0, 0.0)]
    {
        let stored = bytes(&clusters(40, 50, noise));
        let copies = Copies::find(&table(&stored, DIMENSION), 2);
        let share = copies.count() as f64 / f64::from(40 * 49);
        assert!((least..=most).contains(&share), "{noise}: {share}");
        assert!(pairs(&copies).iter().all(|[leader, copy]| leader / 50 == copy / 50));
    }
}

#[test]
fn rows_without_length_or_with_unequal_lengths_are_compared_too() {
    let row = numbers(DIMENSION, &mut 2);
    let longer: Vec<f32> = row.iter().map(|number| 2.0 * number).collect();
    let (zero, odd) = (vec![0.0; DIMENSION], vec![f32::NAN; DIMENSION]);
    let huge = vec![f32::MAX; DIMENSION];
    let all = [&zero, &row, &longer, &odd, &zero, &odd, &longer, &row, &huge, &huge];
    let stored = bytes(&all.map(Vec::as_slice).concat());
    let copies = Copies::find(&table(&stored, DIMENSION), 1);
    assert_eq!(pairs(&copies), [[0, 4], [1, 7], [2, 6]]);
    assert_eq!(Copies::find(&table(&[], 3), 1).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Equal rows are always in one group, whatever else is there, and no group has far rows.
    #[test]
    fn groups_hold_all_equal_rows_and_no_far_ones(
        choices in proptest::collection::vec((0..8usize, 0..3usize), 1..120),
        dimension in 1..20usize,
    ) {
        let mut state = 9;
        let centres: Vec<Vec<f32>> = (0..8).map(|_| numbers(dimension, &mut state)).collect();
        let noise = [0.0, 1e-6, 0.3];
        let rows: Vec<Vec<f32>> = choices.iter().enumerate().map(|(row, &(centre, kind))| {
            let shift = |position: usize| {
                noise[kind] * if (row + position).is_multiple_of(2) { 1.0 } else { -1.0 }
            };
            let centre = centres[centre].iter().enumerate();
            centre.map(|(position, number)| number + shift(position)).collect()
        }).collect();
        let stored = bytes(&rows.concat());
        let copies = Copies::find(&table(&stored, dimension), 1);
        let leader = |row: u32| {
            pairs(&copies).iter().find(|[_, copy]| *copy == row).map_or(row, |[leader, _]| *leader)
        };
        for (row, numbers) in rows.iter().enumerate() {
            for (other, others) in rows.iter().enumerate().skip(row + 1) {
                if numbers == others {
                    prop_assert_eq!(leader(row as u32), leader(other as u32));
                }
            }
            let led = &rows[leader(row as u32) as usize];
            let square = |numbers: &[f32]| numbers.iter().map(|number| number * number).sum::<f32>();
            let difference: Vec<f32> =
                numbers.iter().zip(led).map(|(one, other)| one - other).collect();
            // A chain of leaders has a step for each round, and the first row is led like the others.
            let bound = 4.0 * NEARNESS * square(led).sqrt();
            prop_assert!(square(&difference).sqrt() <= bound * 1.01);
        }
        let read = Copies::from_bytes(OwnedBytes::new(copies.bytes().to_vec()), rows.len() as u32);
        prop_assert_eq!(read.map(|read| pairs(&read)), Some(pairs(&copies)));
    }

    /// Arbitrary bytes are refused, or are a sound list.
    #[test]
    fn only_sound_lists_are_read(
        words in proptest::collection::vec(0..6u32, 0..8),
        rows in 0..8u32,
    ) {
        let stored: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Some(copies) = Copies::from_bytes(OwnedBytes::new(stored), rows) {
            let flags = copies.flags(rows);
            for [leader, copy] in copies.iter() {
                prop_assert!(leader < copy && copy < rows && !flags.has(leader));
            }
            prop_assert!(copies.iter().is_sorted());
        }
    }
}
