//! Products of bfloat16 in AMX tiles (Intel, "Architecture Instruction Set Extensions Programming
//! Reference", chapter 3): 16 rows by 16 columns, 32 numbers deep at a time.

#![expect(unsafe_code, reason = "tiles exist in assembly only")]

use std::arch::asm;

use shared::machine::tiles_x86::TILE_ROWS;

use super::{Bf16, Product, ROWS_UNIT};

/// Computes a product in one or two tiles of rows. Its lengths were checked up to whole tiles.
pub(super) fn multiply(product: &mut Product<'_, Bf16>) {
    if product.steps.is_empty() || product.rows == 0 {
        return;
    }
    if product.rows > ROWS_UNIT { multiply_two(product) } else { multiply_one(product) }
}

/// Computes up to 16 rows: two tiles of sums, one of the left side, two of the right side. The loop runs over
/// the steps, whose numbers are loaded while the sums stay in their tiles.
fn multiply_one(product: &mut Product<'_, Bf16>) {
    // SAFETY: the offsets of every step, the rows and the sums were checked to lie in their slices. The
    // caller holds an `EngagedThread`, so `configure` was called on this thread.
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

/// Computes 17 to 32 rows: four tiles of sums, two of the left side, two of the right side. Each tile of the
/// right side, which is the larger one in memory, is loaded once for both tiles of rows.
fn multiply_two(product: &mut Product<'_, Bf16>) {
    let lower_sums = product.sums[TILE_ROWS * product.sums_stride..].as_mut_ptr();
    // SAFETY: as for one tile of rows; the second tile begins 16 rows further.
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
