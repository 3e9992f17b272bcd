//! The index over routes: one hash map by host and prefix, and one that says for each host how long
//! its prefixes are. A lookup hashes the path segment by segment and asks only where the host has a
//! prefix that ends there; so it costs what the path is long, however many routes there are. A host
//! with a single route names it at once.
//!
//! Both maps share with their copies what is the same ([`Shards`]): another table, in which one route
//! is another, costs what one route costs. Who changes them is `index.rs`.

use std::sync::Arc;

use cardea_registry_api::route::HostPattern;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    ahead,
    table::{
        NoRoute, RouteEntry,
        path::{BadPath, Path},
        shards::Shards,
    },
};

/// The longest host that can be configured; a longer one only matches `*`.
const MAX_HOST: usize = 253;
/// The bit of all prefixes that have as many segments or more.
const DEEP: u32 = 63;

/// Routes, indexed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    /// By host and prefix.
    entries: Shards<Arc<RouteEntry>>,
    /// By host.
    hosts: Shards<Host>,
}

/// What there is of the host with this hash. Two hosts may share it: then there are bits of both, and a
/// lookup looks where it finds nothing.
#[derive(Debug, Clone)]
pub(super) enum Host {
    /// There is one route. Its number is here, too: to be known before the entry is in a cache.
    Only(Arc<RouteEntry>, u32),
    /// There may be several: a bit for each number of segments that some prefix has.
    Depths(u64),
}

/// The host of a request, as routes are looked for by it.
#[derive(Debug)]
pub(crate) struct Sought {
    text: [u8; MAX_HOST],
    len: usize,
    /// Of the host itself.
    hash: u64,
}

impl Default for Sought {
    fn default() -> Self {
        Self {
            text: [0; MAX_HOST],
            len: 0,
            hash: host_hash(Takes::Exactly, b""),
        }
    }
}

impl Sought {
    /// From a request's `Host` as sent.
    pub(crate) fn new(host: &[u8]) -> Self {
        let mut sought = Self::default();
        sought.set(host);
        sought
    }

    /// Another request's `Host`, as sent.
    pub(crate) fn set(&mut self, host: &[u8]) {
        self.len = canonical_host(host, &mut self.text).len();
        self.hash = host_hash(Takes::Exactly, self.host());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn host(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Which hosts a pattern takes, as a number beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Takes {
    Exactly,
    Below,
    All,
}

/// Where a route is in the index: its host pattern and prefix, as requests are compared with them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    takes: Takes,
    /// How long the host is: [`MAX_HOST`] at most.
    host: u8,
    /// How many segments the prefix has.
    depth: u16,
    /// The host and then the prefix's segments, decoded, each behind a slash: within the entry, unless
    /// they are long.
    text: SmallVec<[u8; 48]>,
}

/// A route that was looked at for a request, for `explain`.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) entry: &'a RouteEntry,
    pub(crate) host_fits: bool,
    pub(crate) path_fits: bool,
}

impl Key {
    /// None: no request can match the prefix.
    pub(crate) fn new(pattern: &HostPattern, prefix: &str) -> Result<Self, BadPath> {
        let (takes, host) = match pattern {
            HostPattern::Exact(name) => (Takes::Exactly, name.as_str()),
            HostPattern::Suffix(name) => (Takes::Below, name.as_str()),
            HostPattern::Any => (Takes::All, ""),
        };
        let mut text = SmallVec::from_slice(trim_dot(host.as_bytes()));
        let (host, mut depth) = (u8::try_from(text.len()).unwrap_or(u8::MAX), 0u16);
        Path::parse(prefix.as_bytes())?.segments(|segment| {
            depth = depth.saturating_add(1);
            text.push(b'/');
            text.extend_from_slice(segment);
            true
        });
        Ok(Self {
            takes,
            host,
            depth,
            text,
        })
    }

    fn host(&self) -> &[u8] {
        &self.text[..usize::from(self.host)]
    }

    fn prefix(&self) -> &[u8] {
        &self.text[usize::from(self.host)..]
    }

    pub(super) fn host_hash(&self) -> u64 {
        host_hash(self.takes, self.host())
    }

    fn hash(&self) -> u64 {
        let segments = self.prefix().split(|byte| *byte == b'/').skip(1);
        segments.fold(self.host_hash(), |parent, segment| {
            segment_hash(parent, segment)
        })
    }

    /// Whether it takes a request for this host and path.
    fn fits(&self, takes: Takes, host: &[u8], path: Path<'_>) -> bool {
        self.takes == takes && self.host() == host && path.is_under(self.prefix())
    }

    /// Its bit among the depths.
    pub(super) fn bit(&self) -> u32 {
        u32::from(self.depth).min(DEEP)
    }
}

impl Routes {
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<RouteEntry>> {
        self.entries.get(key.hash(), |entry| entry.key == *key)
    }

    /// Puts a route in, in the place of the one that has its key.
    pub(super) fn set(&mut self, entry: &Arc<RouteEntry>) {
        let hash = entry.key.hash();
        let new = Arc::clone(entry);
        self.entries.set(hash, new, |old| old.key == entry.key);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.entries.remove(key.hash(), |entry| entry.key == *key);
    }

    /// Says what there is of the hosts with this hash; none: nothing.
    pub(super) fn know(&mut self, host: u64, known: Option<Host>) {
        match known {
            Some(known) => drop(self.hosts.set(host, known, |_| true)),
            None => drop(self.hosts.remove(host, |_| true)),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter().map(Arc::as_ref)
    }

    /// Has what is known of a host fetched: the first step to its routes.
    pub(crate) fn fetch_host(&self, sought: &Sought) {
        self.hosts.fetch_ahead(sought.hash);
    }

    /// Has a host's route fetched where there is only one: the second step. Gives its number.
    pub(crate) fn fetch_only(&self, sought: &Sought) -> Option<u32> {
        match self.hosts.get(sought.hash, |_| true)? {
            Host::Only(only, number) => {
                ahead::fetch(&only.key);
                ahead::fetch(&only.slot);
                Some(*number)
            }
            Host::Depths(_) => None,
        }
    }

    pub(crate) fn find(&self, sought: &Sought, target: &[u8]) -> Result<&RouteEntry, NoRoute> {
        let path = Path::parse(target)?;
        self.best(sought, path)
            .map(Arc::as_ref)
            .ok_or(NoRoute::NotFound)
    }

    /// Of the most specific host pattern with a prefix that fits, the longest.
    fn best(&self, sought: &Sought, path: Path<'_>) -> Option<&Arc<RouteEntry>> {
        let host = sought.host();
        if let Some(entry) = self.longest(Takes::Exactly, host, sought.hash, path) {
            return Some(entry);
        }
        for at in memchr::memchr_iter(b'.', host).filter(|at| *at > 0) {
            let below = &host[at + 1..];
            let hash = host_hash(Takes::Below, below);
            if let Some(entry) = self.longest(Takes::Below, below, hash, path) {
                return Some(entry);
            }
        }
        self.longest(Takes::All, b"", host_hash(Takes::All, b""), path)
    }

    fn longest(
        &self,
        takes: Takes,
        host: &[u8],
        mut hash: u64,
        path: Path<'_>,
    ) -> Option<&Arc<RouteEntry>> {
        // The lowest bit is of the depth that comes next.
        let mut depths = match self.hosts.get(hash, |_| true)? {
            Host::Only(only, _) => return only.key.fits(takes, host, path).then_some(only),
            Host::Depths(depths) => *depths,
        };
        let mut best = None;
        let mut look = |hash, depth, depths| {
            if depths & 1 == 1 {
                let found = self.entries.get(hash, |entry| {
                    let key = &entry.key;
                    usize::from(key.depth) == depth && key.fits(takes, host, path)
                });
                best = found.or(best);
            }
        };
        let mut depth = 0;
        look(hash, depth, depths);
        if depths > 1 {
            path.segments(|segment| {
                hash = segment_hash(hash, segment);
                if depth < DEEP as usize {
                    depths >>= 1;
                }
                depth += 1;
                look(hash, depth, depths);
                depths > 1 || depth >= DEEP as usize
            });
        }
        best
    }

    /// Every route whose host or path fits a request, by their ids, for `explain`.
    pub(crate) fn candidates(
        &self,
        host: &[u8],
        target: &[u8],
    ) -> Result<Vec<Candidate<'_>>, BadPath> {
        let path = Path::parse(target)?;
        let mut buffer = [0; MAX_HOST];
        let host = canonical_host(host, &mut buffer);
        let looked_at = self.iter().map(|entry| {
            let key = &entry.key;
            let host_fits = match key.takes {
                Takes::All => true,
                Takes::Exactly => key.host() == host,
                Takes::Below => host
                    .strip_suffix(key.host())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with(b".")),
            };
            Candidate {
                entry,
                host_fits,
                path_fits: path.is_under(key.prefix()),
            }
        });
        let mut fitting: Vec<_> = looked_at.filter(|c| c.host_fits || c.path_fits).collect();
        fitting.sort_by(|one, two| one.entry.id.cmp(&two.entry.id));
        Ok(fitting)
    }
}

fn host_hash(takes: Takes, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, takes as u64)
}

fn segment_hash(parent: u64, segment: &[u8]) -> u64 {
    xxh3_64_with_seed(segment, parent)
}

fn trim_dot(host: &[u8]) -> &[u8] {
    host.strip_suffix(b".").unwrap_or(host)
}

/// The host without port and trailing dot, in lower case; empty when it is too long to match.
fn canonical_host<'b>(host: &[u8], buffer: &'b mut [u8; MAX_HOST]) -> &'b [u8] {
    let host = if host.first() == Some(&b'[') {
        let end = memchr::memchr(b']', host).map_or(host.len(), |at| at + 1);
        &host[..end]
    } else {
        &host[..memchr::memchr(b':', host).unwrap_or(host.len())]
    };
    let host = trim_dot(host);
    let Some(lower) = buffer.get_mut(..host.len()) else {
        return &[];
    };
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    lower
}

#[cfg(test)]
mod tests;
