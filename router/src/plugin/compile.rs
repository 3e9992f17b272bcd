//! Making plugins ready: once for each change of a plugin, not for each route.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use cardea_registry_api::{
    Address, Fallback as Body, Invalid, Name, Plugin, Route,
    plugin::{Breadth, Kind, LastGood, Override},
    service::BASELINE,
};

use super::{
    Bound, Chain, Groups, Rewriting, Stage,
    ab::trials,
    fallback::{COVERED, Fallback, Rescue, Way, memory::Memory},
    limit::{Counts, Limiter},
    mirror::{self, Copying, Mirror},
    said::{Head, Tally},
};
use crate::table::Path;

/// A plugin, made ready.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    plugin: Arc<Plugin>,
    stage: Stage,
}

/// All plugins, made ready, and what of them outlives a change.
#[derive(Debug)]
pub(crate) struct Plugins {
    ready: BTreeMap<Name, Ready>,
    counts: BTreeMap<Name, Arc<Counts>>,
    turns: BTreeMap<Name, Arc<AtomicU64>>,
    memories: BTreeMap<Name, Arc<Memory>>,
    tallies: Arc<Tallies>,
}

/// How often each plugin said what, and what became of copies.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    said: Mutex<BTreeMap<TallyKey, Arc<AtomicU64>>>,
    copies: Mutex<BTreeMap<Name, Arc<mirror::Counts>>>,
}

/// Plugin, kind and verdict.
type TallyKey = (Name, Kind, Box<str>);

impl Tallies {
    fn of(&self, plugin: &Name, kind: Kind, verdict: &str) -> Tally {
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (plugin.clone(), kind, verdict.into());
        Tally {
            verdict: verdict.into(),
            count: Arc::clone(all.entry(key).or_default()),
        }
    }

    fn copies_of(&self, plugin: &Name) -> Arc<mirror::Counts> {
        let mut all = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(plugin.clone()).or_default())
    }

    /// Plugins that send copies, and what became of these.
    pub(crate) fn copies(&self) -> Vec<(Name, Arc<mirror::Counts>)> {
        let all = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter();
        each.map(|(name, counts)| (name.clone(), Arc::clone(counts)))
            .collect()
    }

    /// Plugin, kind, verdict and how often.
    pub(crate) fn each(&self, mut see: impl FnMut(&Name, Kind, &str, u64)) {
        let all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for ((plugin, kind, verdict), count) in all.iter() {
            see(plugin, *kind, verdict, count.load(Relaxed));
        }
    }
}

/// What a route's plugins are.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// None: there are none that look at requests.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Other time-outs and retries, and the plugin they are of.
    pub(crate) overrides: Option<(Name, Arc<Override>)>,
}

impl Plugins {
    /// None yet.
    pub(crate) fn new(tallies: Arc<Tallies>) -> Self {
        Self {
            ready: BTreeMap::new(),
            counts: BTreeMap::new(),
            turns: BTreeMap::new(),
            memories: BTreeMap::new(),
            tallies,
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
        }
        refused
    }

    fn make(&mut self, plugin: &Arc<Plugin>) -> Result<Ready, Invalid> {
        Ok(Ready {
            plugin: Arc::clone(plugin),
            stage: self.stage(plugin)?,
        })
    }

    fn stage(&mut self, plugin: &Plugin) -> Result<Stage, Invalid> {
        let Some(kind) = plugin.kind() else {
            return Ok(Stage::Unknown);
        };
        let name = &plugin.name;
        let tallies = Arc::clone(&self.tallies);
        let head = |verdicts: &[&str]| Head {
            name: name.clone(),
            kind,
            shadow: plugin.shadow,
            tallies: verdicts.iter().map(|v| tallies.of(name, kind, v)).collect(),
        };
        Ok(if let Some(fallback) = &plugin.fallback {
            let mut head = head(&Way::VERDICTS[..COVERED]);
            // It is said where somebody asks, and is no event.
            let covered = Tally {
                verdict: Way::VERDICTS[COVERED].into(),
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
            let limiter = Limiter::new(limit, Arc::clone(counts))?;
            Stage::Limit(bound(head(&["passed", "limited"]), limiter))
        } else if let Some(redirect) = &plugin.redirect {
            Stage::Answer(bound(head(&["passed", "redirected"]), redirect.try_into()?))
        } else if let Some(respond) = &plugin.respond {
            Stage::Answer(bound(head(&["passed", "answered"]), respond.try_into()?))
        } else if let Some(ab) = &plugin.ab {
            let turn = self.turns.entry(name.clone()).or_default();
            let trials = trials(ab, turn)?;
            let variants = trials.iter().flat_map(|trial| &trial.variants);
            let labels = variants.map(|variant| &*variant.label);
            let verdicts: Vec<&str> = ["aside"].into_iter().chain(labels).collect();
            Stage::Ab(bound(head(&verdicts), trials))
        } else if let Some(gray) = &plugin.gray {
            let (groups, verdicts) = Groups::new(gray)?;
            Stage::Gray(bound(head(&verdicts), groups))
        } else if let Some(rewrite) = &plugin.rewrite {
            Stage::Rewrite(bound(head(&["rewritten"]), Rewriting::new(rewrite)?))
        } else if let Some(mirror) = &plugin.mirror {
            let copying = Copying::new(name, mirror, tallies.copies_of(name))?;
            Stage::Mirror(Mirror::new(bound(head(&["copied"]), copying)))
        } else if let Some(overrides) = &plugin.overrides {
            Stage::Override(Arc::new(overrides.clone()))
        } else {
            Stage::Unknown
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
        self.ready.values().filter_map(|ready| match &ready.stage {
            Stage::Fallback(fallback) => fallback.bound.policy.service.as_ref(),
            Stage::Mirror(mirror) => mirror.bound.policy.service.as_ref(),
            _ => None,
        })
    }

    /// The plugins of a route: of each kind the narrowest. `slot` gives the table's slot of a part of
    /// a service; `body` a stored body.
    pub(crate) fn of_route<'o>(
        &self,
        cluster: &Name,
        route: &Route,
        body: impl Fn(&Name) -> Option<&'o Arc<Body>>,
        mut slot: impl FnMut(Part<'_>) -> usize,
    ) -> Made {
        let mut narrowest: BTreeMap<Option<Kind>, (Breadth, &Ready)> = BTreeMap::new();
        let mut unknown = None;
        for ready in self.ready.values() {
            let plugin = &ready.plugin;
            if !plugin.enabled || !plugin.reaches(cluster, &route.id, &route.service) {
                continue;
            }
            if matches!(ready.stage, Stage::Unknown) {
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
        // In the order of their kinds, which is that of the stages.
        let chosen: Vec<&Ready> = narrowest.into_values().map(|(_, ready)| ready).collect();
        let mut made = Made::default();
        let mut groups: Vec<&Name> = Vec::new();
        let mut baseline = false;
        for ready in &chosen {
            match &ready.stage {
                Stage::Ab(bound) => {
                    let variants = bound.policy.iter().flat_map(|trial| &trial.variants);
                    groups.extend(variants.filter_map(|variant| variant.group.as_ref()));
                }
                Stage::Gray(bound) => {
                    groups.extend(bound.policy.rules.iter().map(|(_, group, _)| group));
                    baseline = true;
                }
                Stage::Override(overrides) => {
                    made.overrides = Some((ready.plugin.name.clone(), Arc::clone(overrides)));
                }
                _ => {}
            }
        }
        let stages = chosen.iter().map(|ready| &ready.stage);
        let stages: Box<[Stage]> = stages.filter(|s| s.head().is_some()).cloned().collect();
        let looks = unknown.is_some() || !stages.is_empty();
        let mut chain = Chain {
            unknown,
            stages,
            route: route.id.as_str().into(),
            service: route.service.as_str().into(),
            segments: segments(route),
            ..Chain::default()
        };
        if baseline || !groups.is_empty() {
            let part = Part::group(BASELINE, made.overrides.as_ref());
            chain.slots.baseline = Some(slot(part));
        }
        for group in groups {
            if !chain.slots.named.contains_key(group) {
                let at = slot(Part::group(group.as_str(), made.overrides.as_ref()));
                chain.slots.named.insert(group.clone(), at);
            }
        }
        let rewriting = chain.stages.iter().find_map(|stage| match stage {
            Stage::Rewrite(bound) if !bound.head.shadow => Some(Arc::clone(bound)),
            _ => None,
        });
        let gone = rewriting
            .as_ref()
            .map_or(&[][..], |bound| bound.policy.reply_gone());
        let not_sent = rewriting
            .as_ref()
            .map_or(&[][..], |bound| bound.policy.request_gone());
        for stage in &mut chain.stages {
            if let Stage::Mirror(mirror) = stage {
                let policy = &mirror.bound.policy;
                let at = slot(Part {
                    service: policy.service.as_ref(),
                    group: policy.group.as_ref().map(Name::as_str),
                    overrides: None,
                    address: policy.address.as_ref(),
                });
                mirror.find(at, not_sent);
            }
            if let Stage::Fallback(fallback) = stage {
                let policy = &fallback.bound.policy;
                let part = Part {
                    service: policy.service.as_ref(),
                    group: policy.group.as_ref().map(Name::as_str),
                    overrides: made.overrides.as_ref().filter(|_| policy.service.is_none()),
                    address: None,
                };
                let asks = part.service.is_some() || part.group.is_some();
                let elsewhere = asks.then(|| slot(part));
                fallback.find(policy.body.as_ref().and_then(&body), elsewhere, gone);
            }
        }
        made.chain = looks.then(|| Arc::new(chain));
        made
    }
}

/// Whom a plugin asks: a part of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// None: the route's own.
    pub(crate) service: Option<&'a Name>,
    /// None: all of it.
    pub(crate) group: Option<&'a str>,
    /// A plugin's changes to the policy.
    pub(crate) overrides: Option<&'a (Name, Arc<Override>)>,
    /// No part of a service at all, but who is at this address.
    pub(crate) address: Option<&'a Address>,
}

impl<'a> Part<'a> {
    fn group(group: &'a str, overrides: Option<&'a (Name, Arc<Override>)>) -> Self {
        Self {
            service: None,
            group: Some(group),
            overrides,
            address: None,
        }
    }
}

fn bound<T>(head: Head, policy: T) -> Arc<Bound<T>> {
    Arc::new(Bound { head, policy })
}

fn segments(route: &Route) -> usize {
    let mut count = 0;
    if let Ok(path) = Path::parse(route.prefix.as_str().as_bytes()) {
        path.segments(|_| {
            count += 1;
            true
        });
    }
    count
}
