//! `service`: a node under systemd, of one user or of the machine.
//!
//! Writes a unit and calls `systemctl`; what a node does is the node's. Where systemd
//! does not run (in a container, say) the unit is written all the same, and what
//! remains to be done is said.

mod unit;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::args::{Global, Install, Scope, Service};
use crate::failure::Failure;
use crate::{home, programs, term};
use unit::Unit;

/// The unit's name.
const UNIT: &str = "astral-node.service";
/// There is systemd's own sign that it runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Folders of which a unit of the machine sees nothing (`ProtectHome=`).
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];

/// Runs the command.
pub(crate) fn run(global: &Global, service: &Service) -> Result<(), Failure> {
    match service {
        Service::Install(install) => self::install(global, install),
        Service::Uninstall(scope) => uninstall(global, *scope),
        Service::Status(scope) => status(global, *scope),
    }
}

fn install(global: &Global, install: &Install) -> Result<(), Failure> {
    let system = install.scope.system;
    let program = std::fs::canonicalize(programs::find("astral-node")?)?;
    if system {
        check_visible(&program)?;
    }
    let unit = Unit {
        program: &program,
        options: &install.options,
        system,
    };
    if install.print {
        return term::line(unit.text().trim_end());
    }
    let place = Place::of(install.scope)?;
    place.write(&unit.text())?;
    let say = |text: &str| {
        if global.quiet {
            Ok(())
        } else {
            term::line(text)
        }
    };
    say(&format!("wrote {}", place.file.display()))?;
    let begin = place.systemctl_words("enable --now");
    let reload = place.systemctl_words("daemon-reload");
    if install.no_start {
        return say(&format!("not started; that does: {reload} && {begin}"));
    }
    if !is_booted() {
        return Err(Failure::other(format!(
            "systemd does not run this machine (there is no {BOOTED}), so the service cannot be \
             started here; where it does: {reload} && {begin}"
        )));
    }
    place.systemctl(&["daemon-reload"])?;
    place.systemctl(&["enable", UNIT])?;
    // One that runs takes up the new unit, too.
    place.systemctl(&["restart", UNIT])?;
    say("the node runs, and starts again by itself")?;
    say("")?;
    match system {
        true => {
            say("look:    sudo astral --data-dir /var/lib/astral-node status")?;
            say(&format!("log:     journalctl -u {UNIT}"))?;
        }
        false => {
            say("look:    astral status")?;
            say(&format!("log:     journalctl --user -u {UNIT}"))?;
            say("always:  loginctl enable-linger    (else it ends when you log out)")?;
        }
    }
    let flag = if system { " --system" } else { "" };
    say(&format!("remove:  astral service uninstall{flag}"))
}

fn uninstall(global: &Global, scope: Scope) -> Result<(), Failure> {
    let place = Place::of(scope)?;
    let shown = place.file.display();
    if !place.file.exists() {
        return Err(Failure::NotFound(format!(
            "there is no service: {shown} does not exist"
        )));
    }
    if is_booted() {
        place.systemctl(&["disable", "--now", UNIT])?;
    }
    std::fs::remove_file(&place.file).map_err(|error| place.failed("remove", &error))?;
    if is_booted() {
        place.systemctl(&["daemon-reload"])?;
    }
    if !global.quiet {
        term::line(&format!(
            "removed {shown}; the node's data stays where it is"
        ))?;
    }
    Ok(())
}

fn status(global: &Global, scope: Scope) -> Result<(), Failure> {
    let place = Place::of(scope)?;
    let shown = place.file.display();
    let word = |of: &str| match is_booted() {
        true => place.ask(&[of, UNIT]),
        false => "unknown".to_owned(),
    };
    let installed = place.file.exists();
    let (enabled, active) = (word("is-enabled"), word("is-active"));
    if global.json {
        return crate::commands::json(&serde_json::json!({
            "unit": place.file, "installed": installed, "enabled": enabled, "active": active,
        }));
    }
    if !installed {
        let flag = if scope.system { " --system" } else { "" };
        return Err(Failure::NotFound(format!(
            "no service is installed ({shown} does not exist); `astral service install{flag}` does it"
        )));
    }
    for (key, value) in [
        ("unit", shown.to_string()),
        ("enabled", enabled),
        ("running", active),
    ] {
        let key = term::styled(term::Style::Bold, &format!("{key:<8}"));
        term::line(&format!("{key} {value}"))?;
    }
    if !is_booted() && !global.quiet {
        term::note(&format!(
            "systemd does not run this machine (there is no {BOOTED})"
        ));
    }
    Ok(())
}

/// Refuses a program that a unit of the machine could not see.
fn check_visible(program: &Path) -> Result<(), Failure> {
    if !HIDDEN.iter().any(|folder| program.starts_with(folder)) {
        return Ok(());
    }
    let shown = program.display();
    Err(Failure::other(format!(
        "a service of the machine sees nothing of people's homes, and {shown} is in one; \
         put it elsewhere first: sudo install -m 755 {shown} /usr/local/bin/, then call \
         `astral` from there, too"
    )))
}

fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Where the unit is, and whose manager cares for it.
struct Place {
    file: PathBuf,
    system: bool,
}

impl Place {
    fn of(scope: Scope) -> Result<Self, Failure> {
        let folder = match scope.system {
            true => PathBuf::from("/etc/systemd/system"),
            false => user_folder(home::environment)?,
        };
        Ok(Self {
            file: folder.join(UNIT),
            system: scope.system,
        })
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            let file = tempfile::Builder::new()
                .prefix(".astral-")
                .tempfile_in(folder)?;
            std::fs::write(file.path(), text)?;
            readable_by_all(file.path())?;
            Ok(file.persist(&self.file)?)
        });
        written
            .map(drop)
            .map_err(|error| self.failed("write", &error))
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        let shown = self.file.display();
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let hint = match denied && self.system {
            true => "; a service of the machine needs root: sudo astral service … --system",
            false => "",
        };
        Failure::other(format!("cannot {what} {shown}: {error}{hint}"))
    }

    /// A call of systemctl for people to type.
    fn systemctl_words(&self, what: &str) -> String {
        let (sudo, user) = if self.system {
            ("sudo ", "")
        } else {
            ("", " --user")
        };
        let unit = if what.contains("reload") {
            String::new()
        } else {
            format!(" {UNIT}")
        };
        format!("{sudo}systemctl{user} {what}{unit}")
    }

    fn systemctl(&self, words: &[&str]) -> Result<(), Failure> {
        let output = self.call(words)?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let call = words.join(" ");
        Err(Failure::other(format!(
            "`systemctl {call}` ended with {}: {errors}",
            output.status
        )))
    }

    /// The one word that systemctl answers, also where it ends with another code.
    fn ask(&self, words: &[&str]) -> String {
        let output = self
            .call(words)
            .map(|output| output.stdout)
            .unwrap_or_default();
        let word = String::from_utf8_lossy(&output).trim().to_owned();
        if word.is_empty() {
            "unknown".to_owned()
        } else {
            word
        }
    }

    fn call(&self, words: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new("systemctl");
        if !self.system {
            command.arg("--user");
        }
        let output = command.args(words).stdin(Stdio::null()).output();
        output.map_err(|error| Failure::other(format!("cannot call systemctl: {error}")))
    }
}

/// Units are no secret, and systemd says so if one looks like it.
#[cfg(unix)]
fn readable_by_all(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))
}

/// `$XDG_CONFIG_HOME/systemd/user`, or `~/.config/systemd/user` (systemd.unit(5)).
fn user_folder(env: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<PathBuf, Failure> {
    let folder = |name| env(name).map(PathBuf::from);
    folder("XDG_CONFIG_HOME")
        .or_else(|| Some(folder("HOME")?.join(".config")))
        .map(|config| config.join("systemd/user"))
        .ok_or_else(|| Failure::Usage("neither HOME nor XDG_CONFIG_HOME is set".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn a_users_unit_is_where_systemd_looks() {
        let find = |known: &'static [(&str, &str)]| {
            let env = |name: &str| {
                let found = known.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            user_folder(env).unwrap()
        };
        assert_eq!(
            find(&[("HOME", "/h")]),
            Path::new("/h/.config/systemd/user")
        );
        let both = find(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]);
        assert_eq!(both, Path::new("/c/systemd/user"));
    }

    #[test]
    fn a_program_in_a_home_is_refused_for_the_machine() {
        let failure = check_visible(Path::new("/home/u/bin/astral-node")).unwrap_err();
        assert!(failure.to_string().contains("sudo install"), "{failure}");
        assert!(check_visible(Path::new("/usr/local/bin/astral-node")).is_ok());
    }

    #[test]
    fn people_are_told_calls_that_they_can_type() {
        let file = PathBuf::from(UNIT);
        let user = Place {
            file: file.clone(),
            system: false,
        };
        let begin = user.systemctl_words("enable --now");
        assert_eq!(begin, "systemctl --user enable --now astral-node.service");
        let system = Place { file, system: true };
        assert_eq!(
            system.systemctl_words("daemon-reload"),
            "sudo systemctl daemon-reload"
        );
    }
}
