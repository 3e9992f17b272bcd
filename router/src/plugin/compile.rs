//! Making plugins ready: once for each change of a plugin, not for each route.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use cardea_registry_api::{
    Invalid, Name, Plugin, Route,
    plugin::{Breadth, Kind, Override, Redirect, Respond, Template},
    service::BASELINE,
};

use super::{
    Answer, Bound, Chain, Groups, Head, Restriction, Rewriting, Tally, Trial,
    ab::trials,
    condition::Condition,
    edit::{Edits, NewPath},
    limit::{Counts, Limiter},
};
use crate::table::Path;

/// A plugin, made ready.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    plugin: Arc<Plugin>,
    policy: Policy,
}

#[derive(Debug, Clone)]
enum Policy {
    Restrict(Arc<Bound<Restriction>>),
    Limit(Arc<Bound<Limiter>>),
    Redirect(Arc<Bound<Answer>>),
    Respond(Arc<Bound<Answer>>),
    Ab(Arc<Bound<Box<[Trial]>>>),
    Gray(Arc<Bound<Groups>>),
    Rewrite(Arc<Bound<Rewriting>>),
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
    tallies: Arc<Tallies>,
}

/// How often each plugin said what.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<BTreeMap<TallyKey, Arc<AtomicU64>>>);

/// Plugin, kind and verdict.
type TallyKey = (Name, Kind, Box<str>);

impl Tallies {
    fn of(&self, plugin: &Name, kind: Kind, verdict: &str) -> Tally {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (plugin.clone(), kind, verdict.into());
        Tally {
            verdict: verdict.into(),
            count: Arc::clone(all.entry(key).or_default()),
        }
    }

    /// Plugin, kind, verdict and how often.
    pub(crate) fn each(&self, mut see: impl FnMut(&Name, Kind, &str, u64)) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        }
        refused
    }

    fn make(&mut self, plugin: &Arc<Plugin>) -> Result<Ready, Invalid> {
        let policy = self.policy(plugin)?;
        Ok(Ready {
            plugin: Arc::clone(plugin),
            policy,
        })
    }

    fn policy(&mut self, plugin: &Plugin) -> Result<Policy, Invalid> {
        let Some(kind) = plugin.kind() else {
            return Ok(Policy::Unknown);
        };
        let name = &plugin.name;
        let tallies = Arc::clone(&self.tallies);
        let head = |verdicts: &[&str]| Head {
            name: name.clone(),
            kind,
            shadow: plugin.shadow,
            tallies: verdicts.iter().map(|v| tallies.of(name, kind, v)).collect(),
        };
        Ok(if let Some(restrict) = &plugin.restrict {
            Policy::Restrict(bound(head(&["passed", "refused"]), restrict.into()))
        } else if let Some(limit) = &plugin.limit {
            let keyed = limit.key.is_some();
            let counts = self.counts.entry(name.clone());
            let counts = counts.or_insert_with(|| Counts::new(keyed));
            if !counts.fits(keyed) {
                *counts = Counts::new(keyed);
            }
            let limiter = Limiter::new(limit, Arc::clone(counts))?;
            Policy::Limit(bound(head(&["passed", "limited"]), limiter))
        } else if let Some(redirect) = &plugin.redirect {
            Policy::Redirect(bound(head(&["passed", "redirected"]), redirect.try_into()?))
        } else if let Some(respond) = &plugin.respond {
            Policy::Respond(bound(head(&["passed", "answered"]), respond.try_into()?))
        } else if let Some(ab) = &plugin.ab {
            let turn = self.turns.entry(name.clone()).or_default();
            let trials = trials(ab, turn)?;
            let labels = trials
                .iter()
                .flat_map(|t| t.variants.iter())
                .map(|v| &*v.label);
            let verdicts: Vec<&str> = ["aside"].into_iter().chain(labels).collect();
            Policy::Ab(bound(head(&verdicts), trials))
        } else if let Some(gray) = &plugin.gray {
            let mut verdicts = vec!["missing", BASELINE];
            let mut rules = Vec::with_capacity(gray.rules.len());
            for rule in &gray.rules {
                let group = rule.group.as_str();
                let known = verdicts.iter().skip(1).position(|v| *v == group);
                let verdict = known.map_or_else(
                    || {
                        verdicts.push(group);
                        verdicts.len() - 1
                    },
                    |at| at + 1,
                );
                rules.push((Condition::new(&rule.when)?, rule.group.clone(), verdict));
            }
            let groups = Groups {
                rules: rules.into(),
                missing: gray.missing,
            };
            Policy::Gray(bound(head(&verdicts), groups))
        } else if let Some(rewrite) = &plugin.rewrite {
            let rewriting = Rewriting {
                prefix: rewrite.prefix.as_ref().map(|p| p.as_str().into()),
                path: rewrite.path.as_ref().map(NewPath::new).transpose()?,
                host: rewrite.host.clone(),
                request: Edits::from(&rewrite.request),
                response: Edits::from(&rewrite.response),
            };
            Policy::Rewrite(bound(head(&["rewritten"]), rewriting))
        } else if let Some(overrides) = &plugin.overrides {
            Policy::Override(Arc::new(overrides.clone()))
        } else {
            Policy::Unknown
        })
    }

    /// The plugins of a route: of each kind the narrowest. `slot` gives the table's slot of a group of
    /// the route's service, with the changes to its policy.
    pub(crate) fn of_route(
        &self,
        cluster: &Name,
        route: &Route,
        mut slot: impl FnMut(&str, Option<&(Name, Arc<Override>)>) -> usize,
    ) -> Made {
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
        let mut made = Made::default();
        let mut chain = Chain {
            unknown,
            route: route.id.as_str().into(),
            service: route.service.as_str().into(),
            segments: segments(route),
            ..Chain::default()
        };
        let mut looks = chain.unknown.is_some();
        let mut groups: Vec<Name> = Vec::new();
        let mut baseline = false;
        for (_, ready) in narrowest.into_values() {
            looks |= !matches!(ready.policy, Policy::Override(_));
            match &ready.policy {
                Policy::Restrict(policy) => chain.restrict = Some(Arc::clone(policy)),
                Policy::Limit(policy) => chain.limit = Some(Arc::clone(policy)),
                Policy::Redirect(policy) => chain.redirect = Some(Arc::clone(policy)),
                Policy::Respond(policy) => chain.respond = Some(Arc::clone(policy)),
                Policy::Ab(policy) => {
                    let variants = policy.policy.iter().flat_map(|t| t.variants.iter());
                    groups.extend(variants.filter_map(|v| v.group.clone()));
                    chain.ab = Some(Arc::clone(policy));
                }
                Policy::Gray(policy) => {
                    groups.extend(
                        policy
                            .policy
                            .rules
                            .iter()
                            .map(|(_, group, _)| group.clone()),
                    );
                    baseline = true;
                    chain.gray = Some(Arc::clone(policy));
                }
                Policy::Rewrite(policy) => chain.rewrite = Some(Arc::clone(policy)),
                Policy::Override(policy) => {
                    made.overrides = Some((ready.plugin.name.clone(), Arc::clone(policy)));
                }
                Policy::Unknown => {}
            }
        }
        baseline |= !groups.is_empty();
        if baseline {
            chain.baseline = Some(slot(BASELINE, made.overrides.as_ref()));
        }
        for group in groups {
            let at = slot(group.as_str(), made.overrides.as_ref());
            chain.slots.insert(group, at);
        }
        made.chain = looks.then(|| Arc::new(chain));
        made
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

impl TryFrom<&Redirect> for Answer {
    type Error = Invalid;

    fn try_from(redirect: &Redirect) -> Result<Self, Invalid> {
        Ok(Self {
            when: Condition::new(&redirect.when)?,
            status: redirect.status,
            content_type: Box::default(),
            body: Box::default(),
            lines: Box::new([(b"Location"[..].into(), redirect.to.clone())]),
        })
    }
}

impl TryFrom<&Respond> for Answer {
    type Error = Invalid;

    fn try_from(respond: &Respond) -> Result<Self, Invalid> {
        let line = |(name, value): (&String, &Template)| (name.as_bytes().into(), value.clone());
        Ok(Self {
            when: Condition::new(&respond.when)?,
            status: respond.status,
            content_type: respond.content_type.as_str().into(),
            body: respond.body.as_bytes().into(),
            lines: respond.headers.iter().map(line).collect(),
        })
    }
}
