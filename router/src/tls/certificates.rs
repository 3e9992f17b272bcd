//! Which certificate a client gets: that of the host it names, else that of `*.` in place of the
//! host's first label, else the default one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    http1::request::host_name,
    tls::{Facts, Tickets, Version},
};
use cardea_registry_api::{
    Certificate, Name,
    certificate::{ClientAuth, ClientAuthMode, authorities},
    route::HostPattern,
};
use rustls::{
    Error, RootCertStore, ServerConfig, SignatureAlgorithm,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};

/// What is offered inside of TLS, the better first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Makes sets of certificates and keeps what outlives them: keys of session tickets, so that clients
/// can take up their sessions whatever changes.
#[derive(Debug)]
pub(crate) struct Maker {
    provider: Arc<CryptoProvider>,
    /// The lowest that is spoken.
    lowest: Version,
    tickets: Arc<Tickets>,
    /// A session that began under other terms for clients must not go on under these.
    strict_tickets: HashMap<ClientAuth, Option<Arc<dyn ProducesTickets>>>,
    /// Checking a key against its certificate costs as much as a handshake.
    known: HashMap<Name, (Arc<Certificate>, Arc<Served>)>,
}

/// A certificate that can be served.
#[derive(Debug)]
struct Served {
    name: Name,
    key: Arc<CertifiedKey>,
    hosts: Vec<HostPattern>,
    not_before: i64,
    not_after: i64,
}

/// A table's certificates.
#[derive(Debug)]
pub(crate) struct Certificates {
    common: Arc<ServerConfig>,
    hosts: Arc<Hosts>,
    /// Those for hosts whose clients have to show certificates.
    strict: HashMap<ClientAuth, Arc<ServerConfig>>,
    asks: bool,
    served: Vec<Arc<Served>>,
}

/// The certificates by host.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Choice>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Choice>,
    default: Choice,
}

/// What there is for a host: the first that the client can check is taken.
#[derive(Debug, Default)]
struct Choice {
    served: Vec<Arc<Served>>,
    /// What its clients have to show, and whose word that is.
    auth: Option<(Name, ClientAuth)>,
}

/// When a certificate is valid.
#[derive(Debug)]
pub(crate) struct Validity<'a> {
    pub(crate) name: &'a Name,
    /// Unix ms.
    pub(crate) not_before: i64,
    /// Unix ms.
    pub(crate) not_after: i64,
}

/// Keys for the tickets of clients that show certificates, changed every six hours. Without random
/// numbers there are no tickets.
fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    aws_lc_rs::Ticketer::new()
        .inspect_err(|error| tracing::warn!(%error, "sessions cannot be taken up again"))
        .ok()
}

impl Maker {
    /// Of sets for clients that speak this version or a later one.
    pub(crate) fn new(lowest: Version, tickets: Arc<Tickets>) -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            lowest,
            tickets,
            strict_tickets: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// The set of `certificates`, and why some of them are not in it.
    pub(crate) fn make<'c>(
        &mut self,
        certificates: impl Iterator<Item = &'c Arc<Certificate>>,
    ) -> Result<(Certificates, Vec<(Name, String)>), Error> {
        let mut refused = Vec::new();
        let mut served = Vec::new();
        let mut known = std::mem::take(&mut self.known);
        for certificate in certificates {
            let name = &certificate.name;
            match known.remove(name).filter(|(of, _)| of == certificate) {
                Some(entry) => served.push(entry),
                None => match Served::new(certificate) {
                    Ok(new) => served.push((Arc::clone(certificate), Arc::new(new))),
                    Err(why) => refused.push((name.clone(), why)),
                },
            }
        }
        let hosts = Arc::new(Hosts::new(&served));
        let mut strict = HashMap::new();
        for auth in hosts.auths() {
            match self.strict(auth, &hosts) {
                Ok(config) => {
                    strict.insert(auth.clone(), config);
                }
                Err(why) => refused.extend(hosts.of(auth).map(|name| (name, why.clone()))),
            }
        }
        self.strict_tickets
            .retain(|auth, _| strict.contains_key(auth));
        let common = self.config(None, &hosts, Some(Arc::clone(&self.tickets) as _))?;
        let all = served
            .iter()
            .map(|(_, served)| Arc::clone(served))
            .collect();
        self.known = served
            .into_iter()
            .map(|(of, served)| (of.name.clone(), (of, served)))
            .collect();
        let asks = hosts.auths().next().is_some();
        let set = Certificates {
            common,
            asks,
            hosts,
            strict,
            served: all,
        };
        Ok((set, refused))
    }

    fn strict(
        &mut self,
        auth: &ClientAuth,
        hosts: &Arc<Hosts>,
    ) -> Result<Arc<ServerConfig>, String> {
        let tickets = self
            .strict_tickets
            .entry(auth.clone())
            .or_insert_with(tickets)
            .clone();
        let config = self.config(Some(auth), hosts, tickets);
        config.map_err(|e| format!("its client_auth cannot be used: {e}"))
    }

    fn config(
        &self,
        auth: Option<&ClientAuth>,
        hosts: &Arc<Hosts>,
        tickets: Option<Arc<dyn ProducesTickets>>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.lowest.and_later())?;
        let builder = match auth {
            None => builder.with_no_client_auth(),
            Some(auth) => {
                let mut roots = RootCertStore::empty();
                let certificates =
                    authorities(&auth.ca).map_err(|e| Error::General(e.to_string()))?;
                for certificate in certificates {
                    roots.add(certificate)?;
                }
                let provider = Arc::clone(&self.provider);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match auth.mode {
                    ClientAuthMode::Required => verifier,
                    ClientAuthMode::Optional => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|e| Error::General(e.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver {
            hosts: Arc::clone(hosts),
            auth: auth.cloned(),
        }));
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match tickets {
            Some(tickets) => config.ticketer = tickets,
            None => config.send_tls13_tickets = 0,
        }
        Ok(Arc::new(config))
    }
}

/// Chooses for the clients that one configuration is for.
#[derive(Debug)]
struct Resolver {
    hosts: Arc<Hosts>,
    auth: Option<ClientAuth>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = self.hosts.choice(hello.server_name());
        // A name that could be read in two ways is not served under weaker terms.
        if choice.auth() != self.auth.as_ref() {
            return None;
        }
        let schemes = hello.signature_schemes();
        let fits = |served: &&Arc<Served>| served.key.key.choose_scheme(schemes).is_some();
        let served = choice.served.iter().find(fits);
        Some(Arc::clone(&served.or(choice.served.first())?.key))
    }
}

impl Served {
    fn new(certificate: &Certificate) -> Result<Self, String> {
        let text = |e: cardea_registry_api::Invalid| e.to_string();
        let (chain, hosts) = certificate.read().map_err(text)?;
        let key = chain.certified(&certificate.key).map_err(text)?;
        Ok(Self {
            name: certificate.name.clone(),
            key: Arc::new(key),
            hosts,
            not_before: chain.facts.not_before,
            not_after: chain.facts.not_after,
        })
    }

    /// Elliptic curves before RSA, which costs a server ten times as much; then what lasts longer.
    fn rank(&self) -> (bool, std::cmp::Reverse<i64>) {
        let rsa = self.key.key.algorithm() == SignatureAlgorithm::RSA;
        (rsa, std::cmp::Reverse(self.not_after))
    }
}

impl Hosts {
    fn new(all: &[(Arc<Certificate>, Arc<Served>)]) -> Self {
        let mut hosts = Self::default();
        let mut ordered: Vec<_> = all.iter().collect();
        ordered.sort_by_key(|(_, served)| served.rank());
        let alone = all.len() == 1;
        for (certificate, served) in ordered {
            let auth = certificate.client_auth.as_ref();
            for host in &served.hosts {
                match host {
                    HostPattern::Exact(host) => {
                        hosts.exact.entry(host.as_str().into()).or_default()
                    }
                    HostPattern::Suffix(suffix) => {
                        hosts.wildcard.entry(suffix.as_str().into()).or_default()
                    }
                    HostPattern::Any => continue,
                }
                .add(served, auth);
            }
            if certificate.default || alone {
                hosts.default.add(served, auth);
            }
        }
        hosts
    }

    fn choice(&self, name: Option<&str>) -> &Choice {
        let Some(name) = name else {
            return &self.default;
        };
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || {
            let (_, suffix) = name.split_once('.')?;
            self.wildcard.get(suffix)
        };
        let found = self.exact.get(name).or_else(wildcard);
        found.unwrap_or(&self.default)
    }

    fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.exact
            .values()
            .chain(self.wildcard.values())
            .chain([&self.default])
    }

    fn auths(&self) -> impl Iterator<Item = &ClientAuth> {
        self.choices().filter_map(Choice::auth)
    }

    /// The certificates whose hosts have these terms.
    fn of(&self, auth: &ClientAuth) -> impl Iterator<Item = Name> {
        let names: std::collections::BTreeSet<Name> = self
            .choices()
            .filter(|choice| choice.auth() == Some(auth))
            .flat_map(|choice| choice.served.iter().map(|served| served.name.clone()))
            .collect();
        names.into_iter()
    }
}

impl Choice {
    fn auth(&self) -> Option<&ClientAuth> {
        self.auth.as_ref().map(|(_, auth)| auth)
    }

    /// Where certificates of one host differ in what clients must show, the stricter one holds.
    fn add(&mut self, served: &Arc<Served>, auth: Option<&ClientAuth>) {
        let strictness = |auth: Option<&ClientAuth>| match auth.map(|auth| auth.mode) {
            None => 0,
            Some(ClientAuthMode::Optional) => 1,
            Some(ClientAuthMode::Required) => 2,
        };
        if strictness(auth) > strictness(self.auth()) {
            self.auth = auth.map(|auth| (served.name.clone(), auth.clone()));
        }
        self.served.push(Arc::clone(served));
    }
}

impl Certificates {
    /// Whether clients of some host are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.asks
    }

    /// The configuration for hosts whose clients are not asked.
    pub(super) fn common(&self) -> &Arc<ServerConfig> {
        &self.common
    }

    /// The configuration for clients that name this host, and whose terms they are. Where terms
    /// cannot be met, that is one which finds no certificate.
    pub(super) fn config(&self, name: Option<&str>) -> (&Arc<ServerConfig>, Option<&Name>) {
        let Some((of, auth)) = &self.hosts.choice(name).auth else {
            return (&self.common, None);
        };
        (self.strict.get(auth).unwrap_or(&self.common), Some(of))
    }

    /// Whether a request for `authority` must not be answered on the connection that it came on: its
    /// client was asked for certificates on other terms than this host's, or not at all. `facts`: of
    /// the connection; none: it is no TLS.
    pub(crate) fn misdirects(&self, authority: &[u8], facts: Option<&Facts>) -> bool {
        let host = host_name(authority).and_then(|host| std::str::from_utf8(host).ok());
        let wanted = self.hosts.choice(host).auth.as_ref();
        match facts {
            None => wanted.is_some_and(|(_, auth)| auth.mode == ClientAuthMode::Required),
            Some(facts) => facts.asked() != wanted.map(|(of, _)| of),
        }
    }

    /// When each of them is valid, by name.
    pub(crate) fn validities(&self) -> impl Iterator<Item = Validity<'_>> {
        let by_name: BTreeMap<_, _> = self.served.iter().map(|s| (&s.name, s)).collect();
        by_name.into_values().map(|served| Validity {
            name: &served.name,
            not_before: served.not_before,
            not_after: served.not_after,
        })
    }
}
