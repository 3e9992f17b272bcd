//! Claims of bearer tokens (RFC 6750 with JSON Web Tokens, RFC 7519), read and not verified: whoever
//! makes up a token makes up its claims.

use std::cell::OnceCell;

/// The longest payload that is read, in bytes; of longer ones no claim is known.
const LONGEST: usize = 2048;
/// How deep what lies beside a claim may be nested.
const DEEPEST: usize = 32;

/// A request's bearer token. It is decoded when a claim is asked for first, into the room that is here:
/// a request must not allocate.
#[derive(Debug, Default)]
pub(crate) struct Token(OnceCell<Option<Payload>>);

#[derive(Debug)]
struct Payload {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Token {
    /// A claim's value of the token in this `Authorization`: a string as it is written, or a number,
    /// `true` or `false`. None: there is no token, or it has no such claim, or it has it twice.
    pub(crate) fn claim(&self, authorization: Option<&[u8]>, name: &str) -> Option<&[u8]> {
        let payload = self
            .0
            .get_or_init(|| decode(encoded(authorization?)?))
            .as_ref()?;
        claim(&payload.bytes[..payload.len], name.as_bytes())
    }
}

/// The middle one of the three parts of a bearer token.
fn encoded(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    let mut parts = token.trim_ascii().split(|b| *b == b'.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = scheme.eq_ignore_ascii_case(b"Bearer ")
        && !header.is_empty()
        && !signature.is_empty()
        && parts.next().is_none();
    fits.then_some(payload)
}

/// Base64 for URLs, without padding (RFC 4648, 5).
fn decode(text: &[u8]) -> Option<Payload> {
    if text.len() % 4 == 1 || text.len() / 4 * 3 + 3 > LONGEST {
        return None;
    }
    let mut payload = Payload {
        bytes: [0; LONGEST],
        len: 0,
    };
    for four in text.chunks(4) {
        let mut bits = 0u32;
        for digit in four {
            bits = bits << 6 | u32::from(value(*digit)?);
        }
        let bits = bits << (6 * (4 - four.len()));
        let count = four.len() * 6 / 8;
        payload.bytes[payload.len..payload.len + count]
            .copy_from_slice(&bits.to_be_bytes()[1..=count]);
        payload.len += count;
    }
    Some(payload)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// The claim of a JSON object. What follows it is read too: a claim that is there twice is not
/// believed, since others may read the other one.
fn claim<'j>(json: &'j [u8], name: &[u8]) -> Option<&'j [u8]> {
    let mut reader = Reader(json);
    let mut found = None;
    reader.take(b'{')?;
    if reader.take(b'}').is_none() {
        loop {
            let key = reader.string()?;
            reader.take(b':')?;
            let value = reader.value()?;
            // A name with escaped letters may be any, also this one.
            let hidden = key.windows(2).any(|two| two == b"\\u");
            if hidden || key == name && found.is_some() {
                return None;
            }
            if key == name {
                found = Some(value);
            }
            if reader.take(b',').is_none() {
                break;
            }
        }
        reader.take(b'}')?;
    }
    reader.skip();
    found.filter(|value| reader.0.is_empty() && !value.is_empty())
}

/// Reads JSON where only its outline matters.
struct Reader<'j>(&'j [u8]);

impl<'j> Reader<'j> {
    fn skip(&mut self) {
        let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        let end = self.0.iter().position(|b| !space(b));
        self.0 = &self.0[end.unwrap_or(self.0.len())..];
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip();
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// What is between the quotes.
    fn string(&mut self) -> Option<&'j [u8]> {
        self.take(b'"')?;
        let mut at = 0;
        loop {
            match self.0.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let (text, rest) = self.0.split_at_checked(at)?;
        self.0 = &rest[1..];
        Some(text)
    }

    /// A value; empty, if it is nothing that a key could be.
    fn value(&mut self) -> Option<&'j [u8]> {
        self.skip();
        match self.0.first()? {
            b'"' => {
                let text = self.string()?;
                let plain = !text.contains(&b'\\');
                Some(if plain { text } else { b"" })
            }
            b'{' | b'[' => {
                self.nested()?;
                Some(b"")
            }
            _ => {
                let end = self
                    .0
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))?;
                let (text, rest) = self.0.split_at(end);
                self.0 = rest;
                let known = text == b"true"
                    || text == b"false"
                    || text
                        .first()
                        .is_some_and(|b| b.is_ascii_digit() || *b == b'-');
                match text {
                    b"null" => Some(b""),
                    text => known.then_some(text),
                }
            }
        }
    }

    fn nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.skip();
            match self.0.first()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.0 = &self.0[1..];
            if depth == 0 {
                return Some(());
            }
            if depth > DEEPEST {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
