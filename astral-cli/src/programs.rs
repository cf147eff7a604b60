//! The programs that belong to this `astral`: `astral-node` and `astral-web`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::home;

/// Finds a program of ours by name.
///
/// # Errors
/// It is nowhere: where it was looked for, and what makes it.
pub(crate) fn find(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let found = candidates(name, &own, home::environment("PATH"))
        .into_iter()
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::other(format!(
            "the program `{name}` is neither beside `astral` nor in PATH; \
             in the source folder `cargo build -p {name}` makes it"
        ))
    })
}

/// Where to look: beside this program, in the folder above (tests run one deeper),
/// in the build folder here, in PATH.
fn candidates(name: &str, own: &Path, path: Option<OsString>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(Path::to_owned)
        .collect();
    folders.extend(["target/release", "target/debug"].map(PathBuf::from));
    folders.extend(path.iter().flat_map(std::env::split_paths));
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    folders.iter().map(|folder| folder.join(&file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_beside_this_one_comes_first() {
        let path = std::env::join_paths(["/usr/bin", "/opt/bin"]).unwrap();
        let own = Path::new("/x/debug/deps/astral");
        let found = candidates("astral-node", own, Some(path));
        let expected = [
            "/x/debug/deps/astral-node",
            "/x/debug/astral-node",
            "target/release/astral-node",
            "target/debug/astral-node",
            "/usr/bin/astral-node",
            "/opt/bin/astral-node",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
