//! Making plugins ready: once for each change of a plugin, not for each route.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use cardea_registry_api::{
    Fallback as Body, Invalid, Name, Plugin, Route,
    plugin::{Breadth, Kind, LastGood, Override},
    route::HostPattern,
};

use super::{
    Bound, Chain, Groups, Lasting, Rewriting, Stage,
    ab::trials,
    blue_green::{AtService, InUse, Sides},
    breaker::{self, Breaking},
    fallback::{COVERED, Elsewhere, Fallback, OtherRoute, Rescue, Way, memory::Memory},
    lanes::{self, Tagging},
    limit::{Counts, Limiter},
    mirror::{Copying, Mirror},
    said::{Head, Tally},
};
use crate::table::views::Want;

mod chain;

use chain::{Views, find, put_together};

/// A plugin, made ready.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    plugin: Arc<Plugin>,
    policy: Policy,
}

/// A policy, made ready as far as it is the same for all services.
#[derive(Debug, Clone)]
enum Policy {
    Stage(Stage),
    Break(Arc<Bound<Breaking>>),
    BlueGreen(Arc<Bound<Sides>>),
    /// Looks at no request: it is in the policy of the route's upstreams.
    Override(Arc<Override>),
    /// Of a kind that this program does not know.
    Unknown,
}

/// All plugins, made ready, and what of them outlives a change.
#[derive(Debug)]
pub(crate) struct Plugins {
    ready: BTreeMap<Name, Ready>,
    counts: BTreeMap<Name, Arc<Counts>>,
    turns: BTreeMap<Name, Arc<AtomicU64>>,
    memories: BTreeMap<Name, Arc<Memory>>,
    /// By plugin and service.
    sides: BTreeMap<(Name, Name), Arc<InUse>>,
    lasting: Arc<Lasting>,
}

/// What a route's plugins are.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// None: there are none that look at requests.
    pub(crate) chain: Option<Arc<Chain>>,
    /// The table's slot of the view that answers unless a plugin chooses another one; none: all of the
    /// service's instances, with its own policy.
    pub(crate) slot: Option<usize>,
}

impl Plugins {
    /// None yet.
    pub(crate) fn new(lasting: Arc<Lasting>) -> Self {
        Self {
            ready: BTreeMap::new(),
            counts: BTreeMap::new(),
            turns: BTreeMap::new(),
            memories: BTreeMap::new(),
            sides: BTreeMap::new(),
            lasting,
        }
    }

    /// Takes over the plugins that are there now; those that cannot be made ready keep their last
    /// good form and are named.
    pub(crate) fn update<'p>(
        &mut self,
        plugins: impl IntoIterator<Item = &'p Arc<Plugin>>,
    ) -> Vec<(Name, String)> {
        let mut refused = Vec::new();
        let mut before = std::mem::take(&mut self.ready);
        for plugin in plugins {
            let old = before.remove(&plugin.name);
            let ready = match old {
                Some(old) if old.plugin == *plugin => Ok(old),
                old => self.make(plugin).or_else(|invalid| {
                    refused.push((plugin.name.clone(), invalid.to_string()));
                    old.ok_or(())
                }),
            };
            if let Ok(ready) = ready {
                self.ready.insert(plugin.name.clone(), ready);
            }
        }
        for gone in before.keys() {
            self.counts.remove(gone);
            self.turns.remove(gone);
            self.memories.remove(gone);
            self.sides.retain(|(plugin, _), _| plugin != gone);
            self.lasting.forget(gone);
        }
        refused
    }

    fn make(&mut self, plugin: &Arc<Plugin>) -> Result<Ready, Invalid> {
        Ok(Ready {
            plugin: Arc::clone(plugin),
            policy: self.policy(plugin)?,
        })
    }

    fn policy(&mut self, plugin: &Plugin) -> Result<Policy, Invalid> {
        let Some(kind) = plugin.kind() else {
            return Ok(Policy::Unknown);
        };
        let name = &plugin.name;
        let lasting = Arc::clone(&self.lasting);
        let head = |verdicts: &[&str]| Head {
            name: name.clone(),
            kind,
            shadow: plugin.shadow,
            tallies: verdicts
                .iter()
                .map(|verdict| lasting.tally(name, kind, verdict))
                .collect(),
        };
        let stage = if let Some(fallback) = &plugin.fallback {
            let mut head = head(&Way::VERDICTS[..COVERED]);
            // It is said where somebody asks, and is no event.
            let covered = Tally {
                verdict: match &fallback.route {
                    Some(route) => format!("{} (route {route})", Way::VERDICTS[COVERED]).into(),
                    None => Way::VERDICTS[COVERED].into(),
                },
                count: Arc::default(),
            };
            head.tallies = head.tallies.into_iter().chain([covered]).collect();
            let memory = self.memory(name, fallback.last_good.as_ref());
            let rescue = Rescue::new(fallback, memory)?;
            Stage::Fallback(Fallback::new(bound(head, rescue)))
        } else if let Some(restrict) = &plugin.restrict {
            Stage::Restrict(bound(head(&["passed", "refused"]), restrict.into()))
        } else if let Some(limit) = &plugin.limit {
            let keyed = limit.key.is_some();
            let counts = self.counts.entry(name.clone());
            let counts = counts.or_insert_with(|| Counts::new(keyed));
            if !counts.fits(keyed) {
                *counts = Counts::new(keyed);
            }
            let limiter = Limiter::new(limit, Arc::clone(counts), &lasting.share)?;
            Stage::Limit(bound(head(&["passed", "limited"]), limiter))
        } else if let Some(redirect) = &plugin.redirect {
            Stage::Answer(bound(head(&["passed", "redirected"]), redirect.try_into()?))
        } else if let Some(respond) = &plugin.respond {
            Stage::Answer(bound(head(&["passed", "answered"]), respond.try_into()?))
        } else if let Some(policy) = &plugin.breaker {
            return Ok(Policy::Break(bound(
                head(&breaker::VERDICTS),
                policy.into(),
            )));
        } else if let Some(policy) = &plugin.lanes {
            Stage::Lanes(bound(head(&lanes::VERDICTS), Tagging::new(policy)?))
        } else if let Some(ab) = &plugin.ab {
            let turn = self.turns.entry(name.clone()).or_default();
            let trials = trials(ab, turn)?;
            let variants = trials.iter().flat_map(|trial| &trial.variants);
            let labels = variants.map(|variant| &*variant.label);
            let verdicts: Vec<&str> = ["aside"].into_iter().chain(labels).collect();
            Stage::Ab(bound(head(&verdicts), trials))
        } else if let Some(blue_green) = &plugin.blue_green {
            let sides = Sides::from(blue_green);
            return Ok(Policy::BlueGreen(bound(head(&sides.verdicts()), sides)));
        } else if let Some(gray) = &plugin.gray {
            let (groups, verdicts) = Groups::new(gray)?;
            Stage::Gray(bound(head(&verdicts), groups))
        } else if let Some(rewrite) = &plugin.rewrite {
            Stage::Rewrite(bound(head(&["rewritten"]), Rewriting::new(rewrite)?))
        } else if let Some(mirror) = &plugin.mirror {
            let copying = Copying::new(name, mirror, lasting.copies_of(name))?;
            Stage::Mirror(Mirror::new(bound(head(&["copied"]), copying)))
        } else if let Some(overrides) = &plugin.overrides {
            return Ok(Policy::Override(Arc::new(overrides.clone())));
        } else {
            return Ok(Policy::Unknown);
        };
        Ok(Policy::Stage(stage))
    }

    /// The stage of a policy at one service.
    fn stage(&mut self, plugin: &Name, policy: &Policy, service: &Name) -> Option<Stage> {
        Some(match policy {
            Policy::Stage(stage) => stage.clone(),
            Policy::Break(bound) => Stage::Break(self.lasting.breaker(plugin, service, bound)),
            Policy::BlueGreen(bound) => {
                let key = (plugin.clone(), service.clone());
                Stage::BlueGreen(Arc::new(AtService {
                    bound: Arc::clone(bound),
                    in_use: Arc::clone(self.sides.entry(key).or_default()),
                }))
            }
            Policy::Override(_) | Policy::Unknown => return None,
        })
    }

    /// What a fallback remembers; a change of what and how forgets it.
    fn memory(&mut self, plugin: &Name, policy: Option<&LastGood>) -> Option<Arc<Memory>> {
        let Some(policy) = policy else {
            self.memories.remove(plugin);
            return None;
        };
        let memory = self.memories.entry(plugin.clone());
        let memory = memory.or_insert_with(|| Memory::new(policy));
        if !memory.fits(policy) {
            *memory = Memory::new(policy);
        }
        Some(Arc::clone(memory))
    }

    /// Services that plugins ask beside those of routes.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Name> {
        self.ready.values().filter_map(|ready| match &ready.policy {
            Policy::Stage(Stage::Fallback(fallback)) => fallback.bound.policy.service.as_ref(),
            Policy::Stage(Stage::Mirror(mirror)) => mirror.bound.policy.service.as_ref(),
            _ => None,
        })
    }

    /// Whether what a route is tells how other routes' requests are answered.
    pub(crate) fn asks_route(&self, id: &Name) -> bool {
        self.ready.values().any(|ready| match &ready.policy {
            Policy::Stage(Stage::Fallback(fallback)) => {
                fallback.bound.policy.route.as_ref() == Some(id)
            }
            _ => false,
        })
    }

    /// The plugins of a route: of each kind the narrowest. `slot` gives the table's slot of a view of
    /// a service; `body` a stored body, `other` another route.
    pub(crate) fn of_route<'o>(
        &mut self,
        cluster: &Name,
        route: &Route,
        body: impl Fn(&Name) -> Option<&'o Arc<Body>>,
        other: impl Fn(&Name) -> Option<&'o Arc<Route>>,
        slot: &mut dyn FnMut(Want<'_>) -> usize,
    ) -> Made {
        let (chosen, unknown) = self.narrowest(cluster, route);
        let asked = chosen.iter().find_map(|ready| match &ready.policy {
            Policy::Stage(Stage::Fallback(fallback)) => fallback.bound.policy.route.as_ref(),
            _ => None,
        });
        // No route stands in for itself.
        let asked = asked.filter(|id| **id != route.id).and_then(&other);
        let instead = asked.and_then(|asked| self.other_route(cluster, asked, slot));
        let (mut stages, views) = self.stages(&chosen, &route.service);
        find(&mut stages, route, &views, body, instead.as_ref(), slot);
        put_together(route, stages, &views, unknown, slot)
    }

    /// A route as which a fallback answers: of its plugins only those count that say how a request goes
    /// on. None: it would refuse.
    fn other_route(
        &mut self,
        cluster: &Name,
        route: &Route,
        slot: &mut dyn FnMut(Want<'_>) -> usize,
    ) -> Option<Elsewhere> {
        let (mut chosen, unknown) = self.narrowest(cluster, route);
        if unknown.is_some() {
            return None;
        }
        chosen.retain(|ready| {
            use Stage::{Gray, Lanes, Rewrite};
            match &ready.policy {
                Policy::BlueGreen(_) | Policy::Override(_) => true,
                Policy::Stage(stage) => matches!(stage, Gray(_) | Lanes(_) | Rewrite(_)),
                Policy::Break(_) | Policy::Unknown => false,
            }
        });
        let (mut stages, views) = self.stages(&chosen, &route.service);
        // Whoever is in a lane is led back to it on the next hop.
        stages.retain(|stage| !matches!(stage, Stage::Lanes(_)));
        let made = put_together(route, stages, &views, None, slot);
        let whole = Want {
            service: Some(&route.service),
            ..Want::default()
        };
        Some(Elsewhere {
            slot: made.slot.unwrap_or_else(|| slot(whole)),
            route: Some(OtherRoute {
                host: match &route.host {
                    HostPattern::Exact(name) => Some(name.as_str().into()),
                    HostPattern::Suffix(_) | HostPattern::Any => None,
                },
                prefix: route.prefix.as_str().into(),
                chain: made.chain,
            }),
        })
    }

    /// The stages of plugins at a service, and the views of it that they need.
    fn stages(&mut self, chosen: &[Ready], service: &Name) -> (Vec<Stage>, Views) {
        let mut views = Views::default();
        let mut stages = Vec::with_capacity(chosen.len());
        for Ready { plugin, policy } in chosen {
            if let Policy::Override(policy) = policy {
                views.overrides = Some((plugin.name.clone(), Arc::clone(policy)));
            }
            let Some(stage) = self.stage(&plugin.name, policy, service) else {
                continue;
            };
            match &stage {
                Stage::Lanes(bound) => {
                    views.label = Some((bound.policy.label.clone(), bound.head.shadow));
                }
                Stage::Ab(bound) => {
                    let variants = bound.policy.iter().flat_map(|trial| &trial.variants);
                    let groups = variants.filter_map(|variant| variant.group.clone());
                    views.groups.extend(groups);
                }
                Stage::BlueGreen(at) => views.groups.extend(at.bound.policy.groups.iter().cloned()),
                Stage::Gray(bound) => {
                    let rules = bound.policy.rules.iter();
                    views
                        .groups
                        .extend(rules.map(|(_, group, _)| group.clone()));
                    views.baseline = true;
                }
                _ => {}
            }
            stages.push(stage);
        }
        (stages, views)
    }

    /// Of each kind the narrowest, in the order of the kinds, which is that of the stages; and one that
    /// must not be left out and that nobody here knows.
    fn narrowest(&self, cluster: &Name, route: &Route) -> (Vec<Ready>, Option<Name>) {
        let mut narrowest: BTreeMap<Option<Kind>, (Breadth, &Ready)> = BTreeMap::new();
        let mut unknown = None;
        for ready in self.ready.values() {
            let plugin = &ready.plugin;
            if !plugin.enabled || !plugin.reaches(cluster, &route.id, &route.service) {
                continue;
            }
            if matches!(ready.policy, Policy::Unknown) {
                if plugin.required {
                    unknown = Some(plugin.name.clone());
                }
                continue;
            }
            let place = narrowest
                .entry(plugin.kind())
                .or_insert((plugin.breadth(), ready));
            if plugin.breadth() > place.0 {
                *place = (plugin.breadth(), ready);
            }
        }
        let chosen = narrowest.into_values().map(|(_, ready)| ready.clone());
        (chosen.collect(), unknown)
    }
}

fn bound<T>(head: Head, policy: T) -> Arc<Bound<T>> {
    Arc::new(Bound { head, policy })
}
