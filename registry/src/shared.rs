//! What the core's parts share: the served state, the leases, the routers, and how the registry
//! stands.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use cardea_registry_api::api::{Alarm, Mode, Status};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bearing::Bearing,
    clock::{Clock, ms, wall_ms},
    core::CoreConfig,
    disk::Disk,
    feed::Feed,
    figures::Figures,
    journal::Journal,
    leases::Leases,
    lost::LostWrites,
    routers::Routers,
    state::State,
    store::Store,
    writer::Command,
};

/// For how long a replica that notified is taken for alive though it is not listed, ms.
const HEARD: i64 = 10_000;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: CoreConfig,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) disk: Disk,
    pub(crate) journal: Journal,
    /// What was said without the database, and did not hold.
    pub(crate) lost: Arc<LostWrites>,
    pub(crate) state: ArcSwap<State>,
    pub(crate) feed: Feed,
    pub(crate) routers: Arc<Routers>,
    /// Until when routers may still come back that this replica does not know, as it has just started;
    /// none: there was nothing before it that they could have asked for.
    pub(crate) returning: Option<Instant>,
    pub(crate) leases: Leases,
    pub(crate) figures: Figures,
    /// What clusters' instances can serve of what is meant for them.
    pub(crate) bearing: Bearing,
    pub(crate) commands: mpsc::Sender<Command>,
    /// The log may have moved: the writer rereads it.
    pub(crate) log_moved: Notify,
    /// Much was written since the database's write-ahead log was last folded.
    pub(crate) grown: Notify,
    /// The database was lost, or its history is held: the prober wakes up.
    pub(crate) trouble: Notify,
    /// The prober reached the database.
    pub(crate) reached: Notify,
    pub(crate) stopping: CancellationToken,
    /// Other replicas live: what only they need is written to the database.
    pub(crate) others: AtomicBool,
    /// When another replica was last heard of by its notification.
    heard: AtomicI64,
    /// Until when this replica looks for lapsed leases.
    pub(crate) expiry_until: AtomicI64,
    /// Until when this replica drives operations, such as switches.
    pub(crate) operations_until: AtomicI64,
    /// Since when it has been in agreement with the database, Unix ms.
    agreed_at: AtomicI64,
    /// An operation was changed, here or by another replica: whoever drives them looks.
    pub(crate) operated: Notify,
    standing: Mutex<Standing>,
    /// Held while the registry runs: one registry a data directory.
    _lock: File,
}

/// How the registry stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) mode: Mode,
    pub(crate) pending: u64,
    pub(crate) started_from: &'static str,
    pub(crate) alarms: BTreeMap<&'static str, Alarm>,
}

/// What the parts are made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: CoreConfig,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) disk: Disk,
    pub(crate) journal: Journal,
    pub(crate) lost: LostWrites,
    pub(crate) state: State,
    pub(crate) mode: Mode,
    pub(crate) started_from: &'static str,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) lock: File,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let routers = Arc::new(Routers::new(parts.clock, ms(parts.config.router_live)));
        let returning = parts.config.router_return;
        let returning = (parts.state.revision > 0).then(|| Instant::now() + returning);
        Self {
            clock: parts.clock,
            returning,
            figures: Figures::new(parts.store.apart()),
            bearing: Bearing::default(),
            store: parts.store,
            disk: parts.disk,
            journal: parts.journal,
            lost: Arc::new(parts.lost),
            state: ArcSwap::from_pointee(parts.state),
            feed: Feed::default(),
            routers,
            leases: Leases::new(),
            commands: parts.commands,
            log_moved: Notify::new(),
            grown: Notify::new(),
            trouble: Notify::new(),
            reached: Notify::new(),
            stopping: CancellationToken::new(),
            others: AtomicBool::new(false),
            heard: AtomicI64::new(i64::MIN),
            expiry_until: AtomicI64::new(0),
            operations_until: AtomicI64::new(0),
            agreed_at: AtomicI64::new(wall_ms()),
            operated: Notify::new(),
            standing: Mutex::new(Standing {
                mode: parts.mode,
                pending: 0,
                started_from: parts.started_from,
                alarms: BTreeMap::new(),
            }),
            _lock: parts.lock,
            config: parts.config,
        }
    }

    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mode(&self) -> Mode {
        self.standing().mode
    }

    /// Raises an alarm; one that is raised already keeps its time.
    pub(crate) fn raise(&self, code: &'static str, message: String) {
        let mut standing = self.standing();
        let alarm = standing.alarms.entry(code).or_insert_with(|| {
            tracing::warn!(code, %message, "alarm raised");
            Alarm {
                code: code.to_owned(),
                message: String::new(),
                since: wall_ms(),
            }
        });
        alarm.message = message;
    }

    /// Ends an alarm.
    pub(crate) fn clear(&self, code: &'static str) {
        if self.standing().alarms.remove(code).is_some() {
            tracing::info!(code, "alarm cleared");
        }
    }

    /// Renews an alarm's words, if the mode is still that one and the alarm stands: what is found out
    /// beside the writer may be out of date when it is said.
    pub(crate) fn reword(&self, mode: Mode, code: &'static str, message: String) {
        let mut standing = self.standing();
        if standing.mode == mode
            && let Some(alarm) = standing.alarms.get_mut(code)
        {
            alarm.message = message;
        }
    }

    /// In agreement with the database: the mode and the end of its alarms are seen together. The
    /// mode before.
    pub(crate) fn agree(&self) -> Mode {
        let mut standing = self.standing();
        for code in ["database_lost", "history_held"] {
            if standing.alarms.remove(code).is_some() {
                tracing::info!(code, "alarm cleared");
            }
        }
        if standing.mode != Mode::Ok {
            self.agreed_at.store(wall_ms(), Ordering::Relaxed);
        }
        std::mem::replace(&mut standing.mode, Mode::Ok)
    }

    /// Serves another state: first it is visible, then who waits for it is woken.
    pub(crate) fn publish(&self, state: State) {
        let state = Arc::new(state);
        let before = self.state.swap(Arc::clone(&state));
        self.feed.publish(&state);
        if before.operated() != state.operated() {
            self.operated.notify_one();
        }
    }

    /// Another replica notified; whether this is news.
    pub(crate) fn heard_another(&self) -> bool {
        self.heard.store(self.clock.now(), Ordering::Relaxed);
        !self.others.swap(true, Ordering::Relaxed)
    }

    /// Whether another replica notified a moment ago: one that has just started is heard of before it
    /// is listed.
    pub(crate) fn heard_lately(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        self.clock.now().saturating_sub(heard) < HEARD
    }

    pub(crate) fn holds_expiry(&self) -> bool {
        self.expiry_until.load(Ordering::Relaxed) > self.clock.now()
    }

    /// Since when it has been in agreement with the database (or: running), Unix ms.
    pub(crate) fn agreed_at(&self) -> i64 {
        self.agreed_at.load(Ordering::Relaxed)
    }

    pub(crate) fn drives_operations(&self) -> bool {
        self.operations_until.load(Ordering::Relaxed) > self.clock.now()
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.state.load();
        let lost = self.lost.alarm(&state, &self.config.replica);
        let standing = self.standing();
        Status {
            version: self.config.version.clone(),
            replica: self.config.replica.clone(),
            epoch: state.epoch.to_string(),
            revision: state.revision,
            mode: standing.mode,
            started_from: standing.started_from.to_owned(),
            pending_changes: standing.pending,
            alarms: standing.alarms.values().cloned().chain(lost).collect(),
        }
    }
}
