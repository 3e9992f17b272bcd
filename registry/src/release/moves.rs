//! What a release writes into its plugin, and whether it still stands there. Pure.
//!
//! - **gray**: one rule of its own, known by its salt, behind all rules that name whom they are for. It never
//!   leaves when the release does: at 0 % it keeps the candidate out, which without any rule would take
//!   requests like every other instance.
//! - **blue-green**: which side is live.
//! - **A/B**: the weights of one experiment's variants.

use std::collections::BTreeMap;

use cardea_registry_api::{
    Name, Plugin, Release,
    plugin::{BlueGreen, Experiment, Gray, GrayRule, Missing, Percent, When},
    release::How,
    service::BASELINE,
};

/// Begins the salt of every release's rule.
const SALT: &str = "release:";
/// The weights of a variant that has all.
const WHOLE: u16 = 1000;

/// The group that requests go to which no rule is for.
pub(super) fn rest_of(gray: &Gray) -> Name {
    let all = gray.rules.iter().find(|rule| takes_all(&rule.when));
    all.map_or_else(baseline, |rule| rule.group.clone())
}

/// `baseline`.
pub(super) fn baseline() -> Name {
    BASELINE.parse().unwrap_or_else(|_| unreachable!("a name"))
}

/// Whether every request is taken: what stands behind is never asked.
fn takes_all(when: &When) -> bool {
    let percent = when.percent.is_none_or(|percent| percent == Percent::ALL);
    let bare = When {
        percent: None,
        salt: String::new(),
        ..when.clone()
    };
    percent && bare.is_empty()
}

fn salt(release: &Release) -> String {
    format!("{SALT}{}", release.id)
}

/// Whether a rule was written by a release.
fn is_a_releases(rule: &GrayRule) -> bool {
    rule.when.salt.starts_with(SALT)
}

/// The plugin with the candidate's share as it is to be. What else is in it stays.
pub(super) fn written(
    release: &Release,
    plugin: Option<&Plugin>,
    percent: Percent,
) -> Result<Plugin, String> {
    let plan = &release.plan;
    let name = &release.plugin;
    let mut next = match (plugin, plan.how()) {
        (Some(plugin), _) => plugin.clone(),
        (None, How::Ab(_)) => return Err(format!("plugin `{name}` is gone")),
        (None, _) => bare(name.clone(), plan.service.clone()),
    };
    let other = || format!("plugin `{name}` is of another kind now");
    match plan.how() {
        How::Gray(key) => {
            if plugin.is_some() && next.gray.is_none() {
                return Err(other());
            }
            let gray = next.gray.get_or_insert_with(|| Gray {
                rules: Vec::new(),
                missing: Missing::default(),
            });
            let when = When {
                // With all requests it is for those, too, of which the key is not known.
                key: key.filter(|_| percent != Percent::ALL).cloned(),
                percent: Some(percent),
                salt: salt(release),
                ..When::default()
            };
            put_rule(gray, release, when);
        }
        How::BlueGreen => {
            let from = plan.baseline.clone().unwrap_or_else(baseline);
            if plugin.is_some() && next.blue_green.is_none() {
                return Err(other());
            }
            let sides = next.blue_green.get_or_insert_with(|| BlueGreen {
                blue: from.clone(),
                green: plan.candidate.clone(),
                live: from.clone(),
                require_ready: Percent::default(),
                missing: cardea_registry_api::plugin::blue_green::MissingSide::default(),
            });
            let live = if percent == Percent::default() {
                from
            } else {
                plan.candidate.clone()
            };
            if sides.blue != live && sides.green != live {
                return Err(format!("plugin `{name}` has no side `{live}` any more"));
            }
            sides.live = live;
        }
        How::Ab(experiment) => {
            let found = experiment_of(&mut next, experiment).ok_or_else(|| {
                format!("plugin `{name}` has no experiment `{experiment}` any more")
            })?;
            let weights = weights(release, percent);
            for variant in &mut found.variants {
                variant.weight = *weights.get(&variant.name).ok_or_else(|| {
                    format!(
                        "variant `{}` was not there when the release began",
                        variant.name
                    )
                })?;
            }
            if found.variants.len() != weights.len() {
                return Err(format!("experiment `{experiment}` has lost a variant"));
            }
        }
    }
    Ok(next)
}

/// A plugin of a service's that says nothing yet.
fn bare(name: Name, service: Name) -> Plugin {
    Plugin {
        name,
        cluster: None,
        service: Some(service),
        route: None,
        enabled: true,
        shadow: false,
        required: false,
        fallback: None,
        restrict: None,
        limit: None,
        redirect: None,
        respond: None,
        breaker: None,
        lanes: None,
        ab: None,
        blue_green: None,
        gray: None,
        rewrite: None,
        mirror: None,
        overrides: None,
    }
}

/// Puts the release's rule where it is asked: in its place, or before the one that takes all others.
fn put_rule(gray: &mut Gray, release: &Release, when: When) {
    let own = salt(release);
    if let Some(rule) = gray.rules.iter_mut().find(|rule| rule.when.salt == own) {
        rule.group.clone_from(&release.plan.candidate);
        rule.when = when;
        return;
    }
    // What earlier releases left, and nobody asks any more.
    let mut all = false;
    gray.rules.retain(|rule| {
        let asked = !all && rule.when.percent != Some(Percent::default());
        all |= takes_all(&rule.when);
        asked || !is_a_releases(rule)
    });
    let before = gray.rules.iter().position(|rule| takes_all(&rule.when));
    let rule = GrayRule {
        when,
        group: release.plan.candidate.clone(),
    };
    gray.rules.insert(before.unwrap_or(gray.rules.len()), rule);
}

pub(super) fn experiment_of<'a>(plugin: &'a mut Plugin, name: &Name) -> Option<&'a mut Experiment> {
    let ab = plugin.ab.as_mut()?;
    ab.experiments.iter_mut().find(|one| one.name == *name)
}

/// The weights of an experiment's variants at a candidate's share; at 0 % those that it began with.
fn weights(release: &Release, percent: Percent) -> BTreeMap<Name, u16> {
    let candidate = &release.plan.candidate;
    if percent == Percent::default() {
        return release.weights.clone();
    }
    let own = (percent.hundredths() / 10).min(WHOLE);
    let others: Vec<(&Name, u64)> = (release.weights.iter())
        .filter(|(name, _)| *name != candidate)
        .map(|(name, weight)| (name, u64::from(*weight)))
        .collect();
    let sum: u64 = others.iter().map(|(_, weight)| weight).sum();
    let even = sum == 0;
    let sum = if even { others.len() as u64 } else { sum };
    let left = u64::from(WHOLE - own);
    let mut made = BTreeMap::from([(candidate.clone(), own)]);
    // By running sums, so that they add up to what is left.
    let (mut before, mut given) = (0, 0);
    for (name, weight) in others {
        before += if even { 1 } else { weight };
        let until = (left * before).checked_div(sum).unwrap_or(0);
        let part = u16::try_from(until - given).unwrap_or(WHOLE);
        given = until;
        made.insert(name.clone(), part);
    }
    made
}

/// Whether the plugin still says what the release wrote last; else what somebody else made of it.
pub(super) fn stands(release: &Release, plugin: Option<&Plugin>) -> Result<(), String> {
    let name = &release.plugin;
    let Some(plugin) = plugin else {
        return Err(format!("plugin `{name}` is gone"));
    };
    if !plugin.enabled {
        return Err(format!("plugin `{name}` was switched off"));
    }
    if plugin.shadow {
        return Err(format!(
            "plugin `{name}` was put in shadow: it moves nothing"
        ));
    }
    let should = written(release, Some(plugin), release.percent)?;
    if should == *plugin {
        return own_rule_is_asked(release, plugin);
    }
    let plan = &release.plan;
    Err(match plan.how() {
        How::Gray(_) => {
            let own = salt(release);
            let rules = plugin.gray.iter().flat_map(|gray| &gray.rules);
            match rules.into_iter().find(|rule| rule.when.salt == own) {
                None => format!("the release's rule was taken out of plugin `{name}`"),
                Some(_) => format!("the release's rule in plugin `{name}` was changed"),
            }
        }
        How::BlueGreen => format!("plugin `{name}` was changed: another side is live"),
        How::Ab(experiment) => {
            format!("the weights of experiment `{experiment}` in plugin `{name}` were changed")
        }
    })
}

/// Nobody has put a rule before the release's that takes everything.
fn own_rule_is_asked(release: &Release, plugin: &Plugin) -> Result<(), String> {
    let Some(gray) = &plugin.gray else {
        return Ok(());
    };
    let own = salt(release);
    let first = gray
        .rules
        .iter()
        .find(|rule| takes_all(&rule.when) || rule.when.salt == own);
    if first.is_some_and(|rule| rule.when.salt == own) {
        return Ok(());
    }
    Err(format!(
        "plugin `{}` has a rule before the release's that takes every request",
        release.plugin
    ))
}

/// Whether it is as wide as it was: bound to the service, or to a route of it.
pub(super) fn groups(release: &Release, plugin: Option<&Plugin>) -> Option<Groups> {
    let plan = &release.plan;
    match plan.how() {
        How::Gray(_) | How::BlueGreen => Some(Groups {
            candidate: plan.candidate.clone(),
            baseline: vec![plan.baseline.clone().unwrap_or_else(baseline)],
        }),
        How::Ab(experiment) => {
            let ab = plugin?.ab.as_ref()?;
            let found = ab.experiments.iter().find(|one| one.name == *experiment)?;
            compared(found, &plan.candidate)
        }
    }
}

/// The groups whose figures are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) candidate: Name,
    pub(crate) baseline: Vec<Name>,
}

/// The groups of an experiment's variants; none: they cannot be told apart.
pub(super) fn compared(experiment: &Experiment, candidate: &Name) -> Option<Groups> {
    let mut own = None;
    let mut others = Vec::new();
    for variant in &experiment.variants {
        let group = variant.group.clone()?;
        if variant.name == *candidate {
            own = Some(group);
        } else {
            others.push(group);
        }
    }
    let candidate = own?;
    (!others.is_empty() && !others.contains(&candidate)).then_some(Groups {
        candidate,
        baseline: others,
    })
}
