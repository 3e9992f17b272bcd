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

/// The most pipes of one worker through which bodies move.
const PIPES: u64 = 256;

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

/// How many client connections there may be with so many descriptors, where each worker may have so
/// many copies on their way: half of them, because a busy one needs another to a peer, and clients
/// that took the last would leave none for those; and something is always kept for everything else.
pub(crate) fn seats(asked: usize, descriptors: u64, workers: usize, copies: usize) -> usize {
    let most = (descriptors - besides(descriptors, workers, copies)) / 2;
    asked
        .min(usize::try_from(most).unwrap_or(usize::MAX))
        .max(1)
}

/// How many pipes each worker may use, at two descriptors each: a sixteenth of all descriptors at most.
pub(crate) fn pipes(descriptors: u64, workers: usize) -> usize {
    let each = descriptors / 32 / (workers as u64).max(1);
    usize::try_from(each.min(PIPES)).unwrap_or(0)
}

/// How many descriptors are for everything but clients and the connections to peers for them.
fn besides(descriptors: u64, workers: usize, copies: usize) -> u64 {
    let pipes = 2 * pipes(descriptors, workers) as u64;
    let each = EACH_WORKER.saturating_add(copies as u64 + pipes);
    let all = BESIDES.saturating_add(each.saturating_mul(workers as u64));
    all.min(descriptors / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_is_had_where_there_is_plenty() {
        assert_eq!(seats(65_536, 1 << 20, 16, 64), 65_536);
        assert_eq!(seats(65_536, u64::MAX, 1, 64), 65_536);
        assert_eq!(seats(65_536, 1024, 2, 64), 384);
        assert_eq!(seats(65_536, 20_000, 2, 64), 9248);
    }

    #[test]
    fn pipes_never_take_what_others_need() {
        assert_eq!(pipes(1 << 20, 16), 256);
        assert_eq!(pipes(20_000, 2), 256);
        assert_eq!(pipes(1024, 2), 16);
        assert_eq!(pipes(8, 1), 0);
    }

    proptest! {
        /// Each client's is left another one, and with many all that is needed besides.
        #[test]
        fn something_is_left(
            asked in 1..1_000_000_usize,
            descriptors in 8..10_000_000_u64,
            workers in 1..64_usize,
            copies in 1..=4096_usize,
        ) {
            let seats = seats(asked, descriptors, workers, copies);
            prop_assert!((1..=asked).contains(&seats));
            let pipes = 2 * pipes(descriptors, workers) as u64;
            prop_assert!(pipes * workers as u64 <= descriptors / 16);
            let needed = BESIDES + (EACH_WORKER + copies as u64 + pipes) * workers as u64;
            prop_assert!(descriptors >= 2 * seats as u64 + needed.min(descriptors / 4));
        }
    }
}
