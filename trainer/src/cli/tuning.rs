//! Settings of the C libraries that only the environment of a starting process can make.
//!
//! libgomp, glibc and libtorch read theirs before `main`, so the program starts itself again with them. What
//! the user has set stays.

/// Name and value of each setting.
const SETTINGS: [(&str, &str); 6] = [
    // Threads that wait must not spin: on shared cores spinning threads decode ten times slower.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // Freed tensors stay with the process: giving each one back to the system and faulting it in
    // again nearly halves the speed of a forward and backward pass.
    // Only the largest, logits, go: kept as well, they would break the heap into pieces.
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_TOP_PAD_", "67108864"),
    // Products in bfloat16 are prepared for each size they have, and 1,024 of these kept, with room to
    // work in: hundreds of MiB, though the sizes of a step hardly ever come again. A step's own are kept.
    ("LRU_CACHE_CAPACITY", "128"),
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"),
];
/// Set in the process that has been started again.
pub(super) const MARK: &str = "TRAINER_TUNED";

/// Replaces this process by itself with the settings above, once. Returns if there is nothing to
/// do, or if it cannot be done, which costs speed alone.
#[cfg(unix)]
pub fn restart_tuned() {
    use std::os::unix::process::CommandExt as _;

    if std::env::var_os(MARK).is_some() {
        return;
    }
    let missing = SETTINGS.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let Ok(program) = std::env::current_exe() else { return };
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .envs(missing.copied())
        .env(MARK, "1")
        .exec();
    tracing::debug!(%error, "cannot start again with tuned settings");
}

#[cfg(not(unix))]
pub fn restart_tuned() {}
