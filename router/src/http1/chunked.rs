//! Chunked bodies: taken apart strictly and put together anew, so that only what was understood is
//! passed on. The data of several chunks is moved together in place and leaves as one chunk.

use std::ops::Range;

use crate::http1::head::{Known, alike, classify};

/// The most bytes of a chunk's extensions.
const MAX_EXTENSION: u16 = 256;
/// The most bytes of all trailer fields.
const MAX_TRAILERS: usize = 8192;
/// The last chunk, before trailers.
const LAST: &[u8] = b"0\r\n";

/// A chunked body that cannot be read beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body: {0}")]
pub(crate) struct BadChunk(pub(crate) &'static str);

/// Takes a chunked body apart, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    left: u64,
    digits: u8,
    extension: u16,
    line: usize,
    trailer: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
}

/// What a call took out of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the data lies now, in one piece.
    pub(crate) data: Range<usize>,
    /// How much of the input was used up.
    pub(crate) used: usize,
}

impl Decoder {
    /// Whether the body is complete.
    pub(crate) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes as much as there is. `trailers` collects the end of the body as it is passed on: the
    /// last chunk and the trailer fields that may be forwarded.
    pub(crate) fn decode(
        &mut self,
        input: &mut [u8],
        trailers: &mut Vec<u8>,
    ) -> Result<Piece, BadChunk> {
        let mut at = 0;
        let mut data = 0..0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = input.len() - at;
                let n = usize::try_from(self.left).map_or(here, |left| left.min(here));
                if data.is_empty() {
                    data = at..at + n;
                } else {
                    input.copy_within(at..at + n, data.end);
                    data.end += n;
                }
                at += n;
                self.took(n);
                continue;
            }
            at += self.skip_framing(&input[at..], trailers)?;
        }
        Ok(Piece { data, used: at })
    }

    /// Reads on to the next content, or to the end of the body: how many bytes that took.
    pub(crate) fn skip_framing(
        &mut self,
        input: &[u8],
        trailers: &mut Vec<u8>,
    ) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < input.len() && !matches!(self.state, State::Data | State::Done) {
            self.step(input[at], trailers)?;
            at += 1;
        }
        Ok(at)
    }

    /// How many bytes of content come next.
    pub(crate) fn content_left(&self) -> u64 {
        match self.state {
            State::Data => self.left,
            _ => 0,
        }
    }

    /// So many bytes of content, of those that come next, were taken.
    pub(crate) fn took(&mut self, n: usize) {
        self.left -= n as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    fn step(&mut self, byte: u8, trailers: &mut Vec<u8>) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b';' | b'\r') if self.digits == 0 => {
                return Err(BadChunk("a chunk without a size"));
            }
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size, b';') => State::Extension,
            (State::Size, digit) => {
                let digit = char::from(digit)
                    .to_digit(16)
                    .ok_or(BadChunk("a chunk's size"))?;
                self.digits += 1;
                if self.digits > 15 {
                    return Err(BadChunk("a chunk's size is too large"));
                }
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Extension, byte) => {
                self.extension += 1;
                if self.extension > MAX_EXTENSION || byte.is_ascii_control() && byte != b'\t' {
                    return Err(BadChunk("a chunk's extension"));
                }
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                self.extension = 0;
                if self.left > 0 {
                    State::Data
                } else {
                    trailers.clear();
                    trailers.extend_from_slice(LAST);
                    self.line = trailers.len();
                    State::Trailer
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, byte) => {
                if byte.is_ascii_control() && byte != b'\t' {
                    return Err(BadChunk("a trailer field"));
                }
                self.trailer += 1;
                if self.trailer > MAX_TRAILERS {
                    return Err(BadChunk("the trailer is too large"));
                }
                trailers.push(byte);
                State::Trailer
            }
            (State::TrailerLf, b'\n') => self.end_trailer_line(trailers)?,
            (State::Data | State::Done, _) => self.state,
            _ => return Err(BadChunk("a line ends wrongly")),
        };
        Ok(())
    }

    fn end_trailer_line(&mut self, trailers: &mut Vec<u8>) -> Result<State, BadChunk> {
        let line = &trailers[self.line..];
        if line.is_empty() {
            trailers.extend_from_slice(b"\r\n");
            return Ok(State::Done);
        }
        let bad = BadChunk("a trailer field");
        let colon = memchr::memchr(b':', line).ok_or(bad)?;
        let name = &line[..colon];
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty() || !name.iter().all(token) {
            return Err(bad);
        }
        if may_trail(name) {
            trailers.extend_from_slice(b"\r\n");
        } else {
            trailers.truncate(self.line);
        }
        self.line = trailers.len();
        Ok(State::Trailer)
    }
}

/// Whether a field may stand behind the content. What frames or routes a message, says who asks or
/// how the content is to be read has to be known before it (RFC 9110, 6.5.1; RFC 7230, 4.1.2 names
/// them): a service that takes it from here would believe what nobody on the way has looked at.
fn may_trail(name: &[u8]) -> bool {
    const NOT_HERE: [&str; 19] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "set-cookie",
        "trailer",
        "www-authenticate",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
    ];
    let is = |known: &str| name.len() == known.len() && alike(name, known.as_bytes());
    classify(name) == Known::Other && !NOT_HERE.iter().any(|known| is(known))
}

/// Appends `data` as one chunk.
pub(crate) fn append(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let (head, at) = size_line(data.len());
    out.extend_from_slice(&head[at..]);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes `data`, which is not empty, as one chunk to the beginning of `space`, which has room for
/// it: how many bytes that are.
pub(crate) fn write(space: &mut [u8], data: &[u8]) -> usize {
    let (line, at) = size_line(data.len());
    let line = &line[at..];
    let end = line.len() + data.len();
    space[..line.len()].copy_from_slice(line);
    space[line.len()..end].copy_from_slice(data);
    space[end..end + 2].copy_from_slice(b"\r\n");
    end + 2
}

/// Makes the data at `data` a chunk where it lies; there must be room around it.
pub(crate) fn wrap(raw: &mut [u8], data: Range<usize>) -> Range<usize> {
    if data.is_empty() {
        return data;
    }
    let (head, at) = size_line(data.len());
    let start = data.start - (head.len() - at);
    raw[start..data.start].copy_from_slice(&head[at..]);
    raw[data.end..data.end + 2].copy_from_slice(b"\r\n");
    start..data.end + 2
}

fn size_line(mut size: usize) -> ([u8; 18], usize) {
    let mut line = [0; 18];
    line[16..].copy_from_slice(b"\r\n");
    let mut at = 16;
    while size > 0 {
        at -= 1;
        line[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
    }
    (line, at)
}

#[cfg(test)]
mod tests;
