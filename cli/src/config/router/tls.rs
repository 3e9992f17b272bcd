//! Settings of `cardea router` that are about where and how TLS is spoken with callers.

use std::{fmt, net::SocketAddr, str::FromStr};

use cardea_router::TlsVersion;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::Said;

/// Where callers connect that do not speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::At);
        address.map_err(|_| "neither a socket address nor `off`".to_owned())
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Said<Option<SocketAddr>> for Listen {
    fn of(held: &Option<SocketAddr>) -> Self {
        held.map_or(Self::Off, Self::At)
    }

    fn lay_over(&self, held: &mut Option<SocketAddr>) {
        *held = match self {
            Self::Off => None,
            Self::At(address) => Some(*address),
        };
    }
}

/// The lowest version of TLS that is spoken with callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum TlsMin {
    /// 1.2 and 1.3
    #[value(name = "1.2")]
    #[serde(rename = "1.2")]
    V12,
    /// 1.3 alone
    #[value(name = "1.3")]
    #[serde(rename = "1.3")]
    V13,
}

impl Said<TlsVersion> for TlsMin {
    fn of(held: &TlsVersion) -> Self {
        match held {
            TlsVersion::V12 => Self::V12,
            TlsVersion::V13 => Self::V13,
        }
    }

    fn lay_over(&self, held: &mut TlsVersion) {
        *held = match self {
            Self::V12 => TlsVersion::V12,
            Self::V13 => TlsVersion::V13,
        };
    }
}
