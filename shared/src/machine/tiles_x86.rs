//! The AMX tiles of a processor (Intel, "Architecture Instruction Set Extensions Programming Reference",
//! chapter 3): detection, configuration for a thread, and release.

#![expect(unsafe_code, reason = "tiles exist in assembly only")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub const TILE_ROW_BYTES: usize = 64;

/// The request for tile registers: Linux grants them only on request, because they are large.
const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
const XFEATURE_TILE_DATA: libc::c_long = 18;

/// The configuration of all eight tiles: 16 rows of 64 bytes each.
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

/// Returns `true` if the processor has tiles for bfloat16 and the system lets this process use them.
pub fn are_there() -> bool {
    static ARE_THERE: OnceLock<bool> = OnceLock::new();
    *ARE_THERE.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        let (bf16, tile) = (features >> 22 & 1 == 1, features >> 24 & 1 == 1);
        if !(cfg!(target_os = "linux") && bf16 && tile) {
            return false;
        }
        // SAFETY: the system call requests the use of registers; it accesses no memory.
        let refused =
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) };
        refused == 0
    })
}

/// Configures the tiles of the calling thread.
pub fn configure() {
    // SAFETY: the configuration has the 64 bytes that the instruction reads, and the tiles belong to this thread.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILE_CONFIG, options(nostack, readonly)) };
}

/// Releases the tiles of the calling thread, which makes context switches cheap again.
pub fn release() {
    // SAFETY: the instruction clears only tiles of this thread, and callers have stored their results.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
