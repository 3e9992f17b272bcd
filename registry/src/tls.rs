//! The API's certificate, from files that are read again when they change: a new certificate needs
//! no restart, and a bad one changes nothing.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Why a certificate cannot be used. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{setting}`: {}: {source}", path.display())]
    Read {
        /// `tls.cert` or `tls.key`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{setting}`: {}: {reason}", path.display())]
    Content {
        /// `tls.cert` or `tls.key`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The certificate in use and the files it came from.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads the files for the first time.
    pub(crate) fn load(files: TlsFiles) -> Result<(Arc<Self>, Loaded), TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pem = read(&files)?;
        let current = ArcSwap::from_pointee(certified(&files, &pem, &provider)?);
        let certificate = Self {
            files,
            provider,
            current,
        };
        Ok((Arc::new(certificate), Loaded(Ok(pem))))
    }

    /// The server's side of TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub(crate) fn server(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Takes a changed pair of files into use, until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, mut loaded: Loaded, stop: CancellationToken) {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look(loaded)).await;
            let Ok(next) = looked else { return };
            loaded = next;
        }
    }

    /// Reads the files; a pair that was seen before, good or bad, is passed over, so that each is
    /// logged once.
    fn look(&self, before: Loaded) -> Loaded {
        let found = match read(&self.files) {
            Ok(pem) => pem,
            Err(error) => {
                let text = error.to_string();
                if before.0.as_ref().err() != Some(&text) {
                    tracing::error!(error = text, "the certificate in use is kept");
                }
                return Loaded(Err(text));
            }
        };
        if before.0.as_ref() == Ok(&found) {
            return before;
        }
        match certified(&self.files, &found, &self.provider) {
            Ok(key) => {
                self.current.store(Arc::new(key));
                tracing::info!(cert = %self.files.cert.display(), "a new certificate is in use");
            }
            Err(error) => tracing::error!(%error, "the certificate in use is kept"),
        }
        Loaded(Ok(found))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// What was in the files when they were last read, or why they could not be.
#[derive(Debug)]
pub(crate) struct Loaded(Result<Pem, String>);

fn read(files: &TlsFiles) -> Result<Pem, TlsError> {
    let file = |setting, path: &PathBuf| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            setting,
            path: path.clone(),
            source,
        })
    };
    Ok(Pem {
        cert: file("tls.cert", &files.cert)?,
        key: file("tls.key", &files.key)?,
    })
}

fn certified(
    files: &TlsFiles,
    pem: &Pem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let bad = |setting, path: &PathBuf, reason: String| TlsError::Content {
        setting,
        path: path.clone(),
        reason,
    };
    let certs = CertificateDer::pem_slice_iter(&pem.cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad("tls.cert", &files.cert, e.to_string()))?;
    if certs.is_empty() {
        let reason = "no PEM block `CERTIFICATE` in it".to_owned();
        return Err(bad("tls.cert", &files.cert, reason));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|e| bad("tls.key", &files.key, e.to_string()))?;
    CertifiedKey::from_der(certs, key, provider).map_err(|e| {
        let reason = format!("it does not go with the certificate in `tls.cert`: {e}");
        bad("tls.key", &files.key, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn files(&self) -> TlsFiles {
            TlsFiles {
                cert: self.0.path().join("cert.pem"),
                key: self.0.path().join("key.pem"),
            }
        }

        fn write(&self, cert: &str, key: &str) {
            std::fs::write(self.files().cert, cert).unwrap();
            std::fs::write(self.files().key, key).unwrap();
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_bad_pair_keeps_the_old_one_and_a_good_one_replaces_it() {
        let dir = Dir(tempfile::tempdir().unwrap());
        let (cert, key) = pair();
        dir.write(&cert, &key);
        let (certificate, loaded) = Certificate::load(dir.files()).unwrap();
        let first = certificate.current.load_full();

        let (other_cert, other_key) = pair();
        dir.write(&other_cert, &key);
        let loaded = certificate.look(loaded);
        assert!(Arc::ptr_eq(&first, &certificate.current.load_full()));

        std::fs::remove_file(dir.files().key).unwrap();
        let loaded = certificate.look(loaded);
        assert!(Arc::ptr_eq(&first, &certificate.current.load_full()));

        dir.write(&other_cert, &other_key);
        let loaded = certificate.look(loaded);
        let second = certificate.current.load_full();
        assert_ne!(first.cert, second.cert);

        let _ = certificate.look(loaded);
        assert!(Arc::ptr_eq(&second, &certificate.current.load_full()));
    }

    #[test]
    fn errors_name_the_setting_and_the_file() {
        let dir = Dir(tempfile::tempdir().unwrap());
        let (cert, key) = pair();
        let error = |cert: &str, key: &str| {
            dir.write(cert, key);
            Certificate::load(dir.files()).unwrap_err().to_string()
        };
        let missing = Certificate::load(dir.files()).unwrap_err().to_string();
        assert!(missing.starts_with("`tls.cert`: "), "{missing}");
        assert!(error("", &key).contains("no PEM block `CERTIFICATE`"));
        assert!(error(&cert, "").starts_with("`tls.key`: "));
        assert!(error(&cert, &pair().1).contains("does not go with the certificate"));
    }
}
