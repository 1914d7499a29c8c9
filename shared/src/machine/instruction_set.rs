//! The vector instructions that kernels may use: those of the processor, up to a limit that the environment can set.
//!
//! Every kernel that exists in several forms asks [`widest`], so that one variable runs the whole program as a
//! narrower processor would.

use std::env;
use std::sync::OnceLock;

/// The variable that sets the limit. It serves tests and the search for faults: a processor computes the same results
/// with narrower instructions, only more slowly and with other last bits.
pub const LIMIT_VARIABLE: &str = "INSTRUCTION_SET_MAX";

/// A level of instructions. Each level includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain loops, as the compiler translates them for every processor.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 BF16.
    Avx512Bf16,
    /// AMX tiles of bfloat16, which the operating system lets this process use.
    Amx,
}

impl InstructionSet {
    /// Every level, narrowest first.
    pub const ALL: [Self; 5] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The word for this level in [`LIMIT_VARIABLE`].
    pub fn word(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }
}

/// A limit in the environment that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LIMIT_VARIABLE} is \"{0}\", expected portable, avx2, avx512, avx512bf16 or amx")]
pub struct UnknownLimit(String);

/// Returns the widest level that the processor has and the environment allows. The answer never changes within a
/// process.
pub fn widest() -> InstructionSet {
    static WIDEST: OnceLock<InstructionSet> = OnceLock::new();
    *WIDEST.get_or_init(|| {
        // Programs refuse a wrong limit at their start, by `check_limit`.
        let limit = limit().ok().flatten().unwrap_or(InstructionSet::Amx);
        detected().min(limit)
    })
}

/// Checks the limit in the environment.
///
/// # Errors
/// A limit that names no level.
pub fn check_limit() -> Result<(), UnknownLimit> {
    limit().map(|_| ())
}

/// Reads the limit. An empty variable counts as not set.
fn limit() -> Result<Option<InstructionSet>, UnknownLimit> {
    let value = env::var_os(LIMIT_VARIABLE).unwrap_or_default();
    parse_limit(&value.to_string_lossy())
}

fn parse_limit(value: &str) -> Result<Option<InstructionSet>, UnknownLimit> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(None);
    }
    let level = InstructionSet::ALL.into_iter().find(|level| level.word() == value);
    level.map(Some).ok_or_else(|| UnknownLimit(value.to_owned()))
}

/// Returns the widest level of the processor.
#[cfg(target_arch = "x86_64")]
fn detected() -> InstructionSet {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let bf16 = is_x86_feature_detected!("avx512bf16");
    match (avx2, avx512, bf16) {
        (false, ..) => InstructionSet::Portable,
        (true, false, _) => InstructionSet::Avx2,
        (true, true, false) => InstructionSet::Avx512,
        (true, true, true) if super::tiles_x86::are_there() => InstructionSet::Amx,
        (true, true, true) => InstructionSet::Avx512Bf16,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> InstructionSet {
    InstructionSet::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_limit_and_other_words_are_refused_by_name() {
        for level in InstructionSet::ALL {
            assert_eq!(parse_limit(level.word()), Ok(Some(level)));
        }
        assert_eq!(parse_limit(" "), Ok(None));
        let refused = parse_limit("sse").unwrap_err().to_string();
        assert!(refused.contains("\"sse\"") && refused.contains("avx512bf16"), "{refused}");
    }

    #[test]
    fn the_limit_binds() {
        let limit = limit().unwrap().unwrap_or(InstructionSet::Amx);
        assert!(widest() <= limit && widest() <= detected());
        assert!(widest() == limit || widest() == detected());
    }
}
