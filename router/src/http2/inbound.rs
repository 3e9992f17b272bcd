//! A stream that a client opened, as an HTTP/1.1 connection with one request.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response, StatusCode, header};

use crate::{
    grpc,
    http1::{request, response::ResponseHead},
    http2::{
        answer, broken,
        meter::Meter,
        request::{Unfit, render},
        sink::Sink,
        source::Source,
    },
    timer::Timers,
    tls,
    wire::Duplex,
};

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    source: RefCell<Source>,
    answer: RefCell<Answer>,
    meter: Rc<Meter>,
    timers: Rc<Timers>,
    opened: u64,
    cut: Cell<bool>,
    /// Of the connection.
    tls: Option<Arc<tls::Facts>>,
}

/// The answer's way out.
#[derive(Debug)]
struct Answer {
    respond: SendResponse<Bytes>,
    method: request::Method,
    /// Once the head is out.
    body: Option<Sink>,
    head: ResponseHead,
    /// A tunnel was asked for; and there is one.
    tunnel: bool,
    open: bool,
    /// What was answered instead is not passed on.
    discard: bool,
    gone: bool,
}

impl Inbound {
    /// The stream of a request.
    pub(crate) fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        meter: Rc<Meter>,
        timers: Rc<Timers>,
        tls: Option<Arc<tls::Facts>>,
    ) -> Result<Self, Unfit> {
        let (parts, body) = request.into_parts();
        let rendered = render(&parts, body.is_end_stream())
            .inspect_err(|_| respond.send_reset(Reason::PROTOCOL_ERROR))?;
        Ok(Self {
            source: RefCell::new(Source::new(rendered.head, rendered.framing, body)),
            answer: RefCell::new(Answer {
                respond,
                method: if rendered.tunnel {
                    request::Method::Get
                } else {
                    request::Method::read(parts.method.as_str().as_bytes())
                },
                body: None,
                head: ResponseHead::default(),
                tunnel: rendered.tunnel,
                open: false,
                discard: false,
                gone: false,
            }),
            opened: timers.now(),
            meter,
            timers,
            cut: Cell::new(false),
            tls,
        })
    }
}

impl Answer {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        meter: &Meter,
    ) -> Poll<io::Result<usize>> {
        let mut used = 0;
        while self.body.is_none() && used < data.len() {
            used += self.take_head(&data[used..])?;
            meter.answered();
        }
        if self.discard {
            return Poll::Ready(Ok(data.len()));
        }
        let Some(body) = self.body.as_mut().filter(|_| used < data.len()) else {
            return Poll::Ready(Ok(used));
        };
        match body.poll_write(cx, &data[used..]) {
            Poll::Ready(Ok(n)) => {
                meter.answered();
                Poll::Ready(Ok(used + n))
            }
            Poll::Pending if used > 0 => Poll::Ready(Ok(used)),
            other => other,
        }
    }

    /// Sends a head; the pipeline always writes one as a whole.
    fn take_head(&mut self, data: &[u8]) -> io::Result<usize> {
        let complete = self.head.parse_own(data, self.method);
        if !complete.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = answer::take(data, &self.head)?;
        if self.head.interim() {
            self.respond.send_informational(answer).map_err(broken)?;
            return Ok(self.head.len);
        }
        let mut framing = self.head.framing;
        if self.tunnel {
            framing = self.open(&mut answer);
        }
        let ended = framing == request::Framing::None;
        if ended && grpc::is_content_type(answer.headers().get(header::CONTENT_TYPE)) {
            // To a caller of gRPC every field is metadata; the stream's end says the same.
            answer.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let to = self.respond.send_response(answer, ended).map_err(broken)?;
        self.body = Some(Sink::new(to, framing));
        Ok(self.head.len)
    }

    /// What the answer to a tunnel's request becomes: to CONNECT, any 2xx means that it is there.
    fn open(&mut self, answer: &mut Response<()>) -> request::Framing {
        match self.head.status {
            101 => {
                *answer.status_mut() = StatusCode::OK;
                answer.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
                self.open = true;
                request::Framing::UntilClose
            }
            200..=299 => {
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer.headers_mut().clear();
                self.discard = true;
                request::Framing::None
            }
            _ => self.head.framing,
        }
    }

    fn done(&self) -> bool {
        self.body.as_ref().is_some_and(Sink::done)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(match &mut self.body {
            Some(body) => body.poll_gone(cx),
            None => self.respond.poll_reset(cx).map(drop),
        });
        self.gone = true;
        Poll::Ready(())
    }
}

impl Duplex for Inbound {
    fn tls(&self) -> Option<&Arc<tls::Facts>> {
        self.tls.as_ref()
    }

    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        self.source.borrow_mut().poll_read(cx, space)
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut answer = self.answer.borrow_mut();
        let open = answer.open;
        let written = answer.poll_write(cx, data, &self.meter);
        if answer.open && !open {
            self.source.borrow_mut().open();
        }
        written
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The client need not be heard out: the stream's end tells it to stop.
        if !self.answer.borrow().open {
            self.source.borrow_mut().close();
        }
        match &mut self.answer.borrow_mut().body {
            Some(body) => Poll::Ready(body.shutdown()),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn has_bytes(&self) -> bool {
        true
    }

    fn is_silent(&self, _: bool) -> bool {
        false
    }

    fn is_held_up(&self) -> bool {
        self.meter.blocked()
    }

    fn cut(&self) {
        self.cut.set(true);
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.answer.borrow_mut().poll_gone(cx).map(|()| true)
    }

    fn is_http2(&self) -> bool {
        true
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let answer = self.answer.get_mut();
        if answer.done() {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if answer.gone || answer.poll_gone(&mut cx).is_ready() {
            let now = self.timers.now();
            self.meter.reset(now.saturating_sub(self.opened));
            return;
        }
        let reason = if self.cut.get() || answer.body.is_none() {
            Reason::INTERNAL_ERROR
        } else {
            Reason::CANCEL
        };
        match &mut answer.body {
            Some(body) => body.reset(reason),
            None => answer.respond.send_reset(reason),
        }
    }
}
