//! A small world of services, routes and instances for tests.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use cardea_registry_api::{
    Cluster, Instance, InstanceKey, InstanceState, Name, Plugin, Route, Service, Traffic,
    TrafficKey, api::Registration,
};

use crate::{
    shared::Shared,
    table::{
        Origin, Table,
        builder::{Builder, Stamp},
        objects::{Dirty, Key, Object, Objects},
    },
    upstream::Upstream,
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn route(id: &str, host: &str, prefix: &str, service: &str) -> Route {
    Route {
        id: name(id),
        host: host.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        service: name(service),
    }
}

/// An instance in cluster `dc`; its id is `i<number>`, its address 10.x.y.z:80 of the number.
pub(crate) fn instance(service: &str, number: usize, weight: u16) -> Instance {
    let [_, a, b, c] = u32::try_from(number + 1).unwrap().to_be_bytes();
    let key = InstanceKey {
        cluster: name("dc"),
        service: name(service),
        id: format!("i{number}").parse().unwrap(),
    };
    let address = format!("10.{a}.{b}.{c}:80").parse().unwrap();
    let registration = Registration {
        weight,
        ..Registration::at(address)
    };
    registration.into_instance(key, 0)
}

/// Objects and the tables made of them.
pub(crate) struct World {
    pub(crate) objects: Objects,
    pub(crate) dirty: Dirty,
    pub(crate) builder: Builder,
    pub(crate) shared: Arc<Shared>,
    /// The instances of other clusters.
    others: BTreeMap<Name, (Objects, Dirty)>,
    revision: u64,
}

impl Default for World {
    fn default() -> Self {
        let shared = Arc::<Shared>::default();
        Self {
            objects: Objects::default(),
            dirty: Dirty::default(),
            builder: Builder::new(name("dc"), &shared, crate::tls::Version::V12),
            shared,
            others: BTreeMap::new(),
            revision: 0,
        }
    }
}

impl World {
    pub(crate) fn with(service: Service, weights: &[u16]) -> Self {
        let mut world = Self::default();
        let of = service.name.to_string();
        world.service(service);
        for (number, weight) in weights.iter().enumerate() {
            world.instance(instance(&of, number, *weight));
        }
        world.publish(Instant::now());
        world
    }

    pub(crate) fn service(&mut self, service: Service) {
        self.objects
            .set(Object::Service(Arc::new(service)), &mut self.dirty);
    }

    pub(crate) fn route(&mut self, route: Route) {
        self.objects
            .set(Object::Route(Arc::new(route)), &mut self.dirty);
    }

    pub(crate) fn plugin(&mut self, plugin: Plugin) {
        self.objects
            .set(Object::Plugin(Arc::new(plugin), None), &mut self.dirty);
    }

    pub(crate) fn instance(&mut self, instance: Instance) {
        self.objects
            .set(Object::Instance(Arc::new(instance)), &mut self.dirty);
    }

    /// A router that stands in a zone.
    pub(crate) fn in_zone(zone: &str) -> Self {
        let world = Self::default();
        Self {
            builder: world.builder.stands_in(Some(name(zone))),
            ..world
        }
    }

    pub(crate) fn cluster(&mut self, cluster: Cluster) {
        self.objects
            .set(Object::Cluster(Arc::new(cluster)), &mut self.dirty);
    }

    pub(crate) fn traffic(&mut self, traffic: Traffic) {
        self.objects
            .set(Object::Traffic(Arc::new(traffic)), &mut self.dirty);
    }

    pub(crate) fn no_traffic(&mut self, key: &TrafficKey) {
        self.objects
            .remove(&Key::Traffic(key.clone()), &mut self.dirty);
    }

    /// An instance of another cluster.
    pub(crate) fn other(&mut self, cluster: &str, instance: Instance) {
        let (objects, dirty) = self.others.entry(name(cluster)).or_default();
        objects.set(Object::Instance(Arc::new(instance)), dirty);
    }

    /// One of another cluster less.
    pub(crate) fn other_gone(&mut self, cluster: &str, service: &str, number: usize) {
        let key = Key::Instance(name(service), format!("i{number}").parse().unwrap());
        let (objects, dirty) = self.others.entry(name(cluster)).or_default();
        objects.remove(&key, dirty);
    }

    /// Another cluster is no longer followed.
    pub(crate) fn forget(&mut self, cluster: &str) {
        self.others.remove(&name(cluster));
        self.builder.forget(&name(cluster));
    }

    pub(crate) fn state(&mut self, service: &str, number: usize, state: InstanceState) {
        let id = format!("i{number}").parse().unwrap();
        let mut changed = (**self.objects.instance(&name(service), &id).unwrap()).clone();
        changed.state = state;
        self.instance(changed);
    }

    pub(crate) fn remove(&mut self, service: &str, number: usize) {
        let key = Key::Instance(name(service), format!("i{number}").parse().unwrap());
        self.objects.remove(&key, &mut self.dirty);
    }

    pub(crate) fn publish(&mut self, now: Instant) -> Arc<Table> {
        self.revision += 1;
        let stamp = Stamp {
            epoch: "e".into(),
            revision: self.revision,
            origin: Origin::Registry,
        };
        let dirty = std::mem::take(&mut self.dirty);
        for (cluster, (objects, dirty)) in &mut self.others {
            self.builder.learn(cluster, objects, &std::mem::take(dirty));
        }
        self.builder
            .build(&self.objects, &dirty, stamp, now)
            .publish(&self.shared);
        self.shared.table_full().unwrap()
    }

    pub(crate) fn upstream(&self, service: &str) -> Arc<Upstream> {
        let table = self.shared.table_full().unwrap();
        let found = table.upstreams().find(|u| u.service().as_str() == service);
        Arc::clone(found.unwrap())
    }
}
