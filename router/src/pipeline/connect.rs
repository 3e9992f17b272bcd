//! Connections to peers, and streams on those of HTTP/2.

use std::{future::poll_fn, io, rc::Rc, task::Poll};

use tokio::net::TcpStream;

use crate::{
    http2::{
        Asked, Outbound,
        links::{Links, Place, Turn},
    },
    peer::{Failure, Picked},
    pipeline::{attempt::Trouble, retry::Sent},
    refusal,
    timer::{Timer, Timers},
    tls::Reason,
    upstream::{Policy, Security},
    wire::Wire,
    worker::Worker,
};

/// A stream for a request, written as HTTP/1.1.
pub(crate) fn stream(place: Place, request: &[u8], picked: &Picked) -> Result<Wire, Trouble> {
    let scheme = match picked.upstream().security() {
        Security::Plain => "http",
        Security::Tls(_) | Security::Broken => "https",
    };
    let asked = Asked::take(request, scheme).map_err(Trouble::Refused)?;
    Ok(Wire::Other(Box::new(Outbound::new(place, asked))))
}

/// Waits until it is known whether the peer takes WebSockets, and goes on if it does.
pub(super) async fn may_tunnel(
    timer: &Timer,
    place: &Place,
    policy: &Policy,
) -> Result<(), Trouble> {
    timer.set(policy.timeouts.connect.duration());
    let takes = within(timer, place.takes_websockets()).await;
    match takes.ok_or(unconnected(Failure::ConnectTimeout))? {
        Some(true) => Ok(()),
        Some(false) => Err(Trouble::Refused(refusal::UPGRADE_NOT_SERVED)),
        None => Err(unconnected(Failure::Reset)),
    }
}

/// What `work` comes to; none: the timer went off before.
async fn within<T>(timer: &Timer, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending if timer.fired() => Poll::Ready(None),
        other => other.map(Some),
    })
    .await
}

/// A place on an HTTP/2 connection, perhaps one that is being made.
pub(crate) async fn place(
    links: &Links,
    timers: &Rc<Timers>,
    timer: &Timer,
    picked: &Picked,
    policy: &Policy,
) -> Result<Place, Trouble> {
    let number = picked.number();
    let terms = picked.upstream().security().number();
    timer.set(policy.timeouts.connect.duration());
    loop {
        let connecting = match links.turn(number, terms) {
            Turn::Take(place) => return Ok(place),
            Turn::Connect(connecting) => connecting,
            Turn::Wait(other) => {
                let waited = within(timer, other.notified()).await;
                waited.ok_or(unconnected(Failure::ConnectTimeout))?;
                continue;
            }
        };
        let wire = connect(timer, picked, policy).await?;
        let keep = policy.timeouts.keepalive.duration();
        let of = (number, terms);
        let begun = links.begin(of, wire, timers, keep).await;
        drop(connecting);
        return begun.map_err(|_| unconnected(Failure::Connect));
    }
}

const fn unconnected(failure: Failure) -> Trouble {
    Trouble::Peer {
        failure,
        sent: Sent::Nothing,
    }
}

/// A connection of its own; where this machine has nothing left for one, it makes do with less and
/// tries once more.
pub(super) async fn connect_surely(
    worker: &Worker,
    timer: &Timer,
    picked: &Picked,
    policy: &Policy,
) -> Result<Wire, Trouble> {
    match connect(timer, picked, policy).await {
        Err(Trouble::Local(_)) => {
            worker.make_do();
            connect(timer, picked, policy).await
        }
        other => other,
    }
}

/// A connection of its own.
pub(crate) async fn connect(
    timer: &Timer,
    picked: &Picked,
    policy: &Policy,
) -> Result<Wire, Trouble> {
    let address = picked
        .peer()
        .socket_addr()
        .ok_or(unconnected(Failure::Connect))?;
    timer.set(policy.timeouts.connect.duration());
    // Connecting is rare, and its state would make every connection's larger.
    let mut connecting = Box::pin(TcpStream::connect(address));
    let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Pending if timer.fired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        other => other,
    })
    .await;
    match connected {
        Ok(stream) => match stream.set_nodelay(true) {
            Ok(()) => secure(timer, stream, picked).await.map_err(unconnected),
            Err(_) => Err(unconnected(Failure::Connect)),
        },
        Err(error) if is_local(&error) => Err(Trouble::Local(error)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(unconnected(Failure::ConnectTimeout))
        }
        Err(_) => Err(unconnected(Failure::Connect)),
    }
}

/// The connection as the service wants it; still within the time for connecting.
async fn secure(timer: &Timer, stream: TcpStream, picked: &Picked) -> Result<Wire, Failure> {
    let terms = match picked.upstream().security() {
        Security::Plain => return Ok(Wire::Tcp(stream)),
        Security::Broken => return Err(Failure::Tls),
        Security::Tls(terms) => terms,
    };
    let peer = picked.peer();
    let connecting = Box::pin(terms.connect(stream, peer.address().host(), timer));
    match connecting.await {
        Ok(stream) => Ok(Wire::Other(Box::new(stream))),
        Err(failed) => {
            tracing::debug!(
                peer = %peer.key(),
                address = peer.authority(),
                error = %failed.error,
                "the TLS handshake with a peer failed"
            );
            Err(match failed.reason {
                Reason::Timeout => Failure::ConnectTimeout,
                Reason::Alpn => Failure::Alpn,
                _ => Failure::Tls,
            })
        }
    }
}

/// Whether an error says more about this machine than about the peer.
fn is_local(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.raw_os_error().is_some_and(|code| {
        matches!(
            Errno::from_raw(code),
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EAGAIN
        )
    })
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_peers_fault() {
        let local = |code: Errno| is_local(&io::Error::from_raw_os_error(code as i32));
        for code in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(local(code), "{code}");
        }
        for code in [Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::EHOSTUNREACH] {
            assert!(!local(code), "{code}");
        }
        assert!(!is_local(&io::ErrorKind::TimedOut.into()));
    }
}
