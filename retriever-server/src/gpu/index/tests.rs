//! Several emulated devices behind one index.

use std::sync::atomic::{AtomicUsize, Ordering};

use shared::contract::splitmix::numbers;

use super::*;
use crate::gpu::emulated::Emulated;

const DIMENSION: usize = 40;
const COUNT: usize = 9_000;

fn never() -> bool {
    false
}

fn stored(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn index(numbers: &[f32], format: DeviceFormat, parts: usize) -> GpuIndex {
    let layout = Layout { format, dimension: DIMENSION };
    let share = COUNT.div_ceil(parts);
    let parts =
        numbers.chunks(share * DIMENSION).enumerate().map(|(device, numbers)| LoadedShard {
            device,
            searcher: Emulated::new(layout, numbers),
            first_row: (device * share) as u32,
        });
    GpuIndex::over(layout, parts.collect(), 2).unwrap()
}

#[test]
fn devices_together_find_what_the_processor_finds() {
    let numbers_of_rows = numbers(COUNT * DIMENSION, &mut 11);
    let bytes = stored(&numbers_of_rows);
    let rows = Rows::new(&bytes, RowFormat::F32, DIMENSION).unwrap();
    for (format, parts, count, top_k) in [
        (DeviceFormat::Halves, 1, 3, 10),
        (DeviceFormat::Halves, 3, 300, 10),
        (DeviceFormat::Bytes, 2, 5, 20),
        (DeviceFormat::Bytes, 1, 20, 3),
        (DeviceFormat::Halves, 2, 1, 1500),
        // More than the devices keep.
        (DeviceFormat::Halves, 2, 1, 2048),
        (DeviceFormat::Halves, 2, 1, 0),
        (DeviceFormat::Halves, 2, 0, 5),
    ] {
        let queries = numbers(count * DIMENSION, &mut 12);
        let expected = vector::top_k(&rows, &queries, top_k, 1, &never);
        let hits = index(&numbers_of_rows, format, parts)
            .search(&rows, &queries, top_k, 1, &never)
            .unwrap();
        assert_eq!(hits, expected, "{format:?}, {parts} parts, {count} queries, top {top_k}");
    }
}

#[test]
fn a_stop_ends_the_search() {
    let all = numbers(COUNT * DIMENSION, &mut 13);
    let bytes = stored(&all);
    let rows = Rows::new(&bytes, RowFormat::F32, DIMENSION).unwrap();
    let index = index(&all, DeviceFormat::Halves, 2);
    assert_eq!(index.search(&rows, &all[..DIMENSION], 5, 1, &|| true), Ok(None));
    let asked = AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 1;
    // There are several batches, and the second one is never started.
    let queries = &all[..600 * DIMENSION];
    assert_eq!(index.search(&rows, queries, 5, 1, &stop), Ok(None));
    assert!(index.search(&rows, &queries[..DIMENSION], 5, 1, &never).unwrap().is_some());
}

#[test]
fn without_a_device_only_auto_falls_back_to_the_processor() {
    let bytes = stored(&[1.0; DIMENSION]);
    let rows = Rows::new(&bytes, RowFormat::F32, DIMENSION).unwrap();
    let open = |device| {
        let options = GpuOptions { device, format: RowFormat::F32, threads: 1 };
        GpuIndex::open(&rows, &options)
    };
    assert!(open(Device::Cpu).unwrap().is_none());
    if devices().is_err() {
        assert!(open(Device::Auto).unwrap().is_none());
        for device in [Device::Cuda(0), Device::EveryCuda] {
            let error = open(device).unwrap_err();
            assert!(matches!(error, GpuError::NoDriver | GpuError::NoDevice(_)), "{error}");
        }
    } else {
        assert!(matches!(open(Device::Cuda(999)), Err(GpuError::NoSuchDevice { .. })));
    }
}
