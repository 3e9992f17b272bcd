//! Releases: what is to be done next with one, decided from what is seen. Pure; read here how a release
//! goes on.
//!
//! ```text
//!            ┌────────── resume ──────────┐
//!            ▼                            │
//! start ─► running ── pause, a hand ──► paused
//!            │  └─ promote: next share ─┐ │
//!            │◄─────────────────────────┘ │
//!            ├─ last step done ─► finished│    at the candidate
//!            ├─ worse, rollback ► rolled-back  at the baseline
//!            └─ abort ──────────► aborted      where it is
//! ```
//!
//! The replica that holds the job calls [`next`] each second with what it sees, and writes what [`act`] makes
//! of the answer: the release and its plugin in one unit, if the release is still what was looked at. Nothing
//! is kept beside the release itself: candidate and baseline are compared anew, from the stored windows
//! ([`judge`]), by whoever goes on.
//!
//! A release never goes on blindly. The next step comes when its pause is over *and* the figures up to that
//! moment have come, have a sample, and give no sound reason to call the candidate worse. Without figures –
//! no requests, routers or the database away – it stays where it is.

mod instances;
mod judge;
pub(crate) mod look;
mod moves;
mod start;

use cardea_registry_api::{
    Name, Plugin, Release,
    figures::{WINDOW_MS, window_of},
    plugin::Percent,
    release::{Event, Happened, OnWorse, Order, Pause, ReleaseState, Verdict},
};

use crate::state::State;
pub(crate) use instances::ready;
pub(crate) use judge::{HISTORY_MS, Judged, Window, judge, spell_of};
pub(crate) use moves::Groups;
pub(crate) use start::{Refused, draft};

/// Who goes on where nobody ordered anything.
pub(crate) const ITSELF: &str = "cardea";
/// What can be worse with a candidate.
pub(crate) const WORSE: [&str; 3] = ["errors", "slowness", "instances"];

/// What is seen of a release.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The time, Unix ms.
    pub(crate) now: i64,
    /// Its plugin as it is.
    pub(crate) plugin: Option<&'a Plugin>,
    /// Instances of the candidate that take requests; none: it is no group.
    pub(crate) candidate_ready: Option<u64>,
    /// Those of the baseline.
    pub(crate) baseline_ready: Option<u64>,
    /// Windows since it is judged, in order of time, one a cluster.
    pub(crate) windows: &'a [Window],
    /// Windows before the share was written, the newest first.
    pub(crate) before: &'a [Window],
    /// Up to when there are figures, Unix ms.
    pub(crate) newest: Option<i64>,
}

/// What is to be done with a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The next step; behind the last one the end.
    Promote,
    /// All requests to the candidate.
    PromoteFull,
    /// It waits.
    Pause,
    /// It goes on.
    Resume,
    /// It is left as it is.
    Abort,
    /// All requests to the baseline.
    RollBack,
}

impl From<Order> for Action {
    fn from(order: Order) -> Self {
        match order {
            Order::Promote => Self::Promote,
            Order::PromoteFull => Self::PromoteFull,
            Order::Pause => Self::Pause,
            Order::Resume => Self::Resume,
            Order::Abort => Self::Abort,
            Order::Rollback => Self::RollBack,
        }
    }
}

/// The groups whose figures are compared; none: they cannot be told apart.
pub(crate) fn groups(release: &Release, plugin: Option<&Plugin>) -> Option<Groups> {
    moves::groups(release, plugin)
}

/// What a release does by itself now, and why; none: nothing.
pub(crate) fn next(release: &Release, seen: &Seen<'_>) -> Option<(Action, Option<String>)> {
    if release.state != ReleaseState::Running {
        return None;
    }
    if let Err(why) = moves::stands(release, seen.plugin) {
        return Some((Action::Pause, Some(format!("{why}, by hand"))));
    }
    let worse = || match release.plan.on_worse {
        OnWorse::Rollback => Action::RollBack,
        OnWorse::Pause => Action::Pause,
    };
    if seen.candidate_ready == Some(0) {
        let why = format!(
            "no instance of `{}` takes requests any more",
            release.plan.candidate
        );
        // Back only where somebody is.
        let action = if seen.baseline_ready == Some(0) {
            Action::Pause
        } else {
            worse()
        };
        return Some((action, Some(why)));
    }
    let judged = judge(release, seen);
    if let Some(why) = judged.why_worse(release) {
        return Some((worse(), Some(why)));
    }
    waits_for(release, seen, &judged)
        .is_none()
        .then_some((Action::Promote, None))
}

/// What is worse with a candidate, of [`WORSE`]; none: nothing is.
pub(crate) fn worse(release: &Release, seen: &Seen<'_>) -> Option<&'static str> {
    if seen.candidate_ready == Some(0) {
        return Some(WORSE[2]);
    }
    match judge(release, seen).verdict {
        Verdict::MoreErrors => Some(WORSE[0]),
        Verdict::Slower => Some(WORSE[1]),
        Verdict::TooFew | Verdict::NotWorse => None,
    }
}

/// What the next step waits for; none: nothing.
pub(crate) fn waits_for(release: &Release, seen: &Seen<'_>, judged: &Judged) -> Option<String> {
    if release.state != ReleaseState::Running {
        let resume = release.state == ReleaseState::Paused;
        return resume.then(|| "somebody to resume it".to_owned());
    }
    let step = release.at()?;
    let pause = match step.pause {
        Pause::Manual => return Some("somebody to promote it".to_owned()),
        Pause::For(span) => i64::try_from(span.as_millis()).unwrap_or(i64::MAX),
    };
    // All requests are at the candidate, and nobody wants it watched.
    if release.is_last() && pause == 0 {
        return None;
    }
    let end = release.since.saturating_add(pause);
    if seen.now < end {
        let left = u64::try_from(end - seen.now).unwrap_or(0).div_ceil(1000);
        return Some(format!("the end of its pause, in {left} s"));
    }
    // Whole windows, which are not later than the pause.
    if seen.newest.is_none_or(|newest| newest < window_of(end)) {
        return Some(
            "figures of this step: routers or the database are away, or nobody asks".to_owned(),
        );
    }
    if judged.verdict == Verdict::TooFew && judged.comparable {
        let (baseline, candidate) = judged.requests();
        return Some(format!(
            "a sample of {} requests each: the candidate has had {candidate}, the baseline {baseline}",
            release.plan.limits.least_requests
        ));
    }
    None
}

/// Why an order is refused: nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotNow(pub(crate) String);

/// A release after an action, and its plugin where that is to be written.
pub(crate) fn act(
    release: &Release,
    plugin: Option<&Plugin>,
    action: &Action,
    (by, why, now): (&str, Option<String>, i64),
) -> Result<(Release, Option<Plugin>), NotNow> {
    allowed(release, plugin, action)?;
    let mut next = release.clone();
    let mut percent = release.percent;
    let what = match action {
        Action::Promote | Action::PromoteFull if release.is_last() => {
            next.state = ReleaseState::Finished;
            percent = Percent::ALL;
            Happened::Finished
        }
        Action::Promote => {
            next.step += 1;
            percent = next.at().map_or(percent, |step| step.percent);
            next.state = ReleaseState::Running;
            Happened::Promoted
        }
        Action::PromoteFull => {
            let last = release.plan.steps.len().saturating_sub(1);
            next.step = u16::try_from(last).unwrap_or(u16::MAX);
            next.state = ReleaseState::Running;
            percent = Percent::ALL;
            Happened::Promoted
        }
        Action::Pause => {
            next.state = ReleaseState::Paused;
            Happened::Paused
        }
        Action::Resume => {
            next.state = ReleaseState::Running;
            Happened::Resumed
        }
        Action::Abort => {
            next.state = ReleaseState::Aborted;
            Happened::Aborted
        }
        Action::RollBack => {
            next.state = ReleaseState::RolledBack;
            percent = Percent::default();
            Happened::RolledBack
        }
    };
    next.percent = percent;
    next.why = why.clone().filter(|_| next.state != ReleaseState::Running);
    next.ended_at = next.state.is_over().then_some(now);
    let goes_on = matches!(what, Happened::Promoted | Happened::Resumed);
    if goes_on {
        next.since = now;
        next.judged_from = window_of(now) + WINDOW_MS;
    }
    next.note(Event {
        at: now,
        by: by.to_owned(),
        what,
        percent,
        why,
    });
    let writes = goes_on || matches!(what, Happened::Finished | Happened::RolledBack);
    let put = if writes {
        let put = moves::written(&next, plugin, percent).map_err(NotNow)?;
        (plugin != Some(&put)).then_some(put)
    } else {
        None
    };
    Ok((next, put))
}

fn allowed(release: &Release, plugin: Option<&Plugin>, action: &Action) -> Result<(), NotNow> {
    let state = release.state;
    let no = |what: &str| Err(NotNow(format!("release `{}` {what}", release.id)));
    match action {
        Action::RollBack if state == ReleaseState::RolledBack => no("was rolled back already"),
        // What came after it is not to be undone with it.
        Action::RollBack if state.is_over() => moves::stands(release, plugin)
            .map_err(|why| NotNow(format!("release `{}` is over, and {why} since", release.id))),
        _ if state.is_over() => no(&format!("is over: it is {state}")),
        Action::Pause if state == ReleaseState::Paused => no("is paused already"),
        Action::Resume if state == ReleaseState::Running => no("is running"),
        _ => Ok(()),
    }
}

/// No other release of the service is under way: what one moves from would be lost on it.
pub(crate) fn nobody_else(state: &State, release: &Release) -> Result<(), String> {
    let mut others = state.releases().map(|stored| &stored.object);
    let other = others.find(|other| {
        other.id != release.id
            && other.plan.service == release.plan.service
            && !other.state.is_over()
    });
    match other {
        None => Ok(()),
        Some(other) => Err(format!(
            "release `{}` of {} moves service `{}` and is {}: roll that one back first",
            other.id, other.author, other.plan.service, other.state
        )),
    }
}

/// The name that a release gets which was given none: of its service, and the time in milliseconds.
pub(crate) fn id_of(service: &Name, now: i64) -> Name {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut left = u64::try_from(now).unwrap_or(0);
    let mut text = Vec::new();
    while left > 0 || text.is_empty() {
        let digit = usize::try_from(left % 36).unwrap_or(0);
        text.push(char::from(DIGITS[digit]));
        left /= 36;
    }
    let when: String = text.into_iter().rev().collect();
    let most = Name::MAX - when.len() - 1;
    let service: String = service.as_str().chars().take(most).collect();
    let id = format!("{service}-{when}").parse();
    id.unwrap_or_else(|_| service_only(&service))
}

fn service_only(service: &str) -> Name {
    service.parse().unwrap_or_else(|_| moves::baseline())
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
