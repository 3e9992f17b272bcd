//! Response heads: a peer's answer is passed on only when it can be framed beyond doubt.

use crate::http1::{
    head::{Connection, Field, Known, MAX_FIELDS, OWN_FIELDS, Span, parse_length, read_connection},
    lines::{Fault, Lines, StatusLine, Stop},
    request::{Framing, Method},
};

/// An answer that cannot be framed, or is no HTTP at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed response: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A response's head. Positions count from the beginning of the buffer's raw bytes.
#[derive(Debug, Default)]
pub(crate) struct ResponseHead {
    /// Bytes of the head.
    pub(crate) len: usize,
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) framing: Framing,
    /// The peer keeps the connection.
    pub(crate) keep_alive: bool,
    /// The protocol of a `101`.
    pub(crate) upgrade: Option<Span>,
    /// There is a `Date`.
    pub(crate) has_date: bool,
    /// Every field, in order.
    pub(crate) fields: Vec<Field>,
    /// Where the fields end: the empty line.
    pub(crate) fields_end: u32,
}

impl ResponseHead {
    /// Reads a head that begins at `raw[at]` and ends before `raw[end]`; `false`: it is not
    /// complete yet.
    pub(crate) fn parse(
        &mut self,
        raw: &[u8],
        at: usize,
        end: usize,
        method: Method,
    ) -> Result<bool, Malformed> {
        self.parse_up_to(MAX_FIELDS, raw, at, end, method)
    }

    /// The same of a head that the router has written, at the beginning of `raw`.
    pub(crate) fn parse_own(&mut self, raw: &[u8], method: Method) -> Result<bool, Malformed> {
        self.parse_up_to(OWN_FIELDS, raw, 0, raw.len(), method)
    }

    fn parse_up_to(
        &mut self,
        most: usize,
        raw: &[u8],
        at: usize,
        end: usize,
        method: Method,
    ) -> Result<bool, Malformed> {
        let mut lines = Lines::new(raw, at, end);
        let line = match self.read_lines(&mut lines, most) {
            Ok(line) => line,
            Err(Stop::Incomplete) => return Ok(false),
            Err(Stop::Fault(fault)) => return Err(Malformed(name(fault))),
        };
        if !(100..=599).contains(&line.status) {
            return Err(Malformed("the status"));
        }
        self.len = lines.at() - at;
        self.fields_end = u32::try_from(lines.at() - 2).unwrap_or(0);
        self.status = line.status;
        self.reason = line.reason;
        let connection = read_connection(raw, &mut self.fields);
        self.read_fields(raw, line.http11, connection, method)?;
        Ok(true)
    }

    fn read_lines(&mut self, lines: &mut Lines<'_>, most: usize) -> Result<StatusLine, Stop> {
        let line = lines.status_line()?;
        lines.fields(most, &mut self.fields)?;
        Ok(line)
    }

    fn read_fields(
        &mut self,
        raw: &[u8],
        http11: bool,
        connection: Connection,
        method: Method,
    ) -> Result<(), Malformed> {
        self.upgrade = None;
        self.has_date = false;
        let (mut length, mut chunked) = (None, false);
        for field in &self.fields {
            let value = field.value.of(raw);
            match field.known {
                Known::ContentLength => {
                    let value = parse_length(value).ok_or(Malformed("Content-Length"))?;
                    if length.replace(value).is_some_and(|other| other != value) {
                        return Err(Malformed("conflicting Content-Length"));
                    }
                }
                Known::TransferEncoding => {
                    if chunked || !http11 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed("Transfer-Encoding"));
                    }
                    chunked = true;
                }
                Known::Upgrade if self.upgrade.is_some() && self.status == 101 => {
                    return Err(Malformed("more than one Upgrade"));
                }
                Known::Upgrade => self.upgrade = Some(field.value),
                Known::Date => self.has_date = true,
                _ => {}
            }
        }
        if chunked && length.is_some() {
            return Err(Malformed("both Content-Length and Transfer-Encoding"));
        }
        // Neither can have a body: who announces one may send it, too (RFC 9110, 8.6; 9112, 6.1).
        let announces = chunked || length.is_some_and(|length| length > 0);
        if announces && matches!(self.status, 100..=199) {
            return Err(Malformed("an interim response with a body"));
        }
        let bodiless = method == Method::Head || matches!(self.status, 100..=199 | 204 | 304);
        self.framing = match (length, chunked) {
            _ if bodiless => Framing::None,
            (_, true) => Framing::Chunked,
            (Some(0), _) => Framing::None,
            (Some(length), _) => Framing::Length(length),
            (None, _) => Framing::UntilClose,
        };
        self.keep_alive = !connection.close
            && (http11 || connection.keep_alive)
            && !(announces && self.status == 204)
            && self.framing != Framing::UntilClose;
        Ok(())
    }

    /// Whether this is a `1xx` before the response proper.
    pub(crate) fn interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Name | Fault::Value => "a header field",
        Fault::TooMany => "too many fields",
        Fault::BareLf => "a line ends without a carriage return",
        Fault::StartLine | Fault::Target | Fault::Version => "the status line",
    }
}

#[cfg(test)]
mod tests;
