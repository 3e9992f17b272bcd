//! Why a request goes where it goes: the same decisions as for a real one, with their reasons.

use std::{net::IpAddr, time::Instant};

use cardea_registry_api::{
    InstanceState, Route,
    policy::{Balance, HashKey},
    route::HostPattern,
};
use serde::Serialize;

use crate::{
    balance::{Balancers, PickInput},
    peer::{Peer, PeerReport},
    plugin::{
        Mode, Own, Scratch, Token,
        asked::{Asked, Headers},
    },
    table::{NoRoute, RouteEntry, Table},
    upstream::{Member, Upstream},
};

/// A request to explain.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// Its Host.
    pub host: String,
    /// Its path and query.
    pub target: String,
    /// Its other headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The client's address, for hashes over it.
    pub client: Option<IpAddr>,
}

/// What a router would do with a request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The revision of the table that was asked.
    pub revision: u64,
    /// The route that takes it.
    pub route: Option<ChosenRoute>,
    /// The status without a route or a peer, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Routes that fit in part, and what they lost by.
    pub lost: Vec<LostRoute>,
    /// What the route's plugins say, in the order of their stages.
    pub plugins: Vec<ExplainedPlugin>,
    /// The path that the service would see, where plugins rewrite it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
    /// The upstream.
    pub upstream: Option<ExplainedUpstream>,
}

/// What a plugin says about a request.
#[derive(Debug, Serialize)]
pub struct ExplainedPlugin {
    /// The plugin.
    pub plugin: String,
    /// Its kind.
    pub kind: &'static str,
    /// What it says.
    pub verdict: String,
    /// It only says so.
    pub shadow: bool,
}

/// The route that takes a request.
#[derive(Debug, Serialize)]
pub struct ChosenRoute {
    /// The route.
    #[serde(flatten)]
    pub route: Route,
    /// Why it is this one.
    pub reason: String,
}

/// Why there is no answer from a peer.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// What the caller gets.
    pub status: u16,
    /// Why.
    pub reason: String,
}

/// A route that was looked at in vain.
#[derive(Debug, Serialize)]
pub struct LostRoute {
    /// The route.
    #[serde(flatten)]
    pub route: Route,
    /// What it lost by.
    pub reason: String,
}

/// The chosen route's upstream.
#[derive(Debug, Serialize)]
pub struct ExplainedUpstream {
    /// Its service.
    pub service: String,
    /// How it balances, and over which key.
    pub balance: String,
    /// Which cluster, where requests may leave the router's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<ExplainedTraffic>,
    /// Its peers.
    pub peers: Vec<ExplainedPeer>,
    /// The peer that a request like this would get now. By hash: this very one; otherwise it is one
    /// of several that may be next.
    pub would_pick: Option<String>,
}

/// A peer with its standing.
#[derive(Debug, Serialize)]
pub struct ExplainedPeer {
    /// `cluster/service/id`.
    pub key: String,
    /// Where it listens.
    pub address: String,
    /// The instance's state.
    pub state: InstanceState,
    /// Its weight.
    pub weight: u16,
    /// Its health as this router sees it.
    #[serde(flatten)]
    pub health: PeerReport,
}

impl ExplainedPeer {
    pub(crate) fn of(member: &Member, now: Instant) -> Self {
        let peer: &Peer = &member.peer;
        Self {
            key: peer.key().to_string(),
            address: peer.address().to_string(),
            state: member.state,
            weight: member.weight,
            health: peer.report(now),
        }
    }
}

mod traffic;

pub use traffic::{ExplainedCluster, ExplainedTraffic};

/// The most lost routes that are listed.
const MAX_LOST: usize = 50;

/// Explains what `table` makes of a request.
pub fn explain(table: &Table, question: &Question, now: Instant) -> Explanation {
    let (host, target) = (question.host.as_bytes(), question.target.as_bytes());
    let chosen = table.route(host, target);
    let mut explanation = Explanation {
        revision: table.revision,
        route: None,
        refusal: None,
        lost: lost(table, host, target, chosen.ok()),
        plugins: Vec::new(),
        rewritten: None,
        upstream: None,
    };
    match chosen {
        Ok(entry) => {
            explanation.route = Some(ChosenRoute {
                route: (*entry.route).clone(),
                reason: format!(
                    "{}; its prefix `{}` is the longest that fits",
                    host_reason(&entry.route.host),
                    entry.route.prefix
                ),
            });
            let group = ask_plugins(table, entry, question, now, &mut explanation);
            let upstream = group.unwrap_or_else(|| table.upstream(entry));
            let explained = explain_upstream(upstream, question, now);
            if explained.would_pick.is_none() && explanation.refusal.is_none() {
                explanation.refusal = Some(Refusal {
                    status: 503,
                    reason: format!("service `{}` has no peer to try", upstream.service()),
                });
            }
            explanation.upstream = Some(explained);
        }
        Err(no_route) => {
            let status = match no_route {
                NoRoute::NotFound => 404,
                NoRoute::BadPath(_) => 400,
            };
            explanation.refusal = Some(Refusal {
                status,
                reason: no_route.to_string(),
            });
        }
    }
    explanation
}

/// What the route's plugins say; the group that they choose.
fn ask_plugins<'t>(
    table: &'t Table,
    entry: &RouteEntry,
    question: &Question,
    now: Instant,
    explanation: &mut Explanation,
) -> Option<&'t std::sync::Arc<Upstream>> {
    let chain = entry.chain.as_ref()?;
    let client = question.client.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let client_text = client.to_string();
    let token = Token::default();
    let asked = Asked {
        token: Some(&token),
        ..asked(question, client_text.as_bytes())
    };
    let mut scratch = Scratch::default();
    let nanos = crate::clock::nanos(now);
    let decision = chain.decide(&asked, table, nanos, &mut scratch, Mode::Asking);
    let said = decision
        .said
        .each(chain)
        .map(|(head, verdict)| ExplainedPlugin {
            plugin: head.name.to_string(),
            kind: head.kind.as_str(),
            verdict: verdict.to_owned(),
            shadow: head.shadow,
        });
    explanation.plugins = said.collect();
    if !scratch.path.is_empty() {
        explanation.rewritten = Some(String::from_utf8_lossy(&scratch.path).into_owned());
    }
    explanation.refusal = decision.own.as_ref().map(|own| match own {
        Own::Refusal(refusal) => Refusal {
            status: refusal.status,
            reason: format!("a plugin: {}", refusal.message),
        },
        Own::Answer(answer) => Refusal {
            status: answer.status,
            reason: "a plugin answers".to_owned(),
        },
    });
    table.upstream_at(decision.slot?)
}

fn host_reason(host: &HostPattern) -> &'static str {
    match host {
        HostPattern::Exact(_) => "its host is the request's",
        HostPattern::Suffix(_) => "no route for the exact host fits; its suffix is the longest",
        HostPattern::Any => "no route for the host or a suffix of it fits",
    }
}

fn lost(table: &Table, host: &[u8], target: &[u8], chosen: Option<&RouteEntry>) -> Vec<LostRoute> {
    let Ok(mut candidates) = table.routes.candidates(host, target) else {
        return Vec::new();
    };
    candidates.retain(|c| chosen.is_none_or(|chosen| chosen.id != c.entry.id));
    // What fits whole comes first, then what has the host.
    candidates.sort_by_key(|c| (!(c.host_fits && c.path_fits), !c.host_fits));
    let reason = |host_fits, path_fits, route: &Route| match (host_fits, path_fits) {
        (true, true) => match chosen {
            Some(winner) if winner.route.host == route.host => {
                format!("`{}` has a longer prefix", winner.id)
            }
            Some(winner) => format!("`{}` has a more specific host", winner.id),
            None => "fits".to_owned(),
        },
        (true, false) => format!("the path is not under `{}`", route.prefix),
        (false, _) => format!("the host is not `{}`", route.host),
    };
    candidates
        .into_iter()
        .take(MAX_LOST)
        .map(|c| LostRoute {
            reason: reason(c.host_fits, c.path_fits, &c.entry.route),
            route: (*c.entry.route).clone(),
        })
        .collect()
}

fn explain_upstream(
    upstream: &std::sync::Arc<Upstream>,
    question: &Question,
    now: Instant,
) -> ExplainedUpstream {
    let (key, balance) = match &upstream.policy().balance {
        Balance::RoundRobin => (None, "round-robin".to_owned()),
        Balance::LeastLoaded => (None, "least-loaded".to_owned()),
        Balance::Hash(of) => {
            let key = hash_key(of, question);
            let note = match key {
                Some(_) => format!("hash of {of}"),
                None => format!("hash of {of}, which the request lacks: round-robin"),
            };
            (key, note)
        }
    };
    let input = PickInput {
        key,
        // As one that may not probe: asking must not use up the permission.
        ..PickInput::default()
    };
    let (traffic, part) = match upstream.ways() {
        None => (None, Some(upstream)),
        Some(ways) => {
            let (traffic, part) = traffic::explain(upstream, ways, question, now);
            (Some(traffic), part)
        }
    };
    let mut balancers = Balancers::new(rand::random());
    let would_pick = part.and_then(|part| balancers.preview(part, &input, now));
    ExplainedUpstream {
        service: upstream.service().to_string(),
        balance,
        traffic,
        peers: upstream
            .everybody()
            .map(|member| ExplainedPeer::of(member, now))
            .collect(),
        would_pick: would_pick.map(|peer| peer.key().to_string()),
    }
}

/// The hash of what a service balances by, as for a real request.
fn hash_key(of: &HashKey, question: &Question) -> Option<u64> {
    if *of == HashKey::Client && question.client.is_none() {
        return None;
    }
    let token = Token::default();
    let asked = Asked {
        token: Some(&token),
        ..asked(question, b"")
    };
    asked.hash(of)
}

/// The question as a request.
fn asked<'q>(question: &'q Question, client_text: &'q [u8]) -> Asked<'q> {
    let target = question.target.as_str();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let client = question.client.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    Asked {
        method: question.method.as_bytes(),
        host: question.host.as_bytes(),
        path: path.as_bytes(),
        query: query.as_bytes(),
        headers: Headers::List(&question.headers),
        client,
        client_text,
        caller: client,
        trusted: false,
        token: None,
        scheme: "http",
        request_id: b"explain",
        head: 0,
        body: Some(0),
        has_body: false,
        lot: rand::random(),
    }
}

#[cfg(test)]
mod tests;
