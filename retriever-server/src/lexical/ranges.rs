//! Bounds on what a term adds to the documents of a range, in one byte each: how often the term
//! occurs at most, and in which shortest length, whatever the constants of BM25 will be.
//! Reference for bounds by fixed ranges of documents: K. Chakrabarti, S. Chaudhuri and V. Ganti,
//! "Interval-based pruning for top-k processing over compressed lists", ICDE 2011.

/// Documents per range.
pub const RANGE_LENGTH: usize = 32;

/// Classes of lengths.
pub const LENGTH_CLASSES: usize = 16;

/// Frequencies from this one on are one class.
const FREQUENCY_CLASSES: u8 = 4;

/// Number of codes, that of an absent term included.
pub const CODES: usize = 1 + FREQUENCY_CLASSES as usize * LENGTH_CLASSES;

/// Code of a range without the term.
pub const ABSENT: u8 = 0;

/// What a term's contribution to a document depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// How often the term occurs in the document.
    pub frequency: u32,
    /// Length of the document, as one byte.
    pub length_id: u8,
}

/// Number of ranges of so many documents.
pub fn range_count(documents: usize) -> usize {
    documents.div_ceil(RANGE_LENGTH)
}

/// Classes of lengths, by the shortest length of each, ascending from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LengthClasses(pub [u8; LENGTH_CLASSES]);

impl LengthClasses {
    /// Classes of about as many documents each.
    pub fn of(length_ids: &[u8]) -> Self {
        let mut counts = [0u64; 256];
        for &id in length_ids {
            counts[usize::from(id)] += 1;
        }
        let mut shortest = [0; LENGTH_CLASSES];
        let (mut class, mut before) = (1, 0);
        for (id, count) in counts.iter().enumerate() {
            let share = (length_ids.len() * class / LENGTH_CLASSES) as u64;
            if class < LENGTH_CLASSES && before > share {
                shortest[class] = id as u8;
                class += 1;
            }
            before += count;
        }
        // Classes that were not needed are never looked up.
        let last = shortest[class - 1];
        shortest[class..].fill(last);
        Self(shortest)
    }

    /// The code of a document that has the term.
    pub fn code(&self, frequency: u32, length_id: u8) -> u8 {
        let class = self.0.partition_point(|&shortest| shortest <= length_id).max(1) - 1;
        let frequency = frequency.clamp(1, u32::from(FREQUENCY_CLASSES)) as u8;
        1 + (frequency - 1) * LENGTH_CLASSES as u8 + class as u8
    }

    /// Frequency and length that bound those of all documents with a code; `None` if the
    /// frequency is not bounded.
    pub fn peak(&self, code: u8) -> Option<Peak> {
        let (frequency, class) = parts(code)?;
        let length_id = self.0[usize::from(class)];
        (frequency < FREQUENCY_CLASSES).then_some(Peak { frequency: frequency.into(), length_id })
    }
}

/// The code of two documents together.
pub fn join(one: u8, other: u8) -> u8 {
    let (Some(first), Some(second)) = (parts(one), parts(other)) else { return one.max(other) };
    let (frequency, class) = (first.0.max(second.0), first.1.min(second.1));
    1 + (frequency - 1) * LENGTH_CLASSES as u8 + class
}

/// Frequency and class of length.
fn parts(code: u8) -> Option<(u8, u8)> {
    let code = code.checked_sub(1)?;
    Some((code / LENGTH_CLASSES as u8 + 1, code % LENGTH_CLASSES as u8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_code_bounds_every_document_that_it_stands_for(
            length_ids in proptest::collection::vec(any::<u8>(), 1..200),
            frequencies in proptest::collection::vec(1u32..8, 200),
        ) {
            let classes = LengthClasses::of(&length_ids);
            prop_assert!(classes.0.is_sorted());
            let documents = length_ids.iter().zip(&frequencies);
            let code = documents
                .clone()
                .fold(ABSENT, |code, (&id, &frequency)| join(code, classes.code(frequency, id)));
            prop_assert!(usize::from(code) < CODES && code != ABSENT);
            if let Some(peak) = classes.peak(code) {
                for (&id, &frequency) in documents {
                    prop_assert!(peak.frequency >= frequency && peak.length_id <= id);
                }
            } else {
                prop_assert!(frequencies.iter().any(|&one| one >= 4));
            }
        }
    }

    #[test]
    fn lengths_are_told_apart_where_passages_are() {
        let length_ids: Vec<u8> = (0..160).map(|row| 30 + row / 10).collect();
        let classes = LengthClasses::of(&length_ids);
        assert_eq!(classes.0[..4], [0, 32, 33, 34]);
        let peak = classes.peak(classes.code(2, 40)).unwrap();
        assert_eq!(peak, Peak { frequency: 2, length_id: 40 });
        assert_eq!(classes.peak(classes.code(4, 40)), None);
        assert_eq!(classes.peak(ABSENT), None);
    }
}
