//! Configuration: what is put and deleted as a whole.

use cardea_registry_api::{
    Certificate, Cluster, Fallback, Invalid, Name, Plugin, Route, Service, Traffic, TrafficKey,
    fallback,
};

use super::{Act, there};
use crate::{
    change::{Expected, Kind, Rejection, TokenRecord},
    state::{Object, object::first_name},
};

impl Act<'_> {
    pub(super) fn put_cluster(
        &mut self,
        cluster: &Cluster,
        expected: Expected,
    ) -> Result<(), Rejection> {
        cluster.check()?;
        let old = self.state.cluster(cluster.name.as_str()).cloned();
        there(Kind::Cluster, cluster.name.as_str(), old.as_ref()).expect(expected)?;
        self.put(
            Object::Cluster(cluster.clone()),
            old.as_deref(),
            cluster,
            "applied",
        )
    }

    pub(super) fn put_service(
        &mut self,
        service: &Service,
        expected: Expected,
    ) -> Result<(), Rejection> {
        service.check()?;
        let old = self.state.service(service.name.as_str()).cloned();
        there(Kind::Service, service.name.as_str(), old.as_ref()).expect(expected)?;
        self.put(
            Object::Service(Box::new(service.clone())),
            old.as_deref(),
            service,
            "applied",
        )
    }

    pub(super) fn put_route(&mut self, route: &Route, expected: Expected) -> Result<(), Rejection> {
        let old = self.state.route(route.id.as_str()).cloned();
        there(Kind::Route, route.id.as_str(), old.as_ref()).expect(expected)?;
        if self.state.service(route.service.as_str()).is_none() {
            return Err(Rejection::Invalid(Invalid::field(
                "service",
                format!("there is no service `{}`: create it first", route.service),
            )));
        }
        let at = (route.host.clone(), route.prefix.clone());
        if let Some(other) = self.state.routes_at.get(&at).filter(|id| **id != route.id) {
            return Err(Rejection::Conflict {
                kind: Kind::Route,
                key: route.id.to_string(),
                why: format!(
                    "route `{other}` has host `{}` and prefix `{}` already: change that one, or choose another prefix",
                    route.host, route.prefix
                ),
            });
        }
        self.put(
            Object::Route(route.clone()),
            old.as_deref(),
            route,
            "applied",
        )
    }

    pub(super) fn put_certificate(
        &mut self,
        certificate: &Certificate,
        expected: Expected,
        now: i64,
    ) -> Result<(), Rejection> {
        certificate.check()?;
        let old = self.state.certificate(certificate.name.as_str()).cloned();
        there(Kind::Certificate, certificate.name.as_str(), old.as_ref()).expect(expected)?;
        // What is in force stays as it is, however old, and may be given again with other fields.
        let known = old.as_ref().map(|old| &old.object.chain);
        if known != Some(&certificate.chain) {
            let (chain, _) = certificate.read()?;
            let timely = chain.facts.timely(now);
            timely.map_err(|invalid| invalid.under("chain"))?;
        }
        let mut new = certificate.clone();
        if new.keyless() {
            let missing = |why: &str| Rejection::Invalid(Invalid::field("key", why));
            let old = old
                .as_ref()
                .ok_or_else(|| missing("a new certificate needs its private key"))?;
            let (chain, _) = new.read()?;
            chain.fits(&old.object.key).map_err(|_| {
                missing("the key that is kept is not this certificate's: give the new one")
            })?;
            new.key = old.object.key.clone();
        }
        self.put(
            Object::Certificate(Box::new(new.clone())),
            old.as_deref(),
            &new,
            "applied",
        )
    }

    pub(super) fn delete_certificate(
        &mut self,
        name: &Name,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let kind = Kind::Certificate;
        let old = self.state.certificate(name.as_str()).cloned();
        there(kind, name.as_str(), old.as_ref()).expect_to_delete(expected)?;
        self.delete(kind, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn put_fallback(
        &mut self,
        fallback: &Fallback,
        expected: Expected,
    ) -> Result<(), Rejection> {
        fallback.check()?;
        let name = fallback.name.as_str();
        let old = self.state.fallback(name).cloned();
        there(Kind::Fallback, name, old.as_ref()).expect(expected)?;
        let others = self.state.fallbacks(None).map(|stored| &stored.object);
        let others = others.filter(|other| other.name != fallback.name);
        fallback::check_total(others.chain([fallback]))?;
        let object = Object::Fallback(fallback.clone());
        self.put(object, old.as_deref(), fallback, "applied")
    }

    pub(super) fn delete_fallback(
        &mut self,
        name: &Name,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.fallback(name.as_str()).cloned();
        there(Kind::Fallback, name.as_str(), old.as_ref()).expect_to_delete(expected)?;
        self.delete(Kind::Fallback, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn put_plugin(
        &mut self,
        plugin: &Plugin,
        expected: Expected,
    ) -> Result<(), Rejection> {
        plugin.check()?;
        let old = self.state.plugin(plugin.name.as_str()).cloned();
        there(Kind::Plugin, plugin.name.as_str(), old.as_ref()).expect(expected)?;
        let object = Object::Plugin(Box::new(plugin.clone()));
        self.put(object, old.as_deref(), plugin, "applied")
    }

    pub(super) fn delete_plugin(
        &mut self,
        name: &Name,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.plugin(name.as_str()).cloned();
        there(Kind::Plugin, name.as_str(), old.as_ref()).expect_to_delete(expected)?;
        self.delete(Kind::Plugin, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn put_traffic(
        &mut self,
        traffic: &Traffic,
        expected: Expected,
    ) -> Result<(), Rejection> {
        traffic.check()?;
        let key = traffic.key();
        let old = self.state.traffic(&key).cloned();
        there(Kind::Traffic, &key.to_string(), old.as_ref()).expect(expected)?;
        let object = Object::Traffic(Box::new(traffic.clone()));
        self.put(object, old.as_deref(), traffic, "applied")
    }

    pub(super) fn delete_traffic(
        &mut self,
        key: &TrafficKey,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.traffic(key).cloned();
        let key = key.to_string();
        there(Kind::Traffic, &key, old.as_ref()).expect_to_delete(expected)?;
        self.delete(Kind::Traffic, &key, old.as_deref(), "deleted");
        Ok(())
    }

    /// For the time without the database.
    pub(super) fn move_traffic(
        &mut self,
        key: &TrafficKey,
        before: Option<&Traffic>,
        after: Option<&Traffic>,
    ) -> Result<(), Rejection> {
        let old = self.state.traffic(key).cloned();
        if old.as_ref().map(|old| &old.object) != before {
            return Err(Rejection::Conflict {
                kind: Kind::Traffic,
                key: key.to_string(),
                why: format!("traffic `{key}` was changed meanwhile: that holds"),
            });
        }
        let Some(traffic) = after else {
            let key = key.to_string();
            self.delete(Kind::Traffic, &key, old.as_deref(), "deleted");
            return Ok(());
        };
        traffic.check()?;
        let object = Object::Traffic(Box::new(traffic.clone()));
        self.put(object, old.as_deref(), traffic, "applied")
    }

    pub(super) fn put_token(
        &mut self,
        token: &TokenRecord,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.token(token.name.as_str()).cloned();
        there(Kind::Token, token.name.as_str(), old.as_ref()).expect(expected)?;
        let other = self.state.token_by_hash(&token.sha256);
        if other.is_some_and(|other| other.object.name != token.name) {
            return Err(Rejection::Conflict {
                kind: Kind::Token,
                key: token.name.to_string(),
                why: "another token has this secret already".to_owned(),
            });
        }
        self.put(
            Object::Token(token.clone()),
            old.as_deref(),
            token,
            "applied",
        )
    }

    pub(super) fn delete_cluster(
        &mut self,
        name: &Name,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.cluster(name.as_str()).cloned();
        there(Kind::Cluster, name.as_str(), old.as_ref()).expect_to_delete(expected)?;
        if let Some(first) = self.state.instances_in(name, None).next() {
            return Err(Rejection::Conflict {
                kind: Kind::Cluster,
                key: name.to_string(),
                why: format!(
                    "cluster `{name}` has instances, such as `{}`: deregister them first",
                    first.object.key()
                ),
            });
        }
        self.delete(Kind::Cluster, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn delete_service(
        &mut self,
        name: &Name,
        expected: Expected,
    ) -> Result<(), Rejection> {
        let old = self.state.service(name.as_str()).cloned();
        there(Kind::Service, name.as_str(), old.as_ref()).expect_to_delete(expected)?;
        let conflict = |why| {
            Err(Rejection::Conflict {
                kind: Kind::Service,
                key: name.to_string(),
                why,
            })
        };
        let from = (name.clone(), first_name());
        let routes: Vec<&str> = (self.state.routes_of.range(from.clone()..))
            .take_while(|(service, _)| service == name)
            .map(|(_, route)| route.as_str())
            .take(5)
            .collect();
        if !routes.is_empty() {
            return conflict(format!(
                "routes lead to service `{name}`: {}; delete them first",
                routes.join(", ")
            ));
        }
        let cluster = (self.state.instances_of.range(from..).next())
            .filter(|((service, _), _)| service == name);
        if let Some(((_, cluster), count)) = cluster {
            return conflict(format!(
                "service `{name}` has instances, {count} of them in cluster `{cluster}`: deregister them first"
            ));
        }
        self.delete(Kind::Service, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn delete_route(&mut self, id: &Name, expected: Expected) -> Result<(), Rejection> {
        let old = self.state.route(id.as_str()).cloned();
        there(Kind::Route, id.as_str(), old.as_ref()).expect_to_delete(expected)?;
        self.delete(Kind::Route, id.as_str(), old.as_deref(), "deleted");
        Ok(())
    }

    pub(super) fn delete_token(&mut self, name: &Name) -> Result<(), Rejection> {
        let old = self.state.token(name.as_str()).cloned();
        there(Kind::Token, name.as_str(), old.as_ref()).expect_to_delete(Expected::Any)?;
        self.delete(Kind::Token, name.as_str(), old.as_deref(), "deleted");
        Ok(())
    }
}
