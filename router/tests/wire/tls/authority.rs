//! A certificate authority, certificates of it, and both sides of TLS.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::harness::Wire;

/// Who signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key (PEM).
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A certificate for these hosts.
    pub(crate) fn sign(&self, hosts: &[&str]) -> Pair {
        self.sign_with(hosts, |_| {})
    }

    pub(crate) fn sign_with(
        &self,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()]
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// A table of a file of objects, with everything in it.
    pub(crate) fn table(&self, name: &str, lines: &str) -> String {
        format!(
            "[[certificate]]\nname = \"{name}\"\nchain = \"\"\"{}\"\"\"\nkey = \"\"\"{}\"\"\"\n{lines}\n",
            self.cert, self.key
        )
    }
}

/// A client's side.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
}

impl Client {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self::of(authority, rustls::ALL_VERSIONS, None)
    }

    /// With these versions and, perhaps, a certificate of its own.
    pub(crate) fn of(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(authority.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(own.chain(), own.private())
                .unwrap(),
        };
        config.resumption = Resumption::disabled();
        Self {
            config: Arc::new(config),
        }
    }

    pub(crate) fn resuming(mut self) -> Self {
        Arc::make_mut(&mut self.config).resumption = Resumption::default();
        self
    }

    /// Which asks for HTTP/2.
    pub(crate) fn asking_for_http2(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![b"h2".to_vec()];
        self
    }

    /// Connects; nothing has been said yet.
    pub(crate) fn connect(&self, to: SocketAddr, host: &str) -> Wire {
        let name = host.to_owned().try_into().unwrap();
        let session = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let mut wire = Wire::connect(to);
        wire.session = Some(Box::new(Connection::from(session)));
        wire
    }

    /// Connects and agrees on how to speak.
    pub(crate) fn try_connect(&self, to: SocketAddr, host: &str) -> std::io::Result<Wire> {
        let mut wire = self.connect(to, host);
        wire.handshake()?;
        Ok(wire)
    }
}

impl Wire {
    pub(crate) fn handshake(&mut self) -> std::io::Result<()> {
        let session = self.session.as_mut().unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut self.stream)?;
        }
        Ok(())
    }

    /// The other side's certificate.
    pub(crate) fn peer(&self) -> CertificateDer<'static> {
        let session = self.session.as_ref().unwrap();
        session.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub(crate) fn version(&self) -> rustls::ProtocolVersion {
        self.session.as_ref().unwrap().protocol_version().unwrap()
    }
}
