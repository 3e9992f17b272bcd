//! The routing table: immutable, one a revision, swapped whole.
//!
//! A route takes a host and a path prefix on segment boundaries. The most specific host that has a
//! fitting prefix wins: the exact host, then `*.suffix` from the longest to the shortest, then `*`;
//! within a host, the longest prefix. So where `api.svc.local` has only `/v1`, a request for its
//! `/v2` may still be taken by `*.svc.local` or `*`.
//!
//! Hosts are compared without case, port and trailing dot; how paths are read is told in `path.rs`.
//!
//! Routes and upstreams change at different paces: ten thousand routes stay as they are while
//! instances come and go. So a route entry names its upstream by a slot, and a table is two shared
//! parts: [`routes`](crate::table) and the slots. The routes of two tables share all that is the same in
//! both, so that a changed route costs what one route costs.

use std::sync::Arc;

use cardea_registry_api::{Name, Route};
use smallvec::SmallVec;

use crate::{ahead, plugin::Chain, tls::Certificates, upstream::Upstream};

pub(crate) mod builder;
mod index;
pub(crate) mod objects;
mod path;
mod routes;
mod shards;
pub(crate) mod views;

pub use path::BadPath;
pub(crate) use path::Path;
pub(crate) use routes::{Routes, Sought};

#[cfg(test)]
mod tests;

/// A route in the table. What a request needs comes first and lies side by side: with many routes each
/// one is a miss in the caches, and every other place that it leads to is one more.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct RouteEntry {
    /// Its host and prefix, to compare requests with.
    pub(crate) key: routes::Key,
    /// Which of the table's upstreams; see [`Table::upstream`].
    slot: u32,
    /// A small number that is this id's and service's for the process's life: for arrays of counters.
    pub index: u32,
    /// The plugins that look at its requests; none: there are none.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Its service's name: one for all routes of the service, and so sooner in a cache.
    pub(crate) service: Name,
    /// The id once more, for the log.
    label: SmallVec<[u8; 24]>,
    /// The route's id: the `route` label of metrics.
    pub id: Name,
    /// The route as configured.
    pub route: Arc<Route>,
}

impl RouteEntry {
    fn new(route: &Arc<Route>, key: routes::Key, place: Place) -> Self {
        Self {
            key,
            // Never as many as that: each is of a service that was read.
            slot: u32::try_from(place.slot).unwrap_or(u32::MAX),
            chain: place.chain,
            service: place.service,
            index: place.index,
            label: SmallVec::from_slice(route.id.as_str().as_bytes()),
            id: route.id.clone(),
            route: Arc::clone(route),
        }
    }

    /// Which of the table's upstreams.
    pub(crate) fn slot(&self) -> usize {
        self.slot as usize
    }

    /// Has the id as text fetched.
    pub(crate) fn fetch_label(&self) {
        ahead::fetch_ends(&*self.label);
    }

    /// The id as text.
    pub(crate) fn label(&self) -> &[u8] {
        &self.label
    }
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
    /// Its service's name, one for all routes.
    pub(crate) service: Name,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No route takes this host and path (404).
    #[error("no route takes this host and path")]
    NotFound,
    /// The path is refused (400).
    #[error(transparent)]
    BadPath(#[from] BadPath),
}

/// Where a table came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A registry's feed.
    Registry,
    /// The copy on disk.
    Disk,
    /// A file.
    Static,
    /// The process that this one took over from.
    HandedOver,
}

impl Origin {
    /// As it is written in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Disk => "disk",
            Self::Static => "static",
            Self::HandedOver => "handed_over",
        }
    }
}

/// All routes and upstreams of a revision.
#[derive(Debug)]
pub struct Table {
    /// The history that the revision belongs to.
    pub epoch: Arc<str>,
    /// The revision.
    pub revision: u64,
    /// Where it came from.
    pub origin: Origin,
    /// When it was made, Unix ms.
    pub built_at: i64,
    pub(crate) routes: Arc<Routes>,
    pub(crate) slots: Arc<[Option<Arc<Upstream>>]>,
    /// None: they could not be made.
    pub(crate) certificates: Option<Arc<Certificates>>,
}

impl Table {
    /// The route that takes a request: its `Host` as sent and its target in origin form (the query
    /// is ignored). Allocates nothing.
    pub fn route(&self, host: &[u8], target: &[u8]) -> Result<&RouteEntry, NoRoute> {
        self.routes.find(&Sought::new(host), target)
    }

    /// The route's upstream, with the newest peers of this table.
    pub fn upstream(&self, entry: &RouteEntry) -> &Arc<Upstream> {
        self.slots[entry.slot()]
            .as_ref()
            .unwrap_or_else(|| unreachable!("the builder fills the slot of every route"))
    }

    /// The upstream in a slot: of a group.
    pub(crate) fn upstream_at(&self, slot: usize) -> Option<&Arc<Upstream>> {
        self.slots.get(slot)?.as_ref()
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &RouteEntry> {
        self.routes.iter()
    }

    /// The services' upstreams.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let all = self.slots.iter().flatten();
        all.filter(|upstream| upstream.is_whole())
    }
}
