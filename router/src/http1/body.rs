//! Bodies on their way: taken out of one side's framing and put into the other's, with back-pressure
//! (nothing is read before what was read is written).

use std::{
    ops::Range,
    task::{Context, Poll, ready},
};

use crate::{
    http1::{
        buffer::Buffer,
        chunked::{self, Decoder},
        pace::{Pace, Rate, Verdict},
        request::Framing,
    },
    timer::{TICK, Timer},
    wire::{ReadHalf, WriteHalf, pipe::Filled},
};

mod means;
mod tap;
#[cfg(test)]
mod tests;

use tap::Tap;
pub(crate) use {
    means::{Keep, Means},
    tap::Untapped,
};

/// What a body has to have left for a pipe to be worth its while, in bytes.
const WORTH_A_PIPE: u64 = 16 << 10;
/// What one body may move before others have their turn, in bytes.
const TURN: usize = 1 << 20;

/// A body's progress.
#[derive(Debug, Default)]
pub(crate) struct Body {
    framing: Framing,
    /// Goes out in chunks.
    chunks: bool,
    done: bool,
    left: u64,
    decoder: Decoder,
    /// Bytes of content so far.
    pub(crate) bytes: u64,
    /// The most bytes of content.
    limit: u64,
    /// The end of a body that goes out in chunks.
    tail: Vec<u8>,
    tail_sent: usize,
    pending: Range<usize>,
    /// Bytes in the pipe: taken, and not handed out.
    piped: usize,
    /// It has stood still since it was last looked at, and may until then.
    armed: bool,
    deadline: u64,
    waits_for: Side,
    /// Bytes that the side it goes to has taken.
    written: u64,
    pace: Pace,
    tap: Option<Tap>,
}

/// One of the two ends of a body's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Side {
    /// Where it comes from.
    #[default]
    From,
    /// Where it goes.
    To,
}

/// Why a body did not get through.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The side it comes from failed, or ended too early.
    From,
    /// It cannot be framed.
    Malformed,
    /// It is over the limit.
    TooLarge,
    /// The side it goes to failed.
    To,
    /// One side stood still for too long.
    Idle(Side),
    /// The client is slower than it may be.
    Slow,
}

/// How long each side may stand still, in milliseconds, and how slow the client may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Which side the client is.
    pub(crate) client: Side,
    pub(crate) rate: Rate,
    /// It need not be told to begin.
    pub(crate) invited: bool,
    /// Bytes that the client has moved the other way, and which count for it.
    pub(crate) beside: u64,
}

impl Body {
    /// Begins a new body; `chunks`: it goes out in chunks.
    pub(crate) fn begin(&mut self, framing: Framing, chunks: bool, limit: Option<u64>) {
        self.framing = framing;
        self.chunks = chunks;
        self.done = framing == Framing::None;
        self.left = match framing {
            Framing::Length(length) => length,
            _ => 0,
        };
        self.decoder = Decoder::default();
        self.bytes = 0;
        self.limit = limit.unwrap_or(u64::MAX);
        self.tail.clear();
        self.tail_sent = 0;
        self.pending = 0..0;
        self.piped = 0;
        self.armed = false;
        self.written = 0;
        self.pace = Pace::default();
        self.tap = None;
    }

    /// Copies the content from here on, up to so many bytes.
    pub(crate) fn tap(&mut self, limit: usize) {
        let known = match self.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => 0,
        };
        self.tap = Some(Tap::new(known, limit));
    }

    /// The copy.
    pub(crate) fn take_tapped(&mut self) -> Result<Vec<u8>, Untapped> {
        let tap = self.tap.take().ok_or(Untapped::Incomplete)?;
        tap.take(self.done)
    }

    /// Takes fewer bytes of content than it began with would.
    pub(crate) fn limit_to(&mut self, limit: u64) {
        self.limit = self.limit.min(limit);
    }

    /// Whether everything was taken from the side it comes from (and handed out).
    pub(crate) fn done(&self) -> bool {
        self.done
            && self.pending.is_empty()
            && self.piped == 0
            && (!self.chunks || self.tail_sent == self.tail.len())
    }

    /// Everything taken so far goes out again to another peer, from where it was kept: nothing is
    /// pending. What went through a pipe was not kept, and is never sent again.
    pub(crate) fn begin_again(&mut self) {
        self.pending = 0..0;
        self.armed = false;
        if self.done {
            self.tail_sent = self.tail.len();
        }
    }

    /// How many bytes are still to be read, if that is known and they are few enough to be kept.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(_) => Some(self.left),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// The end of a body that goes out in chunks, once it is there: the last chunk and the trailer.
    pub(crate) fn trailer(&self) -> &[u8] {
        &self.tail
    }

    /// Moves what has been read already to `out`, framed: the first part joins the head.
    pub(crate) fn take_buffered(
        &mut self,
        input: &mut Buffer,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        let at = input.start();
        let piece = self.next_piece(input)?;
        // Consuming never moves bytes.
        let data = &input.raw()[at + piece.start..at + piece.end];
        if self.chunks {
            chunked::append(out, data);
        } else {
            out.extend_from_slice(data);
        }
        if self.done && self.chunks {
            out.extend_from_slice(&self.tail);
            self.tail_sent = self.tail.len();
        }
        Ok(())
    }

    /// Takes the next piece of content out of `input`; its place counts from the input's start.
    fn next_piece(&mut self, input: &mut Buffer) -> Result<Range<usize>, Broken> {
        let (data, used) = match self.framing {
            Framing::None => (0..0, 0),
            Framing::Length(_) => {
                let n =
                    usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
                self.left -= n as u64;
                self.done = self.left == 0;
                (0..n, n)
            }
            Framing::Chunked => {
                let piece = self
                    .decoder
                    .decode(input.data_mut(), &mut self.tail)
                    .map_err(|_| Broken::Malformed)?;
                self.done = self.decoder.done();
                (piece.data, piece.used)
            }
            Framing::UntilClose => (0..input.len(), input.len()),
        };
        self.bytes += data.len() as u64;
        if self.bytes > self.limit {
            return Err(Broken::TooLarge);
        }
        if let Some(tap) = &mut self.tap {
            tap.add(&input.data()[data.clone()]);
        }
        input.consume(used);
        Ok(data)
    }

    /// Moves on as far as both sides let it.
    #[allow(
        clippy::too_many_arguments,
        reason = "the two ends, and what lies between them"
    )]
    pub(crate) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        means: &mut Means<'_>,
        keep: &mut Keep<'_>,
        timer: &Timer,
        patience: Patience,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = TURN;
        loop {
            let result = self.poll_steps(cx, from, to, means, keep, &mut turn);
            if result.is_ready() {
                return result;
            }
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let now = timer.now();
            if !self.armed {
                self.armed = true;
                self.deadline = self.patient_until(now, patience);
            }
            let mut look = self.deadline;
            if patience.rate.least > 0 {
                match self.judge(now, patience, to) {
                    Verdict::Until(at) => look = look.min(at),
                    Verdict::TooSlow if self.push(to, means)? => continue,
                    Verdict::TooSlow => return Poll::Ready(Err(Broken::Slow)),
                }
            }
            if now >= self.deadline {
                return Poll::Ready(Err(Broken::Idle(self.waits_for)));
            }
            timer.by(look);
            return Poll::Pending;
        }
    }

    fn patient_until(&self, now: u64, patience: Patience) -> u64 {
        let patience = match self.waits_for {
            Side::From => patience.from,
            Side::To => patience.to,
        };
        // `now` is up to a tick old.
        let tick = u64::try_from(TICK.as_millis()).unwrap_or(0);
        now.saturating_add(patience).saturating_add(tick)
    }

    /// What moves the other way shows that both sides are there.
    pub(crate) fn not_alone(&mut self) {
        self.armed = false;
    }

    /// Bytes that the side it goes to has taken.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that have come and gone.
    pub(crate) fn moved(&self) -> u64 {
        self.bytes.wrapping_add(self.written)
    }

    fn judge(&mut self, now: u64, patience: Patience, to: &WriteHalf<'_>) -> Verdict {
        let held_up = self.waits_for == Side::To && to.is_held_up();
        let uninvited = !patience.invited && self.bytes == 0;
        if self.waits_for != patience.client || held_up || uninvited {
            self.pace.stop(now);
            return Verdict::Until(u64::MAX);
        }
        let moved = match patience.client {
            Side::From => self.bytes,
            Side::To => self.written,
        };
        let moved = moved.wrapping_add(patience.beside);
        self.pace.waits(now, moved, patience.rate)
    }

    /// Writes what the system takes when it is asked itself; `false`: nothing. The event loop hears of
    /// room only when a third of the system's buffer is free, which may be more than a client that is
    /// fast enough takes in a while.
    fn push(&mut self, to: &mut WriteHalf<'_>, means: &mut Means<'_>) -> Result<bool, Broken> {
        if self.waits_for == Side::From {
            return Ok(false);
        }
        let moved = if let (1.., Some(to)) = (self.piped, to.tcp()) {
            let n = means.pipe.push(to).map_err(|_| Broken::To)?;
            self.piped -= n;
            n
        } else {
            let tail = self.pending.is_empty();
            let data = if tail {
                &self.tail[self.tail_sent..]
            } else {
                &means.input().raw()[self.pending.clone()]
            };
            let pushed = to.push(data).map_err(|_| Broken::To)?;
            if tail {
                self.tail_sent += pushed.taken;
            } else {
                self.pending.start += pushed.taken;
            }
            pushed.moved
        };
        self.written += moved as u64;
        self.armed &= moved == 0;
        Ok(moved > 0)
    }

    fn poll_steps(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        means: &mut Means<'_>,
        keep: &mut Keep<'_>,
        turn: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        loop {
            self.waits_for = Side::To;
            while !self.pending.is_empty() {
                let data = &means.input().raw()[self.pending.clone()];
                let n = ready!(to.poll_write(cx, data)).map_err(|_| Broken::To)?;
                self.pending.start += n;
                self.has_written(n);
            }
            while let (1.., Some(to)) = (self.piped, to.tcp()) {
                let n = ready!(means.pipe.poll_drain(cx, to)).map_err(|_| Broken::To)?;
                self.piped -= n;
                self.has_written(n);
            }
            while self.done && self.chunks && self.tail_sent < self.tail.len() {
                let n = ready!(to.poll_write(cx, &self.tail[self.tail_sent..]))
                    .map_err(|_| Broken::To)?;
                self.tail_sent += n;
                self.has_written(n);
            }
            if self.done {
                return Poll::Ready(Ok(()));
            }
            self.waits_for = Side::From;
            if *turn == 0 {
                return Poll::Pending;
            }
            if means.beyond().is_none() {
                let Poll::Ready(n) = self.poll_take(cx, from, to, means, keep)? else {
                    means.rest();
                    return Poll::Pending;
                };
                self.armed = false;
                *turn = turn.saturating_sub(n);
            }
            let Some(input) = means.beyond() else {
                continue;
            };
            let at = input.start();
            let piece = self.next_piece(input)?;
            self.pending = at + piece.start..at + piece.end;
            if self.chunks {
                self.pending = chunked::wrap(input.raw_mut(), self.pending.clone());
            }
            let tail: &[u8] = if self.done && self.chunks {
                &self.tail
            } else {
                &[]
            };
            keep.add(&input.raw()[self.pending.clone()], tail);
        }
    }

    /// Takes what there is, into the pipe if it can be.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &WriteHalf<'_>,
        means: &mut Means<'_>,
        keep: &Keep<'_>,
    ) -> Poll<Result<usize, Broken>> {
        if self.may_be_piped(keep)
            && means.pipe.is_able()
            && let (Some(from), Some(_)) = (from.tcp(), to.tcp())
        {
            match ready!(means.pipe.poll_fill(cx, from, self.left)) {
                Ok(Filled::Bytes(n)) if n > 0 => {
                    means.rest();
                    return Poll::Ready(self.has_piped(n));
                }
                Ok(Filled::Unable) => {}
                Ok(Filled::Bytes(_)) | Err(_) => return Poll::Ready(Err(Broken::From)),
            }
        }
        self.poll_fill(cx, from, means.input())
    }

    fn has_written(&mut self, n: usize) {
        self.written += n as u64;
        self.armed = false;
    }

    /// Whether nobody has to look at what comes next, and it is much.
    fn may_be_piped(&self, keep: &Keep<'_>) -> bool {
        matches!(self.framing, Framing::Length(_))
            && !self.chunks
            && self.left >= WORTH_A_PIPE
            && keep.bytes.is_none()
            && self.tap.as_ref().is_none_or(Tap::is_over)
    }

    /// So much of the content is in the pipe.
    fn has_piped(&mut self, n: usize) -> Result<usize, Broken> {
        self.piped = n;
        self.left = self.left.saturating_sub(n as u64);
        self.done = self.left == 0;
        self.bytes += n as u64;
        if self.bytes > self.limit {
            return Err(Broken::TooLarge);
        }
        Ok(n)
    }

    /// Reads once; never beyond a body of known length. 0: the body ended with its connection.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        input: &mut Buffer,
    ) -> Poll<Result<usize, Broken>> {
        let space = input.space();
        let most = match self.framing {
            Framing::Length(_) => {
                usize::try_from(self.left).map_or(space.len(), |left| left.min(space.len()))
            }
            _ => space.len(),
        };
        match ready!(from.poll_read(cx, &mut space[..most])) {
            Ok(0) if self.framing == Framing::UntilClose => {
                self.done = true;
                if self.chunks {
                    self.tail.extend_from_slice(b"0\r\n\r\n");
                }
                Poll::Ready(Ok(0))
            }
            Ok(n) if n > 0 => {
                input.filled(n);
                Poll::Ready(Ok(n))
            }
            Ok(_) | Err(_) => Poll::Ready(Err(Broken::From)),
        }
    }
}
