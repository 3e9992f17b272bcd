//! TLS: what clients connect through, and what peers are asked through.
//!
//! The protocol is rustls'; its records go straight between the kernel and the buffers of whoever
//! reads and writes ([`stream`]), so that an idle connection costs little more than its keys. Which
//! certificate a client gets is decided by the host it names, in the set that belongs to the table of
//! the moment ([`certificates`]): a new table means a new set, and connections that are open go on.

use cardea_registry_api::Name;
use rustls::{
    ProtocolVersion, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

mod accept;
mod certificates;
mod client_cert;
mod connect;
pub(crate) mod expiry;
mod failure;
mod serve;
mod session;
mod stream;
mod tickets;

pub(crate) use accept::accept;
pub(crate) use certificates::{Certificates, Maker};
pub(crate) use connect::Terms;
pub(crate) use failure::{Failed, Reason};
pub(crate) use serve::serve;
pub(crate) use stream::TlsStream;
pub(crate) use tickets::{Secret, Tickets};

/// The versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

impl Version {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::V12, Self::V13];

    /// It and what came after it.
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        static FROM_13: &[&SupportedProtocolVersion] = &[&TLS13];
        match self {
            Self::V12 => FROM_12,
            Self::V13 => FROM_13,
        }
    }

    /// As it stands in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

/// What the two sides agreed on.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: Version,
    /// An earlier session was taken up again.
    pub(crate) resumed: bool,
    /// HTTP/2 was agreed on.
    pub(crate) http2: bool,
    /// Whose terms for clients the connection was made on; none: clients are not asked.
    asked: Option<Name>,
    /// What is known of the client's certificate, as services are told.
    client_cert: Box<str>,
}

impl Facts {
    fn of(session: &session::Session, asked: Option<Name>) -> Self {
        let common = session.common();
        let shown = asked.as_ref().and(common.peer_certificates());
        let shown = shown.and_then(|chain| client_cert::describe(chain.first()?));
        Self {
            asked,
            client_cert: shown.unwrap_or_default().into(),
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Version::V12,
                _ => Version::V13,
            },
            http2: common.alpn_protocol() == Some(b"h2"),
            resumed: common.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }

    /// Whose terms for clients the connection was made on.
    pub(crate) fn asked(&self) -> Option<&Name> {
        self.asked.as_ref()
    }

    /// What is known of the client's certificate, empty where it has shown none; none: it was not
    /// asked.
    pub(crate) fn client_cert(&self) -> Option<&str> {
        self.asked.as_ref().map(|_| &*self.client_cert)
    }
}
