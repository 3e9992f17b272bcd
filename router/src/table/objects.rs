//! The objects that tables are made of, checked; and what of them changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use cardea_registry_api::{
    Certificate, Cluster, Fallback, Instance, InstanceId, InstanceKey, Name, Plugin, Route,
    Service, Traffic, TrafficKey, feed::kind, manifest::Manifest,
};

/// What is in every cluster's feed, and one cluster's instances.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    services: BTreeMap<Name, Arc<Service>>,
    routes: BTreeMap<Name, Arc<Route>>,
    certificates: BTreeMap<Name, Arc<Certificate>>,
    fallbacks: BTreeMap<Name, Arc<Fallback>>,
    plugins: BTreeMap<Name, (Arc<Plugin>, Whole)>,
    clusters: BTreeMap<Name, Arc<Cluster>>,
    traffic: BTreeMap<TrafficKey, Arc<Traffic>>,
    others: BTreeMap<OtherKey, Arc<str>>,
    instances: HashMap<Name, BTreeMap<InstanceId, Arc<Instance>>>,
}

/// An object's JSON as it came, where it says more than this program knows: a newer one, which takes
/// over from this one or reads its copy on disk, shall find all of it.
pub(crate) type Whole = Option<Arc<str>>;

/// Kind and key of an object whose kind this program does not know.
type OtherKey = (Box<str>, Box<str>);

/// Which objects changed since the last table.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Dirty {
    pub(crate) routes: BTreeSet<Name>,
    pub(crate) certificates: bool,
    pub(crate) plugins: bool,
    pub(crate) fallbacks: bool,
    pub(crate) clusters: bool,
    pub(crate) traffic: bool,
    pub(crate) policies: BTreeSet<Name>,
    pub(crate) instances: HashMap<Name, BTreeSet<InstanceId>>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Service(Arc<Service>),
    Route(Arc<Route>),
    Certificate(Arc<Certificate>),
    Fallback(Arc<Fallback>),
    Plugin(Arc<Plugin>, Whole),
    Cluster(Arc<Cluster>),
    Traffic(Arc<Traffic>),
    Instance(Arc<Instance>),
    /// Of a kind that this program does not know: kept, and otherwise left alone.
    Other(OtherKey, Arc<str>),
}

/// What names an object among all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Service(Name),
    Route(Name),
    Certificate(Name),
    Fallback(Name),
    Plugin(Name),
    Cluster(Name),
    Traffic(TrafficKey),
    Instance(Name, InstanceId),
    Other(Box<str>, Box<str>),
}

impl Object {
    /// Reads and checks one object of the feed; the error says what is wrong with it.
    pub(crate) fn read(kind: &str, key: &str, json: &str, cluster: &str) -> Result<Self, String> {
        let object = match kind {
            kind::SERVICE => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .and_then(|service: Service| {
                    service.check().map_err(|e| e.to_string())?;
                    Ok(Self::Service(Arc::new(service)))
                }),
            kind::ROUTE => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .map(|route: Route| Self::Route(Arc::new(route))),
            kind::CERTIFICATE => read_certificate(json).map(|c| Self::Certificate(Arc::new(c))),
            kind::FALLBACK => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .and_then(|fallback: Fallback| {
                    fallback.check().map_err(|e| e.to_string())?;
                    Ok(Self::Fallback(Arc::new(fallback)))
                }),
            kind::PLUGIN => read_plugin(json),
            kind::CLUSTER => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .and_then(|cluster: Cluster| {
                    cluster.check().map_err(|e| e.to_string())?;
                    Ok(Self::Cluster(Arc::new(cluster)))
                }),
            kind::TRAFFIC => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .and_then(|traffic: Traffic| {
                    traffic.check().map_err(|e| e.to_string())?;
                    Ok(Self::Traffic(Arc::new(traffic)))
                }),
            kind::INSTANCE => serde_json::from_str(json)
                .map_err(|e| e.to_string())
                .and_then(|instance: Instance| {
                    instance.check().map_err(|e| e.to_string())?;
                    if instance.cluster.as_str() != cluster {
                        return Err(format!("belongs to cluster `{}`", instance.cluster));
                    }
                    Ok(Self::Instance(Arc::new(instance)))
                }),
            _ => Ok(Self::Other((kind.into(), key.into()), json.into())),
        };
        object.and_then(|object| {
            let own = object.feed_key();
            if own == key {
                Ok(object)
            } else {
                Err(format!("is named `{own}` inside"))
            }
        })
    }

    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Service(service) => Key::Service(service.name.clone()),
            Self::Route(route) => Key::Route(route.id.clone()),
            Self::Certificate(certificate) => Key::Certificate(certificate.name.clone()),
            Self::Fallback(fallback) => Key::Fallback(fallback.name.clone()),
            Self::Plugin(plugin, _) => Key::Plugin(plugin.name.clone()),
            Self::Cluster(cluster) => Key::Cluster(cluster.name.clone()),
            Self::Traffic(traffic) => Key::Traffic(traffic.key()),
            Self::Instance(instance) => {
                Key::Instance(instance.service.clone(), instance.id.clone())
            }
            Self::Other((kind, key), _) => Key::Other(kind.clone(), key.clone()),
        }
    }

    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Service(_) => kind::SERVICE,
            Self::Route(_) => kind::ROUTE,
            Self::Certificate(_) => kind::CERTIFICATE,
            Self::Fallback(_) => kind::FALLBACK,
            Self::Plugin(..) => kind::PLUGIN,
            Self::Cluster(_) => kind::CLUSTER,
            Self::Traffic(_) => kind::TRAFFIC,
            Self::Instance(_) => kind::INSTANCE,
            Self::Other((kind, _), _) => kind,
        }
    }

    /// Its key as the feed writes it.
    pub(crate) fn feed_key(&self) -> String {
        match self {
            Self::Service(service) => service.name.to_string(),
            Self::Route(route) => route.id.to_string(),
            Self::Certificate(certificate) => certificate.name.to_string(),
            Self::Fallback(fallback) => fallback.name.to_string(),
            Self::Plugin(plugin, _) => plugin.name.to_string(),
            Self::Cluster(cluster) => cluster.name.to_string(),
            Self::Traffic(traffic) => traffic.key().to_string(),
            Self::Instance(instance) => instance.key().to_string(),
            Self::Other((_, key), _) => key.to_string(),
        }
    }
}

/// A plugin of the feed. One of a kind that this program does not know has no policy here, and stands
/// all the same: whether it may be left out is its own to say.
fn read_plugin(json: &str) -> Result<Object, String> {
    let plugin: Plugin = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if plugin.kind().is_some() {
        plugin.check().map_err(|e| e.to_string())?;
    }
    let known = serde_json::to_string(&plugin).is_ok_and(|text| text == json);
    let whole = (!known).then(|| json.into());
    Ok(Object::Plugin(Arc::new(plugin), whole))
}

impl Key {
    /// From the feed's writing; none when it cannot be any object's.
    pub(crate) fn read(kind: &str, key: &str) -> Option<Self> {
        match kind {
            kind::SERVICE => key.parse().ok().map(Self::Service),
            kind::ROUTE => key.parse().ok().map(Self::Route),
            kind::CERTIFICATE => key.parse().ok().map(Self::Certificate),
            kind::FALLBACK => key.parse().ok().map(Self::Fallback),
            kind::PLUGIN => key.parse().ok().map(Self::Plugin),
            kind::CLUSTER => key.parse().ok().map(Self::Cluster),
            kind::TRAFFIC => key.parse().ok().map(Self::Traffic),
            kind::INSTANCE => {
                let key: InstanceKey = key.parse().ok()?;
                Some(Self::Instance(key.service, key.id))
            }
            _ => Some(Self::Other(kind.into(), key.into())),
        }
    }
}

impl Dirty {
    fn touch(&mut self, key: Key) {
        match key {
            Key::Service(name) => {
                self.policies.insert(name);
            }
            Key::Route(id) => {
                self.routes.insert(id);
            }
            Key::Certificate(_) => self.certificates = true,
            Key::Plugin(_) => self.plugins = true,
            Key::Fallback(_) => self.fallbacks = true,
            Key::Cluster(_) => self.clusters = true,
            Key::Traffic(_) => self.traffic = true,
            Key::Other(..) => {}
            Key::Instance(service, id) => {
                self.instances.entry(service).or_default().insert(id);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty()
            && !self.certificates
            && !self.plugins
            && !self.fallbacks
            && !self.clusters
            && !self.traffic
            && self.policies.is_empty()
            && self.instances.is_empty()
    }
}

impl Objects {
    /// A static file's objects.
    pub(crate) fn from_manifest(manifest: &Manifest, cluster: &Name) -> Self {
        let mut objects = Self::default();
        let mut dirty = Dirty::default();
        let services = manifest.services.iter().cloned().map(Arc::new);
        let routes = manifest.routes.iter().cloned().map(Arc::new);
        let certificates = manifest.certificates.iter().cloned().map(Arc::new);
        let fallbacks = manifest.fallbacks.iter().cloned().map(Arc::new);
        let plugins = manifest.plugins.iter().cloned().map(Arc::new);
        let clusters = manifest.clusters.iter().cloned().map(Arc::new);
        let traffic = manifest.traffic.iter().cloned().map(Arc::new);
        let instances = manifest.instances(cluster).into_iter();
        let instances = instances
            .filter(|one| one.cluster == *cluster)
            .map(Arc::new);
        services
            .map(Object::Service)
            .chain(routes.map(Object::Route))
            .chain(certificates.map(Object::Certificate))
            .chain(fallbacks.map(Object::Fallback))
            .chain(plugins.map(|plugin| Object::Plugin(plugin, None)))
            .chain(clusters.map(Object::Cluster))
            .chain(traffic.map(Object::Traffic))
            .chain(instances.map(Object::Instance))
            .for_each(|object| objects.set(object, &mut dirty));
        objects
    }

    /// A static file's instances of other clusters.
    pub(crate) fn others_in(manifest: &Manifest, cluster: &Name) -> BTreeMap<Name, Self> {
        let mut others: BTreeMap<Name, Self> = BTreeMap::new();
        let instances = manifest.instances(cluster).into_iter();
        for instance in instances.filter(|one| one.cluster != *cluster) {
            let objects = others.entry(instance.cluster.clone()).or_default();
            objects.set(Object::Instance(Arc::new(instance)), &mut Dirty::default());
        }
        others
    }

    /// Puts an object in, noting it when it is another than before.
    pub(crate) fn set(&mut self, object: Object, dirty: &mut Dirty) {
        let key = object.key();
        let same = match object {
            Object::Service(new) => {
                let old = self.services.insert(new.name.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Route(new) => {
                let old = self.routes.insert(new.id.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Certificate(new) => {
                let old = self.certificates.insert(new.name.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Fallback(new) => {
                let old = self.fallbacks.insert(new.name.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Plugin(new, whole) => {
                let name = new.name.clone();
                let old = self.plugins.insert(name, (Arc::clone(&new), whole));
                old.is_some_and(|(old, _)| old == new)
            }
            Object::Cluster(new) => {
                let old = self.clusters.insert(new.name.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Traffic(new) => {
                let old = self.traffic.insert(new.key(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
            Object::Other(key, json) => {
                self.others.insert(key, json);
                true
            }
            Object::Instance(new) => {
                let service = self.instances.entry(new.service.clone()).or_default();
                let old = service.insert(new.id.clone(), Arc::clone(&new));
                old.is_some_and(|old| old == new)
            }
        };
        if !same {
            dirty.touch(key);
        }
    }

    /// Takes an object out, noting it when it was there.
    pub(crate) fn remove(&mut self, key: &Key, dirty: &mut Dirty) {
        let was_there = match key {
            Key::Service(name) => self.services.remove(name).is_some(),
            Key::Route(id) => self.routes.remove(id).is_some(),
            Key::Certificate(name) => self.certificates.remove(name).is_some(),
            Key::Fallback(name) => self.fallbacks.remove(name).is_some(),
            Key::Plugin(name) => self.plugins.remove(name).is_some(),
            Key::Cluster(name) => self.clusters.remove(name).is_some(),
            Key::Traffic(key) => self.traffic.remove(key).is_some(),
            Key::Other(kind, key) => self.others.remove(&(kind.clone(), key.clone())).is_some(),
            Key::Instance(service, id) => {
                let Some(instances) = self.instances.get_mut(service) else {
                    return;
                };
                let found = instances.remove(id).is_some();
                if instances.is_empty() {
                    self.instances.remove(service);
                }
                found
            }
        };
        if was_there {
            dirty.touch(key.clone());
        }
    }

    /// What leads from these objects to `new`.
    pub(crate) fn difference(&self, new: &Self) -> Dirty {
        let mut dirty = Dirty::default();
        let mut scratch = self.clone();
        let gone: Vec<Key> = self
            .iter()
            .map(|object| object.key())
            .filter(|key| !new.has(key))
            .collect();
        for key in &gone {
            scratch.remove(key, &mut dirty);
        }
        for object in new.iter() {
            scratch.set(object, &mut dirty);
        }
        dirty
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        match key {
            Key::Service(name) => self.services.contains_key(name),
            Key::Route(id) => self.routes.contains_key(id),
            Key::Certificate(name) => self.certificates.contains_key(name),
            Key::Fallback(name) => self.fallbacks.contains_key(name),
            Key::Plugin(name) => self.plugins.contains_key(name),
            Key::Cluster(name) => self.clusters.contains_key(name),
            Key::Traffic(key) => self.traffic.contains_key(key),
            Key::Other(kind, key) => self.others.contains_key(&(kind.clone(), key.clone())),
            Key::Instance(service, id) => self
                .instances
                .get(service)
                .is_some_and(|all| all.contains_key(id)),
        }
    }

    /// All objects, services first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Object> {
        let services = self.services.values().cloned().map(Object::Service);
        let routes = self.routes.values().cloned().map(Object::Route);
        let certificates = self.certificates.values().cloned();
        let fallbacks = self.fallbacks.values().cloned().map(Object::Fallback);
        let plugins = self.plugins.values().cloned();
        let clusters = self.clusters.values().cloned().map(Object::Cluster);
        let traffic = self.traffic.values().cloned().map(Object::Traffic);
        let others = self.others.iter();
        let instances = self.instances.values().flat_map(BTreeMap::values).cloned();
        services
            .chain(routes)
            .chain(fallbacks)
            .chain(plugins.map(|(plugin, whole)| Object::Plugin(plugin, whole)))
            .chain(certificates.map(Object::Certificate))
            .chain(clusters)
            .chain(traffic)
            .chain(instances.map(Object::Instance))
            .chain(others.map(|(key, json)| Object::Other(key.clone(), Arc::clone(json))))
    }

    pub(crate) fn len(&self) -> usize {
        let instances: usize = self.instances.values().map(BTreeMap::len).sum();
        let certificates = self.certificates.len();
        let policies = self.plugins.len() + self.fallbacks.len() + self.others.len();
        let policies = policies + self.clusters.len() + self.traffic.len();
        self.services.len() + self.routes.len() + policies + certificates + instances
    }

    pub(crate) fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.values()
    }

    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values().map(|(plugin, _)| plugin)
    }

    pub(crate) fn cluster(&self, name: &Name) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// Where the requests of a cluster's routers for a service go, if somebody says so: what is said of
    /// the service, or else of all.
    pub(crate) fn traffic(&self, cluster: &Name, service: &Name) -> Option<&Arc<Traffic>> {
        if self.traffic.is_empty() {
            return None;
        }
        let mut key = TrafficKey {
            cluster: cluster.clone(),
            service: Some(service.clone()),
        };
        self.traffic.get(&key).or_else(|| {
            key.service = None;
            self.traffic.get(&key)
        })
    }

    /// Everything that is said of a cluster's requests.
    pub(crate) fn traffic_of<'a>(
        &'a self,
        cluster: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<Traffic>> {
        let all = self.traffic.values();
        all.filter(move |traffic| traffic.cluster == *cluster)
    }

    pub(crate) fn route(&self, id: &Name) -> Option<&Arc<Route>> {
        self.routes.get(id)
    }

    pub(crate) fn fallback(&self, name: &Name) -> Option<&Arc<Fallback>> {
        self.fallbacks.get(name)
    }

    pub(crate) fn instance(&self, service: &Name, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(service)?.get(id)
    }

    pub(crate) fn has_instances(&self, service: &Name) -> bool {
        self.instances.contains_key(service)
    }
}

/// What is wrong with a certificate is told without a word of its key.
fn read_certificate(json: &str) -> Result<Certificate, String> {
    let certificate: Certificate = serde_json::from_str(json).map_err(|e| e.to_string())?;
    certificate.check().map_err(|e| e.to_string())?;
    if certificate.keyless() {
        return Err("it came without its key".to_owned());
    }
    Ok(certificate)
}
