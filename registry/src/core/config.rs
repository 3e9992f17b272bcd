//! How the core is set up. Plain values, checked before anything is opened.

use std::{path::PathBuf, time::Duration};

/// Everything the core needs to know.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Where the objects are kept.
    pub store: StoreConfig,
    /// Where disk snapshots and the journal of pending changes are kept.
    pub data_dir: PathBuf,
    /// This replica's id, unique among the replicas of one database: 1–63 characters of
    /// `a-z A-Z 0-9 - _ .`.
    pub replica: String,
    /// The program's version, for the status.
    pub version: String,
    /// Disk snapshots.
    pub snapshots: SnapshotConfig,
    /// Leases and their expiry.
    pub leases: LeaseConfig,
    /// The collapse guard.
    pub guard: GuardConfig,
    /// How long after its last poll a router counts for acknowledgements.
    pub router_live: Duration,
    /// How long after a start routers that asked before it may take to come back: until then who waits for
    /// acknowledgements waits for them. Longer than the longest of their pauses.
    pub router_return: Duration,
    /// How much of the change log is kept.
    pub history: HistoryConfig,
    /// How many changes may wait for a database that is away before instances that are not known are
    /// refused.
    pub max_pending: usize,
}

/// How much of the change log is kept.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Changes are kept this long …
    pub keep: Duration,
    /// … and at least this many, however old. Replicas that are this far behind read everything anew.
    pub at_least: u64,
    /// How often older ones are looked for.
    pub every: Duration,
}

/// The database.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `postgres://…` or `sqlite://path`.
    pub url: String,
    /// The most that connecting or one statement may take before the database counts as lost.
    pub timeout: Duration,
    /// The log is reread this often, notified or not.
    pub poll: Duration,
    /// SQLite only: whether each commit waits for the disk (`synchronous=FULL`). Without it
    /// (`NORMAL`, the default) a power cut may lose the last commits, a crash of the program none.
    pub sqlite_full_sync: bool,
}

/// Disk snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// How often one is written, when something changed.
    pub interval: Duration,
    /// How many are kept, at least 1.
    pub generations: usize,
}

/// Leases and their expiry.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// How often lapsed leases are looked for.
    pub tick: Duration,
    /// How often renewals are handed, all at once, to the replica that looks for lapsed leases.
    pub flush: Duration,
    /// What every lease gets on top of its full length after the registry started, its database came
    /// back, or another replica took over: agents must be able to reach it again before anything
    /// expires.
    pub grace: Duration,
}

/// The collapse guard: how fast lapsed leases may empty a service of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardConfig {
    /// At most this share of a service's instances in a cluster …
    pub percent: u32,
    /// … or this many, whichever is more …
    pub at_least: usize,
    /// … in this time.
    pub window: Duration,
    /// Whether the last one of a service in a cluster is kept.
    pub keep_last: bool,
    /// When an instance that was kept leaves after all.
    pub stale_ttl: Duration,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            store: StoreConfig::default(),
            data_dir: PathBuf::from("data"),
            replica: "registry".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            snapshots: SnapshotConfig::default(),
            leases: LeaseConfig::default(),
            guard: GuardConfig::default(),
            router_live: Duration::from_secs(30),
            router_return: Duration::from_secs(4),
            history: HistoryConfig::default(),
            max_pending: 200_000,
        }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            keep: Duration::from_hours(30 * 24),
            at_least: 100_000,
            every: Duration::from_mins(10),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://data/registry.db".to_owned(),
            timeout: Duration::from_secs(2),
            poll: Duration::from_secs(2),
            sqlite_full_sync: false,
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            generations: 5,
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            flush: Duration::from_secs(3),
            grace: Duration::from_secs(30),
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            percent: 20,
            at_least: 3,
            window: Duration::from_mins(1),
            keep_last: true,
            stale_ttl: Duration::from_hours(24),
        }
    }
}
