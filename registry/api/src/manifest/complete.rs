//! What static mode asks of a file: that everything which its objects name is in it.

use super::Manifest;
use crate::{
    Invalid, Name, Plugin, Route, Service, fallback,
    invalid::Check,
    plugin::refers::{self, Thing, World},
    strict,
};

impl Manifest {
    /// Every route's service, every certificate's key and everything that plugins name must be in the
    /// file: what static mode asks for.
    pub fn check_complete(&self) -> Result<(), Invalid> {
        let names: Vec<&str> = self.services.iter().map(|s| s.name.as_str()).collect();
        let mut check = Check::default();
        for (i, route) in self.routes.iter().enumerate() {
            let known = names.contains(&route.service.as_str());
            let hint = strict::nearest(route.service.as_str(), names.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let text = format!("no service `{}` in this file{hint}", route.service);
            check.ensure(known, &format!("route[{i}].service"), text);
        }
        for (i, certificate) in self.certificates.iter().enumerate() {
            check.ensure(
                !certificate.keyless(),
                &format!("certificate[{i}].key"),
                "its private key is missing: give `key_file`, or `key` itself",
            );
        }
        for (i, plugin) in self.plugins.iter().enumerate() {
            check.merge(&format!("plugin[{i}]"), refers::check(plugin, self));
        }
        for (i, traffic) in self.traffic.iter().enumerate() {
            if let Some(service) = &traffic.service {
                let known = names.contains(&service.as_str());
                let hint = strict::nearest(service.as_str(), names.iter().copied())
                    .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                let text = format!("no service `{service}` in this file{hint}");
                check.ensure(known, &format!("traffic[{i}].service"), text);
            }
        }
        if let Some(found) = refers::find_loop(self) {
            let mut plugins = self.plugins.iter();
            let at = plugins.position(|plugin| plugin.name == found.plugin);
            let field = format!("plugin[{}].{}", at.unwrap_or_default(), found.field);
            check.ensure(false, &field, found.why);
        }
        check.merge("fallback", fallback::check_total(self.fallbacks.iter()));
        check.finish()
    }
}

impl World for Manifest {
    fn has(&self, thing: Thing, name: &Name) -> bool {
        // A file of one cluster need not name the others.
        thing == Thing::Cluster || self.names(thing).any(|known| known == name)
    }

    fn names(&self, thing: Thing) -> impl Iterator<Item = &Name> {
        let names: Vec<&Name> = match thing {
            Thing::Cluster => self.clusters.iter().map(|one| &one.name).collect(),
            Thing::Service => self.services.iter().map(|one| &one.name).collect(),
            Thing::Route => self.routes.iter().map(|one| &one.id).collect(),
            Thing::Fallback => self.fallbacks.iter().map(|one| &one.name).collect(),
        };
        names.into_iter()
    }

    fn service(&self, name: &Name) -> Option<&Service> {
        self.services.iter().find(|one| one.name == *name)
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    fn route(&self, id: &Name) -> Option<&Route> {
        self.routes.iter().find(|one| one.id == *id)
    }

    fn routes_to<'a>(&'a self, service: &'a Name) -> impl Iterator<Item = &'a Route> {
        self.routes
            .iter()
            .filter(move |one| one.service == *service)
    }

    fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.iter()
    }
}
