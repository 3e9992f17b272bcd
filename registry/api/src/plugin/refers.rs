//! What plugins name that has to be there: bindings, groups, services, routes, stored bodies; and
//! that nothing which leads on to another service leads back.
//!
//! The registry asks after each change, static mode when it reads a file: both are a [`World`]. A kind
//! that names something says so in [`Plugin::references`], and everything else follows.

use std::{collections::BTreeSet, fmt};

use super::{Breadth, Kind, Plugin};
use crate::{Invalid, Name, Route, Service, invalid::Check, service::BASELINE, strict};

/// Something that a plugin's policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Where in the plugin it stands.
    pub at: At,
    /// What it names.
    pub to: To<'a>,
}

/// A place in a plugin, such as `gray.rules[2].group`: a path in which numbers stand for `#`. Written
/// out only when it has to be shown, since ten thousand rules are ten thousand places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    path: &'static str,
    numbers: [usize; 2],
}

impl At {
    /// A place; numbers that the path has no `#` for are not used.
    pub const fn new(path: &'static str, numbers: [usize; 2]) -> Self {
        Self { path, numbers }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.numbers.iter();
        for (i, part) in self.path.split('#').enumerate() {
            if i > 0 {
                write!(f, "{}", numbers.next().unwrap_or(&0))?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// What a [`Reference`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'a> {
    /// A group of the service whose requests the plugin sees.
    Group(&'a Name),
    /// A service that requests, or copies of them, are led on to, and a group of it.
    Service(&'a Name, Option<&'a Name>),
    /// A route that they are led on to.
    Route(&'a Name),
    /// A stored body.
    Fallback(&'a Name),
}

/// An object that plugins may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A cluster.
    Cluster,
    /// A service.
    Service,
    /// A route.
    Route,
    /// A stored body.
    Fallback,
}

impl Thing {
    /// As it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Service => "service",
            Self::Route => "route",
            Self::Fallback => "fallback",
        }
    }
}

/// What there is.
pub trait World {
    /// Whether there is a thing of this name.
    fn has(&self, thing: Thing, name: &Name) -> bool;
    /// The names of all things of a sort, to find the one that was meant.
    fn names(&self, thing: Thing) -> impl Iterator<Item = &Name>;
    /// A service.
    fn service(&self, name: &Name) -> Option<&Service>;
    /// All services.
    fn services(&self) -> impl Iterator<Item = &Service>;
    /// A route.
    fn route(&self, id: &Name) -> Option<&Route>;
    /// All routes to a service.
    fn routes_to<'a>(&'a self, service: &'a Name) -> impl Iterator<Item = &'a Route>;
    /// All plugins.
    fn plugins(&self) -> impl Iterator<Item = &Plugin>;
}

impl Plugin {
    /// Everything that its policy names.
    pub fn references(&self) -> Vec<Reference<'_>> {
        let mut all = Vec::new();
        if let Some(gray) = &self.gray {
            for (i, rule) in gray.rules.iter().enumerate() {
                all.push(Reference {
                    at: At::new("gray.rules[#].group", [i, 0]),
                    to: To::Group(&rule.group),
                });
            }
        }
        for (i, experiment) in self.ab.iter().flat_map(|ab| &ab.experiments).enumerate() {
            for (j, variant) in experiment.variants.iter().enumerate() {
                all.extend(variant.group.as_ref().map(|group| Reference {
                    at: At::new("ab.experiments[#].variants[#].group", [i, j]),
                    to: To::Group(group),
                }));
            }
        }
        if let Some(sides) = &self.blue_green {
            for (path, group) in [
                ("blue_green.blue", &sides.blue),
                ("blue_green.green", &sides.green),
            ] {
                all.push(Reference {
                    at: At::new(path, [0, 0]),
                    to: To::Group(group),
                });
            }
        }
        if let Some(fallback) = &self.fallback {
            all.extend(fallback.body.as_ref().map(|body| Reference {
                at: At::new("fallback.body", [0, 0]),
                to: To::Fallback(body),
            }));
            all.extend(elsewhere(
                ["fallback.service", "fallback.group"],
                fallback.service.as_ref(),
                fallback.group.as_ref(),
            ));
            all.extend(fallback.route.as_ref().map(|route| Reference {
                at: At::new("fallback.route", [0, 0]),
                to: To::Route(route),
            }));
        }
        if let Some(mirror) = &self.mirror {
            all.extend(elsewhere(
                ["mirror.service", "mirror.group"],
                mirror.service.as_ref(),
                mirror.group.as_ref(),
            ));
        }
        all
    }

    /// What it is bound to; none: everything.
    pub fn binding(&self) -> Option<(Thing, &Name)> {
        let cluster = self.cluster.as_ref().map(|name| (Thing::Cluster, name));
        let service = self.service.as_ref().map(|name| (Thing::Service, name));
        let route = self.route.as_ref().map(|name| (Thing::Route, name));
        route.or(service).or(cluster)
    }

    /// Where in it an object is named; none: nowhere.
    pub fn names(&self, thing: Thing, name: &Name) -> Option<String> {
        if self.binding() == Some((thing, name)) {
            return Some(thing.as_str().to_owned());
        }
        let mut all = self.references().into_iter();
        let found = all.find(|reference| match reference.to {
            To::Group(_) => false,
            To::Service(service, _) => thing == Thing::Service && service == name,
            To::Route(route) => thing == Thing::Route && route == name,
            To::Fallback(fallback) => thing == Thing::Fallback && fallback == name,
        });
        found.map(|reference| reference.at.to_string())
    }

    /// Where its requests are led on to.
    fn leads(&self) -> Vec<(At, Place<'_>)> {
        let all = self.references().into_iter();
        all.filter_map(|reference| match reference.to {
            To::Service(service, _) => Some((reference.at, Place::Service(service))),
            To::Route(route) => Some((reference.at, Place::Route(route))),
            To::Group(_) | To::Fallback(_) => None,
        })
        .collect()
    }
}

/// A service, a group of it, or a group of the service whose requests they are.
fn elsewhere<'a>(
    at: [&'static str; 2],
    service: Option<&'a Name>,
    group: Option<&'a Name>,
) -> Option<Reference<'a>> {
    let (at, to) = match (service, group) {
        (Some(service), group) => (at[0], To::Service(service, group)),
        (None, Some(group)) => (at[1], To::Group(group)),
        (None, None) => return None,
    };
    let at = At::new(at, [0, 0]);
    Some(Reference { at, to })
}

/// Checks that everything is there that a plugin names.
pub fn check(plugin: &Plugin, world: &impl World) -> Result<(), Invalid> {
    let mut check = Check::default();
    let there = |check: &mut Check, field: &str, thing, name| {
        check.ensure(world.has(thing, name), field, missing(world, thing, name));
    };
    let binding = plugin.binding();
    if let Some((thing, name)) = binding {
        there(&mut check, thing.as_str(), thing, name);
    }
    let mut seen = BTreeSet::new();
    for reference in plugin.references() {
        // Ten thousand rules may name one group.
        if matches!(reference.to, To::Group(group) if !seen.insert(group)) {
            continue;
        }
        let field = &reference.at.to_string();
        match reference.to {
            To::Fallback(name) => there(&mut check, field, Thing::Fallback, name),
            To::Route(name) => there(&mut check, field, Thing::Route, name),
            To::Service(name, group) => {
                there(&mut check, field, Thing::Service, name);
                let service = world.service(name);
                if let (Some(service), Some(group)) = (service, group) {
                    check.merge(field, has_group(service, group));
                }
            }
            To::Group(group) => {
                let bound = match binding {
                    Some((Thing::Service, name)) => Some(world.service(name)),
                    Some((Thing::Route, id)) => {
                        Some(world.route(id).and_then(|r| world.service(&r.service)))
                    }
                    _ => None,
                };
                match bound {
                    Some(Some(service)) => drop(check.merge(field, has_group(service, group))),
                    // What it is bound to is not there: that was said above.
                    Some(None) => {}
                    None => check.ensure(
                        world.services().any(|one| has_group(one, group).is_ok()),
                        field,
                        format!("no service has a group `{group}`: give one in `groups` first"),
                    ),
                }
            }
        }
    }
    check.finish()
}

fn has_group(service: &Service, group: &Name) -> Result<(), Invalid> {
    if service.group_names().any(|name| name == group.as_str()) {
        return Ok(());
    }
    let known = service.group_names().filter(|name| *name != BASELINE);
    let hint = strict::nearest(group.as_str(), known).map_or_else(
        || "; give it in the service's `groups` first".to_owned(),
        |near| format!("; did you mean `{near}`?"),
    );
    let text = format!("service `{}` has no group `{group}`{hint}", service.name);
    Err(Invalid::field("", text))
}

fn missing(world: &impl World, thing: Thing, name: &Name) -> String {
    let word = thing.as_str();
    let near = strict::nearest(name.as_str(), world.names(thing).map(Name::as_str));
    match near {
        Some(near) if near != name.as_str() => {
            format!("there is no {word} `{name}`; did you mean `{near}`?")
        }
        _ => format!("there is no {word} `{name}`: create it first"),
    }
}

/// Where requests may be led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Route(&'a Name),
    Service(&'a Name),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(id) => write!(f, "route `{id}`"),
            Self::Service(name) => write!(f, "service `{name}`"),
        }
    }
}

/// A way that leads back to where it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// The plugin that closes it.
    pub plugin: Name,
    /// Where in it.
    pub field: String,
    /// What is wrong, and what helps.
    pub why: String,
}

/// Looks for a way back: plugins of one kind that lead requests from a service to itself again.
pub fn find_loop(world: &impl World) -> Option<Loop> {
    let leading: Vec<Leading<'_>> = world
        .plugins()
        .filter(|plugin| plugin.enabled)
        .filter_map(|plugin| {
            let leads = plugin.leads();
            let kind = plugin.kind()?;
            (!leads.is_empty()).then_some(Leading {
                plugin,
                kind,
                leads,
            })
        })
        .collect();
    loop_among(&leading, world)
}

fn loop_among(leading: &[Leading<'_>], world: &impl World) -> Option<Loop> {
    let kinds: BTreeSet<Kind> = leading.iter().map(|one| one.kind).collect();
    kinds.into_iter().find_map(|kind| {
        let mut search = Search {
            world,
            leading: leading.iter().filter(|one| one.kind == kind).collect(),
            done: BTreeSet::new(),
            way: Vec::new(),
        };
        // Every loop passes a place that something leads to.
        let starts: BTreeSet<Place<'_>> = search
            .leading
            .iter()
            .flat_map(|one| one.leads.iter().map(|(_, place)| *place))
            .collect();
        starts.into_iter().find_map(|start| search.from(start))
    })
}

/// A plugin that leads requests on.
struct Leading<'a> {
    plugin: &'a Plugin,
    kind: Kind,
    leads: Vec<(At, Place<'a>)>,
}

struct Search<'s, 'a, W> {
    world: &'a W,
    leading: Vec<&'s Leading<'a>>,
    done: BTreeSet<Place<'a>>,
    way: Vec<Place<'a>>,
}

impl<'s, 'a, W: World> Search<'s, 'a, W> {
    fn from(&mut self, place: Place<'a>) -> Option<Loop> {
        if self.done.contains(&place) {
            return None;
        }
        self.way.push(place);
        for one in self.at(place) {
            for (field, next) in &one.leads {
                if self.is_left_out(one, place, *next) {
                    continue;
                }
                if let Some(at) = self.way.iter().position(|before| before == next) {
                    let way: Vec<String> = self.way[at..]
                        .iter()
                        .chain([next])
                        .map(ToString::to_string)
                        .collect();
                    return Some(Loop {
                        plugin: one.plugin.name.clone(),
                        field: field.to_string(),
                        why: format!(
                            "leads back to where it began: {}; name another one",
                            way.join(" → ")
                        ),
                    });
                }
                if let Some(found) = self.from(*next) {
                    return Some(found);
                }
            }
        }
        self.way.pop();
        self.done.insert(place);
        None
    }

    /// Whether a plugin does not lead from here on to there, since that is where it leads all others: a
    /// fallback that is bound to more than a service does not rescue whom it asks.
    fn is_left_out(&self, one: &Leading<'_>, from: Place<'_>, to: Place<'_>) -> bool {
        let wide = one.plugin.breadth() < Breadth::Service;
        let same = from == to
            || match (from, to) {
                (Place::Route(id), Place::Service(name)) => {
                    let route = self.world.route(id);
                    route.is_some_and(|route| route.service == *name)
                }
                _ => false,
            };
        one.kind == Kind::Fallback && wide && same
    }

    /// The plugins that lead on from a place. A service is entered by any of its routes.
    fn at(&self, place: Place<'a>) -> Vec<&'s Leading<'a>> {
        match place {
            Place::Route(id) => match self.world.route(id) {
                Some(route) => self.narrowest(Some(&route.id), &route.service),
                None => Vec::new(),
            },
            Place::Service(name) => {
                let mut all = self.narrowest(None, name);
                for route in self.world.routes_to(name) {
                    for one in self.narrowest(Some(&route.id), name) {
                        if !all.iter().any(|known| std::ptr::eq(*known, one)) {
                            all.push(one);
                        }
                    }
                }
                all
            }
        }
    }

    /// Those that count for a route, in whichever cluster.
    fn narrowest(&self, route: Option<&Name>, service: &Name) -> Vec<&'s Leading<'a>> {
        let reaching = |breadths: [Breadth; 2]| {
            let all = self.leading.iter().copied().filter(|one| {
                let plugin = one.plugin;
                breadths.contains(&plugin.breadth())
                    && plugin.service.as_ref().is_none_or(|own| own == service)
                    && (plugin.route.is_none() || plugin.route.as_ref() == route)
            });
            all.collect::<Vec<_>>()
        };
        for breadth in [Breadth::Route, Breadth::Service] {
            let found = reaching([breadth; 2]);
            if !found.is_empty() {
                return found;
            }
        }
        // A cluster's plugin stands in for the globe's in that cluster only.
        reaching([Breadth::Cluster, Breadth::Globe])
    }
}

#[cfg(test)]
mod tests;
