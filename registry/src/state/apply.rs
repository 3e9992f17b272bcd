//! What a change does to the state: the one place where it is decided.
//!
//! Pure: the state, the change and the time go in; the outcomes, or a rejection and an untouched
//! state, come out. Each outcome that changed something takes one revision.

use std::sync::Arc;

use cardea_registry_api::{
    Cluster, Instance, InstanceKey, InstanceState, Invalid, Service, Source,
    api::{InstancePatch, Registration},
};

use super::{Object, State, Stored};
use crate::change::{Change, Expected, Kind, Outcome, Rejection, Verb};

mod configuration;
mod operations;
mod releases;

impl State {
    /// Applies a unit: all changes or none; the error says which one was refused.
    pub fn apply_all(
        &mut self,
        changes: &[Change],
        now: i64,
    ) -> Result<Vec<Outcome>, (usize, Rejection)> {
        let mut outcomes = Vec::with_capacity(changes.len());
        // A change by itself is all or nothing. Several need a copy to go back to, and so does one
        // after which something may miss what it names.
        let asks = changes.iter().any(|change| change.instance().is_none());
        let before = (changes.len() > 1 || asks).then(|| self.clone());
        let applied = (changes.iter().enumerate())
            .try_for_each(|(index, change)| {
                let applied = self.apply(change, now, &mut outcomes);
                applied.map_err(|rejection| (index, rejection))
            })
            .and_then(|()| match &before {
                Some(before) if asks => self.refers_to_what_is_there(changes, before),
                _ => Ok(()),
            });
        match (applied, before) {
            (Ok(()), _) => Ok(outcomes),
            (Err(refused), before) => {
                if let Some(before) = before {
                    *self = before;
                }
                Err(refused)
            }
        }
    }

    /// Applies one change; a rejection leaves the state as it was. Whether everything is still there
    /// that others name is seen at the end of its unit.
    fn apply(
        &mut self,
        change: &Change,
        now: i64,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Rejection> {
        let mut act = Act {
            state: self,
            outcomes,
        };
        match change {
            Change::PutCluster { cluster, expected } => act.put_cluster(cluster, *expected),
            Change::PutService { service, expected } => act.put_service(service, *expected),
            Change::PutRoute { route, expected } => act.put_route(route, *expected),
            Change::PutCertificate {
                certificate,
                expected,
            } => act.put_certificate(certificate, *expected, now),
            Change::DeleteCertificate { name, expected } => act.delete_certificate(name, *expected),
            Change::PutFallback { fallback, expected } => act.put_fallback(fallback, *expected),
            Change::DeleteFallback { name, expected } => act.delete_fallback(name, *expected),
            Change::PutPlugin { plugin, expected } => act.put_plugin(plugin, *expected),
            Change::DeletePlugin { name, expected } => act.delete_plugin(name, *expected),
            Change::PutTraffic { traffic, expected } => act.put_traffic(traffic, *expected),
            Change::DeleteTraffic { key, expected } => act.delete_traffic(key, *expected),
            Change::MoveTraffic { key, before, after } => {
                act.move_traffic(key, before.as_deref(), after.as_deref())
            }
            Change::PutSwitch { switch, expected } => act.put_switch(switch, *expected),
            Change::DeleteSwitch { id } => act.delete_switch(id),
            Change::PutRelease { release, expected } => act.put_release(release, *expected),
            Change::RollBackRelease { id, by, why, at } => act.roll_back(id, (by, why, *at)),
            Change::DeleteRelease { id } => act.delete_release(id),
            Change::PutToken { token, expected } => act.put_token(token, *expected),
            Change::DeleteCluster { name, expected } => act.delete_cluster(name, *expected),
            Change::DeleteService { name, expected } => act.delete_service(name, *expected),
            Change::DeleteRoute { id, expected } => act.delete_route(id, *expected),
            Change::DeleteToken { name } => act.delete_token(name),
            Change::Register { key, registration } => act.register(key, registration, now),
            Change::Patch { key, patch } => act.patch(key, patch),
            Change::Deregister { key } => {
                act.take_out(key, "deregistered");
                Ok(())
            }
            Change::Expire { key } => {
                act.take_out(key, "expired");
                Ok(())
            }
            Change::MarkStale { key } => act.stale(key, Some(now), "stale"),
            Change::MarkFresh { key } => act.stale(key, None, "renewed"),
        }
    }
}

/// What is there now, for preconditions.
struct There<'a> {
    kind: Kind,
    key: &'a str,
    revision: Option<u64>,
}

impl There<'_> {
    fn expect(&self, expected: Expected) -> Result<(), Rejection> {
        expected.of(self.kind, self.key, self.revision)
    }

    /// As [`There::expect`], for a deletion: the object must be there.
    fn expect_to_delete(&self, expected: Expected) -> Result<(), Rejection> {
        if self.revision.is_none() {
            return Err(Rejection::NotFound {
                kind: self.kind,
                key: self.key.to_owned(),
            });
        }
        self.expect(expected)
    }
}

struct Act<'a> {
    state: &'a mut State,
    outcomes: &'a mut Vec<Outcome>,
}

impl Act<'_> {
    fn register(
        &mut self,
        key: &InstanceKey,
        registration: &Registration,
        now: i64,
    ) -> Result<(), Rejection> {
        if registration.lease.is_none() && registration.source != Source::Manual {
            return Err(Rejection::Invalid(Invalid::field(
                "lease",
                "only an instance with source `manual` may live without a lease; give one, such as 15s",
            )));
        }
        let old = self.state.instance(key).cloned();
        let mut new = registration.clone().into_instance(key.clone(), now);
        if let Some(old) = &old {
            new.forced = old.object.forced;
            new.registered_at = old.object.registered_at;
        }
        new.check()?;
        if self.state.cluster(key.cluster.as_str()).is_none() {
            let cluster = Cluster::named(key.cluster.clone());
            self.put(Object::Cluster(cluster.clone()), None, &cluster, "implied")?;
        }
        if self.state.service(key.service.as_str()).is_none() {
            let service = Service::named(key.service.clone());
            let object = Object::Service(Box::new(service.clone()));
            self.put(object, None, &service, "implied")?;
        }
        self.put_instance(new, old.as_deref(), "registered")
    }

    fn patch(&mut self, key: &InstanceKey, patch: &InstancePatch) -> Result<(), Rejection> {
        let Some(old) = self.state.instance(key).cloned() else {
            return Err(Rejection::NotFound {
                kind: Kind::Instance,
                key: key.to_string(),
            });
        };
        if patch.state == Some(InstanceState::Disabled) {
            return Err(Rejection::Invalid(Invalid::field(
                "state",
                "a source reports `starting`, `up` or `draining`; an operator disables with `forced.state`",
            )));
        }
        let mut new = old.object.clone();
        new.state = patch.state.unwrap_or(new.state);
        new.weight = patch.weight.unwrap_or(new.weight);
        new.forced = patch.forced.unwrap_or(new.forced);
        new.check()?;
        self.put_instance(new, Some(&old), "patched")
    }

    fn stale(
        &mut self,
        key: &InstanceKey,
        since: Option<i64>,
        cause: &'static str,
    ) -> Result<(), Rejection> {
        // Between the decision and now the instance may have gone, or have been marked already.
        let Some(old) = self.state.instance(key).cloned() else {
            return Ok(());
        };
        if old.object.stale_since.is_some() == since.is_some() {
            return Ok(());
        }
        let mut new = old.object.clone();
        new.stale_since = since;
        self.put_instance(new, Some(&old), cause)
    }

    fn take_out(&mut self, key: &InstanceKey, cause: &'static str) {
        let old = self.state.instance(key).cloned();
        self.delete(Kind::Instance, &key.to_string(), old.as_deref(), cause);
    }

    fn put_instance(
        &mut self,
        new: Instance,
        old: Option<&Stored<Instance>>,
        cause: &'static str,
    ) -> Result<(), Rejection> {
        if old.is_some_and(|old| old.object == new) {
            self.unchanged(Kind::Instance, new.key().to_string(), old, cause);
            return Ok(());
        }
        self.replace(Object::Instance(Box::new(new)), old, cause)
    }

    fn put<T: PartialEq>(
        &mut self,
        object: Object,
        old: Option<&Stored<T>>,
        new: &T,
        cause: &'static str,
    ) -> Result<(), Rejection> {
        if old.is_some_and(|old| old.object == *new) {
            self.unchanged(object.kind(), object.key(), old, cause);
            return Ok(());
        }
        self.replace(object, old, cause)
    }

    fn unchanged<T>(
        &mut self,
        kind: Kind,
        key: String,
        old: Option<&Stored<T>>,
        cause: &'static str,
    ) {
        let text: Option<Arc<str>> = old.map(|old| old.json().into());
        self.outcomes.push(Outcome {
            kind,
            key,
            verb: Verb::Unchanged,
            cause,
            revision: old.map_or(0, |old| old.revision),
            before: text.clone(),
            after: text,
        });
    }

    fn replace<T>(
        &mut self,
        object: Object,
        old: Option<&Stored<T>>,
        cause: &'static str,
    ) -> Result<(), Rejection> {
        let (kind, key) = (object.kind(), object.key());
        let revision = self.state.revision + 1;
        let line = (self.state.set(object, revision))
            .map_err(|error| Rejection::Invalid(Invalid::field("", error.to_string())))?;
        self.state.revision = revision;
        self.outcomes.push(Outcome {
            kind,
            key,
            verb: if old.is_some() {
                Verb::Update
            } else {
                Verb::Create
            },
            cause,
            revision,
            before: old.map(|old| old.json().into()),
            after: Some(super::object::value_of(&line).into()),
        });
        Ok(())
    }

    fn delete<T>(&mut self, kind: Kind, key: &str, old: Option<&Stored<T>>, cause: &'static str) {
        let Some(old) = old else {
            self.outcomes.push(Outcome {
                kind,
                key: key.to_owned(),
                verb: Verb::Absent,
                cause,
                revision: self.state.revision,
                before: None,
                after: None,
            });
            return;
        };
        self.state.revision += 1;
        let revision = self.state.revision;
        self.state.unset(kind, key, revision);
        self.outcomes.push(Outcome {
            kind,
            key: key.to_owned(),
            verb: Verb::Delete,
            cause,
            revision,
            before: Some(old.json().into()),
            after: None,
        });
    }
}

fn there<'a, T>(kind: Kind, key: &'a str, old: Option<&Arc<Stored<T>>>) -> There<'a> {
    There {
        kind,
        key,
        revision: old.map(|old| old.revision),
    }
}
