//! The tokens that are there before anybody could have made one: those of the configuration, and an
//! admin's where there is none at all.

use std::{
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use cardea_registry_api::{Name, api::Role};

use super::{TokenHash, new_secret};
use crate::{
    change::{Author, Change, Expected, SubmitError, TokenRecord},
    config::BootstrapToken,
    core::Core,
    time::now_ms,
};

/// The file in the data directory that has the first admin's token.
pub const ADMIN_FILE: &str = "admin.token";

/// Why the first tokens could not be put.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The file cannot be written.
    #[error("cannot keep the first admin token in {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No random numbers.
    #[error("cannot make a token: {0}")]
    Random(#[from] getrandom::Error),
    /// The registry refused them.
    #[error("cannot keep the first tokens: {0}")]
    Refused(SubmitError),
}

impl FirstTokenError {
    /// Whether it helps to wait: the database is away.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Refused(SubmitError::Unavailable { .. }))
    }
}

/// Puts what is missing. Doing it again changes nothing.
pub(crate) async fn put(
    core: &Core,
    tokens: &[BootstrapToken],
    data_dir: &Path,
) -> Result<(), FirstTokenError> {
    let state = core.state();
    let changes: Vec<Change> = tokens
        .iter()
        .map(record)
        .filter(|wanted| {
            let there = state.token(wanted.name.as_str());
            there.is_none_or(|there| !same(&there.object, wanted))
        })
        .map(|token| Change::PutToken {
            token,
            expected: Expected::Any,
        })
        .collect();
    if !changes.is_empty() {
        submit(core, changes).await?;
    }
    if tokens.is_empty() && state.tokens(None).next().is_none() {
        first_admin(core, data_dir).await?;
    }
    Ok(())
}

fn record(token: &BootstrapToken) -> TokenRecord {
    TokenRecord {
        name: token.name.clone(),
        role: token.role,
        services: token.services.clone(),
        created_at: now_ms(),
        sha256: TokenHash::of(token.secret.expose())
            .hex()
            .as_str()
            .to_owned(),
    }
}

fn same(a: &TokenRecord, b: &TokenRecord) -> bool {
    (&a.name, a.role, &a.services, &a.sha256) == (&b.name, b.role, &b.services, &b.sha256)
}

async fn submit(core: &Core, changes: Vec<Change>) -> Result<(), FirstTokenError> {
    core.submit(changes, Author::system())
        .await
        .map(|_| ())
        .map_err(FirstTokenError::Refused)
}

/// The file comes first: a token that nobody knows would lock everybody out.
async fn first_admin(core: &Core, data_dir: &Path) -> Result<(), FirstTokenError> {
    let name: Name = match "admin".parse() {
        Ok(name) => name,
        Err(_) => return Ok(()),
    };
    let path = data_dir.join(ADMIN_FILE);
    let (secret, new) = match kept(&path) {
        Some(secret) => (secret, false),
        None => (new_secret(Role::Admin)?, true),
    };
    if new {
        keep(&path, &secret).map_err(|source| FirstTokenError::File {
            path: path.clone(),
            source,
        })?;
    }
    let token = TokenRecord {
        name,
        role: Role::Admin,
        services: Vec::new(),
        created_at: now_ms(),
        sha256: TokenHash::of(&secret).hex().as_str().to_owned(),
    };
    let put = Change::PutToken {
        token,
        expected: Expected::None,
    };
    match submit(core, vec![put]).await {
        Ok(()) => {
            tracing::info!(file = %path.display(), "there was no token: an admin's was made, and is kept in this file");
            Ok(())
        }
        Err(FirstTokenError::Refused(SubmitError::Rejected { .. })) => {
            // Another replica on the same database was first: what is in our file opens nothing.
            if new {
                let _ = std::fs::remove_file(&path);
            }
            tracing::info!("there was no token; another replica has made an admin's");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// A token that an earlier start has kept: what its operators know goes on working when the
/// database was emptied.
fn kept(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let secret = text.trim();
    secret
        .strip_prefix("cardea_admin_")
        .is_some_and(|random| random.len() == 43)
        .then(|| secret.to_owned())
}

/// Readable by its owner only, whole or not at all.
fn keep(path: &Path, secret: &str) -> io::Result<()> {
    let draft = path.with_extension("token.new");
    let _ = std::fs::remove_file(&draft);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_its_owners_only_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ADMIN_FILE);
        let secret = new_secret(Role::Admin).unwrap();
        keep(&path, &secret).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(kept(&path), Some(secret));
        std::fs::write(&path, "nonsense\n").unwrap();
        assert_eq!(kept(&path), None);
    }
}
