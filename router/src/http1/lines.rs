//! The lines of a head, in one pass and with positions only (RFC 9112, 2 to 5). Strict where the RFC
//! lets a recipient be lenient: lines end in CR LF, a name is followed by its colon, and no field goes
//! on in the next line. Every byte is looked at once, values eight at a time.

use crate::http1::head::{Field, Span, classify};

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request line or the status line.
    StartLine,
    /// A byte that no target has.
    Target,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// A field's name, or what comes between it and its colon.
    Name,
    /// A control character in a value.
    Value,
    /// A line ends in LF alone.
    BareLf,
    /// More fields than may be.
    TooMany,
}

/// Why there is no more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The rest has not arrived yet.
    Incomplete,
    /// It is no head, whatever follows.
    Fault(Fault),
}

/// A request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) http11: bool,
}

/// A status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusLine {
    pub(crate) http11: bool,
    /// Three digits, whichever.
    pub(crate) status: u16,
    /// Empty if it is not ASCII.
    pub(crate) reason: Span,
}

/// May stand in a method or a name.
const TOKEN: u8 = 1;
/// May stand in a target.
const TARGET: u8 = 2;
/// May stand in a host's name.
pub(crate) const NAME: u8 = 4;

/// Where a byte may stand.
const PLACES: [u8; 256] = {
    let mut places = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let letter = byte.is_ascii_alphanumeric();
        if letter
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-'..=b'.' | b'^'..=b'`' | b'|' | b'~'
            )
        {
            places[byte as usize] |= TOKEN;
        }
        if byte.is_ascii_graphic() && byte != b'#' {
            places[byte as usize] |= TARGET;
        }
        if letter || matches!(byte, b'.' | b'-' | b'_' | b'~') {
            places[byte as usize] |= NAME;
        }
        byte += 1;
    }
    places
};

/// Whether every byte may stand there. The texts are short: looking each byte up costs less than
/// preparing to look at many at once.
pub(crate) fn are_all(place: u8, text: &[u8]) -> bool {
    let common = text
        .iter()
        .fold(place, |common, byte| common & PLACES[usize::from(*byte)]);
    common != 0
}

/// Reads a head line by line.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Of the head that begins at `raw[at]` and ends before `raw[end]`.
    pub(crate) fn new(raw: &'a [u8], at: usize, end: usize) -> Self {
        Self {
            data: raw.get(..end).unwrap_or_default(),
            at,
        }
    }

    /// The next byte to be read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Empty lines, and a request line behind them (RFC 9112, 2.2).
    pub(crate) fn request_line(&mut self) -> Result<RequestLine, Stop> {
        while matches!(self.peek()?, b'\r' | b'\n') {
            self.line_end(Fault::StartLine)?;
        }
        let method = self.word(TOKEN, Fault::StartLine)?;
        let target = match self.word(TARGET, Fault::Target) {
            // No target, or the line ends with it: it is the line that is wrong.
            Err(Stop::Fault(Fault::Target)) if matches!(self.peek()?, 0..=b' ' | 0x7f) => {
                return Err(Stop::Fault(Fault::StartLine));
            }
            word => word?,
        };
        let http11 = self.version()?;
        self.line_end(Fault::StartLine)?;
        Ok(RequestLine {
            method,
            target,
            http11,
        })
    }

    /// A status line. Its reason may be missing, with its space or without.
    pub(crate) fn status_line(&mut self) -> Result<StatusLine, Stop> {
        let http11 = self.version()?;
        if self.peek()? != b' ' {
            return Err(Stop::Fault(Fault::StartLine));
        }
        self.at += 1;
        let mut status = 0;
        for _ in 0..3 {
            let digit = self.peek()?;
            if !digit.is_ascii_digit() {
                return Err(Stop::Fault(Fault::StartLine));
            }
            status = status * 10 + u16::from(digit - b'0');
            self.at += 1;
        }
        let mut reason = Span::default();
        if self.peek()? == b' ' {
            self.at += 1;
            let start = self.at;
            self.at = text_end(self.data, start);
            let text = self.data.get(start..self.at).unwrap_or_default();
            if !text.is_empty() && text.is_ascii() {
                reason = span(start, self.at);
            }
        }
        self.line_end(Fault::StartLine)?;
        Ok(StatusLine {
            http11,
            status,
            reason,
        })
    }

    /// The fields, up to and with the empty line behind them; at most so many.
    pub(crate) fn fields(&mut self, most: usize, fields: &mut Vec<Field>) -> Result<(), Stop> {
        fields.clear();
        let data = self.data;
        let mut at = self.at;
        loop {
            let colon = name_end(data, at)?;
            if colon == at || data.get(colon) != Some(&b':') {
                self.at = at;
                return if colon == at && matches!(self.peek()?, b'\r' | b'\n') {
                    self.line_end(Fault::Name)
                } else {
                    Err(Stop::Fault(Fault::Name))
                };
            }
            let mut start = colon + 1;
            while matches!(data.get(start), Some(b' ' | b'\t')) {
                start += 1;
            }
            let end = text_end(data, start);
            if data.get(end..end + 2) != Some(b"\r\n") {
                self.at = end;
                return self.line_end(Fault::Value);
            }
            let mut value = end;
            while value > start && matches!(data[value - 1], b' ' | b'\t') {
                value -= 1;
            }
            if fields.len() >= most {
                return Err(Stop::Fault(Fault::TooMany));
            }
            fields.push(Field {
                name: span(at, colon),
                value: span(start, value),
                known: classify(&data[at..colon]),
            });
            at = end + 2;
        }
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.data.get(self.at).copied().ok_or(Stop::Incomplete)
    }

    /// Bytes of a kind up to a space, which is passed by; at least one.
    fn word(&mut self, kind: u8, fault: Fault) -> Result<Span, Stop> {
        let start = self.at;
        let len = run(self.data, start, kind)?;
        self.at += len;
        if len == 0 || self.peek()? != b' ' {
            return Err(Stop::Fault(fault));
        }
        self.at += 1;
        Ok(span(start, start + len))
    }

    /// `HTTP/1.0` or `HTTP/1.1`; `true`: the latter.
    fn version(&mut self) -> Result<bool, Stop> {
        const BEGINNING: &[u8; 7] = b"HTTP/1.";
        let rest = self.data.get(self.at..).unwrap_or_default();
        let Some(name) = rest.first_chunk::<8>() else {
            let fits = BEGINNING.starts_with(rest);
            return Err(if fits {
                Stop::Incomplete
            } else {
                Stop::Fault(Fault::Version)
            });
        };
        self.at += name.len();
        match name {
            b"HTTP/1.1" => Ok(true),
            b"HTTP/1.0" => Ok(false),
            _ => Err(Stop::Fault(Fault::Version)),
        }
    }

    /// CR LF.
    fn line_end(&mut self, otherwise: Fault) -> Result<(), Stop> {
        match self.peek()? {
            b'\r' => {}
            b'\n' => return Err(Stop::Fault(Fault::BareLf)),
            _ => return Err(Stop::Fault(otherwise)),
        }
        self.at += 1;
        if self.peek()? != b'\n' {
            return Err(Stop::Fault(otherwise));
        }
        self.at += 1;
        Ok(())
    }
}

/// How many bytes of a kind there are from `at` on; the one behind them has arrived.
fn run(data: &[u8], at: usize, kind: u8) -> Result<usize, Stop> {
    let rest = data.get(at..).unwrap_or_default();
    let other = |b: &u8| PLACES[usize::from(*b)] & kind == 0;
    rest.iter().position(other).ok_or(Stop::Incomplete)
}

/// Where a name ends: at the colon behind it, or at the byte that is none of a name.
fn name_end(data: &[u8], at: usize) -> Result<usize, Stop> {
    let rest = data.get(at..).unwrap_or_default();
    if rest
        .first()
        .is_some_and(|b| PLACES[usize::from(*b)] & TOKEN == 0)
    {
        return Ok(at);
    }
    // Two passes of which neither asks after every byte whether it goes on. 0x3a is the colon.
    let (eights, _) = rest.as_chunks::<8>();
    for (i, eight) in eights.iter().take(8).enumerate() {
        let colons = u64::from_le_bytes(*eight) ^ (ONES * 0x3a);
        let colons = colons.wrapping_sub(ONES) & !colons & TOPS;
        if colons != 0 {
            let len = 8 * i + colons.trailing_zeros() as usize / 8;
            if are_all(TOKEN, &rest[..len]) {
                return Ok(at + len);
            }
            break;
        }
    }
    run(data, at, TOKEN).map(|len| at + len)
}

/// Where a text ends: at the next control character that is no tab, or with what has arrived.
fn text_end(data: &[u8], mut at: usize) -> usize {
    loop {
        at = control(data, at);
        if data.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

const ONES: u64 = u64::MAX / 255;
const TOPS: u64 = ONES * 0x80;

/// The first control character from `at` on; else the end.
fn control(data: &[u8], mut at: usize) -> usize {
    let (eights, rest) = data.get(at..).unwrap_or_default().as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        // A byte's top bit becomes set where it is below 0x20, or 0x7f. A byte that is not may follow
        // only where one that is comes before it: the lowest is right.
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let found = (low | (delete.wrapping_sub(ONES) & !delete)) & TOPS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + rest
        .iter()
        .position(u8::is_ascii_control)
        .unwrap_or(rest.len())
}

/// From `start` to `end`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "buffers of heads are far smaller than what 32 bits count"
)]
fn span(start: usize, end: usize) -> Span {
    Span {
        at: start as u32,
        len: (end - start) as u32,
    }
}

#[cfg(test)]
mod tests;
