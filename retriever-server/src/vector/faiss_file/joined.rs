//! Files mapped one behind the other, as if they were one. That needs every file but the last to be
//! of whole pages, as those are that `split --bytes=40G` writes.

#![expect(unsafe_code, reason = "files are mapped at fixed places of a range that was reserved")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use stable_deref_trait::StableDeref;
use tantivy::directory::OwnedBytes;

/// The bytes of all files.
#[derive(Debug)]
struct JoinedMap {
    start: NonNull<u8>,
    length_bytes: usize,
}

/// Maps files of these sizes one behind the other.
///
/// All sizes but the last must be multiples of [`page_bytes`], and none 0.
pub(super) fn map(files: &[(File, usize)]) -> io::Result<OwnedBytes> {
    let unfit = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()));
    let mut length_bytes = 0usize;
    for (place, &(_, bytes)) in files.iter().enumerate() {
        let is_last = place + 1 == files.len();
        if bytes == 0 || !(is_last || bytes.is_multiple_of(page_bytes()?)) {
            return unfit("a part is not of whole pages");
        }
        length_bytes = match length_bytes.checked_add(bytes) {
            Some(sum) if isize::try_from(sum).is_ok() => sum,
            _ => return unfit("the parts are larger than the address space"),
        };
    }
    let map = JoinedMap::reserve(length_bytes)?;
    let mut offset_bytes = 0;
    for (file, bytes) in files {
        map.place(file, offset_bytes, *bytes)?;
        offset_bytes += bytes;
    }
    Ok(OwnedBytes::new(map))
}

/// Bytes of a page of memory.
pub(super) fn page_bytes() -> io::Result<usize> {
    // SAFETY: it takes a number and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

impl JoinedMap {
    /// Addresses that nothing else is given, and that cannot be read yet.
    fn reserve(length_bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without an address, the range is one that nothing else uses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length_bytes, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, length_bytes }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Maps a file over the bytes from `offset_bytes` on, which is a multiple of a page.
    fn place(&self, file: &File, offset_bytes: usize, bytes: usize) -> io::Result<()> {
        let end = offset_bytes.checked_add(bytes);
        if end.is_none_or(|end| end > self.length_bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the range that is replaced lies within the one that was reserved, as was just
        // compared, and nobody has been given a reference to it: this is done before the map is
        // handed out.
        let placed = unsafe {
            let at = self.start.as_ptr().add(offset_bytes).cast();
            libc::mmap(at, bytes, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if placed == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Deref for JoinedMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: all bytes are mapped readable until the map is dropped, since `map` hands it out
        // with every file in its place. As of every mapped file here, the content must not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes) }
    }
}

impl Drop for JoinedMap {
    fn drop(&mut self) {
        // SAFETY: the range is this map's alone, and no reference outlives it. What cannot be
        // unmapped stays, which harms nobody.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}

// SAFETY: the bytes stand at their addresses until the map is dropped, wherever it is moved.
unsafe impl StableDeref for JoinedMap {}

// SAFETY: the map owns its range of addresses, and only reads it.
unsafe impl Send for JoinedMap {}

// SAFETY: as above: nothing writes.
unsafe impl Sync for JoinedMap {}
