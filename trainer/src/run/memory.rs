//! The memory that this process holds.

/// Returns the memory of freed tensors to the system. Passes of different sizes fragment the heap; without this the
/// process grows with every step.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc offers this as a C function alone")]
pub(super) fn release_freed() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn release_freed() {}

/// Returns the most memory that this process has held so far, in MiB; 0 if the system does not report it.
pub(super) fn peak_mib() -> u64 {
    status_mib("VmHWM:")
}

/// Returns the memory that this process holds now, in MiB; 0 if the system does not report it.
pub(super) fn held_mib() -> u64 {
    status_mib("VmRSS:")
}

fn status_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
