//! Giving back what only the start needed. To read the command line and the settings takes a good part of the
//! program's text, and pages of it that were used once stay mapped: two thirds of what an agent would have
//! resident. They are the file's; those that are needed again are mapped again.

use std::{ffi::c_void, path::Path, ptr::NonNull, time::Duration};

use nix::sys::mman::{MmapAdvise, madvise};

/// How long after the start: services are registered by then, as a rule.
pub(crate) const AFTER: Duration = Duration::from_secs(5);

/// Unmaps the pages of the program's text.
pub(crate) fn forget_start() {
    let maps = std::fs::read_to_string("/proc/self/maps");
    let (Ok(maps), Ok(program)) = (maps, std::fs::read_link("/proc/self/exe")) else {
        return;
    };
    for (begin, length) in texts(&maps, &program) {
        let Some(begin) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(begin))
        else {
            continue;
        };
        // The mapping is private, of a file, and cannot be written to, so that its pages are the file's own
        // and no copies. Without them, whoever comes there has the same ones mapped again (madvise(2),
        // MADV_DONTNEED); what takes the file's place when the program is installed anew is another file.
        #[allow(unsafe_code, reason = "nothing that can be seen is changed")]
        let done = unsafe { madvise(begin, length, MmapAdvise::MADV_DONTNEED) };
        if let Err(error) = done {
            tracing::debug!(%error, "what the start needed cannot be given back");
        }
    }
}

/// Where a program's text is mapped, as `/proc/self/maps` says: begin and length.
fn texts(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let text = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let is_text = fields.next()? == "r-xp";
        // Behind offset, device and inode; a file that was replaced has a word more.
        let path = fields.nth(3)?;
        if !is_text || Path::new(path) != program || fields.next().is_some() {
            return None;
        }
        let [begin, end] = [begin, end].map(|text| usize::from_str_radix(text, 16));
        let begin = begin.ok()?;
        Some((begin, end.ok()?.checked_sub(begin)?))
    };
    maps.lines().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_text_is_meant() {
        let maps = "\
55d0a0000000-55d0a0100000 r--p 00000000 fe:00 42 /usr/bin/cardea
55d0a0100000-55d0a0300000 r-xp 00100000 fe:00 42 /usr/bin/cardea
55d0a0300000-55d0a0310000 r--p 00300000 fe:00 42 /usr/bin/cardea
55d0a0310000-55d0a0320000 rw-p 00310000 fe:00 42 /usr/bin/cardea
7f0000000000-7f0000100000 r-xp 00000000 fe:00 43 /usr/lib/libc.so.6
7f0000200000-7f0000201000 rwxp 00000000 00:00 0
7f0000300000-7f0000301000 r-xp 00000000 00:00 0 [vdso]
";
        let found = texts(maps, Path::new("/usr/bin/cardea"));
        assert_eq!(found, [(0x55d0_a010_0000, 0x20_0000)]);
        let replaced = maps.replace("cardea\n", "cardea (deleted)\n");
        assert_eq!(texts(&replaced, Path::new("/usr/bin/cardea (deleted)")), []);
        assert_eq!(texts("", Path::new("/usr/bin/cardea")), []);
    }
}
