//! The feed: what routers poll.
//!
//! A poll that is up to date waits on its cluster's mark, which moves only when that cluster's set
//! does; nobody else is woken. What is answered is encoded once for all who ask for the same: the
//! full set per cluster, revision and coding, or the delta from one revision to another.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use cardea_registry_api::{
    Name,
    feed::{Coding, Encoder, FORMAT, FeedError, Head},
};
use tokio::sync::{OnceCell, watch};

use crate::{core::FeedRequest, state::State};

/// Below this size a full set is as good as a delta.
const DELTA_FROM: u64 = 50;
/// Bodies that are kept.
const KEPT: usize = 48;
/// Up to this many bytes of lines are encoded where we are; more, on a thread that may block.
const INLINE: u64 = 32 * 1024;
/// Bodies up to this many bytes go as they are: compressing them costs more time than sending them.
const AS_IT_IS: usize = 4096;
/// For how long after an operator's decision the feed says that he accepted the history.
const ACCEPTED_FOR: i64 = 24 * 3_600_000;

/// Where a cluster's set stands: epoch, and the last revision that changed it.
pub(crate) type Mark = (Arc<str>, u64);

#[derive(Debug, Default)]
pub(crate) struct Feed {
    marks: Mutex<HashMap<Name, watch::Sender<Mark>>>,
    bodies: Mutex<VecDeque<(BodyKey, Cell)>>,
}

type Cell = Arc<OnceCell<Body>>;

/// An encoded answer.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) revision: u64,
    /// What was asked for, or identity where the body is small.
    pub(crate) coding: Coding,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BodyKey {
    cluster: Name,
    coding: &'static str,
    epoch: Arc<str>,
    /// The revision a delta starts from; none: the full set.
    from: Option<u64>,
    /// The last revision that changed the set.
    to: u64,
    /// The least revision the answer must be of.
    least: u64,
    accepted: bool,
    degraded: bool,
}

/// What a request needs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing is newer.
    Nothing,
    /// This registry has not caught up with what the router has from another one.
    Patience,
    /// The full set.
    Full,
    /// The changes after this revision.
    Delta(u64),
}

/// What a request needs of a state: pure.
pub(crate) fn need(state: &State, request: &FeedRequest) -> Need {
    let Some((epoch, after)) = &request.after else {
        return Need::Full;
    };
    if **epoch != *state.epoch {
        return Need::Full;
    }
    let totals = state.totals(&request.cluster);
    if request.full {
        return if *after > state.revision {
            Need::Patience
        } else {
            Need::Full
        };
    }
    if totals.revision <= *after {
        return Need::Nothing;
    }
    if *after < state.recent_from || totals.objects < DELTA_FROM {
        return Need::Full;
    }
    let mut bytes = 0;
    for recent in state.recent.iter().rev() {
        if recent.revision <= *after {
            break;
        }
        bytes += recent.line.as_ref().map_or(80, |line| line.bytes.len()) as u64;
        if bytes * 3 > totals.bytes {
            return Need::Full;
        }
    }
    Need::Delta(*after)
}

/// Encodes an update, in this coding or (a small one) as it is: pure.
pub(crate) fn encode(
    state: &State,
    cluster: &Name,
    from: Option<u64>,
    coding: Coding,
    accepted: bool,
) -> Result<(Coding, Vec<u8>), FeedError> {
    let totals = state.totals(cluster);
    let mut encoder = Encoder::new(&Head {
        format: FORMAT,
        cluster: cluster.to_string(),
        epoch: state.epoch.to_string(),
        revision: state.revision,
        after: from,
        checksum: totals.checksum,
        objects: totals.objects,
        accepted,
        degraded: state.degraded,
    })?;
    match from {
        None => {
            for line in state.feed_lines(cluster) {
                encoder.set(line);
            }
        }
        Some(from) => {
            let mut seen = std::collections::HashSet::new();
            let mut last: Vec<_> = state
                .recent
                .iter()
                .rev()
                .take_while(|recent| recent.revision > from)
                .filter(|recent| recent.cluster.as_ref().is_none_or(|own| own == cluster))
                .filter(|recent| seen.insert((recent.kind, &recent.key)))
                .collect();
            last.reverse();
            for recent in last {
                match &recent.line {
                    Some(line) => encoder.set(line),
                    None => encoder.drop(recent.kind.as_str(), &recent.key)?,
                }
            }
        }
    }
    let text = encoder.finish();
    if text.len() <= AS_IT_IS {
        return Ok((Coding::Identity, text));
    }
    Ok((coding, coding.encode(&text)?))
}

/// Whether routers may let go of what a new history no longer has.
pub(crate) fn accepted(state: &State, now: i64) -> bool {
    state.accepted_at > 0 && now - state.accepted_at < ACCEPTED_FOR
}

impl Feed {
    /// A cluster's mark, to wait on.
    pub(crate) fn watch(&self, cluster: &Name, state: &State) -> watch::Receiver<Mark> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks
            .entry(cluster.clone())
            .or_insert_with(|| watch::Sender::new(mark(state, cluster)))
            .subscribe()
    }

    /// Wakes whose set has changed. The state must be visible to readers already.
    pub(crate) fn publish(&self, state: &State) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.retain(|_, sender| sender.receiver_count() > 0);
        for (cluster, sender) in marks.iter() {
            let new = mark(state, cluster);
            sender.send_if_modified(|old| {
                let moved = *old != new;
                *old = new;
                moved
            });
        }
    }

    /// The body for a request that needs one.
    pub(crate) async fn body(
        &self,
        state: &Arc<State>,
        request: &FeedRequest,
        from: Option<u64>,
        now: i64,
    ) -> Result<Body, FeedError> {
        let totals = state.totals(&request.cluster);
        let accepted = accepted(state, now);
        let own = match &request.after {
            Some((epoch, after)) if **epoch == *state.epoch => *after,
            _ => 0,
        };
        let key = BodyKey {
            cluster: request.cluster.clone(),
            coding: request.coding.as_str(),
            epoch: Arc::clone(&state.epoch),
            from,
            to: totals.revision,
            least: if own > totals.revision { own } else { 0 },
            accepted,
            degraded: state.degraded,
        };
        let cell = self.cell(key);
        let (coding, cluster) = (request.coding, request.cluster.clone());
        let body = cell
            .get_or_try_init(|| async {
                let state = Arc::clone(state);
                let revision = state.revision;
                let work = move || encode(&state, &cluster, from, coding, accepted);
                let (coding, bytes) = if from.is_some() || totals.bytes <= INLINE {
                    work()
                } else {
                    tokio::task::spawn_blocking(work)
                        .await
                        .map_err(|error| FeedError::Encode(error.to_string()))?
                }?;
                Ok::<Body, FeedError>(Body {
                    revision,
                    coding,
                    bytes: bytes.into(),
                })
            })
            .await?;
        Ok(body.clone())
    }

    fn cell(&self, key: BodyKey) -> Cell {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = bodies.iter().find(|(have, _)| *have == key) {
            return Arc::clone(cell);
        }
        if key.from.is_none() {
            // Full sets are large: the one before is of no more use to new askers.
            bodies.retain(|(have, _)| {
                have.from.is_some() || have.cluster != key.cluster || have.coding != key.coding
            });
        }
        while bodies.len() >= KEPT {
            bodies.pop_front();
        }
        let cell = Cell::default();
        bodies.push_back((key, Arc::clone(&cell)));
        cell
    }
}

fn mark(state: &State, cluster: &Name) -> Mark {
    (Arc::clone(&state.epoch), state.totals(cluster).revision)
}

#[cfg(test)]
mod tests;
