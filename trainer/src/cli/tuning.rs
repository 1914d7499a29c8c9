//! Settings of C libraries that come from the environment at process start.
//!
//! libgomp, glibc and libtorch read them before `main`, so the program restarts itself with them. Settings of
//! the user are kept.

/// Name and value of each setting.
const SETTINGS: [(&str, &str); 6] = [
    // Waiting threads must not spin: on shared cores, spinning makes decoding ten times slower.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // Freed tensors stay with the process: returning each one to the system and faulting it in again nearly
    // halves the speed of a forward and backward pass. Only the largest tensors, the logits, are returned: if
    // kept, they would fragment the heap.
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_TOP_PAD_", "67108864"),
    // oneDNN prepares bfloat16 products for each size and by default caches 1,024 of them with their scratch
    // memory: hundreds of MiB, although sizes rarely recur after a step. 128 are enough for one step.
    ("LRU_CACHE_CAPACITY", "128"),
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"),
];
/// The variable that marks the restarted process.
pub(super) const MARK: &str = "TRAINER_TUNED";

/// Restarts this process with the settings above, once. Returns if it already has them, or if the restart fails,
/// which only costs speed.
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
    tracing::debug!(%error, "cannot restart with tuned settings");
}

#[cfg(not(unix))]
pub fn restart_tuned() {}
