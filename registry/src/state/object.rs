//! One object of any kind, as it is set and as it is read from the log.

use std::str::FromStr;

use cardea_registry_api::{
    Certificate, Cluster, Fallback, Instance, InstanceId, Name, Plugin, Release, Route, Service,
    Switch, Traffic,
    feed::{FeedError, Line, set_line},
};

use crate::change::{Kind, TokenRecord};

/// One object of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Cluster(Cluster),
    Service(Box<Service>),
    Route(Route),
    Certificate(Box<Certificate>),
    Fallback(Fallback),
    Plugin(Box<Plugin>),
    Traffic(Box<Traffic>),
    Switch(Box<Switch>),
    Release(Box<Release>),
    Instance(Box<Instance>),
    Token(TokenRecord),
}

impl Object {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Service(_) => Kind::Service,
            Self::Route(_) => Kind::Route,
            Self::Certificate(_) => Kind::Certificate,
            Self::Fallback(_) => Kind::Fallback,
            Self::Plugin(_) => Kind::Plugin,
            Self::Traffic(_) => Kind::Traffic,
            Self::Switch(_) => Kind::Switch,
            Self::Release(_) => Kind::Release,
            Self::Instance(_) => Kind::Instance,
            Self::Token(_) => Kind::Token,
        }
    }

    pub(crate) fn key(&self) -> String {
        match self {
            Self::Cluster(object) => object.name.to_string(),
            Self::Service(object) => object.name.to_string(),
            Self::Route(object) => object.id.to_string(),
            Self::Certificate(object) => object.name.to_string(),
            Self::Fallback(object) => object.name.to_string(),
            Self::Plugin(object) => object.name.to_string(),
            Self::Traffic(object) => object.key().to_string(),
            Self::Switch(object) => object.id.to_string(),
            Self::Release(object) => object.id.to_string(),
            Self::Instance(object) => object.key().to_string(),
            Self::Token(object) => object.name.to_string(),
        }
    }

    /// The cluster whose feed it is in; none: all or none at all.
    pub(crate) fn cluster(&self) -> Option<Name> {
        match self {
            Self::Instance(object) => Some(object.cluster.clone()),
            Self::Traffic(object) => Some(object.cluster.clone()),
            _ => None,
        }
    }

    pub(crate) fn line(&self) -> Result<Line, FeedError> {
        let (kind, key) = (self.kind().as_str(), self.key());
        match self {
            Self::Cluster(object) => set_line(kind, &key, object),
            Self::Service(object) => set_line(kind, &key, object),
            Self::Route(object) => set_line(kind, &key, object),
            Self::Certificate(object) => set_line(kind, &key, object),
            Self::Fallback(object) => set_line(kind, &key, object),
            Self::Plugin(object) => set_line(kind, &key, object),
            Self::Traffic(object) => set_line(kind, &key, object),
            Self::Switch(object) => set_line(kind, &key, object),
            Self::Release(object) => set_line(kind, &key, object),
            Self::Instance(object) => set_line(kind, &key, object),
            Self::Token(object) => set_line(kind, &key, object),
        }
    }

    /// From its JSON; the kinds [`Kind::History`] and [`Kind::Newer`] have no object.
    pub(crate) fn parse(kind: Kind, json: &str) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Cluster => Self::Cluster(serde_json::from_str(json)?),
            Kind::Service => Self::Service(serde_json::from_str(json)?),
            Kind::Route => Self::Route(serde_json::from_str(json)?),
            Kind::Certificate => Self::Certificate(serde_json::from_str(json)?),
            Kind::Fallback => Self::Fallback(serde_json::from_str(json)?),
            Kind::Plugin => Self::Plugin(serde_json::from_str(json)?),
            Kind::Traffic => Self::Traffic(serde_json::from_str(json)?),
            Kind::Switch => Self::Switch(serde_json::from_str(json)?),
            Kind::Release => Self::Release(serde_json::from_str(json)?),
            Kind::Instance => Self::Instance(serde_json::from_str(json)?),
            Kind::Token => Self::Token(serde_json::from_str(json)?),
            Kind::History | Kind::Newer => {
                return Err(serde::de::Error::custom("no object of this program"));
            }
        })
    }
}

/// The value in a line: what stands behind `"value":`, without the closing brace.
pub(crate) fn value_of(line: &Line) -> &str {
    const MARK: &str = ",\"value\":";
    let text = std::str::from_utf8(&line.bytes).unwrap_or_default();
    // Neither kind nor key can hold a quote, so the first mark is the line's own.
    text.find(MARK)
        .and_then(|at| text.get(at + MARK.len()..text.len() - 1))
        .unwrap_or_default()
}

/// The first of all names, as a range's lower end.
pub(crate) fn first_name() -> Name {
    parsed("0")
}

/// The first of all instance ids (`-` is the least character of the grammar).
pub(crate) fn first_id() -> InstanceId {
    parsed("-")
}

fn parsed<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|error| unreachable!("`{text}` fits the grammar: {error:?}"))
}
