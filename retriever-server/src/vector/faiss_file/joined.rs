//! Several files mapped into one range of addresses, one behind the other. Every file except the last
//! must consist of whole pages, as the files of `split --bytes=40G` do.

#![expect(unsafe_code, reason = "files are mapped at fixed addresses of a reserved range")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use stable_deref_trait::StableDeref;
use tantivy::directory::OwnedBytes;

/// A mapped range with the bytes of all files.
#[derive(Debug)]
struct JoinedMap {
    start: NonNull<u8>,
    length_bytes: usize,
}

/// Maps files, given with their sizes, one behind the other.
///
/// # Errors
/// If a size is 0, or is not a multiple of [`page_bytes`] and not the last; if the system refuses.
pub(super) fn map(files: &[(File, usize)]) -> io::Result<OwnedBytes> {
    let unfit = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()));
    let mut length_bytes = 0usize;
    for (index, &(_, bytes)) in files.iter().enumerate() {
        let is_last = index + 1 == files.len();
        if bytes == 0 || !(is_last || bytes.is_multiple_of(page_bytes()?)) {
            return unfit("a part does not consist of whole pages");
        }
        length_bytes = match length_bytes.checked_add(bytes) {
            Some(sum) if isize::try_from(sum).is_ok() => sum,
            _ => return unfit("the parts are larger than the address space"),
        };
    }
    let map = JoinedMap::reserve(length_bytes)?;
    let mut offset_bytes = 0;
    for (file, bytes) in files {
        map.map_at(file, offset_bytes, *bytes)?;
        offset_bytes += bytes;
    }
    Ok(OwnedBytes::new(map))
}

/// Returns the bytes of a page of memory.
pub(super) fn page_bytes() -> io::Result<usize> {
    // SAFETY: it takes a number and returns a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

impl JoinedMap {
    /// Reserves a range of addresses, which cannot be read yet.
    fn reserve(length_bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without a requested address, the system chooses a range that nothing else uses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length_bytes, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, length_bytes }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Maps a file at `offset_bytes`, which is a multiple of a page.
    fn map_at(&self, file: &File, offset_bytes: usize, bytes: usize) -> io::Result<()> {
        let end = offset_bytes.checked_add(bytes);
        if end.is_none_or(|end| end > self.length_bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the range that is replaced is inside the reserved one, as just checked. No reference
        // to it exists, because `map` calls this before it returns the map.
        let mapped = unsafe {
            let address = self.start.as_ptr().add(offset_bytes).cast();
            libc::mmap(address, bytes, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Deref for JoinedMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `map` returns the map only after every file is mapped, so all bytes are readable
        // until it is dropped. The content must not change, as for every mapped file in this crate.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes) }
    }
}

impl Drop for JoinedMap {
    fn drop(&mut self) {
        // SAFETY: only this map uses the range, and no reference outlives it. If unmapping fails, the
        // range stays mapped, which does no harm.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}

// SAFETY: moving the map does not move the bytes, which keep their addresses until it is dropped.
unsafe impl StableDeref for JoinedMap {}

// SAFETY: the map owns its range of addresses, and only reads from it.
unsafe impl Send for JoinedMap {}

// SAFETY: nothing writes to the range, so threads can read it concurrently.
unsafe impl Sync for JoinedMap {}
