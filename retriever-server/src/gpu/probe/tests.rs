//! The checks for CUDA, on this machine and with a driver that has no device.

use std::process::Command;

use super::*;

/// A driver without a device: initialising it reports that, and every other function is missing.
const STUB: &str = "extern \"C\" int cuInit(unsigned) { return 100; }\n";

/// Prints the result on this machine. The next test also runs it, with a loader path of its own.
#[test]
fn the_checks_never_panic() {
    match devices() {
        Ok(count) => println!("\nchecks: {count} device(s)"),
        Err(error) => println!("\nchecks: {error}"),
    }
}

#[test]
fn a_driver_without_a_device_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("stub.cc"), folder.path().join("libcuda.so.1"));
    std::fs::write(&source, STUB).unwrap();
    let compiled = Command::new("c++")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(compiled.success());
    std::fs::copy(&library, folder.path().join("libcuda.so")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "gpu::probe::tests::the_checks_never_panic"])
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("checks: the NVIDIA driver has no device: CUDA_ERROR_NO_DEVICE"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_panic_of_the_bindings_is_an_error() {
    let error = guarded::<()>(|| panic!("no symbol {}", 7)).unwrap_err();
    assert_eq!(error.to_string(), "CUDA failed: no symbol 7");
    assert!(guarded::<()>(|| panic!("plain")).is_err());
}
