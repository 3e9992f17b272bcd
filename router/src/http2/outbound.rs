//! A stream that the router opens to a peer, as an HTTP/1.1 connection with one request.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use h2::{Reason, RecvStream, client::ResponseFuture, ext::Protocol};
use http::{HeaderMap, Request, Response, StatusCode, header};

use crate::{
    http1::{
        head::Known,
        request::{Framing, Method, RequestHead},
    },
    http2::{
        answer::fields,
        broken,
        handshake::{self, WEBSOCKET},
        links::Place,
        sink::Sink,
        source::{Source, field},
    },
    refusal::Refusal,
    wire::{Duplex, StreamReset, Unprocessed},
};

/// A peer's stream.
#[derive(Debug)]
pub(crate) struct Outbound {
    state: RefCell<State>,
    place: Place,
}

#[derive(Debug)]
struct State {
    asked: Asked,
    sink: Option<Sink>,
    response: Option<ResponseFuture>,
    source: Option<Source>,
    /// Interim answers' heads that are being read.
    staged: Vec<u8>,
}

/// A request as the pipeline wrote it, and as it goes out.
#[derive(Debug)]
pub(crate) struct Asked {
    head: Option<Request<()>>,
    /// Bytes of the HTTP/1.1 head.
    len: usize,
    framing: Framing,
    method: Method,
    /// For a WebSocket: what an HTTP/1.1 service would answer to prove that it has understood.
    accept: Option<String>,
}

impl Asked {
    /// Takes the head that the pipeline has written from the beginning of `written`.
    pub(crate) fn take(written: &[u8], scheme: &'static str) -> Result<Self, Refusal> {
        let mut head = RequestHead::default();
        if !head.parse_own(written)? {
            return Err(Refusal::bad("the request's head is not complete"));
        }
        let accept = head.upgrade.then(|| handshake::accept(written, &head));
        let accept = accept.transpose()?;
        let unfit = |_| Refusal::bad("the request cannot be said in HTTP/2");
        let uri = http::Uri::builder()
            .scheme(scheme)
            .authority(head.host.of(written))
            .path_and_query(head.path_query.of(written))
            .build()
            .map_err(unfit)?;
        let method = match accept {
            None => head.method_name.of(written),
            Some(_) => b"CONNECT",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .map_err(unfit)?;
        let mut fields = fields(written, head.len, &head.fields)
            .ok_or(Refusal::bad("a header field cannot be said in HTTP/2"))?;
        fields.remove(header::HOST);
        let mut framing = head.framing;
        if accept.is_some() {
            fields.remove(header::SEC_WEBSOCKET_KEY);
            let websocket = Protocol::from_static(WEBSOCKET);
            request.extensions_mut().insert(websocket);
            framing = Framing::UntilClose;
        }
        *request.headers_mut() = fields;
        Ok(Self {
            head: Some(request),
            len: head.len,
            framing,
            method: head.method,
            accept,
        })
    }
}

impl Outbound {
    /// A stream at this place, for this request.
    pub(crate) fn new(place: Place, asked: Asked) -> Self {
        let state = State {
            asked,
            sink: None,
            response: None,
            source: None,
            staged: Vec::new(),
        };
        Self {
            state: RefCell::new(state),
            place,
        }
    }
}

impl State {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        place: &Place,
    ) -> Poll<io::Result<usize>> {
        let mut used = 0;
        if let Some(head) = self.asked.head.take() {
            let ended = self.asked.framing == Framing::None;
            let (response, to) = place.send().send_request(head, ended).map_err(broken)?;
            self.response = Some(response);
            self.sink = Some(Sink::new(to, self.asked.framing));
            used = self.asked.len.min(data.len());
        }
        let Some(sink) = self.sink.as_mut().filter(|_| used < data.len()) else {
            return Poll::Ready(Ok(used));
        };
        match sink.poll_write(cx, &data[used..]) {
            Poll::Ready(Ok(n)) => Poll::Ready(Ok(used + n)),
            _ if used > 0 => Poll::Ready(Ok(used)),
            other => other,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.staged.is_empty() {
                let n = self.staged.len().min(space.len());
                space[..n].copy_from_slice(&self.staged[..n]);
                self.staged.drain(..n);
                return Poll::Ready(Ok(n));
            }
            if let Some(source) = &mut self.source {
                return source.poll_read(cx, space).map_err(reason);
            }
            let Some(response) = &mut self.response else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                let interim = interim.map_err(|error| reason(broken(error)))?;
                status_line(&mut self.staged, interim.status());
                push_fields(&mut self.staged, interim.headers());
                self.staged.extend_from_slice(b"\r\n");
                continue;
            }
            let answer = ready!(Pin::new(response).poll(cx)).map_err(|e| reason(broken(e)))?;
            self.source = Some(match &self.asked.accept {
                Some(accept) if answer.status().is_success() => opened(answer, accept),
                _ => render(answer, self.asked.method),
            });
        }
    }
}

/// An answer as HTTP/1.1.
fn render(answer: Response<RecvStream>, method: Method) -> Source {
    let (parts, body) = answer.into_parts();
    let mut head = Vec::with_capacity(512);
    status_line(&mut head, parts.status);
    let mut fields = parts.headers;
    let length = fields.get(header::CONTENT_LENGTH).cloned();
    let bodiless = method == Method::Head
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let framing = if bodiless || body.is_end_stream() {
        // Behind a head that ended the stream there is nothing, which must be said.
        if !bodiless && length.is_none() {
            fields.insert(header::CONTENT_LENGTH, 0.into());
        }
        Framing::None
    } else {
        // gRPC's trailers hold its status: they need chunks.
        let length = length
            .filter(|_| !crate::grpc::is_content_type(fields.get(header::CONTENT_TYPE)))
            .and_then(|length| crate::http1::head::parse_length(length.as_bytes()));
        match length {
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => {
                fields.remove(header::CONTENT_LENGTH);
                Framing::Chunked
            }
        }
    };
    push_fields(&mut head, &fields);
    if framing == Framing::Chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Source::new(head, framing, body)
}

/// That a WebSocket is open, as HTTP/1.1 says it; DATA follows as it comes.
fn opened(answer: Response<RecvStream>, accept: &str) -> Source {
    let (parts, body) = answer.into_parts();
    let mut head = Vec::with_capacity(512);
    status_line(&mut head, StatusCode::SWITCHING_PROTOCOLS);
    head.extend_from_slice(b"connection: upgrade\r\n");
    field(&mut head, b"upgrade", WEBSOCKET.as_bytes());
    field(&mut head, b"sec-websocket-accept", accept.as_bytes());
    let mut fields = parts.headers;
    // A tunnel has no length, and the proof is this router's to give: only it has seen the key.
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::SEC_WEBSOCKET_ACCEPT);
    push_fields(&mut head, &fields);
    head.extend_from_slice(b"\r\n");
    Source::new(head, Framing::UntilClose, body)
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        let known = crate::http1::head::classify(name.as_str().as_bytes());
        if !matches!(
            known,
            Known::Connection | Known::TransferEncoding | Known::Upgrade
        ) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// What the peer says with an error: that it has done nothing for the request (RFC 9113, 8.7), or that it
/// will do no more.
fn reason(error: io::Error) -> io::Error {
    let reset = io::ErrorKind::ConnectionReset;
    let of_h2 = error.get_ref().and_then(|e| e.downcast_ref::<h2::Error>());
    match of_h2.filter(|error| error.is_remote()) {
        Some(of_h2) if of_h2.is_go_away() => io::Error::new(reset, Unprocessed),
        Some(of_h2) if of_h2.reason() == Some(Reason::REFUSED_STREAM) => {
            io::Error::new(reset, Unprocessed)
        }
        Some(of_h2) if of_h2.is_reset() => io::Error::new(reset, StreamReset),
        _ => error,
    }
}

impl Duplex for Outbound {
    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.state.borrow_mut().poll_read(cx, space)
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.state.borrow_mut().poll_write(cx, data, &self.place)
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state.borrow_mut().sink {
            Some(sink) => Poll::Ready(sink.shutdown()),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn has_bytes(&self) -> bool {
        false
    }

    /// A stream is for one request: it never goes to the pool.
    fn is_silent(&self, _: bool) -> bool {
        false
    }

    /// What is dropped before its end is cancelled anyway.
    fn cut(&self) {}

    fn is_http2(&self) -> bool {
        true
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.response.is_some() && state.source.is_none() {
            self.place.unanswered();
        }
    }
}
