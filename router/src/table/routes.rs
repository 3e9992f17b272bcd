//! The index over routes: a hash on the host, then a trie over path segments, whose branches are in one
//! hash map, so that a lookup costs what the path is long, however many routes there are.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use cardea_registry_api::{Name, Route, route::HostPattern};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    plugin::Chain,
    table::{
        NoRoute, RouteEntry,
        path::{BadPath, Path},
    },
};

/// The longest host that can be configured; a longer one only matches `*`.
const MAX_HOST: usize = 253;

/// Routes, indexed.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    entries: Vec<RouteEntry>,
    nodes: Vec<Node>,
    edges: HashTable<Edge>,
    exact: HashTable<Host>,
    suffixes: HashTable<Host>,
    any: Option<usize>,
}

#[derive(Debug, Default)]
struct Node {
    entry: Option<u32>,
    children: Children,
}

/// Nearly every node has one child at most. It lies in the node itself: with thousands of routes each
/// place in memory that a lookup visits is a wait.
#[derive(Debug, Default)]
enum Children {
    #[default]
    None,
    One(Arc<[u8]>, usize),
    /// They are found by their edges.
    Many,
}

#[derive(Debug)]
struct Edge {
    parent: usize,
    segment: Arc<[u8]>,
    child: usize,
}

#[derive(Debug)]
struct Host {
    name: Box<[u8]>,
    root: usize,
}

/// A route that was looked at for a request, for `explain`.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) entry: &'a RouteEntry,
    pub(crate) host_fits: bool,
    pub(crate) path_fits: bool,
}

/// What belongs to a route besides itself.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its number.
    pub(crate) index: u32,
    /// The slot of its upstream.
    pub(crate) slot: usize,
    /// Its plugins.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// A route that cannot be in the index, and why.
pub(crate) type Refused = (Name, String);

impl Routes {
    /// Indexes `routes`; `number` says what belongs to each. Routes that cannot be
    /// indexed are named; the others stand.
    pub(crate) fn build<'a>(
        routes: impl IntoIterator<Item = &'a Route>,
        mut number: impl FnMut(&Route) -> Place,
    ) -> (Self, Vec<Refused>) {
        let mut all = Self::default();
        let mut refused = Vec::new();
        let mut edges = HashMap::new();
        let mut hosts = HashMap::new();
        // What many routes have in common is in memory once, and so in a cache sooner.
        let mut known = HashSet::<Arc<[u8]>>::new();
        let mut services = HashSet::<Name>::new();
        for route in routes {
            let mut segments: Vec<Arc<[u8]>> = Vec::new();
            let path = match Path::parse(route.prefix.as_str().as_bytes()) {
                Ok(path) => path,
                Err(bad) => {
                    let why = format!("prefix: no request can match `{}`: {bad}", route.prefix);
                    refused.push((route.id.clone(), why));
                    continue;
                }
            };
            path.segments(|segment| {
                let shared = known.get(segment).cloned();
                segments.push(shared.unwrap_or_else(|| {
                    let segment = Arc::from(segment);
                    known.insert(Arc::clone(&segment));
                    segment
                }));
                true
            });
            let root = *hosts.entry(&route.host).or_insert_with(|| all.node());
            let mut node = root;
            for segment in segments {
                node = match edges.entry((node, segment)) {
                    Entry::Occupied(edge) => *edge.get(),
                    Entry::Vacant(edge) => {
                        let child = all.node();
                        let children = &mut all.nodes[node].children;
                        *children = match children {
                            Children::None => Children::One(Arc::clone(&edge.key().1), child),
                            _ => Children::Many,
                        };
                        *edge.insert(child)
                    }
                };
            }
            if let Some(taken) = all.nodes[node].entry {
                let why = format!(
                    "prefix: route `{}` takes host `{}` and prefix `{}` already",
                    all.entries[taken as usize].id, route.host, route.prefix
                );
                refused.push((route.id.clone(), why));
                continue;
            }
            let Place { index, slot, chain } = number(route);
            all.nodes[node].entry = u32::try_from(all.entries.len()).ok();
            let mut route = route.clone();
            match services.get(&route.service) {
                Some(service) => route.service = service.clone(),
                None => _ = services.insert(route.service.clone()),
            }
            all.entries.push(RouteEntry {
                id: route.id.clone(),
                index,
                route,
                slot,
                chain,
            });
        }
        for (host, root) in hosts {
            all.add_host(host, root);
        }
        for ((parent, segment), child) in edges {
            if !matches!(all.nodes[parent].children, Children::Many) {
                continue;
            }
            let edge = Edge {
                parent,
                segment,
                child,
            };
            let hash = edge_hash(parent, &edge.segment);
            all.edges
                .insert_unique(hash, edge, |e| edge_hash(e.parent, &e.segment));
        }
        (all, refused)
    }

    fn node(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    fn add_host(&mut self, pattern: &HostPattern, root: usize) {
        let (table, name) = match pattern {
            HostPattern::Any => {
                self.any = Some(root);
                return;
            }
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Suffix(name) => (&mut self.suffixes, name),
        };
        let name: Box<[u8]> = trim_dot(name.as_bytes()).into();
        let host = Host { name, root };
        table.insert_unique(host_hash(&host.name), host, |h| host_hash(&h.name));
    }

    pub(crate) fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    pub(crate) fn find(&self, host: &[u8], target: &[u8]) -> Result<&RouteEntry, NoRoute> {
        let path = Path::parse(target)?;
        let mut buffer = [0; MAX_HOST];
        let host = canonical_host(host, &mut buffer);
        self.roots(host)
            .find_map(|root| self.longest_prefix(root, path))
            .map(|at| &self.entries[at as usize])
            .ok_or(NoRoute::NotFound)
    }

    /// Every route whose host or path fits a request, for `explain`.
    pub(crate) fn candidates(
        &self,
        host: &[u8],
        target: &[u8],
    ) -> Result<Vec<Candidate<'_>>, BadPath> {
        let path = Path::parse(target)?;
        let mut buffer = [0; MAX_HOST];
        let host = canonical_host(host, &mut buffer);
        let looked_at = self.entries.iter().map(|entry| {
            let host_fits = match &entry.route.host {
                HostPattern::Any => true,
                HostPattern::Exact(name) => trim_dot(name.as_bytes()) == host,
                HostPattern::Suffix(name) => host
                    .strip_suffix(name.as_bytes())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with(b".")),
            };
            Candidate {
                entry,
                host_fits,
                path_fits: fits(entry, path),
            }
        });
        Ok(looked_at.filter(|c| c.host_fits || c.path_fits).collect())
    }

    /// The trie roots of the patterns that take `host`, the most specific first.
    fn roots<'s>(&'s self, host: &'s [u8]) -> impl Iterator<Item = usize> + 's {
        let look = |table: &HashTable<Host>, name: &[u8]| {
            table
                .find(host_hash(name), |h| *h.name == *name)
                .map(|h| h.root)
        };
        let exact = look(&self.exact, host);
        let dots = if self.suffixes.is_empty() { &[] } else { host };
        let suffixes = memchr::memchr_iter(b'.', dots)
            .filter(|at| *at > 0)
            .filter_map(move |at| look(&self.suffixes, &host[at + 1..]));
        exact.into_iter().chain(suffixes).chain(self.any)
    }

    fn longest_prefix(&self, root: usize, path: Path<'_>) -> Option<u32> {
        let mut node = &self.nodes[root];
        let (mut best, mut at) = (node.entry, root);
        if !matches!(node.children, Children::None) {
            path.segments(|segment| {
                let child = match &node.children {
                    Children::None => None,
                    Children::One(only, child) => (**only == *segment).then_some(*child),
                    Children::Many => self
                        .edges
                        .find(edge_hash(at, segment), |e| {
                            e.parent == at && *e.segment == *segment
                        })
                        .map(|e| e.child),
                };
                let Some(child) = child else {
                    return false;
                };
                node = &self.nodes[child];
                best = node.entry.or(best);
                at = child;
                !matches!(node.children, Children::None)
            });
        }
        best
    }
}

fn fits(entry: &RouteEntry, path: Path<'_>) -> bool {
    let mut wanted: Vec<Box<[u8]>> = Vec::new();
    let Ok(prefix) = Path::parse(entry.route.prefix.as_str().as_bytes()) else {
        return false;
    };
    prefix.segments(|segment| {
        wanted.push(segment.into());
        true
    });
    let mut met = 0;
    path.segments(|segment| {
        let same = wanted.get(met).is_some_and(|w| **w == *segment);
        met += usize::from(same);
        same
    });
    met == wanted.len()
}

fn host_hash(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, 0)
}

fn edge_hash(parent: usize, segment: &[u8]) -> u64 {
    xxh3_64_with_seed(segment, parent as u64)
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
