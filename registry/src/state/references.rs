//! That everything is there which plugins and traffic name: asked of the state that a unit of changes leads to, so
//! that a unit may take away and give in any order.

use cardea_registry_api::{
    Invalid, Name, Plugin, Route, Service, Traffic,
    invalid::Check,
    plugin::refers::{self, Thing, World},
    strict,
};

use super::{State, object::first_name};
use crate::change::{Change, Kind, Rejection};

impl State {
    /// Which change of a unit, led to this state from `before`, left something without what it names.
    pub(super) fn refers_to_what_is_there(
        &self,
        changes: &[Change],
        before: &Self,
    ) -> Result<(), (usize, Rejection)> {
        if self.plugins.is_empty() && self.traffic.is_empty() {
            return Ok(());
        }
        // Once for a unit: which change closed a loop does not matter as long as one is named.
        let mut looped = None;
        for (index, change) in changes.iter().enumerate() {
            let found = match change {
                Change::PutPlugin { plugin, .. } => refers::check(plugin, self).map_err(Into::into),
                Change::PutTraffic { traffic, .. }
                | Change::MoveTraffic {
                    after: Some(traffic),
                    ..
                } => self.traffic_is_fit(traffic),
                Change::PutService { service, .. } => self.groups_are_there(service, before),
                Change::PutRoute { route, .. } => self.route_is_fit(route),
                Change::DeleteCluster { name, .. } => self.unnamed(Thing::Cluster, name),
                Change::DeleteService { name, .. } => self.unnamed(Thing::Service, name),
                Change::DeleteRoute { id, .. } => self.unnamed(Thing::Route, id),
                Change::DeleteFallback { name, .. } => self.unnamed(Thing::Fallback, name),
                _ => Ok(()),
            };
            found.map_err(|rejection| (index, rejection))?;
            if change.may_close_a_loop() {
                looped = Some(index);
            }
        }
        let Some(last) = looped else {
            return Ok(());
        };
        let Some(found) = refers::find_loop(self) else {
            return Ok(());
        };
        let own = changes.iter().position(
            |change| matches!(change, Change::PutPlugin { plugin, .. } if plugin.name == found.plugin),
        );
        Err(match own {
            Some(index) => (index, Invalid::field(found.field, found.why).into()),
            None => (
                last,
                Rejection::Conflict {
                    kind: Kind::Plugin,
                    key: found.plugin.to_string(),
                    why: format!(
                        "with this, `{}` of plugin `{}` {}",
                        found.field, found.plugin, found.why
                    ),
                },
            ),
        })
    }

    /// Plugins still find the groups of a service that has fewer than before.
    fn groups_are_there(&self, service: &Service, before: &Self) -> Result<(), Rejection> {
        let fewer = before.service(service.name.as_str()).is_some_and(|old| {
            let mut groups = old.object.groups.keys();
            groups.any(|group| !service.groups.contains_key(group))
        });
        if !fewer {
            return Ok(());
        }
        self.still_fit(Kind::Service, &service.name, |_| true)
    }

    /// Plugins that are bound to a route find their groups at the service it leads to now.
    fn route_is_fit(&self, route: &Route) -> Result<(), Rejection> {
        self.still_fit(Kind::Route, &route.id, |plugin| {
            plugin.route.as_ref() == Some(&route.id)
        })
    }

    fn still_fit(
        &self,
        kind: Kind,
        key: &Name,
        asked: impl Fn(&Plugin) -> bool,
    ) -> Result<(), Rejection> {
        for plugin in self.plugins.values().map(|stored| &stored.object) {
            if !asked(plugin) {
                continue;
            }
            if let Err(invalid) = refers::check(plugin, self) {
                return Err(Rejection::Conflict {
                    kind,
                    key: key.to_string(),
                    why: format!("plugin `{}` needs it otherwise: {invalid}", plugin.name),
                });
            }
        }
        Ok(())
    }

    /// Every cluster that traffic may go to is there, and so is its service.
    fn traffic_is_fit(&self, traffic: &Traffic) -> Result<(), Rejection> {
        let mut check = Check::default();
        for cluster in std::iter::once(&traffic.cluster).chain(traffic.others()) {
            let field = traffic.names_cluster(cluster).unwrap_or_default();
            let known = self.clusters.contains_key(cluster);
            check.ensure(known, &field, self.lacking(Thing::Cluster, cluster));
        }
        if let Some(service) = &traffic.service {
            let known = self.services.contains_key(service);
            check.ensure(known, "service", self.lacking(Thing::Service, service));
        }
        check.finish().map_err(Into::into)
    }

    fn lacking(&self, thing: Thing, name: &Name) -> String {
        let known = self.names(thing).map(Name::as_str);
        let hint = strict::nearest(name.as_str(), known).map_or_else(
            || "create it first".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        format!("there is no {} `{name}`: {hint}", thing.as_str())
    }

    /// No traffic names something that was taken away.
    fn unnamed_by_traffic(&self, thing: Thing, name: &Name) -> Result<(), Rejection> {
        let field = |traffic: &Traffic| match thing {
            Thing::Cluster => traffic.names_cluster(name),
            Thing::Service => {
                (traffic.service.as_ref() == Some(name)).then(|| "service".to_owned())
            }
            Thing::Route | Thing::Fallback => None,
        };
        let named = self.traffic.iter().find_map(|(key, stored)| {
            let field = field(&stored.object)?;
            Some((key, field))
        });
        let Some((key, field)) = named else {
            return Ok(());
        };
        let word = thing.as_str();
        Err(Rejection::Conflict {
            kind: Kind::parse(word).unwrap_or(Kind::Traffic),
            key: name.to_string(),
            why: format!(
                "traffic `{key}` names {word} `{name}` in `{field}`: change or delete it first"
            ),
        })
    }

    /// Nothing names something that was taken away.
    fn unnamed(&self, thing: Thing, name: &Name) -> Result<(), Rejection> {
        self.unnamed_by_traffic(thing, name)?;
        let named = self.plugins.values().find_map(|stored| {
            let field = stored.object.names(thing, name)?;
            Some((&stored.object.name, field))
        });
        let Some((plugin, field)) = named else {
            return Ok(());
        };
        let word = thing.as_str();
        Err(Rejection::Conflict {
            kind: Kind::parse(word).unwrap_or(Kind::Plugin),
            key: name.to_string(),
            why: format!(
                "plugin `{plugin}` names {word} `{name}` in `{field}`: change or delete it first"
            ),
        })
    }
}

impl Change {
    /// Whether requests may be led otherwise after it.
    fn may_close_a_loop(&self) -> bool {
        matches!(
            self,
            Self::PutPlugin { .. } | Self::DeletePlugin { .. } | Self::PutRoute { .. }
        )
    }
}

impl World for State {
    fn has(&self, thing: Thing, name: &Name) -> bool {
        match thing {
            Thing::Cluster => self.clusters.contains_key(name),
            Thing::Service => self.services.contains_key(name),
            Thing::Route => self.routes.contains_key(name),
            Thing::Fallback => self.fallbacks.contains_key(name),
        }
    }

    fn names(&self, thing: Thing) -> impl Iterator<Item = &Name> {
        let names: Box<dyn Iterator<Item = &Name>> = match thing {
            Thing::Cluster => Box::new(self.clusters.keys()),
            Thing::Service => Box::new(self.services.keys()),
            Thing::Route => Box::new(self.routes.keys()),
            Thing::Fallback => Box::new(self.fallbacks.keys()),
        };
        names
    }

    fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name).map(|stored| &stored.object)
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|stored| &stored.object)
    }

    fn route(&self, id: &Name) -> Option<&Route> {
        self.routes.get(id).map(|stored| &stored.object)
    }

    fn routes_to<'a>(&'a self, service: &'a Name) -> impl Iterator<Item = &'a Route> {
        (self.routes_of.range((service.clone(), first_name())..))
            .take_while(move |(to, _)| to == service)
            .filter_map(|(_, id)| self.routes.get(id))
            .map(|stored| &stored.object)
    }

    fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.values().map(|stored| &stored.object)
    }
}

#[cfg(test)]
mod tests;
