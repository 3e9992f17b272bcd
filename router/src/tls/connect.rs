//! The handshake with a peer: whose word counts, and under which name the peer is known.

use std::{
    fmt,
    future::poll_fn,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cardea_registry_api::{
    certificate::authorities,
    policy::{Protocol, UpstreamTls, Verify},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        UnbufferedClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;

use crate::{
    timer::Timer,
    tls::{
        Facts, Failed, TlsStream, accept,
        session::{Session, broken},
        stream::Inner,
    },
};

/// How a service's peers are asked through TLS.
pub(crate) struct Terms {
    config: Arc<ClientConfig>,
    /// None: the peer's own host.
    name: Option<ServerName<'static>>,
    /// Within it HTTP/2 is spoken, or nothing.
    http2: bool,
    /// Another one for each: connections that were made under other terms are not used.
    number: u64,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Terms {
    /// As a service asks for it, to speak this protocol.
    pub(crate) fn new(tls: &UpstreamTls, protocol: Protocol) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let mut config = match tls.verify {
            Verify::Full => {
                let roots = match &tls.ca {
                    Some(ca) => {
                        let mut roots = RootCertStore::empty();
                        for certificate in authorities(ca).map_err(|e| format!("ca: {e}"))? {
                            roots.add(certificate).map_err(|e| format!("ca: {e}"))?;
                        }
                        Arc::new(roots)
                    }
                    None => system_roots()?,
                };
                builder.with_root_certificates(roots)
            }
            Verify::None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        }
        .with_no_client_auth();
        let http2 = protocol.is_http2();
        // One only: which protocol it is was decided before, and a peer that chose another one would
        // be asked in what it does not expect.
        let inside: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![inside.to_vec()];
        let name = match &tls.name {
            None => None,
            Some(name) => {
                let name = ServerName::try_from(name.clone());
                Some(name.map_err(|_| "name: no host name".to_owned())?)
            }
        };
        Ok(Self {
            config: Arc::new(config),
            name,
            http2,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// What tells connections under these terms from others.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Agrees with a peer, known as `host` if it has no other name, on how to speak; it takes as
    /// long as the timer lets it.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        host: &str,
        timer: &Timer,
    ) -> Result<TlsStream, Failed> {
        let mut inner = self.begin(tcp, host)?;
        accept::until(timer, |cx| inner.poll_handshake(cx)).await?;
        self.finish(inner)
    }

    /// The same for as long as somebody waits.
    pub(crate) async fn connect_untimed(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Result<TlsStream, Failed> {
        let mut inner = self.begin(tcp, host)?;
        poll_fn(|cx| inner.poll_handshake(cx)).await?;
        self.finish(inner)
    }

    fn begin(&self, tcp: TcpStream, host: &str) -> io::Result<Inner> {
        let name = if let Some(name) = &self.name {
            name.clone()
        } else {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            ServerName::try_from(host.to_owned()).map_err(io::Error::other)?
        };
        let session =
            UnbufferedClientConnection::new(Arc::clone(&self.config), name).map_err(broken)?;
        Ok(Inner::new(tcp, Session::Client(Box::new(session))))
    }

    /// A peer that does not know of ALPN at all may well speak HTTP/1.1, but nobody has said so.
    fn finish(&self, inner: Inner) -> Result<TlsStream, Failed> {
        let facts = Facts::of(&inner.session, None);
        if self.http2 && !facts.http2 {
            return Err(Failed::no_http2());
        }
        Ok(TlsStream::new(inner, facts))
    }
}

/// The authorities that this system trusts, read once.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err("ca: this system trusts no authority; give one".to_owned());
        }
        Ok(Arc::new(roots))
    };
    ROOTS.get_or_init(read).clone()
}

/// Takes anybody's word. What is said is still encrypted, but to whom is not known.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
