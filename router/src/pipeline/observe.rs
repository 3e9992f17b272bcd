//! Observe: what a request leaves behind in metrics and the access log.

use std::time::{Duration, Instant};

use cardea_registry_api::Name;

use crate::{
    access_log::{Entry, Logged},
    clock,
    exchange::Exchange,
    grpc,
    metrics::{Counted, NONE, Protocol, RequestLabels},
    mirror::Original,
    peer::Picked,
    pipeline::{self, Connection, forward::End, plan::Plan},
    plugin::{Call, Ticket},
    switches::{Feature, on},
    worker::{Worker, dropped},
};

/// What is learnt about a request on its way.
#[derive(Debug)]
pub(crate) struct Seen {
    /// When its head had arrived.
    pub(crate) started: Instant,
    /// The status that the client got; 0: none.
    pub(crate) status: u16,
    pub(crate) upstream_status: u16,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) retries: u64,
    /// Bytes of the answer's body.
    pub(crate) bytes_out: u64,
    /// Why it did not go as it should, if so.
    pub(crate) error: Option<&'static str>,
    /// When it ended, where that is known already.
    pub(crate) ended: Option<Instant>,
    /// It became a tunnel.
    pub(crate) tunnel: bool,
    /// The failure that a fallback's answer hides from the client.
    pub(crate) hidden: Option<Hidden>,
}

/// A failure that the client did not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hidden {
    /// Where the answer came from.
    pub(crate) way: &'static str,
    /// What went wrong.
    pub(crate) trigger: &'static str,
    /// The status that the client would have got.
    pub(crate) status: u16,
}

impl Seen {
    /// At a request's start.
    pub(crate) fn begin(started: Instant) -> Self {
        Self {
            started,
            status: 0,
            upstream_status: 0,
            upstream_took: None,
            retries: 0,
            bytes_out: 0,
            error: None,
            ended: None,
            tunnel: false,
            hidden: None,
        }
    }

    /// The service's answer, for comparison; none: there was none, or the client got another one.
    pub(crate) fn original(&self, length: u64) -> Option<Original> {
        let took = self.upstream_took.filter(|_| self.hidden.is_none())?;
        Some(Original {
            status: self.upstream_status,
            length,
            took,
        })
    }

    /// A peer answered.
    pub(crate) fn answered(&mut self, status: u16, took: Duration) {
        self.upstream_status = status;
        self.upstream_took = Some(took);
        self.error = None;
    }
}

/// Tells a breaker how a request went; what is the client's doing says nothing about the service.
pub(crate) fn tell(ticket: &mut Ticket, end: &End, x: &Exchange, seen: &Seen) {
    let now = clock::nanos(Instant::now());
    match end {
        End::Answered(answered) => {
            let call = if ticket.heeds_calls() && pipeline::is_call(x) {
                let status = grpc::status_of(x.upstream.raw(), &x.response);
                status.map_or(Call::Running, Call::Ended)
            } else {
                Call::No
            };
            ticket.answered(seen.upstream_status, call, answered.answer.took, now);
        }
        End::Refused { refusal, .. } if seen.error != Some("local") && refusal.status >= 500 => {
            ticket.failed(now);
        }
        End::Refused { .. } | End::ClientGone(_) => {}
    }
}

/// Tells it how the answer ended, if that says something more: a call of gRPC has its status there.
pub(crate) fn tell_end(ticket: &mut Ticket, x: &Exchange, seen: &Seen) {
    if !ticket.heeds_calls() {
        return;
    }
    let now = clock::nanos(Instant::now());
    match seen.error {
        // What a fallback's service says is not this one's.
        None if seen.hidden.is_none() => ticket.ended(grpc::status_in(x.download.trailer()), now),
        None => ticket.ended(None, now),
        Some(error) => ticket.broke_off(matches!(error, "client_gone" | "client_slow"), now),
    }
}

/// The status in metrics and logs of a request whose client went away before its answer.
const CLIENT_GONE: u16 = 499;

/// Has what a request will be counted in and logged with fetched, while its answer goes to the client.
pub(crate) fn fetch_ahead(worker: &Worker, plan: &Plan<'_>) {
    worker.metrics.fetch_last(plan.route.index);
    plan.route.fetch_label();
}

/// Counts and logs a request that has ended (or has become a tunnel).
pub(crate) fn request(
    worker: &Worker,
    conn: &Connection,
    x: &Exchange,
    forwarded: Option<(&Plan<'_>, Option<&Picked>)>,
    seen: &Seen,
) {
    let now = seen.ended.unwrap_or_else(Instant::now);
    let took = now.saturating_duration_since(seen.started);
    let status = if seen.status == 0 {
        CLIENT_GONE
    } else {
        seen.status
    };
    let labels = forwarded.map(|(plan, _)| plan.labels());
    // Where it went, if it may have gone to another cluster.
    let cluster = forwarded.and_then(|(plan, picked)| {
        plan.upstream.ways()?;
        picked.map(|picked| &picked.peer().key().cluster)
    });
    if on(Feature::Metrics) {
        worker.metrics.request(
            labels,
            forwarded.map(|(plan, _)| &plan.under_way),
            Counted {
                labels: RequestLabels {
                    code: status,
                    method: x.request.method,
                    protocol: if seen.tunnel {
                        Protocol::Upgrade
                    } else if conn.wire.is_http2() {
                        Protocol::Http2
                    } else {
                        Protocol::Http1
                    },
                },
                took: (!seen.tunnel).then_some(took),
                upstream_took: seen.upstream_took,
                retries: seen.retries,
            },
        );
        if let (Some(labels), Some(cluster)) = (labels, cluster) {
            worker.metrics.went_to(labels, cluster);
        }
    }
    let raw = x.inbound.raw();
    let lost = worker.log.write(&Entry {
        at: worker.unix_millis(now),
        request_id: x.id.as_bytes(),
        traceparent: x.request.traceparent.map(|span| span.of(raw)),
        client: match &x.believed.client {
            Some(sender) => Logged::Address(sender.text.as_bytes()),
            None => Logged::Socket(&conn.client.address),
        },
        via: match (&conn.client.via, &x.believed.client) {
            (Some(via), _) => Some(via),
            (None, Some(_)) => Some(&conn.client.address),
            (None, None) => None,
        },
        method: x.request.method_name.of(raw),
        host: x.request.host.of(raw),
        path: x.request.path.of(raw),
        protocol: if conn.wire.is_http2() {
            "HTTP/2"
        } else if x.request.http11 {
            "HTTP/1.1"
        } else {
            "HTTP/1.0"
        },
        tls: conn.wire.tls().map(|facts| facts.version.as_str()),
        route: forwarded.map_or(NONE.as_bytes(), |(plan, _)| plan.route.label()),
        service: labels.map_or(NONE, |labels| labels.service.as_str()),
        peer: forwarded
            .and_then(|(_, picked)| picked)
            .map(|picked| picked.peer().authority()),
        cluster: cluster.map(Name::as_str),
        plugins: forwarded.and_then(|(plan, _)| plan.said()),
        status,
        upstream_status: seen.upstream_status,
        took,
        upstream_took: seen.upstream_took,
        retries: seen.retries,
        bytes_in: x.upload.bytes,
        bytes_out: seen.bytes_out,
        error: seen.error,
        hidden: seen.hidden,
    });
    dropped(worker, lost);
}
