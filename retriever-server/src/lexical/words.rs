//! The words of a text, as Lucene's `StandardTokenizer` finds them: an automaton over classes of code points, which is
//! Lucene's own. It stands in `word_rules.txt`, which a script reads from Lucene, so that every code point is in the
//! class in which Lucene has it, also where later versions of Unicode differ.

use std::sync::LazyLock;

/// The longest word, in UTF-16 units. Lucene cuts longer ones into pieces.
const MAX_WORD_UNITS: usize = 255;

/// The state before the first character.
const START: u8 = 0;
/// Stands for a transition that does not exist.
const NONE: u8 = u8::MAX;
/// The number of classes, of which some are not used, so that a state's row is found by a shift.
const CLASSES: usize = 32;
/// The number of code points that share an entry of the first table.
const BLOCK: usize = 256;
const CODE_POINTS: usize = 0x11_0000;

/// The meaning of the characters read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Unfinished,
    Skipped,
    Word,
}

/// The automaton.
#[derive(Debug)]
struct Rules {
    /// The number of the block of classes, for each block of code points.
    blocks: Vec<u16>,
    /// The classes of the code points of each different block.
    classes: Vec<u8>,
    /// The next state, for each state and class.
    next: Vec<u8>,
    meanings: Vec<Meaning>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    Rules::parse(include_str!("word_rules.txt")).expect("the rules are part of the program")
});

impl Rules {
    /// Parses the text of the rules, or returns `None` if it is malformed.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let lines = lines.strip_prefix(&["classes"])?;
        let end = lines.iter().position(|line| *line == "states")?;
        let (ranges, states) = (&lines[..end], &lines[end + 1..]);
        let mut class_of = vec![0u8; CODE_POINTS];
        for range in ranges.iter().flat_map(|line| line.split(' ')) {
            let (start, class) = range.split_once(':')?;
            let class = class.parse().ok().filter(|class| usize::from(*class) < CLASSES)?;
            class_of.get_mut(usize::from_str_radix(start, 16).ok()?..)?.fill(class);
        }
        let (mut blocks, mut classes) = (Vec::new(), Vec::<u8>::new());
        for block in class_of.chunks(BLOCK) {
            let known = classes.chunks(BLOCK).position(|other| other == block);
            blocks.push(known.unwrap_or(classes.len() / BLOCK) as u16);
            if known.is_none() {
                classes.extend_from_slice(block);
            }
        }
        let (mut next, mut meanings) = (Vec::new(), Vec::new());
        for line in states {
            let mut row = line.split(' ');
            meanings.push(match row.next()? {
                "." => Meaning::Unfinished,
                "-" => Meaning::Skipped,
                "w" => Meaning::Word,
                _ => return None,
            });
            let start = next.len();
            for target in row {
                let target = if target == "-" { NONE } else { target.parse().ok()? };
                (target == NONE || usize::from(target) < states.len()).then_some(())?;
                next.push(target);
            }
            next.resize(start + CLASSES, NONE);
        }
        Some(Self { blocks, classes, next, meanings })
    }

    fn class(&self, letter: char) -> usize {
        let code = u32::from(letter) as usize;
        let block = usize::from(self.blocks[code / BLOCK]);
        usize::from(self.classes[block * BLOCK + code % BLOCK])
    }

    /// Returns the length in bytes of the longest piece at the start of `text` that has a meaning, and the meaning.
    fn piece(&self, text: &str) -> (usize, Meaning) {
        let mut piece = (0, Meaning::Unfinished);
        let (mut state, mut units) = (START, 0);
        let mut letters = text.char_indices();
        while let Some((_, letter)) = letters.next() {
            units += letter.len_utf16();
            if units > MAX_WORD_UNITS {
                break;
            }
            state = self.next[usize::from(state) * CLASSES + self.class(letter)];
            if state == NONE {
                break;
            }
            let meaning = self.meanings[usize::from(state)];
            if meaning != Meaning::Unfinished {
                piece = (letters.offset(), meaning);
            }
        }
        piece
    }
}

/// Calls `emit` with every word of a text, in order.
pub(super) fn for_each_word(text: &str, mut emit: impl FnMut(&str)) {
    let rules = &*RULES;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, meaning) = rules.piece(rest);
        let (piece, after) = rest.split_at(length.max(first.len_utf8()));
        if meaning == Meaning::Word {
            emit(piece);
        }
        rest = after;
    }
}
