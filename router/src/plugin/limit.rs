//! Limits: how much may be asked for. The generic cell rate algorithm (ITU-T I.371, as nginx and
//! Envoy do), one number a key; no lock, and a fixed amount of memory whatever the keys.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use cardea_registry_api::{
    Invalid,
    plugin::{Count, Limit, Per},
    policy::HashKey,
};
use hashbrown::HashMap;

use super::{
    Bound,
    decision::Case,
    said::{Mode, PASSED, STOPPED},
    share::{Share, WHOLE},
};
use crate::{
    balance::{key, random::mix},
    http1::render::line,
    plugin::{asked::Asked, condition::Condition},
    refusal,
};

/// Parts of a nanosecond that time is counted in, so that high rates are exact enough.
const FINE: u64 = 64;
/// How far two workers' clocks may be apart when they read and write one number. (They look before they
/// count, so the later one may be the first.)
const APART: u64 = 1_000_000_000 * FINE;
/// Keys that are told apart; of more, those that asked longest ago are forgotten.
const KEYS: usize = 1 << 16;
/// Places that a key may have.
const WAYS: usize = 8;

/// A rate: when the next request is due, and how far ahead of that it may come. In parts of a
/// nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    every: u64,
    ahead: u64,
    burst: u32,
}

impl Rate {
    fn new(rate: u32, per: Per, burst: u32) -> Self {
        let every = (per.nanos() * FINE / u64::from(rate.max(1))).max(1);
        Self {
            every,
            ahead: every * u64::from(burst.saturating_sub(1)),
            burst,
        }
    }

    /// Among so many parts of routers.
    fn divided(self, parts: u64) -> Self {
        let every = self.every * parts / WHOLE;
        let burst = u64::from(self.burst) * WHOLE / parts;
        // With less than two, a request that comes a little late is time lost for good.
        let burst = u32::try_from(burst).unwrap_or(self.burst);
        let burst = burst.max(self.burst.min(2));
        Self {
            every,
            ahead: every * u64::from(burst - 1),
            burst,
        }
    }

    /// Pure: what the number that is kept becomes when a request comes at `now`; or, if it comes too
    /// early, how long it is too early.
    ///
    /// A number that this rate cannot have made is a tighter one's, from before a change. Who waits for
    /// that goes on as somebody who has just used up the burst.
    fn admit(self, kept: u64, now: u64) -> Result<u64, u64> {
        let mut due = kept.max(now);
        let most = self.ahead.saturating_add(self.every + APART);
        if due - now > most {
            due = now.saturating_add(self.ahead);
        }
        let early = due - now;
        if early > self.ahead {
            Err(early - self.ahead)
        } else {
            Ok(due + self.every)
        }
    }
}

/// What a limit counts. It outlives tables, so that a change elsewhere forgets nothing.
#[derive(Debug)]
pub(crate) struct Counts {
    all: AtomicU64,
    running: AtomicU32,
    keys: Option<Box<[Place]>>,
}

/// One key's numbers.
#[derive(Debug, Default)]
struct Place {
    /// The key's hash; 0: nobody's.
    key: AtomicU64,
    /// When its next request is due.
    due: AtomicU64,
    running: AtomicU32,
}

impl Counts {
    /// Nothing counted; `keyed`: by key.
    pub(crate) fn new(keyed: bool) -> Arc<Self> {
        Arc::new(Self {
            all: AtomicU64::new(0),
            running: AtomicU32::new(0),
            keys: keyed.then(|| (0..KEYS).map(|_| Place::default()).collect()),
        })
    }

    /// Whether it can count for a limit of this kind.
    pub(crate) fn fits(&self, keyed: bool) -> bool {
        self.keys.is_some() == keyed
    }

    /// The key's place; a new key takes the one that has been idle for longest and has no request
    /// running. None: all are taken.
    fn place(&self, hash: u64) -> Option<(usize, &Place)> {
        let places = self.keys.as_deref()?;
        let hash = mix(hash).max(1);
        let sets = places.len() / WAYS;
        let set = usize::try_from(hash % sets as u64).unwrap_or(0) * WAYS;
        let ways = || (set..set + WAYS).map(|at| (at, &places[at]));
        if let Some(found) = ways().find(|(_, place)| place.key.load(Relaxed) == hash) {
            return Some(found);
        }
        let idle = ways()
            .filter(|(_, place)| place.running.load(Relaxed) == 0)
            .min_by_key(|(_, place)| place.due.load(Relaxed))?;
        let old = idle.1.key.load(Relaxed);
        match idle.1.key.compare_exchange(old, hash, Relaxed, Relaxed) {
            Ok(_) => {
                idle.1.due.store(0, Relaxed);
                Some(idle)
            }
            // Another worker was faster: perhaps with the same key.
            Err(now) => (now == hash).then_some(idle),
        }
    }
}

/// A limit, made ready.
#[derive(Debug)]
pub(crate) struct Limiter {
    when: Condition,
    rate: Option<Rate>,
    concurrent: Option<u32>,
    key: Option<HashKey>,
    keys: HashMap<Box<[u8]>, Option<Rate>>,
    /// It is divided among routers.
    share: Option<Arc<Share>>,
    counts: Arc<Counts>,
}

/// What a limit says.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is not for this request.
    Aside,
    /// It may go on. The permit, if there is one, has to live as long as the request.
    Fine(Option<Permit>),
    /// It may not.
    TooMuch(TooMuch),
}

/// Why a request may not go on, for its answer's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch {
    /// In whole seconds, at least 1.
    pub(crate) retry_after: u64,
    /// How many may come at once, or at a time.
    pub(crate) limit: u32,
}

/// A request that counts as running until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Counts>,
    /// The key's place; none: of all.
    place: Option<usize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let place = self.place.zip(self.counts.keys.as_deref());
        let running = match place {
            Some((at, places)) => &places[at].running,
            None => &self.counts.running,
        };
        running.fetch_sub(1, Relaxed);
    }
}

impl Limiter {
    /// Makes a checked limit ready.
    pub(crate) fn new(
        limit: &Limit,
        counts: Arc<Counts>,
        share: &Arc<Share>,
    ) -> Result<Self, Invalid> {
        let rate = |rate: Option<u32>, burst: Option<u32>| {
            rate.map(|n| Rate::new(n, limit.per, burst.unwrap_or(n)))
        };
        let keys = limit.keys.iter();
        Ok(Self {
            when: Condition::new(&limit.when)?,
            rate: rate(limit.rate, limit.burst),
            concurrent: limit.concurrent,
            key: limit.key.clone(),
            keys: keys
                .map(|one| (one.is.as_bytes().into(), rate(one.rate, one.burst)))
                .collect(),
            share: (limit.count == Count::Divided).then(|| Arc::clone(share)),
            counts,
        })
    }

    /// Asks for a request at `now`, in nanoseconds of a clock that only goes forward. `count`: as one
    /// that comes; else only what would be said.
    pub(crate) fn ask(&self, asked: &Asked<'_>, now: u64, count: bool) -> Verdict {
        if !self.when.holds(asked) {
            return Verdict::Aside;
        }
        let parts = self
            .share
            .as_ref()
            .map(|share| share.parts(now / 1_000_000));
        let now = now.saturating_mul(FINE);
        let (kept, running, place, rate) = match &self.key {
            None => (&self.counts.all, &self.counts.running, None, self.rate),
            Some(of) => {
                let Some(value) = asked.value(of) else {
                    return Verdict::Aside;
                };
                let own = self.keys.get(value);
                // More keys in use at once than there are places for: such a one goes free.
                let Some((at, place)) = self.counts.place(key::hash(value)) else {
                    return Verdict::Aside;
                };
                let rate = own.copied().unwrap_or(self.rate);
                (&place.due, &place.running, Some(at), rate)
            }
        };
        let rate = rate.map(|rate| parts.map_or(rate, |parts| rate.divided(parts)));
        let permit = match self.concurrent {
            None => None,
            Some(most) => {
                // Rounded up: no router is left with nothing.
                let most = parts.map_or(most, |parts| {
                    let part = (u64::from(most) * WHOLE).div_ceil(parts);
                    u32::try_from(part).unwrap_or(most)
                });
                // Counted first and taken back, so that two workers cannot both be the last.
                let before = running.fetch_add(1, Relaxed);
                let permit = Permit {
                    counts: Arc::clone(&self.counts),
                    place,
                };
                if before >= most {
                    return Verdict::TooMuch(TooMuch {
                        retry_after: 1,
                        limit: most,
                    });
                }
                count.then_some(permit)
            }
        };
        match rate.map(|rate| (rate, take(kept, rate, now, count))) {
            Some((rate, Err(early))) => Verdict::TooMuch(TooMuch {
                retry_after: early.div_ceil(1_000_000_000 * FINE).max(1),
                limit: rate.burst,
            }),
            None | Some((_, Ok(()))) => Verdict::Fine(permit),
        }
    }
}

impl Bound<Limiter> {
    /// The stage: refuses what is too much.
    pub(super) fn ask(&self, case: &mut Case<'_, '_>) {
        let verdict = self
            .policy
            .ask(case.about.asked, case.now, case.mode == Mode::Real);
        match verdict {
            Verdict::Aside => {}
            Verdict::Fine(permit) => {
                case.says(&self.head, PASSED);
                case.decision.permit = permit;
            }
            Verdict::TooMuch(much) => {
                case.says(&self.head, STOPPED);
                if !self.head.shadow {
                    much.tell(&mut case.scratch.reply);
                    case.refuse(refusal::TOO_MANY_REQUESTS);
                }
            }
        }
    }
}

impl TooMuch {
    /// Headers of a refused request (the draft "RateLimit header fields for HTTP", 03).
    fn tell(self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        line(
            out,
            b"Retry-After",
            number.format(self.retry_after).as_bytes(),
        );
        line(
            out,
            b"RateLimit-Limit",
            number.format(self.limit).as_bytes(),
        );
        line(out, b"RateLimit-Remaining", b"0");
        line(
            out,
            b"RateLimit-Reset",
            number.format(self.retry_after).as_bytes(),
        );
    }
}

fn take(kept: &AtomicU64, rate: Rate, now: u64, count: bool) -> Result<(), u64> {
    let mut seen = kept.load(Relaxed);
    loop {
        let next = rate.admit(seen, now)?;
        if !count {
            return Ok(());
        }
        match kept.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
            Ok(_) => return Ok(()),
            Err(newer) => seen = newer,
        }
    }
}

#[cfg(test)]
mod tests;
