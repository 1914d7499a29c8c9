//! Products of bfloat16 in AMX tiles (Intel, "Architecture Instruction Set Extensions Programming
//! Reference", chapter 3): 16 rows by 16 columns, 32 numbers deep at a time.

#![expect(unsafe_code, reason = "tiles exist in assembly only")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::{Bf16, Product, ROWS_UNIT};

const TILE_ROWS: usize = 16;
const TILE_ROW_BYTES: usize = 64;

/// Linux gives a process the registers of tiles, which are large, on request only.
const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
const XFEATURE_TILE_DATA: libc::c_long = 18;

/// What the tiles are: 16 rows of 64 bytes, all eight of them.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

static TILE_CONFIG: TileConfig = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = TILE_ROW_BYTES as u8;
        bytes[48 + tile] = TILE_ROWS as u8;
        tile += 1;
    }
    TileConfig(bytes)
};

/// Whether the processor has tiles of bfloat16, and the system lets this process use them.
pub(super) fn are_there() -> bool {
    static ARE_THERE: OnceLock<bool> = OnceLock::new();
    *ARE_THERE.get_or_init(|| {
        let found = __cpuid_count(7, 0).edx;
        let (bf16, tile) = (found >> 22 & 1 == 1, found >> 24 & 1 == 1);
        if !(cfg!(target_os = "linux") && bf16 && tile) {
            return false;
        }
        // SAFETY: asks for the use of registers; touches no memory.
        let refused =
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) };
        refused == 0
    })
}

/// Gives the calling thread its tiles.
pub(super) fn configure() {
    // SAFETY: the configuration has 64 bytes; tiles hold nothing of anybody else's.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILE_CONFIG, options(nostack, readonly)) };
}

/// Gives them back, which makes a switch to another thread cheap again.
pub(super) fn release() {
    // SAFETY: no tile holds anything that is still wanted.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The product in one or two tiles of rows. Its lengths were checked up to whole tiles.
pub(super) fn multiply(product: &mut Product<'_, Bf16>) {
    if product.steps.is_empty() || product.rows == 0 {
        return;
    }
    if product.rows > ROWS_UNIT { multiply_two(product) } else { multiply_one(product) }
}

fn multiply_one(product: &mut Product<'_, Bf16>) {
    // SAFETY: the offsets of every step, the rows and the sums were checked to lie in their slices;
    // `configure` was called on this thread by who made the proof that is needed to get here.
    unsafe {
        asm!(
            "test {adds}, {adds}",
            "jz 3f",
            "tileloadd tmm0, [{sums} + {sum_bytes} * 1]",
            "tileloadd tmm1, [{sums} + {sum_bytes} * 1 + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0", "tilezero tmm1",
            "2:",
            "mov {upper}, [{step}]",
            "mov {right}, [{step} + 8]",
            "lea {upper}, [{left_start} + {upper} * 2]",
            "lea {right}, [{right_start} + {right} * 2]",
            "tileloadd tmm4, [{upper} + {left_bytes} * 1]",
            "tileloadd tmm6, [{right} + {right_bytes} * 1]",
            "tileloadd tmm7, [{right} + {right_bytes} * 1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {step}, 16",
            "cmp {step}, {end}",
            "jne 2b",
            "tilestored [{sums} + {sum_bytes} * 1], tmm0",
            "tilestored [{sums} + {sum_bytes} * 1 + 64], tmm1",
            adds = in(reg) u64::from(product.adds),
            step = inout(reg) product.steps.as_ptr() => _,
            end = in(reg) product.steps.as_ptr_range().end,
            left_start = in(reg) product.left.as_ptr(),
            right_start = in(reg) product.right.as_ptr(),
            left_bytes = in(reg) product.left_stride * size_of::<Bf16>(),
            right_bytes = in(reg) product.right_columns * 2 * size_of::<Bf16>(),
            sums = in(reg) product.sums.as_mut_ptr(),
            sum_bytes = in(reg) product.sums_stride * size_of::<f32>(),
            upper = out(reg) _, right = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

fn multiply_two(product: &mut Product<'_, Bf16>) {
    let lower_sums = product.sums[TILE_ROWS * product.sums_stride..].as_mut_ptr();
    // SAFETY: as for one tile of rows; the second begins 16 rows on.
    unsafe {
        asm!(
            "test {scratch}, {scratch}",
            "jz 3f",
            "tileloadd tmm0, [{sums} + {sum_bytes} * 1]",
            "tileloadd tmm1, [{sums} + {sum_bytes} * 1 + 64]",
            "tileloadd tmm2, [{lower_sums} + {sum_bytes} * 1]",
            "tileloadd tmm3, [{lower_sums} + {sum_bytes} * 1 + 64]",
            "jmp 2f",
            "3:",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "mov {scratch}, [{step}]",
            "lea {scratch}, [{left_start} + {scratch} * 2]",
            "tileloadd tmm4, [{scratch} + {left_bytes} * 1]",
            "add {scratch}, {lower}",
            "tileloadd tmm5, [{scratch} + {left_bytes} * 1]",
            "mov {scratch}, [{step} + 8]",
            "lea {scratch}, [{right_start} + {scratch} * 2]",
            "tileloadd tmm6, [{scratch} + {right_bytes} * 1]",
            "tileloadd tmm7, [{scratch} + {right_bytes} * 1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {step}, 16",
            "cmp {step}, {end}",
            "jne 2b",
            "tilestored [{sums} + {sum_bytes} * 1], tmm0",
            "tilestored [{sums} + {sum_bytes} * 1 + 64], tmm1",
            "tilestored [{lower_sums} + {sum_bytes} * 1], tmm2",
            "tilestored [{lower_sums} + {sum_bytes} * 1 + 64], tmm3",
            scratch = inout(reg) u64::from(product.adds) => _,
            step = inout(reg) product.steps.as_ptr() => _,
            end = in(reg) product.steps.as_ptr_range().end,
            left_start = in(reg) product.left.as_ptr(),
            right_start = in(reg) product.right.as_ptr(),
            left_bytes = in(reg) product.left_stride * size_of::<Bf16>(),
            lower = in(reg) TILE_ROWS * product.left_stride * size_of::<Bf16>(),
            right_bytes = in(reg) product.right_columns * 2 * size_of::<Bf16>(),
            sums = in(reg) product.sums.as_mut_ptr(),
            lower_sums = in(reg) lower_sums,
            sum_bytes = in(reg) product.sums_stride * size_of::<f32>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
