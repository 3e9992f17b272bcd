//! A switch, step by step: what is decided, purely, over what was seen. Read [`step`].
//!
//! ```text
//! begin ─► stage written ─► all routers have it ─► watched ─► next stage … ─► done
//!   │           └────────── a guard trips ──────────┘ ─► returned: as before
//! waiting (for approval)         pause ⇄ resume        undo ─► undone: as before
//! ```
//!
//! What comes out is the switch's next form and what is written with it, as one unit ([`Next::changes`]):
//! on the revision of the switch and of each traffic object that was seen, so that a replica that was late
//! or stood still, and one that overlooked a change by hand, writes nothing.

mod describe;
mod guards;
pub(crate) mod look;
pub(crate) mod plan;

pub(crate) use describe::describe;
pub(crate) use guards::ALL as GUARDS;

use std::collections::BTreeMap;

use cardea_registry_api::{
    Name, Traffic, TrafficKey,
    figures::WINDOW_MS,
    switch::{Learnt, Move, NewSwitch, Refusal, Sample, Switch, SwitchState},
};

use crate::change::{Change, Expected};

/// Whose an event is that happened by itself.
pub(crate) const ITSELF: &str = "cardea";
/// For how long a watch waits for figures beyond its end before the switch pauses, ms.
const FIGURES_LATE: i64 = 120_000;
/// The most windows that a guard looks at, and that must have been reported at a watch's end.
pub(crate) const MOST_WINDOWS: i64 = 12;

/// What is seen of a switch's surroundings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The traffic objects that it moves, as they are, each with its revision.
    pub(crate) traffic: BTreeMap<TrafficKey, (Traffic, u64)>,
    /// Live routers of its cluster.
    pub(crate) live: usize,
    /// Those of them that do not have the last stage, each with what it lacks.
    pub(crate) behind: Vec<String>,
    /// What the routers counted lately; none: not known, or nothing new.
    pub(crate) figures: Option<Counted>,
    /// Since when there has been a database here to see all this in, Unix ms: what was not seen before
    /// that is nobody's fault.
    pub(crate) since: i64,
    /// Which capacity is short for where the switch leads.
    pub(crate) short: Vec<Refusal>,
}

/// What routers counted in the windows of some time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// The windows of which there are reports, by their beginning.
    pub(crate) windows: Vec<i64>,
    /// By service, and (none) of all of them together; only since the stage was written.
    pub(crate) samples: Vec<Sample>,
}

/// What a switch becomes, and what is written with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) switch: Switch,
    pub(crate) write: Write,
    /// Which guard tripped.
    pub(crate) tripped: Option<&'static str>,
}

/// What is written with a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// Only the switch.
    Nothing,
    /// The traffic of its stage.
    Stage,
    /// The traffic that was before.
    Back,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// What a switch begins with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beginning {
    pub(crate) moves: Vec<Move>,
    pub(crate) before: Vec<Sample>,
    pub(crate) learnt: BTreeMap<Name, Learnt>,
}

/// The first form of a switch: its first stage, or waiting for a second person.
pub(crate) fn begin(
    (id, asked): (Name, NewSwitch),
    author: &str,
    beginning: Beginning,
    now: i64,
) -> Next {
    let waits = asked.approval;
    let reason = asked.reason.clone();
    let mut switch = Switch {
        id,
        asked,
        author: author.to_owned(),
        created_at: now,
        approved_by: None,
        state: SwitchState::Waiting,
        stage: 0,
        stage_at: 0,
        converged_at: None,
        moves: Vec::new(),
        before: Vec::new(),
        learnt: BTreeMap::new(),
        events: Vec::new(),
    };
    if waits {
        switch.note(now, author, format!("asked for approval: {reason}"));
        return plain(switch);
    }
    start(switch, author, &format!("begun: {reason}"), beginning, now)
}

/// A second person approves: it begins.
pub(crate) fn approve(
    switch: &Switch,
    by: &str,
    beginning: Beginning,
    now: i64,
) -> Result<Next, Refused> {
    expect(switch, &[SwitchState::Waiting], "approved")?;
    if by == switch.author {
        return Err(Refused(format!(
            "`{by}` began `{}`: somebody else has to approve it, with a token of another name",
            switch.id
        )));
    }
    let mut switch = switch.clone();
    switch.approved_by = Some(by.to_owned());
    Ok(start(switch, by, "approved", beginning, now))
}

fn start(mut switch: Switch, by: &str, what: &str, beginning: Beginning, now: i64) -> Next {
    switch.moves = beginning.moves;
    switch.before = beginning.before;
    switch.learnt = beginning.learnt;
    switch.state = SwitchState::Running;
    switch.note(now, by, what);
    stage(switch, 0, by, now)
}

/// Writes a stage.
fn stage(mut switch: Switch, stage: usize, by: &str, now: i64) -> Next {
    switch.stage = stage;
    switch.stage_at = now;
    switch.converged_at = None;
    let what = format!(
        "stage {} of {}: {} %",
        stage + 1,
        switch.asked.stages.len(),
        switch.percent()
    );
    switch.note(now, by, what);
    Next {
        switch,
        write: Write::Stage,
        tripped: None,
    }
}

fn plain(switch: Switch) -> Next {
    Next {
        switch,
        write: Write::Nothing,
        tripped: None,
    }
}

/// What happens by itself; none: nothing yet.
pub(crate) fn step(switch: &Switch, seen: &Seen, now: i64) -> Option<Next> {
    if switch.state != SwitchState::Running {
        return None;
    }
    if let Some(what) = by_hand(switch, seen) {
        let what = format!("{what}: paused; `undo` and `resume` write over it only with force");
        return Some(paused(switch, ITSELF, &what, now));
    }
    if let Some(trip) = guards::judge(switch, seen, now) {
        let mut next = back(switch, SwitchState::Returned, ITSELF, &trip.what, now);
        next.tripped = Some(trip.guard);
        return Some(next);
    }
    let Some(since) = switch.converged_at else {
        let waits = switch.asked.guards.routers.is_some();
        if waits && (seen.live == 0 || !seen.behind.is_empty()) {
            return None;
        }
        let mut switch = switch.clone();
        switch.converged_at = Some(now);
        switch.note(now, ITSELF, format!("{} routers have it", seen.live));
        return Some(plain(switch));
    };
    match watched(switch, seen, since, now) {
        Watched::NotYet => None,
        Watched::Blind => {
            let what = "no figures of the watch: paused. Look whether routers report, then resume";
            Some(paused(switch, ITSELF, what, now))
        }
        Watched::Clean if switch.stage + 1 < switch.asked.stages.len() => {
            Some(stage(switch.clone(), switch.stage + 1, ITSELF, now))
        }
        Watched::Clean => {
            let mut switch = switch.clone();
            switch.state = SwitchState::Done;
            switch.note(now, ITSELF, "done");
            Some(plain(switch))
        }
    }
}

enum Watched {
    NotYet,
    /// The time is over, and nobody knows how it was.
    Blind,
    Clean,
}

/// How many windows must have been reported at a watch's end.
fn windows_needed(switch: &Switch) -> i64 {
    let watch = ms(switch.asked.watch);
    ((watch + WINDOW_MS - 1) / WINDOW_MS).min(MOST_WINDOWS)
}

/// Whether a stage was watched for as long as was asked; no guard has tripped.
fn watched(switch: &Switch, seen: &Seen, since: i64, now: i64) -> Watched {
    let end = since + ms(switch.asked.watch);
    if now < end {
        return Watched::NotYet;
    }
    let guards = &switch.asked.guards;
    let needed = windows_needed(switch);
    if needed == 0 || (guards.errors.is_none() && guards.p99.is_none()) {
        return Watched::Clean;
    }
    // All of the last windows, none of them from before, up to the watch's end at least.
    let windows = seen.figures.iter().flat_map(|figures| &figures.windows);
    let newest = windows.clone().max().copied().unwrap_or_default();
    let first = newest - (needed - 1) * WINDOW_MS;
    let reported = windows.filter(|at| **at >= first).count();
    if first >= since && newest + WINDOW_MS >= end && reported as u64 >= needed.unsigned_abs() {
        return Watched::Clean;
    }
    // After an outage it is watched anew: what was counted meanwhile is lost.
    if now >= end.max(seen.since) + FIGURES_LATE {
        return Watched::Blind;
    }
    Watched::NotYet
}

/// Which traffic is not as the switch left it.
pub(crate) fn by_hand(switch: &Switch, seen: &Seen) -> Option<String> {
    let ended = matches!(
        switch.state,
        SwitchState::Returned | SwitchState::Undone | SwitchState::Cancelled
    );
    let percent = switch.percent();
    switch.moves.iter().find_map(|moved| {
        let key = moved.key();
        let wanted = if ended || switch.stage_at == 0 {
            moved.before().cloned()
        } else {
            Some(moved.at(&switch.asked.to, percent))
        };
        match seen.traffic.get(&key) {
            Some((there, _)) if Some(there) == wanted.as_ref() => None,
            Some((_, revision)) => Some(format!(
                "traffic `{key}` was changed by somebody else, at revision {revision}"
            )),
            None if wanted.is_none() => None,
            None => Some(format!("traffic `{key}` was deleted by somebody else")),
        }
    })
}

fn paused(switch: &Switch, by: &str, what: &str, now: i64) -> Next {
    let mut switch = switch.clone();
    switch.state = SwitchState::Paused;
    switch.note(now, by, what);
    plain(switch)
}

/// Everything as before.
fn back(switch: &Switch, state: SwitchState, by: &str, what: &str, now: i64) -> Next {
    let mut switch = switch.clone();
    switch.state = state;
    switch.note(now, by, what);
    Next {
        switch,
        write: Write::Back,
        tripped: None,
    }
}

/// Somebody stops it where it is.
pub(crate) fn pause(switch: &Switch, by: &str, reason: &str, now: i64) -> Result<Next, Refused> {
    expect(switch, &[SwitchState::Running], "paused")?;
    Ok(paused(switch, by, &said("paused", reason), now))
}

/// Somebody lets it go on: its stage is written again, and watched from the beginning.
pub(crate) fn resume(
    switch: &Switch,
    by: &str,
    (reason, force): (&str, bool),
    seen: &Seen,
    now: i64,
) -> Result<Next, Refused> {
    expect(switch, &[SwitchState::Paused], "resumed")?;
    not_by_hand(switch, seen, force)?;
    let mut switch = switch.clone();
    switch.state = SwitchState::Running;
    switch.note(now, by, said("resumed", reason));
    let at = switch.stage;
    Ok(stage(switch, at, by, now))
}

/// Somebody wants everything as it was before: also when it is done.
pub(crate) fn undo(
    switch: &Switch,
    by: &str,
    (reason, force): (&str, bool),
    seen: &Seen,
    now: i64,
) -> Result<Next, Refused> {
    use SwitchState::{Cancelled, Done, Paused, Running, Undone, Waiting};
    expect(switch, &[Waiting, Running, Paused, Done], "undone")?;
    if switch.state == Waiting {
        let mut switch = switch.clone();
        switch.state = Cancelled;
        switch.note(now, by, said("cancelled", reason));
        return Ok(plain(switch));
    }
    not_by_hand(switch, seen, force)?;
    Ok(back(switch, Undone, by, &said("undone", reason), now))
}

fn said(what: &str, reason: &str) -> String {
    match reason.trim() {
        "" => what.to_owned(),
        reason => format!("{what}: {reason}"),
    }
}

fn expect(switch: &Switch, states: &[SwitchState], what: &str) -> Result<(), Refused> {
    if states.contains(&switch.state) {
        return Ok(());
    }
    let (id, state) = (&switch.id, switch.state);
    Err(Refused(format!("`{id}` is {state}: it cannot be {what}")))
}

fn not_by_hand(switch: &Switch, seen: &Seen, force: bool) -> Result<(), Refused> {
    match by_hand(switch, seen) {
        Some(what) if !force => Err(Refused(format!("{what}: with force it is written over"))),
        _ => Ok(()),
    }
}

impl Next {
    /// All of it, as one unit: on the revision of the switch that was seen (none: it is new), and on those
    /// of the traffic.
    pub(crate) fn changes(&self, revision: Option<u64>, seen: &Seen) -> Vec<Change> {
        let mut changes = vec![Change::PutSwitch {
            switch: Box::new(self.switch.clone()),
            expected: revision.map_or(Expected::None, Expected::Exactly),
        }];
        let percent = self.switch.percent();
        for moved in &self.switch.moves {
            let key = moved.key();
            let there = seen.traffic.get(&key);
            let expected = there.map_or(Expected::None, |(_, at)| Expected::Exactly(*at));
            let wanted = match self.write {
                Write::Nothing => continue,
                Write::Stage => Some(moved.at(&self.switch.asked.to, percent)),
                Write::Back => moved.before().cloned(),
            };
            match wanted {
                Some(traffic) => changes.push(Change::PutTraffic {
                    traffic: Box::new(traffic),
                    expected,
                }),
                None if there.is_some() => changes.push(Change::DeleteTraffic { key, expected }),
                None => {}
            }
        }
        changes
    }
}

pub(crate) fn ms(span: cardea_registry_api::Span) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
