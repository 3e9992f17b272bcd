//! At most one step from cluster to cluster. A request that goes to another cluster's routers says so in a
//! field of its head; who receives it serves it there. Whoever says it: such a request leaves through no
//! further gateway, so that no two routers can send one to and fro. That it is to stay in this cluster is
//! believed of trusted proxies only. The field itself is never passed on.

use cardea_registry_api::Name;

use crate::{
    balance::Reach,
    exchange::Exchange,
    http1::{head::Known, request::RequestHead},
    peer::Picked,
};

/// The field. Its value is the cluster that the request left.
const FIELD: &str = "X-Cardea-Hop";

/// The line that a router of this cluster adds.
pub(crate) fn line(cluster: &Name) -> Box<[u8]> {
    format!("{FIELD}: {cluster}\r\n").into_bytes().into()
}

/// How far a request may go.
pub(super) fn reach(request: &RequestHead, trusted: bool) -> Reach {
    let said = request
        .fields
        .iter()
        .any(|field| matches!(field.known, Known::Hop));
    match (said, trusted) {
        (false, _) => Reach::Anywhere,
        (true, false) => Reach::Instances,
        (true, true) => Reach::Home,
    }
}

/// Makes the request say whether it leaves the cluster, as it does to this peer.
pub(super) fn mark(x: &mut Exchange, picked: &Picked, line: &[u8]) {
    let leaves = picked.upstream().is_gateway();
    if x.hops == leaves {
        return;
    }
    // Behind the first line, which every request has.
    let Some(end) = memchr::memchr(b'\n', &x.outbound) else {
        return;
    };
    let at = end + 1;
    if leaves {
        x.outbound.splice(at..at, line.iter().copied());
    } else {
        x.outbound.drain(at..at + line.len());
    }
    x.hops = leaves;
}
