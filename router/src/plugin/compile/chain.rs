//! Putting a route's stages together: the views of its service that they need, and whom they name.

use std::sync::Arc;

use cardea_registry_api::{Fallback as Body, Name, Route, plugin::Override, service::BASELINE};

use super::{
    super::{Chain, Stage, fallback::Elsewhere},
    Made,
};
use crate::table::{Path, views::Want};

/// The views of a service that a route's plugins need.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) overrides: Option<(Name, Arc<Override>)>,
    /// Whose value is a lane, and whether the lanes are in shadow.
    pub(super) label: Option<(Box<str>, bool)>,
    pub(super) groups: Vec<Name>,
    pub(super) baseline: bool,
}

impl Views {
    /// All of a service, as far as plugins let it be.
    fn all<'v>(&'v self, service: &'v Name) -> Want<'v> {
        // Lanes in shadow keep nobody out.
        let outside = self.label.as_ref().filter(|(_, shadow)| !shadow);
        Want {
            service: Some(service),
            address: None,
            group: None,
            outside: outside.map(|(label, _)| &**label),
            overrides: self.overrides.as_ref(),
        }
    }
}

/// Makes a chain of a route's stages.
pub(super) fn put_together(
    route: &Route,
    stages: Vec<Stage>,
    views: &Views,
    unknown: Option<Name>,
    slot: &mut dyn FnMut(Want<'_>) -> usize,
) -> Made {
    let all = views.all(&route.service);
    let plain = all.outside.is_none() && all.overrides.is_none();
    let mut made = Made {
        chain: None,
        slot: (!plain).then(|| slot(all)),
    };
    let looks = unknown.is_some() || !stages.is_empty();
    let mut chain = Chain {
        unknown,
        stages: stages.into(),
        route: route.id.as_str().into(),
        service: route.service.as_str().into(),
        segments: segments(route),
        ..Chain::default()
    };
    chain.slots.lanes = views.label.as_ref().map(|(label, _)| {
        slot(Want {
            outside: Some(label),
            ..all
        })
    });
    let mut group = |group: &str| {
        slot(Want {
            group: Some(group),
            ..all
        })
    };
    if views.baseline || !views.groups.is_empty() {
        chain.slots.baseline = Some(group(BASELINE));
    }
    for name in &views.groups {
        if !chain.slots.named.contains_key(name) {
            let at = group(name.as_str());
            chain.slots.named.insert(name.clone(), at);
        }
    }
    made.chain = looks.then(|| Arc::new(chain));
    made
}

/// Gives a route's fallback and mirror what they name; `instead` is another route, if one is asked.
pub(super) fn find<'o>(
    stages: &mut [Stage],
    route: &Route,
    views: &Views,
    body: impl Fn(&Name) -> Option<&'o Arc<Body>>,
    instead: Option<&Elsewhere>,
    slot: &mut dyn FnMut(Want<'_>) -> usize,
) {
    let all = views.all(&route.service);
    let rewriting = stages.iter().find_map(|stage| match stage {
        Stage::Rewrite(bound) if !bound.head.shadow => Some(Arc::clone(bound)),
        _ => None,
    });
    let gone = rewriting
        .as_ref()
        .map_or(&[][..], |bound| bound.policy.reply_gone());
    let not_sent = rewriting
        .as_ref()
        .map_or(&[][..], |bound| bound.policy.request_gone());
    for stage in stages {
        if let Stage::Mirror(mirror) = stage {
            let policy = &mirror.bound.policy;
            let at = slot(Want {
                service: policy.service.as_ref(),
                group: policy.group.as_ref().map(Name::as_str),
                outside: all.outside,
                overrides: None,
                address: policy.address.as_ref(),
            });
            mirror.find(at, not_sent);
        }
        if let Stage::Fallback(fallback) = stage {
            let policy = &fallback.bound.policy;
            let want = Want {
                address: None,
                service: policy.service.as_ref(),
                group: policy.group.as_ref().map(Name::as_str),
                outside: all.outside,
                overrides: all.overrides.filter(|_| policy.service.is_none()),
            };
            // No service stands in for itself: it is whom a wide binding leads all others to.
            let itself = want.service == Some(&route.service);
            let asks = !itself && (want.service.is_some() || want.group.is_some());
            let elsewhere = asks.then(|| Elsewhere {
                slot: slot(want),
                route: None,
            });
            let elsewhere = elsewhere.or_else(|| instead.cloned());
            fallback.find(policy.body.as_ref().and_then(&body), elsewhere, gone);
        }
    }
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
