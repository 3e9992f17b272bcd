//! What a request needs while it is active: lent to its connection, and given back in between.

use crate::{
    http1::{
        body::Body,
        buffer::{Buffer, LARGE, SMALL},
        forwarded::Believed,
        request::RequestHead,
        response::ResponseHead,
    },
    peer::PeerNumber,
    plugin::Scratch,
    request_id::RequestId,
    table::Sought,
};

/// Output buffers that have grown beyond this are not kept.
const MOST_KEPT: usize = 256 << 10;

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What the client sent. The head's positions count within it.
    pub(crate) inbound: Buffer,
    pub(crate) request: RequestHead,
    /// Its host, as routes are looked for by it; empty when there is none.
    pub(crate) sought: Sought,
    /// What a trusted proxy says about the request, and nobody else.
    pub(crate) believed: Believed,
    pub(crate) id: RequestId,
    /// The request as it goes upstream: the head, and as much of the body as may be sent again.
    pub(crate) outbound: Vec<u8>,
    /// Its head says that it leaves the cluster.
    pub(crate) hops: bool,
    pub(crate) upload: Body,
    /// What plugins write about it.
    pub(crate) scratch: Scratch,
    /// Peers that were asked.
    pub(crate) tried: Vec<PeerNumber>,
    /// What the peer sent.
    pub(crate) upstream: Buffer,
    pub(crate) response: ResponseHead,
    /// The answer as it goes to the client: the head, and the first part of the body.
    pub(crate) reply: Vec<u8>,
    pub(crate) download: Body,
}

impl Exchange {
    /// With empty buffers.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            inbound: Buffer::new(SMALL),
            request: RequestHead::default(),
            sought: Sought::default(),
            believed: Believed::default(),
            id: RequestId::default(),
            outbound: Vec::with_capacity(4096),
            hops: false,
            upload: Body::default(),
            scratch: Scratch::default(),
            tried: Vec::with_capacity(4),
            upstream: Buffer::new(SMALL),
            response: ResponseHead::default(),
            reply: Vec::with_capacity(8192),
            download: Body::default(),
        })
    }

    /// Forgets everything and shrinks what has grown.
    pub(crate) fn reset(&mut self) {
        for buffer in [&mut self.inbound, &mut self.upstream] {
            buffer.clear();
            if buffer.capacity() > SMALL {
                *buffer = Buffer::new(SMALL);
            }
        }
        for out in [&mut self.outbound, &mut self.reply] {
            out.clear();
            out.shrink_to(MOST_KEPT);
        }
        self.scratch.reset(MOST_KEPT);
        self.request.forget();
    }

    /// Makes room to read more of a head; `false`: it is as large as can be.
    pub(crate) fn make_room(buffer: &mut Buffer) -> bool {
        if !buffer.space().is_empty() {
            return true;
        }
        buffer.compact();
        if !buffer.space().is_empty() {
            return true;
        }
        if buffer.capacity() >= LARGE {
            return false;
        }
        let mut larger = Buffer::new(LARGE);
        larger.take_from(buffer);
        *buffer = larger;
        true
    }

    /// Takes back what was read beyond the end of a request's body: the next request. The head's
    /// positions are worth nothing afterwards.
    pub(crate) fn take_back(&mut self, body: &mut Buffer) {
        if body.len() > self.inbound.capacity() {
            self.inbound = Buffer::new(LARGE);
        }
        self.inbound.take_from(body);
    }
}
