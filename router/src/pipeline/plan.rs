//! Match and plan: which route takes the request, and how it is to be forwarded.

use std::{sync::Arc, time::Instant};

use cardea_registry_api::policy::{Balance, HashKey};

use crate::{
    balance::{PickInput, Reach},
    clock,
    exchange::Exchange,
    http1::{
        forwarded::Believed,
        request::{Framing, RequestHead},
    },
    metrics::{RouteLabels, UnderWay},
    pipeline::{Connection, hop},
    plugin::{
        Chain, Decision, Mode, Own, Said, Token,
        asked::{Asked, Headers},
    },
    refusal::{self, Refusal},
    request_id::RequestId,
    switches::{Feature, on},
    table::{NoRoute, RouteEntry, Sought, Table},
    upstream::Upstream,
    worker::Worker,
};

/// How a request is to be forwarded. The stages between match and pick edit it; the executor does
/// what it says.
#[derive(Debug)]
pub(crate) struct Plan<'t> {
    /// The route that took the request.
    pub(crate) route: &'t RouteEntry,
    /// Its upstream, with the policy that holds.
    pub(crate) upstream: &'t Arc<Upstream>,
    /// Who is asked where nobody of a chosen group answers, one after the other.
    pub(crate) spares: [Option<&'t Arc<Upstream>>; 2],
    /// What the pick depends on.
    pub(crate) pick: PickInput,
    /// What the route's plugins decided.
    pub(crate) decision: Decision<'t>,
    /// It is counted as under way until the plan is dropped.
    pub(crate) under_way: UnderWay,
}

impl Plan<'_> {
    /// What the route's plugins said, if they said anything.
    pub(crate) fn said(&self) -> Option<(&Chain, Said)> {
        let chain = self.route.chain.as_deref()?;
        let said = self.decision.said;
        (!said.is_empty()).then_some((chain, said))
    }

    /// The labels of the route's metrics.
    pub(crate) fn labels(&self) -> RouteLabels<'_> {
        labels(self.route)
    }
}

fn labels(route: &RouteEntry) -> RouteLabels<'_> {
    RouteLabels {
        index: route.index,
        route: &route.id,
        // Also while another service is asked instead.
        service: &route.service,
    }
}

/// Has what there is of a host fetched, while the rest of the request's head is read.
pub(crate) fn seek(worker: &Worker, host: &[u8], sought: &mut Sought) {
    sought.set(host);
    worker.with_last_table(|table| table.routes.fetch_host(sought));
}

/// Has the route fetched, and what it counts in, if the host says which it is.
pub(crate) fn fetch_ahead(table: &Table, x: &mut Exchange, worker: &Worker) {
    if x.sought.is_empty() {
        // There was no `Host`; the target may name one.
        x.sought.set(x.request.host.of(x.inbound.raw()));
    }
    if let Some(number) = table.routes.fetch_only(&x.sought) {
        worker.metrics.fetch_first(number);
    }
}

/// Finds the route and makes its plan.
pub(crate) fn plan<'t>(
    table: &'t Table,
    x: &mut Exchange,
    conn: &Connection,
    worker: &Worker,
) -> Result<Plan<'t>, Refusal> {
    let raw = x.inbound.raw();
    let route = table
        .routes
        .find(&x.sought, x.request.route_target(raw))
        .map_err(|none| match none {
            NoRoute::NotFound => refusal::NO_ROUTE,
            NoRoute::BadPath(_) => Refusal::bad("the path can be read in more than one way"),
        })?;
    worker.metrics.fetch_first(route.index);
    let misdirected = table.certificates.as_ref().is_some_and(|certificates| {
        certificates.asks_clients()
            && certificates.misdirects(
                x.request.host.of(raw),
                conn.wire.tls().map(|facts| &**facts),
            )
    });
    if misdirected {
        return Err(refusal::MISDIRECTED);
    }
    let decision = match &route.chain {
        None => Decision::default(),
        Some(chain) => ask_plugins(table, chain, x, conn, worker),
    };
    let group = decision.slot.and_then(|slot| table.upstream_at(slot));
    let upstream = group.unwrap_or_else(|| table.upstream(route));
    let spare = decision.spare;
    let spares = [
        spare.slot.and_then(|slot| table.upstream_at(slot)),
        spare.anybody.then(|| table.upstream(route)),
    ];
    let pick = pick_input(upstream, x, conn, worker);
    let under_way = if on(Feature::Metrics) {
        worker.metrics.begin(labels(route), upstream.group())
    } else {
        UnderWay::default()
    };
    if let Some(Own::Refusal(refusal::TOO_MANY_REQUESTS | refusal::OVERLOADED)) = decision.own {
        under_way.is_limited();
    }
    Ok(Plan {
        route,
        upstream,
        spares,
        pick,
        decision,
        under_way,
    })
}

/// What the pick of a peer of this upstream depends on.
pub(crate) fn pick_input(
    upstream: &Upstream,
    x: &Exchange,
    conn: &Connection,
    worker: &Worker,
) -> PickInput {
    let policy = upstream.policy();
    let fits = match x.request.framing {
        Framing::None => true,
        Framing::Length(length) => length <= u64::from(policy.retries.body_limit),
        Framing::Chunked | Framing::UntilClose => false,
    };
    let hash = |of: &HashKey| {
        let token = Token::default();
        Read::of(x).asked(conn, worker, &token).hash(of)
    };
    let ways = upstream.ways();
    PickInput {
        key: match &policy.balance {
            Balance::Hash(of) => hash(of),
            Balance::RoundRobin | Balance::LeastLoaded => None,
        },
        cluster_key: ways.and_then(|ways| hash(ways.split.sticky.as_ref()?)),
        reach: match ways {
            Some(_) => hop::reach(&x.request, conn.client.trusted),
            None => Reach::Anywhere,
        },
        replayable: fits && x.request.method.idempotent() && policy.retries.attempts > 0,
    }
}

/// Asks the route's plugins.
fn ask_plugins<'t>(
    table: &Table,
    chain: &'t Chain,
    x: &mut Exchange,
    conn: &Connection,
    worker: &Worker,
) -> Decision<'t> {
    // Not the whole exchange: plugins write to a part of it.
    let said = Read {
        request: &x.request,
        raw: x.inbound.raw(),
        believed: &x.believed,
        id: &x.id,
    };
    let token = Token::default();
    let asked = said.asked(conn, worker, &token);
    let now = clock::nanos(Instant::now());
    chain.decide(&asked, table, now, &mut x.scratch, Mode::Real)
}

/// What was read of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read<'a> {
    request: &'a RequestHead,
    raw: &'a [u8],
    believed: &'a Believed,
    id: &'a RequestId,
}

impl<'a> Read<'a> {
    /// What was read of an exchange's request.
    pub(crate) fn of(x: &'a Exchange) -> Self {
        Self {
            request: &x.request,
            raw: x.inbound.raw(),
            believed: &x.believed,
            id: &x.id,
        }
    }

    /// As plugins see it.
    pub(crate) fn asked(
        self,
        conn: &'a Connection,
        worker: &Worker,
        token: &'a Token,
    ) -> Asked<'a> {
        let Self {
            request,
            raw,
            believed,
            id,
        } = self;
        let sender = believed.client.as_ref();
        let path = request.path.of(raw);
        Asked {
            method: request.method_name.of(raw),
            host: request.host.of(raw),
            path: if path.is_empty() { b"/" } else { path },
            query: request.query(raw),
            headers: Headers::Head(request, raw),
            client: sender.map_or(conn.client.address.ip(), |sender| sender.ip),
            client_text: sender
                .map_or(&conn.client.text, |sender| &sender.text)
                .as_bytes(),
            caller: conn.client.address.ip(),
            trusted: conn.client.trusted,
            token: Some(token),
            scheme: believed.scheme.unwrap_or(conn.scheme),
            request_id: id.as_bytes(),
            head: request.len,
            body: match request.framing {
                Framing::None => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked | Framing::UntilClose => None,
            },
            has_body: request.framing != Framing::None,
            lot: worker.ids.draw(),
        }
    }
}
