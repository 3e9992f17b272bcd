//! What plugins say about a request: counted, logged, explained.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use cardea_registry_api::{Name, plugin::Kind};

use super::Chain;

/// Whose a policy is.
#[derive(Debug)]
pub(crate) struct Head {
    /// The plugin.
    pub(crate) name: Name,
    /// Its kind.
    pub(crate) kind: Kind,
    /// It decides, but does nothing.
    pub(crate) shadow: bool,
    pub(super) tallies: Box<[Tally]>,
}

/// What a plugin may say, and how often it did.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) verdict: Box<str>,
    pub(crate) count: Arc<AtomicU64>,
}

/// The most that can be said about one request: by each stage, one of which speaks up to eight
/// times.
const MOST_SAID: usize = Kind::ALL.len() + 7;

/// What was said, by stage and by the index of the tally.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    all: [(u8, u16); MOST_SAID],
    count: u8,
}

/// Whether a request is there, or somebody asks what would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It counts.
    Real,
    /// Nothing is counted, and nothing used up.
    Asking,
}

/// The verdicts of those that let pass or stop, by their index.
pub(super) const PASSED: usize = 0;
pub(super) const STOPPED: usize = 1;

impl Said {
    pub(crate) fn add(&mut self, head: &Head, verdict: usize, mode: Mode) {
        if mode == Mode::Real
            && let Some(tally) = head.tallies.get(verdict)
        {
            tally.count.fetch_add(1, Relaxed);
        }
        let place = self.all.get_mut(usize::from(self.count));
        if let (Some(place), Ok(verdict)) = (place, u16::try_from(verdict)) {
            *place = (head.kind as u8, verdict);
            self.count += 1;
        }
    }

    /// Whether nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Plugin and verdict, in order.
    pub(crate) fn each<'c>(&self, chain: &'c Chain) -> impl Iterator<Item = (&'c Head, &'c str)> {
        let all = self.all.into_iter().take(usize::from(self.count));
        all.filter_map(|(kind, verdict)| {
            let head = chain.heads().find(|head| head.kind as u8 == kind)?;
            let tally = head.tallies.get(usize::from(verdict))?;
            Some((head, &*tally.verdict))
        })
    }
}
