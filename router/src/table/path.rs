//! How a path is read for matching: as the segments that any upstream could make of it.
//!
//! The path is forwarded as it was sent. Were it matched byte by byte, `//admin`, `/%61dmin`,
//! `/public/../admin` or `/admin;x` would reach `/admin` of an upstream that normalises, past the
//! route (and later the plugins) that stand before `/admin`. So matching sees through what servers
//! normalise, and refuses what they do not agree upon:
//!
//! - `/`, `\`, `%2F` and `%5C` part segments; empty segments do not count (`//a/` is `/a`);
//! - `%XX` stands for its byte, compared exactly; a broken escape is refused;
//! - what follows `;` in a segment (path parameters) does not count;
//! - `.` and `..` segments, in any of these spellings, are refused, as are control characters.
//!
//! The query, from the first `?`, is not looked at.

/// A longer prefix than any that can be configured.
const MAX_SEGMENT: usize = 1024;

/// A dot, which is looked at more closely where it begins a segment.
const DOT: u8 = 1;
/// Means more than itself.
const TRICKY: u8 = 2;
/// A control character.
const CONTROL: u8 = 4;
/// What parts the segments of a plain path. No class is above it.
const SEPARATOR: u8 = 8;

/// What a byte is at the first look.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'%' | b'\\' | b';' => TRICKY,
            0..0x20 | 0x7f => CONTROL,
            b'.' => DOT,
            b'/' => SEPARATOR,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Why a path is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `.` or `..`, however spelt.
    #[error("the path has `.` or `..` segments")]
    Dots,
    /// `%` without two hex digits.
    #[error("the path has a broken percent-escape")]
    Escape,
    /// A control character, plain or escaped.
    #[error("the path has a control character")]
    Control,
}

/// A path fit for matching.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    bytes: &'a [u8],
    plain: bool,
}

impl<'a> Path<'a> {
    /// Takes the path off a request target in origin form and checks it.
    pub(crate) fn parse(target: &'a [u8]) -> Result<Self, BadPath> {
        let (mut end, mut seen, mut dotted, mut before) = (target.len(), 0, 0, SEPARATOR);
        for (at, byte) in target.iter().enumerate() {
            if *byte == b'?' {
                end = at;
                break;
            }
            let class = CLASSES[usize::from(*byte)];
            seen |= class;
            dotted |= class & DOT & (before / SEPARATOR);
            before = class;
        }
        if seen & CONTROL != 0 {
            return Err(BadPath::Control);
        }
        let bytes = &target[..end];
        let plain = seen & TRICKY == 0 && dotted == 0;
        let path = Self { bytes, plain };
        if !plain {
            path.refuse_tricks()?;
        }
        Ok(path)
    }

    /// Calls `see` for each segment until it says stop.
    pub(crate) fn segments(self, mut see: impl FnMut(&[u8]) -> bool) {
        if self.plain {
            let mut segments = self.bytes.split(|byte| *byte == b'/');
            segments.all(|segment| segment.is_empty() || see(segment));
        } else {
            let mut segment = Segment::default();
            let mut decoder = Decoder(self.bytes);
            while let Ok(Some(symbol)) = decoder.next() {
                if symbol == Symbol::Separator {
                    if !segment.is_empty() && !see(segment.bytes()) {
                        return;
                    }
                    segment.clear();
                } else {
                    segment.push(symbol);
                }
            }
            if !segment.is_empty() {
                see(segment.bytes());
            }
        }
    }

    /// Whether its first segments are those of `prefix`: decoded, each behind a slash.
    pub(crate) fn is_under(self, prefix: &[u8]) -> bool {
        if self.plain
            && let Some(rest) = self.bytes.strip_prefix(prefix)
            && (rest.is_empty() || rest[0] == b'/')
        {
            return true;
        }
        let mut left = prefix;
        self.segments(|segment| {
            let rest = left.strip_prefix(b"/");
            let Some(rest) = rest.and_then(|rest| rest.strip_prefix(segment)) else {
                return false;
            };
            // A part of a segment is none.
            if !(rest.is_empty() || rest[0] == b'/') {
                return false;
            }
            left = rest;
            !left.is_empty()
        });
        left.is_empty()
    }

    /// Where the path goes on behind its first `count` segments: at the separator, or at its end.
    pub(crate) fn behind(self, count: usize) -> usize {
        let mut decoder = Decoder(self.bytes);
        let (mut seen, mut within, mut last) = (0, false, 0);
        while seen < count || within {
            let Ok(Some(symbol)) = decoder.next() else {
                return self.bytes.len();
            };
            if symbol == Symbol::Separator {
                if within && seen == count {
                    return last;
                }
                within = false;
            } else if !within {
                within = true;
                seen += 1;
            }
            last = self.bytes.len() - decoder.0.len();
        }
        last
    }

    fn refuse_tricks(self) -> Result<(), BadPath> {
        let mut decoder = Decoder(self.bytes);
        // Of the current segment: how many bytes before its parameters, and whether all were dots.
        let (mut length, mut dots, mut parameters) = (0usize, true, false);
        loop {
            match decoder.next()? {
                Some(Symbol::Byte(byte)) if !parameters => {
                    length += 1;
                    dots &= byte == b'.';
                }
                Some(Symbol::Byte(_)) => {}
                Some(Symbol::Parameters) => parameters = true,
                end @ (Some(Symbol::Separator) | None) => {
                    if dots && (length == 1 || length == 2) {
                        return Err(BadPath::Dots);
                    }
                    if end.is_none() {
                        return Ok(());
                    }
                    (length, dots, parameters) = (0, true, false);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Separator,
    /// An unescaped `;`.
    Parameters,
    Byte(u8),
}

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn next(&mut self) -> Result<Option<Symbol>, BadPath> {
        let (byte, escaped) = match *self.0 {
            [] => return Ok(None),
            [b'%', high, low, ref rest @ ..] => {
                let (Some(high), Some(low)) = (hex(high), hex(low)) else {
                    return Err(BadPath::Escape);
                };
                self.0 = rest;
                (high * 16 + low, true)
            }
            [b'%', ..] => return Err(BadPath::Escape),
            [byte, ref rest @ ..] => {
                self.0 = rest;
                (byte, false)
            }
        };
        match byte {
            b'/' | b'\\' => Ok(Some(Symbol::Separator)),
            b';' if !escaped => Ok(Some(Symbol::Parameters)),
            0..0x20 | 0x7f => Err(BadPath::Control),
            byte => Ok(Some(Symbol::Byte(byte))),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A decoded segment, on the stack. One that is longer than any prefix keeps its first bytes, which
/// is enough to equal none.
struct Segment {
    bytes: [u8; MAX_SEGMENT + 1],
    length: usize,
    parameters: bool,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_SEGMENT + 1],
            length: 0,
            parameters: false,
        }
    }
}

impl Segment {
    fn push(&mut self, symbol: Symbol) {
        match symbol {
            Symbol::Byte(byte) if !self.parameters => {
                if let Some(slot) = self.bytes.get_mut(self.length) {
                    *slot = byte;
                    self.length += 1;
                }
            }
            Symbol::Parameters => self.parameters = true,
            Symbol::Byte(_) | Symbol::Separator => {}
        }
    }

    fn clear(&mut self) {
        self.length = 0;
        self.parameters = false;
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Result<Vec<String>, BadPath> {
        let mut all = Vec::new();
        Path::parse(target.as_bytes())?.segments(|segment| {
            all.push(String::from_utf8_lossy(segment).into_owned());
            true
        });
        Ok(all)
    }

    #[test]
    fn what_upstreams_take_for_the_same_path_is_the_same() {
        for same in [
            "/admin/x",
            "/admin/x/",
            "//admin///x",
            "/%61dmin/x",
            "/admin%2Fx",
            "/admin%2fx?y=/../z",
            "/admin\\x",
            "/admin%5cx",
            "/admin;v=1/x;",
            "/admin/;a/x",
        ] {
            assert_eq!(read(same).unwrap(), ["admin", "x"], "{same}");
        }
        assert!(read("/").unwrap().is_empty());
        assert!(read("").unwrap().is_empty());
        assert_eq!(read("/.well-known/a..b").unwrap(), [".well-known", "a..b"]);
        assert_eq!(read("/...").unwrap(), ["..."]);
        assert_eq!(read("/a%20b/%E4").unwrap()[0], "a b");
        assert_eq!(read("/a%253bb").unwrap(), ["a%3bb"]);
        assert_eq!(read("/a%3Bb").unwrap(), ["a;b"]);
    }

    #[test]
    fn tricks_are_refused() {
        for dots in [
            "/public/../admin",
            "/public/..",
            "/..",
            "/.",
            "/./admin",
            "/public/%2e%2e/admin",
            "/public/.%2E/admin",
            "/public%2f..%2fadmin",
            "/public\\..\\admin",
            "/public/..%5cadmin",
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "..",
        ] {
            assert_eq!(read(dots), Err(BadPath::Dots), "{dots}");
        }
        for escape in ["/%", "/%4", "/%zz", "/a%2"] {
            assert_eq!(read(escape), Err(BadPath::Escape), "{escape}");
        }
        for control in ["/a%00b", "/a\u{1}", "/%0d%0a", "/%7F"] {
            assert_eq!(read(control), Err(BadPath::Control), "{control}");
        }
    }

    #[test]
    fn a_huge_segment_equals_no_prefix() {
        let long = format!("/%61{}", "a".repeat(5000));
        assert_eq!(read(&long).unwrap()[0].len(), MAX_SEGMENT + 1);
    }
}
