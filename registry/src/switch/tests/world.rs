//! The world around one switch, for tests of the machine.

use cardea_registry_api::{Span, traffic::Failover};

use super::super::*;
use crate::state::tests::name;

pub(super) fn asked(stages: &[u8], watch: u64) -> NewSwitch {
    let to = [("a", 0), ("b", 100)].map(|(cluster, weight)| (name(cluster), weight));
    let mut asked = NewSwitch::new(name("a"), None, to.into());
    asked.stages = stages.to_vec();
    asked.watch = Span::secs(watch);
    asked.reason = "power".to_owned();
    asked
}

pub(super) fn moved(existed: bool) -> Move {
    let key = TrafficKey {
        cluster: name("a"),
        service: None,
    };
    let mut base = Traffic::of(key);
    if existed {
        base.weights = [(name("a"), 80), (name("b"), 20)].into();
        base.failover = Some(Failover::to(vec![name("b")]));
    }
    Move { base, existed }
}

pub(super) fn sample(requests: u64, errors: u64, p99_us: u64) -> Sample {
    Sample {
        service: None,
        requests,
        errors,
        p99_us: Some(p99_us),
    }
}

pub(super) fn beginning(existed: bool) -> Beginning {
    Beginning {
        moves: vec![moved(existed)],
        before: vec![sample(10_000, 10, 20_000)],
        learnt: BTreeMap::new(),
    }
}

/// The world around one switch: what it writes is there, unless somebody else was faster.
pub(super) struct World {
    pub(super) switch: Switch,
    pub(super) revision: u64,
    pub(super) traffic: Option<(Traffic, u64)>,
    pub(super) head: u64,
    pub(super) now: i64,
    pub(super) behind: bool,
    pub(super) windows: Vec<i64>,
    pub(super) figures: Sample,
    pub(super) short: bool,
    /// Since when there is a database.
    pub(super) since: i64,
}

impl World {
    pub(super) fn begin(asked: NewSwitch, existed: bool) -> Self {
        let traffic = moved(existed).before().map(|before| (before.clone(), 1));
        let mut world = Self {
            switch: begin(
                (name("switch-1"), asked.clone()),
                "ann",
                Beginning::default(),
                0,
            )
            .switch,
            revision: 0,
            traffic,
            head: 1,
            now: 1_000_000,
            behind: true,
            windows: Vec::new(),
            figures: sample(1000, 1, 20_000),
            short: false,
            since: 0,
        };
        let id = (name("switch-1"), asked);
        let next = begin(id, "ann", beginning(existed), world.now);
        let seen = world.seen();
        assert!(world.write(&next, None, &seen));
        world
    }

    pub(super) fn seen(&self) -> Seen {
        let key = moved(true).key();
        let traffic = self.traffic.clone().map(|there| (key, there));
        Seen {
            traffic: traffic.into_iter().collect(),
            live: 2,
            since: self.since,
            behind: self.behind.then(|| "r1".to_owned()).into_iter().collect(),
            figures: Some(Counted {
                windows: self.windows.clone(),
                samples: vec![self.figures.clone()],
            }),
            short: self
                .short
                .then(|| Refusal {
                    service: Some(name("s")),
                    why: "too little".to_owned(),
                })
                .into_iter()
                .collect(),
        }
    }

    /// Writes it as the state does: all or nothing, on what was seen.
    pub(super) fn write(&mut self, next: &Next, revision: Option<u64>, seen: &Seen) -> bool {
        let changes = next.changes(revision, seen);
        let fits = |expected: &Expected, current: Option<u64>| match expected {
            Expected::Any => true,
            Expected::None => current.is_none(),
            Expected::Exactly(at) => current == Some(*at),
        };
        let own = (self.revision > 0).then_some(self.revision);
        let there = self.traffic.as_ref().map(|(_, at)| *at);
        let all = changes.iter().all(|change| match change {
            Change::PutSwitch { expected, .. } => fits(expected, own),
            Change::PutTraffic { expected, .. } => fits(expected, there),
            Change::DeleteTraffic { expected, .. } => there.is_some() && fits(expected, there),
            _ => false,
        });
        if !all {
            return false;
        }
        for change in changes {
            self.head += 1;
            match change {
                Change::PutSwitch { switch, .. } => {
                    self.switch = *switch;
                    self.revision = self.head;
                }
                Change::PutTraffic { traffic, .. } => self.traffic = Some((*traffic, self.head)),
                _ => self.traffic = None,
            }
        }
        true
    }

    pub(super) fn step(&mut self) -> Option<Next> {
        let seen = self.seen();
        let next = step(&self.switch, &seen, self.now)?;
        assert!(self.write(&next, Some(self.revision), &seen));
        Some(next)
    }

    /// Time passes, and routers report.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now += ms;
        let first = self
            .windows
            .last()
            .map_or(1_000_000, |last| last + WINDOW_MS);
        let all = (first..).step_by(5000);
        self.windows
            .extend(all.take_while(|at| at + WINDOW_MS <= self.now));
    }

    pub(super) fn hand(&mut self, weight: u8) {
        self.head += 1;
        let mut traffic = moved(true).base;
        traffic.weights = [(name("c"), weight)].into();
        self.traffic = Some((traffic, self.head));
    }

    pub(super) fn weight(&self) -> Option<u8> {
        let (traffic, _) = self.traffic.as_ref()?;
        traffic.weights.get(&name("b")).copied()
    }

    pub(super) fn said(&self) -> &str {
        &self.switch.events.last().unwrap().what
    }
}
