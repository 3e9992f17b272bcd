//! The data directory of `cardea dev`: marked as its own, locked while it runs.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cardea_registry_api::api::Role;
use nix::fcntl::{Flock, FlockArg};

use crate::exit::Exit;

/// The file that marks a directory as made by `cardea dev`; it is also the lock.
const MARKER: &str = ".cardea-dev";
const MARKER_TEXT: &str = "Made by `cardea dev`; `cardea dev --fresh` wipes this directory.\n";

/// The data directory, locked as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes or takes the directory; `fresh` forgets what is in it. A directory with something in it
    /// that `cardea dev` has not made is somebody else's, and left alone.
    pub(super) fn open(path: &Path, fresh: bool) -> Result<Self, Exit> {
        let wrong = |why: &str| Exit::failed(format!("{}: {why}", path.display()));
        let marker = path.join(MARKER);
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries.count(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path);
                made.map_err(|e| wrong(&e.to_string()))?;
                0
            }
            Err(error) => return Err(wrong(&error.to_string())),
        };
        let ours = fs::symlink_metadata(&marker).is_ok_and(|data| data.is_file());
        if entries > 0 && !ours {
            let verb = if fresh { "wiped" } else { "used" };
            return Err(wrong(&format!(
                "is not a data directory of `cardea dev` and is not {verb}; \
                 name another with --data-dir"
            )));
        }
        let lock = Self::lock(&marker).map_err(|e| wrong(&e))?;
        if fresh {
            wipe(path).map_err(|e| wrong(&e.to_string()))?;
        }
        for inner in ["logs", "agents"] {
            fs::create_dir_all(path.join(inner)).map_err(|e| wrong(&e.to_string()))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    fn lock(marker: &Path) -> Result<Flock<File>, String> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(marker);
        let file = file.map_err(|e| e.to_string())?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                if lock.metadata().is_ok_and(|data| data.len() == 0) {
                    lock.write_all(MARKER_TEXT.as_bytes())
                        .map_err(|e| e.to_string())?;
                }
                Ok(lock)
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(
                "another `cardea dev` runs here; stop it first, or name another directory with \
                 --data-dir (and other ports)"
                    .to_owned(),
            ),
            Err((_, error)) => Err(error.to_string()),
        }
    }

    /// A path in it.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The token of a role, made at the first start and kept for its owner's eyes only.
    pub(super) fn token(&self, role: Role) -> Result<String, Exit> {
        let name = token_file(role);
        let path = self.join(name);
        let wrong = |e: std::io::Error| Exit::failed(format!("{}: {e}", path.display()));
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(error)),
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| Exit::failed(format!("random numbers: {e}")))?;
        let role = name.trim_end_matches(".token");
        let token = format!("cardea_{role}_{}", URL_SAFE_NO_PAD.encode(random));
        write_private(&path, &format!("{token}\n")).map_err(wrong)?;
        Ok(token)
    }
}

/// Where a role's token is kept.
pub(super) fn token_file(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent.token",
        Role::Router => "router.token",
        Role::Viewer => "viewer.token",
        Role::Operator => super::OPERATOR_TOKEN,
        Role::Admin => "admin.token",
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    drop(fs::remove_file(&temporary));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Removes everything but the marker, which is the lock that is being held.
fn wipe(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_its_own_directory_is_wiped() {
        let parent = tempfile::tempdir().unwrap();
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.txt"), "years").unwrap();
        for fresh in [false, true] {
            assert!(DataDir::open(&foreign, fresh).is_err());
        }
        assert!(foreign.join("thesis.txt").exists());

        let own = parent.path().join("own");
        let dir = DataDir::open(&own, false).unwrap();
        fs::write(dir.join("cardea.db"), "old").unwrap();
        drop(dir);
        let dir = DataDir::open(&own, false).unwrap();
        assert!(dir.join("cardea.db").exists());
        drop(dir);
        let dir = DataDir::open(&own, true).unwrap();
        assert!(!dir.join("cardea.db").exists());
    }

    #[test]
    fn one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataDir::open(parent.path(), false).unwrap();
        let Err(Exit::Failed(error)) = DataDir::open(parent.path(), false) else {
            panic!("two at a time");
        };
        assert!(
            error.to_string().contains("another `cardea dev`"),
            "{error}"
        );
        drop(first);
        DataDir::open(parent.path(), false).unwrap();
    }

    #[test]
    fn a_token_is_made_once_and_kept_private() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path(), false).unwrap();
        let token = dir.token(Role::Operator).unwrap();
        assert!(
            token.starts_with("cardea_operator_") && token.len() == 16 + 43,
            "{token}"
        );
        assert_eq!(dir.token(Role::Operator).unwrap(), token);
        let mode = fs::metadata(dir.join("operator.token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
