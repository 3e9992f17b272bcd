//! Names of instances: resolved on the control thread, so that no worker ever waits for DNS.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    peer::{Peer, PeerNumber},
    shared::Shared,
};

/// Names are looked up again this often; the last good address serves meanwhile.
const EVERY: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 32;

/// Resolves until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tables = shared.watch();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut busy: HashSet<PeerNumber> = HashSet::new();
    let mut known: HashSet<PeerNumber> = HashSet::new();
    let mut next_round = Instant::now();
    loop {
        let round = Instant::now() >= next_round;
        if round {
            next_round = Instant::now() + EVERY;
        }
        let named = names(&shared);
        for peer in &named {
            let number = peer.number();
            if (round || !known.contains(&number)) && busy.insert(number) {
                let (peer, turns) = (Arc::clone(peer), Arc::clone(&turns));
                running.spawn(async move {
                    let _turn = turns.acquire().await;
                    resolve(&peer).await;
                    number
                });
            }
        }
        known = named.iter().map(|peer| peer.number()).collect();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next_round.into()), if !named.is_empty() => break,
                changed = tables.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(done) = running.join_next() => match done {
                    Ok(number) => {
                        busy.remove(&number);
                    }
                    Err(error) => tracing::error!(%error, "resolving a name ended badly"),
                },
            }
        }
    }
}

fn names(shared: &Shared) -> Vec<Arc<Peer>> {
    let table = shared.table_full();
    // Also those that no route leads to.
    let upstreams = table.iter().flat_map(|table| table.slots.iter().flatten());
    upstreams
        .flat_map(|upstream| upstream.members())
        .filter(|member| member.peer.needs_resolving())
        .map(|member| Arc::clone(&member.peer))
        .collect()
}

async fn resolve(peer: &Peer) {
    let address = peer.address();
    match tokio::net::lookup_host((address.host(), address.port())).await {
        Ok(found) => {
            let found: Vec<SocketAddr> = found.collect();
            // A name with several addresses: stay with the one in use while it is among them.
            let stays = peer.socket_addr().is_some_and(|now| found.contains(&now));
            if let (false, Some(first)) = (stays, found.first()) {
                peer.resolved(*first);
            }
        }
        Err(error) => {
            tracing::warn!(peer = %peer.key(), %address, %error, "cannot resolve the name");
        }
    }
}
