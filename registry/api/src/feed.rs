//! The feed's wire form, which is also the form of disk snapshots.
//!
//! Lines of JSON: a [`Head`], then one line an object (`{"set":"instance","key":"…","value":{…}}` or
//! `{"drop":"instance","key":"…"}`), then `{"end":COUNT,"digest":"…"}`. The digest (XXH3-128 of every
//! byte before its line) shows damage and truncation. The head's [`SetChecksum`] shows whether
//! applying a delta led to the very set the registry has: it is the sum of the hashes of all `set`
//! lines, so both sides keep it up to date in time proportional to the change.
//!
//! Reading is lenient about kinds and fields it does not know (they are hashed all the same), so an
//! older router understands a newer registry.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The format version written and understood.
pub const FORMAT: u32 = 1;
/// The media type of the feed.
pub const CONTENT_TYPE: &str = "application/x-ndjson";
/// The most an update may hold once decompressed, in bytes.
pub const MAX_BYTES: usize = 1 << 30;

/// Kinds of object that are in the feed.
pub mod kind {
    /// [`crate::Service`], by name.
    pub const SERVICE: &str = "service";
    /// [`crate::Route`], by id.
    pub const ROUTE: &str = "route";
    /// [`crate::Plugin`], by name.
    pub const PLUGIN: &str = "plugin";
    /// [`crate::Fallback`], by name.
    pub const FALLBACK: &str = "fallback";
    /// [`crate::Instance`], by `cluster/service/id`.
    pub const INSTANCE: &str = "instance";
    /// [`crate::Cluster`], by name.
    pub const CLUSTER: &str = "cluster";
    /// [`crate::Traffic`] of the feed's own cluster, by `cluster` or `cluster/service`.
    pub const TRAFFIC: &str = "traffic";
    /// [`crate::Certificate`], by name, with its key.
    pub const CERTIFICATE: &str = "certificate";
}

/// The first line of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose set this is.
    pub cluster: String,
    /// The history that `revision` belongs to. Another epoch than the last one means: full set.
    pub epoch: String,
    /// The set is what the registry had at this revision.
    pub revision: u64,
    /// For a delta: the revision it starts from (which the router said it has). None: the full set.
    pub after: Option<u64>,
    /// The checksum of the full set that this leads to.
    pub checksum: SetChecksum,
    /// How many objects the full set has.
    pub objects: u64,
    /// An operator has confirmed this history although it has less than the one before. Without it a
    /// router keeps, on a new epoch, what the new set no longer has.
    pub accepted: bool,
    /// The registry serves from memory or disk, without its database.
    pub degraded: bool,
}

/// The order-free checksum of a set of objects: the sum, modulo 2¹²⁸, of the XXH3-128 hashes of
/// their `set` lines (without the line end). Written as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetChecksum(u128);

impl SetChecksum {
    /// Adds an object's line hash.
    pub fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    /// Adds another set's checksum: the checksum of both together.
    pub fn merge(&mut self, other: Self) {
        self.add(other.0);
    }

    /// Takes an object's line hash away.
    pub fn remove(&mut self, hash: u128) {
        self.0 = self.0.wrapping_sub(hash);
    }
}

impl fmt::Display for SetChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for SetChecksum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SetChecksum {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("32 hex digits expected"))
    }
}

fn parse_hex(text: &str) -> Option<u128> {
    let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// An object's `set` line, encoded once and sent to every router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line without its line end.
    pub bytes: Box<[u8]>,
    /// XXH3-128 of `bytes`.
    pub hash: u128,
}

#[derive(Serialize)]
struct SetLine<'a, T> {
    set: &'a str,
    key: &'a str,
    value: &'a T,
}

#[derive(Serialize)]
struct DropLine<'a> {
    drop: &'a str,
    key: &'a str,
}

#[derive(Serialize, Deserialize)]
struct EndLine {
    end: u64,
    digest: String,
}

/// Encodes an object's line.
pub fn set_line<T: Serialize>(kind: &str, key: &str, value: &T) -> Result<Line, FeedError> {
    let bytes = serde_json::to_vec(&SetLine {
        set: kind,
        key,
        value,
    })
    .map_err(|e| FeedError::Encode(e.to_string()))?;
    let hash = xxh3_128(&bytes);
    Ok(Line {
        bytes: bytes.into(),
        hash,
    })
}

/// Writes an update, line by line.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    count: u64,
}

impl Encoder {
    /// Begins with the head.
    pub fn new(head: &Head) -> Result<Self, FeedError> {
        let mut out = serde_json::to_vec(head).map_err(|e| FeedError::Encode(e.to_string()))?;
        out.push(b'\n');
        Ok(Self { out, count: 0 })
    }

    /// Adds an object.
    pub fn set(&mut self, line: &Line) {
        self.out.extend_from_slice(&line.bytes);
        self.out.push(b'\n');
        self.count += 1;
    }

    /// Adds an object's removal.
    pub fn drop(&mut self, kind: &str, key: &str) -> Result<(), FeedError> {
        serde_json::to_writer(&mut self.out, &DropLine { drop: kind, key })
            .map_err(|e| FeedError::Encode(e.to_string()))?;
        self.out.push(b'\n');
        self.count += 1;
        Ok(())
    }

    /// Closes the update.
    pub fn finish(mut self) -> Vec<u8> {
        let digest = xxh3_128(&self.out);
        let end = format!("{{\"end\":{},\"digest\":\"{digest:032x}\"}}\n", self.count);
        self.out.extend_from_slice(end.as_bytes());
        self.out
    }
}

/// One line of an update, as read.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The object is now this.
    Set {
        /// Its kind; unknown ones are hashed and otherwise passed over.
        kind: String,
        /// Its key within the kind.
        key: String,
        /// XXH3-128 of its line.
        hash: u128,
        /// The object, still to be parsed and checked.
        value: Box<RawValue>,
    },
    /// The object is gone.
    Drop {
        /// Its kind.
        kind: String,
        /// Its key within the kind.
        key: String,
    },
}

/// A whole update: undamaged and complete, its objects not yet parsed.
#[derive(Debug, Clone)]
pub struct Update {
    /// The first line.
    pub head: Head,
    /// The others.
    pub entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct RawEntry {
    set: Option<String>,
    drop: Option<String>,
    #[serde(default)]
    key: String,
    value: Option<Box<RawValue>>,
}

impl Update {
    /// Reads an update; refused whole when it is damaged, cut off or of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self, FeedError> {
        let body = bytes.strip_suffix(b"\n").ok_or(FeedError::CutOff)?;
        let last = body
            .iter()
            .rposition(|b| *b == b'\n')
            .ok_or(FeedError::CutOff)?;
        let end: EndLine =
            serde_json::from_slice(&body[last + 1..]).map_err(|_| FeedError::CutOff)?;
        let mut hasher = Xxh3::new();
        hasher.update(&bytes[..=last]);
        if parse_hex(&end.digest) != Some(hasher.digest128()) {
            return Err(FeedError::Damaged);
        }
        let mut lines = body[..last].split(|b| *b == b'\n');
        let head: Head = lines.next().ok_or(FeedError::CutOff).and_then(|line| {
            serde_json::from_slice(line).map_err(|e| FeedError::Head(e.to_string()))
        })?;
        if head.format != FORMAT {
            return Err(FeedError::Format(head.format));
        }
        let entries = lines
            .enumerate()
            .map(|(i, line)| {
                Entry::parse(line).map_err(|reason| FeedError::Line {
                    line: i + 2,
                    reason,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if entries.len() as u64 != end.end {
            return Err(FeedError::CutOff);
        }
        Ok(Self { head, entries })
    }
}

impl Entry {
    /// Reads one line (without its line end); the error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let raw: RawEntry = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        match raw {
            RawEntry {
                set: Some(kind),
                drop: None,
                key,
                value: Some(value),
            } => Ok(Self::Set {
                kind,
                key,
                hash: xxh3_128(line),
                value,
            }),
            RawEntry {
                set: None,
                drop: Some(kind),
                key,
                ..
            } => Ok(Self::Drop { kind, key }),
            _ => Err("neither `set` nor `drop`".to_owned()),
        }
    }
}

/// Why an update cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The end is missing.
    #[error("the update is cut off")]
    CutOff,
    /// The digest does not fit the bytes.
    #[error("the update is damaged: its digest does not fit")]
    Damaged,
    /// The head cannot be read.
    #[error("the update's head cannot be read: {0}")]
    Head(String),
    /// Written by a registry that is too new or too old.
    #[error("format {0} is not understood (this program reads format {FORMAT})")]
    Format(u32),
    /// A line cannot be read.
    #[error("line {line} of the update cannot be read: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// It could not be written.
    #[error("the update cannot be encoded: {0}")]
    Encode(String),
    /// It could not be decompressed, or is larger than [`MAX_BYTES`].
    #[error("the update cannot be decompressed: {0}")]
    Compression(String),
}

/// Content codings of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard, level 1.
    Zstd,
    /// gzip, fast.
    Gzip,
    /// As it is.
    Identity,
}

impl Coding {
    /// The `Content-Encoding` token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// From a `Content-Encoding` header; none means identity.
    pub fn from_header(value: Option<&str>) -> Result<Self, FeedError> {
        match value.map(str::trim) {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("zstd") => Ok(Self::Zstd),
            Some("gzip") => Ok(Self::Gzip),
            Some(other) => Err(FeedError::Compression(format!("unknown coding `{other}`"))),
        }
    }

    /// Compresses.
    pub fn encode(self, bytes: &[u8]) -> Result<Vec<u8>, FeedError> {
        let failed = |e: std::io::Error| FeedError::Compression(e.to_string());
        match self {
            Self::Identity => Ok(bytes.to_vec()),
            Self::Zstd => zstd::bulk::compress(bytes, 1).map_err(failed),
            Self::Gzip => {
                use std::io::Write;
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes)
                    .and_then(|()| out.finish())
                    .map_err(failed)
            }
        }
    }

    /// Decompresses, up to [`MAX_BYTES`].
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<u8>, FeedError> {
        use std::io::Read;
        let failed = |e: std::io::Error| FeedError::Compression(e.to_string());
        let limit = MAX_BYTES as u64 + 1;
        let mut out = Vec::new();
        match self {
            Self::Identity => return Ok(bytes.to_vec()),
            Self::Zstd => zstd::stream::read::Decoder::new(bytes)
                .and_then(|decoder| decoder.take(limit).read_to_end(&mut out)),
            Self::Gzip => flate2::read::GzDecoder::new(bytes)
                .take(limit)
                .read_to_end(&mut out),
        }
        .map_err(failed)?;
        if out.len() > MAX_BYTES {
            return Err(FeedError::Compression(format!(
                "larger than {MAX_BYTES} bytes"
            )));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
