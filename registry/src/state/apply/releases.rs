//! Releases, as `operations.rs` has switches: one of a service at a time.

use cardea_registry_api::{Name, Release, plugin::refers};

use super::{Act, there};
use crate::{
    change::{Expected, Kind, Rejection},
    release::{self, Action},
    state::Object,
};

impl Act<'_> {
    pub(super) fn put_release(
        &mut self,
        release: &Release,
        expected: Expected,
    ) -> Result<(), Rejection> {
        release.plan.check()?;
        let id = release.id.as_str();
        let old = self.state.release(id).cloned();
        there(Kind::Release, id, old.as_ref()).expect(expected)?;
        let conflict = |why| {
            Err(Rejection::Conflict {
                kind: Kind::Release,
                key: id.to_owned(),
                why,
            })
        };
        let is_over = release.state.is_over();
        if !is_over && old.as_ref().is_some_and(|old| old.object.state.is_over()) {
            return conflict(format!("release `{id}` is over: start another one"));
        }
        let other = self
            .state
            .releases()
            .map(|stored| &stored.object)
            .find(|other| {
                other.id != release.id
                    && other.plan.service == release.plan.service
                    && !other.state.is_over()
            });
        if let Some(other) = other.filter(|_| !is_over) {
            return conflict(format!(
                "release `{}` of {} is {} and moves service `{}`, too: wait for its end, abort it or roll it back",
                other.id, other.author, other.state, other.plan.service
            ));
        }
        let object = Object::Release(Box::new(release.clone()));
        self.put(object, old.as_deref(), release, "stepped")
    }

    /// As the order to roll it back: on whatever the release is by now, so that it holds also where somebody
    /// took a step meanwhile.
    pub(super) fn roll_back(
        &mut self,
        id: &Name,
        (by, why, at): (&str, &str, i64),
    ) -> Result<(), Rejection> {
        let Some(old) = self.state.release(id.as_str()).cloned() else {
            return Err(Rejection::NotFound {
                kind: Kind::Release,
                key: id.to_string(),
            });
        };
        let release = &old.object;
        let conflict = |why| Rejection::Conflict {
            kind: Kind::Release,
            key: id.to_string(),
            why,
        };
        release::nobody_else(self.state, release).map_err(conflict)?;
        let plugin = self.state.plugin(release.plugin.as_str());
        let plugin = plugin.map(|stored| &stored.object);
        let said = (by, Some(why.to_owned()), at);
        let done = release::act(release, plugin, &Action::RollBack, said);
        let (next, put) = done.map_err(|no| conflict(no.0))?;
        if let Some(plugin) = put {
            self.put_plugin(&plugin, Expected::Any)?;
            refers::check(&plugin, &*self.state)?;
        }
        let object = Object::Release(Box::new(next.clone()));
        self.put(object, Some(&*old), &next, "stepped")
    }

    pub(super) fn delete_release(&mut self, id: &Name) -> Result<(), Rejection> {
        let old = self.state.release(id.as_str()).cloned();
        if let Some(old) = old.as_ref().filter(|old| !old.object.state.is_over()) {
            return Err(Rejection::Conflict {
                kind: Kind::Release,
                key: id.to_string(),
                why: format!(
                    "release `{id}` is {}: abort it or roll it back first",
                    old.object.state
                ),
            });
        }
        self.delete(Kind::Release, id.as_str(), old.as_deref(), "forgotten");
        Ok(())
    }
}
