//! A small world of services, routes and instances for tests.

use std::{sync::Arc, time::Instant};

use cardea_registry_api::{
    Instance, InstanceKey, InstanceState, Name, Plugin, Route, Service, api::Registration,
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
