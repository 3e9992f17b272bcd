//! What is written about a request: templates filled in, paths rewritten.

use cardea_registry_api::{
    Invalid,
    plugin::{HeaderEdits, Part, PathRewrite, Template, Variable, when},
};

use super::{asked::Asked, scratch::Scratch};
use crate::{
    http1::{render::line, request::host_name},
    table::Path,
};

/// What templates may say beyond the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) asked: &'a Asked<'a>,
    pub(crate) route: &'a str,
    pub(crate) service: &'a str,
    /// How many segments the route's prefix has.
    pub(crate) segments: usize,
}

impl<'a> About<'a> {
    /// The path behind the route's prefix.
    pub(crate) fn rest(&self) -> &'a [u8] {
        let path = self.asked.path;
        let at = Path::parse(path).map_or(path.len(), |parsed| parsed.behind(self.segments));
        &path[at..]
    }

    /// Appends a template, filled in.
    pub(crate) fn fill(
        &self,
        template: &Template,
        groups: Option<&regex::bytes::Captures<'_>>,
        out: &mut Vec<u8>,
    ) {
        for part in template.parts() {
            let variable = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            let asked = self.asked;
            let value = match variable {
                Variable::Host => asked.host,
                Variable::Path => asked.path,
                Variable::Query if asked.query.is_empty() => b"",
                Variable::Query => {
                    out.push(b'?');
                    asked.query
                }
                Variable::Rest => self.rest(),
                Variable::Client => asked.client_text,
                Variable::Scheme => asked.scheme.as_bytes(),
                Variable::RequestId => asked.request_id,
                Variable::Route => self.route.as_bytes(),
                Variable::Service => self.service.as_bytes(),
                Variable::Header(name) => asked.header(name).unwrap_or_default(),
                Variable::Group(n) => groups
                    .and_then(|groups| groups.get(usize::from(*n)))
                    .map(|group| group.as_bytes())
                    .unwrap_or_default(),
            };
            out.extend_from_slice(value);
        }
    }
}

/// Headers to edit, made ready.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Names that do not go on: those taken out, and those that others stand in for.
    pub(crate) gone: Box<[Box<[u8]>]>,
    lines: Box<[(Box<[u8]>, Template)]>,
}

impl From<&HeaderEdits> for Edits {
    fn from(edits: &HeaderEdits) -> Self {
        let bytes = |name: &String| -> Box<[u8]> { name.as_bytes().into() };
        let gone = edits.set.keys().chain(&edits.remove);
        let lines = edits.set.iter().chain(&edits.add);
        Self {
            gone: gone.map(bytes).collect(),
            lines: lines.map(|(name, to)| (bytes(name), to.clone())).collect(),
        }
    }
}

impl Edits {
    /// Appends the lines that are put in.
    pub(crate) fn lines(&self, about: &About<'_>, value: &mut Vec<u8>, out: &mut Vec<u8>) {
        for (name, template) in &self.lines {
            value.clear();
            about.fill(template, None, value);
            line(out, name, value);
        }
    }
}

/// A path's new form, made ready.
#[derive(Debug)]
pub(crate) struct NewPath {
    matches: regex::bytes::Regex,
    to: Template,
}

impl NewPath {
    /// Makes a checked one ready.
    pub(crate) fn new(rewrite: &PathRewrite) -> Result<Self, Invalid> {
        Ok(Self {
            matches: when::regex(&rewrite.matches)?,
            to: rewrite.to.clone(),
        })
    }

    /// Writes the new path to `out`; `false`: the old one stays.
    pub(crate) fn write(&self, about: &About<'_>, out: &mut Vec<u8>) -> bool {
        let path = about.asked.path;
        let Some(groups) = self
            .matches
            .captures(path)
            .filter(|_| path.starts_with(b"/"))
        else {
            return false;
        };
        about.fill(&self.to, Some(&groups), out);
        true
    }
}

/// Writes a path whose first segments are another prefix now.
pub(crate) fn write_prefix(prefix: &str, about: &About<'_>, out: &mut Vec<u8>) {
    if !about.asked.path.starts_with(b"/") {
        // `OPTIONS *` is about the whole server.
        return;
    }
    let rest = about.rest();
    out.extend_from_slice(prefix.trim_end_matches('/').as_bytes());
    out.extend_from_slice(rest);
    if out.is_empty() {
        out.push(b'/');
    }
}

/// Whether the path and the host that were written, if any were, can be sent.
pub(super) fn is_fit(scratch: &Scratch) -> bool {
    let host = || host_name(&scratch.host).is_some_and(|name| !name.is_empty());
    (scratch.path.is_empty() || is_path(&scratch.path)) && (scratch.host.is_empty() || host())
}

/// Whether what was made of a path can stand in a request line, and is read alike by all servers.
pub(crate) fn is_path(path: &[u8]) -> bool {
    let clean = path
        .iter()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
    path.first() == Some(&b'/') && clean && Path::parse(path).is_ok()
}

#[cfg(test)]
mod tests;
