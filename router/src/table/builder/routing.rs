//! Which routes there are, where their requests go, and which views of services they need: kept route
//! by route, so that a changed route costs what one costs. Only when plugins or what they send are
//! others are all routes looked at again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use cardea_registry_api::{Address, Name, Route};

use super::Builder;
use crate::{
    breather::Breather,
    table::{
        self,
        index::Index,
        objects::{Dirty, Objects},
        views::{View, Want},
    },
};

/// The routes of the table that comes next.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) index: Index,
    /// A small number for each id and service, for the process's life.
    numbers: HashMap<(Name, Name), u32>,
    needs: HashMap<Name, Needs>,
    /// How many routes name a service.
    routed: HashMap<Name, usize>,
}

/// What is there for a route's sake.
#[derive(Debug)]
struct Needs {
    service: Name,
    uses: Vec<Use>,
}

/// Something that is there while some route uses it; each use counts.
#[derive(Debug)]
enum Use {
    /// A view of the service at this place, with this slot.
    View(usize, usize),
    Address(Address),
}

impl Routing {
    /// Whether some route names a service.
    pub(super) fn names(&self, service: &Name) -> bool {
        self.routed.contains_key(service)
    }

    fn number(&mut self, route: &Route) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let of = (route.id.clone(), route.service.clone());
        *self.numbers.entry(of).or_insert(next)
    }
}

/// Whose upstreams may have to be others because routes are.
#[derive(Debug, Default)]
struct Touched {
    /// Services with views that begin or cease to be used.
    viewed: BTreeSet<Name>,
    /// Services that routes begin or cease to name.
    named: BTreeSet<Name>,
}

impl Builder {
    /// Takes over what changed of the routes; tells whose upstreams are others for it.
    pub(super) fn route(&mut self, objects: &Objects, dirty: &Dirty) -> BTreeSet<Name> {
        let mut touched = Touched::default();
        // What a route does may be in another one's plugins.
        let asked = dirty.routes.iter().any(|id| self.plugins.asks_route(id));
        if dirty.plugins || dirty.fallbacks || asked {
            self.all_routes(objects, &mut touched);
        } else if dirty.routes.is_empty() {
            return BTreeSet::new();
        } else {
            let mut breather = Breather::default();
            for id in &dirty.routes {
                let before = self.routing.needs.remove(id);
                match objects.route(id) {
                    None => self.routing.index.remove(id),
                    Some(route) => self.put_route(route, objects, &mut touched),
                }
                // Last: what is used before and after does not go in between.
                self.release(before, &mut touched);
                breather.step();
            }
        }
        self.routes = Arc::new(self.routing.index.routes().clone());
        let Touched { mut viewed, named } = touched;
        // A service is there for other reasons, too.
        let others = named
            .into_iter()
            .filter(|service| self.is_wanted(service, objects) != self.has_upstream(service));
        viewed.extend(others);
        viewed
    }

    /// Looks at every route, with the plugins that there are now.
    fn all_routes(&mut self, objects: &Objects, touched: &mut Touched) {
        self.refused_plugins = self.plugins.update(objects.plugins());
        let asked: Vec<Name> = self.plugins.services().cloned().collect();
        for service in &asked {
            self.place(service);
        }
        // A plugin may ask a route that comes later.
        for route in objects.routes() {
            self.place(&route.service);
        }
        let views = self.places.iter_mut().flat_map(|place| &mut place.views);
        views.for_each(|view| view.users = 0);
        self.addresses.begin();
        self.routing.index = Index::default();
        self.routing.needs.clear();
        let before = std::mem::take(&mut self.routing.routed);
        touched.named.extend(before.into_keys());
        let mut breather = Breather::default();
        for route in objects.routes() {
            self.put_route(route, objects, touched);
            breather.step();
        }
        self.addresses.end(&mut self.upstreams);
        // Their policies may be others, and nobody may use them any more.
        let viewed = self.places.iter().filter(|place| !place.views.is_empty());
        touched
            .viewed
            .extend(viewed.map(|place| place.name.clone()));
    }

    fn put_route(&mut self, route: &Arc<Route>, objects: &Objects, touched: &mut Touched) {
        let home = self.place(&route.service);
        let index = self.routing.number(route);
        let mut uses = Vec::new();
        let Self {
            cluster,
            plugins,
            by_name,
            places,
            upstreams,
            next_peer,
            addresses,
            ..
        } = self;
        let made = plugins.of_route(
            cluster,
            route,
            |name| objects.fallback(name),
            |id| objects.route(id),
            &mut |want: Want<'_>| {
                if let Some(address) = want.address {
                    uses.push(Use::Address(address.clone()));
                    return addresses.slot(address, cluster, upstreams, next_peer);
                }
                let at = want.service.map_or(home, |service| by_name[service]);
                let place = &mut places[at];
                if want.is_plain() {
                    return place.slot;
                }
                let view = View::of(&mut place.views, want, upstreams);
                view.users += 1;
                if view.users == 1 {
                    touched.viewed.insert(place.name.clone());
                }
                uses.push(Use::View(at, view.slot()));
                view.slot()
            },
        );
        let place = &self.places[home];
        let service = place.name.clone();
        let made = table::Place {
            index,
            slot: made.slot.unwrap_or(place.slot),
            chain: made.chain,
            service: service.clone(),
        };
        self.routing.index.set(route, made);
        let count = self.routing.routed.entry(service.clone()).or_default();
        *count += 1;
        if *count == 1 {
            touched.named.insert(service.clone());
        }
        let needs = Needs { service, uses };
        self.routing.needs.insert(route.id.clone(), needs);
    }

    /// Lets go of what was there for a route's sake.
    fn release(&mut self, needs: Option<Needs>, touched: &mut Touched) {
        let Some(Needs { service, uses }) = needs else {
            return;
        };
        for used in uses {
            match used {
                Use::Address(address) => self.addresses.release(&address, &mut self.upstreams),
                Use::View(at, slot) => {
                    let place = &mut self.places[at];
                    let mut views = place.views.iter_mut();
                    if let Some(view) = views.find(|view| view.slot() == slot) {
                        view.users -= 1;
                        if view.users == 0 {
                            touched.viewed.insert(place.name.clone());
                        }
                    }
                }
            }
        }
        if let Some(count) = self.routing.routed.get_mut(&service) {
            *count -= 1;
            if *count == 0 {
                self.routing.routed.remove(&service);
                touched.named.insert(service);
            }
        }
    }

    /// Whether a service has an upstream in the table that comes next.
    pub(super) fn is_wanted(&self, service: &Name, objects: &Objects) -> bool {
        self.routing.names(service)
            || objects.service(service).is_some()
            || objects.has_instances(service)
    }

    fn has_upstream(&self, service: &Name) -> bool {
        let place = self.by_name.get(service).map(|at| &self.places[*at]);
        place.is_some_and(|place| self.upstreams[place.slot].is_some())
    }
}
