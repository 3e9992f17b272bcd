//! Switches, as operators begin them and act on them. What a word leads to is decided in
//! [`crate::switch`]; here it is looked at what there is, and written.

use std::{sync::Arc, time::Duration};

use cardea_registry_api::{
    Invalid, Name,
    api::Mode,
    switch::{Learnt, NewSwitch, Refusal, Switch, SwitchPlan, Word},
};

use super::{
    Acknowledgements, Core,
    operations::{Decided, outdated},
};
use crate::{
    background::operations::learn_routers,
    change::{SubmitError, Written},
    clock::wall_ms,
    state::{State, Stored},
    switch::{self, Beginning, Next, Refused, Seen, look, plan},
};

/// Of how many services a switch keeps what was learnt: the busiest.
const MOST_LEARNT: usize = 500;

/// What an operator does to a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Approve,
    Pause,
    Resume,
    Undo,
}

/// Why an operator's word on a switch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SwitchError {
    /// There is no such switch.
    #[error("there is no switch `{0}`")]
    NotFound(Name),
    /// It asks for what is not there.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Something speaks against it: only with force.
    #[error("{}; with `force` it begins nevertheless", whys(.0))]
    Short(Vec<Refusal>),
    /// It does not fit how the switch stands.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be written.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

fn whys(refusals: &[Refusal]) -> String {
    let whys: Vec<&str> = refusals
        .iter()
        .map(|refusal| refusal.why.as_str())
        .collect();
    whys.join("; ")
}

/// What a beginning switch needs to know.
struct Prospect {
    state: Arc<State>,
    plan: SwitchPlan,
    beginning: Beginning,
    seen: Seen,
}

impl Core {
    /// What a switch would do now.
    pub(crate) async fn plan_switch(&self, asked: &NewSwitch) -> Result<SwitchPlan, SwitchError> {
        Ok(self.prospect(asked).await?.plan)
    }

    async fn prospect(&self, asked: &NewSwitch) -> Result<Prospect, SwitchError> {
        asked.check()?;
        let shared = &self.shared;
        let state = self.state();
        let moves = plan::moves(&state, asked)?;
        let learnt = look::learnt(shared, &state, asked).await;
        let known = look::known(shared, &state, (asked, look::NOW_MS), learnt)
            .await
            .unwrap_or_default();
        learn_routers(shared).await;
        let live = self.live_routers(&asked.cluster);
        let plan = plan::plan(&state, asked, &moves, &known, live);
        let moved = plan::moved(&state, asked, &moves);
        let before = look::before(shared, &asked.cluster, &|service| moved(service)).await;
        drop(moved);
        let learnt = plan.services.iter().filter_map(|planned| {
            let each = known.learnt.get(&planned.service)?.each;
            let rate = whole(planned.rate);
            Some((planned.service.clone(), Learnt { each, rate }))
        });
        let learnt = learnt.take(MOST_LEARNT).collect();
        let seen = Seen {
            traffic: look::traffic(
                &state,
                moves.iter().map(cardea_registry_api::switch::Move::key),
            ),
            ..Seen::default()
        };
        Ok(Prospect {
            state,
            plan,
            beginning: Beginning {
                moves,
                before,
                learnt,
            },
            seen,
        })
    }

    /// Begins a switch: with its first stage, unless somebody has to approve it.
    pub(crate) async fn begin_switch(
        &self,
        asked: &NewSwitch,
        author: &str,
    ) -> Result<(SwitchPlan, Name, Written), SwitchError> {
        let decide = || self.decide_switch(asked, author);
        let written = self.write_word::<Switch, _, _, _>(author, decide);
        let (id, written, plan) = written.await?;
        Ok((plan, id, written))
    }

    async fn decide_switch(
        &self,
        asked: &NewSwitch,
        author: &str,
    ) -> Result<Decided<SwitchPlan>, SwitchError> {
        let prospect = self.prospect(asked).await?;
        not_short(asked.force, &prospect.plan)?;
        let id = free_id(&prospect.state);
        let new = (id.clone(), asked.clone());
        let next = switch::begin(new, author, prospect.beginning, wall_ms());
        let mut changes = next.changes(None, &prospect.seen);
        changes.extend(outdated(prospect.state.switches()));
        Ok(Decided {
            id,
            changes,
            told: prospect.plan,
        })
    }

    /// Does something to a switch.
    pub(crate) async fn act_on_switch(
        &self,
        id: &Name,
        act: Act,
        by: &str,
        word: &Word,
    ) -> Result<Written, SwitchError> {
        let decide = || self.decide_act(id, act, by, word);
        let (_, written, ()) = self.write_word::<Switch, _, _, _>(by, decide).await?;
        Ok(written)
    }

    async fn decide_act(
        &self,
        id: &Name,
        act: Act,
        by: &str,
        word: &Word,
    ) -> Result<Decided<()>, SwitchError> {
        let state = self.state();
        let stored = state.switch(id.as_str()).cloned();
        let stored = stored.ok_or_else(|| SwitchError::NotFound(id.clone()))?;
        let (next, seen) = self
            .decide_on_switch(&state, &stored, act, by, word)
            .await?;
        Ok(Decided {
            id: id.clone(),
            changes: next.changes(Some(stored.revision), &seen),
            told: (),
        })
    }

    async fn decide_on_switch(
        &self,
        state: &State,
        stored: &Arc<Stored<Switch>>,
        act: Act,
        by: &str,
        word: &Word,
    ) -> Result<(Next, Seen), SwitchError> {
        let (switch, now) = (&stored.object, wall_ms());
        let said = (word.reason.as_str(), word.force);
        if act == Act::Approve {
            // As it is now, not as it was when it was asked for.
            let prospect = self.prospect(&switch.asked).await?;
            let next = switch::approve(switch, by, prospect.beginning, now)?;
            not_short(word.force || switch.asked.force, &prospect.plan)?;
            return Ok((next, prospect.seen));
        }
        let seen = look::look(&self.shared, state, stored, false).await;
        let next = match act {
            Act::Pause => switch::pause(switch, by, said.0, now)?,
            Act::Resume => switch::resume(switch, by, said, &seen, now)?,
            Act::Undo | Act::Approve => {
                nobody_else(state, switch)?;
                switch::undo(switch, by, said, &seen, now)?
            }
        };
        Ok((next, seen))
    }

    /// What a switch waits for, in words; empty where it has ended.
    pub(crate) async fn describe_switch(&self, stored: &Arc<Stored<Switch>>) -> String {
        if !stored.object.state.is_active() {
            return String::new();
        }
        learn_routers(&self.shared).await;
        let seen = look::look(&self.shared, &self.state(), stored, true).await;
        let now = switch::describe(&stored.object, &seen, wall_ms());
        if self.shared.mode() == Mode::Ok {
            return now;
        }
        format!("{now}; it stands still until the database is back, and is watched anew then")
    }

    /// Which routers of a switch's cluster have what was written, after at most `wait`.
    pub(crate) async fn switch_acknowledged(
        &self,
        cluster: &Name,
        written: &Written,
        wait: Duration,
    ) -> Acknowledgements {
        let mut told = self.acknowledged(cluster, written, wait).await;
        // Routers of other clusters serve none of these requests.
        told.acknowledged.retain(|id| !id.contains('/'));
        told.pending.retain(|id| !id.contains('/'));
        told
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is neither negative nor near the largest number"
)]
fn whole(rate: f64) -> u64 {
    rate.ceil() as u64
}

fn not_short(force: bool, plan: &SwitchPlan) -> Result<(), SwitchError> {
    if force || plan.refusals.is_empty() {
        return Ok(());
    }
    Err(SwitchError::Short(plan.refusals.clone()))
}

/// No later switch moves the same: what is before this one would be lost on it.
fn nobody_else(state: &State, switch: &Switch) -> Result<(), Refused> {
    let asked = &switch.asked;
    let other = state.switches().find(|other| {
        other.object.id != switch.id
            && other.object.state.is_active()
            && other
                .object
                .overlaps(&asked.cluster, asked.service.as_ref())
    });
    match other {
        None => Ok(()),
        Some(other) => Err(Refused(format!(
            "switch `{}` of {} moves the same and is {}: undo that one first",
            other.object.id, other.object.author, other.object.state
        ))),
    }
}

/// The name of the next switch.
fn free_id(state: &State) -> Name {
    let numbers = state.switches().filter_map(|stored| {
        let number = stored.object.id.as_str().strip_prefix("switch-")?;
        number.parse::<u64>().ok()
    });
    let next = numbers.max().unwrap_or_default().saturating_add(1);
    Name::numbered("switch", next)
}
