//! Why a handshake failed: a closed set, for metrics.

use std::io;

use rustls::{AlertDescription, Error, PeerIncompatible};

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It took too long.
    Timeout,
    /// The other side closed the connection.
    Closed,
    /// What came is no TLS, or broken.
    NotTls,
    /// There is no certificate for the host that the client named, or none at all.
    NoCertificate,
    /// No version, cipher or the like that both sides know.
    Incompatible,
    /// No protocol inside of TLS that both sides know, or not the one that was asked for (ALPN).
    Alpn,
    /// The other side's certificate was missing or is not trusted.
    Certificate,
    /// The other side refused with an alert: it may not trust our certificate.
    Alert,
    /// There was no table yet.
    NotReady,
    /// Something else.
    Other,
}

/// A failed handshake.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) reason: Reason,
    pub(crate) error: io::Error,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Closed,
        Self::NotTls,
        Self::NoCertificate,
        Self::Incompatible,
        Self::Alpn,
        Self::Certificate,
        Self::Alert,
        Self::NotReady,
        Self::Other,
    ];

    /// As it stands in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::Certificate => "peer_certificate",
            Self::Alert => "alert",
            Self::NotReady => "not_ready",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(inner) => Self::of_tls(inner),
            None if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            None => Self::Closed,
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord
            | Error::PeerMisbehaved(_)
            | Error::DecryptError => Self::NotTls,
            Error::PeerIncompatible(
                PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
            )
            | Error::NoCertificatesPresented
            | Error::InvalidCertificate(_) => Self::Certificate,
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::Alpn,
            Error::PeerIncompatible(_) => Self::Incompatible,
            Error::AlertReceived(_) => Self::Alert,
            // The only thing that a server says so.
            Error::General(text) if text.contains("certificate chain resolved") => {
                Self::NoCertificate
            }
            _ => Self::Other,
        }
    }
}

impl Failed {
    /// There is nothing yet to serve a client with.
    pub(crate) fn not_ready() -> Self {
        Self {
            reason: Reason::NotReady,
            error: io::Error::other("there are no certificates yet"),
        }
    }

    /// The other side speaks TLS, but within it not what it was asked for.
    pub(super) fn no_http2() -> Self {
        Self {
            reason: Reason::Alpn,
            error: io::Error::other("it does not agree on HTTP/2 (ALPN `h2`)"),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            reason: Reason::of(&error),
            error,
        }
    }
}
