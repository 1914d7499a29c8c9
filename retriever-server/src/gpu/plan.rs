//! The distribution of rows over devices. It is planned, and refused if the rows do not fit, before
//! anything is loaded.

use std::ops::Range;

use super::GpuError;
use super::pack::{DeviceFormat, Layout};
use super::shape::{BATCH_QUERIES_MAX, KEEP_MAX, LIST_KEYS};

/// Bytes kept free on every device for the kernels and for the driver's own use at a launch.
const RESERVE_BYTES: u64 = 256 << 20;

/// The number of rows that justifies a further device.
const SHARD_ROWS_MIN: usize = 1 << 16;

/// A device's share of the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// The device's number.
    pub(super) device: usize,
    /// The rows that the device holds.
    pub(super) rows: Range<usize>,
    /// Bytes of these rows.
    pub(super) row_bytes: u64,
    /// Bytes of the buffers of a search.
    pub(super) buffer_bytes: u64,
    /// Bytes that were free before loading.
    pub(super) free_bytes: u64,
}

/// Returns the bytes that a search needs in addition to the rows.
pub(super) fn buffer_bytes(layout: Layout) -> u64 {
    let key = size_of::<u64>();
    // For each query: a list, its results, its threshold, its two counts, and the query itself.
    let query = LIST_KEYS * key + KEEP_MAX * key + key + 2 * size_of::<u32>() + layout.pitch();
    (BATCH_QUERIES_MAX * query) as u64
}

/// Distributes `count` rows over devices, given as (number, free bytes), in proportion to their free
/// memory.
pub(super) fn spread(
    layout: Layout,
    count: usize,
    devices: &[(usize, u64)],
) -> Result<Vec<Shard>, GpuError> {
    let used = devices.len().min(count.div_ceil(SHARD_ROWS_MIN)).max(1);
    let devices = &devices[..used.min(devices.len())];
    let buffer_bytes = buffer_bytes(layout);
    let usable =
        |free: u64| free.saturating_sub(buffer_bytes + RESERVE_BYTES) / layout.row_bytes() as u64;
    let capacity: u128 = devices.iter().map(|&(_, free)| u128::from(usable(free))).sum();
    if capacity < count as u128 || capacity == 0 {
        let needed = |layout: Layout| {
            let rows = count as u64 * layout.row_bytes() as u64;
            rows + devices.len() as u64 * (buffer_bytes + RESERVE_BYTES)
        };
        let bytes = Layout { format: DeviceFormat::Bytes, ..layout };
        return Err(GpuError::TooLarge {
            needed_bytes: needed(layout),
            free_bytes: devices.iter().map(|&(_, free)| free).sum(),
            devices: devices.len(),
            bytes_as_i8: (layout.format != DeviceFormat::Bytes).then(|| needed(bytes)),
        });
    }
    let (mut before, mut first) = (0u128, 0usize);
    let shards = devices.iter().map(|&(device, free_bytes)| {
        before += u128::from(usable(free_bytes));
        // A share ends where the next one begins, rounded up: it exceeds its device's capacity by at
        // most one row, and the reserve covers that.
        let end = (count as u128 * before).div_ceil(capacity) as usize;
        let rows = first..end;
        first = end;
        let row_bytes = (rows.len() * layout.row_bytes()) as u64;
        Shard { device, rows, row_bytes, buffer_bytes, free_bytes }
    });
    Ok(shards.filter(|shard| !shard.rows.is_empty()).collect())
}

/// Returns the text of [`GpuError::TooLarge`].
pub(super) fn too_large(
    needed_bytes: u64,
    free_bytes: u64,
    devices: usize,
    bytes_as_i8: Option<u64>,
) -> String {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let remedy = bytes_as_i8.map_or_else(
        || "use more devices".to_owned(),
        |bytes| format!("use i8 rows ({:.1} GB) or more devices", gigabytes(bytes)),
    );
    format!(
        "the vectors need {:.1} GB with their buffers, but {:.1} GB are free on {devices} CUDA \
         device(s): {remedy}",
        gigabytes(needed_bytes),
        gigabytes(free_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: Layout = Layout { format: DeviceFormat::Halves, dimension: 768 };

    #[test]
    fn every_row_is_on_one_device_in_proportion_to_free_memory() {
        let devices = [(0, 80_000_000_000), (2, 40_000_000_000), (3, 40_000_000_000)];
        let shards = spread(HALVES, 21_015_324, &devices).unwrap();
        assert_eq!(shards.iter().map(|shard| shard.device).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!((shards[0].rows.start, shards[2].rows.end), (0, 21_015_324));
        assert!(shards.windows(2).all(|pair| pair[0].rows.end == pair[1].rows.start));
        for shard in &shards {
            assert_eq!(shard.row_bytes, shard.rows.len() as u64 * 1536);
            assert!(shard.row_bytes + shard.buffer_bytes < shard.free_bytes);
        }
        assert!(shards[0].rows.len() > shards[1].rows.len() * 19 / 10);
    }

    #[test]
    fn few_rows_stay_on_one_device() {
        let shards = spread(HALVES, 13_000, &[(0, 1 << 34), (1, 1 << 34)]).unwrap();
        assert_eq!(shards.len(), 1);
        assert_eq!(shards[0].rows, 0..13_000);
    }

    #[test]
    fn rows_that_do_not_fit_are_refused_with_numbers() {
        let error = spread(HALVES, 21_015_324, &[(0, 24_000_000_000)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the vectors need 32.6 GB with their buffers, but 24.0 GB are free on 1 CUDA device(s): \
             use i8 rows (16.5 GB) or more devices"
        );
        let bytes = Layout { format: DeviceFormat::Bytes, ..HALVES };
        let error = spread(bytes, 21_015_324, &[(0, 8_000_000_000)]).unwrap_err().to_string();
        assert!(error.ends_with("device(s): use more devices"), "{error}");
        assert!(spread(bytes, 21_015_324, &[(0, 24_000_000_000)]).is_ok());
        assert!(spread(bytes, 1, &[(0, 0)]).is_err());
    }
}
