//! Instances: the processes of a service.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Invalid, Name, Span, invalid::Check, name::parse_from_str};

/// The highest weight.
pub const MAX_WEIGHT: u16 = 1000;
/// The highest capacity, in requests a second.
pub const MAX_CAPACITY: u32 = 1_000_000;
/// The most labels an instance may carry.
pub const MAX_LABELS: usize = 32;

/// One process of a service in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Instance {
    /// Its cluster.
    pub cluster: Name,
    /// Its service.
    pub service: Name,
    /// Its id, unique within cluster and service.
    pub id: InstanceId,
    /// Where it listens.
    pub address: Address,
    /// Its share of the traffic, 0–1000; 0 takes no new requests.
    pub weight: u16,
    /// Where it stands, for same-zone preference.
    #[serde(default)]
    pub zone: Option<Name>,
    /// Free labels, such as `lane`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of the program, empty when unknown.
    #[serde(default)]
    pub version: String,
    /// How many requests a second it can serve, where that is known: what a cluster can bear is reckoned by
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// The state its source reports.
    pub state: InstanceState,
    /// Who reports it.
    pub source: Source,
    /// How long it lives without a renewal; none: until it is deregistered.
    #[serde(default)]
    pub lease: Option<Span>,
    /// What an operator has set over the report. It holds, whatever the source says, until it is
    /// lifted or the instance is deregistered.
    #[serde(default)]
    pub forced: Forced,
    /// When it was first registered, Unix ms.
    pub registered_at: i64,
    /// Its lease has lapsed, but the collapse guard keeps it; since when, Unix ms.
    #[serde(default)]
    pub stale_since: Option<i64>,
}

/// What an operator has set over an instance's own report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forced {
    /// A state, such as `draining`.
    #[serde(default)]
    pub state: Option<InstanceState>,
    /// A weight, 0–1000.
    #[serde(default)]
    pub weight: Option<u16>,
}

impl Instance {
    /// Cluster, service and id.
    pub fn key(&self) -> InstanceKey {
        InstanceKey {
            cluster: self.cluster.clone(),
            service: self.service.clone(),
            id: self.id.clone(),
        }
    }

    /// The state that counts: an operator's, or else the reported one.
    pub fn effective_state(&self) -> InstanceState {
        self.forced.state.unwrap_or(self.state)
    }

    /// The weight that counts: an operator's, or else the reported one.
    pub fn effective_weight(&self) -> u16 {
        self.forced.weight.unwrap_or(self.weight)
    }

    /// Whether new requests may go to it.
    pub fn takes_requests(&self) -> bool {
        self.effective_state() == InstanceState::Up && self.effective_weight() > 0
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let weights = [
            ("weight", Some(self.weight)),
            ("forced.weight", self.forced.weight),
        ];
        for (field, weight) in weights {
            check.ensure(
                weight.is_none_or(|w| w <= MAX_WEIGHT),
                field,
                format!("a weight is 0 to {MAX_WEIGHT}"),
            );
        }
        check.ensure(
            self.capacity
                .is_none_or(|c| (1..=MAX_CAPACITY).contains(&c)),
            "capacity",
            format!("requests a second, 1 to {MAX_CAPACITY}; leave it out where it is not known"),
        );
        check.merge("labels", check_labels(&self.labels));
        check.ensure(
            self.version.len() <= 128 && self.version.chars().all(|c| !c.is_control()),
            "version",
            "at most 128 bytes without control characters",
        );
        check.ensure(
            self.lease
                .is_none_or(|l| (Span::secs(1)..=Span::secs(86_400)).contains(&l)),
            "lease",
            "between 1s and 24h",
        );
        check.finish()
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.ensure(
        labels.len() <= MAX_LABELS,
        "",
        format!("at most {MAX_LABELS} labels"),
    );
    for (key, value) in labels {
        let key_ok = (1..=63).contains(&key.len())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
        check.ensure(
            key_ok,
            &key.chars().take(80).collect::<String>(),
            "a label's key is 1 to 63 characters of a-z, A-Z, 0-9, `-`, `.`, `_`, `/`",
        );
        check.ensure(
            value.len() <= 255 && value.chars().all(|c| !c.is_control()),
            &key.chars().take(80).collect::<String>(),
            "a label's value is at most 255 bytes without control characters",
        );
    }
    check.finish()
}

/// What names an instance everywhere. Written `cluster/service/id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceKey {
    /// Its cluster.
    pub cluster: Name,
    /// Its service.
    pub service: Name,
    /// Its id.
    pub id: InstanceId,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.service, self.id)
    }
}

impl FromStr for InstanceKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/');
        let (Some(cluster), Some(service), Some(id)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("`{text}` is no instance: write cluster/service/id"));
        };
        Ok(Self {
            cluster: cluster.parse().map_err(|e| format!("cluster: {e}"))?,
            service: service.parse().map_err(|e| format!("service: {e}"))?,
            id: id.parse().map_err(|e| format!("id: {e}"))?,
        })
    }
}

/// An instance's id: 1–128 characters of `A-Z a-z 0-9 - . _ : [ ]`; often its `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.0.0.1:9001"))]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ok = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
            && text != "."
            && text != "..";
        if ok {
            Ok(Self(text.into()))
        } else {
            let shown: String = text.chars().take(140).collect();
            Err(format!(
                "`{shown}` is no instance id: use 1 to 128 characters of A-Z, a-z, 0-9, `-`, `.`, `_`, `:`, `[`, `]`"
            ))
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InstanceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

/// `host:port`: an IPv4 address, an IPv6 address in brackets or a DNS name, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address as an id: what names an instance that brought no id.
    pub fn to_id(&self) -> InstanceId {
        let text = self.to_string();
        let tail = text.len().saturating_sub(128);
        InstanceId(text[tail..].into())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = |why: &str| {
            Err(format!(
                "`{}`: {why}",
                text.chars().take(280).collect::<String>()
            ))
        };
        let Some((host, port)) = text.rsplit_once(':') else {
            return error("write host:port, such as 10.0.0.1:9001");
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && !text.ends_with('+') => port,
            _ => return error("the port is a number from 1 to 65535"),
        };
        let host = host.to_ascii_lowercase();
        if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            return match v6.parse::<Ipv6Addr>() {
                Ok(ip) => usable(IpAddr::V6(ip), port).or_else(error),
                Err(_) => error("not an IPv6 address in brackets"),
            };
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return match ip {
                IpAddr::V4(_) => usable(ip, port).or_else(error),
                IpAddr::V6(_) => error("write an IPv6 address in brackets"),
            };
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let numeric = host
            .split('.')
            .next_back()
            .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if host.len() <= 253 && host.split('.').all(label) && !numeric {
            Ok(Self {
                host: host.into(),
                port,
            })
        } else {
            error("the host is no IP address and no DNS name")
        }
    }
}

fn usable(ip: IpAddr, port: u16) -> Result<Address, &'static str> {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() {
        Err("an address that others can reach, not the unspecified one")
    } else if ip.is_multicast() || broadcast {
        Err("an address of one host, not multicast or broadcast")
    } else {
        Ok(Address {
            host: ip.to_string().into(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Known, not yet ready: no requests.
    Starting,
    /// Takes requests.
    Up,
    /// Finishes what it has: no new requests, open connections stay.
    Draining,
    /// Taken out by an operator.
    Disabled,
}

impl InstanceState {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// Who reports an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Our agent, or a plain curl.
    Agent,
    /// A Kubernetes watcher.
    Kubernetes,
    /// A stock Eureka client.
    Eureka,
    /// A stock Nacos client.
    Nacos,
    /// A stock Consul client.
    Consul,
    /// An operator or a file.
    Manual,
}

impl Source {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Kubernetes => "kubernetes",
            Self::Eureka => "eureka",
            Self::Nacos => "nacos",
            Self::Consul => "consul",
            Self::Manual => "manual",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("Web-1.svc.local:65535", "web-1.svc.local:65535"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "10.0.0.1",
            ":80",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "::1:80",
            "[::1]",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "a b:80",
            "a/b:80",
            "10.0.0.256:80",
            "-a:80",
            "user@host:80",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys() {
        let key: InstanceKey = "dc-a/search/10.0.0.1:80".parse().unwrap();
        assert_eq!(key.to_string(), "dc-a/search/10.0.0.1:80");
        assert!("dc-a/search".parse::<InstanceKey>().is_err());
        assert!("dc-a/search/a/b".parse::<InstanceKey>().is_err());
    }
}
