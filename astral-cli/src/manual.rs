//! `completions` and `man`: made of the definition of the command line, so that they
//! are never out of date.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Shells};
use clap_mangen::Man;

use crate::args::{Args, Completions, Man as ManArgs, Shell};
use crate::failure::Failure;
use crate::{suggest, term};

/// The program's name, as shells call it.
const NAME: &str = "astral";
/// The variable by which a shell asks this program for completions.
const ASKED: &str = "COMPLETE";

/// Answers a shell that asks for completions, and ends the program then.
pub(crate) fn complete() {
    CompleteEnv::with_factory(Args::command)
        .var(ASKED)
        .complete();
}

/// Runs `completions`.
pub(crate) fn completions(completions: &Completions) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let name = completions.shell.name();
    let shell = shells
        .completer(name)
        .ok_or_else(|| Failure::other(format!("completions for {name} are not known")))?;
    let called = std::env::args_os().next();
    let mut script = Vec::new();
    shell.write_registration(ASKED, NAME, NAME, &completer(called), &mut script)?;
    print(&script)
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

/// What the shell calls: the name if this program was found by it, else its path.
fn completer(called: Option<OsString>) -> String {
    let path = called.map(PathBuf::from).unwrap_or_default();
    if path.components().count() < 2 {
        return NAME.to_owned();
    }
    let path = std::path::absolute(&path).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// Runs `man`.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.dir {
        return pages(folder);
    }
    let page = page(&args.command)?;
    if term::stdout_is_terminal() && read(&page) {
        return Ok(());
    }
    print(&page)
}

/// The page of a command, of `astral` itself without one.
fn page(words: &[String]) -> Result<Vec<u8>, Failure> {
    let mut command = Args::command();
    // Fills in what the commands inherit from `astral`, and their full names.
    command.build();
    let mut name = NAME.to_owned();
    let mut found = &command;
    for word in words {
        found = found.find_subcommand(word).ok_or_else(|| {
            let known = found.get_subcommands().map(clap::Command::get_name);
            let hint = suggest::hint(word, known);
            Failure::NotFound(format!("`{name}` has no command `{word}`{hint}"))
        })?;
        name = format!("{name}-{word}");
    }
    let mut page = Vec::new();
    Man::new(found.clone()).title(&name).render(&mut page)?;
    Ok(page)
}

/// Writes a page for `astral` and one for each command.
fn pages(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let failed = |error| Failure::other(format!("cannot write manual pages to {shown}: {error}"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
    term::line(&format!(
        "manual pages are in {shown}; read them with `man astral`"
    ))
}

/// Shows a page as `man` does; answers whether that was possible.
fn read(page: &[u8]) -> bool {
    let reader = Command::new("man")
        .args(["-l", "-"])
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut reader) = reader else { return false };
    if let Some(mut input) = reader.stdin.take() {
        // A reader who leaves early closes the pipe.
        let _ = input.write_all(page);
    }
    reader.wait().is_ok_and(|status| status.success())
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_calls_what_was_called() {
        assert_eq!(completer(None), "astral");
        assert_eq!(completer(Some("astral".into())), "astral");
        assert_eq!(completer(Some("/opt/bin/astral".into())), "/opt/bin/astral");
        let relative = completer(Some("target/debug/astral".into()));
        assert!(relative.starts_with('/') && relative.ends_with("target/debug/astral"));
    }

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let text = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            String::from_utf8(page(&words).unwrap()).unwrap()
        };
        assert!(text(&[]).contains("astral demo") && text(&[]).contains("Exit codes"));
        let watch = text(&["watch"]);
        assert!(
            watch.contains("astral watch my\\-show") && watch.contains("\\-\\-json"),
            "{watch}"
        );
        assert!(text(&["service", "install"]).contains("no\\-start"));
        let unknown = page(&["wach".to_owned()]).unwrap_err();
        assert_eq!(unknown.exit_code(), 4);
        assert!(
            unknown.to_string().contains("did you mean watch?"),
            "{unknown}"
        );
    }

    #[test]
    fn a_folder_gets_a_page_per_command() {
        let folder = tempfile::tempdir().unwrap();
        pages(folder.path()).unwrap();
        for page in ["astral.1", "astral-publish.1", "astral-service-install.1"] {
            let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
