//! Files of objects: what `cardea router --static` serves and `cardea ctl apply -f` takes.
//!
//! `[[cluster]]`, `[[service]]` (with `[[service.instance]]` inside), `[[route]]`, `[[plugin]]`,
//! `[[traffic]]`, `[[fallback]]` and `[[certificate]]` tables, in TOML, YAML or JSON. Reading is strict: unknown names
//! are refused with the nearest known one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Address, Certificate, Cluster, Fallback, Instance, InstanceId, InstanceKey, InstanceState,
    Invalid, Name, Plugin, Route, Service, Source, Traffic,
    api::{ApplyRequest, KeyedRegistration, Registration, default_state, default_weight},
    invalid::Check,
    route::{HostPattern, PathPrefix},
    strict,
};

mod complete;
pub mod files;

/// A checked file of objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Services.
    pub services: Vec<Service>,
    /// Routes, each with an id.
    pub routes: Vec<Route>,
    /// Plugins.
    pub plugins: Vec<Plugin>,
    /// Stored bodies; see [`files`] for those that are kept in files of their own.
    pub fallbacks: Vec<Fallback>,
    /// Instances by service.
    pub instances: Vec<(Name, ManifestInstance)>,
    /// Where clusters' requests go.
    pub traffic: Vec<Traffic>,
    /// Certificates; see [`files`] for those that are kept in files of their own.
    pub certificates: Vec<Certificate>,
}

/// An instance as a file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestInstance {
    /// Default: the address.
    #[serde(default)]
    pub id: Option<InstanceId>,
    /// Its cluster; default: the cluster the file is used for.
    #[serde(default)]
    pub cluster: Option<Name>,
    /// Where it listens.
    pub address: Address,
    /// 0–1000, default 100.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<Name>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of the program.
    #[serde(default)]
    pub version: String,
    /// How many requests a second it can serve, where that is known.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// Default `up`.
    #[serde(default = "default_state")]
    pub state: InstanceState,
}

#[derive(Serialize, Deserialize)]
struct RouteTable {
    #[serde(default)]
    id: Option<Name>,
    host: HostPattern,
    #[serde(default)]
    prefix: PathPrefix,
    service: Name,
}

/// The tables of a file.
const TABLES: [&str; 7] = [
    "cluster",
    "service",
    "route",
    "plugin",
    "traffic",
    "fallback",
    "certificate",
];

/// Reads a TOML text, whatever is in it.
pub fn toml_value(text: &str) -> Result<Value, Invalid> {
    toml::from_str(text).map_err(|e| Invalid::field("", e.to_string()))
}

impl Manifest {
    /// Reads a TOML text.
    pub fn from_toml(text: &str) -> Result<Self, Invalid> {
        Self::from_value(toml_value(text)?)
    }

    /// Reads an already parsed file.
    pub fn from_value(value: Value) -> Result<Self, Invalid> {
        let Value::Object(tables) = value else {
            return Err(Invalid::field(
                "",
                "a file has [[cluster]], [[service]] and [[route]] tables",
            ));
        };
        let mut manifest = Self::default();
        let mut check = Check::default();
        for (name, value) in tables {
            let Value::Array(items) = value else {
                check.ensure(false, &name, format!("write a list: [[{name}]]"));
                continue;
            };
            for (i, item) in items.into_iter().enumerate() {
                let at = format!("{name}[{i}]");
                let result = match name.as_str() {
                    "cluster" => manifest.add_cluster(item),
                    "service" => manifest.add_service(item),
                    "route" => manifest.add_route(item),
                    "plugin" => manifest.add_plugin(item),
                    "traffic" => manifest.add_traffic(item),
                    "fallback" => manifest.add_fallback(item),
                    "certificate" => manifest.add_certificate(item),
                    _ => {
                        let hint = strict::nearest(&name, TABLES).map_or_else(
                            || format!("known here: {}", TABLES.join(", ")),
                            |near| format!("did you mean `{near}`?"),
                        );
                        check.ensure(false, &name, format!("unknown table; {hint}"));
                        break;
                    }
                };
                check.merge(&at, result);
            }
        }
        check.merge("", manifest.check_unique());
        check.finish()?;
        Ok(manifest)
    }

    fn add_cluster(&mut self, item: Value) -> Result<(), Invalid> {
        let cluster: Cluster = strict::from_value(item)?;
        cluster.check()?;
        self.clusters.push(cluster);
        Ok(())
    }

    fn add_service(&mut self, mut item: Value) -> Result<(), Invalid> {
        let instances = item
            .as_object_mut()
            .and_then(|table| table.remove("instance"));
        let service: Service = strict::from_value(item)?;
        let mut check = Check::default();
        check.merge("", service.check());
        let instances = match instances {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                return Err(Invalid::field(
                    "instance",
                    "write a list: [[service.instance]]",
                ));
            }
        };
        for (i, item) in instances.into_iter().enumerate() {
            let instance = strict::from_value::<ManifestInstance>(item).and_then(|instance| {
                let (key, registration) = instance.clone().keyed(&service.name, &service.name);
                registration
                    .into_instance(key, 0)
                    .check()
                    .map(|()| instance)
            });
            if let Some(instance) = check.merge(&format!("instance[{i}]"), instance) {
                self.instances.push((service.name.clone(), instance));
            }
        }
        check.finish()?;
        self.services.push(service);
        Ok(())
    }

    fn add_route(&mut self, item: Value) -> Result<(), Invalid> {
        let table: RouteTable = strict::from_value(item)?;
        let id = table
            .id
            .unwrap_or_else(|| Route::derived_id(&table.host, &table.prefix));
        self.routes.push(Route {
            id,
            host: table.host,
            prefix: table.prefix,
            service: table.service,
        });
        Ok(())
    }

    fn add_certificate(&mut self, item: Value) -> Result<(), Invalid> {
        let certificate: Certificate = strict::from_value(item)?;
        certificate.check()?;
        self.certificates.push(certificate);
        Ok(())
    }

    fn add_plugin(&mut self, item: Value) -> Result<(), Invalid> {
        let plugin: Plugin = strict::from_value(item)?;
        plugin.check()?;
        self.plugins.push(plugin);
        Ok(())
    }

    fn add_traffic(&mut self, item: Value) -> Result<(), Invalid> {
        let traffic: Traffic = strict::from_value(item)?;
        traffic.check()?;
        self.traffic.push(traffic);
        Ok(())
    }

    fn add_fallback(&mut self, item: Value) -> Result<(), Invalid> {
        let fallback: Fallback = strict::from_value(item)?;
        fallback.check()?;
        self.fallbacks.push(fallback);
        Ok(())
    }

    fn check_unique(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let mut unique = |table: &str, names: Vec<&Name>| {
            let mut seen = BTreeSet::new();
            for (i, name) in names.into_iter().enumerate() {
                let field = format!("{table}[{i}].name");
                let text = format!("`{name}` stands twice");
                check.ensure(seen.insert(name), &field, text);
            }
        };
        unique("service", self.services.iter().map(|s| &s.name).collect());
        unique("cluster", self.clusters.iter().map(|c| &c.name).collect());
        unique(
            "certificate",
            self.certificates.iter().map(|c| &c.name).collect(),
        );
        unique("plugin", self.plugins.iter().map(|p| &p.name).collect());
        unique("fallback", self.fallbacks.iter().map(|f| &f.name).collect());
        let mut whose = BTreeSet::new();
        for (i, traffic) in self.traffic.iter().enumerate() {
            check.ensure(
                whose.insert(traffic.key()),
                &format!("traffic[{i}]"),
                format!("`{}` stands twice", traffic.key()),
            );
        }
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for (i, route) in self.routes.iter().enumerate() {
            check.ensure(
                ids.insert(&route.id),
                &format!("route[{i}].id"),
                format!("`{}` stands twice", route.id),
            );
            check.ensure(
                places.insert((&route.host, &route.prefix)),
                &format!("route[{i}].prefix"),
                format!(
                    "another route has host `{}` and prefix `{}` too",
                    route.host, route.prefix
                ),
            );
        }
        let mut keys = BTreeSet::new();
        for (service, instance) in &self.instances {
            let id = instance
                .id
                .clone()
                .unwrap_or_else(|| instance.address.to_id());
            let text = format!("service `{service}` has instance `{id}` twice");
            check.ensure(
                keys.insert((service, &instance.cluster, id)),
                "service.instance",
                text,
            );
        }
        check.finish()
    }

    /// The file's instances, for static mode; those without a cluster belong to `cluster`.
    pub fn instances(&self, cluster: &Name) -> Vec<Instance> {
        self.registrations(cluster)
            .into_iter()
            .map(|keyed| keyed.registration.into_instance(keyed.key, 0))
            .collect()
    }

    /// The file as an API call; instances without a cluster belong to `cluster`.
    pub fn into_request(self, cluster: &Name) -> ApplyRequest {
        let instances = self.registrations(cluster);
        ApplyRequest {
            clusters: self.clusters,
            services: self.services,
            routes: self.routes,
            certificates: self.certificates,
            fallbacks: self.fallbacks,
            plugins: self.plugins,
            traffic: self.traffic,
            instances,
        }
    }

    fn registrations(&self, cluster: &Name) -> Vec<KeyedRegistration> {
        let keyed = |(service, instance): &(Name, ManifestInstance)| {
            let (key, registration) = instance.clone().keyed(cluster, service);
            KeyedRegistration { key, registration }
        };
        self.instances.iter().map(keyed).collect()
    }
}

impl ManifestInstance {
    fn keyed(self, cluster: &Name, service: &Name) -> (InstanceKey, Registration) {
        let key = InstanceKey {
            cluster: self.cluster.unwrap_or_else(|| cluster.clone()),
            service: service.clone(),
            id: self.id.unwrap_or_else(|| self.address.to_id()),
        };
        let registration = Registration {
            weight: self.weight,
            zone: self.zone,
            labels: self.labels,
            version: self.version,
            capacity: self.capacity,
            state: self.state,
            source: Source::Manual,
            lease: None,
            ..Registration::at(self.address)
        };
        (key, registration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [[service]]
        name = "search"
        balance = { hash = "header:x-user" }
        [[service.instance]]
        address = "127.0.0.1:9001"
        weight = 4
        [[service.instance]]
        address = "127.0.0.1:9002"

        [[route]]
        host = "h0.svc.local"
        prefix = "/api/v1"
        service = "search"
    "#;

    #[test]
    fn reads_the_documented_form() {
        let manifest = Manifest::from_toml(FILE).unwrap();
        manifest.check_complete().unwrap();
        let instances = manifest.instances(&"static".parse().unwrap());
        assert_eq!(instances.len(), 2);
        assert_eq!(instances[0].weight, 4);
        assert_eq!(instances[1].id.as_str(), "127.0.0.1:9002");
    }

    #[test]
    fn names_what_is_wrong() {
        let fields = |text: &str| -> Vec<String> {
            let errors = Manifest::from_toml(text)
                .and_then(|m| m.check_complete())
                .unwrap_err()
                .errors;
            errors
                .into_iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect()
        };
        let wrong = fields(&FILE.replace("weight = 4", "wieght = 4"));
        assert_eq!(
            wrong,
            ["service[0].instance[0].wieght: unknown field; did you mean `weight`?"]
        );
        let wrong = fields(&FILE.replace("service = \"search\"", "service = \"serch\""));
        assert_eq!(
            wrong,
            ["route[0].service: no service `serch` in this file; did you mean `search`?"]
        );
        let wrong = fields(&FILE.replace("weight = 4", "weight = 1001"));
        assert_eq!(
            wrong,
            ["service[0].instance[0].weight: a weight is 0 to 1000"]
        );
        let wrong = fields(&FILE.replace("[[route]]", "[[rout]]"));
        assert!(
            wrong[0].starts_with("rout: unknown table; did you mean `route`?"),
            "{wrong:?}"
        );
        let wrong = fields("[[service]\n");
        assert!(wrong[0].contains("line 1"), "{wrong:?}");
    }
}
