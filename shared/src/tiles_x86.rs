//! The AMX tiles of a processor (Intel, "Architecture Instruction Set Extensions Programming Reference",
//! chapter 3): whether they may be used, and a thread's taking and giving back of them.

#![expect(unsafe_code, reason = "tiles exist in assembly only")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub const TILE_ROW_BYTES: usize = 64;

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
pub fn are_there() -> bool {
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
pub fn configure() {
    // SAFETY: the configuration has 64 bytes; tiles hold nothing of anybody else's.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILE_CONFIG, options(nostack, readonly)) };
}

/// Gives them back, which makes a switch to another thread cheap again.
pub fn release() {
    // SAFETY: no tile holds anything that is still wanted.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
