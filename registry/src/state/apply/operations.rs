//! Operations: what moves other objects step by step. A step is one unit, which puts the operation's next
//! form, on the revision that was seen, and what it moves: whoever was late or stood still moves nothing.

use cardea_registry_api::{Name, Switch};

use super::{Act, there};
use crate::{
    change::{Expected, Kind, Rejection},
    state::Object,
};

impl Act<'_> {
    pub(super) fn put_switch(
        &mut self,
        switch: &Switch,
        expected: Expected,
    ) -> Result<(), Rejection> {
        switch.asked.check()?;
        let id = switch.id.as_str();
        let old = self.state.switch(id).cloned();
        there(Kind::Switch, id, old.as_ref()).expect(expected)?;
        let was_active = old.as_ref().is_some_and(|old| old.object.state.is_active());
        let conflict = |why| {
            Err(Rejection::Conflict {
                kind: Kind::Switch,
                key: id.to_owned(),
                why,
            })
        };
        if old.is_some() && !was_active && switch.state.is_active() {
            return conflict(format!("switch `{id}` has ended: begin another one"));
        }
        let asked = &switch.asked;
        let other = self.state.switches().find(|other| {
            other.object.id != switch.id
                && other.object.state.is_active()
                && other
                    .object
                    .overlaps(&asked.cluster, asked.service.as_ref())
        });
        if let Some(other) = other.filter(|_| switch.state.is_active() && !was_active) {
            let other = &other.object;
            return conflict(format!(
                "switch `{}` of {} is {} and moves the same: wait for its end, or undo it",
                other.id, other.author, other.state
            ));
        }
        let object = Object::Switch(Box::new(switch.clone()));
        self.put(object, old.as_deref(), switch, "stepped")
    }

    pub(super) fn delete_switch(&mut self, id: &Name) -> Result<(), Rejection> {
        let old = self.state.switch(id.as_str()).cloned();
        if let Some(active) = old.as_ref().filter(|old| old.object.state.is_active()) {
            return Err(Rejection::Conflict {
                kind: Kind::Switch,
                key: id.to_string(),
                why: format!("switch `{id}` is {}: undo it first", active.object.state),
            });
        }
        self.delete(Kind::Switch, id.as_str(), old.as_deref(), "forgotten");
        Ok(())
    }
}
