//! Files that survive a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::clock::wall_ms;

/// Writes a file whole or not at all: a temporary file beside it, synced, renamed, the directory
/// synced. Readable by its owner only: it may hold hashes of tokens.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a directory's entries durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Sets a damaged file aside; where it is now.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = aside_name(path);
    fs::rename(path, &aside)?;
    sync_parent(path)?;
    Ok(aside)
}

/// Where a damaged file is put.
pub(crate) fn aside_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{}", wall_ms()));
    path.with_file_name(name)
}
