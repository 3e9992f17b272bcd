//! Large pages for the allocator's memory. With thousands of routes what one request needs of them lies on as
//! many pages of 4 KiB, and to find where each of those is takes longer than to read what is there.

use std::{ffi::c_void, ops::Range, ptr::NonNull};

use nix::sys::mman::{MmapAdvise, madvise};

/// Asks for pages of 2 MiB where the allocator's memory is touched for the first time from here on. Where the
/// system has none (`/sys/kernel/mm/transparent_hugepage/enabled` says `never`) the small ones remain.
pub(crate) fn ask() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // Where something is that was allocated, the allocator's other memory is: it reserves a GiB at a time.
    let something = Box::new(0u8);
    let Some(heap) = mapping_of(&maps, std::ptr::from_ref(&*something).addr()) else {
        tracing::debug!("no large pages: the allocator's memory is not to be found");
        return;
    };
    let begin = std::ptr::with_exposed_provenance_mut::<c_void>(heap.start);
    let Some(begin) = NonNull::new(begin) else {
        return;
    };
    // It says which pages hold what will be written, and touches nothing that is there (madvise(2),
    // MADV_HUGEPAGE); should another mapping be in this one's place meanwhile, that goes for it.
    #[allow(unsafe_code, reason = "nothing that can be seen is changed")]
    let done = unsafe { madvise(begin, heap.len(), MmapAdvise::MADV_HUGEPAGE) };
    if let Err(error) = done {
        tracing::debug!(%error, "no large pages");
    }
}

/// The private memory of no file that an address is in, as `/proc/self/maps` says.
fn mapping_of(maps: &str, address: usize) -> Option<Range<usize>> {
    let mapping = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let is_private = fields.next()? == "rw-p";
        // Behind offset and device.
        let is_of_no_file = fields.nth(2)? == "0";
        let [begin, end] = [begin, end].map(|text| usize::from_str_radix(text, 16));
        let range = begin.ok()?..end.ok()?;
        (is_private && is_of_no_file && range.contains(&address)).then_some(range)
    };
    maps.lines().find_map(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_no_file_is_meant() {
        let maps = "\
20000000000-20040000000 rw-p 00000000 00:00 0
55d0a0100000-55d0a0300000 r-xp 00100000 fe:00 42 /usr/bin/cardea
55d0a0310000-55d0a0320000 rw-p 00310000 fe:00 42 /usr/bin/cardea
7f0000200000-7f0000201000 rwxp 00000000 00:00 0
7f0000300000-7f0000400000 rw-p 00000000 00:00 0 [anon:mimalloc]
7f0000500000-7f0000600000 rw-s 00000000 00:01 7 /dev/shm/x
";
        let of = |address| mapping_of(maps, address);
        assert_eq!(of(0x200_0000_0000), Some(0x200_0000_0000..0x200_4000_0000));
        assert_eq!(of(0x200_4000_0000), None);
        assert_eq!(
            of(0x7f00_003f_ffff),
            Some(0x7f00_0030_0000..0x7f00_0040_0000)
        );
        for other in [0x55d0_a010_0000, 0x55d0_a031_0000, 0x7f00_0020_0000] {
            assert_eq!(of(other), None, "{other:x}");
        }
        assert_eq!(of(0x7f00_0050_0000), None);
        assert_eq!(mapping_of("", 1), None);
        assert_eq!(mapping_of("what is this\n-\n", 1), None);
    }
}
