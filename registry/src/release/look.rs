//! What is seen of a release: its plugin, its instances, and the figures of its two groups.

use std::collections::BTreeMap;

use cardea_registry_api::{
    Name, Plugin, Release,
    figures::{Figures, WINDOW_MS, window_of},
    plugin::Percent,
};

use super::{Groups, HISTORY_MS, Seen, Window, groups, ready, spell_of};
use crate::{figures::Window as Counted, shared::Shared, state::State};

/// How old a window is, in milliseconds, that is read no more: reports that come later count for nothing.
const SETTLED_MS: i64 = 30_000;

/// What was looked at.
#[derive(Debug)]
pub(crate) struct Looked {
    now: i64,
    plugin: Option<Plugin>,
    /// The plugin's revision.
    pub(crate) plugin_revision: Option<u64>,
    candidate_ready: Option<u64>,
    baseline_ready: Option<u64>,
    windows: Vec<Window>,
    before: Vec<Window>,
    newest: Option<i64>,
}

impl Looked {
    /// As decisions want it.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now,
            plugin: self.plugin.as_ref(),
            candidate_ready: self.candidate_ready,
            baseline_ready: self.baseline_ready,
            windows: &self.windows,
            before: &self.before,
            newest: self.newest,
        }
    }

    /// Without figures: what can be said at any time.
    pub(crate) fn at(state: &State, release: &Release, now: i64) -> Self {
        let stored = state.plugin(release.plugin.as_str());
        let plugin = stored.map(|stored| stored.object.clone());
        let count = |candidate| {
            groups(release, plugin.as_ref())?;
            let by_cluster = ready(release, plugin.as_ref(), state, candidate);
            Some(by_cluster.values().sum())
        };
        Self {
            now,
            candidate_ready: count(true),
            baseline_ready: count(false),
            plugin_revision: stored.map(|stored| stored.revision),
            plugin,
            windows: Vec::new(),
            before: Vec::new(),
            newest: None,
        }
    }
}

/// Windows that were read before.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    from: i64,
    /// Up to when they are read no more.
    settled: i64,
    by_time: BTreeMap<(i64, Name), Window>,
    /// The end of each cluster's newest window.
    newest: BTreeMap<Name, i64>,
}

/// Looks at everything; figures that the memo has are not read again.
pub(crate) async fn look(
    shared: &Shared,
    state: &State,
    release: &Release,
    memo: &mut Memo,
    now: i64,
) -> Looked {
    let mut looked = Looked::at(state, release, now);
    let Some(groups) = groups(release, looked.plugin.as_ref()) else {
        looked.newest = Some(window_of(now));
        return looked;
    };
    let (_, begin) = spell_of(release, now);
    let alone = release.percent == Percent::ALL;
    let from = if alone {
        begin.min(window_of(release.since) - HISTORY_MS)
    } else {
        begin
    };
    if from < memo.from || memo.by_time.is_empty() {
        *memo = Memo::default();
    }
    memo.from = from;
    memo.by_time = memo.by_time.split_off(&(from, first()));
    let read_from = from.max(memo.settled);
    let route = looked
        .plugin
        .as_ref()
        .and_then(|plugin| plugin.route.clone());
    for cluster in state.clusters(None) {
        let cluster = &cluster.object.name;
        let read = shared.figures.windows(cluster, (read_from, now), now);
        let Some(read) = read.await else {
            // The database does not answer: nothing is known.
            *memo = Memo::default();
            return looked;
        };
        if let Some((at, _)) = read.last_key_value() {
            memo.newest.insert(cluster.clone(), at + WINDOW_MS);
        }
        for (at, counted) in read {
            let window = extract(release, &groups, route.as_ref(), (at, cluster), &counted);
            memo.by_time.insert((at, cluster.clone()), window);
        }
    }
    memo.settled = window_of(now - SETTLED_MS);
    let asked = |window: &Window| window.candidate.requests() + window.baseline.requests() > 0;
    let all: Vec<Window> = memo.by_time.values().cloned().collect();
    let (windows, mut before): (Vec<Window>, Vec<Window>) =
        all.into_iter().partition(|window| window.at >= begin);
    // A cluster that had requests must be heard of.
    let newest = memo.newest.iter().filter(|(cluster, _)| {
        windows
            .iter()
            .any(|window| window.cluster == **cluster && asked(window))
    });
    looked.newest = newest.map(|(_, end)| *end).min();
    before.retain(|window| alone && window.at < window_of(release.since));
    before.reverse();
    (looked.windows, looked.before) = (windows, before);
    looked
}

fn first() -> Name {
    "0".parse().unwrap_or_else(|_| unreachable!("a name"))
}

/// What a window has of both groups.
fn extract(
    release: &Release,
    groups: &Groups,
    route: Option<&Name>,
    (at, cluster): (i64, &Name),
    counted: &Counted,
) -> Window {
    let mut window = Window {
        at,
        cluster: cluster.clone(),
        candidate: Figures::default(),
        baseline: Figures::default(),
    };
    // Before the release nobody may have chosen a group.
    let unchosen = at < release.created_at;
    for ((service, of_route, group), figures) in &counted.series {
        let of = service.as_ref() == Some(&release.plan.service)
            && route.is_none_or(|route| of_route.as_ref() == Some(route));
        if !of {
            continue;
        }
        match group {
            Some(group) if *group == groups.candidate => window.candidate.merge(figures),
            Some(group) if groups.baseline.contains(group) => window.baseline.merge(figures),
            None if unchosen => window.baseline.merge(figures),
            _ => {}
        }
    }
    window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        release::tests::{begun, plan},
        state::tests::name,
    };

    #[test]
    fn of_a_window_both_groups_count_and_before_the_release_those_of_no_group() {
        let begin = 1_000_000_000;
        let (release, plugin) = begun(&plan("v2"), begin);
        let groups = groups(&release, Some(&plugin)).unwrap();
        let mut counted = Counted::default();
        for (service, route, group, requests) in [
            ("shop", "r", Some("v2"), 1),
            ("shop", "r2", Some("v2"), 2),
            ("shop", "r", Some("baseline"), 10),
            ("shop", "r", Some("v3"), 100),
            ("shop", "r", None, 1000),
            ("other", "r3", Some("v2"), 10_000),
        ] {
            let key = (Some(name(service)), Some(name(route)), group.map(name));
            let figures = Figures {
                classes: [0, requests, 0, 0, 0],
                ..Figures::default()
            };
            counted.series.insert(key, figures);
        }
        let requests = |at, route: Option<&Name>| {
            let window = extract(&release, &groups, route, (at, &name("c")), &counted);
            (window.candidate.requests(), window.baseline.requests())
        };
        assert_eq!(requests(begin, None), (3, 10));
        assert_eq!(requests(begin, Some(&name("r2"))), (2, 0));
        assert_eq!(requests(begin - 5000, None), (3, 1010));
    }
}
