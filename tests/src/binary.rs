//! Finds the programs under test beside the running test program.

use std::path::PathBuf;

/// The target folder's profile directory (`target/debug`) that the running program is from.
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this program");
    let mut dir = exe.parent().expect("a folder").to_path_buf();
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.pop();
    }
    dir
}

/// The path of a program that the workspace builds; `CARDEA_BIN_DIR` names another folder.
///
/// # Panics
/// When it was not built.
pub fn find(name: &str) -> PathBuf {
    let dir = std::env::var_os("CARDEA_BIN_DIR").map_or_else(profile_dir, PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it first with `cargo build --workspace` (tests/run does)",
        path.display()
    );
    path
}

/// The `cardea` command.
pub fn cardea() -> PathBuf {
    find("cardea")
}
