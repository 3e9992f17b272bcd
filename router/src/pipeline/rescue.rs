//! Rescue: where there is no answer to pass on, or one that says that something broke, what the
//! route's fallback answers instead. The failure itself is counted and logged as it was.
//!
//! Nothing of an answer has gone to the client when this is asked: from the first byte on, an answer
//! is what it is. Another service is asked once, and only where the request may be sent again; its
//! own failure leaves the error as it was.

use std::{sync::Arc, time::Instant};

use crate::{
    clock,
    exchange::Exchange,
    grpc,
    http1::{
        body::Means,
        buffer::{Buffer, SMALL},
        render::{self, Delivery, line},
        request::Method,
        response::ResponseHead,
    },
    metrics::UnderWay,
    peer::Picked,
    pipeline::{
        After, Connection, deliver,
        forward::{self, Answered, End},
        observe::{Hidden, Seen},
        plan::{Plan, Read, pick_input},
        refuse, remember,
    },
    plugin::{
        Decision, Mode, Own, Scratch, Token,
        asked::Asked,
        fallback::{Elsewhere, Fallback, HEADER, Trigger, Way, memory::Kept},
    },
    table::Table,
    worker::Worker,
};

/// Bodies up to this go out together with their head.
const TOGETHER: usize = 16 << 10;

/// What became of a request: its peer, and its connection.
pub(crate) type Done = (Option<Picked>, After);

/// What the route's fallback answers for, if it does: of what came of forwarding.
pub(crate) fn trigger(plan: &Plan<'_>, x: &Exchange, end: &End) -> Option<Trigger> {
    let fallback = plan.decision.fallback?;
    let trigger = match end {
        End::Answered(answered) if answered.answer.upgraded => return None,
        End::Answered(_) => Trigger::Status(x.response.status),
        End::Refused { refusal, .. } => Trigger::of(refusal)?,
        End::ClientGone(_) => return None,
    };
    fallback.answers_for(trigger).then_some(trigger)
}

/// The same of what other plugins refused.
pub(crate) fn trigger_of_own(plan: &Plan<'_>, own: &Own<'_>) -> Option<Trigger> {
    let fallback = plan.decision.fallback?;
    let Own::Refusal(refusal) = own else {
        return None;
    };
    Trigger::of(refusal).filter(|trigger| fallback.answers_for(*trigger))
}

/// Answers in place of an error.
#[derive(Debug)]
pub(crate) struct Rescuer<'r, 't, 'w> {
    pub(crate) worker: &'w Worker,
    pub(crate) table: &'t Table,
    pub(crate) conn: &'r mut Connection,
    pub(crate) x: &'r mut Exchange,
    pub(crate) plan: &'r mut Plan<'t>,
    pub(crate) body: &'r mut Option<Means<'w>>,
    pub(crate) seen: &'r mut Seen,
    pub(crate) trigger: Trigger,
}

impl Rescuer<'_, '_, '_> {
    /// Answers instead of what came of forwarding; the same, if there is nothing to answer with.
    pub(crate) async fn forwarded(&mut self, end: End) -> Result<Done, End> {
        let (status, again) = match &end {
            End::Refused { refusal, again, .. } => {
                self.seen.error = self.seen.error.or(Some(refusal.code));
                (refusal.status, *again)
            }
            End::Answered(answered) => (self.x.response.status, answered.again),
            End::ClientGone(_) => return Err(end),
        };
        let Some(fallback) = self.plan.decision.fallback else {
            return Err(end);
        };
        // What answers a call of gRPC has a status of its own.
        let content_type = self.x.request.field(self.x.inbound.raw(), "content-type");
        let whole_fits = !content_type.is_some_and(grpc::is_grpc);
        let memory = fallback.bound.policy.memory.as_ref();
        let kept = memory
            .filter(|_| whole_fits)
            .and_then(|memory| remember::last_good(self.worker, self.conn, self.x, memory));
        let elsewhere = fallback
            .elsewhere
            .as_ref()
            .filter(|_| again && !self.asked_already());
        let stored = fallback.stored.as_ref().filter(|_| whole_fits);
        if fallback.bound.head.shadow {
            let way = match (&kept, elsewhere, stored) {
                (Some(_), _, _) => Way::LastGood,
                (None, Some(to), _) => to.way(),
                (None, None, Some(_)) => Way::Stored,
                (None, None, None) => Way::Failed,
            };
            self.say(fallback, way);
            return Err(end);
        }
        if let Some((kept, age)) = kept {
            let picked = self.discard(end);
            let whole = Whole::kept(&kept, age);
            return Ok((
                picked,
                self.answer(fallback, Way::LastGood, status, &whole).await,
            ));
        }
        if let Some(to) = elsewhere {
            // What has been read of the first answer goes out if this fails.
            let aside = matches!(end, End::Answered(_)).then(|| self.put_aside());
            if let Some(done) = self.ask(fallback, to, status).await {
                if let Some(aside) = aside {
                    (self.x.upstream, self.x.response) = aside;
                    drop(self.discard(end));
                }
                return Ok(done);
            }
            if let Some(aside) = aside {
                (self.x.upstream, self.x.response) = aside;
            }
        }
        if let Some(stored) = stored {
            let picked = self.discard(end);
            let whole = Whole {
                status: stored.status,
                head: Head::Type(stored.content_type.as_bytes()),
                body: stored.body.as_bytes(),
            };
            return Ok((
                picked,
                self.answer(fallback, Way::Stored, status, &whole).await,
            ));
        }
        self.say(fallback, Way::Failed);
        Err(end)
    }

    /// Answers instead of a plugin's refusal; none, if there is nothing to answer with.
    pub(crate) async fn refused(&mut self, own: &Own<'_>) -> Option<Done> {
        let Own::Refusal(refusal) = own else {
            return None;
        };
        // What was written about the refusal is not true of another answer.
        let about = std::mem::take(&mut self.x.scratch.reply);
        let end = End::Refused {
            refusal: *refusal,
            picked: None,
            again: true,
        };
        let done = self.forwarded(end).await.ok();
        if done.is_none() {
            self.x.scratch.reply = about;
        }
        done
    }

    /// Whether the request was passed on by a fallback before: it is not passed on again.
    fn asked_already(&self) -> bool {
        let raw = self.x.inbound.raw();
        self.x.request.fields_named(raw, HEADER).next().is_some()
    }

    /// Says, and counts, what was done.
    fn say(&mut self, fallback: &Fallback, way: Way) {
        let head = &fallback.bound.head;
        self.plan.decision.said.add(head, way as usize, Mode::Real);
        if !head.shadow {
            let of = [self.trigger.as_str(), way.as_str()];
            self.worker.metrics.fallback(self.plan.labels(), of);
            self.plan.under_way.falls_back();
        }
    }

    fn hide(&mut self, fallback: &Fallback, way: Way, status: u16) {
        self.say(fallback, way);
        self.seen.hidden = Some(Hidden {
            way: way.as_str(),
            trigger: self.trigger.as_str(),
            status,
        });
    }

    /// What came of forwarding is not passed on.
    fn discard(&mut self, end: End) -> Option<Picked> {
        match end {
            End::Answered(answered) => Some(deliver::discard(self.worker, self.x, answered)),
            End::Refused { picked, .. } | End::ClientGone(picked) => picked,
        }
    }

    /// Room for another answer, in place of the one whose head has been read.
    fn put_aside(&mut self) -> (Buffer, ResponseHead) {
        let buffer = std::mem::replace(&mut self.x.upstream, Buffer::new(SMALL));
        (buffer, std::mem::take(&mut self.x.response))
    }

    /// Asks somebody else, and passes the answer on; none: there was none that is any better.
    async fn ask(&mut self, fallback: &Fallback, to: &Elsewhere, status: u16) -> Option<Done> {
        let lines = self.x.scratch.reply.len();
        let done = self.ask_once(fallback, to, status).await;
        if done.is_none() {
            // What another route writes is not true of the error.
            self.x.scratch.reply.truncate(lines);
        }
        done
    }

    async fn ask_once(&mut self, fallback: &Fallback, to: &Elsewhere, status: u16) -> Option<Done> {
        let slot = self.write_again(fallback, to)?;
        let upstream = self.table.upstream_at(slot)?;
        let gone: &[Box<[u8]>] = &fallback.gone;
        let plan = Plan {
            route: self.plan.route,
            upstream,
            spares: [None; 2],
            pick: pick_input(upstream, self.x, self.conn, self.worker),
            decision: Decision {
                reply_gone: gone,
                ..Decision::default()
            },
            // The request is counted already, where it came in.
            under_way: UnderWay::default(),
        };
        let (error, before) = (
            self.seen.error,
            (self.seen.upstream_status, self.seen.upstream_took),
        );
        let end = {
            let (worker, conn, x) = (self.worker, &mut *self.conn, &mut *self.x);
            forward::forward(worker, conn, x, &plan, self.body, self.seen).await
        };
        let fine = |status: u16| status < 500 && !fallback.answers_for(Trigger::Status(status));
        match end {
            End::Answered(mut answered) if fine(self.x.response.status) => {
                self.seen.error = error;
                self.hide(fallback, to.way(), status);
                let reason = self.trigger.as_str().as_bytes();
                line(&mut self.x.scratch.reply, HEADER.as_bytes(), reason);
                let after = self.deliver(&plan, &mut answered).await;
                return Some((Some(answered.picked), after));
            }
            End::Answered(answered) => drop(deliver::discard(self.worker, self.x, answered)),
            End::Refused { .. } => {}
            End::ClientGone(picked) => return Some((picked, After::Close)),
        }
        self.seen.error = error;
        (self.seen.upstream_status, self.seen.upstream_took) = before;
        None
    }

    async fn deliver(&mut self, plan: &Plan<'_>, answered: &mut Answered) -> After {
        let (worker, conn, x) = (self.worker, &mut *self.conn, &mut *self.x);
        deliver::answer(worker, conn, x, plan, answered, self.body, self.seen).await
    }

    /// Writes the request as it came, but for the route's prefix and for what another route makes of it,
    /// with the reason why somebody else is asked. The slot that is asked; none: it cannot be sent.
    fn write_again(&mut self, fallback: &Fallback, to: &Elsewhere) -> Option<usize> {
        let mut scratch = std::mem::take(&mut self.x.scratch);
        scratch.path.clear();
        scratch.host.clear();
        scratch.request.clear();
        // A lane's tag goes on, and one that is not believed stays behind, whoever is asked.
        scratch.request.extend_from_slice(&scratch.tag);
        let led = self.lead(fallback, to, &mut scratch);
        let reason = self.trigger.as_str().as_bytes();
        line(&mut scratch.request, HEADER.as_bytes(), reason);
        let x = &mut *self.x;
        x.scratch = scratch;
        let (slot, gone) = led?;
        let decision = Decision {
            body: self.plan.decision.body,
            request_gone: [self.plan.decision.request_gone[0], gone],
            ..Decision::default()
        };
        if x.outbound.is_empty() {
            let prepared = super::prepare(self.worker, self.conn, x, &decision);
            return prepared.is_ok().then_some(slot);
        }
        let end = memchr::memmem::find(&x.outbound, b"\r\n\r\n")?;
        let body = x.outbound.split_off(end + 4);
        super::prepare::write_head(self.worker, self.conn, x, &decision);
        x.outbound.extend_from_slice(&body);
        Some(slot)
    }

    /// Writes path, host and fields as they are where somebody else is asked: the slot, and fields that
    /// do not go there. None: another route refuses.
    fn lead<'f>(
        &self,
        fallback: &Fallback,
        to: &'f Elsewhere,
        scratch: &mut Scratch,
    ) -> Option<(usize, &'f [Box<[u8]>])> {
        let token = Token::default();
        let asked = Read::of(self.x).asked(self.conn, self.worker, &token);
        let other = to.route.as_ref();
        let own = fallback.bound.policy.prefix.as_deref();
        let prefix = own.or_else(|| other.map(|route| &*route.prefix));
        if let (Some(prefix), Some(chain)) = (prefix, &self.plan.route.chain) {
            chain.write_prefix(prefix, &asked, &mut scratch.path);
        }
        let host = other.and_then(|route| route.host.as_deref());
        scratch
            .host
            .extend_from_slice(host.unwrap_or_default().as_bytes());
        let Some(chain) = other.and_then(|route| route.chain.as_deref()) else {
            return Some((to.slot, &[]));
        };
        // Its plugins see a request of its own.
        let path = std::mem::take(&mut scratch.path);
        let host = std::mem::take(&mut scratch.host);
        let own = Asked {
            path: if path.is_empty() { asked.path } else { &path },
            host: if host.is_empty() { asked.host } else { &host },
            ..asked
        };
        let now = clock::nanos(Instant::now());
        let decision = chain.decide(&own, self.table, now, scratch, Mode::Real);
        if scratch.path.is_empty() {
            scratch.path = path;
        }
        if scratch.host.is_empty() {
            scratch.host = host;
        }
        let slot = decision.slot.unwrap_or(to.slot);
        decision
            .own
            .is_none()
            .then_some((slot, decision.request_gone[1]))
    }

    /// Answers with what is at hand.
    async fn answer(
        &mut self,
        fallback: &Fallback,
        way: Way,
        hidden: u16,
        whole: &Whole<'_>,
    ) -> After {
        self.hide(fallback, way, hidden);
        let keep = refuse::keeps(self.worker, self.conn, self.x, false);
        let written = self.send(whole, keep).await;
        self.seen.status = whole.status;
        if self.x.request.method != Method::Head {
            self.seen.bytes_out = whole.body.len() as u64;
        }
        if let Err(error) = written {
            self.seen.error = Some(super::unwritten(self.worker, &error));
            return After::Cut;
        }
        if keep {
            return After::Keep;
        }
        refuse::linger(self.conn).await;
        After::Close
    }

    /// Writes an answer.
    async fn send(&mut self, whole: &Whole<'_>, keep: bool) -> std::io::Result<()> {
        let x = &mut *self.x;
        let out = &mut x.reply;
        out.clear();
        refuse::status_line(out, whole.status);
        whole.head.write(out);
        let length = itoa::Buffer::new().format(whole.body.len()).to_owned();
        line(out, b"Content-Length", length.as_bytes());
        line(out, HEADER.as_bytes(), self.trigger.as_str().as_bytes());
        let delivery = Delivery {
            chunks: false,
            close: !keep,
            say_keep_alive: keep && !x.request.http11,
        };
        render::connection(out, delivery);
        line(out, b"X-Request-Id", x.id.as_bytes());
        out.extend_from_slice(&x.scratch.reply);
        out.extend_from_slice(b"\r\n");
        let mut rest = whole.body;
        if x.request.method == Method::Head {
            rest = &[];
        } else if rest.len() <= TOGETHER {
            out.extend_from_slice(std::mem::take(&mut rest));
        }
        super::write(self.worker, self.conn, &x.reply).await?;
        if rest.is_empty() {
            return Ok(());
        }
        super::write(self.worker, self.conn, rest).await.map(drop)
    }
}

/// An answer that is at hand as a whole.
#[derive(Debug)]
struct Whole<'a> {
    status: u16,
    head: Head<'a>,
    body: &'a [u8],
}

/// Its fields.
#[derive(Debug)]
enum Head<'a> {
    /// A stored body's media type.
    Type(&'a [u8]),
    /// A remembered answer's own, and its age in seconds.
    Kept(&'a [u8], u64),
}

impl<'a> Whole<'a> {
    fn kept(kept: &'a Arc<Kept>, age: u64) -> Self {
        Self {
            status: kept.status,
            head: Head::Kept(&kept.lines, age),
            body: &kept.body,
        }
    }
}

impl Head<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Type(media_type) => {
                line(out, b"Content-Type", media_type);
                render::date(out);
                // It stands in for a moment: nobody on the way may keep it for longer.
                line(out, b"Cache-Control", b"no-store");
            }
            Self::Kept(lines, age) => {
                out.extend_from_slice(lines);
                // RFC 9111, 5.1.
                line(out, b"Age", itoa::Buffer::new().format(*age).as_bytes());
            }
        }
    }
}
