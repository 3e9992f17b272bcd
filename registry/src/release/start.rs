//! What a plan comes to before it is started: the release with every default in place, its plugin, and what
//! to know first. Pure.

use std::collections::BTreeMap;

use cardea_registry_api::{
    Invalid, Name, Plugin, Release, ReleasePlan, Service,
    figures::window_of,
    invalid::Check,
    plugin::{Kind, Percent},
    release::{Event, Happened, How, Pause, ReleaseState, Step},
};

use super::{
    id_of,
    instances::{look_at_instances, ready},
    moves,
};
use crate::state::State;

/// A release that could be started.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) release: Release,
    /// Its plugin at the first step, and the revision that it was made of.
    pub(crate) plugin: Plugin,
    pub(crate) plugin_revision: Option<u64>,
    pub(crate) at_the_end: Plugin,
    pub(crate) candidate_ready: BTreeMap<Name, u64>,
    pub(crate) baseline_ready: BTreeMap<Name, u64>,
    pub(crate) warnings: Vec<String>,
}

/// Why it cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The plan is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Something is in the way.
    #[error("{0}")]
    Conflict(String),
}

fn invalid<T>(field: &str, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Invalid(Invalid::field(field, message)))
}

pub(super) fn conflict<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Conflict(why.into()))
}

/// What a plan comes to in a state.
pub(crate) fn draft(
    mut plan: ReleasePlan,
    state: &State,
    author: &str,
    now: i64,
) -> Result<Draft, Refused> {
    plan.check()?;
    let Some(service) = state.service(plan.service.as_str()) else {
        let name = &plan.service;
        return invalid(
            "service",
            format!("there is no service `{name}`: create it first"),
        );
    };
    let service = &service.object;
    let kind = kind_of(&plan);
    let stored = plugin_of(&plan, state, kind)?;
    let plugin = stored.map(|(plugin, _)| plugin);
    let mut warnings = in_the_way(&plan, state, kind, plugin)?;
    let weights = match plan.how() {
        How::Ab(experiment) => {
            let experiment = experiment.clone();
            the_experiment(&mut plan, &experiment, plugin, &mut warnings)?
        }
        How::Gray(_) | How::BlueGreen => {
            the_groups(&mut plan, service, plugin)?;
            BTreeMap::new()
        }
    };
    plan.steps = plan.steps();
    plan.plugin = Some(match plugin {
        Some(plugin) => plugin.name.clone(),
        None => new_name(&plan, state)?,
    });
    let first = plan.steps.first().map_or(Percent::ALL, |step| step.percent);
    let name = plan.plugin.clone().unwrap_or_else(|| plan.service.clone());
    let release = Release {
        id: free_id(&plan.service, state, now),
        author: author.to_owned(),
        created_at: now,
        state: ReleaseState::Running,
        why: None,
        step: 0,
        percent: first,
        since: now,
        judged_from: window_of(now),
        plugin: name,
        weights,
        ended_at: None,
        events: vec![Event {
            at: now,
            by: author.to_owned(),
            what: Happened::Started,
            percent: first,
            why: Some(plan.reason.clone()),
        }],
        plan,
    };
    let candidate_ready = ready(&release, plugin, state, true);
    let baseline_ready = ready(&release, plugin, state, false);
    look_at_instances(
        &release,
        (&candidate_ready, &baseline_ready),
        plugin,
        &mut warnings,
    )?;
    let at = |plugin: Option<&Plugin>, percent| {
        moves::written(&release, plugin, percent).map_err(Refused::Conflict)
    };
    let begun = at(plugin, first)?;
    moves::stands(&release, Some(&begun)).map_err(Refused::Conflict)?;
    Ok(Draft {
        at_the_end: at(Some(&begun), Percent::ALL)?,
        plugin: begun,
        plugin_revision: stored.map(|(_, revision)| revision),
        candidate_ready,
        baseline_ready,
        warnings,
        release,
    })
}

/// A name that no release has.
fn free_id(service: &Name, state: &State, now: i64) -> Name {
    let mut ids = (0..).map(|later| id_of(service, now + later));
    let free = ids.find(|id| state.release(id.as_str()).is_none());
    free.unwrap_or_else(|| id_of(service, now))
}

const fn kind_of(plan: &ReleasePlan) -> Kind {
    match (&plan.blue_green, &plan.ab) {
        (_, Some(_)) => Kind::Ab,
        (Some(_), _) => Kind::BlueGreen,
        _ => Kind::Gray,
    }
}

/// The plugin that is to be moved, with its revision; none: one is made.
fn plugin_of<'a>(
    plan: &ReleasePlan,
    state: &'a State,
    kind: Kind,
) -> Result<Option<(&'a Plugin, u64)>, Refused> {
    let service = &plan.service;
    let found = if let Some(name) = &plan.plugin {
        state.plugin(name.as_str())
    } else {
        let mut own = state.plugins(None).filter(|stored| {
            stored.object.kind() == Some(kind) && stored.object.service.as_ref() == Some(service)
        });
        let first = own.next();
        if let (Some(one), Some(other)) = (first, own.next()) {
            return invalid(
                "plugin",
                format!(
                    "service `{service}` has several of this kind, `{}` and `{}`: say which one is moved",
                    one.object.name, other.object.name
                ),
            );
        }
        first
    };
    let Some(stored) = found else {
        if kind == Kind::Ab {
            return invalid(
                "plugin",
                format!(
                    "there is no A/B test of service `{service}`: name the plugin that has the experiment"
                ),
            );
        }
        return Ok(None);
    };
    let plugin = &stored.object;
    let name = &plugin.name;
    if plugin.kind() != Some(kind) {
        return invalid(
            "plugin",
            format!("plugin `{name}` is no plugin of kind `{kind}`: name another one, or none"),
        );
    }
    let of_route = plugin
        .route
        .as_ref()
        .and_then(|id| state.route(id.as_str()));
    let bound = plugin.service.as_ref() == Some(service)
        || of_route.is_some_and(|route| route.object.service == *service);
    if !bound {
        return invalid(
            "plugin",
            format!("plugin `{name}` is not bound to service `{service}` or one of its routes"),
        );
    }
    if !plugin.enabled || plugin.shadow {
        return conflict(format!(
            "plugin `{name}` is {}: it moves nothing; enable it first",
            if plugin.enabled {
                "in shadow"
            } else {
                "switched off"
            }
        ));
    }
    Ok(Some((plugin, stored.revision)))
}

/// What else chooses among the service's instances: refused where a release would move nothing.
fn in_the_way(
    plan: &ReleasePlan,
    state: &State,
    kind: Kind,
    own: Option<&Plugin>,
) -> Result<Vec<String>, Refused> {
    let service = &plan.service;
    let mut warnings = Vec::new();
    let routes: Vec<&Name> = state
        .routes(None)
        .filter(|route| route.object.service == *service)
        .map(|route| &route.object.id)
        .collect();
    if routes.is_empty() {
        warnings.push(format!(
            "no route leads to service `{service}`: nobody asks it"
        ));
    }
    let others = state.plugins(None).map(|stored| &stored.object);
    let others = others.filter(|plugin| {
        plugin.enabled && !plugin.shadow && own.is_none_or(|own| own.name != plugin.name)
    });
    for plugin in others {
        let whole = plugin.route.is_none() && plugin.service.as_ref().is_none_or(|s| s == service);
        let a_route = plugin.route.as_ref().is_some_and(|id| routes.contains(&id));
        if !whole && !a_route {
            continue;
        }
        let (name, what) = (&plugin.name, plugin.kind());
        let before = match (what, kind) {
            (Some(Kind::BlueGreen), Kind::Gray) => true,
            (Some(Kind::Ab | Kind::Lanes), Kind::Gray | Kind::BlueGreen) => {
                warnings.push(format!(
                    "plugin `{name}` may choose instances before the release's: its requests are not moved"
                ));
                continue;
            }
            (Some(Kind::Gray), Kind::BlueGreen) => {
                warnings.push(format!(
                    "the rules of plugin `{name}` choose nothing any more"
                ));
                continue;
            }
            _ => false,
        };
        if before && whole {
            return conflict(format!(
                "plugin `{name}` says which side of `{service}` is live, and a share would move nothing: release \
                 with `blue_green`, or disable it"
            ));
        }
        if what == Some(kind) && a_route || before {
            let route = plugin.route.as_ref().map_or("", Name::as_str);
            warnings.push(format!(
                "route `{route}` has plugin `{name}` of its own: it is not moved"
            ));
        } else if what == Some(kind) && own.is_none() {
            warnings.push(format!(
                "plugin `{name}` does no more for `{service}`: the release's, which is bound closer, stands \
                 before it"
            ));
        }
    }
    Ok(warnings)
}

/// Puts the baseline in, by what the plugin says.
fn the_groups(
    plan: &mut ReleasePlan,
    service: &Service,
    plugin: Option<&Plugin>,
) -> Result<(), Refused> {
    let mut check = Check::default();
    let groups = [
        ("candidate", Some(&plan.candidate)),
        ("baseline", plan.baseline.as_ref()),
    ];
    for (field, group) in groups {
        let Some(group) = group else { continue };
        let known: Vec<&str> = service.group_names().collect();
        check.ensure(
            known.contains(&group.as_str()),
            field,
            format!(
                "service `{}` has no group `{group}`: it has {}; give it in the service's `groups` first",
                service.name,
                known.join(", ")
            ),
        );
    }
    check.finish()?;
    let now = match plugin {
        Some(plugin) => match (&plugin.gray, &plugin.blue_green) {
            (Some(gray), _) => Some(moves::rest_of(gray)),
            (_, Some(sides)) => {
                if plan.candidate != sides.blue && plan.candidate != sides.green {
                    return invalid(
                        "candidate",
                        format!(
                            "a side of plugin `{}`: `{}` or `{}`",
                            plugin.name, sides.blue, sides.green
                        ),
                    );
                }
                Some(sides.live.clone())
            }
            _ => None,
        },
        None if plan.blue_green.is_some() => plan.baseline.clone(),
        None => None,
    };
    let now = now.unwrap_or_else(moves::baseline);
    if plan.candidate == now {
        return invalid("candidate", format!("requests go to `{now}` already"));
    }
    match &plan.baseline {
        Some(said) if *said != now => invalid(
            "baseline",
            format!("requests go to `{now}` now: write that, or leave it out"),
        ),
        _ => {
            plan.baseline = Some(now);
            Ok(())
        }
    }
}

/// Finds the experiment's weights, and takes out default steps that would lead back.
fn the_experiment(
    plan: &mut ReleasePlan,
    experiment: &Name,
    plugin: Option<&Plugin>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<Name, u16>, Refused> {
    let ab = plugin.and_then(|plugin| plugin.ab.as_ref());
    let found = ab.and_then(|ab| ab.experiments.iter().find(|one| one.name == *experiment));
    let Some(found) = found else {
        let name = plugin.map_or("", |plugin| plugin.name.as_str());
        return invalid(
            "ab.experiment",
            format!("plugin `{name}` has no experiment `{experiment}`"),
        );
    };
    let weights: BTreeMap<Name, u16> = (found.variants.iter())
        .map(|variant| (variant.name.clone(), variant.weight))
        .collect();
    let Some(own) = weights.get(&plan.candidate) else {
        return invalid(
            "candidate",
            format!(
                "experiment `{experiment}` has no variant `{}`",
                plan.candidate
            ),
        );
    };
    if weights.len() < 2 {
        return invalid(
            "candidate",
            "the experiment has no other variant to move from",
        );
    }
    let sum: u32 = weights.values().copied().map(u32::from).sum();
    let has = u32::from(*own) * 10_000 / sum.max(1);
    let is_more = |percent: Percent| u32::from(percent.hundredths()) > has;
    if plan.steps.is_empty() {
        plan.steps = plan.steps();
        plan.steps.retain(|step| is_more(step.percent));
        if plan.steps.len() == 1 && has < Percent::ALL.hundredths().into() {
            // It has as much as the watched ones would give it: half of what is left is watched.
            let half = (has + 10_000) / 20 * 10;
            let half = u16::try_from(half).ok().and_then(Percent::from_hundredths);
            let watched = half.filter(|half| is_more(*half) && *half < Percent::ALL);
            plan.steps.splice(
                0..0,
                watched.map(|percent| Step {
                    percent,
                    pause: Pause::default(),
                }),
            );
        }
    }
    let mut check = Check::default();
    let first = plan.steps.first();
    check.ensure(
        first.is_some_and(|step| is_more(step.percent)),
        "steps[0].percent",
        format!("more than the variant has: {} %", f64::from(has) / 100.0),
    );
    for (i, step) in plan.steps.iter().enumerate() {
        check.ensure(
            step.percent.hundredths().is_multiple_of(10),
            &format!("steps[{i}].percent"),
            "weights have steps of 0.1 %",
        );
    }
    if moves::compared(found, &plan.candidate).is_none() {
        for (i, step) in plan.steps.iter().enumerate() {
            let last = i + 1 == plan.steps.len()
                && step.pause == Pause::For(cardea_registry_api::Span::secs(0));
            check.ensure(
                step.pause == Pause::Manual || last,
                &format!("steps[{i}].pause"),
                "`manual`: without groups of their own the variants cannot be told apart in the figures; \
                 give each variant a `group`, or promote by hand",
            );
        }
        warnings.push("nothing is compared: the variants have no groups of their own".to_owned());
    }
    check.finish()?;
    Ok(weights)
}

fn new_name(plan: &ReleasePlan, state: &State) -> Result<Name, Refused> {
    let name = if let Some(name) = &plan.plugin {
        name.clone()
    } else {
        let service: String = plan.service.as_str().chars().take(Name::MAX - 8).collect();
        let name = format!("release-{service}").parse();
        name.unwrap_or_else(|_| plan.service.clone())
    };
    if state.plugin(name.as_str()).is_some() {
        return invalid(
            "plugin",
            format!(
                "the release needs a plugin of its own, and `{name}` is another one: give a name here"
            ),
        );
    }
    Ok(name)
}
