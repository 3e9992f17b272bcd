//! File descriptors: how many there may be, and how many client connections they are enough for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the process needs besides connections: listening sockets, the log, the disk copy, the admin
/// port, the registry, checks.
const BESIDES: u64 = 64;
/// What each worker needs besides, with newcomers that are told that there is no room.
const EACH_WORKER: u64 = 2 * CROWD as u64 + 16;
/// How many newcomers of one worker may wait for a place at a time; and how many may be told that
/// there is none.
pub(crate) const CROWD: usize = 64;

/// Raises the limit as far as the system lets it, and gives it.
pub(crate) fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return u64::MAX;
    };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of file descriptors cannot be raised");
        return soft;
    }
    hard
}

/// How many client connections there may be with so many descriptors: three of five, because a busy
/// one needs another to a peer and an idle one does not; and something is always kept for everything
/// else.
pub(crate) fn seats(asked: usize, descriptors: u64, workers: usize) -> usize {
    let besides = BESIDES.saturating_add(EACH_WORKER.saturating_mul(workers as u64));
    let besides = besides.min(descriptors / 4);
    let most = usize::try_from((descriptors - besides) / 5 * 3).unwrap_or(usize::MAX);
    asked.min(most).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_is_had_where_there_is_plenty() {
        assert_eq!(seats(65_536, 1 << 20, 16), 65_536);
        assert_eq!(seats(65_536, u64::MAX, 1), 65_536);
        assert_eq!(seats(65_536, 1024, 2), 459);
        assert_eq!(seats(65_536, 20_000, 2), 11_787);
    }

    proptest! {
        /// Two of five are left at least, and with many all that is needed besides.
        #[test]
        fn something_is_left(asked in 1..1_000_000_usize, descriptors in 8..10_000_000_u64, workers in 1..64_usize) {
            let seats = seats(asked, descriptors, workers);
            prop_assert!((1..=asked).contains(&seats));
            let left = descriptors - seats as u64;
            let needed = BESIDES + EACH_WORKER * workers as u64;
            prop_assert!(left >= needed.min(descriptors / 4));
            prop_assert!(5 * left >= 2 * descriptors);
        }
    }
}
