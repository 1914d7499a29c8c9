//! Upper bounds on a term's contribution to the documents of a range. Each is one byte that encodes
//! the highest frequency and the shortest length in the range, so it holds for all BM25 constants.
//!
//! Reference for bounds by fixed ranges of documents: K. Chakrabarti, S. Chaudhuri and V. Ganti,
//! "Interval-based pruning for top-k processing over compressed lists", ICDE 2011.

/// The number of documents in a range.
pub const RANGE_LENGTH: usize = 32;

/// The number of classes of lengths.
pub const LENGTH_CLASSES: usize = 16;

/// The number of classes of frequencies. The last holds this frequency and all higher ones.
const FREQUENCY_CLASSES: u8 = 4;

/// The number of codes, including the one for an absent term.
pub const CODES: usize = 1 + FREQUENCY_CLASSES as usize * LENGTH_CLASSES;

/// The code of a range without the term.
pub const ABSENT: u8 = 0;

/// The two facts about a document that determine a term's contribution to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// The number of times that the term occurs in the document.
    pub frequency: u32,
    /// The length of the document, encoded in one byte.
    pub length_id: u8,
}

/// Returns the number of ranges for a number of documents.
pub fn range_count(documents: usize) -> usize {
    documents.div_ceil(RANGE_LENGTH)
}

/// The shortest length of each class of lengths, ascending from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LengthClasses(pub [u8; LENGTH_CLASSES]);

impl LengthClasses {
    /// Chooses classes that hold about the same number of documents.
    pub fn new(length_ids: &[u8]) -> Self {
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
        // The rest of the classes stays empty: no code names one.
        let last = shortest[class - 1];
        shortest[class..].fill(last);
        Self(shortest)
    }

    /// Returns the code of a document that contains the term.
    pub fn code(&self, frequency: u32, length_id: u8) -> u8 {
        let class = self.0.partition_point(|&shortest| shortest <= length_id).max(1) - 1;
        let frequency = frequency.clamp(1, u32::from(FREQUENCY_CLASSES)) as u8;
        1 + (frequency - 1) * LENGTH_CLASSES as u8 + class as u8
    }

    /// Returns a frequency and a length that bound those of all documents with this code, or `None`
    /// if the frequency has no bound or the term is absent.
    pub fn peak(&self, code: u8) -> Option<Peak> {
        let (frequency, class) = parts(code)?;
        let length_id = self.0[usize::from(class)];
        (frequency < FREQUENCY_CLASSES).then_some(Peak { frequency: frequency.into(), length_id })
    }
}

/// Joins the codes of two documents into one that bounds both.
pub fn join(left: u8, right: u8) -> u8 {
    // If one of them is absent, the greater code is that of the other.
    let (Some(first), Some(second)) = (parts(left), parts(right)) else { return left.max(right) };
    let (frequency, class) = (first.0.max(second.0), first.1.min(second.1));
    1 + (frequency - 1) * LENGTH_CLASSES as u8 + class
}

/// Returns the frequency and the class of lengths in a code, or `None` for [`ABSENT`].
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
        fn a_code_bounds_every_document_of_its_range(
            length_ids in proptest::collection::vec(any::<u8>(), 1..200),
            frequencies in proptest::collection::vec(1u32..8, 200),
        ) {
            let classes = LengthClasses::new(&length_ids);
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
                prop_assert!(frequencies.iter().any(|&frequency| frequency >= 4));
            }
        }
    }

    #[test]
    fn classes_distinguish_the_lengths_that_occur() {
        let length_ids: Vec<u8> = (0..160).map(|row| 30 + row / 10).collect();
        let classes = LengthClasses::new(&length_ids);
        assert_eq!(classes.0[..4], [0, 32, 33, 34]);
        let peak = classes.peak(classes.code(2, 40)).unwrap();
        assert_eq!(peak, Peak { frequency: 2, length_id: 40 });
        assert_eq!(classes.peak(classes.code(4, 40)), None);
        assert_eq!(classes.peak(ABSENT), None);
    }
}
