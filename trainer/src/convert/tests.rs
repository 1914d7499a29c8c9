//! tmp
use super::*;
#[test]
fn tmp() {
    let input = std::env::var_os("GGUF").unwrap();
    let output = std::env::var_os("OUT").unwrap();
    let t = std::time::Instant::now();
    let s =
        convert_gguf(Path::new(&input), Path::new(&output), Dtype::Bf16, &mut |_, _| {}).unwrap();
    println!("{s:?} {:?}", t.elapsed());
}
