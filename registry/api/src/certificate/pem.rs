//! What stands in PEM texts.

use std::net::IpAddr;

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject, pem::SectionKind},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Key, MAX_CHAIN, MAX_KEY, Pem};
use crate::{Invalid, route::HostPattern};

/// The most certificates of a chain.
const MAX_LENGTH: usize = 10;

/// A chain of certificates that was read.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its own first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// About its own.
    pub facts: Facts,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The hosts it is for.
    pub hosts: Vec<HostPattern>,
    /// Further names of its owner, such as `spiffe://…`.
    pub uris: Vec<String>,
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// From when on it is valid, Unix ms.
    pub not_before: i64,
    /// Until when it is valid, Unix ms.
    pub not_after: i64,
    /// SHA-256 over all of it, in hexadecimal.
    pub fingerprint: String,
}

fn whole(message: impl Into<String>) -> Invalid {
    Invalid::field("", message)
}

impl Chain {
    /// Reads a chain; the error says what is wrong with which certificate.
    pub fn read(text: &str) -> Result<Self, Invalid> {
        let certificates = certificates(text)?;
        if certificates.len() > MAX_LENGTH {
            return Err(whole(format!("at most {MAX_LENGTH} certificates")));
        }
        let parsed: Vec<_> = certificates
            .iter()
            .enumerate()
            .map(|(i, der)| parse(i, der))
            .collect::<Result<_, _>>()?;
        for (i, pair) in parsed.windows(2).enumerate() {
            if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
                return Err(whole(format!(
                    "certificate {} is signed by `{}`, but the next one is `{}`: put the \
                     certificate of the host first, then the one that signed it, and so on",
                    i + 1,
                    pair[0].issuer(),
                    pair[1].subject()
                )));
            }
        }
        let facts = Facts::of(&parsed[0], &certificates[0])?;
        drop(parsed);
        Ok(Self {
            certificates,
            facts,
        })
    }

    /// Whether `key` is the chain's.
    pub fn fits(&self, key: &Key) -> Result<(), Invalid> {
        self.certified(key).map(drop)
    }

    /// The chain and its key, ready to be served.
    pub fn certified(&self, key: &Key) -> Result<CertifiedKey, Invalid> {
        let text = key.expose();
        if text.len() > MAX_KEY {
            return Err(whole(format!("at most {MAX_KEY} bytes")));
        }
        if text.contains("ENCRYPTED") {
            return Err(whole("the key has a passphrase: give it without one"));
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
            whole(
                "no private key in PEM form: a block that begins with -----BEGIN PRIVATE KEY-----",
            )
        })?;
        let provider = aws_lc_rs::default_provider();
        CertifiedKey::from_der(self.certificates.clone(), key, &provider).map_err(|error| {
            whole(match error {
                rustls::Error::InconsistentKeys(_) => {
                    "it is not the key of the first certificate in `chain`".to_owned()
                }
                other => format!("it cannot be used: {other}"),
            })
        })
    }
}

impl Facts {
    fn of(parsed: &X509Certificate<'_>, der: &CertificateDer<'_>) -> Result<Self, Invalid> {
        let names = parsed
            .subject_alternative_name()
            .map_err(|e| whole(format!("its subjectAltName cannot be read: {e}")))?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let mut hosts: Vec<HostPattern> = names.iter().filter_map(host).collect();
        hosts.dedup();
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let uris = uris.collect();
        let millis = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1000);
        Ok(Self {
            hosts,
            uris,
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial_as_string().replace(':', ""),
            not_before: millis(parsed.validity().not_before),
            not_after: millis(parsed.validity().not_after),
            fingerprint: fingerprint(der),
        })
    }

    /// Whether it is valid at `now` (Unix ms).
    pub fn timely(&self, now: i64) -> Result<(), Invalid> {
        let at = |ms: i64| {
            x509_parser::time::ASN1Time::from_timestamp(ms.div_euclid(1000)).map_or_else(
                |_| "a time out of reach".to_owned(),
                |time| time.to_string(),
            )
        };
        if now > self.not_after {
            return Err(whole(format!(
                "it expired on {}: clients would refuse it; give a renewed one",
                at(self.not_after)
            )));
        }
        if now < self.not_before {
            return Err(whole(format!(
                "it is not valid before {}: clients would refuse it until then; give it when its \
                 time has come",
                at(self.not_before)
            )));
        }
        Ok(())
    }

    /// What is known of a certificate that a client showed.
    pub fn of_der(der: &[u8]) -> Result<Self, Invalid> {
        let der = CertificateDer::from(der);
        Self::of(&parse(0, &der)?, &der)
    }
}

/// SHA-256 in hexadecimal.
fn fingerprint(der: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(der) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The certificates of who may sign, each readable.
pub fn authorities(text: &Pem) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let certificates = certificates(text.as_str())?;
    for (i, der) in certificates.iter().enumerate() {
        parse(i, der)?;
    }
    Ok(certificates)
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    if text.len() > MAX_CHAIN {
        return Err(whole(format!("at most {MAX_CHAIN} bytes")));
    }
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section.map_err(|e| whole(format!("no PEM: {e}")))? {
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
            (
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey,
                _,
            ) => {
                return Err(whole("a private key stands here: it belongs to `key`"));
            }
            _ => return Err(whole("only PEM blocks `CERTIFICATE` belong here")),
        }
    }
    if certificates.is_empty() {
        return Err(whole("no PEM block `CERTIFICATE` in it"));
    }
    Ok(certificates)
}

fn parse<'a>(i: usize, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Invalid> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(whole(format!("certificate {}: bytes after its end", i + 1))),
        Err(error) => Err(whole(format!("certificate {}: {error}", i + 1))),
    }
}

fn host(name: &GeneralName<'_>) -> Option<HostPattern> {
    match name {
        GeneralName::DNSName(name) => name.parse().ok().filter(|h| *h != HostPattern::Any),
        GeneralName::IPAddress(bytes) => {
            let ip = match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
                _ => return None,
            };
            match ip {
                IpAddr::V4(ip) => ip.to_string().parse().ok(),
                IpAddr::V6(ip) => format!("[{ip}]").parse().ok(),
            }
        }
        _ => None,
    }
}
